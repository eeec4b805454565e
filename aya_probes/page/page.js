// The address follows the view that is shown, and a chart can be saved as PNG.
(() => {
  const shown = () =>
    [...document.querySelectorAll(".view")].find((view) => view.offsetParent !== null);

  // Until the view that the address asks for is there, the address is left alone.
  let asked = new URLSearchParams(location.search).get("view");

  const follow = () => {
    const view = shown();
    if (!view || view.dataset.link === undefined) return;
    if (asked && new URLSearchParams(view.dataset.link).get("view") !== asked) return;
    asked = null;
    const theme = new URLSearchParams(location.search).get("__theme");
    const link = view.dataset.link + (theme ? `&__theme=${theme}` : "");
    if (link !== location.search) history.replaceState(null, "", link);
  };

  const png = async (button) => {
    const answer = await fetch(button.dataset.svg);
    if (!answer.ok) return;
    const image = new Image();
    const url = URL.createObjectURL(new Blob([await answer.text()], { type: "image/svg+xml" }));
    await new Promise((done, failed) => {
      image.onload = done;
      image.onerror = failed;
      image.src = url;
    });
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth * 2;
    canvas.height = image.naturalHeight * 2;
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(url);
    const link = document.createElement("a");
    link.download = button.dataset.name;
    link.href = canvas.toDataURL("image/png");
    link.click();
  };

  for (const name of ["pointerdown", "keydown"])
    document.addEventListener(name, () => { asked = null; }, true);
  // The arrow keys move between tabs; Enter opens one.
  document.addEventListener("keydown", (event) => {
    const tab = event.target.closest?.('[role="tab"]');
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!tab || !step) return;
    const tabs = [...tab.closest('[role="tablist"]').querySelectorAll('[role="tab"]')];
    tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length].focus();
    event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button.png");
    if (button) png(button);
  });
  const watch = () => {
    document.documentElement.lang = "en";
    let waiting = 0;
    new MutationObserver(() => {
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(follow);
    }).observe(document.body, {
      subtree: true, childList: true, attributes: true, attributeFilter: ["style", "class"],
    });
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", watch);
  else watch();
})();
