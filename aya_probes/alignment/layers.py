"""Commitment layer, release layer and shape of an alignment curve (ADR-004, ADR-008)."""

from __future__ import annotations

import numpy as np

from aya_probes.alignment import inference


def first_run(holds: np.ndarray, *, start: int, length: int = 3) -> int | None:
    """Return the first index ≥ start at which ``length`` consecutive values hold."""
    for index in range(start, len(holds) - length + 1):
        if holds[index : index + length].all():
            return index
    return None


def _shared(mean: np.ndarray, p: np.ndarray, alpha: float) -> np.ndarray:
    """Return per layer whether a concept counts as shared: max-T p ≤ alpha and A ≥ ½ max A."""
    if np.isnan(mean).all():
        return np.zeros(len(mean), dtype=bool)
    return (p <= alpha) & (mean >= np.nanmax(mean) / 2)


def commitment_layer(mean: np.ndarray, p: np.ndarray, *, alpha: float = 0.05) -> int | None:
    """Return the commitment layer (ADR-004) of curves over layers 0..L, or None.

    The smallest ℓ ≥ 1 with max-T p ≤ alpha and A ≥ ½ max A for layers ℓ, ℓ+1, ℓ+2.
    """
    return first_run(_shared(mean, p, alpha), start=1)


def release_layer(
    mean: np.ndarray, p: np.ndarray, committed: int, *, alpha: float = 0.05
) -> int | None:
    """Return the layer at which a committed concept is language-specific again, or None.

    The smallest ℓ > ``committed`` with the rule of ``commitment_layer`` broken at layers ℓ, ℓ+1,
    ℓ+2, or at all layers that are left. None: shared up to the last layer.
    """
    broken = np.append(~_shared(mean, p, alpha), [True, True])
    found = first_run(broken, start=committed + 1)
    return found if found is not None and found < len(mean) else None


def concept_commitment(wins: np.ndarray) -> list[int | None]:
    """Return each concept's first of 3 layers ≥ 1 at which it wins most wording pairs.

    ``wins [l, n]`` is the share of wording pairs won both ways. Descriptive: no error rate is
    controlled; ``mismatched_commitment`` gives the share of chance pairs that the rule calls.
    """
    return [first_run(column > 0.5, start=1) for column in wins.T]


def mismatched_commitment(similarity: np.ndarray) -> float:
    """Return the share of mismatched concept pairs that the per-concept rule would commit.

    ``similarity [l, pair, n, n]`` of the wording pairs. Each (i, j ≠ i) is judged as if it were a
    match, the true matches (i, i) taken out: what the rule calls where nothing is aligned.
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
    """Label a curve's shape from A_i ``[layers 0..L, n]``; returns (label, peak layer).

    The peak ℓ* is chosen on one half of the concepts. Rise A(ℓ*) − A(0) and decline A(ℓ*) − A(L)
    are tested at that layer on the other half, then swapped. A label needs both halves: choosing
    and testing on the same concepts calls 11–19% of flat curves rise-peak-collapse.
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
    """Label ``[l, n]`` by tests at ``peak``, a layer that other concepts chose."""
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
