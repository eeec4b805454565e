"""Figures and tables: the numbers drawn are those of the results."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aya_probes import files, published, run_folder
from aya_probes.results.alignment import load_results
from aya_probes.results.curves import CONCEPT
from viz import alignment_curves, annotated_curve, heatmap, hero, published_reanalysis

FIGURES = (alignment_curves.main, annotated_curve.main, heatmap.main, hero.main)


def test_the_numbers_beside_a_figure_are_the_results(tiny_run: Path) -> None:
    paths = run_folder.RunPaths(tiny_run)
    drawn = pd.read_csv(paths.assets / "tweet_three_panel.csv")
    mine = drawn[(drawn.variant == "fire") & (drawn.language == "hi") & (drawn.measure == CONCEPT)]
    curve = load_results(paths.curves).curve(CONCEPT, "fire", "hi")
    assert curve is not None
    assert mine["mean"].tolist()[:-1] == pytest.approx(list(curve.array()), rel=1e-4)
    assert mine["mean"].tolist()[-1] == pytest.approx(curve.final_norm, rel=1e-4)


def test_figures_have_the_same_bytes_twice(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run / "results", tmp_path / "results")
    for draw in FIGURES:
        assert draw(["--run-dir", str(tmp_path)]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "assets").iterdir()}
    assert len([name for name in before if name.endswith(".png")]) >= 4
    for draw in FIGURES:
        assert draw(["--run-dir", str(tmp_path)]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "assets").iterdir()} == before


@pytest.mark.parametrize("draw", FIGURES)
def test_missing_results_name_the_command(tmp_path: Path, capsys: Any, draw: Any) -> None:
    assert draw(["--run-dir", str(tmp_path)]) == 1
    assert "uv run concept_alignment.py" in capsys.readouterr().err


def test_an_unknown_language_lists_the_valid_ones(tiny_run: Path, capsys: Any) -> None:
    assert alignment_curves.main(["--run-dir", str(tiny_run), "--languages", "xx"]) == 2
    assert "hi, sw" in capsys.readouterr().err


def test_reanalysis_equals_the_published_curves_read_directly(tmp_path: Path) -> None:
    assert published_reanalysis.main(["--run-dir", str(tmp_path)]) == 0
    found = files.load_json(run_folder.RunPaths(tmp_path).published, "")
    raw = files.load_json(published.PUBLISHED, "")["curves"]

    def mean(variant: str, code: str, layer: int) -> float:
        return sum(row[code][layer] for row in raw[variant].values()) / len(raw[variant])

    hindi = found["claims"]["fire"]["hi"]
    assert hindi["layers_compared"] == [20, 1]
    ratio = mean("fire", "hi", 20) / mean("base", "hi", 1) - 1
    assert hindi["own_peaks"]["estimate"] == pytest.approx(ratio, abs=1e-4)
    gap = mean("fire", "fr", 20) - mean("base", "fr", 20)
    assert found["difference"]["fire"]["fr"]["estimate"] == pytest.approx(gap, abs=1e-4)
    assert all(entry["constant"] for entry in found["layer_0"]["base"].values())
    assert found["layer_0"]["earth"]["sw"]["cosine"] == 1.0
    region = found["difference_in_differences"]["matched_layer"]
    assert region["lower"] < region["estimate"] < region["upper"]
    assert region["p_language_floor"] == pytest.approx(1 / 35, abs=1e-4)


def test_broken_published_curves_are_refused(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "curves.json"
    path.write_text('{"metadata": {}, "curves": {"base": {"C01": {"hi": [1.0]}}}}')
    line = ["--run-dir", str(tmp_path), "--curves", str(path)]
    assert published_reanalysis.main(line) == 1
    assert "curves.json" in capsys.readouterr().err
