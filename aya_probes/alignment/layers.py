"""Rules for the commitment layer, release layer and shape of a curve (ADR-004, ADR-008,
ADR-016)."""

from __future__ import annotations

import numpy as np
from scipy import special

SHAPE_ALPHA = 0.02  # of the bounds of shape_label; false labels stay below 5% (docs/validation.md)


def first_run(holds: np.ndarray, *, start: int, length: int = 3) -> int | None:
    """Return the first index ≥ ``start`` of ``length`` consecutive True values, or None."""
    for index in range(start, len(holds) - length + 1):
        if holds[index : index + length].all():
            return index
    return None


def _shared(mean: np.ndarray, p: np.ndarray, alpha: float) -> np.ndarray:
    """Return whether concepts are shared, by layer: max-T p ≤ alpha and A ≥ ½ max A."""
    if np.isnan(mean).all():
        return np.zeros(len(mean), dtype=bool)
    return (p <= alpha) & (mean >= np.nanmax(mean) / 2)


def commitment_layer(mean: np.ndarray, p: np.ndarray, *, alpha: float = 0.05) -> int | None:
    """Return the commitment layer of mean A and its max-T p (layers 0..L each), or None (ADR-004).

    It is the smallest ℓ ≥ 1 with p ≤ alpha and A ≥ ½ max A at layers ℓ, ℓ+1 and ℓ+2.
    """
    return first_run(_shared(mean, p, alpha), start=1)


def commitment_layers(
    means: np.ndarray, p: np.ndarray, *, alpha: float = 0.05, length: int = 3
) -> np.ndarray:
    """Return the commitment layer of every resampled curve ``means [B, l]``, −1 for none.

    ``p [l]`` is that of the data, so the spread is that of the half-of-the-peak condition.
    """
    top = np.nanmax(means, axis=1, keepdims=True)
    holds = (p <= alpha) & (means >= top / 2)
    runs = np.logical_and.reduce(
        [holds[:, 1 + k : holds.shape[1] - length + 1 + k] for k in range(length)]
    )
    return np.where(runs.any(1), 1 + runs.argmax(1), -1)


def release_layer(
    mean: np.ndarray, p: np.ndarray, committed: int, *, alpha: float = 0.05
) -> int | None:
    """Return the layer at which concepts become language-specific again, or None (ADR-008).

    It is the smallest ℓ > ``committed`` at which the rule of ``commitment_layer`` fails for layers
    ℓ, ℓ+1 and ℓ+2, or for all remaining layers. None means shared up to the last layer.
    """
    broken = np.append(~_shared(mean, p, alpha), [True, True])
    found = first_run(broken, start=committed + 1)
    return found if found is not None and found < len(mean) else None


def concept_commitment(wins: np.ndarray) -> list[int | None]:
    """Return each concept's first of 3 layers ≥ 1 with two-way retrieval in most wording pairs.

    ``wins [l, n]`` is the share of wording pairs with two-way retrieval. The rule controls no error
    rate; ``mismatched_commitment`` estimates how often it commits mismatched pairs.
    """
    return [first_run(column > 0.5, start=1) for column in wins.T]


def mismatched_commitment(similarity: np.ndarray) -> float:
    """Return the share of mismatched concept pairs that ``concept_commitment`` would commit.

    ``similarity [l, pair, n, n]`` holds one matrix per wording pair. The true matches (i, i) are
    removed, and each (i, j ≠ i) is tested as if it were a match. NaN if a value is undefined.
    """
    n = similarity.shape[-1]
    if np.isnan(similarity).any():
        return float("nan")
    other = np.where(np.eye(n, dtype=bool), -np.inf, similarity)
    best_row = other >= other.max(-1, keepdims=True)
    best_column = other >= other.max(-2, keepdims=True)
    most = (best_row & best_column).mean(axis=1)[1:] > 0.5  # [l, n, n]
    held = most[:-2] & most[1:-1] & most[2:]
    return float(held.any(axis=0)[~np.eye(n, dtype=bool)].mean())


def shape_label(
    curve: np.ndarray, resampled: np.ndarray, n: int, *, alpha: float = SHAPE_ALPHA
) -> tuple[str, int | None]:
    """Return (label, peak layer) of ``curve [l]``, layers 0..L, with ``resampled [B, l]`` of it.

    The rise D(ℓ) − D(0) and the decline D(ℓ) − D(L) of every layer get simultaneous lower
    confidence bounds: the largest studentised deviation of a resample from the curve, over all
    layers and both differences (max-T), so that no layer has to be chosen first. RISE_PEAK_DECLINE
    needs both bounds above 0 at one inner layer. ``n`` concepts were resampled; the bounds are
    widened as a t interval is. ``alpha`` is below 5% because a bootstrap of 20 concepts is too
    narrow: docs/validation.md measures the share of false labels.
    """
    last = len(curve) - 1
    differences = np.stack([curve - curve[0], curve - curve[last]])
    deviations = (
        np.stack([resampled - resampled[:, :1], resampled - resampled[:, last:]])
        - differences[:, None]
    )
    spread = deviations.std(1)
    scale = np.where(spread > 0, spread, np.inf)
    largest = (deviations / scale[:, None]).max(axis=(0, 2))
    critical = float(np.quantile(largest, 1 - alpha))
    tail = special.ndtr(-critical)
    widened = -float(special.stdtrit(n - 1, tail)) * np.sqrt(n / (n - 1))
    rising, falling = differences - widened * spread > 0
    rises, falls = bool(rising.any()), bool(falling.any())
    peak = int(curve.argmax())
    if (rising & falling)[2 : last - 1].any():
        return "RISE_PEAK_DECLINE", peak
    if rises and not falls and rising[last]:
        return "RISE", peak
    if falls and not rises and falling[0]:
        return "FALL", peak
    return ("UNRESOLVED" if rises or falls else "FLAT"), None


def layer_interval(layers: np.ndarray, *, level: float = 0.95) -> tuple[int, int]:
    """Return the central ``level`` interval of resampled ``layers [B]``, as whole layers."""
    low, high = np.quantile(layers, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return int(low), int(high)
