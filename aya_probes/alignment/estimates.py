"""Make curves from arrays of estimates."""

from __future__ import annotations

import numpy as np

from aya_probes.alignment import inference
from aya_probes.results.curves import Curve, number, values


def mean_curve(
    table: np.ndarray,
    weights: np.ndarray | None,
    *,
    n: int | None = None,
    chance: float | None = None,
) -> Curve:
    """Return the mean of ``table [layer, n]``, final_norm last.

    Bootstrap ``weights [B, n]`` give it intervals.
    """
    means = table.mean(1)
    if weights is None:
        return Curve(values(means[:-1]), number(means[-1]), n=n, chance=chance)
    return bounded(means, *inference.expanded_interval(table, weights), n=n, chance=chance)


def bounded(
    means: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    n: int | None = None,
    chance: float | None = None,
) -> Curve:
    """Return a curve of estimates and interval ends ``[layer]`` each, final_norm last."""
    last = values(np.array([lower[-1], upper[-1]]))
    return Curve(
        values(means[:-1]),
        number(means[-1]),
        values(lower[:-1]),
        values(upper[:-1]),
        final_norm_interval=(last[0], last[1]),
        n=n,
        chance=chance,
    )
