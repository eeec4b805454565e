"""Measure extraction beside what else one would use, and beside the machine's own matrix rate.

Seeded random models A (hidden 512 x 12) and B (Tiny Aya's shape, 4 layers), on committed probes and
on texts of mixed length; one thread, CPU time, the ways interleaved in every round. Ours is the
function that batch_runner.py calls, shards on disk included. Its start-up (tokens, self-check,
plan), paid once a variant however many texts follow, is timed apart. The floor is the time of the
decoder's own weight matrices against 512 tokens, measured in the same round, nothing else counted.

Reads:  data/concept_probes.json
Writes: benchmarks/results/extract.json

    uv run --group bench benchmarks/extract.py
    uv run --group bench benchmarks/extract.py --model mini --out mini.json
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import machine
import models
import peers
from aya_probes import command_line
from aya_probes.extraction import poolings, runner, shard_writer
from aya_probes.extraction.encoding import Encoded, encode
from aya_probes.models import loading, residuals
from aya_probes.stimuli import Stimulus
from models import Subject

ROUNDS = 3
# Texts a case: about 1,500 tokens of A and 1,000 of B, what three rounds of every way can afford.
A_PROBES, A_MIXED, A_LONG, B_MIXED = 90, 63, 30, 42
MODEL_PROBES, MODEL_MIXED = 30, 21  # of --model: about 500 tokens each
FLOOR_TOKENS = runner.TOKEN_BUDGET["cpu"]
CHECKED = 6  # texts compared with float64
JOB_TOKENS = 105_000  # a Tiny Aya variant's texts, over which the start-up is spread


@dataclass(frozen=True)
class Case:
    """A model and the texts that it reads."""

    name: str
    subject: Subject
    stimuli: list[Stimulus]
    texts: list[Encoded]
    checked: list[int]  # texts compared with float64, the longest among them

    @property
    def tokens(self) -> int:
        """Return how many tokens one pass over the texts has."""
        return sum(len(item.token_ids) for item in self.texts)


def make_case(name: str, subject: Subject, stimuli: list[Stimulus]) -> Case:
    """Tokenise the texts and choose those that are compared with float64."""
    texts = [encode(subject.loaded.tokenizer, stimulus) for stimulus in stimuli]
    by_length = sorted(range(len(texts)), key=lambda n: len(texts[n].token_ids))
    places = np.linspace(0, len(texts) - 1, min(CHECKED, len(texts))).round().astype(int)
    return Case(name, subject, stimuli, texts, [by_length[place] for place in places])


def reference(case: Case) -> dict[int, np.ndarray]:
    """Return float64 vectors of the checked texts, ``text -> [capture point, pooling, hidden]``."""
    loaded = case.subject.loaded
    exact = loading.wrap(
        copy.deepcopy(loaded.causal_lm).double(), loaded.tokenizer, loaded.device, torch.float64
    )
    vectors = {}
    for number in case.checked:
        item = case.texts[number]
        with residuals.capture(exact, lambda hidden: hidden.clone()) as captured:
            residuals.forward(exact, torch.tensor([item.token_ids]))
        stacked = torch.cat([captured[point] for point in sorted(captured)])
        pooled = [
            stacked[:, item.positions(name) or [0]].mean(1) * bool(item.positions(name))
            for name in poolings.POOLINGS
        ]
        vectors[number] = torch.stack(pooled, dim=1).numpy()
    return vectors


def errors(
    kept: dict[int, np.ndarray], exact: dict[int, np.ndarray], sees_layer_l: bool
) -> dict[str, float]:
    """Return the largest relative and cosine error over texts, layers and poolings."""
    relative, cosine = [0.0], [0.0]
    for number, wanted in exact.items():
        right = wanted if sees_layer_l else np.delete(wanted, -2, axis=0)
        found = kept[number].astype(np.float64)
        norm = np.linalg.norm(right, axis=-1)
        there = norm > 0
        off = np.linalg.norm(found - right, axis=-1)[there] / norm[there]
        dot = (found * right).sum(-1)[there] / (np.linalg.norm(found, axis=-1) * norm)[there]
        relative.append(float(off.max()))
        cosine.append(float((1 - dot).max()))
    return {"relative_error": max(relative), "cosine_error": max(cosine)}


class Ours:
    """The stage's own extraction, timed where its start-up ends."""

    def __init__(self, case: Case, folder: Path) -> None:
        self._case, self._folder = case, folder
        self._manifest = models.manifest(case.stimuli)
        self.start_up_s = 0.0

    def run(self, subject: Subject) -> None:
        """Extract every text as ``batch_runner.py`` does; sets ``start_up_s``."""
        started = time.process_time()

        def announce(tokens: int, note: str) -> None:
            self.start_up_s = time.process_time() - started

        options = runner.Options(device="cpu", overwrite=True)
        job = runner.Job(self._manifest, subject.variant, self._folder, options)
        runner.extract_loaded(job, subject.loaded, subject.identity, announce=announce)

    def vectors(self, subject: Subject) -> dict[int, np.ndarray]:
        """Return the checked texts' vectors as they are before storage rounds them."""
        place = {item.stimulus_id: n for n, item in enumerate(self._case.texts)}
        kept: dict[int, np.ndarray] = {}

        def record(pack: Sequence[Encoded], pooled: np.ndarray, absmax: np.ndarray) -> Any:
            for text, item in enumerate(pack):
                if place[item.stimulus_id] in self._case.checked:
                    kept[place[item.stimulus_id]] = pooled[:, text].copy()
            return plain(pack, pooled, absmax)

        plain, shard_writer.pack_tensors = shard_writer.pack_tensors, record
        try:
            self.run(subject)
        finally:
            shard_writer.pack_tensors = plain
        return kept


