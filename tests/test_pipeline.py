"""Every stage's main, in order, on a random tiny Cohere2; and the command lines themselves."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import concept_alignment
import failure_classifier
import pipeline
from aya_probes import project, run_folder, stimuli
from aya_probes.extraction import poolings
from aya_probes.results.alignment import load_results
from aya_probes.results.curves import CONCEPT
from aya_probes.results.failures import load_edge_cases

STAGES = (
    "pipeline.py",
    "build_stimuli.py",
    "batch_runner.py",
    "concept_alignment.py",
    "failure_classifier.py",
    "behaviour.py",
    "check_router.py",
    "logit_lens.py",
    "concept_patching.py",
    "app.py",
    "viz/alignment_curves.py",
    "viz/annotated_curve.py",
    "viz/contrasts.py",
    "viz/heatmap.py",
    "viz/hero.py",
    "viz/language_map.py",
    "model_loader.py",
    "report.py",
    "viz/published_reanalysis.py",
    "report/fill.py",
    "tools/token_pieces.py",
    "tools/train_adapters.py",
    "benchmarks/measure_choice.py",
    "benchmarks/validation.py",
)


def test_every_stage_writes_what_the_next_one_reads(tiny_run: Path) -> None:
    paths = run_folder.RunPaths(tiny_run)
    results = load_results(paths.curves)
    assert results.info.layers == ("0", "1", "2", "3", "4", "final_norm")
    assert {key.pooling for key in results.curves} == set(poolings.POOLINGS)
    pairs = {
        (k.left, k.right) for k in results.curves if (k.measure, k.variant) == (CONCEPT, "base")
    }
    assert pairs == {("en", "hi"), ("en", "sw"), ("hi", "sw")}
    assert results.is_untestable("base", "sw", "last")
    assert not results.is_untestable("base", "hi", "last")
    cases = load_edge_cases(paths.edge_cases).cases
    assert {case.failure_category for case in cases} == {"UNICODE_EDGE"}
    names = {path.stem for path in paths.assets.glob("*.png")}
    figures = ("hero", "tweet_three_panel", "annotated_rise_peak_collapse")
    assert {*figures, "concept_alignment_heatmap"} <= names
    assert all(path.with_suffix(".csv").is_file() for path in paths.assets.glob("*.png"))


def test_the_same_seed_gives_the_same_bytes(tiny_run: Path) -> None:
    paths = run_folder.RunPaths(tiny_run)
    before = {p.name: p.read_bytes() for p in paths.results.iterdir()}
    line = ["--run-dir", str(tiny_run), "--overwrite"]
    assert concept_alignment.main(line) == 0
    assert failure_classifier.main(line) == 0
    assert {p.name: p.read_bytes() for p in paths.results.iterdir()} == before


def test_stale_activations_are_refused(tiny_run: Path, tmp_path: Path, capsys: Any) -> None:
    paths = run_folder.RunPaths(tmp_path)
    manifest = stimuli.load_manifest(run_folder.RunPaths(tiny_run).manifest)
    fewer = dataclasses.replace(manifest, stimuli=manifest.stimuli[:-1])
    stimuli.save_manifest(paths.manifest, fewer)
    paths.activations.symlink_to(run_folder.RunPaths(tiny_run).activations)
    assert concept_alignment.main(["--run-dir", str(tmp_path), "--variants", "base"]) == 1
    message = capsys.readouterr().err
    assert "plan.json" in message
    assert "uv run batch_runner.py" in message


def test_the_runner_stops_at_the_first_stage_that_fails(tmp_path: Path, capsys: Any) -> None:
    assert pipeline.main(["--suite", "nosuch", "--run-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "mini, mini-flores, tiny-aya" in error
    assert "stopped at build_stimuli.py" in error


@pytest.mark.parametrize("stage", STAGES)
def test_help_imports_no_library_that_takes_seconds(stage: str, tmp_path: Path) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.path[0] = {str((project.ROOT / stage).parent)!r}\n"  # as for a script
        f"sys.argv = [{stage!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(project.ROOT / stage)!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    heavy = {'torch', 'gradio', 'transformers', 'matplotlib', 'pandas'}\n"
        "    heavy &= set(sys.modules)\n"
        "    print(stop.code, sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


@pytest.mark.slow
def test_suite_mini_on_three_concepts(tmp_path: Path) -> None:
    line = [
        "--run-dir",
        str(tmp_path),
        "--concepts",
        "C01,C03,C07",
        "--limit",
        "5",
        "--languages",
        "en,hi,fr",
        "--variants",
        "base,global,fire",
    ]
    assert pipeline.main(line) == 0
    curve = load_results(run_folder.RunPaths(tmp_path).curves).curve(CONCEPT, "base", "fr")
    assert curve is not None
    assert curve.array().max() > 0.2  # the real model knows French
