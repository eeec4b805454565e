"""Measure one variant: every language pair, layer and pooling, with controls and audit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from aya_probes.alignment import (
    audit,
    ceiling,
    cues,
    estimates,
    inference,
    layers,
    measures,
    parallel,
)
from aya_probes.alignment.audit import InputKey
from aya_probes.alignment.ceiling import Disattenuated
from aya_probes.alignment.inference import Null
from aya_probes.alignment.inputs import MIN_CONCEPTS, AlignmentInputs
from aya_probes.extraction import store
from aya_probes.extraction.poolings import POOLINGS
from aya_probes.files import finite
from aya_probes.results.alignment import Results
from aya_probes.results.curves import (
    CONCEPT,
    COSINE,
    MISMATCHED,
    NO_LENGTH,
    PRIMARY,
    RAW,
    SENTENCE,
    WITHIN_CATEGORY,
    Curve,
    CurveKey,
    Inputs,
    Tokens,
    Values,
    values,
)
from aya_probes.results.run_info import RunInfo

LEGACY_POOLING = "last"  # of the published study
SHORT = {CONCEPT: "concept", SENTENCE: "sentence"}  # prefixes of the derived measures
SCALINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "": measures.standardise,
    RAW: measures.mean_centre,
}
"""How vectors are scaled before cosines are taken, by the suffix of the measure (ADR-016)."""


@dataclass(frozen=True)
class Measured:
    """The measures of one variant. Arrays are ``[layer, concept]``, final_norm last."""

    curves: Mapping[CurveKey, Curve] = field(default_factory=dict)
    agnostic: Mapping[tuple[str, str, str], Curve] = field(default_factory=dict)
    inputs: Mapping[InputKey, Inputs] = field(default_factory=dict)
    tokens: Mapping[tuple[str, str], Tokens] = field(default_factory=dict)
    cosines: Mapping[tuple[str, str, str], Values] = field(default_factory=dict)
    aligned: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)
    """A_i with the pivot, by measure and language; NaN for concepts with identical inputs."""
    relative: Mapping[str, Disattenuated] = field(default_factory=dict)
    """Alignment relative to the noise ceiling, by language."""
    items: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)
    """Values of the items of the parallel corpus ``[layer, item]``, by measure and language."""
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


def measure(task: AlignmentInputs, variant: str, loaded: store.Activations) -> Measured:
    """Return all measures of one variant, and the audit of its inputs."""
    found = _probes(task, variant, loaded) if task.concepts else Measured()
    curves, items = parallel.measure(loaded, task, variant)
    return found | Measured(curves=curves, items=items)


def _probes(task: AlignmentInputs, variant: str, loaded: store.Activations) -> Measured:
    """Return the measures of the concept probes."""
    shape = (len(task.concepts), len(task.wordings), loaded.plan.layer_count, -1)
    found = Measured()
    for pooling in POOLINGS:
        raw = {c: loaded.take(pooling, task.probe_ids(c)).reshape(shape) for c in task.order}
        inputs = audit.identical_inputs(task, raw, pooling, variant)
        found |= Measured(inputs=inputs)
        found |= _raw_cosine(task, list(raw.values()), pooling, variant)
        for suffix, scale in SCALINGS.items():
            if suffix and pooling not in PRIMARY.values():
                continue
            vectors = {code: scale(table) for code, table in raw.items()}
            cell = _Cells(task, variant, pooling, suffix, inputs)
            found |= cell.measure(vectors)
            if pooling == PRIMARY[CONCEPT]:
                found |= _ceilings(task, vectors, found, cell)
        if pooling in PRIMARY.values():
            found |= _without_length(_Cells(task, variant, pooling, NO_LENGTH, inputs), raw)
    return found | Measured(tokens=audit.tokens(task, loaded, variant, found.false_rates))


def _without_length(cell: _Cells, raw: Mapping[str, np.ndarray]) -> Measured:
    """Measure alignment on vectors from which the length of the texts is regressed out."""
    task, text_of = cell.task, {s.stimulus_id: s.text for s in cell.task.manifest.stimuli}
    vectors = {}
    for code, table in raw.items():
        lengths = np.array([len(text_of[i]) for i in task.probe_ids(code)])
        vectors[code] = measures.standardise(
            cues.length_removed(table, lengths.reshape(table.shape[:2]))
        )
    found = cell.measure(vectors)
    return replace(found, aligned={})


def _ceilings(
    task: AlignmentInputs, vectors: Mapping[str, np.ndarray], found: Measured, cell: _Cells
) -> Measured:
    """Return noise ceilings and disattenuated alignment, or for raw vectors the dominance."""
    if cell.suffix:
        return Measured(audit.dominance(task, vectors, cell.pooling, cell.variant))
    aligned = {c: table for (name, c), table in found.aligned.items() if name == CONCEPT}
    if not aligned:
        return Measured()
    curves, relative = ceiling.measure(task, vectors, aligned, cell.pooling, cell.variant)
    return Measured(curves, relative=relative)


@dataclass(frozen=True)
class _Cells:
    """All language pairs of one variant, pooling and scaling."""

    task: AlignmentInputs
    variant: str
    pooling: str
    suffix: str
    inputs: Mapping[InputKey, Inputs]

    def key(self, name: str, left: str, right: str) -> CurveKey:
        return CurveKey(self.pooling, name + self.suffix, self.variant, left, right)

    def kept(self, left: str, right: str) -> np.ndarray:
        """Return the concepts that a pair is measured on ``[concept]``."""
        found = self.inputs[self.pooling, self.variant, left, right]
        return audit.kept_concepts(self.task, found)

    def measure(self, vectors: Mapping[str, np.ndarray]) -> Measured:
        """Measure concept and sentence alignment.

        A measure's primary pooling gets all pairs, with p-values and intervals. Other poolings get
        point estimates of the pairs with the pivot, and raw vectors only these pairs.
        """
        task = self.task
        usable = [name for name in PRIMARY if name != CONCEPT or len(task.wordings) > 1]
        home = [name for name in usable if PRIMARY[name] == self.pooling]
        if self.suffix:
            usable = home
        pivot_only = not home or bool(self.suffix)
        pairs = task.pairs[: len(task.others)] if pivot_only else task.pairs
        left, right = np.triu_indices(len(vectors), k=1)  # the order of task.pairs
        left, right = left[: len(pairs)], right[: len(pairs)]
        matrices: dict[str, list[np.ndarray]] = {name: [] for name in usable}
        with_pivot = []  # [layer][pair, k, k', n, n']
        for table in measures.layer_cosines(list(vectors.values()), pivot_only=pivot_only):
            chosen = table[left, right]
            for name in usable:
                same = name == SENTENCE
                matrices[name].append(measures.wording_mean(chosen, same_wording=same))
            if home and not self.suffix:
                with_pivot.append(chosen[: len(task.others)])
        found = Measured()
        for name, by_layer in matrices.items():
            stack = np.stack(by_layer, axis=1)  # [pair, layer, n, n']
            if name in home:
                found |= self._infer(stack, name, pairs)
                if not self.suffix:
                    found |= self._derived(stack, name, with_pivot)
                continue
            for (a, b), matrix in zip(pairs[: len(task.others)], stack, strict=False):
                table, _ = self._aligned(matrix, a, b)
                curve = estimates.mean_curve(table, None)
                found |= Measured({self.key(name, a, b): curve})
        return found

    def _aligned(self, matrix: np.ndarray, left: str, right: str) -> tuple[np.ndarray, np.ndarray]:
        """Return A_i of the kept concepts ``[layer, n']``, and their similarity."""
        kept = self.kept(left, right)
        part = matrix[:, kept][:, :, kept]
        return measures.alignment(part, centred_on=len(kept)), part

    def _infer(self, stack: np.ndarray, name: str, pairs: Sequence[tuple[str, str]]) -> Measured:
        """Measure all pairs of ``stack [pair, layer, n, n]``: mean, interval, p-values.

        ``p_joint`` corrects over the layers of all pairs with the pivot, or of all other pairs.
        """
        task, with_pivot = self.task, len(self.task.others)
        p, joint = _family_p(self, stack[:with_pivot], pairs[:with_pivot])
        if len(pairs) > with_pivot:
            others = _family_p(self, stack[with_pivot:], pairs[with_pivot:])
            p, joint = p | others[0], joint | others[1]
        curves: dict[CurveKey, Curve] = {}
        aligned: dict[tuple[str, str], np.ndarray] = {}
        for matrix, (left, right) in zip(stack, pairs, strict=True):
            table, _ = self._aligned(matrix, left, right)
            n, kept = table.shape[1], self.kept(left, right)
            differs = n if n != len(kept) else None
            curve = estimates.mean_curve(table, task.weights(n), n=differs)
            if (left, right) in p:
                curve = replace(curve, p=values(p[left, right]), p_joint=values(joint[left, right]))
            curves[self.key(name, left, right)] = curve
            if left == task.suite.pivot:
                whole = np.full((len(table), len(kept)), np.nan)
                whole[:, kept] = table
                aligned[name + self.suffix, right] = whole
        return Measured(curves, aligned=aligned)

    def _derived(self, stack: np.ndarray, name: str, with_pivot: Sequence[np.ndarray]) -> Measured:
        """Measure what is derived from ``stack [pair, layer, n, n]`` of all pairs."""
        task, curves = self.task, dict[CurveKey, Curve]()
        found = Measured(agnostic=_agnostic(self, stack, name))
        pairs = zip(task.others, stack, np.stack(with_pivot, axis=1), strict=False)
        for code, matrix, by_wording in pairs:
            _, part = self._aligned(matrix, task.suite.pivot, code)
            separation = measures.separation(part)[:, None]
            key = self.key(f"{SHORT[name]}_separation", task.suite.pivot, code)
            curves[key] = estimates.mean_curve(separation, None)
            if name == CONCEPT:
                curves |= self._within_category(matrix, code)
            found |= _retrieval(self, by_wording, name, code)
        return found | Measured(curves)

    def _within_category(self, matrix: np.ndarray, code: str) -> dict[CurveKey, Curve]:
        """Measure alignment against mismatches of the same category alone, and test it."""
        task, pivot = self.task, self.task.suite.pivot
        kept = self.kept(pivot, code)
        blocks, part = task.categories[kept], matrix[:, kept][:, :, kept]
        table = measures.alignment_within(part, blocks, centred_on=len(kept))
        n = table.shape[1]
        if n < MIN_CONCEPTS:
            return {}
        orders = inference.block_permutations(blocks, len(task.orders), task.seed)
        p, _ = inference.max_t(part[None, :-1], orders, blocks)
        curve = replace(estimates.mean_curve(table, task.weights(n), n=n), p=values(p[0]))
        return {self.key(WITHIN_CATEGORY, pivot, code): curve}


PairTable = dict[tuple[str, str], np.ndarray]


def _family_p(
    cells: _Cells, stack: np.ndarray, pairs: Sequence[tuple[str, str]]
) -> tuple[PairTable, PairTable]:
    """Return the p-values of each pair, and those corrected over all ``pairs`` too.

    A pair without its concepts with identical inputs uses the permutations that the shared ones
    induce on the others. Empty for too few concepts.
    """
    groups: dict[bytes, list[int]] = {}
    for position, (left, right) in enumerate(pairs):
        kept = cells.kept(left, right)
        if kept.sum() >= MIN_CONCEPTS:
            groups.setdefault(kept.tobytes(), []).append(position)
    nulls: dict[bytes, Null] = {}
    for packed, members in groups.items():
        kept = np.frombuffer(packed, dtype=bool)
        part = stack[members][:, :-1][:, :, kept][:, :, :, kept]
        orders = inference.induced(cells.task.orders, kept)
        nulls[packed] = inference.permutation_null(part, orders)
    family = list(nulls.values())
    own: PairTable = {}
    joint: PairTable = {}
    for packed, members in groups.items():
        null = nulls[packed]
        for position, p, p_joint in zip(members, null.p(), null.p_joint(family), strict=True):
            own[pairs[position]], joint[pairs[position]] = p, p_joint
    return own, joint


def _agnostic(cells: _Cells, stack: np.ndarray, name: str) -> dict[tuple[str, str, str], Curve]:
    """Return the mean A over the testable pairs with the pivot, and over those without it."""
    task, found = cells.task, {}
    for family, has_pivot in (("with_pivot", True), ("without_pivot", False)):
        tables = []
        for (left, right), matrix in zip(task.pairs, stack, strict=True):
            inputs = cells.inputs[cells.pooling, cells.variant, left, right]
            if inputs.untestable or (left == task.suite.pivot) != has_pivot:
                continue
            aligned, _ = cells._aligned(matrix, left, right)
            tables.append(np.full((len(aligned), len(task.concepts)), np.nan))
            tables[-1][:, cells.kept(left, right)] = aligned
        if tables:
            table = np.nanmean(tables, axis=0)
            known = np.isfinite(table).any(0)
            n = int(known.sum())
            differs = n if n != len(known) else None
            curve = estimates.mean_curve(table[:, known], task.weights(n), n=differs)
            found[name, cells.variant, family] = replace(curve, pairs=len(tables))
    return found


def _retrieval(cells: _Cells, similarity: np.ndarray, name: str, language: str) -> Measured:
    """Measure retrieval within each wording pair of ``similarity [layer, k, k', n, n']``."""
    task, pivot = cells.task, cells.task.suite.pivot
    kept = cells.kept(pivot, language)
    n, k = int(kept.sum()), similarity.shape[1]
    chosen = np.eye(k, dtype=bool) if name == SENTENCE else ~np.eye(k, dtype=bool)
    part = similarity[:, chosen][..., kept, :][..., kept]
    scores = measures.retrieval(part)
    curves = {}
    for score_name, score in scores.items():
        chance = round(1 / (2 * n - 1), 5) if score_name == "two_way" else None
        differs = n if n != len(kept) else None
        key = cells.key(f"{SHORT[name]}_retrieval_{score_name}", pivot, language)
        curves[key] = estimates.mean_curve(
            score.mean(axis=1), task.weights(n), n=differs, chance=chance
        )
    if name != CONCEPT:
        return Measured(curves)
    rate = finite(layers.mismatched_commitment(part[:-1]), 4)
    wins = np.full((len(part), len(kept)), np.nan)
    wins[:, kept] = scores["two_way"].mean(axis=1)
    return Measured(curves, wins={language: wins}, false_rates={language: rate})


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
            curves[key] = estimates.mean_curve(table, task.weights(table.shape[1]))
        if pooling == LEGACY_POOLING:
            legacy[code] = matched
        if pooling == "content_mean":
            for position, concept in enumerate(task.concepts):
                cosines[variant, concept, code] = values(matched[:-1, position])
    return Measured(curves, cosines=cosines, legacy=legacy)
