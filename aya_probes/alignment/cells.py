"""Measures of one variant: every language pair, row and pooling, with controls and audit.

Fills the tree that becomes results/alignment_curves.json (docs/artifacts.md). ``measure`` is the
entry; arrays come from activations, nothing is written here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aya_probes import files
from aya_probes.alignment import inference, layers, measures, parallel
from aya_probes.extraction import poolings, store
from aya_probes.files import finite
from aya_probes.stimuli import Manifest
from aya_probes.suites import Suite

PRIMARY = {"concept": "span_mean", "sentence": "content_mean"}  # poolings with full inference
IDENTICAL_LIMIT = 0.10  # share of concepts with identical row-0 vectors that voids a cell
LEGACY_POOLING = "last"  # the published study's
MIN_CONCEPTS = 4  # for p-values and intervals


@dataclass
class Study:
    """What is analysed and the draws that every cell shares."""

    manifest: Manifest
    variants: list[str]
    languages: list[str]
    concepts: list[str]
    wordings: list[int]
    weights: np.ndarray
    orders: np.ndarray
    seed: int

    @property
    def suite(self) -> Suite:
        return self.manifest.suite

    @property
    def others(self) -> list[str]:
        return [code for code in self.languages if code != self.suite.pivot]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Return all language pairs, those with the pivot first."""
        return list(itertools.combinations([self.suite.pivot, *self.others], 2))

    @property
    def infers(self) -> bool:
        """Say whether there are enough concepts for p-values and intervals."""
        return len(self.concepts) >= MIN_CONCEPTS

    @property
    def resamples(self) -> np.ndarray | None:
        """Return the bootstrap weights, or None where intervals are withheld."""
        return self.weights if self.infers else None

    def probe_ids(self, language: str) -> list[str]:
        """Return the probe stimuli of a language, concepts outermost."""
        return [f"{c}-{language}-{k}" for c in self.concepts for k in self.wordings]


Tree = dict[str, Any]


@dataclass
class VariantCells:
    """What commitment, shape and contrasts need of one variant, per language (rows, then norm)."""

    aligned: dict[str, np.ndarray]  # ``concept`` A_i [row, n]
    wins: dict[str, np.ndarray]  # share of wording pairs won both ways [row, n]
    legacy: dict[str, np.ndarray]  # raw cosine on the published study's pooling [row, n]


# --- entries of the JSON ----------------------------------------------------------------------


def cell(values: np.ndarray, weights: np.ndarray | None) -> dict[str, Any]:
    """Return a curve's entry of the JSON from per-concept values ``[row, n]``, final norm last.

    Without ``weights`` the interval is null.
    """
    entry: dict[str, Any] = {
        "mean": files.finite_list(values[:-1].mean(1)),
        "lower": None,
        "upper": None,
        "p": None,
        "final_norm": finite(float(values[-1].mean()), 5),
    }
    if weights is not None:
        lower, upper = inference.expanded_interval(values, weights)
        entry |= {
            "lower": files.finite_list(lower[:-1]),
            "upper": files.finite_list(upper[:-1]),
            "final_norm_interval": files.finite_list(np.array([lower[-1], upper[-1]])),
        }
    return entry


