"""Permutation tests, bootstrap intervals and corrections, as functions from arrays to arrays."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special  # scipy.stats takes a second to import

CHUNK_VALUES = 4_000_000  # float64 values of the null distribution in memory at once: 32 MB
ENUMERATED_LABELS = 100_000
EXACT_FLIPS = 12  # up to this n, all 2^n sign vectors are used (4,096)
ONEHOT_CONCEPTS = 64  # up to this n, a one-hot matrix product is faster than gathering
TIE = 1e-9  # statistics closer than this are equal, so that rounding decides no p-value


def permutations(n: int, count: int, seed: int) -> np.ndarray:
    """Return ``count`` random permutations of n concepts, ``[count, n]``."""
    return np.random.default_rng([seed, n, 1]).permuted(np.tile(np.arange(n), (count, 1)), axis=1)


def _null_sums(flat: np.ndarray, orders: np.ndarray, n: int) -> np.ndarray:
    """Return Σ_i C_{i,π(i)} ``[permutation, cell]`` for the matrices C in ``flat [n·n, cell]``."""
    places = np.arange(n) * n + orders
    if n <= ONEHOT_CONCEPTS:  # one matrix product for all cells
        onehot = np.zeros((len(orders), n * n))
        np.put_along_axis(onehot, places, 1.0, axis=1)
        return onehot @ flat
    return np.stack([flat[place].sum(0) for place in places])


def block_permutations(blocks: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return ``count`` random permutations ``[count, n]`` that stay within the ``blocks [n]``."""
    rng = np.random.default_rng([seed, len(blocks), 6])
    orders = np.tile(np.arange(len(blocks)), (count, 1))
    for block in dict.fromkeys(blocks.tolist()):
        members = np.flatnonzero(blocks == block)
        orders[:, members] = rng.permuted(np.tile(members, (count, 1)), axis=1)
    return orders


