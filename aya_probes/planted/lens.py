"""Lens tables with known answers: log probabilities of words by layer, language and concept.

An entry of the table is a constant of the word, a constant of the prompt, noise that follows an
AR(1) process over layers, and, for the word of the concept asked, an advantage that the plant sets
for each language and layer. The fitted lens sees the same advantage with partly other noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

LAYERS = 19  # layers 0..18, as of a model of 18 blocks
LANGUAGES = ("en", "fr", "es", "hi", "ar")
WORD_SD, PROMPT_SD = 2.0, 1.0  # of the constants, in nats
MEMORY = 0.8  # correlation of the noise of neighbouring layers


@dataclass(frozen=True)
class LensPlant:
    """What is planted; advantages are in nats, and the noise of an entry has SD 1."""

    advantage: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Language -> mean advantage of the word of the concept asked, by layer; 0 where absent."""
    spread: float = 0.5
    """SD over concepts of the advantage, relative to it; each language draws its own."""
    agreement: float = 0.7
    """Correlation of the noise of both lenses."""
    n: int = 20
    """Number of concepts."""


def draw(plant: LensPlant, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the plain and the fitted lens's table, ``[concept, layer, language, concept]``."""
    rng = np.random.default_rng([seed, 14])
    shape = (plant.n, LAYERS, len(LANGUAGES), plant.n)
    shared = _noise(rng, shape)
    constants = WORD_SD * rng.normal(size=(1, 1, *shape[2:]))
    constants = constants + PROMPT_SD * rng.normal(size=(plant.n, LAYERS, 1, 1))
    signal = np.zeros(shape)
    own = np.arange(plant.n)
    for place, language in enumerate(LANGUAGES):
        size = plant.advantage.get(language, np.zeros(LAYERS))
        factor = 1 + plant.spread * rng.normal(size=(plant.n, 1))
        signal[own, :, place, own] = factor * size
    mixed = np.sqrt(plant.agreement) * shared
    rest = np.sqrt(1 - plant.agreement)
    plain, fitted = (constants + signal + mixed + rest * _noise(rng, shape) for _ in range(2))
    return plain, fitted


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return noise of variance 1 with memory along the layers, the second axis."""
    noise = rng.normal(size=shape)
    for layer in range(1, shape[1]):
        fresh = np.sqrt(1 - MEMORY**2) * noise[:, layer]
        noise[:, layer] = MEMORY * noise[:, layer - 1] + fresh
    return noise