def gemm_floor(subject: Subject, tokens: int) -> float:
    """Return the CPU seconds of the decoder's matrix products alone, for so many tokens."""
    layers = models.linear_layers(subject.loaded.decoder)
    dtype = subject.loaded.dtype
    inputs = {
        size: torch.randn(FLOOR_TOKENS, size).to(dtype)
        for size in {layer.in_features for layer in layers}
    }

    def products() -> None:
        with torch.inference_mode():
            for layer in layers:
                torch.nn.functional.linear(inputs[layer.in_features], layer.weight)

    return machine.cpu_seconds(products) * tokens / FLOOR_TOKENS


def measure(
    case: Case, ways: Sequence[str], rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run every way in every round, in an order that turns; return one record a way."""
    runs: dict[str, Callable[[], object]] = {}
    kept: dict[str, dict[int, np.ndarray]] = {}
    records: dict[str, dict[str, Any]] = {}
    subjects = {"ours": case.subject, "ours_bf16": models.as_dtype(case.subject, torch.bfloat16)}
    with tempfile.TemporaryDirectory() as scratch:
        ours = {
            name: Ours(case, Path(scratch) / name) for name in ("ours", "ours_bf16") if name in ways
        }
        for name, one in ours.items():
            runs[name] = lambda one=one, subject=subjects[name]: one.run(subject)  # type: ignore[misc]
        for name in (name for name in ways if name in peers.WAYS):
            try:
                way = peers.WAYS[name][1](case.subject)
            except peers.Skip as reason:
                records[name] = {"skip": str(reason)}
                say(f"{peers.WAYS[name][0]:<24} SKIP: {reason}")
                continue
            kept[name] = {}
            runs[name] = _kept_run(case, way, kept[name])
        for name, one in ours.items():
            kept[name] = one.vectors(subjects[name])  # also the warm-up
        seconds = _rounds(case, runs, ours, subjects, rounds, say)
    exact = reference(case)
    weights = sum(p.numel() * 4 for p in case.subject.loaded.causal_lm.parameters())
    for name in runs:
        records[name] = _record(name, seconds, weights, case.tokens) | errors(
            kept[name], exact, name.removesuffix("_bf16") in peers.SEES_LAYER_L
        )
    lengths = [len(item.token_ids) for item in case.texts]
    return {
        "label": case.subject.label,
        "texts": len(case.texts),
        "tokens": case.tokens,
        "flop_per_token": _flop(case.subject),
        "lengths": [int(np.quantile(lengths, q)) for q in (0, 0.25, 0.5, 0.75, 1)],
        "ways": records,
        "gflop_per_s": {
            name: machine.spread([case.tokens * _flop(case.subject) / s / 1e9 for s in values])
            for name, values in seconds["floor"].items()
        },
    }


def _kept_run(case: Case, way: peers.Way, kept: dict[int, np.ndarray]) -> Callable[[], None]:
    def keep(number: int, vectors: np.ndarray) -> None:
        if number in case.checked:
            kept[number] = vectors

    way([case.texts[n] for n in case.checked[:2]], lambda number, vectors: None)  # warm-up
    return lambda: way(case.texts, keep)


def _flop(subject: Subject) -> float:
    return float(
        sum(2 * layer.weight.numel() for layer in models.linear_layers(subject.loaded.decoder))
    )


def _rounds(
    case: Case,
    runs: dict[str, Callable[[], object]],
    ours: dict[str, Ours],
    subjects: dict[str, Subject],
    rounds: int,
    say: Callable[[str], None],
) -> dict[str, dict[str, list[float]]]:
    seconds: dict[str, dict[str, list[float]]] = {
        "whole": {name: [] for name in runs},
        "start_up": {name: [] for name in ours},
        "peak": {name: [] for name in runs},
        "floor": {name: [] for name in ours},
    }
    names = list(runs)
    for number in range(rounds):
        for name in ours:
            seconds["floor"][name].append(gemm_floor(subjects[name], case.tokens))
        turned = names[number % len(names) :] + names[: number % len(names)]
        for name in turned:
            taken: list[float] = []
            peak = machine.extra_peak_bytes(
                lambda name=name, taken=taken: taken.append(machine.cpu_seconds(runs[name]))  # type: ignore[misc]
            )
            seconds["whole"][name] += taken
            if peak is not None:
                seconds["peak"][name].append(peak)
            if name in ours:
                seconds["start_up"][name].append(ours[name].start_up_s)
        say(f"  round {number + 1} of {rounds} done")
    return seconds


def _record(
    name: str, seconds: dict[str, dict[str, list[float]]], weights: float, tokens: int
) -> dict[str, Any]:
    whole, naive = seconds["whole"], seconds["whole"]["naive"]
    start_up = seconds["start_up"].get(name, [0.0] * len(naive))
    work = [total - first for total, first in zip(whole[name], start_up, strict=True)]
    floor = seconds["floor"].get(name, seconds["floor"]["ours"])
    record: dict[str, Any] = {
        "cpu_s": machine.spread(work),
        "speed_up": machine.spread([a / b for a, b in zip(naive, work, strict=True)]),
        "floor_share": machine.spread([a / b for a, b in zip(floor, work, strict=True)]),
    }
    if name in seconds["start_up"]:
        jobs = JOB_TOKENS / tokens
        record["start_up_s"] = machine.spread(start_up)
        record["speed_up_of_a_job"] = machine.spread(
            [
                a * jobs / (b * jobs + first)
                for a, b, first in zip(naive, work, start_up, strict=True)
            ]
        )
    if seconds["peak"][name]:
        peaks, others = seconds["peak"][name], seconds["peak"]["naive"]
        record["extra_peak_mb"] = machine.spread([peak / 1e6 for peak in peaks])
        record["peak_of_naive"] = machine.spread(
            [(weights + a) / (weights + b) for a, b in zip(peaks, others, strict=True)]
        )
    return record


def lines(case: dict[str, Any]) -> list[str]:
    """Return one line a way, for people."""
    out = [f"{case['label']}: {case['texts']} texts, {case['tokens']} tokens"]
    for name, way in case["ways"].items():
        title = title_of(name)
        if "skip" in way:
            out.append(f"{title:<26} SKIP: {way['skip']}")
            continue
        up, share = way["speed_up"], way["floor_share"]
        peak = way.get("extra_peak_mb", {"median": float("nan")})["median"]
        out.append(
            f"{title:<26} {up['median']:5.2f} x naive ({up['min']:.2f}-{up['max']:.2f})  "
            f"{share['median']:6.1%} of the floor  +{peak:6.1f} MB  "
            f"rel {way['relative_error']:.1e}  cos {way['cosine_error']:.1e}"
        )
    return out


def title_of(name: str) -> str:
    """Return a way's name for people."""
    own = {"ours": "ours", "ours_bf16": "ours, bf16"}
    return own.get(name) or peers.WAYS[name][0]


def cases(model: str | None, quick: bool) -> Iterator[Case]:
    """Build the cases one after the other: a model's texts, then the next model."""
    if model:
        subject = models.load(model)
        yield make_case("probes", subject, models.probe_sentences(8 if quick else MODEL_PROBES))
        yield make_case("mixed", subject, models.mixed(9 if quick else MODEL_MIXED))
    elif quick:
        yield make_case("tiny probes", models.build("tiny"), models.probe_sentences(12))
    else:
        subject = models.build("A")
        yield make_case("A probes", subject, models.probe_sentences(A_PROBES))
        yield make_case("A mixed", subject, models.mixed(A_MIXED))
        yield make_case("A long", subject, models.long(A_LONG))
        subject = models.build("B")
        yield make_case("B mixed", subject, models.mixed(B_MIXED))


def build_parser() -> argparse.ArgumentParser:
    """Return the benchmark's parser."""
    parser = machine.parser("benchmarks/extract.py", "Measure extraction.", "extract.json")
    parser.add_argument("--model", metavar="PATH|mini", help="real weights in place of A and B")
    parser.add_argument(
        "--ways",
        type=command_line.comma_list,
        default=("ours", "ours_bf16", *peers.WAYS),
        metavar="ours,naive",
        help="only these (naive and ours always)",
    )
    parser.add_argument(
        "--cases", type=command_line.comma_list, metavar="A mixed", help="only these"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every case, print one line a way, save the numbers."""
    machine.run_on_one_thread()
    args = build_parser().parse_args(argv)
    valid = ("ours", "ours_bf16", *peers.WAYS)
    wanted = command_line.choose("way", (*args.ways, "ours", "naive"), valid)
    torch.set_num_threads(1)
    rounds = args.rounds or (1 if args.quick else ROUNDS)
    results: dict[str, Any] = {}
    for case in cases(args.model, args.quick):
        if args.cases and case.name not in args.cases:
            continue
        print(f"{case.name}: {case.subject.label}", flush=True)
        results[case.name] = measure(
            case, wanted, rounds, lambda text: print(text, file=sys.stderr, flush=True)
        )
        print("\n".join(lines(results[case.name])), flush=True)
    described = machine.describe(
        "torch", "transformers", "numpy", "nnsight", "transformer-lens"
    ) | {"threads": 1}
    machine.save(args, "extract.json", {"machine": described, "rounds": rounds, "cases": results})
    return 0


if __name__ == "__main__":
    raise SystemExit(command_line.run_stage("benchmarks/extract.py", main))
