"""The measures that the page can show, with names for people and the title of their axis."""

from __future__ import annotations

from dataclasses import dataclass

from aya_probes.results.alignment import Results
from aya_probes.results.curves import (
    CEILING,
    CONCEPT,
    COSINE,
    DISATTENUATED,
    HUB_SKEW,
    MISMATCHED,
    NO_LENGTH,
    PARALLEL_ALIGNMENT,
    PARALLEL_CKA,
    PARALLEL_CSLS,
    PARALLEL_RETRIEVAL,
    RAW,
    SENTENCE,
    WITHIN_CATEGORY,
)

A_AXIS, COSINE_AXIS = "A (0 = chance)", "cosine"
RATIO_AXIS, RATE_AXIS = "A / noise ceiling (1 = as within a language)", "share found"


@dataclass(frozen=True)
class Measure:
    """A measure that a visitor can choose."""

    label: str
    axis: str


MEASURES = {
    CONCEPT: Measure("concept alignment (primary)", A_AXIS),
    DISATTENUATED: Measure("concept alignment relative to the noise ceiling", RATIO_AXIS),
    WITHIN_CATEGORY: Measure("concept alignment within the category", A_AXIS),
    CONCEPT + RAW: Measure("concept alignment, vectors not standardised", A_AXIS),
    CONCEPT + NO_LENGTH: Measure("concept alignment without text length", A_AXIS),
    CEILING: Measure("noise ceiling: sentences of the language itself", A_AXIS),
    SENTENCE: Measure("sentence alignment", A_AXIS),
    SENTENCE + RAW: Measure("sentence alignment, vectors not standardised", A_AXIS),
    SENTENCE + NO_LENGTH: Measure("sentence alignment without text length", A_AXIS),
    PARALLEL_ALIGNMENT: Measure("corpus: alignment", A_AXIS),
    PARALLEL_ALIGNMENT + RAW: Measure("corpus: alignment, not standardised", A_AXIS),
    PARALLEL_RETRIEVAL: Measure("corpus: two-way retrieval", RATE_AXIS),
    PARALLEL_CSLS: Measure("corpus: two-way retrieval with CSLS", RATE_AXIS),
    PARALLEL_RETRIEVAL + RAW: Measure("corpus: two-way retrieval, not standardised", RATE_AXIS),
    PARALLEL_CKA: Measure("corpus: unbiased CKA", "CKA"),
    PARALLEL_CKA + RAW: Measure("corpus: unbiased CKA, not standardised", "CKA"),
    HUB_SKEW: Measure("corpus: skew of hubs", "skewness (0 = no hubs)"),
    COSINE: Measure("raw cosine, with its mismatched control", COSINE_AXIS),
    MISMATCHED: Measure("raw cosine of mismatched concepts (control)", COSINE_AXIS),
}


def available(results: Results) -> list[str]:
    """Return the measures of ``MEASURES`` that the run has."""
    measured = {key.measure for key in results.curves}
    return [name for name in MEASURES if name in measured]


def poolings(results: Results, measure: str) -> list[str]:
    """Return the poolings on which a measure was computed."""
    return sorted({key.pooling for key in results.curves if key.measure == measure})


def on_corpus(measure: str) -> bool:
    """Return whether a measure is of the parallel corpus, whose inputs have no concepts."""
    return measure.startswith("parallel")
