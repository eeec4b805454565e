"""Plants and types that the validation on planted truth shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from aya_probes.planted import vectors as planted
from aya_probes.planted.vectors import LAYERS, Plant, Rogue

PERMUTATIONS = 499
RESAMPLES = 1_000
NOMINAL = 0.05
SIZES = (10, 20, 60)  # numbers of concepts

Records = list[dict[str, Any]]  # lines of one table
Run = Callable[[Callable[[int], list[float]], int], np.ndarray]
"""Calls a function with as many seeds; returns one row per seed."""

NULL = Plant()
ROGUE = Rogue("texts", np.full(LAYERS, 1.26))
"""Three dimensions that carry about half of the squared length of mean-centred vectors."""


def flat(alignment: float, rows: int = LAYERS) -> Plant:
    """Return a plant with the same concept alignment at all layers."""
    return short(replace(NULL, concept=np.full(LAYERS, planted.strength(alignment))), rows)


def short(plant: Plant, rows: int) -> Plant:
    """Return the first ``rows`` layers of a plant."""
    return replace(
        plant,
        concept=plant.concept[:rows],
        sentence=plant.sentence[:rows],
        anisotropy=plant.anisotropy[:rows],
    )


def through(*points: tuple[int, float]) -> np.ndarray:
    """Return values by layer that run linearly through the points (layer, value)."""
    at, values = zip(*points, strict=True)
    return np.interp(np.arange(LAYERS), at, values)


def island(peak: float) -> np.ndarray:
    """Return concept strengths shared between layers 6 and 12, with ramps of three layers."""
    return planted.strength(through((3, 0.0), (6, peak), (12, peak), (15, 0.0)))


def relative(shared: np.ndarray, ceiling: np.ndarray, **settings: Any) -> Plant:
    """Return a plant with alignment ``shared`` relative to the noise ceiling, by layer.

    ``ceiling`` is the alignment of different wordings of one language. Both are exact for
    ``spread=0`` and a large hidden size.
    """
    total = ceiling / (1 - ceiling)  # squared strength of what a concept's texts have in common
    return replace(
        NULL, concept=np.sqrt(shared * total), own=np.sqrt((1 - shared) * total), **settings
    )


def means(table: np.ndarray) -> list[float]:
    """Return the mean of each column of ``table [draw, column]``, without NaN; NaN if all are."""
    return [
        float(column[np.isfinite(column)].mean()) if np.isfinite(column).any() else np.nan
        for column in table.T
    ]
