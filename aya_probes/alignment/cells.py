"""Measure one variant: every language pair, layer and pooling, with controls and audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from aya_probes.alignment import inference, layers, measures, parallel
from aya_probes.alignment.inputs import AlignmentInputs
from aya_probes.extraction import store
from aya_probes.extraction.poolings import POOLINGS
from aya_probes.files import finite
from aya_probes.results.alignment import Results
from aya_probes.results.curves import (
    CONCEPT,
    COSINE,
    MISMATCHED,
    PRIMARY,
    SENTENCE,
    Curve,
    CurveKey,
    Inputs,
    Tokens,
    Values,
    number,
    values,
)
from aya_probes.results.run_info import RunInfo

IDENTICAL_LIMIT = 0.10  # a cell with this share of identical layer-0 vectors is untestable
LEGACY_POOLING = "last"  # of the published study
SHORT = {CONCEPT: "concept", SENTENCE: "sentence"}  # prefixes of the derived measures


@dataclass(frozen=True)
class Measured:
    """The measures of one variant. Arrays are ``[layer, concept]``, final_norm last."""

    curves: Mapping[CurveKey, Curve] = field(default_factory=dict)
    agnostic: Mapping[tuple[str, str, str], Curve] = field(default_factory=dict)
    inputs: Mapping[tuple[str, str, str, str], Inputs] = field(default_factory=dict)
    tokens: Mapping[tuple[str, str], Tokens] = field(default_factory=dict)
    cosines: Mapping[tuple[str, str, str], Values] = field(default_factory=dict)
    aligned: Mapping[str, np.ndarray] = field(default_factory=dict)
    """``concept_alignment`` A_i with the pivot, by language."""
    wins: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Share of wording pairs in which a concept wins two-way retrieval, by language."""
    false_rates: Mapping[str, float | None] = field(default_factory=dict)
    """Share of mismatched concept pairs that the per-concept rule would commit, by language."""
    legacy: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Raw cosine with the pivot on ``LEGACY_POOLING``, by language."""

    def __or__(self, other: Measured) -> Measured:
        names = [item.name for item in fields(self)]
        return Measured(*({**getattr(self, n), **getattr(other, n)} for n in names))

    def to_results(self, info: RunInfo) -> Results:
        """Return the measures that are saved."""
        return Results(
            info, self.curves, self.agnostic, self.inputs, self.tokens, cosines=self.cosines
        )


def make_curve(table: np.ndarray, weights: np.ndarray | None, chance: float | None = None) -> Curve:
    """Return the mean of ``table [layer, n]``; ``weights [B, n]`` give it bootstrap intervals."""
    means = table.mean(1)
    if weights is None:
        return Curve(values(means[:-1]), number(means[-1]), chance=chance)
    lower, upper = inference.expanded_interval(table, weights)
    last = values(np.array([lower[-1], upper[-1]]))
    return Curve(
        values(means[:-1]),
        number(means[-1]),
        values(lower[:-1]),
        values(upper[:-1]),
        final_norm_interval=(last[0], last[1]),
        chance=chance,
    )


def measure(task: AlignmentInputs, variant: str, loaded: store.Activations) -> Measured:
    """Return all measures of one variant, and the audit of its inputs."""
    order = [task.suite.pivot, *task.others]
    shape = (len(task.concepts), len(task.wordings), loaded.plan.layer_count, -1)
    found = Measured()
    for pooling in POOLINGS:
        vectors = [loaded.take(pooling, task.probe_ids(code)).reshape(shape) for code in order]
        inputs = _identical_inputs(task, dict(zip(order, vectors, strict=True)), pooling, variant)
        found |= Measured(inputs=inputs) | _raw_cosine(task, vectors, pooling, variant)
        for position, raw in enumerate(vectors):
            vectors[position] = measures.mean_centre(raw)
        found |= _aligned(task, vectors, pooling, variant, inputs)
    curves = parallel.measure(loaded, task.manifest, task.others, variant)
    return found | Measured(curves=curves, tokens=_tokens(task, loaded, variant, found.false_rates))


def _aligned(
    task: AlignmentInputs,
    centred: Sequence[np.ndarray],
    pooling: str,
    variant: str,
    inputs: Mapping[tuple[str, str, str, str], Inputs],
) -> Measured:
    """Measure concept and sentence alignment on one pooling.

    A measure's primary pooling gets all pairs, with p-values and intervals. Other poolings get
    point estimates of the pairs with the pivot.
    """
    usable = [name for name in PRIMARY if name != CONCEPT or len(task.wordings) > 1]
    home = [name for name in usable if PRIMARY[name] == pooling]
    left, right = np.triu_indices(len(centred), k=1)  # the order of task.pairs
    if not home:
        left, right = left[: len(task.others)], right[: len(task.others)]
    matrices: dict[str, list[np.ndarray]] = {name: [] for name in usable}
    with_pivot = []  # [layer][pair, k, k', n, n']
    for table in measures.layer_cosines(centred, pivot_only=not home):
        pairs = table[left, right]
        for name in usable:
            same = name == SENTENCE
            matrices[name].append(measures.wording_mean(pairs, same_wording=same))
        if home:
            with_pivot.append(pairs[: len(task.others)])
    found = Measured()
    for name, by_layer in matrices.items():
        stack = np.stack(by_layer, axis=1)  # [pair, layer, n, n']
        if name in home:
            found |= _infer(task, stack, name, variant)
            aligned = measures.alignment(stack)
            found |= Measured(agnostic=_agnostic(task, aligned, name, variant, inputs))
            for code, similarity in zip(task.others, np.stack(with_pivot, axis=1), strict=True):
                found |= _retrieval(task, similarity, name, variant, code)
            continue
        curves = [make_curve(measures.alignment(matrix), None) for matrix in stack]
        keys = [CurveKey(pooling, name, variant, task.suite.pivot, code) for code in task.others]
        found |= Measured(dict(zip(keys, curves, strict=False)))
    return found


def _infer(task: AlignmentInputs, stack: np.ndarray, name: str, variant: str) -> Measured:
    """Measure all pairs of ``stack [pair, layer, n, n]``: mean, interval, p-values, separation.

    ``p_joint`` corrects over the layers of all pairs with the pivot, or of all other pairs.
    """
    pooling, with_pivot = PRIMARY[name], len(task.others)
    aligned = measures.alignment(stack)
    families = [part[:, :-1] for part in (stack[:with_pivot], stack[with_pivot:]) if len(part)]
    tested = [inference.max_t(part, task.orders) for part in families] if task.infers else []
    own, joint = (
        [table for family in tested for table in family[kind]] for kind in (0, 1)
    )  # by pair, in the order of task.pairs
    curves: dict[CurveKey, Curve] = {}
    for position, (left, right) in enumerate(task.pairs):
        curve = make_curve(aligned[position], task.resamples)
        if tested:
            curve = replace(curve, p=values(own[position]), p_joint=values(joint[position]))
        curves[CurveKey(pooling, name, variant, left, right)] = curve
        if position < with_pivot:
            key = CurveKey(pooling, f"{SHORT[name]}_separation", variant, left, right)
            curves[key] = make_curve(measures.separation(stack[position])[:, None], None)
    by_language = dict(zip(task.others, aligned, strict=False)) if name == CONCEPT else {}
    return Measured(curves, aligned=by_language)


def _agnostic(
    task: AlignmentInputs,
    aligned: np.ndarray,
    name: str,
    variant: str,
    inputs: Mapping[tuple[str, str, str, str], Inputs],
) -> dict[tuple[str, str, str], Curve]:
    """Return the mean A over the testable pairs with the pivot, and over those without it."""
    found = {}
    for family, has_pivot in (("with_pivot", True), ("without_pivot", False)):
        kept = [
            n
            for n, (left, right) in enumerate(task.pairs)
            if not inputs[PRIMARY[name], variant, left, right].untestable
            and (left == task.suite.pivot) == has_pivot
        ]
        if kept:
            curve = make_curve(aligned[kept].mean(0), task.resamples)
            found[name, variant, family] = replace(curve, pairs=len(kept))
    return found


def _retrieval(
    task: AlignmentInputs, similarity: np.ndarray, name: str, variant: str, language: str
) -> Measured:
    """Measure retrieval within each wording pair of ``similarity [layer, k, k', n, n']``."""
    k = similarity.shape[1]
    chosen = np.eye(k, dtype=bool) if name == SENTENCE else ~np.eye(k, dtype=bool)
    scores = measures.retrieval(similarity[:, chosen])
    chance = round(1 / (2 * len(task.concepts) - 1), 5)
    curves = {}
    for score_name, score in scores.items():
        measure_name = f"{SHORT[name]}_retrieval_{score_name}"
        key = CurveKey(PRIMARY[name], measure_name, variant, task.suite.pivot, language)
        curves[key] = make_curve(
            score.mean(axis=1), task.resamples, chance if score_name == "two_way" else None
        )
    if name != CONCEPT:
        return Measured(curves)
    rate = finite(layers.mismatched_commitment(similarity[:-1, chosen]), 4)
    return Measured(
        curves, wins={language: scores["two_way"].mean(axis=1)}, false_rates={language: rate}
    )


def _raw_cosine(
    task: AlignmentInputs, vectors: Sequence[np.ndarray], pooling: str, variant: str
) -> Measured:
    """Measure raw (uncentred) cosine with the pivot, and its mismatched control."""
    by_layer = [
        measures.wording_mean(table[0, 1:], same_wording=True)
        for table in measures.layer_cosines(vectors, pivot_only=True)
    ]
    curves: dict[CurveKey, Curve] = {}
    cosines: dict[tuple[str, str, str], Values] = {}
    legacy: dict[str, np.ndarray] = {}
    for code, matrix in zip(task.others, np.stack(by_layer, axis=1), strict=True):
        matched = np.diagonal(matrix, axis1=1, axis2=2)
        for name, table in ((COSINE, matched), (MISMATCHED, measures.mismatched(matrix))):
            key = CurveKey(pooling, name, variant, task.suite.pivot, code)
            curves[key] = make_curve(table, task.resamples)
        if pooling == LEGACY_POOLING:
            legacy[code] = matched
        if pooling == "content_mean":
            for position, concept in enumerate(task.concepts):
                cosines[variant, concept, code] = values(matched[:-1, position])
    return Measured(curves, cosines=cosines, legacy=legacy)


# --- audit ------------------------------------------------------------------------------------


def _identical_inputs(
    task: AlignmentInputs, raw: Mapping[str, np.ndarray], pooling: str, variant: str
) -> dict[tuple[str, str, str, str], Inputs]:
    """Return the share of concepts with equal layer-0 vectors in some wording, for every pair."""
    found = {}
    for left, right in task.pairs:
        same = (raw[right][:, :, 0] == raw[left][:, :, 0]).all(axis=-1).any(axis=1)
        share = float(same.mean())
        found[pooling, variant, left, right] = Inputs(
            round(share, 4),
            share >= IDENTICAL_LIMIT,
            tuple(c for c, s in zip(task.concepts, same, strict=True) if s),
        )
    return found


def _tokens(
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
