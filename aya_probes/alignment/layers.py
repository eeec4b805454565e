"""Rules for the commitment layer, release layer and shape of a curve (ADR-004, ADR-008)."""

from __future__ import annotations

import numpy as np

from aya_probes.alignment import inference


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


def shape_label(values: np.ndarray, *, seed: int, alpha: float = 0.05) -> tuple[str, int | None]:
    """Return (label, peak layer) of the curve of A_i ``[layers 0..L, n]``.

    One half of the concepts chooses the peak ℓ*, the other tests the rise A(ℓ*) − A(0) and the
    decline A(ℓ*) − A(L). Then they swap, and must give the same label. With one sample for choosing
    and testing, 11–19% of flat curves would be labelled RISE_PEAK_COLLAPSE.
    """
    first, second = inference.halves(values.shape[1], seed)
    labels = {
        _half_label(values[:, tested], int(values[:, chosen].mean(1).argmax()), seed, alpha)
        for chosen, tested in ((first, second), (second, first))
    }
    if len(labels) == 2:
        return "UNRESOLVED", None
    label = labels.pop()
    return label, None if label == "FLAT" else int(values.mean(1).argmax())


def _half_label(values: np.ndarray, peak: int, seed: int, alpha: float) -> str:
    """Return the label of ``values [l, n]`` by sign-flip tests at ``peak``."""
    last = len(values) - 1

    def is_above(a: int, b: int) -> bool:
        difference = values[a] - values[b]
        p = inference.sign_flip_p(difference, count=4095, seed=seed, two_sided=False)
        return bool(p <= alpha)

    rises, falls = is_above(peak, 0), is_above(peak, last)
    if rises and falls and 2 <= peak <= last - 2:
        return "RISE_PEAK_COLLAPSE"
    if rises and is_above(last, 0) and not falls:
        return "MONOTONE_RISE"
    if falls and is_above(0, last) and not rises:
        return "MONOTONE_FALL"
    return "FLAT" if not rises and not falls else "UNRESOLVED"
