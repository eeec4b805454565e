"""Commitment layers, release layers and curve shapes of one variant.

A concept is shared from its commitment layer on, and is language-specific again from its release
layer on (ADR-004, ADR-008, ADR-016).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from aya_probes.alignment import ceiling, layers
from aya_probes.alignment.cells import LEGACY_POOLING, Measured
from aya_probes.alignment.inputs import AlignmentInputs
from aya_probes.results.curves import CONCEPT, PRIMARY, RAW, CurveKey, Inputs, Shape
from aya_probes.results.tables import Layers

LEGACY_IDENTICAL = 0.10  # with this share of identical last tokens the rule compares nothing
LEGACY_COSINE = 0.85  # the published rule: at least this raw cosine on ``last`` at 3 layers


@dataclass(frozen=True)
class _Cell:
    """One language of one variant."""

    task: AlignmentInputs
    variant: str
    language: str
    measured: Measured

    @property
    def inputs(self) -> Inputs:
        return self._inputs("span_mean")

    def _inputs(self, pooling: str) -> Inputs:
        return self.measured.inputs[pooling, self.variant, self.task.suite.pivot, self.language]

    @property
    def aligned(self) -> np.ndarray | None:
        return self.measured.aligned.get((CONCEPT, self.language))

    @property
    def status(self) -> str:
        """``tested``, or the reason why the cell has no commitment layer."""
        if self.inputs.untestable:
            return "untestable"
        if not self.task.infers:
            return "too_few_concepts"
        if self.aligned is None:
            return "too_few_wordings"
        return "tested" if np.isfinite(self.aligned).any() else "undefined"

    def all_concepts(self) -> Layers:
        """Return the commitment and release layer of the mean over concepts."""
        status = self.status
        legacy = self.measured.legacy[self.language].mean(1)
        record = self._record("ALL", legacy)
        if status != "tested" or self.aligned is None:
            return replace(record, status=status)
        curve, p = self._tested(CONCEPT)
        layer = layers.commitment_layer(curve, p)
        raw = layers.commitment_layer(*self._tested(CONCEPT + RAW))
        record = replace(record, status="never" if layer is None else "committed")
        if layer is None:
            return replace(record, commitment_raw=raw)
        low, high = self._commitment_interval(p)
        return replace(
            record,
            commitment_layer=layer,
            commitment_lower=low,
            commitment_upper=high,
            release_layer=layers.release_layer(curve, p, layer),
            commitment_raw=raw,
        )

    def _tested(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return mean A and its max-T p-values over layers 0..L."""
        pivot = self.task.suite.pivot
        key = CurveKey(PRIMARY[CONCEPT], name, self.variant, pivot, self.language)
        curve = self.measured.curves[key]
        return curve.array(), curve.array("p")

    def _commitment_interval(self, p: np.ndarray) -> tuple[int | None, int | None]:
        """Return the central 95% of the commitment layer with resampled concepts and the same p."""
        assert self.aligned is not None
        table = self.aligned[:-1]
        table = table[:, np.isfinite(table).all(0)]
        weights = self.task.weights(table.shape[1])
        if weights is None:
            return None, None
        found = layers.commitment_layers(weights @ table.T, p)
        found = found[found >= 0]
        return layers.layer_interval(found) if len(found) else (None, None)

    def single_concepts(self) -> list[Layers]:
        """Return the commitment layer of each concept; no error rate is controlled."""
        wins = self.measured.wins.get(self.language)
        found = None if wins is None else layers.concept_commitment(wins[:-1])
        table = []
        for position, concept in enumerate(self.task.concepts):
            record = self._record(concept, self.measured.legacy[self.language][:, position])
            if found is not None and concept not in self.inputs.concepts:
                record = replace(record, status="descriptive", commitment_layer=found[position])
            table.append(record)
        return table

    def _record(self, concept: str, legacy: np.ndarray) -> Layers:
        """Return a record with status untestable; ``legacy [layer]`` is raw cosine."""
        names = self.task.manifest.metadata["concepts"]
        shared = self.measured.tokens[self.variant, self.language].shared_tokens
        assert shared is not None  # it is None for the pivot only
        void = self._inputs(LEGACY_POOLING).share >= LEGACY_IDENTICAL
        return Layers(
            variant=self.variant,
            language=self.language,
            concept_id=concept,
            concept=names.get(concept, concept),
            commitment_layer=None,
            commitment_lower=None,
            commitment_upper=None,
            release_layer=None,
            commitment_raw=None,
            status="untestable",
            identical_input=self.inputs.share,
            shared_tokens=shared,
            legacy_layer=layers.first_run(legacy[:-1] >= LEGACY_COSINE, start=0),
            legacy_status="identical_input" if void else "as_published",
        )


def commitment_table(task: AlignmentInputs, variant: str, measured: Measured) -> list[Layers]:
    """Return the layers of every language: for the mean over concepts (ALL), then by concept."""
    if not task.concepts:
        return []
    cells = [_Cell(task, variant, code, measured) for code in task.others]
    return [record for cell in cells for record in (cell.all_concepts(), *cell.single_concepts())]


def find_shapes(
    task: AlignmentInputs, variant: str, measured: Measured
) -> dict[tuple[str, str], Shape]:
    """Return the shape of every language's disattenuated curve; empty with fewer than 8
    concepts."""
    pivot, found = task.suite.pivot, {}
    for code in task.others:
        if (CONCEPT, code) not in measured.aligned:
            continue
        void = measured.inputs[PRIMARY[CONCEPT], variant, pivot, code].untestable
        shape = ceiling.shape(measured.relative.get(code), void=void)
        if shape is not None:
            found[variant, code] = shape
    return found
