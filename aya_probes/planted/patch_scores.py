"""Scores of patches that are drawn at random, with a known answer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from aya_probes.patching import donors

LAYERS = 18  # layers 0..17, as of a model of 18 blocks
ASKED_FALL = 6.0  # by which a patch lowers the word that a prompt asks for, in nats


@dataclass(frozen=True)
class ScorePlant:
    """Scores of patches in a target and a source language, with a known answer."""

    target: np.ndarray = field(default_factory=lambda: np.zeros(LAYERS))
    """Rise of the moved concept's word in the target language, by layer, in nats."""
    source: np.ndarray = field(default_factory=lambda: np.zeros(LAYERS))
    """The same in the source language."""
    n: int = 20
    rows: float = 2.0
    """SD of what a prompt does to all words."""
    columns: float = 2.0
    """SD of what all patches do to a word."""
    noise: float = 1.0
    """SD of what a patch does to a word."""
    heavy: bool = False
    """Whether the noise has heavy tails (t with 3 degrees of freedom)."""
    correlation: float = 0.9
    """Of the noise of neighbouring layers."""
    between: float = 0.5
    """Correlation of the noise of the two languages."""


@dataclass(frozen=True)
class Scores:
    """Scores ``[l, i, k]`` in the target and the source language, and the concepts asked for."""

    target: np.ndarray
    source: np.ndarray
    asked: np.ndarray
    """``[i, k]`` bool."""


def draw(plant: ScorePlant, seed: int) -> Scores:
    """Draw scores; the word that a prompt asks for falls in both languages, whatever is put in."""
    rng = np.random.default_rng([seed, plant.n, 14])
    asked = np.zeros((plant.n, plant.n), dtype=bool)
    half = rng.permutation(np.arange(plant.n) % 2)
    asked[np.arange(plant.n), donors.donors(half, seed)] = True
    shape = (2, len(plant.target), plant.n, plant.n)
    fresh = rng.standard_t(3, shape) / 3**0.5 if plant.heavy else rng.normal(size=shape)
    fresh[1] = plant.between * fresh[0] + (1 - plant.between**2) ** 0.5 * fresh[1]
    rho, noise = plant.correlation, fresh.copy()
    for layer in range(1, shape[1]):
        noise[:, layer] = rho * noise[:, layer - 1] + (1 - rho**2) ** 0.5 * fresh[:, layer]
    rows, columns = rng.normal(size=(2, 2, plant.n))
    scores = plant.noise * noise
    scores += plant.rows * rows[:, None, :, None] + plant.columns * columns[:, None, None, :]
    scores -= ASKED_FALL * asked
    rise = np.stack([plant.target, plant.source])[:, :, None] * np.exp(
        0.3 * rng.normal(size=plant.n)
    )
    here = np.arange(plant.n)
    scores[:, :, here, here] += rise
    return Scores(scores[0], scores[1], asked)
