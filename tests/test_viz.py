"""Figures and tables: the numbers drawn are those of the results."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import artifacts
import study
from viz import alignment_curves, annotated_curve, heatmap, report_tables


def test_the_report_agrees_with_the_committed_results() -> None:
    assert report_tables.main(["--check"]) == 0


def test_the_numbers_beside_a_figure_are_the_results(tiny_run: Path) -> None:
    paths = study.RunPaths(tiny_run)
    curves = artifacts.load_curves(paths.curves)
    drawn = pd.read_csv(paths.assets / "tweet_three_panel.csv")
    mine = drawn[
        (drawn.variant == "fire") & (drawn.language == "hi") & (drawn.measure == "concept")
    ]
    expected = curves["measures"]["span_mean"]["concept"]["fire"]["hi"]
    assert mine["mean"].tolist()[:-1] == pytest.approx(expected["mean"], rel=1e-4)


def test_figures_have_the_same_bytes_twice(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run / "results", tmp_path / "results")
    for draw in (alignment_curves.main, annotated_curve.main, heatmap.main):
        assert draw(["--run-dir", str(tmp_path)]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "assets").iterdir()}
    assert len([name for name in before if name.endswith(".png")]) >= 4
    for draw in (alignment_curves.main, annotated_curve.main, heatmap.main):
        assert draw(["--run-dir", str(tmp_path)]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "assets").iterdir()} == before


@pytest.mark.parametrize("draw", [alignment_curves.main, annotated_curve.main, heatmap.main])
def test_missing_results_name_the_command(tmp_path: Path, capsys: Any, draw: Any) -> None:
    assert draw(["--run-dir", str(tmp_path)]) == 1
    assert "uv run concept_alignment.py" in capsys.readouterr().err


def test_an_unknown_language_lists_the_valid_ones(tiny_run: Path, capsys: Any) -> None:
    assert alignment_curves.main(["--run-dir", str(tiny_run), "--languages", "xx"]) == 2
    assert "hi, sw" in capsys.readouterr().err
