"""Alignment measures, as functions from arrays to arrays.

Axes: ``n`` concepts, ``k`` wordings, ``l`` layers, ``h`` hidden size. ADR-007 defines alignment A,
and ADR-016 explains why vectors are standardised first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors scaled to length 1 along the last axis; a zero vector becomes NaN."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norm > 0, norm, np.nan)


def mean_centre(vectors: np.ndarray) -> np.ndarray:
    """Return ``vectors [n, k, l, h]`` minus their mean over concepts and wordings at each layer.

    A vector that is only rounding error after the subtraction (constant input) becomes exactly 0.
    """
    centred = vectors - vectors.mean(axis=(0, 1), keepdims=True)
    real = _largest(centred) > 1e-6 * _largest(vectors)
    return centred if real.all() else np.where(real, centred, 0.0)


def _largest(vectors: np.ndarray) -> np.ndarray:
    """Return the largest absolute value along the last axis, which is kept."""
    return np.maximum(vectors.max(axis=-1, keepdims=True), -vectors.min(axis=-1, keepdims=True))


def standardise(vectors: np.ndarray) -> np.ndarray:
    """Return ``vectors [n, k, l, h]`` mean-centred, with each dimension divided by its SD
    (ADR-016).

    Mean and SD are those of the language: over its concepts and wordings, at each layer. A
    dimension that does not vary becomes 0. The scale does not depend on which concept a vector
    belongs to, so a permutation test of the concepts stays exact.
    """
    centred = mean_centre(vectors)
    spread = np.sqrt(np.square(centred).mean(axis=(0, 1), keepdims=True))
    varies = spread > 1e-6 * spread.max(axis=-1, keepdims=True)
    if varies.all():
        return centred / spread
    return np.where(varies, centred / np.where(varies, spread, 1), 0.0)


def dominance(centred: np.ndarray, counts: Sequence[int] = (1, 3, 10)) -> np.ndarray:
    """Return the share of squared length in the largest dimensions, ``[count, l]``.

    ``centred [m, l, h]`` holds the vectors of one language. Each is scaled to length 1, and squares
    are averaged over vectors. The share of the largest 1, 3 and 10 dimensions is near count / h if
    no dimension rules the cosine.
    """
    squares = np.nanmean(np.square(unit(centred)), axis=0)  # [l, h]
    largest = np.cumsum(-np.sort(-squares, axis=-1), axis=-1)
    return np.stack([largest[:, min(count, largest.shape[1]) - 1] for count in counts])


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return cosines ``[l, k, k', n, n']`` of two ``[n, k, l, h]``; ValueError for other shapes."""
    if left.shape != right.shape or left.ndim != 4:
        raise ValueError(
            f"expected two [n, k, l, h] arrays of one shape, got {left.shape}, {right.shape}"
        )
    n, k, depth, h = left.shape
    a = unit(left).transpose(2, 1, 0, 3).reshape(depth, k * n, h)
    b = unit(right).transpose(2, 1, 0, 3).reshape(depth, k * n, h)
    return (a @ b.transpose(0, 2, 1)).reshape(depth, k, n, k, n).transpose(0, 1, 3, 2, 4)


def layer_cosines(
    vectors: Sequence[np.ndarray], *, pivot_only: bool = False
) -> Iterator[np.ndarray]:
    """Yield cosines between languages layer by layer, ``[language, language, k, k', n, n']``.

    ``vectors`` holds one ``[n, k, l, h]`` array per language. Entry [a, b] of the table of layer l
    is layer l of ``cosines(vectors[a], vectors[b])``; one matrix product computes all pairs. With
    ``pivot_only`` the first axis has only the first language.
    """
    n, k, depth, _ = vectors[0].shape
    for layer in range(depth):
        block = unit(np.stack([v[:, :, layer].swapaxes(0, 1) for v in vectors]))
        right = block.reshape(len(vectors) * k * n, -1)
        left = right[: k * n] if pivot_only else right
        table = (left @ right.T).reshape(-1, k, n, len(vectors), k, n)
        yield table.transpose(0, 3, 1, 4, 2, 5)


def wording_mean(cosine: np.ndarray, *, same_wording: bool) -> np.ndarray:
    """Average ``[…, k, k', n, n']`` over k = k' or k ≠ k'; ValueError if one wording is too few."""
    k = cosine.shape[-3]
    chosen = np.eye(k, dtype=bool) if same_wording else ~np.eye(k, dtype=bool)
    if not chosen.any():
        raise ValueError("different wordings need at least 2 wordings per concept")
    return cosine[..., chosen, :, :].mean(axis=-3)


