"""How often a model gives the right word, and whether a cell can be tested at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054  # standard normal quantile of a two-sided 95% interval


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a rate (Wilson 1927); ``successes`` may be a sum of
    rates. Raises ValueError for n < 1 or successes outside 0..n."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    rate = successes / n
    centre = rate + Z95**2 / (2 * n)
    half = Z95 * np.sqrt(rate * (1 - rate) / n + Z95**2 / (4 * n**2))
    scale = 1 + Z95**2 / n
    return max(0.0, float((centre - half) / scale)), min(1.0, float((centre + half) / scale))


def above_chance(rates: Sequence[float]) -> bool:
    """Tell whether accuracy, from one rate per concept, is above chance.

    Chance is 1/n: a model that answers with the word of one of the n concepts at random. The
    interval is over concepts, since the prompts of one concept are not independent.
    """
    return wilson(sum(rates), len(rates))[0] > 1 / len(rates)
