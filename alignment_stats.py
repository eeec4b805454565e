"""Alignment measures and statistics: arrays in, arrays out, no files and no torch.

Axes: ``n`` concepts, ``k`` wordings, ``r`` rows, ``h`` hidden. Sources of the formulas are named in
each docstring; the definitions of this project are in docs/adr/004-commitment-def.md and
docs/adr/007-measures.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import special  # scipy.stats takes a second to import

CHUNK_VALUES = 4_000_000  # float64 values of the null held at once: 32 MB
EXACT_FLIPS = 12  # 4,096 sign vectors
ONEHOT_CONCEPTS = 64  # up to here a one-hot matrix product beats gathering
TIE = 1e-9  # statistics nearer than this are equal: the order of a sum decides no p-value


# --- similarity -------------------------------------------------------------------------------


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale to length 1 along the last axis; a zero vector becomes NaN, never a silent 0."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norm > 0, norm, np.nan)


def mean_centre(vectors: np.ndarray) -> np.ndarray:
    """Subtract one language's mean over concepts and wordings per row; ``[n, k, r, h]``.

    Values that are nothing but rounding after the subtraction (constant input) become exactly 0.
    """
    centred = vectors - vectors.mean(axis=(0, 1), keepdims=True)
    noise = 1e-6 * np.abs(vectors).max(axis=-1, keepdims=True)
    largest = np.abs(centred).max(axis=-1, keepdims=True)
    return np.where(largest > noise, centred, 0.0)


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return cosines ``[r, k, k', n, n']`` of two languages' vectors ``[n, k, r, h]``."""
    if left.shape != right.shape or left.ndim != 4:
        raise ValueError(
            f"want two [n, k, r, h] arrays of one shape, got {left.shape}, {right.shape}"
        )
    n, k, r, h = left.shape
    a = unit(left).transpose(2, 1, 0, 3).reshape(r, k * n, h)
    b = unit(right).transpose(2, 1, 0, 3).reshape(r, k * n, h)
    return (a @ b.transpose(0, 2, 1)).reshape(r, k, n, k, n).transpose(0, 1, 3, 2, 4)


def cosine_rows(vectors: Sequence[np.ndarray], *, pivot_only: bool = False) -> Iterator[np.ndarray]:
    """Yield, row by row, cosines between languages as ``[language, language, k, k', n, n']``.

    ``vectors`` holds one ``[n, k, r, h]`` array per language. One matrix product per row serves all
    pairs; with ``pivot_only`` the first axis holds the first language alone. Entry [a, b] is row r
    of ``cosines(vectors[a], vectors[b])``.
    """
    n, k, rows, _ = vectors[0].shape
    for row in range(rows):
        block = unit(np.stack([v[:, :, row].swapaxes(0, 1) for v in vectors]))
        right = block.reshape(len(vectors) * k * n, -1)
        left = right[: k * n] if pivot_only else right
        table = (left @ right.T).reshape(-1, k, n, len(vectors), k, n)
        yield table.transpose(0, 3, 1, 4, 2, 5)


def wording_mean(cosine: np.ndarray, *, same_wording: bool) -> np.ndarray:
    """Average ``[…, k, k', n, n']`` over the pairs k = k' or k ≠ k'; returns ``[…, n, n']``."""
    k = cosine.shape[-3]
    chosen = np.eye(k, dtype=bool) if same_wording else ~np.eye(k, dtype=bool)
    if not chosen.any():
        raise ValueError("different wordings need at least 2 wordings per concept")
    return cosine[..., chosen, :, :].mean(axis=-3)


def alignment(similarity: np.ndarray) -> np.ndarray:
    """Return A_i ``[r, n]``: C_ii − ½(row mean + column mean over j ≠ i), of ``[r, n, n]``.

    Multiplied by (n − 1)/n, which removes the inflation that centring on the same n concepts puts
    on the diagonal. 0 = a concept's translation is no closer than other concepts'.
    """
    n = similarity.shape[-1]
    if n < 2:
        raise ValueError("alignment needs at least 2 concepts")
    diagonal = np.diagonal(similarity, axis1=-2, axis2=-1)
    rows = (similarity.sum(-1) - diagonal) / (n - 1)
    columns = (similarity.sum(-2) - diagonal) / (n - 1)
    return (diagonal - (rows + columns) / 2) * (n - 1) / n


