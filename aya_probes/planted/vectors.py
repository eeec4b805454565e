"""Activations with known answers: what the estimators must find, and what they must not.

A vector of language l, concept i, wording k at layer r is

    anisotropy_r · common + offset · language_l + concept_r · c_i + sentence_r · s_ik
    + own_r · o_li + noise_lik,r  (+ massive · e_0) (+ rogue dimensions)

with random directions of unit expected length. Only ``concept`` makes concepts align in different
sentences; ``own`` is what a language's sentences about a concept share among themselves, and no
evidence of anything across languages. Noise follows an AR(1) process over layers. Rogue dimensions
are few and far larger than the others, as in trained models (ADR-016).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace

import numpy as np

from aya_probes.alignment import measures

LAYERS = 19  # layers 0..18, as of a model of 18 blocks
HIDDEN = 48
OUTLIER = 3.0  # value of an outlying concept in a rogue dimension, in SDs of the other texts
FAR = 10.0  # distance of languages in a rogue dimension, in the same unit


@dataclass(frozen=True)
class Rogue:
    """A few dimensions that are far larger than the others."""

    mode: str
    """What the values depend on.

    - texts: on nothing; every text has its own.
    - few: the same, but a tenth of the concepts stand out, the same ones in every language.
    - outliers: the same, but each language has its own outlying concepts.
    - languages: every text has its own, around a mean that differs by language.
    - private: every text has its own, in dimensions that differ by language.
    """
    strength: np.ndarray
    """SD of the largest dimension by layer ``[r]``, relative to noise of length 1."""
    sizes: tuple[float, ...] = (1.0, 0.7, 0.5)
    """Size of each dimension, relative to the largest."""
    oblique: bool = False
    """Whether they are random directions instead of coordinate axes; needs ``Plant.rotated``."""

    def values(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
        """Return the values ``[language, n, k, dimension]`` for ``shape`` (language, n, k), in
        SDs."""
        languages, n, _ = shape
        found = rng.normal(size=(*shape, len(self.sizes)))
        signs = rng.choice([-OUTLIER, OUTLIER], size=(languages, n, 1, len(self.sizes)))
        few = max(2, round(0.1 * n))
        for language in range(languages):
            if self.mode == "few":
                found[language, :few] += signs[0, :few]
            if self.mode == "outliers":
                chosen = rng.permutation(n)[:few]
                found[language, chosen] += signs[language, chosen]
        if self.mode == "languages":
            found += FAR * np.arange(languages)[:, None, None, None]
        return found * self.sizes

    def add_to(self, vectors: np.ndarray, rng: np.random.Generator) -> None:
        """Add the dimensions to ``vectors [variant, language, n, k, r, h]``, in place."""
        values, size = self.values(rng, vectors.shape[1:4]), len(self.sizes)
        for language, own in enumerate(values):
            first = size * language if self.mode == "private" else 0
            block = vectors[:, language, ..., first : first + size]
            block += (self.strength[:, None] * own[:, :, None]).astype(vectors.dtype)


@dataclass(frozen=True)
class Plant:
    """What is planted; strengths are relative to noise of length 1, per layer where arrays."""

    concept: np.ndarray = field(default_factory=lambda: np.zeros(LAYERS))
    sentence: np.ndarray = field(default_factory=lambda: np.zeros(LAYERS))
    anisotropy: np.ndarray = field(default_factory=lambda: np.full(LAYERS, 16.0))  # cosine 0.95+
    offset: float = 3.0
    own: np.ndarray | float = 1.0
    spread: float = 0.5  # SD of the log strength over concepts: some are shared, some hardly
    categories: int = 0  # if not 0, concept vectors are those of so many categories, no more
    massive: float = 0.0
    rogue: Rogue | None = None
    rotated: bool = False  # whether the decaying spectrum lies along random directions, not axes
    layer_correlation: float = 0.9
    identical_input: float = 0.0  # share of concepts with the same layer-0 vectors everywhere
    n: int = 20
    wordings: int = 3
    hidden: int = HIDDEN

    @property
    def layers(self) -> int:
        return len(self.concept)

    @property
    def blocks(self) -> np.ndarray:
        """The category of each concept ``[n]``: five categories, unless given."""
        return np.arange(self.n) % (self.categories or 5)


def strength(alignment: np.ndarray | float, own: float = 1.0) -> np.ndarray:
    """Return the concept strength at which the expected centred cosine is ``alignment``."""
    share = np.asarray(alignment, dtype=float)
    return np.sqrt(share / (1 - share) * (own**2 + 1))


def _directions(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return random vectors of unit expected squared length, with a decaying spectrum."""
    spectrum = np.arange(1, shape[-1] + 1) ** -0.5
    return rng.normal(size=shape) * spectrum / np.sqrt((spectrum**2).sum())


