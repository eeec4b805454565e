"""Alignment measures and statistics: arrays in, arrays out, no files and no torch.

Axes: ``n`` concepts, ``k`` wordings, ``r`` rows, ``h`` hidden. Sources of the formulas are named in
each docstring; the definitions of this project are in docs/adr/004-commitment-def.md and
docs/adr/007-measures.md.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

CHUNK = 2_000  # permutations held as one-hot rows at once (n = 20: 3 MB)


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


def wording_mean(cosine: np.ndarray, *, same_wording: bool) -> np.ndarray:
    """Average ``[r, k, k', n, n']`` over the pairs k = k' or k ≠ k'; returns ``[r, n, n']``."""
    k = cosine.shape[1]
    chosen = np.eye(k, dtype=bool) if same_wording else ~np.eye(k, dtype=bool)
    if not chosen.any():
        raise ValueError("different wordings need at least 2 wordings per concept")
    return cosine[:, chosen].mean(axis=1)


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
    """Return the mean cosine of mismatched concepts ``[r]``: the control of raw cosine."""
    n = similarity.shape[-1]
    return similarity[:, ~np.eye(n, dtype=bool)].mean(axis=-1)


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


def unbiased_cka(left: np.ndarray, right: np.ndarray) -> float:
    """Return unbiased linear CKA of ``[n, h]`` and ``[n, h']`` (Song et al. 2012's HSIC₁).

    0 in expectation for independent vectors at any n, unlike the biased form. Needs n ≥ 4.
    """
    n = len(left)
    if n < 4:
        raise ValueError("unbiased CKA needs at least 4 items")

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        cross = float((k * m).sum())
        total = float(k.sum() * m.sum()) / ((n - 1) * (n - 2))
        rows = 2 * float(k.sum(0) @ m.sum(0)) / (n - 2)
        return (cross + total - rows) / (n * (n - 3))

    grams = []
    for vectors in (left, right):
        centred = (vectors - vectors.mean(0)).astype(np.float64)
        gram = centred @ centred.T
        np.fill_diagonal(gram, 0)
        grams.append(gram)
    scale = hsic(grams[0], grams[0]) * hsic(grams[1], grams[1])
    return hsic(grams[0], grams[1]) / np.sqrt(scale) if scale > 0 else float("nan")


# --- inference --------------------------------------------------------------------------------


def permutations(n: int, count: int, seed: int) -> np.ndarray:
    """Return ``count`` random permutations of n concepts ``[count, n]``."""
    return np.random.default_rng([seed, n, 1]).permuted(np.tile(np.arange(n), (count, 1)), axis=1)


def permutation_p(similarity: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return max-T p-values per row ``[r]`` of mean A; row 0 is not part of the maximum.

    Null: whole concepts permuted in one language, all wordings together (Westfall & Young 1993).
    Each row is studentised by its permutation mean and SD; p = (b + 1)/(B + 1), b counting the
    permutations whose largest row 1..L reaches the observed value. Mean A is affine in
    Σ_i C_{i,π(i)}, so one matrix product gives every permutation. NaN where a row is undefined.
    """
    r, n, _ = similarity.shape
    flat = similarity.reshape(r, n * n).T.astype(np.float64)
    null = np.empty((len(orders), r))
    for start in range(0, len(orders), CHUNK):
        block = orders[start : start + CHUNK]
        onehot = np.zeros((len(block), n * n))
        np.put_along_axis(onehot, np.arange(n) * n + block, 1.0, axis=1)
        null[start : start + len(block)] = onehot @ np.nan_to_num(flat)
    observed = np.trace(similarity, axis1=1, axis2=2).astype(np.float64)
    centre, spread = null.mean(0), null.std(0)
    usable = np.isfinite(similarity).all(axis=(1, 2)) & (spread > 1e-12)
    scale = np.where(usable, spread, 1.0)
    z = np.where(usable, (observed - centre) / scale, -np.inf)
    largest = np.where(usable, (null - centre) / scale, -np.inf)[:, 1:].max(axis=1)
    count = (largest[:, None] >= z[None, :] - 1e-12).sum(0)
    return np.where(usable, (count + 1) / (len(orders) + 1), np.nan)


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
    tail = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf((1 - level) / 2, n - 1))
    means = values @ weights.T
    lower, upper = np.quantile(means, [tail, 1 - tail], axis=-1)
    return lower, upper


def sign_flip_p(differences: np.ndarray, *, count: int, seed: int, two_sided: bool = True) -> float:
    """Return the sign-flip p-value of mean(differences) ≠ 0 (or > 0); exact up to n = 12."""
    n = len(differences)
    if n <= 12:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        offset = 0
    else:
        signs = np.random.default_rng([seed, n, 3]).integers(0, 2, size=(count, n)) * 2 - 1
        offset = 1
    null, observed = signs @ differences, float(differences.sum())
    if two_sided:
        null, observed = np.abs(null), abs(observed)
    return float(((null >= observed - 1e-12).sum() + offset) / (len(signs) + offset))


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


def commitment_layer(mean: np.ndarray, p: np.ndarray, *, alpha: float = 0.05) -> int | None:
    """Return the commitment layer (ADR-004) of curves over rows 0..L, or None.

    The smallest ℓ ≥ 1 with max-T p ≤ alpha and A ≥ ½ max A for rows ℓ, ℓ+1, ℓ+2.
    """
    return first_run((p <= alpha) & (mean >= np.nanmax(mean) / 2), start=1)


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
            return sign_flip_p(difference, count=4095, seed=seed, two_sided=False) <= alpha

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
