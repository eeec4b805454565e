"""Activations with known answers: what the estimators must find, and what they must not.

A vector of language l, concept i, wording k at layer r is

    anisotropy_r · common + offset · language_l + concept_r · c_i + sentence_r · s_ik
    + own · o_li + noise_lik,r  (+ massive · e_0)

with random directions of unit expected length. Only ``concept`` makes concepts align in different
sentences; ``own`` is what a language's sentences about a concept share among themselves, and no
evidence of anything across languages. Noise follows an AR(1) process over layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from aya_probes.alignment import measures

LAYERS = 19  # layers 0..18, as of a model of 18 blocks
HIDDEN = 48


@dataclass(frozen=True)
class Plant:
    """What is planted; strengths are relative to noise of length 1, per layer where arrays."""

    concept: np.ndarray = field(default_factory=lambda: np.zeros(LAYERS))
    sentence: np.ndarray = field(default_factory=lambda: np.zeros(LAYERS))
    anisotropy: np.ndarray = field(default_factory=lambda: np.full(LAYERS, 16.0))  # cosine 0.95+
    offset: float = 3.0
    own: float = 1.0
    spread: float = 0.5  # SD of the log strength over concepts: some are shared, some hardly
    massive: float = 0.0
    layer_correlation: float = 0.9
    identical_input: float = 0.0  # share of concepts with the same layer-0 vectors everywhere
    n: int = 20
    wordings: int = 3
    hidden: int = HIDDEN

    @property
    def layers(self) -> int:
        return len(self.concept)


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


def draw(plant: Plant, seed: int, languages: int = 2, variants: int = 1) -> np.ndarray:
    """Return activations ``[variant, language, n, k, r, h]`` float32.

    Variants share everything but one tenth of the noise's variance: models fine-tuned from one.
    """
    rng = np.random.default_rng(seed)
    n, k, h = plant.n, plant.wordings, plant.hidden
    column = (slice(None), None)
    common = plant.anisotropy[column] * _directions(rng, h)
    scale = np.exp(plant.spread * rng.normal(size=(n, 1, 1, 1)))
    concept = scale * plant.concept[column] * _directions(rng, n, h)[:, None, None]
    sentence = plant.sentence[column] * _directions(rng, n, k, h)[:, :, None]
    fixed = common + concept + sentence
    if plant.massive:
        fixed[..., 0] += plant.massive
    out = np.empty((variants, languages, n, k, plant.layers, h), dtype=np.float32)
    for language in range(languages):
        own = plant.own * _directions(rng, n, h)[:, None, None]
        mine = fixed + plant.offset * _directions(rng, h) + own
        shared = _noise(rng, plant)
        for variant in range(variants):
            noise = shared if variants == 1 else 0.9**0.5 * shared + 0.1**0.5 * _noise(rng, plant)
            out[variant, language] = mine + noise
    same = round(plant.identical_input * n)
    out[:, :, :same, :, 0] = out[:, :1, :same, :, 0]
    return out


def matrices(languages: np.ndarray, *, same_wording: bool = False) -> np.ndarray:
    """Return the similarity of the first language with each other one ``[pair, r, n, n]``."""
    centred = [measures.mean_centre(vectors) for vectors in languages]
    return np.stack(
        [
            measures.wording_mean(measures.cosines(centred[0], other), same_wording=same_wording)
            for other in centred[1:]
        ]
    )


def population_alignment(plant: Plant, *, n: int = 200, draws: int = 40) -> np.ndarray:
    """Return the alignment ``[r]`` of a population of concepts: the mean over large draws."""
    large = replace(plant, n=n)
    return np.mean(
        [measures.alignment(matrices(draw(large, seed)[0]))[0].mean(-1) for seed in range(draws)],
        axis=0,
    )
