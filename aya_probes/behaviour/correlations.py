"""Does alignment predict comprehension? Correlations with permutation tests and intervals.

The question has three forms, and an answer to one is none to the others (ADR-019):

- over languages, within a variant: are the languages that are aligned the ones understood?
- over texts, within a language: are the texts that are aligned the ones understood?
- over variants, within a language: does the variant that aligns a language more understand it more?

Each removes what the form holds constant by least squares, together with covariates such as the
share of strings that a language has in common with the pivot: what correlates are the residuals.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from aya_probes.alignment import inference

ENUMERATED = 7  # up to this many units all n! orders are used (5,040)
MIN_UNITS = 4
_FLAT = 1e-12  # share of variance below which a vector is constant but for rounding


@dataclass(frozen=True)
class Correlation:
    """A (partial) correlation of two measurements."""

    r: float | None
    """Pearson's r of the residuals; None if one does not vary."""
    lower: float | None
    """Lower end of the 95% interval (Fisher's z); None for too few units."""
    upper: float | None
    """Upper end of that interval."""
    p: float | None
    """Two-sided permutation p-value."""
    p_floor: float | None
    """The smallest p-value that the number of permutations allows."""
    n: int
    """Number of values."""
    units: int
    """Number of units that are permuted: languages, texts or variants."""


def over_languages(
    alignment: np.ndarray,
    behaviour: np.ndarray,
    covariates: np.ndarray | None = None,
    *,
    count: int = 10_000,
    seed: int = 0,
) -> Correlation:
    """Return the correlation over languages of one variant, ``[language]`` each.

    ``covariates [language, k]`` are held constant. Languages are permuted. Leave untestable
    languages out. Raises ValueError for other shapes.
    """
    n = len(alignment)
    design = _design(np.zeros(n, dtype=int), covariates)
    return _correlate(alignment, behaviour, design, _orders(n, count, seed), n)


def over_texts(
    alignment: np.ndarray,
    behaviour: np.ndarray,
    languages: np.ndarray,
    covariates: np.ndarray | None = None,
    *,
    count: int = 10_000,
    seed: int = 0,
) -> Correlation:
    """Return the correlation over texts within their language, ``[text]`` each.

    ``languages [text]`` labels the language, whose mean is removed; ``covariates [text, k]`` are
    held constant. Texts are permuted within their language. Give one value per independent unit,
    such as a concept's mean over wordings. Raises ValueError for other shapes.
    """
    labels = np.unique(languages, return_inverse=True)[1]
    orders = inference.block_permutations(labels, count, seed)
    return _correlate(alignment, behaviour, _design(labels, covariates), orders, len(labels))


def over_variants(
    alignment: np.ndarray,
    behaviour: np.ndarray,
    covariates: np.ndarray | None = None,
    *,
    count: int = 10_000,
    seed: int = 0,
) -> Correlation:
    """Return the correlation over variants within languages, ``[variant, language]`` each.

    The mean of every language is removed; ``covariates [variant, language, k]`` are held constant.
    A variant is permuted with all its languages at once: what one training changes in ten languages
    is one observation of a training, not ten. All orders are used for up to 7 variants, and the
    interval counts variants, so both are wide for few. Raises ValueError for other shapes.
    """
    if alignment.ndim != 2 or alignment.shape != behaviour.shape:
        raise ValueError(
            f"expected two [variant, language] arrays, got {alignment.shape}, {behaviour.shape}"
        )
    variants, languages = alignment.shape
    labels = np.tile(np.arange(languages), variants)
    flat = None if covariates is None else covariates.reshape(variants * languages, -1)
    orders = _orders(variants, count, seed)[:, :, None] * languages + np.arange(languages)
    design = _design(labels, flat)
    return _correlate(
        alignment.ravel(), behaviour.ravel(), design, orders.reshape(len(orders), -1), variants
    )


def _design(labels: np.ndarray, covariates: np.ndarray | None) -> np.ndarray:
    """Return an orthonormal basis ``[value, rank]`` of group means and covariates."""
    columns = [(labels[:, None] == np.unique(labels)).astype(float)]
    if covariates is not None:
        if len(covariates) != len(labels):
            raise ValueError(f"{len(covariates)} rows of covariates for {len(labels)} values")
        columns.append(covariates.reshape(len(labels), -1) - covariates.mean(0))
    whole = np.concatenate(columns, axis=1)
    basis, sizes, _ = np.linalg.svd(whole, full_matrices=False)
    return np.asarray(basis[:, sizes > 1e-10 * sizes.max()])


def _orders(n: int, count: int, seed: int) -> np.ndarray:
    """Return orders of n units ``[B, n]``, the given one first: all for n ≤ 7, else random."""
    if n <= ENUMERATED:
        return np.array(list(itertools.permutations(range(n))))
    rng = np.random.default_rng([seed, n, 21])
    return rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1)


def _correlate(
    left: np.ndarray, right: np.ndarray, design: np.ndarray, orders: np.ndarray, units: int
) -> Correlation:
    """Return the correlation of residuals; the residuals of ``right`` are permuted.

    After Freedman & Lane 1983: residuals are exchangeable where the values are not. Each permuted
    vector is freed from ``design`` again before its length is taken.
    """
    if left.shape != right.shape or left.shape != (len(design),):
        raise ValueError(
            f"expected two vectors of {len(design)} values, got {left.shape}, {right.shape}"
        )
    n = len(left)
    mine, other = (values - design @ (design.T @ values) for values in (left, right))
    for values, whole in ((mine, left), (other, right)):
        if not np.isfinite(whole).all():
            raise ValueError("a value is NaN or infinite; leave its unit out")
        if units < MIN_UNITS or values @ values <= _FLAT * max(whole @ whole, 1e-300):
            return Correlation(None, None, None, None, None, n, units)
    shuffled = other[orders]
    shuffled = shuffled - (shuffled @ design) @ design.T
    lengths = np.linalg.norm(shuffled, axis=1)
    null = shuffled @ mine / np.where(lengths > 0, lengths, 1) / np.linalg.norm(mine)
    r = float(mine @ other / np.linalg.norm(mine) / np.linalg.norm(other))
    reached = int((np.abs(null) >= abs(r) - inference.TIE).sum())
    enumerated = units <= ENUMERATED and len(orders) == math.factorial(units)
    extra = 0 if enumerated else 1  # all orders hold the observed one
    total = len(orders) + extra
    free = units - 3 - (design.shape[1] - 1 if units == n else 0)
    lower, upper = _fisher(r, free)
    return Correlation(r, lower, upper, (reached + extra) / total, 1 / total, n, units)


def _fisher(r: float, free: int) -> tuple[float | None, float | None]:
    """Return tanh(artanh r ± 1.96 / √free), the interval of Fisher's z with n − 3 = ``free``."""
    if free < 1:
        return None, None
    z = math.atanh(min(max(r, -1 + 1e-15), 1 - 1e-15))
    margin = float(special.ndtri(0.975)) / math.sqrt(free)
    return math.tanh(z - margin), math.tanh(z + margin)
