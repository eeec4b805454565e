"""Where a typed pair of sentences falls among the suite's own pairs, layer by layer.

Raw cosine is high for unrelated sentences too. So a pair is centred like the study's own vectors
(ADR-016), and its value is placed among those of sentences with different meanings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aya_probes.alignment.measures import unit


@dataclass(frozen=True)
class Language:
    """Mean and spread of a language's vectors on the suite's sentences, ``[layer, hidden]``."""

    mean: np.ndarray
    spread: np.ndarray
    """Standard deviation; 0 where a dimension does not vary."""

    def standardise(self, vectors: np.ndarray) -> np.ndarray:
        """Return ``[..., layer, hidden]`` centred and divided by the spread (ADR-016)."""
        varies = self.spread > 1e-6 * self.spread.max(axis=-1, keepdims=True)
        scaled = (vectors - self.mean) / np.where(varies, self.spread, 1.0)
        return np.where(varies, scaled, 0.0)


@dataclass(frozen=True)
class Reference:
    """The suite's own pairs of two languages."""

    left: Language
    right: Language
    matched: np.ndarray
    """Cosines of translations, ``[pair, layer]``."""
    mismatched: np.ndarray
    """Cosines of sentences with different meanings, ``[pair, layer]``."""


@dataclass(frozen=True)
class Placed:
    """A typed pair among the suite's pairs, each ``[layer]``."""

    cosine: np.ndarray
    """Cosine of the two standardised vectors."""
    alignment: np.ndarray
    """Cosine minus the mean of mismatched pairs; 0 is chance."""
    percentile: np.ndarray
    """Percentage of mismatched pairs with a smaller cosine."""


def describe(vectors: np.ndarray) -> Language:
    """Return mean and spread of ``[sentence, layer, hidden]``."""
    return Language(vectors.mean(axis=0), vectors.std(axis=0))


def reference(left: np.ndarray, right: np.ndarray, meaning: np.ndarray) -> Reference:
    """Return the reference of two languages.

    ``left`` and ``right`` are ``[sentence, layer, hidden]``; sentence i of one translates sentence
    i of the other. ``meaning [sentence]`` numbers what a sentence is about: sentences about the
    same thing are no mismatched pair. Raises ValueError for other shapes, or if no two meanings
    differ.
    """
    if left.shape != right.shape or left.ndim != 3 or len(meaning) != len(left):
        raise ValueError(f"expected two [n, l, h] arrays of one shape: {left.shape}, {right.shape}")
    other = meaning[:, None] != meaning[None]
    if not other.any():
        raise ValueError("mismatched pairs need two meanings")
    ours, theirs = describe(left), describe(right)
    a, b = unit(ours.standardise(left)), unit(theirs.standardise(right))
    cosines = np.einsum("alh,blh->abl", a, b)
    return Reference(ours, theirs, np.einsum("alh,alh->al", a, b), cosines[other])


def place(left: np.ndarray, right: np.ndarray, among: Reference) -> Placed:
    """Return where a pair of vectors ``[layer, hidden]`` falls among the reference's pairs."""
    a = unit(among.left.standardise(left))
    b = unit(among.right.standardise(right))
    cosine = (a * b).sum(axis=-1)
    below = (among.mismatched < cosine).mean(axis=0) * 100
    unknown = np.isnan(cosine) | np.isnan(among.mismatched).all(axis=0)
    return Placed(cosine, cosine - among.mismatched.mean(axis=0), np.where(unknown, np.nan, below))