def _noise(rng: np.random.Generator, plant: Plant) -> np.ndarray:
    """Return AR(1) noise over layers ``[n, k, r, h]``, stationary."""
    shape = (plant.n, plant.wordings, plant.layers, plant.hidden)
    noise, rho = _directions(rng, *shape), plant.layer_correlation
    for layer in range(1, plant.layers):
        noise[:, :, layer] = rho * noise[:, :, layer - 1] + np.sqrt(1 - rho**2) * noise[:, :, layer]
    return noise


@functools.cache
def _rotation(hidden: int) -> np.ndarray:
    """Return a fixed random rotation ``[h, h]`` float32."""
    normal = np.random.default_rng(hidden).normal(size=(hidden, hidden))
    return np.linalg.qr(normal)[0].astype(np.float32)


def draw(plant: Plant, seed: int, languages: int = 2, variants: int = 1) -> np.ndarray:
    """Return activations ``[variant, language, n, k, r, h]`` float32.

    Variants share everything but one tenth of the noise's variance: models fine-tuned from one.
    """
    rng = np.random.default_rng(seed)
    n, k, h = plant.n, plant.wordings, plant.hidden
    column = (slice(None), None)
    common = plant.anisotropy[column] * _directions(rng, h)
    scale = np.exp(plant.spread * rng.normal(size=(n, 1, 1, 1)))
    shared = _directions(rng, plant.categories or n, h)[plant.blocks if plant.categories else ...]
    concept = scale * plant.concept[column] * shared[:, None, None]
    sentence = plant.sentence[column] * _directions(rng, n, k, h)[:, :, None]
    fixed = common + concept + sentence
    strength_of_own = np.broadcast_to(plant.own, plant.layers)[column]
    out = np.empty((variants, languages, n, k, plant.layers, h), dtype=np.float32)
    for language in range(languages):
        own = strength_of_own * _directions(rng, n, h)[:, None, None]
        mine = fixed + plant.offset * _directions(rng, h) + own
        common_noise = _noise(rng, plant)
        for variant in range(variants):
            noise = common_noise
            if variants > 1:
                noise = 0.9**0.5 * common_noise + 0.1**0.5 * _noise(rng, plant)
            out[variant, language] = mine + noise
    if plant.rogue and plant.rogue.oblique:
        plant.rogue.add_to(out, rng)
    if plant.rotated:
        out = out @ _rotation(h)
    if plant.rogue and not plant.rogue.oblique:
        plant.rogue.add_to(out, rng)
    out[..., 0] += plant.massive
    same = round(plant.identical_input * n)
    out[:, :, :same, :, 0] = out[:, :1, :same, :, 0]
    return out


def matrices(languages: np.ndarray, *, same_wording: bool = False, raw: bool = False) -> np.ndarray:
    """Return the similarity of the first language with each other one ``[pair, r, n, n]``.

    Vectors are standardised, or only mean-centred if ``raw``.
    """
    scale = measures.mean_centre if raw else measures.standardise
    scaled = [scale(vectors) for vectors in languages]
    return np.stack(
        [
            measures.wording_mean(measures.cosines(scaled[0], other), same_wording=same_wording)
            for other in scaled[1:]
        ]
    )


def population_alignment(plant: Plant, *, n: int = 200, draws: int = 40) -> np.ndarray:
    """Return the alignment ``[r]`` of a population of concepts: the mean over large draws."""
    large = replace(plant, n=n)
    return np.mean(
        [measures.alignment(matrices(draw(large, seed)[0]))[0].mean(-1) for seed in range(draws)],
        axis=0,
    )
