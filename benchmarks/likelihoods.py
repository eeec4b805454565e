"""Measure the behaviour stage beside a plain loop of ``model(input_ids, labels=labels)``.

The loop runs one text at a time, and every candidate with its whole prompt; the library computes
the head at all positions. Both predict the same tokens, and the likelihoods are compared. One
thread, CPU time, the two interleaved in every round. Loading and tokenising are not counted; the
stage's self-check is.

Reads:  data/concept_probes.json, data/behaviour_frames.toml
Writes: benchmarks/results/likelihoods.json

    uv run benchmarks/likelihoods.py
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import machine
from aya_probes import suites
from aya_probes.behaviour import measure, scoring
from aya_probes.behaviour.candidates import group_concepts
from aya_probes.behaviour.frames import load_frames
from aya_probes.behaviour.sampling import Question
from aya_probes.behaviour.scoring import Scores, Tree
from aya_probes.models import loading
from aya_probes.models.residuals import LoadedModel
from aya_probes.planted import tiny
from aya_probes.probes import load_probes
from aya_probes.stimuli import Stimulus

RESULT = "likelihoods.json"
ROUNDS = 3
TEXTS, QUESTIONS, QUICK = 40, 10, 5  # questions have five candidates
LANGUAGES = ("hi", "fr", "sw")


def load_mini() -> LoadedModel:
    """Return the base variant of suite mini in float32 on the CPU."""
    variant = suites.load_suite("mini").variant("base")
    source = loading.resolve_source(variant)
    return loading.load_variant(variant, source, device=torch.device("cpu"), dtype=torch.float32)


def load_tiny() -> LoadedModel:
    """Return a tiny random model."""
    model = tiny.tiny_model("gemma3_text", 0)
    return loading.wrap(model, tiny.byte_tokenizer(), torch.device("cpu"), torch.float32)


def make_trees(loaded: LoadedModel, count: int, questions: int) -> dict[str, list[Tree]]:
    """Return texts, and questions about them, in three languages by turns."""
    suite = suites.load_suite("mini")
    concepts = load_probes(suites.resolve_path(suite.probes))

    def probe(number: int, language: str) -> Stimulus:
        concept = concepts[number % len(concepts)]
        text = concept.sentences[language][0].text
        return Stimulus(f"{concept.id}-{language}", "probe", concept.id, 1, language, text, None)

    texts = [probe(n, LANGUAGES[n % len(LANGUAGES)]) for n in range(count)]
    lengths = {c.id: float(len(c.sentences["en"][0].text)) for c in concepts}
    group_of = {c: group for group in group_concepts(lengths, 0) for c in group}
    places = {c.id: n for n, c in enumerate(concepts)}
    frames = load_frames()
    asked = [
        Question(
            text,
            frames[n % len(frames)],
            "en",
            tuple(
                probe(places[c], "en")
                for c in sorted(group_of[text.item_id], key=lambda c: c != text.item_id)
            ),
        )
        for n, text in enumerate(texts[:questions])
    ]
    return {
        "surprisal": [measure.text_tree(loaded, s.text, s.stimulus_id) for s in texts],
        "comprehension": [measure.question_tree(loaded, question) for question in asked],
    }


def plain_loop(loaded: LoadedModel, trees: Sequence[Tree]) -> list[float]:
    """Return the log-likelihood of every branch, by the loss of the library's own model."""
    values = []
    for tree in trees:
        for branch in tree.branches:
            ids = torch.tensor([tree.prefix + branch])
            labels = ids.clone()
            labels[:, : len(tree.prefix)] = -100
            with torch.inference_mode():
                loss = loaded.causal_lm(input_ids=ids, labels=labels).loss
            values.append(-float(loss) * len(branch))
    return values


def _ignore(*anything: object) -> None:
    """Report nothing."""


def ours(loaded: LoadedModel, trees: Sequence[Tree]) -> list[float]:
    """Return the same by the stage's own function."""
    found: list[Scores] = measure.score_all(loaded, trees, _ignore, _ignore)
    return [float(branch.sum()) for scores in found for branch in scores]


def compare(loaded: LoadedModel, trees: Sequence[Tree], rounds: int) -> dict[str, Any]:
    """Return tokens predicted per second of CPU time of both, and how far they differ in nats."""
    predicted = sum(len(branch) for tree in trees for branch in tree.branches)
    rates: dict[str, list[float]] = {"loop": [], "stage": []}
    values: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, way in (("loop", plain_loop), ("stage", ours)):
            started = time.process_time()
            values[name] = way(loaded, trees)
            rates[name].append(predicted / (time.process_time() - started))
    ratios = np.array(rates["stage"]) / np.array(rates["loop"])
    return {
        "tokens_predicted": predicted,
        "way": scoring.choose_way(loaded, trees),
        "tokens_per_cpu_second": {name: machine.spread(rate) for name, rate in rates.items()},
        "ratio": machine.spread(ratios.tolist()),
        "largest_difference_nats": float(
            np.abs(np.array(values["loop"]) - np.array(values["stage"])).max()
        ),
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure both measures; returns the numbers."""
    torch.set_num_threads(1)
    loaded = load_tiny() if args.quick else load_mini()
    count, questions = (QUICK, QUICK) if args.quick else (TEXTS, QUESTIONS)
    rounds = args.rounds or (1 if args.quick else ROUNDS)
    cases = {
        name: compare(loaded, trees, rounds)
        for name, trees in make_trees(loaded, count, questions).items()
    }
    model = "tiny random model" if args.quick else "suite mini, base"
    about = machine.describe("torch", "transformers", "numpy")
    return {"machine": about, "model": model, "cases": cases}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, measure and save; returns the exit code."""
    args = machine.parser("likelihoods.py", "Measure the behaviour stage.", RESULT).parse_args(argv)
    data = run(args)
    print(json.dumps(data["cases"], indent=1))
    machine.save(args, RESULT, data)
    return 0


if __name__ == "__main__":
    machine.run_on_one_thread()
    raise SystemExit(main())
