"""Write planted vectors as a run's real shards; and what the analysis costs at Tiny Aya's size.

The size: 5 variants x 20 concepts x 3 wordings x 10 languages (45 pairs) x 38 rows, hidden 2048, no
parallel corpus, 10,000 resamples and permutations. The vectors are seeded noise, no model's.

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
from typing import Any

import numpy as np

import artifacts
import study
from artifacts import Manifest, Stimulus
from benchmarks import machine
from extraction import store

ROWS, HIDDEN, CONCEPTS, WORDINGS = 38, 2048, 20, 3


def write_activations(
    folder: Path,
    manifest: Manifest,
    vectors: dict[str, dict[str, np.ndarray]],
    tokens: dict[str, dict[str, Any]] | None = None,
) -> store.Activations:
    """Write ``pooling -> stimulus -> [row, hidden]`` (norm last) as real shards, and open them.

    Stimuli without a ``span_mean`` vector count as having no span.
    """
    ids = list(vectors["content_mean"])
    span_ids = list(vectors["span_mean"])
    rows, hidden = vectors["content_mean"][ids[0]].shape
    blank = {"token_ids": [1], "span_tokens": [0], "tokens_per_character": 1.0}
    tokens = {name: {**blank, **(tokens or {}).get(name, {})} for name in ids}
    plan: dict[str, Any] = dict.fromkeys(store._PLAN_FIELDS, "planted")
    plan |= {
        "packed": True,
        "source": {"planted": "yes"},
        "versions": {"numpy": np.__version__},
        "variant": folder.name,
        "suite": manifest.suite.name,
        "manifest_sha256": manifest.sha256,
        "schema_version": study.SCHEMA_VERSION,
        "poolings": list(study.POOLINGS),
        "rows": [*map(str, range(rows - 1)), "final_norm"],
        "hidden_size": hidden,
        "tokens_sha256": artifacts.digest(tokens),
        "shards": [{"packs": [ids], "ids": ids, "span_ids": span_ids}],
    }
    tensors = {}
    for pooling in study.POOLINGS:
        names = span_ids if pooling == "span_mean" else ids
        table = vectors.get(pooling, vectors["content_mean"])
        stacked = np.stack([table[name] for name in names])
        tensors[pooling], tensors[f"{pooling}.exponent"] = store.to_float16(stacked)
        if pooling == "content_mean":
            tensors["absmax"] = np.abs(stacked).max(axis=-1).astype(np.float32)
    artifacts.save_json(store.plan_path(folder), plan)
    artifacts.save_json(folder / "tokens.json", tokens)
    store.save_shard(store.shard_path(folder, 0), tensors, artifacts.digest(plan))
    return store.open_activations(folder, manifest.sha256)


def build(folder: Path, hidden: int) -> None:
    """Write manifest and activations of every variant of suite mini, with vectors of noise."""
    suite, paths = study.load_suite("mini"), study.RunPaths(folder)
    concepts = {f"C{c:02d}": f"concept {c}" for c in range(1, CONCEPTS + 1)}
    probes = tuple(
        Stimulus(f"{c}-{code}-{k}", "probe", c, k, code, "a text", (0, 1))
        for code in suite.languages
        for c in concepts
        for k in range(1, WORDINGS + 1)
    )
    metadata = {"schema_version": study.SCHEMA_VERSION, "corpus": {}, "concepts": concepts}
    artifacts.save_manifest(paths.manifest, Manifest(suite, metadata, probes))
    manifest = artifacts.load_manifest(paths.manifest)
    rng = np.random.default_rng(study.SEED)
    for name in suite.names():
        table = {
            s.stimulus_id: rng.standard_normal((ROWS, hidden), dtype=np.float32) for s in probes
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
            [sys.executable, str(study.ROOT / "concept_alignment.py"), "--run-dir", scratch]
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
