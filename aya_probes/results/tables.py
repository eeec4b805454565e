"""The CSV tables of concept_alignment.py, with one record per row."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from aya_probes import records
from aya_probes.results.alignment import Results
from aya_probes.results.curves import home_pooling
from aya_probes.run_folder import RunPaths

FINAL_NORM = "final_norm"
UNASKED = ("untestable", "too_few_concepts", "too_few_wordings", "undefined")
"""Statuses of a cell whose commitment layer is not computed."""


@dataclass(frozen=True)
class Layers:
    """A row of results/commitment_matrix.csv: from where and until where a concept is shared."""

    __pydantic_config__ = records.STRICT

    variant: str
    """Name of the variant."""
    language: str
    """Language compared with the pivot (BCP-47)."""
    concept_id: str
    """Id of the concept, or ALL for the mean over concepts."""
    concept: str
    """English name of the concept, or ALL."""
    commitment_layer: int | None
    """First of 3 layers with max-T p <= 0.05 and A >= half its peak; −1 never; empty see status."""
    commitment_lower: int | None
    """Lower end of the central 95% of that layer over resampled concepts; empty: not committed."""
    commitment_upper: int | None
    """Upper end of the same interval."""
    release_layer: int | None
    """Layer at which that rule fails again; −1: it holds up to layer L; empty: not committed."""
    commitment_raw: int | None
    """commitment_layer on vectors that are not standardised; −1 never; empty see status."""
    status: str
    """ALL: committed, never, untestable, too_few_concepts, too_few_wordings or undefined. A single
    concept: descriptive (its layer has no error rate) or untestable."""
    identical_input: float
    """Share of concepts whose layer-0 vector is identical in both languages."""
    shared_tokens: float
    """Mean Jaccard overlap of the concepts' span tokens with the pivot's."""
    legacy_layer: int | None
    """First of 3 layers with raw last-token cosine >= 0.85, the published rule; −1: never."""
    legacy_status: str
    """identical_input if 10% of the concepts have identical last tokens, else as_published."""

    @property
    def span(self) -> str:
        """The commitment and release layer, ``4 to 9`` or ``from 4``, or why there are none."""
        if self.status != "committed":
            return self.status
        if self.release_layer in (None, -1):
            return f"from {self.commitment_layer}"
        return f"{self.commitment_layer} to {self.release_layer}"


@dataclass(frozen=True)
class Contrast:
    """A row of results/contrasts.csv: a planned difference between two variants (ADR-016)."""

    __pydantic_config__ = records.STRICT

    measure: str
    """concept_alignment, parallel_alignment, parallel_retrieval or parallel_cka; with the suffix
    _raw on vectors that are not standardised."""
    family: str
    """specificity, parts, region, adaptation, post-training, seed, seed specificity, dose,
    trained."""
    contrast: str
    """The two variants."""
    part: str
    """specificity (targets minus others), targets or elsewhere; empty for a single language."""
    targets: str
    """Language, or the targeted languages joined by +."""
    others: str
    """The languages that they are compared with, joined by +; empty for a single language."""
    window: str
    """all (the primary window), middle or peak."""
    layers: str
    """Layers averaged; for the peak window, those of each half of the items."""
    estimate: float
    """Mean difference."""
    lower: float
    """Lower end of the 95% interval."""
    upper: float
    """Upper end of the 95% interval."""
    p: float
    """Sign-flip p-value over groups, two-sided."""
    p_holm: float
    """p, corrected over the rows of its family, measure and window (Holm)."""
    detectable: float
    """Smallest effect that the uncorrected test would find with 80% power."""
    n: int
    """Number of concepts, or of items of the parallel corpus."""
    groups: int
    """Number of independent groups: concepts, or documents of the corpus."""
    p_language: float | None
    """One-sided permutation p-value over language labels; specificity only."""
    p_language_floor: float | None
    """The smallest possible value of p_language."""

    @property
    def established(self) -> bool:
        """Whether the corrected p-value is at most 0.05."""
        return self.p_holm <= 0.05


@dataclass(frozen=True)
class LanguagePair:
    """A row of results/language_map.csv: sentence alignment of two languages at one layer.

    The table has no rows for a suite with probes and at most 10 languages.
    """

    __pydantic_config__ = records.STRICT

    variant: str
    """Name of the variant."""
    layer: int
    """Layer nearest to L/3, L/2 or 2L/3."""
    language_a: str
    """First language (BCP-47): the pivot, if the pair has it."""
    language_b: str
    """Second language."""
    alignment: float | None
    """Mean A on the parallel corpus, standardised vectors; empty if undefined."""
    n: int
    """Number of sentences: all, or 256 that are evenly spaced."""


@dataclass(frozen=True)
class CurveRow:
    """A row of results/curves.csv: one curve at one layer or at final_norm."""

    __pydantic_config__ = records.STRICT

    pooling: str
    """Tokens over which vectors are averaged: span_mean, content_mean, last_content or last."""
    measure: str
    """concept_alignment, sentence_alignment, cosine, mismatched, parallel_retrieval, ..."""
    variant: str
    """Name of the variant."""
    language_a: str
    """First language: the pivot, if the pair has it; `mean` for a mean over pairs."""
    language_b: str
    """Second language; with_pivot or without_pivot for a mean over pairs."""
    capture: str
    """residual (the residual stream at `layer`) or final_norm (the output of the final norm)."""
    layer: int | None
    """0 (input of block 0) to L (output of the last block); empty for final_norm."""
    mean: float | None
    """Estimate, in the unit of the measure; empty if undefined."""
    lower: float | None
    """Lower end of the 95% interval; empty if there is no interval."""
    upper: float | None
    """Upper end of the 95% interval."""
    p: float | None
    """p-value, corrected over layers 1..L (max-T); empty if there is no test."""
    p_joint: float | None
    """p-value, corrected over layers 1..L of all pairs with the pivot, or of all others."""
    n: int
    """Number of concepts, or of items of the parallel corpus."""


def curve_rows(results: Results) -> Iterator[CurveRow]:
    """Yield the rows of every curve: layers 0..L, then final_norm."""
    named = [((*key[:3], key.left, key.right), c) for key, c in results.curves.items()] + [
        ((home_pooling(measure), measure, variant, "mean", family), c)
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
    """Return the row with −1 for "never"; an empty cell means that the layer was not computed."""
    commitment, release, legacy = row.commitment_layer, row.release_layer, row.legacy_layer
    raw = -1 if row.concept_id == "ALL" and row.commitment_raw is None else row.commitment_raw
    if row.concept_id == "ALL" and commitment is not None and release is None:
        release = -1
    if row.status in UNASKED:
        raw = None
    elif commitment is None:
        commitment = -1
    return replace(
        row,
        commitment_layer=commitment,
        release_layer=release,
        commitment_raw=raw,
        legacy_layer=-1 if legacy is None else legacy,
    )