def separation(similarity: np.ndarray) -> np.ndarray:
    """Return d′ ``[r]``: mean A over the standard deviation of the mismatched cosines."""
    n = similarity.shape[-1]
    off = similarity[:, ~np.eye(n, dtype=bool)]
    spread = off.std(axis=-1, ddof=1)
    return alignment(similarity).mean(-1) / np.where(spread > 0, spread, np.nan)


def mismatched(similarity: np.ndarray) -> np.ndarray:
    """Return each concept's mean cosine with the others ``[r, n]``: the control of raw cosine."""
    n = similarity.shape[-1]
    diagonal = np.diagonal(similarity, axis1=-2, axis2=-1)
    return (similarity.sum(-1) + similarity.sum(-2) - 2 * diagonal) / (2 * (n - 1))


def retrieval(similarity: np.ndarray) -> dict[str, np.ndarray]:
    """Return retrieval scores over the last two axes of ``[…, n, n]``, each ``[…, n]``.

    ``two_way``: C_ii beats its whole row and column (MEXA, Kargaran et al. 2024), chance
    1/(2n − 1). ``top1_forward``, ``top1_backward``: beats its row, its column. ``mrr``: mean
    reciprocal rank of both ways. A tie is not a win.
    """
    n = similarity.shape[-1]
    diagonal = np.diagonal(similarity, axis1=-2, axis2=-1)
    other = ~np.eye(n, dtype=bool)
    forward = ((similarity >= diagonal[..., :, None]) & other).sum(-1)
    backward = ((similarity >= diagonal[..., None, :]) & other).sum(-2)
    unknown = np.isnan(similarity).any(axis=(-2, -1))[..., None]
    scores = {
        "two_way": (forward == 0) & (backward == 0),
        "top1_forward": forward == 0,
        "top1_backward": backward == 0,
        "mrr": (1 / (1 + forward) + 1 / (1 + backward)) / 2,
    }
    return {name: np.where(unknown, np.nan, score.astype(float)) for name, score in scores.items()}


def _hsic(k: np.ndarray, m: np.ndarray) -> tuple[float, np.ndarray]:
    """Return unbiased HSIC of two Gram matrices (zero diagonal), and without each item ``[n]``.

    Song et al. 2012, eq. 5: [Σ K∘M + ΣK ΣM / ((n−1)(n−2)) − 2 (K1)·(M1) / (n−2)] / (n(n−3)).
    The leave-one-out values follow from the same sums, so that a jackknife costs O(n²).
    """
    n = len(k)
    rows_k, rows_m = k.sum(0), m.sum(0)
    product_rows = np.einsum("ij,ij->i", k, m)

    def value(cross: Any, sum_k: Any, sum_m: Any, dot: Any, size: int) -> Any:
        between = sum_k * sum_m / ((size - 1) * (size - 2))
        return (cross + between - 2 * dot / (size - 2)) / (size * (size - 3))

    cross, sum_k, sum_m = product_rows.sum(), rows_k.sum(), rows_m.sum()
    whole = value(cross, sum_k, sum_m, rows_k @ rows_m, n)
    if n < 5:
        return float(whole), np.full(n, np.nan)
    # Σ_{j≠i} (k_j − K_ij)(m_j − M_ij), k and m being row sums and the diagonals zero.
    dot = rows_k @ rows_m - rows_k * rows_m - k @ rows_m - m @ rows_k + product_rows
    without = value(cross - 2 * product_rows, sum_k - 2 * rows_k, sum_m - 2 * rows_m, dot, n - 1)
    return float(whole), without


def gram(vectors: np.ndarray) -> np.ndarray:
    """Return the Gram matrix ``[n, n]`` of centred ``[n, h]`` vectors with a zero diagonal."""
    centred = vectors - vectors.mean(0)
    matrix = (centred @ centred.T).astype(np.float64)
    np.fill_diagonal(matrix, 0)
    return matrix


def unbiased_cka(k: np.ndarray, m: np.ndarray) -> tuple[float, float]:
    """Return unbiased linear CKA of two ``gram`` matrices, and its jackknife standard error.

    0 in expectation for independent vectors at any n, unlike the biased form (HSIC₁ of Song et
    al. 2012; CKA: Kornblith et al. 2019). NaN for constant vectors; the error needs n ≥ 5.
    Raises ValueError below n = 4.
    """
    n = len(k)
    if n < 4:
        raise ValueError("unbiased CKA needs at least 4 items")
    cross, same_k, same_m = _hsic(k, m), _hsic(k, k), _hsic(m, m)
    scale = same_k[0] * same_m[0]
    if not scale > 0:
        return float("nan"), float("nan")
    product = same_k[1] * same_m[1]
    without = cross[1] / np.sqrt(np.where(product > 0, product, np.nan))
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    return cross[0] / np.sqrt(scale), float(error)


