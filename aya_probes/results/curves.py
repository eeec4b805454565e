"""Curves by layer, and the audit of the inputs, which shows where a curve is trivial."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from aya_probes import records
from aya_probes.files import finite

CONCEPT, SENTENCE = "concept_alignment", "sentence_alignment"
PRIMARY = {CONCEPT: "span_mean", SENTENCE: "content_mean"}
"""The measures with p-values and intervals, and the primary pooling of each."""
RAW = "_raw"
"""Suffix of a measure on vectors that are mean-centred but not standardised: a sensitivity row."""
NO_LENGTH = "_no_length"
"""Suffix of a measure on vectors without what is linear in the log length of the text."""
WITHIN_CATEGORY, CEILING = "concept_within_category", "concept_ceiling"
DISATTENUATED = "concept_disattenuated"
DOMINANCE = ("dominance_1", "dominance_3", "dominance_10")
"""Share of squared length that the largest 1, 3 and 10 dimensions carry, of `span_mean`."""
COSINE, MISMATCHED = "cosine", "mismatched"
PARALLEL_ALIGNMENT, PARALLEL_RETRIEVAL = "parallel_alignment", "parallel_retrieval"
PARALLEL_CSLS, PARALLEL_CKA = "parallel_retrieval_csls", "parallel_cka"
HUB_SKEW = "parallel_hub_skew"
ITEM_MEASURES = (PARALLEL_ALIGNMENT, PARALLEL_RETRIEVAL, PARALLEL_CKA)
"""Measures of the parallel corpus that have one value per item, and so contrasts."""
_SPAN_MEASURES = (CONCEPT, WITHIN_CATEGORY, CEILING, DISATTENUATED, *DOMINANCE)


def home_pooling(measure: str) -> str:
    """Return the pooling on which a measure has p-values or intervals."""
    return (
        "span_mean"
        if measure.removesuffix(RAW).removesuffix(NO_LENGTH) in _SPAN_MEASURES
        else "content_mean"
    )


Values = tuple[float | None, ...]  # one per layer 0..L; None where the value is undefined


def number(value: float) -> float | None:
    """Return a plain float; NaN becomes None."""
    return None if np.isnan(value) else float(value)


def values(array: np.ndarray) -> Values:
    """Return an array ``[layer]`` as plain floats; NaN becomes None."""
    return tuple(map(number, array))


@dataclass(frozen=True)
class Curve:
    """A measure by layer."""

    __pydantic_config__ = records.STRICT

    mean: Values
    """Estimate at layers 0..L; null where it is undefined (constant or zero vectors)."""
    final_norm: float | None
    """Estimate at final_norm, which is not a layer of the curve."""
    lower: Values | None = None
    """Lower end of the 95% interval by layer; null if there is no interval."""
    upper: Values | None = None
    """Upper end of the 95% interval by layer."""
    p: Values | None = None
    """p-value by layer, corrected over layers 1..L (max-T); layer 0 has that of layer 0 alone.
    Null if there is no test."""
    p_joint: Values | None = None
    """p-value by layer, corrected over layers 1..L of all pairs with the pivot (or all others)."""
    final_norm_interval: tuple[float | None, float | None] | None = None
    """95% interval at final_norm."""
    n: int | None = None
    """Number of concepts or items of the curve; absent if it is that of the run's concepts."""
    chance: float | None = None
    """Value expected by chance; retrieval only."""
    pairs: int | None = None
    """Number of language pairs averaged; means over pairs only."""

    def array(self, name: str = "mean") -> np.ndarray:
        """Return ``mean``, ``lower``, ``upper``, ``p`` or ``p_joint`` as a float array ``[L + 1]``.

        Undefined values are NaN; a field that the curve does not have is all NaN.
        """
        found = getattr(self, name)
        return np.full(len(self.mean), np.nan) if found is None else np.array(found, dtype=float)

    @property
    def peak(self) -> int | None:
        """The layer with the largest estimate; None if all are undefined."""
        mean = self.array()
        return None if np.isnan(mean).all() else int(np.nanargmax(mean))

    def rounded(self) -> dict[str, Any]:
        """Return the curve for the JSON: 5 significant digits, optional fields only if present."""
        entry: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, tuple):
                value = [None if v is None else finite(v, 5) for v in value]
            elif isinstance(value, float):
                value = finite(value, 5)
            if value is not None or item.name in ("lower", "upper", "p", "final_norm"):
                entry[item.name] = value
        return entry


class CurveKey(NamedTuple):
    """The key of a curve."""

    pooling: str
    measure: str
    variant: str
    left: str  # the pivot, for pairs with it
    right: str


@dataclass(frozen=True)
class Inputs:
    """The concepts with the same input vector in two languages; they are left out of the pair."""

    __pydantic_config__ = records.STRICT

    share: float
    """Share of concepts whose pooled layer-0 vectors are equal in at least one wording."""
    untestable: bool
    """Whether fewer than 4 concepts, or less than half of them, would remain."""
    concepts: tuple[str, ...]
    """Ids of the concepts with equal vectors."""


@dataclass(frozen=True)
class Tokens:
    """How the tokenizer splits the probes of one language."""

    __pydantic_config__ = records.STRICT

    tokens_per_character: float
    """Tokens per character (fertility), mean over the probes."""
    shared_tokens: float | None = None
    """Mean Jaccard overlap of the concepts' span tokens with the pivot's; null for the pivot."""
    concept_false_rate: float | None = None
    """Share of mismatched concept pairs that the per-concept commitment rule would commit."""


@dataclass(frozen=True)
class Cue:
    """What a cue that is not meaning would give, as the same A with the same test."""

    __pydantic_config__ = records.STRICT

    alignment: float
    """Mean A of the cue's similarity: in SD of a scalar cue, in cosine or Jaccard overlap else."""
    p: float | None
    """Permutation p-value; null if the cue is the same for all texts."""

    @property
    def passes(self) -> bool:
        """Whether the cue alone would be called alignment: p is at most 0.05."""
        return self.p is not None and self.p <= 0.05


@dataclass(frozen=True)
class Shape:
    """The shape of a `concept_disattenuated` curve over layers 0..L."""

    __pydantic_config__ = records.STRICT

    label: str
    """RISE_PEAK_DECLINE, RISE, FALL, FLAT, UNRESOLVED, UNTESTABLE, or UNDEFINED
    (a ceiling is not above 0 at some layer)."""
    peak_layer: int | None
    """Layer with the largest value; null for FLAT, UNRESOLVED, UNTESTABLE and UNDEFINED."""
    peak_interval: tuple[int, int] | None
    """Central 95% of that layer over resampled concepts."""
    norm_step: float | None
    """Change from layer L to final_norm."""
    retained: float | None
    """Value at layer L divided by the largest of layers 0..L; null for FLAT and UNDEFINED."""
    rise: tuple[float, float, float] | None = None
    """Largest value minus that at layer 0, and its 95% interval; null for UNTESTABLE and UNDEFINED.
    The layer of the largest value is chosen on the same data: only the label is a test."""
    decline: tuple[float, float, float] | None = None
    """Largest value minus that at layer L, and its 95% interval; likewise."""
