"""Alignment measures: arrays in, arrays out.

Axes: ``n`` concepts, ``k`` wordings, ``l`` layers, ``h`` hidden. The definitions of this project
are in docs/adr/007-measures.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale to length 1 along the last axis; a zero vector becomes NaN, never a silent 0."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norm > 0, norm, np.nan)


def mean_centre(vectors: np.ndarray) -> np.ndarray:
    """Subtract one language's mean over concepts and wordings per layer; ``[n, k, l, h]``.

    Values that are nothing but rounding after the subtraction (constant input) become exactly 0.
    """
    centred = vectors - vectors.mean(axis=(0, 1), keepdims=True)
    noise = 1e-6 * np.abs(vectors).max(axis=-1, keepdims=True)
    largest = np.abs(centred).max(axis=-1, keepdims=True)
    return np.where(largest > noise, centred, 0.0)


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return cosines ``[l, k, k', n, n']`` of two languages' vectors ``[n, k, l, h]``."""
    if left.shape != right.shape or left.ndim != 4:
        raise ValueError(
            f"want two [n, k, l, h] arrays of one shape, got {left.shape}, {right.shape}"
        )
    n, k, depth, h = left.shape
    a = unit(left).transpose(2, 1, 0, 3).reshape(depth, k * n, h)
    b = unit(right).transpose(2, 1, 0, 3).reshape(depth, k * n, h)
    return (a @ b.transpose(0, 2, 1)).reshape(depth, k, n, k, n).transpose(0, 1, 3, 2, 4)


def layer_cosines(
    vectors: Sequence[np.ndarray], *, pivot_only: bool = False
) -> Iterator[np.ndarray]:
    """Yield, layer by layer, cosines between languages as ``[language, language, k, k', n, n']``.

    ``vectors`` holds one ``[n, k, l, h]`` array per language. One matrix product per layer serves
    all pairs; with ``pivot_only`` the first axis holds the first language alone. Entry [a, b] is
    layer l of ``cosines(vectors[a], vectors[b])``.
    """
    n, k, depth, _ = vectors[0].shape
    for layer in range(depth):
        block = unit(np.stack([v[:, :, layer].swapaxes(0, 1) for v in vectors]))
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
    """Return A_i ``[l, n]``: C_ii − ½(row mean + column mean over j ≠ i), of ``[l, n, n]``.

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
    """Return d′ ``[l]``: mean A over the standard deviation of the mismatched cosines."""
    n = similarity.shape[-1]
    off = similarity[:, ~np.eye(n, dtype=bool)]
    spread = off.std(axis=-1, ddof=1)
    return alignment(similarity).mean(-1) / np.where(spread > 0, spread, np.nan)


def mismatched(similarity: np.ndarray) -> np.ndarray:
    """Return each concept's mean cosine with the others ``[l, n]``: the control of raw cosine."""
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


def sampled_alignment(
    left: np.ndarray, right: np.ndarray, *, same_wording: bool, negatives: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return A_i ``[l, n]`` and d′ ``[l]`` of centred ``[n, k, l, h]`` without all n² cosines.

    For n so large that n² cosines a layer do not fit. A is exact: a concept's mean cosine with all
    others is one product with the sum of their unit vectors. Only the spread of mismatched cosines
    in d′ is an estimate, from ``negatives`` mismatches a concept, drawn without repetition; n − 1
    gives ``separation`` itself. Raises ValueError unless 1 <= negatives <= n − 1.
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
    for layer in range(left.shape[2]):  # memory holds one layer's unit vectors
        a, b = unit(left[:, :, layer]), unit(right[:, :, layer])
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
