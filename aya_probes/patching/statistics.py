"""Does a patch move the concept, and not the language: effects, tests and windows of layers.

``scores [l, i, k]`` is the log-probability of the word of concept k after the vectors of concept i
were put into a prompt that asks for another concept, minus that of the same prompt as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aya_probes.alignment import inference, layers

ALPHA = 0.05
RUN = 3  # consecutive layers of a window, at least (ADR-004)
_SWEEPS = 30


def without_asked(scores: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return ``scores [l, i, k]`` with the word that each prompt asks for made neutral.

    Its probability falls whatever is put in. Where ``asked [i, k]`` (bool) is True, the value
    becomes what an additive model of row and column gives (Yates 1933), so that it carries no
    interaction. Raises ValueError for a concept whose own word would be made neutral.
    """
    if np.diagonal(asked).any():
        raise ValueError("a prompt that asks for the concept that is put in shows no effect of it")
    filled = scores.astype(float)
    filled[:, asked] = np.nan
    mean = np.nanmean(filled, axis=(1, 2))
    filled = np.where(asked, mean[:, None, None], filled)
    for _ in range(_SWEEPS):
        fitted = filled.mean(2, keepdims=True) + filled.mean(1, keepdims=True)
        filled = np.where(asked, fitted - filled.mean((1, 2), keepdims=True), filled)
    return filled


def effect(scores: np.ndarray) -> np.ndarray:
    """Return how far each concept's own word rises beyond the other words, ``[l, n]``, in nats.

    n/(n − 1) · (C_ii − mean of row i − mean of column i + mean), the interaction of an additive
    model. What a prompt does to all words, and what all patches do to a word, cancels in every
    concept; the mean over concepts is that of the diagonal minus that of all other cells. It is 0
    where what is put in carries nothing of a concept.
    """
    n = scores.shape[-1]
    diagonal = np.diagonal(scores, axis1=1, axis2=2)
    additive = scores.mean(2) + scores.mean(1) - scores.mean((1, 2))[:, None]
    return (diagonal - additive) * n / (n - 1)


def concept_p(scores: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return p-values ``[l]`` of a positive mean effect: permutation of concepts, max-T over
    layers 1 and above; layer 0 has its own (``inference.permutation_null``)."""
    return inference.permutation_null(scores[None], orders).p()[0]


def larger_p(differences: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """Return one-sided p-values ``[l]`` of mean(differences ``[l, n]``) > 0, max-T over layers.

    Signs are flipped by concept, the same for all layers: under the null hypothesis a concept's
    differences are symmetric about 0. The statistic is Σd/√Σd², whose denominator no flip changes.
    Layer 0 has its own p-value, like ``concept_p``. NaN where all differences are 0.
    """
    n = differences.shape[1]
    size = np.sqrt((differences**2).sum(1))
    usable = size > 1e-9
    scaled = differences / np.where(usable, size, 1.0)[:, None]
    signs = np.random.default_rng([seed, n, 13]).integers(0, 2, size=(count, n)) * 2.0 - 1.0
    null = np.where(usable, signs @ scaled.T, -np.inf)
    observed = scaled.sum(1)
    largest = null[:, 1:].max(1) if len(differences) > 1 else null[:, 0]
    reached = (largest[:, None] >= observed - inference.TIE).sum(0)
    reached[0] = (null[:, 0] >= observed[0] - inference.TIE).sum()
    return np.where(usable, (reached + 1) / (count + 1), np.nan)


@dataclass(frozen=True)
class Window:
    """The layers that carry the concept but not the language."""

    first: int | None
    """First layer; None: no such layers."""
    last: int | None
    """Last layer of the same run."""
    first_interval: tuple[int, int] | None
    """Central 95% of the first layer over resampled concepts."""
    last_interval: tuple[int, int] | None
    """The same of the last layer."""
    found_share: float
    """Share of the resamples that have a window."""


def edges(holds: np.ndarray) -> tuple[int, int] | None:
    """Return first and last layer of the first run of at least 3 True values from layer 1 on."""
    first = layers.first_run(holds, start=1, length=RUN)
    if first is None:
        return None
    broken = np.flatnonzero(~holds[first:])
    return first, (first + int(broken[0]) if len(broken) else len(holds)) - 1


def window(
    moved: np.ndarray, beyond: np.ndarray, p_concept: np.ndarray, p_language: np.ndarray
) -> tuple[int, int] | None:
    """Return the edges of the layers that carry the concept but not the language, or None.

    There the concept's word in the target language rises (``p_concept [l]`` ≤ 0.05), by at least
    half of its largest rise (``moved [l]``), and by more than the concept's word in the source
    language does (``beyond [l]`` > 0, ``p_language [l]`` ≤ 0.05). Both tests must reject: an
    intersection-union test, of level 0.05 (Berger 1982).
    """
    return edges(_holds(moved, beyond) & (p_concept <= ALPHA) & (p_language <= ALPHA))


def _holds(moved: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    return (moved >= moved[..., 1:].max(-1, keepdims=True) / 2) & (beyond > 0)


def estimate_window(
    in_target: np.ndarray,
    in_source: np.ndarray,
    p: tuple[np.ndarray, np.ndarray],
    weights: np.ndarray,
) -> Window:
    """Return the window of effects ``[l, n]``, with intervals over resampled concepts.

    ``p`` holds p_concept and p_language ``[l]`` of the data, so the spread is that of the sizes of
    the effects; ``weights [B, n]`` are the resamples. Intervals are over those with a window.
    """
    difference = in_target - in_source
    found = window(in_target.mean(1), difference.mean(1), *p)
    if found is None:
        return Window(None, None, None, None, 0.0)
    called = (p[0] <= ALPHA) & (p[1] <= ALPHA)
    again = _holds(weights @ in_target.T, weights @ difference.T) & called
    ends = np.array([pair for row in again if (pair := edges(row)) is not None])
    first, last = (layers.layer_interval(ends[:, side]) for side in (0, 1))
    return Window(*found, first, last, len(ends) / len(weights))