def alignment(similarity: np.ndarray, centred_on: int | None = None) -> np.ndarray:
    """Return A_i ``[…, n]`` of ``similarity`` C ``[…, n, n]`` (ADR-007); chance is 0.

    A_i = (N − 1)/N · (C_ii − ½(row mean + column mean over j ≠ i)). N is ``centred_on``, the number
    of concepts whose mean was subtracted, by default n; the factor removes the bias of that
    centring. Raises ValueError for fewer than 2 concepts.
    """
    n = similarity.shape[-1]
    if n < 2:
        raise ValueError("alignment needs at least 2 concepts")
    total = centred_on or n
    diagonal = np.diagonal(similarity, axis1=-2, axis2=-1)
    rows = (similarity.sum(-1) - diagonal) / (n - 1)
    columns = (similarity.sum(-2) - diagonal) / (n - 1)
    return (diagonal - (rows + columns) / 2) * (total - 1) / total


def alignment_within(
    similarity: np.ndarray, blocks: np.ndarray, centred_on: int | None = None
) -> np.ndarray:
    """Return A_i ``[…, m]`` against mismatches of the same block only, such as the same category.

    ``blocks [n]`` labels the concepts. The m concepts are those whose block has another member, in
    order. The formula is that of ``alignment``, with j over the other members of i's block.
    """
    n = similarity.shape[-1]
    peers = (blocks[:, None] == blocks[None]) & ~np.eye(n, dtype=bool)
    kept = peers.any(1)
    counts = np.where(kept, peers.sum(1), 1)
    total = centred_on or n
    diagonal = np.diagonal(similarity, axis1=-2, axis2=-1)
    rows = np.where(peers, similarity, 0).sum(-1) / counts
    columns = np.where(peers, similarity, 0).sum(-2) / counts
    return ((diagonal - (rows + columns) / 2) * (total - 1) / total)[..., kept]


