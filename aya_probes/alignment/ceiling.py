"""The noise ceiling of `concept_alignment`, and alignment relative to it (ADR-016).

A concept's vectors in two sentences of one language differ too. Their alignment, the ceiling, is
the largest that two languages could reach if they represented the concept in the same way. Where it
falls over layers, the span encodes its own concept less, in one language as across two; that is no
evidence that concepts become specific to a language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aya_probes.alignment import estimates, inference, layers, measures
from aya_probes.alignment.inputs import MIN_SPLIT_CONCEPTS, AlignmentInputs
from aya_probes.files import finite
from aya_probes.results.curves import CEILING, DISATTENUATED, Curve, CurveKey, Shape


@dataclass(frozen=True)
class Disattenuated:
    """Alignment relative to the ceiling, of one language with the pivot."""

    curve: np.ndarray
    """``[layer]``, final_norm last; NaN where a ceiling is not above 0."""
    resampled: np.ndarray
    """The same with resampled concepts ``[resample, layer]``."""
    n: int
    """Number of concepts."""

    def to_curve(self, n_concepts: int) -> Curve:
        """Return the curve with expanded percentile intervals; ``n`` only if it is not all."""
        lower, upper = inference.expanded_quantiles(self.resampled, self.n)
        n = self.n if self.n != n_concepts else None
        return estimates.bounded(self.curve, lower, upper, n=n)


def within_languages(vectors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return A_i between different wordings of the same language, ``[layer, n]`` by language."""
    return {
        code: measures.alignment(
            measures.wording_mean(measures.cosines(own, own), same_wording=False)
        )
        for code, own in vectors.items()
    }


def disattenuate(
    cross: np.ndarray, pivot: np.ndarray, other: np.ndarray, task: AlignmentInputs
) -> Disattenuated | None:
    """Return ``cross`` relative to both ceilings (A_i ``[layer, n]`` each, NaN: left out).

    None for too few concepts for intervals. A layer is undefined (NaN) unless the lower ends of
    both ceilings' 95% intervals are above 0.
    """
    kept = np.isfinite(cross).any(0)
    weights = task.weights(int(kept.sum()))
    if weights is None:
        return None
    parts = [table[:, kept] for table in (cross, pivot, other)]
    established = np.ones(len(cross), dtype=bool)
    for ceiling in parts[1:]:
        established &= inference.expanded_interval(ceiling, weights)[0] > 0
    means = [table.mean(1) for table in parts]
    drawn = [weights @ table.T for table in parts]
    curve = np.where(established, measures.disattenuated(*means), np.nan)
    return Disattenuated(
        curve, np.where(established, measures.disattenuated(*drawn), np.nan), int(kept.sum())
    )


def measure(
    task: AlignmentInputs,
    vectors: Mapping[str, np.ndarray],
    aligned: Mapping[str, np.ndarray],
    pooling: str,
    variant: str,
) -> tuple[dict[CurveKey, Curve], dict[str, Disattenuated]]:
    """Return the curves of ceilings and of disattenuated alignment, and the latter by language."""
    pivot, n = task.suite.pivot, len(task.concepts)
    ceilings = within_languages(vectors)
    curves, found = {}, {}
    for code, table in ceilings.items():
        key = CurveKey(pooling, CEILING, variant, pivot, code)
        curves[key] = estimates.mean_curve(table, task.weights(n))
    for code, cross in aligned.items():
        relative = disattenuate(cross, ceilings[pivot], ceilings[code], task)
        if relative is not None:
            found[code] = relative
            key = CurveKey(pooling, DISATTENUATED, variant, pivot, code)
            curves[key] = relative.to_curve(n)
    return curves, found


def shape(relative: Disattenuated | None, *, void: bool) -> Shape | None:
    """Return the shape of disattenuated alignment over layers 0..L; ``void`` means untestable.

    None with fewer than 8 concepts.
    """
    if relative is None or relative.n < MIN_SPLIT_CONCEPTS:
        return None
    if void:
        return Shape("UNTESTABLE", None, None, None, None)
    curve, resampled = relative.curve[:-1], relative.resampled[:, :-1]
    usable = np.isfinite(resampled).all(1)
    if not np.isfinite(curve).all() or usable.mean() < 0.95:
        return Shape("UNDEFINED", None, None, None, None)
    resampled = resampled[usable]
    label, peak = layers.shape_label(curve, resampled, relative.n)
    top = float(curve.max())
    interval = None if peak is None else layers.layer_interval(resampled.argmax(1))
    return Shape(
        label=label,
        peak_layer=peak,
        peak_interval=interval,
        norm_step=finite(float(relative.curve[-1] - curve[-1])),
        # For a flat curve this would be a ratio of two noise values.
        retained=finite(float(curve[-1]) / top) if label != "FLAT" and top > 0 else None,
        rise=_fall(curve, resampled, relative.n, 0),
        decline=_fall(curve, resampled, relative.n, -1),
    )


def _fall(
    curve: np.ndarray, resampled: np.ndarray, n: int, layer: int
) -> tuple[float, float, float]:
    """Return the largest value of ``curve [l]`` minus that at ``layer``, with its 95% interval.

    ``resampled [B, l]`` is the curve of resamples of n concepts; the layer of the largest value is
    that of ``curve`` in all of them.
    """
    top = int(curve.argmax())
    lower, upper = inference.expanded_quantiles(resampled[:, top] - resampled[:, layer], n)
    change = float(curve[top] - curve[layer])
    return round(change, 6), round(float(lower), 6), round(float(upper), 6)