def induced(orders: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the permutations of the concepts in ``kept [n]`` (bool) that ``orders [B, n]`` induce.

    A uniform permutation of n concepts induces a uniform permutation of any part of them.
    """
    return orders[:, kept].argsort(1).argsort(1)


@dataclass(frozen=True)
class Null:
    """Studentised mean A of language pairs, with its permutation distribution (``max_t``)."""

    observed: np.ndarray
    """``[pair, l]``, NaN where it is undefined."""
    first: np.ndarray
    """Value at layer 0 in each permutation ``[pair, B]``."""
    largest: np.ndarray
    """Largest value over layers 1..L in each permutation ``[pair, B]``."""

    def p(self) -> np.ndarray:
        """Return p-values ``[pair, l]``: max-T over layers 1..L of the pair; layer 0 has its
        own."""
        return self._reached(self.first, self.largest)

    def p_joint(self, family: Sequence[Null]) -> np.ndarray:
        """Return p-values ``[pair, l]`` corrected over all pairs of ``family`` too.

        The nulls of the family must come from the same permutations, in the same order.
        """
        first = np.max([null.first.max(0) for null in family], axis=0)
        largest = np.max([null.largest.max(0) for null in family], axis=0)
        shape = self.first.shape
        return self._reached(np.broadcast_to(first, shape), np.broadcast_to(largest, shape))

    def _reached(self, first: np.ndarray, largest: np.ndarray) -> np.ndarray:
        p = np.empty(self.observed.shape)
        for row, values in enumerate(self.observed):
            ordered = np.sort(largest[row])
            p[row] = len(ordered) - np.searchsorted(ordered, values - TIE)
            p[row, 0] = (first[row] >= values[0] - TIE).sum()
        return np.where(np.isnan(self.observed), np.nan, (p + 1) / (largest.shape[1] + 1))


def permutation_null(
    similarity: np.ndarray, orders: np.ndarray, blocks: np.ndarray | None = None
) -> Null:
    """Return the null distribution of mean A for every pair and layer.

    ``similarity [pair, l, n, n]`` holds layers 0..L, ``orders [B, n]`` the permutations, which stay
    within the ``blocks [n]`` if these are given.

    Under the null hypothesis, the concepts of one language are exchangeable (within their block).
    One permutation serves all wordings, layers and pairs (Westfall & Young 1993). Mean A is affine
    in Σ_i C_{i,π(i)}. This sum is studentised by its exact permutation mean and variance, block by
    block: ΣC/n and Σd²/(n − 1), where d is C centred by row and column (Hoeffding 1951). No moment
    depends on the draws, so with b draws that reach the observed value, p = (b + 1)/(B + 1) is
    exact for any B.
    """
    pairs, depth, n, _ = similarity.shape
    matrix = similarity.astype(np.float64)
    usable = np.asarray(np.isfinite(matrix).all(axis=(2, 3)))
    matrix = np.where(usable[..., None, None], matrix, 0.0)
    centre, variance = np.zeros((pairs, depth)), np.zeros((pairs, depth))
    for label in np.unique(np.zeros(n) if blocks is None else blocks):
        mine = np.ones(n, dtype=bool) if blocks is None else blocks == label
        block = matrix[:, :, mine][:, :, :, mine]
        size = block.shape[-1]
        centre += block.sum(axis=(2, 3)) / size
        rows, columns = block.mean(2, keepdims=True), block.mean(3, keepdims=True)
        deviation = block - rows - columns + block.mean((2, 3), keepdims=True)
        variance += (deviation**2).sum(axis=(2, 3)) / max(1, size - 1)
    spread = np.sqrt(variance)
    usable &= spread > 1e-9
    scale = np.where(usable, spread, 1.0)
    observed = (np.trace(matrix, axis1=2, axis2=3) - centre) / scale
    flat = np.ascontiguousarray(matrix.reshape(pairs * depth, n * n).T)
    first, largest = np.empty((pairs, len(orders))), np.full((pairs, len(orders)), -np.inf)
    chunk = max(1, CHUNK_VALUES // max(pairs * depth, n * n))
    for start in range(0, len(orders), chunk):
        part = slice(start, start + chunk)
        null = _null_sums(flat, orders[part], n).reshape(-1, pairs, depth)
        null = np.where(usable, (null - centre) / scale, -np.inf)
        first[:, part] = null[..., 0].T
        if depth > 1:
            largest[:, part] = null[..., 1:].max(axis=2).T
    return Null(np.where(usable, observed, np.nan), first, largest)


def max_t(
    similarity: np.ndarray, orders: np.ndarray, blocks: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return max-T p-values of mean A, as two arrays ``[pair, l]`` (``permutation_null``).

    The first array corrects over layers 1..L of its pair, the second over layers 1..L of all pairs.
    Layer 0 is not a result of the model: its p-value is that of this layer alone, and in the second
    array it is corrected over the pairs. NaN where C is undefined.
    """
    null = permutation_null(similarity, orders, blocks)
    return null.p(), null.p_joint([null])


def permutation_p(similarity: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return max-T p-values ``[l]`` of one pair's similarity ``[l, n, n]``; see ``max_t``."""
    return max_t(similarity[None], orders)[0][0]


def label_permutation_p(
    values: np.ndarray, chosen: np.ndarray, *, count: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the one-sided permutation p-value of mean(chosen) > mean(others), and its lower limit.

    ``values [m]`` has one number per language; ``chosen [m]`` is True for the targeted ones. Under
    the null hypothesis the label "targeted" is exchangeable over languages. All assignments of that
    many labels are enumerated if there are at most 100,000, so p cannot be below 1 / (number of
    assignments); otherwise ``count`` random ones are drawn. Raises ValueError if one of the two
    groups is empty.
    """
    size, targeted = len(values), int(chosen.sum())
    if not 0 < targeted < size:
        raise ValueError(f"{targeted} of {size} languages are targeted: both groups need one")
    observed = values[chosen].sum() - TIE
    if math.comb(size, targeted) <= ENUMERATED_LABELS:
        groups = np.array(list(itertools.combinations(range(size), targeted)))
        reached = (values[groups].sum(1) >= observed).sum()
        return float(reached / len(groups)), 1 / len(groups)
    rng = np.random.default_rng([seed, size, 7])
    drawn = rng.permuted(np.tile(values, (count, 1)), axis=1)[:, :targeted].sum(1)
    return float(((drawn >= observed).sum() + 1) / (count + 1)), 1 / (count + 1)


@functools.lru_cache(maxsize=4)  # the intervals of a run share few sizes
def resample_weights(n: int, count: int, seed: int) -> np.ndarray:
    """Return bootstrap weights over concepts, ``[count, n]``; each row sums to 1."""
    return np.random.default_rng([seed, n, 2]).multinomial(n, np.full(n, 1 / n), size=count) / n


def expanded_interval(
    values: np.ndarray, weights: np.ndarray, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Return the expanded-t bootstrap interval of the mean as (lower, upper), ``[...]`` each.

    The mean is over the last axis of ``values [..., n]``; ``weights [B, n]`` are the resamples. The
    percentiles are widened to give the length of a t interval (Hesterberg 2015, section 5.3),
    because plain percentile intervals are too short at n = 20.
    """
    n = values.shape[-1]
    tail = _expanded_tail(n, level)
    flat = values.reshape(-1, n)
    bounds = np.empty((2, len(flat)))
    chunk = max(1, CHUNK_VALUES // len(weights))
    for start in range(0, len(flat), chunk):
        means = flat[start : start + chunk] @ weights.T
        bounds[:, start : start + chunk] = np.quantile(means, [tail, 1 - tail], axis=-1)
    lower, upper = bounds.reshape(2, *values.shape[:-1])
    return lower, upper


def _expanded_tail(n: int, level: float) -> float:
    """Return the lower percentile of n resampled items that has the length of a t interval."""
    return float(special.ndtr(np.sqrt(n / (n - 1)) * special.stdtrit(n - 1, (1 - level) / 2)))


def expanded_quantiles(
    resampled: np.ndarray, n: int, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Return the expanded percentile interval of a statistic ``resampled [B, ...]`` over n items.

    NaN where more than 5% of the resamples are NaN; the others are left out.
    """
    tail = _expanded_tail(n, level)
    unknown = np.isnan(resampled).mean(0) > 0.05
    filled = np.where(unknown, 0, resampled)
    lower, upper = np.nanquantile(filled, [tail, 1 - tail], axis=0)
    return np.where(unknown, np.nan, lower), np.where(unknown, np.nan, upper)


def group_interval(
    values: np.ndarray, groups: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``expanded_interval`` of the mean over items ``[..., n]``, resampling whole groups.

    ``groups [n]`` numbers the group of each item from 0, such as the article of a sentence;
    ``weights [B, G]`` are resamples of the groups.
    """
    count = int(groups.max()) + 1
    sizes = np.bincount(groups, minlength=count).astype(float)
    if (sizes == 1).all():
        return expanded_interval(values[..., np.argsort(groups)], weights)
    mean = values.mean(-1, keepdims=True)
    residuals = group_sums(values - mean, groups) * (count / len(groups))
    lower, upper = expanded_interval(residuals, weights)
    return lower + mean[..., 0], upper + mean[..., 0]


def group_sums(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the sums over each group, ``[..., G]`` of ``values [..., n]``."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(int(groups.max()) + 1))
    return np.add.reduceat(values[..., order], starts, axis=-1)


def detectable(values: np.ndarray, *, level: float = 0.05, power: float = 0.8) -> np.ndarray:
    """Return ``detectable_from`` for ``values [..., n]``."""
    n = values.shape[-1]
    return np.asarray(detectable_from(values.std(-1, ddof=1), n, level=level, power=power))


def detectable_from(
    spread: np.ndarray | float, n: int, *, level: float = 0.05, power: float = 0.8
) -> np.ndarray | float:
    """Return the smallest mean that a two-sided test of n values finds with ``power``.

    (t_{1−level/2} + t_power) · spread / √n, with n − 1 degrees of freedom. ``spread`` is the
    standard deviation of the values.
    """
    factor = special.stdtrit(n - 1, 1 - level / 2) + special.stdtrit(n - 1, power)
    return factor * spread / np.sqrt(n)


def sign_flip_p(
    differences: np.ndarray, *, count: int, seed: int, two_sided: bool = True
) -> np.ndarray:
    """Return sign-flip p-values ``[…]`` of mean ≠ 0 (or > 0) over the last axis of ``[…, n]``.

    Under the null hypothesis every difference is symmetric about 0. All 2^n sign vectors are used
    for n ≤ 12, otherwise ``count`` random ones; all cells share them. NaN where a value is NaN.
    """
    n = differences.shape[-1]
    signs, offset = _signs(n, count, seed), int(n > EXACT_FLIPS)
    null, observed = differences @ signs.T, differences.sum(-1)
    if two_sided:
        null, observed = np.abs(null), np.abs(observed)
    reached = (null >= observed[..., None] - TIE).sum(-1)
    p = (reached + offset) / (len(signs) + offset)
    return np.where(np.isnan(observed), np.nan, p)


@functools.lru_cache(maxsize=4)  # the contrasts of a run ask for few sizes, many times each
def _signs(n: int, count: int, seed: int) -> np.ndarray:
    """Return sign vectors ``[vector, n]``: all of them for n ≤ 12, otherwise ``count`` random."""
    if n <= EXACT_FLIPS:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng([seed, n, 3]).integers(0, 2, size=(count, n)) * 2 - 1
    return signs.astype(np.float64)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p-values ``[m]`` (Holm 1979); NaN stays NaN and is not counted."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    largest = 0.0
    for rank, index in enumerate(known[np.argsort(p_values[known], kind="stable")]):
        largest = max(largest, min(1.0, (len(known) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def halves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of n concepts, split at random into two sorted halves."""
    order = np.random.default_rng([seed, n, 4]).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])
