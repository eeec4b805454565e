"""The page as visitors meet it: a real process, a real browser, and the API."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import app
from aya_probes import errors, files, project, run_folder
from aya_probes.page import build, curves, typed
from aya_probes.page.data import PageData, load_data
from aya_probes.page.measures import MEASURES, available, on_corpus
from aya_probes.page.pair import PairModel, TypedPair, read_pairs
from aya_probes.page.view import complete, render
from tools import token_pieces

CHROMIUM = Path("/usr/bin/chromium")
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium")


def test_missing_results_name_the_command(tmp_path: Path, capsys: Any) -> None:
    assert app.main(["--demo", "--run-dir", str(tmp_path)]) == 1
    assert "uv run concept_alignment.py" in capsys.readouterr().err


def test_every_measure_of_a_run_is_drawn_from_its_results(tiny_run: Path) -> None:
    data = load_data(run_folder.RunPaths(tiny_run))
    view = curves.make(data)
    # Five concepts have no shapes and no contrasts, but every measure.
    assert available(data.results) == list(MEASURES)
    for measure in MEASURES:
        chosen = {"languages": ["hi"], "variants": ["fire"], "measure": [measure]}
        content = view.show(complete(view, chosen))
        curve = data.results.curve(measure, "fire", "hi")
        assert curve is not None, measure
        assert [row["mean"] for row in content.rows] == [*curve.mean, curve.final_norm], measure
        assert on_corpus(measure) == measure.startswith("parallel")


def test_contrasts_are_chosen_by_family_measure_and_window(tiny_run: Path) -> None:
    data = load_data(run_folder.RunPaths(tiny_run))
    view = {v.name: v for v in build.make_views(data)}["differences"]
    found = view.show(complete(view, {"family": ["region"], "window": ["middle"]})).rows
    measure = next(c for c in view.controls if c.name == "measure").value[0]
    wanted = [
        dataclasses.asdict(r)
        for r in data.contrasts
        if (r.family, r.window, r.measure) == ("region", "middle", measure)
    ]
    assert list(found) == wanted
    assert 0 < len(found) < len(data.contrasts)


def test_demo_imports_neither_torch_nor_a_drawing_library(tiny_run: Path) -> None:
    code = (
        "import pathlib, sys\n"
        "from aya_probes.page import build, data\n"
        "from aya_probes.run_folder import RunPaths\n"
        f"build.build_page(data.load_data(RunPaths(pathlib.Path({str(tiny_run)!r}))), None)\n"
        "print([m for m in ('torch', 'transformers', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_text_of_every_token_is_saved_and_shown(
    tiny_run: Path, tiny_suite: Path, tmp_path: Path, capsys: Any
) -> None:
    paths = run_folder.RunPaths(tmp_path)
    shutil.copytree(tiny_run / "results", paths.results)
    before = load_data(paths)
    assert before.pieces == {}
    assert "uv run tools/token_pieces.py" in shown_tokens(before)
    flags = ["--run-dir", str(tmp_path), "--suite", str(tiny_suite)]
    assert token_pieces.main(flags) == 0
    assert capsys.readouterr().out.strip() == str(paths.token_pieces)
    after = load_data(paths)
    used = {n for probe in after.tokens["probes"].values() for n in probe["token_ids"]}
    assert after.pieces.keys() == {str(n) for n in used}
    assert "token_pieces" not in shown_tokens(after)
    assert files.matches_sum(paths.token_pieces)


def shown_tokens(data: PageData) -> str:
    return render({v.name: v for v in build.make_views(data)}["tokens"], {})


# --- typed sentences ---------------------------------------------------------------------------


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two languages whose sentences share half of their variance: ``[sentence, layer, hidden]``."""
    draw = np.random.default_rng(seed)
    shared = draw.normal(size=(60, 3, 32))
    sides = [shared + draw.normal(size=shared.shape) + 5 * draw.normal(size=32) for _ in range(2)]
    return sides[0], sides[1], np.arange(60)


def test_a_planted_translation_is_above_other_meanings_and_noise_is_not() -> None:
    left, right, meaning = planted()
    among = typed.reference(left[:50], right[:50], meaning[:50])
    matched = [typed.place(left[n], right[n], among) for n in range(50, 60)]
    crossed = [typed.place(left[n], right[n - 5], among) for n in range(55, 60)]
    assert np.mean([p.percentile.mean() for p in matched]) > 95
    assert 20 < np.mean([p.percentile.mean() for p in crossed]) < 80
    assert np.mean([p.alignment for p in matched]) > 0.3
    assert abs(np.mean([p.alignment for p in crossed])) < 0.15