# --- inference --------------------------------------------------------------------------------


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
    """Return max-T p-values of mean A for every pair and row, ``[pair, r]`` each.

    ``similarity [pair, r, n, n]`` holds rows 0..L. The first array corrects over the rows 1..L of
    its pair, the second over those of all pairs together. Row 0 is no part of the maximum; its own
    p is read against the same null.

    Null: whole concepts permuted in one language, all wordings together and the same permutation
    for every row and pair (Westfall & Young 1993). Mean A is affine in Σ_i C_{i,π(i)}, which is
    studentised by its exact permutation mean ΣC/n and variance Σd²/(n − 1), d being C centred by
    row and column (Hoeffding 1951): no moment depends on which permutations were drawn, so that
    p = (b + 1)/(B + 1) is exact at any B. NaN where a row is undefined.
    """
    pairs, r, n, _ = similarity.shape
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
    flat = np.ascontiguousarray(matrix.reshape(pairs * r, n * n).T)
    count, joint = np.zeros((pairs, r)), np.zeros((pairs, r))
    chunk = max(1, CHUNK_VALUES // max(pairs * r, n * n))
    for start in range(0, len(orders), chunk):
        null = _null_sums(flat, orders[start : start + chunk], n).reshape(-1, pairs, r)
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
    """Return max-T p-values ``[r]`` of one pair's ``[r, n, n]``; see ``max_t``."""
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


# --- layers -----------------------------------------------------------------------------------


def first_run(holds: np.ndarray, *, start: int, length: int = 3) -> int | None:
    """Return the first index ≥ start at which ``length`` consecutive values hold."""
    for index in range(start, len(holds) - length + 1):
        if holds[index : index + length].all():
            return index
    return None


def _shared(mean: np.ndarray, p: np.ndarray, alpha: float) -> np.ndarray:
    """Return per row whether a concept counts as shared: max-T p ≤ alpha and A ≥ ½ max A."""
    if np.isnan(mean).all():
        return np.zeros(len(mean), dtype=bool)
    return (p <= alpha) & (mean >= np.nanmax(mean) / 2)


def commitment_layer(mean: np.ndarray, p: np.ndarray, *, alpha: float = 0.05) -> int | None:
    """Return the commitment layer (ADR-004) of curves over rows 0..L, or None.

    The smallest ℓ ≥ 1 with max-T p ≤ alpha and A ≥ ½ max A for rows ℓ, ℓ+1, ℓ+2.
    """
    return first_run(_shared(mean, p, alpha), start=1)


def release_layer(
    mean: np.ndarray, p: np.ndarray, committed: int, *, alpha: float = 0.05
) -> int | None:
    """Return the layer at which a committed concept is language-specific again, or None.

    The smallest ℓ > ``committed`` with the rule of ``commitment_layer`` broken in rows ℓ, ℓ+1,
    ℓ+2, or in all rows that are left. None: shared up to the last row.
    """
    broken = np.append(~_shared(mean, p, alpha), [True, True])
    found = first_run(broken, start=committed + 1)
    return found if found is not None and found < len(mean) else None


def concept_commitment(wins: np.ndarray) -> list[int | None]:
    """Return each concept's first of 3 rows ≥ 1 in which it wins most wording pairs.

    ``wins [r, n]`` is the share of wording pairs won both ways. Descriptive: no error rate is
    controlled; ``mismatched_commitment`` gives the share of chance pairs that the rule calls.
    """
    return [first_run(column > 0.5, start=1) for column in wins.T]


def mismatched_commitment(similarity: np.ndarray) -> float:
    """Return the share of mismatched concept pairs that the per-concept rule would commit.

    ``similarity [r, pair, n, n]`` of the wording pairs. Each (i, j ≠ i) is judged as if it were a
    match, the true matches (i, i) taken out: what the rule calls where nothing is aligned.
    """
    n = similarity.shape[-1]
    if np.isnan(similarity).any():
        return float("nan")
    other = np.where(np.eye(n, dtype=bool), -np.inf, similarity)
    best_row = other >= other.max(-1, keepdims=True)
    best_column = other >= other.max(-2, keepdims=True)
    most = (best_row & best_column).mean(axis=1)[1:] > 0.5  # [r, n, n]
    held = most[:-2] & most[1:-1] & most[2:]
    return float(held.any(axis=0)[~np.eye(n, dtype=bool)].mean())


def halves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split n concepts at random into two halves of indices."""
    order = np.random.default_rng([seed, n, 4]).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def shape_label(values: np.ndarray, *, seed: int, alpha: float = 0.05) -> tuple[str, int | None]:
    """Label a curve's shape from A_i ``[rows 0..L, n]``; returns (label, peak row).

    The peak ℓ* is chosen on one half of the concepts; rise A(ℓ*) − A(0) and decline A(ℓ*) − A(L)
    are tested at that row on the other half, then swapped. A label needs both halves (choosing and
    testing on the same concepts calls 11–19% of flat curves rise-peak-collapse).
    """
    last = len(values) - 1
    labels = []
    for chosen, tested in (halves(values.shape[1], seed), halves(values.shape[1], seed)[::-1]):
        peak = int(values[:, chosen].mean(1).argmax())

        def positive(a: int, b: int, tested: np.ndarray = tested) -> bool:
            difference = values[a, tested] - values[b, tested]
            p = sign_flip_p(difference, count=4095, seed=seed, two_sided=False)
            return bool(p <= alpha)

        rises, falls = positive(peak, 0), positive(peak, last)
        if rises and falls and 2 <= peak <= last - 2:
            labels.append("RISE_PEAK_COLLAPSE")
        elif rises and positive(last, 0) and not falls:
            labels.append("MONOTONE_RISE")
        elif falls and positive(0, last) and not rises:
            labels.append("MONOTONE_FALL")
        elif not rises and not falls:
            labels.append("FLAT")
        else:
            labels.append("UNRESOLVED")
    if labels[0] != labels[1]:
        return "UNRESOLVED", None
    return labels[0], int(values.mean(1).argmax()) if labels[0] != "FLAT" else None


# --- without the n x n matrix -----------------------------------------------------------------


def sampled_alignment(
    left: np.ndarray, right: np.ndarray, *, same_wording: bool, negatives: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return A_i ``[r, n]`` and d′ ``[r]`` of centred ``[n, k, r, h]`` without all n² cosines.

    For n beyond what n² cosines a row allow. A is exact: a concept's mean cosine with all others is
    one product with the sum of their unit vectors. Only the spread of mismatched cosines in d′ is
    an estimate, from ``negatives`` mismatches a concept, drawn without repetition; n − 1 gives
    ``separation`` itself. Raises ValueError unless 1 <= negatives <= n − 1.
    """
    n, k, _, _ = left.shape
    if not 1 <= negatives <= n - 1:
        raise ValueError(f"negatives: {negatives} of {n} concepts, want 1 to {n - 1}")
    if not same_wording and k < 2:
        raise ValueError("different wordings need at least 2 wordings per concept")
    shifts = 1 + np.random.default_rng([seed, n, 5]).permutation(n - 1)[:negatives]

    def mean_cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Average x_k · y_k' over the wording pairs, of ``[n or 1, k, h]``; returns ``[n]``."""
        same = np.einsum("nkh,nkh->n", *np.broadcast_arrays(x, y))
        if same_wording:
            return same / k
        every = np.einsum("nh,nh->n", *np.broadcast_arrays(x.sum(1), y.sum(1)))
        return (every - same) / (k * (k - 1))

    values, separations = [], []
    for row in range(left.shape[2]):  # memory holds one row's unit vectors
        a, b = unit(left[:, :, row]), unit(right[:, :, row])
        matched = mean_cosine(a, b)
        rows = (mean_cosine(a, b.sum(0, keepdims=True)) - matched) / (n - 1)
        columns = (mean_cosine(a.sum(0, keepdims=True), b) - matched) / (n - 1)
        values.append((matched - (rows + columns) / 2) * (n - 1) / n)
        # The mean of all mismatches is known, so only their squares are sampled.
        off = [mean_cosine(a, np.roll(b, -shift, axis=0)) - rows.mean() for shift in shifts]
        pairs = n * (n - 1)
        spread = np.sqrt(np.square(off).mean() * pairs / (pairs - 1))
        separations.append(values[-1].mean() / spread if spread > 0 else np.nan)
    return np.stack(values), np.array(separations)