def _put(tree: Tree, keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value


# --- one variant ------------------------------------------------------------------------------


def measure(task: Study, variant: str, loaded: store.Activations, out: Tree) -> VariantCells:
    """Fill ``out`` with one variant's measures and audit; returns what is tested further."""
    cells = VariantCells({}, {}, {})
    order = [task.suite.pivot, *task.others]
    shape = (len(task.concepts), len(task.wordings), len(loaded.plan.layers), -1)
    for pooling in poolings.POOLINGS:
        vectors = [loaded.take(pooling, task.probe_ids(code)).reshape(shape) for code in order]
        _identical_input(task, dict(zip(order, vectors, strict=True)), pooling, variant, out)
        _raw_cosine(task, vectors, pooling, variant, out, cells)
        for position, raw in enumerate(vectors):
            vectors[position] = measures.mean_centre(raw)
        _aligned(task, vectors, pooling, variant, out, cells)
    parallel.analyse(loaded, task.manifest, order[0], task.others, variant, out["measures"])
    _tokens(task, loaded, variant, out)
    return cells


def _aligned(
    task: Study,
    centred: Sequence[np.ndarray],
    pooling: str,
    variant: str,
    out: Tree,
    cells: VariantCells,
) -> None:
    """Write ``concept`` and ``sentence`` of one pooling.

    On a measure's own pooling all pairs are measured, with inference; elsewhere the pairs with the
    pivot, as point estimates.
    """
    usable = [name for name in PRIMARY if name != "concept" or len(task.wordings) > 1]
    home = [name for name in usable if PRIMARY[name] == pooling]
    left, right = np.triu_indices(len(centred), k=1)  # the order of task.pairs
    if not home:
        left, right = left[: len(task.others)], right[: len(task.others)]
    matrices: dict[str, list[np.ndarray]] = {name: [] for name in usable}
    with_pivot = []  # [row][pair, k, k', n, n']
    for table in measures.layer_cosines(centred, pivot_only=not home):
        pairs = table[left, right]
        for name in usable:
            matrices[name].append(measures.wording_mean(pairs, same_wording=name == "sentence"))
        if home:
            with_pivot.append(pairs[: len(task.others)])
    for name, rows in matrices.items():
        stack = np.stack(rows, axis=1)  # [pair, row, n, n']
        if name in home:
            _infer(task, stack, name, variant, out, cells)
            for code, similarity in zip(task.others, np.stack(with_pivot, axis=1), strict=True):
                _retrieval(task, similarity, name, variant, code, out, cells)
            continue
        for code, matrix in zip(task.others, stack, strict=False):
            _put(
                out["measures"],
                (pooling, name, variant, code),
                cell(measures.alignment(matrix), None),
            )


def _infer(
    task: Study, stack: np.ndarray, name: str, variant: str, out: Tree, cells: VariantCells
) -> None:
    """Write a measure of all pairs ``[pair, row, n, n]``: mean, interval, p, separation.

    The joint p-values correct over the rows of all pairs with the pivot, or of all pairs without.
    """
    pooling, with_pivot = PRIMARY[name], len(task.others)
    aligned = measures.alignment(stack)
    families = [part[:, :-1] for part in (stack[:with_pivot], stack[with_pivot:]) if len(part)]
    tested = [inference.max_t(part, task.orders) for part in families] if task.infers else []
    for position, (left, right) in enumerate(task.pairs):
        entry = cell(aligned[position], task.resamples)
        if tested:
            own, joint = tested[position >= with_pivot]
            index = position if position < with_pivot else position - with_pivot
            entry["p"] = files.finite_list(own[index])
            entry["p_joint"] = files.finite_list(joint[index])
        _put(out["pairs"], (name, variant, f"{left}-{right}"), entry)
        if position < with_pivot:
            _put(out["measures"], (pooling, name, variant, right), entry)
            spread = cell(measures.separation(stack[position])[:, None], None)
            _put(out["measures"], (pooling, f"{name}_separation", variant, right), spread)
            if name == "concept":
                cells.aligned[right] = aligned[position]
    _agnostic(task, aligned, name, variant, out)


def _agnostic(task: Study, aligned: np.ndarray, name: str, variant: str, out: Tree) -> None:
    """Write the mean over testable pairs, with the pivot and (language-agnostic) without it."""
    shares = out["audit"]["identical_pairs"][PRIMARY[name]][variant]
    testable = [shares["-".join(pair)] < IDENTICAL_LIMIT for pair in task.pairs]
    for family, has_pivot in (("with_pivot", True), ("without_pivot", False)):
        kept = [
            n
            for n, (left, _) in enumerate(task.pairs)
            if testable[n] and (left == task.suite.pivot) == has_pivot
        ]
        if kept:
            entry = {**cell(aligned[kept].mean(0), task.resamples), "pairs": len(kept)}
            _put(out["agnostic"], (name, variant, family), entry)


def _retrieval(
    task: Study,
    similarity: np.ndarray,
    name: str,
    variant: str,
    language: str,
    out: Tree,
    cells: VariantCells,
) -> None:
    """Write retrieval within wording pairs, of ``[row, k, k', n, n']``."""
    k = similarity.shape[1]
    chosen = np.eye(k, dtype=bool) if name == "sentence" else ~np.eye(k, dtype=bool)
    scores = measures.retrieval(similarity[:, chosen])
    for score_name, score in scores.items():
        entry = cell(score.mean(axis=1), task.resamples)
        if score_name == "two_way":
            entry["chance"] = round(1 / (2 * len(task.concepts) - 1), 5)
        keys = (PRIMARY[name], f"{name}_retrieval_{score_name}", variant, language)
        _put(out["measures"], keys, entry)
    if name == "concept":
        cells.wins[language] = scores["two_way"].mean(axis=1)
        rate = layers.mismatched_commitment(similarity[:-1, chosen])
        _put(out["audit"], ("concept_false_rate", variant, language), finite(rate, 4))


def _raw_cosine(
    task: Study,
    vectors: Sequence[np.ndarray],
    pooling: str,
    variant: str,
    out: Tree,
    cells: VariantCells,
) -> None:
    """Write uncentred cosine with the pivot, and its mismatched control."""
    rows = [
        measures.wording_mean(table[0, 1:], same_wording=True)
        for table in measures.layer_cosines(vectors, pivot_only=True)
    ]
    for code, matrix in zip(task.others, np.stack(rows, axis=1), strict=True):
        matched = np.diagonal(matrix, axis1=1, axis2=2)
        for name, values in (("cosine", matched), ("mismatched", measures.mismatched(matrix))):
            _put(out["measures"], (pooling, name, variant, code), cell(values, task.resamples))
        if pooling == LEGACY_POOLING:
            cells.legacy[code] = matched
        if pooling == "content_mean":
            for position, concept in enumerate(task.concepts):
                curve = files.finite_list(matched[:-1, position])
                _put(out["curves"], (variant, concept, code), curve)


# --- audit ------------------------------------------------------------------------------------


def _identical_input(
    task: Study, raw: dict[str, np.ndarray], pooling: str, variant: str, out: Tree
) -> None:
    """Audit: share of concepts whose pooled row-0 vectors are equal in some wording."""
    for left, right in task.pairs:
        same = (raw[right][:, :, 0] == raw[left][:, :, 0]).all(axis=-1).any(axis=1)
        share = float(same.mean())
        keys = ("identical_pairs", pooling, variant, f"{left}-{right}")
        _put(out["audit"], keys, round(share, 4))
        if left == task.suite.pivot:
            entry = {
                "share": round(share, 4),
                "untestable": share >= IDENTICAL_LIMIT,
                "concepts": [c for c, s in zip(task.concepts, same, strict=True) if s],
            }
            _put(out["audit"], ("identical_input", pooling, variant, right), entry)


def _tokens(task: Study, loaded: store.Activations, variant: str, out: Tree) -> None:
    """Audit: token Jaccard of the concepts' spans with the pivot, and fertility."""

    def span(stimulus: str) -> set[int]:
        record = loaded.tokens[stimulus]
        return {record["token_ids"][n] for n in record["span_tokens"]}

    for code in task.languages:
        ids, pivot_ids = task.probe_ids(code), task.probe_ids(task.suite.pivot)
        fertility = [loaded.tokens[i]["tokens_per_character"] for i in ids]
        keys = ("tokens_per_character", variant, code)
        _put(out["audit"], keys, round(float(np.mean(fertility)), 4))
        if code != task.suite.pivot:
            shared = [
                len(span(a) & span(b)) / len(span(a) | span(b))
                for a, b in zip(ids, pivot_ids, strict=True)
            ]
            _put(out["audit"], ("shared_tokens", variant, code), round(float(np.mean(shared)), 4))