def test_the_percentile_is_the_share_of_mismatched_pairs_below() -> None:
    left, right, meaning = planted(1)
    among = typed.reference(left, right, meaning)
    placed = typed.place(left[0], right[0], among)
    # Derived a second way: standardise, normalise, and count pair by pair.
    a, b = ((v - v.mean(0)) / v.std(0) for v in (left.astype(np.float64), right.astype(np.float64)))
    for layer in range(left.shape[1]):
        x, y = a[:, layer], b[:, layer]
        table = (x @ y.T) / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))
        others = [table[i, j] for i in range(60) for j in range(60) if i != j]
        assert placed.cosine[layer] == pytest.approx(table[0, 0])
        wanted = 100 * np.mean([v < table[0, 0] for v in others])
        assert placed.percentile[layer] == pytest.approx(wanted)


def test_sentences_about_one_thing_are_no_mismatched_pair() -> None:
    left, right, _ = planted(2)
    meaning = np.arange(60) // 3
    assert len(typed.reference(left, right, meaning).mismatched) == 60 * 57
    with pytest.raises(ValueError, match="two meanings"):
        typed.reference(left, right, np.zeros(60))
    with pytest.raises(ValueError, match="one shape"):
        typed.reference(left, right[:50], meaning)


def test_a_typed_pair_is_placed_among_the_runs_own_pairs(tiny_run: Path) -> None:
    model = PairModel(run_folder.RunPaths(tiny_run), "cpu")
    pair = TypedPair("en", "The eye was seen again.", "sw", "Ile jicho ilionekana tena.")
    found = list(model.compute(pair, ["base", "untrained"]))
    assert [result.variant for result in found] == ["base", "untrained"]
    for result in found:
        assert result.placed.cosine.shape == (5,)
        known = result.placed.percentile[~np.isnan(result.placed.percentile)]
        assert ((known >= 0) & (known <= 100)).all()
        assert all(len(pieces) > 1 for pieces in result.pieces)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (TypedPair("en", "The eye.", "sw", "  "), "type a sentence in both boxes"),
        (TypedPair("en", "The eye.", "xx", "..."), "no language 'xx'"),
        (TypedPair("en", "The eye.", "sw", "a" * 2001), "2001 characters; at most 2000"),
        (TypedPair("en", "The eye.", "en", "The ear."), "one language"),
    ],
)
def test_a_pair_that_cannot_be_placed_is_refused_with_the_reason(
    tiny_run: Path, pair: TypedPair, words: str
) -> None:
    model = PairModel(run_folder.RunPaths(tiny_run), "cpu")
    with pytest.raises(errors.StudyError, match=words):
        next(model.compute(pair, ["base"]))


HEADER = b"language_a,text_a,language_b,text_b\n"


def test_pairs_of_a_file_are_read_with_commas_and_line_ends_in_sentences() -> None:
    content = HEADER + 'en,"A, b\nc",ar,"خد، شت."\n'.encode()
    assert read_pairs(b"\xef\xbb\xbf" + content) == [TypedPair("en", "A, b\nc", "ar", "خد، شت.")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n1,2\n", "the columns are a, b; expected language_a"),
        (b"", "the columns are none"),
        (HEADER, "no pair"),
        (HEADER + b"en,x,sw,y\n" * 21, "21 pairs, at most 20"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"x" * 200_001, "at most 200000"),
    ],
)
def test_a_file_with_other_content_is_refused_with_the_reason(content: bytes, words: str) -> None:
    with pytest.raises(errors.StudyError, match=words):
        read_pairs(content)


# --- the API -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def committed() -> PageData:
    return load_data(run_folder.RunPaths())


def test_every_view_has_a_named_endpoint_that_returns_its_rows(committed: PageData) -> None:
    from gradio_client import Client  # type: ignore[import-untyped]
    from gradio_client.exceptions import AppError  # type: ignore[import-untyped]

    views = {view.name: view for view in build.make_views(committed)}
    page = build.build_page(committed, None)
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        client = Client(address, verbose=False, analytics_enabled=False)
        named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
        assert set(named) == {f"/{name}" for name in views}
        chosen = {"languages": ["hi"], "variants": ["base"]}
        rows = client.predict(**chosen, api_name="/curves")
        wanted = views["curves"].show(complete(views["curves"], chosen)).rows
        assert rows == [dict(row) for row in wanted]
        assert client.predict(api_name="/findings")[0]["verdict"] == "established"
        with pytest.raises(AppError, match="unknown measure"):
            client.predict(measure="nonsense", api_name="/curves")
        assert client.predict(api_name="/findings")  # the server stays up
    finally:
        page.close()


# --- the browser --------------------------------------------------------------------------------


@contextlib.contextmanager
def served_page(run: Path, *flags: str) -> Iterator[tuple[Any, str, list[str]]]:
    """Start the real process and open Chromium; yields a page, the address and what is asked for.

    The last one also gets every message of the console that is an error, as ``error: ...``.
    """
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(project.ROOT / "app.py"), "--port", str(port)]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, "--run-dir", str(run), *flags], stdout=subprocess.PIPE, text=True, env=env
    ) as server:
        try:
            assert server.stdout is not None
            assert any(f":{port}" in line for line in server.stdout)
            with sync_playwright() as play:
                browser = play.chromium.launch(
                    executable_path=str(CHROMIUM),
                    args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
                )
                page = browser.new_page()
                page.set_default_timeout(60_000)
                seen: list[str] = []
                page.on("request", lambda request: seen.append(request.url))
                page.on(
                    "console",
                    lambda m: seen.append(f"error: {m.text}") if m.type == "error" else None,
                )
                page.on("pageerror", lambda error: seen.append(f"error: {error}"))
                yield page, f"http://127.0.0.1:{port}/", seen
                browser.close()
        finally:
            server.terminate()


