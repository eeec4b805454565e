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
COSINE, MISMATCHED = "cosine", "mismatched"
PARALLEL_RETRIEVAL, PARALLEL_CKA = "parallel_retrieval", "parallel_cka"

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
    """p-value by layer, corrected over layers 1..L (max-T); null if there is no test."""
    p_joint: Values | None = None
    """p-value by layer, corrected over layers 1..L of all pairs with the pivot (or all others)."""
    final_norm_interval: tuple[float | None, float | None] | None = None
    """95% interval at final_norm."""
    n: int | None = None
    """Number of items of the parallel corpus; absent for curves over the concepts of the run."""
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
    """How many concepts have the same input vector in two languages: their alignment is trivial."""

    __pydantic_config__ = records.STRICT

    share: float
    """Share of concepts whose pooled layer-0 vectors are equal in at least one wording."""
    untestable: bool
    """Whether the cell is untestable: the share is 10% or more."""
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
class Shape:
    """The shape of a `concept_alignment` curve."""

    __pydantic_config__ = records.STRICT

    label: str
    """RISE_PEAK_COLLAPSE, MONOTONE_RISE, MONOTONE_FALL, FLAT, UNRESOLVED, UNTESTABLE, UNDEFINED."""
    peak_layer: int | None
    """Layer with the largest mean; null for FLAT, UNRESOLVED, UNTESTABLE and UNDEFINED."""
    norm_step: float | None
    """Change of the mean from layer L to final_norm."""
    retained: float | None
    """Mean at layer L divided by the largest mean of layers 0..L; null for FLAT and UNDEFINED."""
