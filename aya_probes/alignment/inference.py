"""Permutation tests, bootstrap intervals and corrections, as functions from arrays to arrays."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import special  # scipy.stats takes a second to import

CHUNK_VALUES = 4_000_000  # float64 values of the null distribution in memory at once: 32 MB
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


def max_t(similarity: np.ndarray, orders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return max-T p-values of mean A for every pair and layer, as two arrays ``[pair, l]``.

    ``similarity [pair, l, n, n]`` holds layers 0..L, ``orders [B, n]`` the permutations. The first
    array corrects over layers 1..L of its pair, the second over layers 1..L of all pairs. The
    maximum leaves out layer 0, which is compared with the same null distribution.

    Under the null hypothesis, the concepts of one language are exchangeable. One permutation serves
    all wordings, layers and pairs (Westfall & Young 1993). Mean A is affine in Σ_i C_{i,π(i)}. This
    sum is studentised by its exact permutation mean ΣC/n and variance Σd²/(n − 1), where d is C
    centred by row and column (Hoeffding 1951). No moment depends on the draws, so with b draws that
    reach the observed value, p = (b + 1)/(B + 1) is exact for any B. NaN where C is undefined.
    """
    pairs, depth, n, _ = similarity.shape
    matrix = similarity.astype(np.float64)
    usable = np.asarray(np.isfinite(matrix).all(axis=(2, 3)))
    matrix = np.where(usable[..., None, None], matrix, 0.0)
    centre = matrix.sum(axis=(2, 3)) / n
    deviation = (
        matrix
        - matrix.mean(2, keepdims=True)
        - matrix.mean(3, keepdims=True)
        + matrix.mean((2, 3), keepdims=True)
    )
    spread = np.sqrt((deviation**2).sum(axis=(2, 3)) / (n - 1))
    usable &= spread > 1e-9
    scale = np.where(usable, spread, 1.0)
    observed = (np.trace(matrix, axis1=2, axis2=3) - centre) / scale
    flat = np.ascontiguousarray(matrix.reshape(pairs * depth, n * n).T)
    count, joint = np.zeros((pairs, depth)), np.zeros((pairs, depth))
    chunk = max(1, CHUNK_VALUES // max(pairs * depth, n * n))
    for start in range(0, len(orders), chunk):
        null = _null_sums(flat, orders[start : start + chunk], n).reshape(-1, pairs, depth)
        null = np.where(usable, (null - centre) / scale, -np.inf)[..., 1:]
        if not null.shape[-1]:
            break
        largest = null.max(axis=2)
        for total, maximum in ((count, largest), (joint, largest.max(1, keepdims=True))):
            total += (maximum[..., None] >= observed - TIE).sum(0)
    unknown = ~usable
    p, p_joint = ((total + 1) / (len(orders) + 1) for total in (count, joint))
    return np.where(unknown, np.nan, p), np.where(unknown, np.nan, p_joint)


def permutation_p(similarity: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return max-T p-values ``[l]`` of one pair's similarity ``[l, n, n]``; see ``max_t``."""
    return max_t(similarity[None], orders)[0][0]


def label_permutation_p(values: np.ndarray, chosen: np.ndarray) -> tuple[float, float]:
    """Return the exact one-sided p-value of mean(chosen) > mean(others), and its lower limit.

    ``values [m]`` has one number per language; ``chosen [m]`` is True for the targeted ones. Under
    the null hypothesis the label "targeted" is exchangeable over languages. All assignments of that
    many labels are enumerated, so p cannot be below 1 / (number of assignments). Raises ValueError
    if one of the two groups is empty.
    """
    size, count = len(values), int(chosen.sum())
    if not 0 < count < size:
        raise ValueError(f"{count} of {size} languages are targeted: both groups need one")
    groups = np.array(list(itertools.combinations(range(size), count)))
    sums = values[groups].sum(1)
    reached = (sums >= values[chosen].sum() - TIE).sum()
    return float(reached / len(groups)), 1 / len(groups)


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
    tail = special.ndtr(np.sqrt(n / (n - 1)) * special.stdtrit(n - 1, (1 - level) / 2))
    flat = values.reshape(-1, n)
    bounds = np.empty((2, len(flat)))
    chunk = max(1, CHUNK_VALUES // len(weights))
    for start in range(0, len(flat), chunk):
        means = flat[start : start + chunk] @ weights.T
        bounds[:, start : start + chunk] = np.quantile(means, [tail, 1 - tail], axis=-1)
    lower, upper = bounds.reshape(2, *values.shape[:-1])
    return lower, upper


def sign_flip_p(
    differences: np.ndarray, *, count: int, seed: int, two_sided: bool = True
) -> np.ndarray:
    """Return sign-flip p-values ``[…]`` of mean ≠ 0 (or > 0) over the last axis of ``[…, n]``.

    Under the null hypothesis every difference is symmetric about 0. All 2^n sign vectors are used
    for n ≤ 12, otherwise ``count`` random ones; all cells share them. NaN where a value is NaN.
    """
    n = differences.shape[-1]
    if n <= EXACT_FLIPS:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        offset = 0
    else:
        signs = np.random.default_rng([seed, n, 3]).integers(0, 2, size=(count, n)) * 2 - 1
        offset = 1
    null, observed = differences @ signs.T, differences.sum(-1)
    if two_sided:
        null, observed = np.abs(null), np.abs(observed)
    reached = (null >= observed[..., None] - TIE).sum(-1)
    p = (reached + offset) / (len(signs) + offset)
    return np.where(np.isnan(observed), np.nan, p)


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
