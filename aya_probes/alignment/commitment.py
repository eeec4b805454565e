"""Commitment layers, release layers and curve shapes of one variant.

A concept is shared from its commitment layer on, and is language-specific again from its release
layer on (ADR-004, ADR-008).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from aya_probes.alignment import layers
from aya_probes.alignment.cells import LEGACY_POOLING, Measured
from aya_probes.alignment.inputs import MIN_SPLIT_CONCEPTS, AlignmentInputs
from aya_probes.files import finite
from aya_probes.results.curves import CONCEPT, PRIMARY, CurveKey, Inputs, Shape
from aya_probes.results.tables import Layers

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
        return self.measured.aligned.get(self.language)

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
        status, layer, release = self.status, None, None
        if status == "tested" and self.aligned is not None:
            pivot = self.task.suite.pivot
            key = CurveKey(PRIMARY[CONCEPT], CONCEPT, self.variant, pivot, self.language)
            curve, p = self.aligned[:-1].mean(1), self.measured.curves[key].array("p")
            layer = layers.commitment_layer(curve, p)
            release = None if layer is None else layers.release_layer(curve, p, layer)
            status = "never" if layer is None else "committed"
        legacy = self.measured.legacy[self.language].mean(1)
        return replace(
            self._record("ALL", legacy),
            status=status,
            commitment_layer=layer,
            release_layer=release,
        )

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
        void = self._inputs(LEGACY_POOLING).untestable
        return Layers(
            variant=self.variant,
            language=self.language,
            concept_id=concept,
            concept=names.get(concept, concept),
            commitment_layer=None,
            release_layer=None,
            status="untestable",
            identical_input=self.inputs.share,
            shared_tokens=shared,
            legacy_layer=layers.first_run(legacy[:-1] >= LEGACY_COSINE, start=0),
            legacy_status="identical_input" if void else "as_published",
        )


def commitment_table(task: AlignmentInputs, variant: str, measured: Measured) -> list[Layers]:
    """Return the layers of every language: for the mean over concepts (ALL), then by concept."""
    cells = [_Cell(task, variant, code, measured) for code in task.others]
    return [record for cell in cells for record in (cell.all_concepts(), *cell.single_concepts())]


def find_shapes(
    task: AlignmentInputs, variant: str, measured: Measured
) -> dict[tuple[str, str], Shape]:
    """Return the shape of every language's curve; empty with fewer than 8 concepts."""
    if len(task.concepts) < MIN_SPLIT_CONCEPTS:
        return {}
    pivot = task.suite.pivot
    return {
        (variant, code): shape(
            aligned,
            seed=task.seed,
            void=measured.inputs["span_mean", variant, pivot, code].untestable,
        )
        for code, aligned in measured.aligned.items()
    }


def shape(aligned: np.ndarray, *, seed: int, void: bool) -> Shape:
    """Return the shape of ``aligned [layer, n]``, final_norm last; ``void`` means untestable."""
    if not np.isfinite(aligned[:-1]).all():
        return Shape("UNDEFINED", None, None, None)
    label, peak = layers.shape_label(aligned[:-1], seed=seed)
    means = aligned.mean(1)
    top = float(means[:-1].max())
    return Shape(
        label="UNTESTABLE" if void else label,
        peak_layer=None if void else peak,
        norm_step=finite(float(means[-1] - means[-2])),
        # For a flat curve this would be a ratio of two noise values.
        retained=finite(float(means[-2]) / top) if label != "FLAT" and top > 0 else None,
    )