@needs_chromium
def test_a_visitor_finds_the_numbers_and_the_page_stays_on_loopback() -> None:
    from playwright.sync_api import expect

    with served_page(project.ROOT, "--demo") as (page, address, seen):
        page.goto(address)
        expect(page.get_by_role("heading", name="Is a concept or its category")).to_be_visible()
        assert page.get_by_role("tab", name="Your sentences").count() == 0
        # A finding leads to the view that shows it, with its settings.
        page.get_by_role("link", name="Is it the concept itself").click()
        expect(page.get_by_role("img", name="Hindi")).to_be_visible()
        assert "measure=concept_within_category" in page.url
        # The address follows the settings, and restores them.
        page.get_by_label("Bengali (bn)").uncheck()
        expect(page.get_by_role("img", name="Bengali")).to_have_count(0)
        page.wait_for_url(lambda url: "languages=" in url)
        page.goto(page.url)
        expect(page.get_by_role("img", name="Hindi")).to_be_visible()
        expect(page.get_by_label("Bengali (bn)")).not_to_be_checked()
        with page.expect_download() as chosen:
            page.get_by_role("button", name="Charts of Curves as PNG").click()
        assert Path(chosen.value.path()).read_bytes().startswith(b"\x89PNG")
        # Keyboard only: tabs by arrow keys.
        page.get_by_role("tab", name="Curves").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        expect(page.get_by_role("img", name="base.").first).to_be_visible()
        # A link that does not fit is a message, and nothing in it runs.
        page.goto(f"{address}?view=curves&measure=<img src=x onerror=alert(1)>")
        expect(page.get_by_role("alert")).to_contain_text("does not fit this run")
    outside = [s for s in seen if not s.startswith((address, "data:", "blob:", "error: "))]
    assert outside == []
    assert console_errors(seen) == []


def console_errors(seen: list[str]) -> list[str]:
    """Return the errors of the console, without the requests that leaving a page ends."""
    ended = ("AbortError", "errored out")
    return [s for s in seen if s.startswith("error: ") and not any(word in s for word in ended)]


def axe_source() -> str:
    """Return axe-core's script, or skip: it is an npm package and no dependency of the project."""
    places = [Path(os.environ.get("AXE_CORE", "node_modules/axe-core/axe.min.js"))]
    places.append(Path("/usr/share/javascript/axe-core/axe.min.js"))
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8")
    pytest.skip("needs axe-core: npm pack axe-core, and AXE_CORE=.../axe.min.js")


AXE = """async () => {
  const found = await axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]});
  return found.violations.map(v => v.id + ": " + v.nodes.slice(0, 3).map(n => n.html).join(" | "));
}"""


@needs_chromium
@pytest.mark.parametrize(("width", "theme"), [(1200, "light"), (390, "dark")])
def test_every_view_passes_axe_and_fits_the_window(width: int, theme: str) -> None:
    from playwright.sync_api import expect

    script, found = axe_source(), {}
    with served_page(project.ROOT, "--demo") as (page, address, seen):
        page.set_viewport_size({"width": width, "height": 900})
        for name in [view.name for view in build.make_views(load_data(run_folder.RunPaths()))]:
            page.goto(f"{address}?view={name}&__theme={theme}")
            expect(page.locator(".view:visible").first).to_be_visible()
            wide = page.evaluate("document.documentElement.scrollWidth")
            page.evaluate(script)
            problems = page.evaluate(AXE) + ([f"{wide} px wide"] if wide > width else [])
            if problems:
                found[name] = problems
    assert found == {}
    assert console_errors(seen) == []


@needs_chromium
def test_typed_sentences_are_computed_in_a_real_browser(tiny_run: Path, capfd: Any) -> None:
    from playwright.sync_api import expect

    with served_page(tiny_run, "--device", "cpu") as (page, address, _):
        page.goto(address)
        page.get_by_role("tab", name="Your sentences").click()
        page.get_by_label("First sentence").fill("The eye was seen again.")
        button = page.get_by_role("button", name="Compute", exact=True)
        button.click()
        expect(page.get_by_text("type a sentence in both boxes")).to_be_visible()
        page.get_by_label("Second sentence").fill('<img src=x onerror="alert(1)"> jicho.')
        button.click()
        expect(page.get_by_role("img", name="untrained.")).to_be_visible(timeout=120_000)
        assert page.locator(".view img").count() == 0
    assert "Traceback" not in capfd.readouterr().err  # an empty box is a message on the page alone
