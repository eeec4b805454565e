"""What the analysis of seventy languages costs: planted activations of suite tiny-aya-70.

The whole size is 5 variants x 69 languages x 1,012 sentences x 37 layers and the final norm, hidden
2048. Its activations fill 163 GB, so a part of the languages of one variant is written and analysed
by ``concept_alignment.py``, once with few and once with more languages. The difference gives the
cost of one language; the contrasts are timed at the whole size. The same with fewer sentences shows
what ``build_stimuli.py --limit`` saves. A sentence's vector is a signal that all languages share,
times a strength of the language, plus noise; sentences are grouped in documents as in FLORES.

Writes: benchmarks/results/scale.json

    uv run benchmarks/scale.py                        # 2 x 9 GB of disk, one after the other
    uv run benchmarks/scale.py --languages 6 --sentences 300
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import machine
from aya_probes import command_line, files, project, run_folder, stimuli, suites
from aya_probes.alignment import contrasts, inference
from aya_probes.alignment.contrasts import Draws, Table
from aya_probes.extraction import store
from aya_probes.extraction.plan import Inputs, Plan, Shard, save_plan
from aya_probes.extraction.poolings import BY_NAME, POOLINGS
from aya_probes.extraction.runner import EXTRACTION_VERSION
from aya_probes.results.curves import ITEM_MEASURES, RAW
from aya_probes.stimuli import Manifest, Stimulus

SUITE, SHARD, DOCUMENTS, DRAWS = "tiny-aya-70", 256, 281, 10_000


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of planted activations."""

    languages: int
    sentences: int
    layers: int
    hidden: int

    @property
    def documents(self) -> np.ndarray:
        """The document of each sentence ``[sentence]``."""
        return np.arange(self.sentences) * min(DOCUMENTS, self.sentences) // self.sentences

    @property
    def bytes(self) -> int:
        """Bytes of the vectors of one variant on disk: float16, every pooling without a span."""
        poolings = sum(not pooling.needs_span for pooling in BY_NAME.values())
        return 2 * poolings * self.languages * self.sentences * (self.layers + 1) * self.hidden


def choose_languages(count: int) -> tuple[str, ...]:
    """Return the pivot and other languages of the suite, evenly spaced over its regions."""
    pivot, *others = suites.load_suite(SUITE).languages
    places = np.linspace(0, len(others) - 1, count - 1).round().astype(int)
    return (pivot, *(others[place] for place in places))


def build(folder: Path, size: Size) -> None:
    """Write the manifest and the activations of variant base."""
    paths = run_folder.RunPaths(folder)
    suite = suites.load_suite(SUITE)
    codes = choose_languages(size.languages)
    targets = {v.name: tuple(c for c in v.targets if c in codes) for v in suite.variants}
    variants = tuple(dataclasses.replace(v, targets=targets[v.name]) for v in suite.variants)
    texts = tuple(
        Stimulus(f"P{n}-{code}", "parallel", f"P{n}", None, code, "a text", None)
        for code in codes
        for n in range(size.sentences)
    )
    metadata = {
        "schema_version": project.SCHEMA_VERSION,
        "corpus": {"corpus": "planted", "items": size.sentences},
        "concepts": {},
        "categories": {},
        "documents": size.documents.tolist(),
    }
    small = dataclasses.replace(suite, languages=codes, variants=variants)
    stimuli.save_manifest(paths.manifest, Manifest(small, metadata, texts))
    write_activations(paths.activations / "base", stimuli.load_manifest(paths.manifest), size)


def write_activations(folder: Path, manifest: Manifest, size: Size) -> None:
    """Write the shards one by one: the vectors of all languages do not fit in memory."""
    rng = np.random.default_rng(project.SEED)
    signal = rng.standard_normal((size.sentences, size.layers + 1, size.hidden), np.float32)
    ids = [s.stimulus_id for s in manifest.stimuli]
    parts = [tuple(ids[n : n + SHARD]) for n in range(0, len(ids), SHARD)]
    tokens = {i: {"token_ids": [1], "span_tokens": [], "tokens_per_character": 0.3} for i in ids}
    plan = Plan(
        schema_version=project.SCHEMA_VERSION,
        inputs=Inputs(
            suite=SUITE,
            variant=folder.name,
            source={"planted": "yes"},
            manifest_sha256=manifest.sha256,
            poolings=POOLINGS,
            dtype="float32",
            extraction_version=EXTRACTION_VERSION,
        ),
        layers=(*map(str, range(size.layers)), "final_norm"),
        hidden_size=size.hidden,
        device="planted",
        device_name=None,
        threads=None,
        token_budget=1,
        packed=True,
        versions={"numpy": np.__version__},
        tokenizer_sha256="planted",
        tokens_sha256=files.digest(tokens),
        shards=tuple(Shard(packs=(part,), span_ids=()) for part in parts),
        code_sha256=project.source_hash(),
    )
    save_plan(folder, plan)
    files.save_json(folder / "tokens.json", tokens)
    for number in range(len(parts)):
        places = np.arange(number * SHARD, number * SHARD + len(parts[number]))
        language, sentence = np.divmod(places, size.sentences)
        strength = (0.2 + 0.6 * language / size.languages).astype(np.float32)[:, None, None]
        vectors = strength * signal[sentence]
        vectors += rng.standard_normal(vectors.shape, np.float32)
        half, exponents = store.to_float16(vectors)
        tensors = {"absmax": np.abs(vectors).max(axis=-1)}
        for name, pooling in BY_NAME.items():
            kept = slice(0, 0) if pooling.needs_span else slice(None)
            tensors[name], tensors[f"{name}.exponent"] = half[kept], exponents[kept]
        store.save_shard(store.shard_path(folder, number), tensors, plan.sha256)


