"""Curves by layer, and the audit that says what they can mean."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from aya_probes import records
from aya_probes.files import finite

CONCEPT, SENTENCE = "concept_alignment", "sentence_alignment"
PRIMARY = {CONCEPT: "span_mean", SENTENCE: "content_mean"}
"""Measures with full inference, and the pooling of each."""
COSINE, MISMATCHED = "cosine", "mismatched"
PARALLEL_RETRIEVAL, PARALLEL_CKA = "parallel_retrieval", "parallel_cka"

Values = tuple[float | None, ...]  # one per layer 0..L; None where the value is undefined


def number(value: float) -> float | None:
    """Return a plain number, NaN as None."""
    return None if np.isnan(value) else float(value)


def values(array: np.ndarray) -> Values:
    """Return an array over layers as plain numbers, NaN as None."""
    return tuple(map(number, array))


@dataclass(frozen=True)
class Curve:
    """A quantity by layer."""

    __pydantic_config__ = records.STRICT

    mean: Values
    """Estimate at layers 0..L; null where it is undefined (constant or zero vectors)."""
    final_norm: float | None
    """Estimate after the final norm, which is no layer of the curve."""
    lower: Values | None = None
    """Lower end of the 95% interval by layer; null where none is computed."""
    upper: Values | None = None
    """Upper end of the 95% interval."""
    p: Values | None = None
    """p-value by layer, corrected over layers 1..L (max-T); null without inference."""
    p_joint: Values | None = None
    """p-value corrected over layers and over all pairs with the pivot (or all without) together."""
    final_norm_interval: tuple[float | None, float | None] | None = None
    """95% interval after the final norm."""
    n: int | None = None
    """Items, where they are not the concepts of the run (parallel corpus)."""
    chance: float | None = None
    """Value expected by chance (retrieval)."""
    pairs: int | None = None
    """Language pairs averaged (language-agnostic means)."""

    def array(self, name: str = "mean") -> np.ndarray:
        """Return ``mean``, ``lower``, ``upper``, ``p`` or ``p_joint`` as floats ``[L + 1]``.

        Undefined values, and a field that the curve does not have, are NaN.
        """
        found = getattr(self, name)
        return np.full(len(self.mean), np.nan) if found is None else np.array(found, dtype=float)

    @property
    def peak(self) -> int | None:
        """The layer of the largest estimate; None if all are undefined."""
        mean = self.array()
        return None if np.isnan(mean).all() else int(np.nanargmax(mean))

    def rounded(self) -> dict[str, Any]:
        """Return the curve as it stands in the JSON: 5 significant digits, no absent fields."""
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
    """Which curve: on which pooling, of which measure, variant and pair of languages."""

    pooling: str
    measure: str
    variant: str
    left: str  # the pivot, for pairs with it
    right: str


@dataclass(frozen=True)
class Inputs:
    """How far two languages have the same input vectors: alignment there is trivial."""

    __pydantic_config__ = records.STRICT

    share: float
    """Share of concepts whose pooled layer-0 vectors are equal in some wording."""
    untestable: bool
    """The share voids the cell (10% or more)."""
    concepts: tuple[str, ...]
    """Ids of these concepts."""


@dataclass(frozen=True)
class Tokens:
    """What the tokenizer makes of the probes of one language."""

    __pydantic_config__ = records.STRICT

    tokens_per_character: float
    """Mean over the probes: fertility."""
    shared_tokens: float | None = None
    """Mean Jaccard overlap of the concepts' span tokens with the pivot's; null for the pivot."""
    concept_false_rate: float | None = None
    """Share of mismatched concept pairs that the per-concept commitment rule would call."""


@dataclass(frozen=True)
class Shape:
    """The shape of a `concept_alignment` curve."""

    __pydantic_config__ = records.STRICT

    label: str
    """RISE_PEAK_COLLAPSE, MONOTONE_RISE, MONOTONE_FALL, FLAT, UNRESOLVED, UNTESTABLE, UNDEFINED."""
    peak_layer: int | None
    """Layer of the largest alignment; null where the label names none."""
    norm_step: float | None
    """Change of the mean from layer L to after the final norm."""
    retained: float | None
    """Mean at layer L over the largest mean; null for flat curves."""
