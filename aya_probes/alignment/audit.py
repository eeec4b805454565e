"""Audit of the inputs: what makes a cell trivial, and which dimensions rule its cosines."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aya_probes.alignment import measures
from aya_probes.alignment.inputs import MIN_CONCEPTS, AlignmentInputs
from aya_probes.extraction import store
from aya_probes.results.curves import DOMINANCE, Curve, CurveKey, Inputs, Tokens, number, values

InputKey = tuple[str, str, str, str]  # pooling, variant, language, language


def identical_inputs(
    task: AlignmentInputs, raw: Mapping[str, np.ndarray], pooling: str, variant: str
) -> dict[InputKey, Inputs]:
    """Return the concepts with equal layer-0 vectors in some wording, for every language pair.

    They are left out of the pair. A pair is untestable if fewer than 4 concepts or less than half
    of them remain.
    """
    found = {}
    n = len(task.concepts)
    for left, right in task.pairs:
        same = (raw[right][:, :, 0] == raw[left][:, :, 0]).all(axis=-1).any(axis=1)
        remain = n - int(same.sum())
        found[pooling, variant, left, right] = Inputs(
            round(float(same.mean()), 4),
            bool(same.any()) and (remain < MIN_CONCEPTS or 2 * remain < n),
            tuple(c for c, s in zip(task.concepts, same, strict=True) if s),
        )
    return found


def kept_concepts(task: AlignmentInputs, inputs: Inputs) -> np.ndarray:
    """Return which concepts a pair is measured on ``[concept]``: all if it is untestable."""
    if inputs.untestable:
        return np.ones(len(task.concepts), dtype=bool)
    return np.array([concept not in inputs.concepts for concept in task.concepts])


def dominance(
    task: AlignmentInputs, centred: Mapping[str, np.ndarray], pooling: str, variant: str
) -> dict[CurveKey, Curve]:
    """Return how much of the squared length 1, 3 and 10 dimensions carry, by language and layer."""
    found = {}
    for code, vectors in centred.items():
        shares = measures.dominance(vectors.reshape(-1, *vectors.shape[2:]))
        for name, share in zip(DOMINANCE, shares, strict=True):
            curve = Curve(values(share[:-1]), number(share[-1]))
            found[CurveKey(pooling, name, variant, task.suite.pivot, code)] = curve
    return found


def tokens(
    task: AlignmentInputs,
    loaded: store.Activations,
    variant: str,
    false_rates: Mapping[str, float | None],
) -> dict[tuple[str, str], Tokens]:
    """Return tokens per character, and the Jaccard overlap of span tokens with the pivot's."""

    def span(stimulus: str) -> set[int]:
        record = loaded.tokens[stimulus]
        return {record["token_ids"][n] for n in record["span_tokens"]}

    found = {}
    pivot_ids = task.probe_ids(task.suite.pivot)
    for code in task.languages:
        ids = task.probe_ids(code)
        fertility = np.mean([loaded.tokens[i]["tokens_per_character"] for i in ids])
        shared = None
        if code != task.suite.pivot:
            overlaps = [
                len(span(a) & span(b)) / len(span(a) | span(b))
                for a, b in zip(ids, pivot_ids, strict=True)
            ]
            shared = round(float(np.mean(overlaps)), 4)
        rate = false_rates.get(code)
        found[variant, code] = Tokens(round(float(fertility), 4), shared, rate)
    return found
