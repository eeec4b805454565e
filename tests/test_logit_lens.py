"""The lens stage on models whose way from a word to its translation is planted."""

from __future__ import annotations

from pathlib import Path

import pytest

import build_stimuli
import logit_lens
from aya_probes import run_folder
from aya_probes.planted import translator
from aya_probes.planted.translator import Way
from aya_probes.results import lens as results

SHARE, RELEASE = 3, 6


@pytest.mark.parametrize(
    ("way", "verdict", "layers", "onset"),
    [("pivot", "pivot", "3-5", 3), ("abstract", "none", "", None), ("direct", "none", "", None)],
)
def test_the_planted_way_is_found(
    tmp_path: Path,
    way: Way,
    verdict: str,
    layers: str,
    onset: int | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    suite = translator.save_suite(tmp_path, way, SHARE, RELEASE)
    run = ["--run-dir", str(tmp_path / "run")]
    assert build_stimuli.main(["--suite", str(suite), "--limit", "12", *run]) == 0
    line = ["--prompts", str(tmp_path / "prompts.toml"), "--sources", "fr", "--device", "cpu"]
    line += ["--n-permutations", "999", *run]
    assert logit_lens.main(line) == 0
    folder = run_folder.RunPaths(tmp_path / "run").results
    cells = results.load_lens_cells(folder / "logit_lens_cells.csv")
    found = {(c.variant, c.task, c.source, c.target): c for c in cells}
    assert len(found) == 2 * (2 + 3 + 4 + 4)
    cell = found.pop(("base", "translation", "fr", "sw"))
    assert (cell.status, cell.accuracy, cell.concepts, cell.prompts) == ("testable", 1, 16, 32)
    assert (cell.verdict, cell.lead_layers) == (verdict, layers)
    assert (cell.onset_pivot, cell.onset_target) == (onset, RELEASE)
    assert all(c.status == "untestable (accuracy 0 of 16)" for c in found.values())
    rows = results.load_lens_rows(folder / "logit_lens.csv")
    assert {(r.task, r.source, r.target) for r in rows} == {("translation", "fr", "sw")}
    assert len(rows) == 4 * (translator.BLOCKS + 1)
    at = {(r.language, r.layer): r for r in rows}
    for layer in range(translator.BLOCKS + 1):
        planted = way == "pivot" and SHARE <= layer < RELEASE
        pivot, target = at["en", layer], at["sw", layer]
        assert (pivot.role, target.role, at["fr", layer].role) == ("pivot", "target", "source")
        assert (pivot.p <= 0.05) == (pivot.p_fitted <= 0.05) == planted
        assert (pivot.lower > 1) == planted
        assert pivot.probability is not None
        assert pivot.control is not None
        assert (pivot.probability > 10 * pivot.control) == planted
        assert (target.p <= 0.05) == (layer >= RELEASE)
        assert (target.rank == 1) == (layer >= RELEASE)
        assert target.jsd is not None
        assert (target.jsd < 1e-6) == (layer >= RELEASE)
    record = results.load_lens(folder / "logit_lens.json")
    assert record.concepts_with_words["base"] == dict.fromkeys(translator.LANGUAGES, 16)
    assert set(record.quality) == {"base"}
    capsys.readouterr()
    assert logit_lens.main([*line, "--analyse-only"]) == 0
    assert "up to date, skipped" in capsys.readouterr().out
