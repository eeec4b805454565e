"""The tables of concept_alignment.py: one record per row, written as CSV."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from aya_probes import records
from aya_probes.results.alignment import Results
from aya_probes.results.curves import PRIMARY
from aya_probes.run_folder import RunPaths

FINAL_NORM = "final_norm"
UNASKED = ("untestable", "too_few_concepts", "too_few_wordings", "undefined")
"""Statuses of a cell in which no commitment layer can be asked for."""


@dataclass(frozen=True)
class Layers:
    """A row of results/commitment_matrix.csv: where a concept becomes shared, and until where."""

    __pydantic_config__ = records.STRICT

    variant: str
    """Variant."""
    language: str
    """Language compared with the pivot (BCP-47)."""
    concept_id: str
    """Concept, or ALL for the mean over concepts."""
    concept: str
    """English name, or ALL."""
    commitment_layer: int | None
    """First of 3 layers with max-T p <= 0.05 and half of the peak; −1 never, empty: see status."""
    release_layer: int | None
    """Where that ends; −1: shared to the last layer; empty without a commitment layer."""
    status: str
    """committed, never, untestable, too_few_concepts, too_few_wordings or undefined; a single
    concept is descriptive or untestable."""
    identical_input: float
    """Share of concepts with identical layer-0 vectors."""
    shared_tokens: float
    """Mean Jaccard overlap of span tokens with the pivot's."""
    legacy_layer: int | None
    """First of 3 layers with raw last-token cosine >= 0.85, as published; −1 never."""
    legacy_status: str
    """as_published, or identical_input where the last token is the same."""

    @property
    def span(self) -> str:
        """``commitment to release``, or why there is none."""
        if self.status != "committed":
            return self.status
        end = "end" if self.release_layer in (None, -1) else self.release_layer
        return f"{self.commitment_layer} to {end}"


@dataclass(frozen=True)
class Contrast:
    """A row of results/contrasts.csv: a difference between two variants."""

    __pydantic_config__ = records.STRICT

    contrast: str
    """What is compared: kind, then the variants."""
    language: str
    """Language, or the targeted against the untargeted ones for a specificity."""
    window: str
    """Layers read, for each half of the concepts."""
    estimate: float
    """Mean difference of A over concepts."""
    lower: float
    """Lower end of the 95% interval."""
    upper: float
    """Upper end of the 95% interval."""
    p: float
    """Sign-flip p-value over concepts, two-sided."""
    p_holm: float
    """The same, corrected over all contrasts (Holm)."""
    n: int
    """Concepts."""
    p_language: float | None
    """Specificity only: exact one-sided p over language labels; empty elsewhere."""
    p_language_floor: float | None
    """The smallest that p_language can be."""


@dataclass(frozen=True)
class CurveRow:
    """A row of results/curves.csv: one observation."""

    __pydantic_config__ = records.STRICT

    pooling: str
    """Tokens that the vectors average: span_mean, content_mean, last_content or last."""
    measure: str
    """concept_alignment, sentence_alignment, cosine, mismatched, parallel_retrieval, ..."""
    variant: str
    """Variant."""
    language_a: str
    """First language (the pivot, for pairs with it); `mean` for language-agnostic means."""
    language_b: str
    """Second language; with_pivot or without_pivot for language-agnostic means."""
    capture: str
    """residual (the residual stream at `layer`) or final_norm (after the final norm)."""
    layer: int | None
    """0 (input of block 0) to L (output of the last block); empty for final_norm."""
    mean: float | None
    """Estimate, in the unit of the measure; empty where undefined."""
    lower: float | None
    """Lower end of the 95% interval; empty where none is computed."""
    upper: float | None
    """Upper end of the 95% interval."""
    p: float | None
    """p-value corrected over layers 1..L (max-T); empty without inference."""
    p_joint: float | None
    """p-value corrected over layers and languages together."""
    n: int
    """Concepts, or items of the parallel corpus."""


def curve_rows(results: Results) -> Iterator[CurveRow]:
    """Yield every observation of every curve."""
    named = [((*key[:3], key.left, key.right), c) for key, c in results.curves.items()] + [
        ((PRIMARY[measure], measure, variant, "mean", family), c)
        for (measure, variant, family), c in results.agnostic.items()
    ]
    for (pooling, measure, variant, left, right), curve in named:
        n = curve.n if curve.n is not None else results.info.n
        columns = itertools.zip_longest(
            curve.mean, *(getattr(curve, f) or () for f in ("lower", "upper", "p", "p_joint"))
        )
        head = (pooling, measure, variant, left, right)
        for layer, (mean, lower, upper, p, p_joint) in enumerate(columns):
            yield CurveRow(*head, "residual", layer, mean, lower, upper, p, p_joint, n)
        low, high = curve.final_norm_interval or (None, None)
        yield CurveRow(*head, FINAL_NORM, None, curve.final_norm, low, high, None, None, n)


def save_tables(
    paths: RunPaths, results: Results, layers: Sequence[Layers], contrasts: Sequence[Contrast]
) -> None:
    """Write curves.csv, commitment_matrix.csv and contrasts.csv."""
    records.save_table(paths.curve_table, CurveRow, list(curve_rows(results)))
    records.save_table(paths.commitment, Layers, [_marked(row) for row in layers])
    records.save_table(paths.contrasts, Contrast, contrasts)


def _marked(row: Layers) -> Layers:
    """Write −1 for "never" where a layer was asked for: an empty cell means that it was not."""
    commitment, release, legacy = row.commitment_layer, row.release_layer, row.legacy_layer
    if row.concept_id == "ALL" and commitment is not None and release is None:
        release = -1
    if row.status not in UNASKED and commitment is None:
        commitment = -1
    return replace(
        row,
        commitment_layer=commitment,
        release_layer=release,
        legacy_layer=-1 if legacy is None else legacy,
    )
