"""Permutation tests, bootstrap intervals and corrections: arrays in, arrays out."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import special  # scipy.stats takes a second to import

CHUNK_VALUES = 4_000_000  # float64 values of the null held at once: 32 MB
EXACT_FLIPS = 12  # 4,096 sign vectors
ONEHOT_CONCEPTS = 64  # up to here a one-hot matrix product beats gathering
TIE = 1e-9  # statistics nearer than this are equal: the order of a sum decides no p-value


def permutations(n: int, count: int, seed: int) -> np.ndarray:
    """Return ``count`` random permutations of n concepts ``[count, n]``."""
    return np.random.default_rng([seed, n, 1]).permuted(np.tile(np.arange(n), (count, 1)), axis=1)


def _null_sums(flat: np.ndarray, orders: np.ndarray, n: int) -> np.ndarray:
    """Return Σ_i C_{i,π(i)} ``[permutation, cell]`` of ``flat [n·n, cell]``."""
    places = np.arange(n) * n + orders
    if n <= ONEHOT_CONCEPTS:  # one matrix product for all cells
        onehot = np.zeros((len(orders), n * n))
        np.put_along_axis(onehot, places, 1.0, axis=1)
        return onehot @ flat
    return np.stack([flat[place].sum(0) for place in places])


def max_t(similarity: np.ndarray, orders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return max-T p-values of mean A for every pair and layer, ``[pair, l]`` each.

    ``similarity [pair, l, n, n]`` holds layers 0..L. The first array corrects over layers 1..L of
    its pair, the second over those of all pairs together. Layer 0 is no part of the maximum; its
    own p is read against the same null.

    Null: whole concepts permuted in one language, all wordings together and the same permutation
    for every layer and pair (Westfall & Young 1993). Mean A is affine in Σ_i C_{i,π(i)}, which is
    studentised by its exact permutation mean ΣC/n and variance Σd²/(n − 1), d being C centred by
    row and column (Hoeffding 1951): no moment depends on which permutations were drawn, so that
    p = (b + 1)/(B + 1) is exact at any B. NaN where a layer is undefined.
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
    """Return max-T p-values ``[l]`` of one pair's ``[l, n, n]``; see ``max_t``."""
    return max_t(similarity[None], orders)[0][0]


def label_permutation_p(values: np.ndarray, chosen: np.ndarray) -> tuple[float, float]:
    """Return the exact one-sided p of mean(chosen) > mean(others), and the smallest reachable.

    ``values [m]`` is one number per language, ``chosen [m]`` marks the targeted ones. Null: the
    label "targeted" is exchangeable over the languages; every assignment of as many labels is
    enumerated, so that no p below 1 / (number of assignments) exists however large the effect.
    Raises ValueError unless both groups have a language.
    """
    size, count = len(values), int(chosen.sum())
    if not 0 < count < size:
        raise ValueError(f"{count} of {size} languages are targeted: both groups need one")
    groups = np.array(list(itertools.combinations(range(size), count)))
    sums = values[groups].sum(1)
    reached = (sums >= values[chosen].sum() - TIE).sum()
    return float(reached / len(groups)), 1 / len(groups)


def resample_weights(n: int, count: int, seed: int) -> np.ndarray:
    """Return bootstrap weights over concepts ``[count, n]``, each row summing to 1."""
    return np.random.default_rng([seed, n, 2]).multinomial(n, np.full(n, 1 / n), size=count) / n


def expanded_interval(
    values: np.ndarray, weights: np.ndarray, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Return the expanded-t percentile bootstrap interval of the mean over the last axis.

    ``values [..., n]``, ``weights [B, n]``. Percentiles are widened so that the interval has the
    length of a t interval (Hesterberg 2015, section 5.3): plain percentiles under-cover at n = 20.
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
    """Return sign-flip p-values of mean ≠ 0 (or > 0) over the last axis of ``[…, n]``.

    The same signs for every difference; all 2^n of them up to n = 12, else ``count`` random ones.
    Null: each difference is symmetric about 0.
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
    """Return Holm's adjusted p-values (Holm 1979); NaN stays NaN and is not counted."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    largest = 0.0
    for rank, index in enumerate(known[np.argsort(p_values[known], kind="stable")]):
        largest = max(largest, min(1.0, (len(known) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def halves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split n concepts at random into two halves of indices."""
    order = np.random.default_rng([seed, n, 4]).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])
