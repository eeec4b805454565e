"""The view of the curves that the original study published."""

from __future__ import annotations

from aya_probes import figures
from aya_probes.charts import lines
from aya_probes.charts.lines import Line, LinePanel
from aya_probes.charts.svg import escape
from aya_probes.charts.variants import SHAPES, Look, legend
from aya_probes.page import html
from aya_probes.page.data import PageData
from aya_probes.page.view import MANY, Content, Control, Settings, View
from aya_probes.published import MAKE_PUBLISHED, Reanalysis, load, ratio_table
from aya_probes.results.curves import Curve


def make(data: PageData) -> View:
    """Return the view."""
    found = data.published
    codes = list(found.layer_0["base"]) if found else []
    named = [(figures.language_name(code), code) for code in codes]
    controls = (Control("languages", "Languages", named, codes[:4], MANY),) if codes else ()

    def show(settings: Settings) -> Content:
        if found is None:
            text = f"Not computed yet. Make it with <code>{escape(MAKE_PUBLISHED)}</code>."
            return Content([], below=f'<p class="missing">{text}</p>')
        return _content(found, list(settings["languages"]))

    return View(
        "published",
        "Published study",
        "Curves of another study on Tiny Aya, read again; not a run of this project. Raw cosine "
        "of the last token without a control cannot show alignment.",
        controls,
        show,
    )


def _content(found: Reanalysis, chosen: list[str]) -> Content:
    _, languages, cosines = load()
    seen = {
        name: Look(name, f"v{n}", None, SHAPES[n % len(SHAPES)]) for n, name in enumerate(cosines)
    }
    panels, rows = [], []
    for code in chosen:
        drawn = []
        for name, values in cosines.items():
            mean = values[:, languages.index(code)].mean(0)
            curve = Curve(tuple(map(float, mean[:-1])), float(mean[-1]))
            drawn.append(Line(name, seen[name], curve))
            rows += [
                {"variant": name, "language": code, "layer": n, "cosine": float(value)}
                for n, value in enumerate(mean)
            ]
        start = found.layer_0["base"][code]
        note = f"layer 0: {start.cosine:.2f} for all concepts" if start.constant else ""
        panels.append(LinePanel(figures.language_name(code), "raw cosine, last token", drawn, note))
    last = max((len(p.lines[0].curve.mean) for p in panels), default=1) - 1
    between = lines.value_range(panels)
    header, table = ratio_table(found)
    region = found.difference_in_differences["matched_layer"]
    words = (
        f"fire − earth at layer {found.matched_layer}, South Asia minus Africa and West Asia: "
        f"{region.estimate:+.3f} [{region.lower:.3f}, {region.upper:.3f}], n = {region.n} concepts;"
        f" exact p over language labels {region.p_language:.3f} (smallest possible value "
        f"{region.p_language_floor:.3f})."
    )
    caption = "Ratios of mean cosine to base, minus 1, with 95% intervals over 20 concepts"
    return Content(
        rows,
        [lines.draw(panel, last, between) for panel in panels],
        legend(seen) if panels else "",
        html.paragraph(words) + html.table(header, table, caption),
        f"Source: {found.source}",
    )
