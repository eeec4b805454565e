"""Write planted vectors as a run's real shards; and what the analysis costs at Tiny Aya's size.

The size: 5 variants x 20 concepts x 3 wordings x 10 languages (45 pairs) x 38 layers, hidden 2048,
no parallel corpus, 10,000 resamples and permutations. The vectors are seeded noise, no model's.

Writes: benchmarks/results/planted_run.json

    uv run benchmarks/planted_run.py
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import machine
from aya_probes import project, run_folder, stimuli, suites
from aya_probes.planted.run import write_activations
from aya_probes.stimuli import Manifest, Stimulus

LAYERS, HIDDEN, CONCEPTS, WORDINGS = 38, 2048, 20, 3


def build(folder: Path, hidden: int) -> None:
    """Write manifest and activations of every variant of suite mini, with vectors of noise."""
    suite, paths = suites.load_suite("mini"), run_folder.RunPaths(folder)
    concepts = {f"C{c:02d}": f"concept {c}" for c in range(1, CONCEPTS + 1)}
    probes = tuple(
        Stimulus(f"{c}-{code}-{k}", "probe", c, k, code, "a text", (0, 1))
        for code in suite.languages
        for c in concepts
        for k in range(1, WORDINGS + 1)
    )
    metadata = {"schema_version": project.SCHEMA_VERSION, "corpus": {}, "concepts": concepts}
    stimuli.save_manifest(paths.manifest, Manifest(suite, metadata, probes))
    manifest = stimuli.load_manifest(paths.manifest)
    rng = np.random.default_rng(project.SEED)
    for name in suite.names():
        table = {
            s.stimulus_id: rng.standard_normal((LAYERS, hidden), dtype=np.float32) for s in probes
        }
        vectors = {"content_mean": table, "span_mean": table}
        write_activations(paths.activations / name, manifest, vectors)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, save; returns the exit code."""
    args = machine.parser(
        "benchmarks/planted_run.py", "Measure the analysis at Tiny Aya's size.", "planted_run.json"
    ).parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        # In a process of its own: what this one held would count as its children's peak.
        builder = multiprocessing.get_context("spawn").Process(
            target=build, args=(Path(scratch), 64 if args.quick else HIDDEN)
        )
        builder.start()
        builder.join()
        stage = subprocess.Popen(
            [sys.executable, str(project.ROOT / "concept_alignment.py"), "--run-dir", scratch]
        )
        _, status, used = os.wait4(stage.pid, 0)
    if builder.exitcode or status:
        return 1
    numbers = {
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_gib": round(used.ru_maxrss / 2**20, 2),  # KiB on Linux
        "machine": machine.describe("numpy", "scipy"),
    }
    print(numbers)
    machine.save(args, "planted_run.json", numbers)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
