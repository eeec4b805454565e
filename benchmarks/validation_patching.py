"""Validate the tests of concept patching on scores with a known answer.

The word that a prompt asks for falls by 6 nats whatever is put in; the noise of a patch has an SD
of 1 nat and follows an AR(1) process over 18 layers. Either nothing of a concept is carried, or it
is carried as much in the source language as in the target, or only into the target at layers 5
to 11.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from aya_probes.alignment import inference
from aya_probes.patching import statistics
from aya_probes.planted import patch_scores
from aya_probes.planted.patch_scores import LAYERS, ScorePlant
from validation_plants import NOMINAL, PERMUTATIONS, RESAMPLES, Records, Run, means

WINDOW = (5, 11)
NULL = ScorePlant()


def carried(size: float) -> np.ndarray:
    """Return a rise of so many nats in the layers of the planted window, ``[l]``."""
    layer = np.arange(LAYERS)
    return size * ((layer >= WINDOW[0]) & (layer <= WINDOW[1]))


def called(plant: ScorePlant, seed: int) -> list[float]:
    """Return which tests reject at a layer from 1 on, whether there is a window, and its edges.

    Concept; the same without making the word asked for neutral; beyond; window; first and last
    layer; share of edges that their interval covers (NaN without a window).
    """
    drawn = patch_scores.draw(plant, seed)
    orders = inference.permutations(plant.n, PERMUTATIONS, seed)
    target, source = (
        statistics.without_asked(scores, drawn.asked) for scores in (drawn.target, drawn.source)
    )
    moved, away = statistics.effect(target), statistics.effect(source)
    p_concept = statistics.concept_p(target, orders)
    p_beyond = statistics.larger_p(moved - away, count=PERMUTATIONS, seed=seed)
    weights = inference.resample_weights(plant.n, RESAMPLES, seed)
    window = statistics.estimate_window(moved, away, (p_concept, p_beyond), weights)
    edges = [np.nan, np.nan, np.nan]
    if window.first is not None and window.last is not None:
        pairs = zip((window.first_interval, window.last_interval), WINDOW, strict=True)
        covered = [pair is not None and pair[0] <= truth <= pair[1] for pair, truth in pairs]
        edges = [float(window.first), float(window.last), float(np.mean(covered))]
    raw = statistics.concept_p(drawn.target, orders)
    return [
        float((p_concept[1:] <= NOMINAL).any()),
        float((raw[1:] <= NOMINAL).any()),
        float((p_beyond[1:] <= NOMINAL).any()),
        float(window.first is not None),
        *edges,
    ]


def patching_errors(run: Run, draws: int) -> Records:
    """Return error rates, power and edges of the patching tests (500 draws by default)."""
    equal = replace(NULL, target=carried(1.5), source=carried(1.5))
    plants = {
        "nothing is carried": NULL,
        "the same, n = 8": replace(NULL, n=8),
        "the same, heavy tails": replace(NULL, heavy=True),
        "carried in both languages alike": equal,
        "carried into the target": replace(NULL, target=carried(1.5)),
        "the same, n = 10": replace(NULL, target=carried(1.5), n=10),
    }
    columns = ("concept", "concept_raw", "beyond", "window", "first", "last", "covered")
    records = []
    for name, plant in plants.items():
        found = run(functools.partial(called, plant), draws)
        values = dict(zip(columns, means(found), strict=True))
        records.append({"plant": name, "n": plant.n, **values, "draws": draws})
    return records
