"""A model with planted weights, through every stage: both planted blocks are recovered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import batch_runner
import build_stimuli
import concept_alignment
from aya_probes import run_folder
from aya_probes.planted import model as planted_model
from aya_probes.results.alignment import load_results


@pytest.mark.parametrize(("share", "release"), [(2, 6), (4, 8)])
def test_the_blocks_that_share_and_release_concepts_are_found(
    tmp_path: Path, share: int, release: int
) -> None:
    suite = planted_model.save_suite(tmp_path, share, release)
    run = ["--run-dir", str(tmp_path / "run")]
    assert build_stimuli.main(["--suite", str(suite), "--limit", "5", *run]) == 0
    assert batch_runner.main(["--local", "--device", "cpu", *run]) == 0
    assert concept_alignment.main(["--n-permutations", "999", "--n-bootstrap", "999", *run]) == 0
    paths = run_folder.RunPaths(tmp_path / "run")
    table: Any = pd.read_csv(paths.commitment)
    whole = table[table["concept_id"] == "ALL"].set_index(["variant", "language"])
    for code in planted_model.LANGUAGES[1:]:
        found = whole.loc[("base", code)]
        assert (found.commitment_layer, found.release_layer) == (share, release)
        assert whole.loc[("untrained", code)].status == "never"
        single = table[(table.variant == "base") & (table.language == code)].iloc[1:]
        assert (single.commitment_layer == share).mean() > 0.9
    shapes = load_results(paths.curves).shapes
    labels: dict[str, set[str]] = {"base": set(), "untrained": set()}
    for (variant, _), shape in shapes.items():
        labels[variant].add(shape.label)
    assert labels["base"] == {"RISE_PEAK_DECLINE"}
    assert labels["untrained"] <= {"FLAT", "UNRESOLVED"}