def in_process(work: Callable[..., object], *args: object) -> None:
    """Run ``work`` in a process of its own, so that its memory does not count for this one."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=args)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def analyse(size: Size) -> dict[str, float]:
    """Write planted activations and analyse them; returns seconds and the peak memory."""
    with tempfile.TemporaryDirectory() as scratch:
        in_process(build, Path(scratch), size)
        started, load = time.monotonic(), os.getloadavg()[0]
        stage = subprocess.Popen(
            [sys.executable, str(project.ROOT / "concept_alignment.py"), "--run-dir", scratch]
        )
        _, status, used = os.wait4(stage.pid, 0)
    if status:
        raise SystemExit(1)
    return {
        "wall_s": round(time.monotonic() - started, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_gib": round(used.ru_maxrss / 2**20, 2),  # KiB on Linux
        "load": round(load, 1),  # of other processes: above 0, the wall time is too long
    }


def time_contrasts(size: Size) -> dict[str, float]:
    """Return the CPU time of the contrasts of one measure, and the bytes of one item table."""
    suite = suites.load_suite(SUITE)
    variants = [suite.variant(name) for name in suite.default_names()]
    codes = choose_languages(size.languages)[1:]
    rng = np.random.default_rng(project.SEED)
    shape = (size.layers + 1, size.sentences)
    values = {
        (v.name, code): rng.standard_normal(shape, np.float32) for v in variants for code in codes
    }
    groups = size.documents
    weights = inference.resample_weights(int(groups.max()) + 1, DRAWS, project.SEED)
    draws = Draws(weights, DRAWS, project.SEED)
    table = Table(ITEM_MEASURES[0], values, groups)
    spent = machine.cpu_seconds(lambda: contrasts.contrast_table(variants, codes, table, (), draws))
    return {"cpu_s": round(spent, 1), "table_bytes": 4 * shape[0] * shape[1]}


def measure(size: Size) -> dict[str, Any]:
    """Measure two numbers of languages, and extrapolate to the suite: linear in both factors."""
    few, many = dataclasses.replace(size, languages=max(3, size.languages // 3)), size
    cheap, dear = analyse(few), analyse(many)
    suite = suites.load_suite(SUITE)
    whole, variants = len(suite.languages), len(suite.default_names())
    contrast = time_contrasts(dataclasses.replace(size, languages=whole))
    measures = len(ITEM_MEASURES) * len(("", RAW))
    contrasts_s = measures * contrast["cpu_s"]
    step, others = many.languages - few.languages, whole - few.languages
    each = {name: max(0, dear[name] - cheap[name]) / step for name in ("wall_s", "cpu_s")}
    seconds = {
        name: variants * (cheap[name] + others * cost) + contrasts_s for name, cost in each.items()
    }
    tables = variants * (whole - 1) * measures * contrast["table_bytes"]
    return {
        **dataclasses.asdict(size),
        "measured": [{"languages": few.languages, **cheap}, {"languages": many.languages, **dear}],
        "language": {name: round(cost, 2) for name, cost in each.items()},
        "whole": {
            "languages": whole,
            "variants": variants,
            "contrasts_cpu_s": round(contrasts_s, 1),
            "wall_minutes": round(seconds["wall_s"] / 60, 1),
            "cpu_minutes": round(seconds["cpu_s"] / 60, 1),
            "peak_gib": round(dear["peak_gib"] + tables / 2**30, 2),
            "disk_gb": round(variants * dataclasses.replace(size, languages=whole).bytes / 1e9),
        },
    }


def build_parser() -> argparse.ArgumentParser:
    """Return the benchmark's parser."""
    parser = machine.parser(
        "benchmarks/scale.py", "Measure the analysis of seventy languages.", "scale.json"
    )
    for flag, default in (("languages", 12), ("sentences", 1012), ("layers", 37), ("hidden", 2048)):
        parser.add_argument(f"--{flag}", type=command_line.positive_int, default=default)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, save; returns the exit code."""
    args = build_parser().parse_args(argv)
    size = Size(args.languages, args.sentences, args.layers, args.hidden)
    if args.quick:
        size = Size(5, 40, 4, 32)
    fewer = Size(max(4, size.languages // 2), size.sentences * 3 // 5, size.layers, size.hidden)
    numbers = {
        "all_sentences": measure(size),
        "fewer_sentences": measure(fewer),
        "machine": machine.describe("numpy", "scipy"),
    }
    print(numbers)
    machine.save(args, "scale.json", numbers)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