def disattenuated(cross: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return cross / √(left · right), NaN unless both ceilings are positive (Spearman 1904).

    ``cross`` is alignment between two languages, ``left`` and ``right`` the alignment of different
    wordings within each: the largest value that noise lets ``cross`` have (ADR-016).
    """
    known = (left > 0) & (right > 0)
    return np.where(known, cross / np.sqrt(np.where(known, left * right, 1)), np.nan)


def csls(similarity: np.ndarray, neighbours: int = 10) -> np.ndarray:
    """Return 2C − r_row − r_column of ``similarity`` C ``[n, n]`` (Conneau et al. 2018).

    r is the mean of a row's or column's ``neighbours`` largest values: it lowers the similarity of
    hubs, which are near to everything.
    """
    top = min(neighbours, len(similarity))
    rows = np.partition(similarity, -top, axis=1)[:, -top:].mean(1)
    columns = np.partition(similarity, -top, axis=0)[-top:].mean(0)
    return 2 * similarity - rows[:, None] - columns[None]


def hub_skew(similarity: np.ndarray, neighbours: int = 10) -> float:
    """Return the skewness of how often a column is among a row's nearest ``neighbours``.

    ``similarity [n, n]``. Near 0 without hubs (Radovanović et al. 2010); NaN if undefined.
    """
    if np.isnan(similarity).any():
        return float("nan")
    top = min(neighbours, len(similarity))
    nearest = np.argpartition(similarity, -top, axis=1)[:, -top:]
    counts = np.bincount(nearest.ravel(), minlength=len(similarity)).astype(float)
    spread = counts.std()
    return float((((counts - counts.mean()) / spread) ** 3).mean()) if spread > 0 else 0.0


def separation(similarity: np.ndarray) -> np.ndarray:
    """Return d′ ``[l]``: mean A divided by the standard deviation of the mismatched cosines."""
    n = similarity.shape[-1]
    off = similarity[:, ~np.eye(n, dtype=bool)]
    spread = off.std(axis=-1, ddof=1)
    return alignment(similarity).mean(-1) / np.where(spread > 0, spread, np.nan)


def mismatched(similarity: np.ndarray) -> np.ndarray:
    """Return each concept's mean cosine with the others, ``[l, n]``: the control of raw cosine."""
    n = similarity.shape[-1]
    diagonal = np.diagonal(similarity, axis1=-2, axis2=-1)
    return (similarity.sum(-1) + similarity.sum(-2) - 2 * diagonal) / (2 * (n - 1))


def retrieval(similarity: np.ndarray) -> dict[str, np.ndarray]:
    """Return retrieval scores ``[…, n]`` of ``similarity`` C ``[…, n, n]``, by name.

    ``top1_forward``: C_ii is the largest of its row. ``top1_backward``: of its column. ``two_way``:
    of both (MEXA, Kargaran et al. 2024), chance 1/(2n − 1). ``mrr``: mean reciprocal rank over both
    directions. A tie counts as a loss.
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


Hsic = tuple[float, np.ndarray]


def _hsic(k: np.ndarray, m: np.ndarray) -> Hsic:
    """Return unbiased HSIC of two ``gram`` matrices, and its leave-one-out values ``[n]``.

    Song et al. 2012, eq. 5: [Σ K∘M + ΣK ΣM / ((n−1)(n−2)) − 2 (K1)·(M1) / (n−2)] / (n(n−3)).
    The leave-one-out values follow from the same sums, so a jackknife takes O(n²) operations.
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
    # Σ_{j≠i} (k_j − K_ij)(m_j − M_ij) of row sums k_j and m_j; the diagonals are zero.
    dot = rows_k @ rows_m - rows_k * rows_m - k @ rows_m - m @ rows_k + product_rows
    without = value(cross - 2 * product_rows, sum_k - 2 * rows_k, sum_m - 2 * rows_m, dot, n - 1)
    return float(whole), without


def self_hsic(k: np.ndarray) -> Hsic:
    """Return unbiased HSIC of a ``gram`` matrix with itself, and its leave-one-out values."""
    return _hsic(k, k)


def gram(vectors: np.ndarray) -> np.ndarray:
    """Mean-centre ``[n, h]`` vectors; return their Gram matrix ``[n, n]`` with a zero diagonal."""
    centred = vectors - vectors.mean(0)
    matrix = (centred @ centred.T).astype(np.float64)
    np.fill_diagonal(matrix, 0)
    return matrix


def unbiased_cka(
    k: np.ndarray, m: np.ndarray, same_k: Hsic | None = None
) -> tuple[float, np.ndarray]:
    """Return unbiased linear CKA of two ``gram`` matrices, and its jackknife pseudo-values ``[n]``.

    CKA (Kornblith et al. 2019) is computed from unbiased HSIC (Song et al. 2012), which is 0 in
    expectation for independent vectors at any n. Pseudo-value i is n·CKA − (n − 1)·CKA without item
    i; the standard deviation of their mean is the jackknife error. NaN for constant vectors; the
    pseudo-values are NaN for n < 5. ``same_k`` is ``self_hsic(k)``, if it is known. Raises
    ValueError for n < 4.
    """
    n = len(k)
    if n < 4:
        raise ValueError("unbiased CKA needs at least 4 items")
    same_k = self_hsic(k) if same_k is None else same_k
    cross, same_m = _hsic(k, m), self_hsic(m)
    scale = same_k[0] * same_m[0]
    if not scale > 0:
        return float("nan"), np.full(n, np.nan)
    product = same_k[1] * same_m[1]
    without = cross[1] / np.sqrt(np.where(product > 0, product, np.nan))
    whole = cross[0] / np.sqrt(scale)
    return float(whole), n * whole - (n - 1) * without


def sampled_alignment(
    left: np.ndarray, right: np.ndarray, *, same_wording: bool, negatives: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return A_i ``[l, n]`` and d′ ``[l]`` of centred ``[n, k, l, h]`` without all n² cosines.

    For n so large that n² cosines do not fit in memory. A is exact: a concept's mean cosine with
    the others is one product with the sum of their unit vectors. d′ is estimated from ``negatives``
    mismatches per concept, drawn without replacement; n − 1 give ``separation``. Raises ValueError
    unless 1 ≤ negatives ≤ n − 1, or if different wordings are asked for and there is one.
    """
    n, k, _, _ = left.shape
    if not 1 <= negatives <= n - 1:
        raise ValueError(f"negatives must be 1 to {n - 1} for {n} concepts, is {negatives}")
    if not same_wording and k < 2:
        raise ValueError("different wordings need at least 2 wordings per concept")
    shifts = 1 + np.random.default_rng([seed, n, 5]).permutation(n - 1)[:negatives]

    def mean_cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the mean of x_k · y_k' over wording pairs ``[n]``, of ``[n or 1, k, h]``."""
        same = np.einsum("nkh,nkh->n", *np.broadcast_arrays(x, y))
        if same_wording:
            return same / k
        every = np.einsum("nh,nh->n", *np.broadcast_arrays(x.sum(1), y.sum(1)))
        return (every - same) / (k * (k - 1))

    values, separations = [], []
    for layer in range(left.shape[2]):  # to keep only one layer's unit vectors in memory
        a, b = unit(left[:, :, layer]), unit(right[:, :, layer])
        matched = mean_cosine(a, b)
        rows = (mean_cosine(a, b.sum(0, keepdims=True)) - matched) / (n - 1)
        columns = (mean_cosine(a.sum(0, keepdims=True), b) - matched) / (n - 1)
        values.append((matched - (rows + columns) / 2) * (n - 1) / n)
        # The mean over all mismatches is exact; only the mean of their squares is sampled.
        off = [mean_cosine(a, np.roll(b, -shift, axis=0)) - rows.mean() for shift in shifts]
        pairs = n * (n - 1)
        spread = np.sqrt(np.square(off).mean() * pairs / (pairs - 1))
        separations.append(values[-1].mean() / spread if spread > 0 else np.nan)
    return np.stack(values), np.array(separations)
