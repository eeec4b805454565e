"""The demo: a real process and a real browser, on results that the pipeline made."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import app
from aya_probes import errors, project, run_folder
from aya_probes.page import plots, tabs
from aya_probes.page.data import load_data
from aya_probes.page.pair import PairModel

CHROMIUM = Path("/usr/bin/chromium")


def test_missing_results_name_the_command(tmp_path: Path, capsys: Any) -> None:
    assert app.main(["--demo", "--run-dir", str(tmp_path)]) == 1
    assert "uv run concept_alignment.py" in capsys.readouterr().err


def test_figures_mark_controls_and_untestable_cells(tiny_run: Path) -> None:
    data = load_data(run_folder.RunPaths(tiny_run))
    measure = "raw cosine on the last token (as published)"
    figure = plots.plot_curves(data.results, "sw", ["base"], measure, plots.ALL_CONCEPTS)
    names = [trace.name for trace in figure.data]
    assert "base, mismatched (control)" in names
    # English and Swahili sentences all end in "."; the last token is the same in both.
    assert any("untestable" in note.text for note in figure.layout.annotations)
    matrix = plots.plot_commitment(data.results, data.layers)
    assert matrix.data[0].y == data.results.info.variants


def test_every_measure_of_a_run_is_drawn_from_its_results(tiny_run: Path) -> None:
    results = load_data(run_folder.RunPaths(tiny_run)).results
    labels = plots.available(results)
    # Five concepts have no shapes and no contrasts, but every measure.
    assert labels == list(plots.MEASURES)
    for label in labels:
        measure = plots.MEASURES[label]
        figure = plots.plot_curves(results, "hi", ["fire"], label, plots.ALL_CONCEPTS)
        curve = results.curve(measure.name, "fire", "hi", measure.pooling)
        assert curve is not None, label
        assert list(curve.mean) in [list(trace.y) for trace in figure.data], label
        has_chance = any("chance" in (note.text or "") for note in figure.layout.annotations)
        assert has_chance == label.startswith("corpus: two-way retrieval")


def test_contrasts_are_chosen_by_family_measure_and_window(tiny_run: Path) -> None:
    rows = load_data(run_folder.RunPaths(tiny_run)).contrasts
    table = pd.DataFrame([dataclasses.asdict(row) for row in rows])
    found = tabs.matching(table, family="region", measure=tabs.ANY, window="middle")
    wanted = [(r.family, r.window) == ("region", "middle") for r in rows]
    assert list(found.index) == [n for n, keep in enumerate(wanted) if keep]
    assert 0 < len(found) < len(table)
    assert len(tabs.matching(table, family=tabs.ANY)) == len(table)


def test_a_typed_pair_of_equal_sentences_has_cosine_one(tiny_run: Path) -> None:
    model = PairModel(run_folder.RunPaths(tiny_run), "cpu")
    curve = model.cosine("base", "The eye.", "The eye.")
    assert len(curve) == 5
    assert curve == pytest.approx([1.0] * 5, abs=1e-5)
    with pytest.raises(errors.StudyError, match="both boxes"):
        model.cosine("base", "The eye.", "  ")


def test_demo_imports_no_torch(tiny_run: Path) -> None:
    code = (
        "import pathlib, sys\n"
        "from aya_probes.page import data, tabs\n"
        "from aya_probes.run_folder import RunPaths\n"
        f"tabs.build_page(data.load_data(RunPaths(pathlib.Path({str(tiny_run)!r}))), None)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


@contextlib.contextmanager
def served_page(run: Path, *flags: str) -> Iterator[tuple[Any, str, list[str]]]:
    """Start the real process and open it in Chromium; yields page, address and asked URLs."""
    from playwright.sync_api import sync_playwright

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
                page.set_default_timeout(30_000)
                hosts: list[str] = []
                page.on("request", lambda request: hosts.append(request.url))
                page.goto(f"http://127.0.0.1:{port}")
                yield page, f"http://127.0.0.1:{port}/", hosts
                browser.close()
        finally:
            server.terminate()


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium")
def test_page_in_a_real_browser_stays_on_loopback(tiny_run: Path) -> None:
    from playwright.sync_api import expect

    with served_page(tiny_run, "--demo") as (page, address, hosts):
        title = page.locator(".gtitle").first
        expect(title).to_contain_text("Hindi", timeout=30_000)
        page.get_by_label("Language").first.click()
        page.get_by_role("option", name="Swahili").click()
        expect(title).to_contain_text("Swahili", timeout=30_000)
        assert page.get_by_role("tab", name="Your own pair").count() == 0
        page.get_by_role("tab", name="Contrasts").click()
        cell = page.get_by_role("gridcell", name="fire - global").first
        expect(cell).to_be_visible(timeout=30_000)
        page.get_by_role("tab", name="Failures").click()
        cell = page.get_by_role("gridcell", name="UNICODE_EDGE").first
        expect(cell).to_be_visible(timeout=30_000)
    assert [url for url in hosts if not url.startswith((address, "data:", "blob:"))] == []


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium")
def test_a_typed_pair_is_computed_in_a_real_browser(tiny_run: Path, capfd: Any) -> None:
    from playwright.sync_api import expect

    with served_page(tiny_run, "--device", "cpu") as (page, _, _):
        page.get_by_role("tab", name="Your own pair").click()
        page.get_by_label("English sentence").fill("The eye was seen again.")
        button = page.get_by_role("button", name="Compute")
        button.click()
        expect(page.get_by_text("type a sentence in both boxes")).to_be_visible(timeout=30_000)
        page.get_by_label("The other sentence").fill("Ile jicho ilionekana tena.")
        button.click()
        drawn = page.locator(".js-plotly-plot:visible .gtitle")
        expect(drawn).to_contain_text("base", timeout=60_000)
    assert "Traceback" not in capfd.readouterr().err  # an empty box is a message on the page alone
