"""The map of languages: sentence alignment of every two languages on the parallel corpus (ADR-016).

It is measured at three layers and on at most 256 sentences, evenly spaced over the corpus. Concept
probes give all pairs at every layer, so a small suite with probes needs no map.

Mean A of two languages follows from two products per pair, without the n² cosines: the matched
cosines are products of unit vectors, and the sum of all cosines is the product of their sums.
"""

from __future__ import annotations

import itertools

import numpy as np

from aya_probes.alignment import measures, parallel
from aya_probes.alignment.inputs import AlignmentInputs
from aya_probes.extraction import store
from aya_probes.results.curves import number
from aya_probes.results.tables import LanguagePair

MAP_ITEMS = 256
FEW_LANGUAGES = 10  # up to this many, a suite with probes has all pairs in its curves
DEPTHS = (1 / 3, 1 / 2, 2 / 3)  # of L


def applies(task: AlignmentInputs) -> bool:
    """Return whether a run has a map: without probes, or with more than 10 languages."""
    enough = len(task.documents) >= parallel.MIN_ITEMS
    return enough and (not task.concepts or len(task.languages) > FEW_LANGUAGES)


def map_layers(last: int) -> list[int]:
    """Return the layers nearest to L/3, L/2 and 2L/3; ``last`` is L."""
    return sorted({int(last * depth + 0.5) for depth in DEPTHS})


def sample(n: int) -> np.ndarray:
    """Return the positions of at most 256 of n items, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, n - 1, min(n, MAP_ITEMS)).round().astype(int))


def measure(task: AlignmentInputs, variant: str, loaded: store.Activations) -> list[LanguagePair]:
    """Return the rows of one variant, the pairs with the pivot first; none if there is no map."""
    if not applies(task):
        return []
    ids = parallel.corpus_ids(task.manifest)
    chosen = sample(len(ids[task.suite.pivot]))
    depths = map_layers(len(loaded.plan.layers) - 2)
    vectors = np.stack([_unit_vectors(loaded, ids[code], chosen, depths) for code in task.order])
    found = []
    for position, layer in enumerate(depths):
        table = mean_alignment(vectors[:, position])
        found += [
            LanguagePair(variant, layer, a, b, number(table[left, right]), len(chosen))
            for (left, a), (right, b) in itertools.combinations(enumerate(task.order), 2)
        ]
    return found


def _unit_vectors(
    loaded: store.Activations, ids: list[str], chosen: np.ndarray, depths: list[int]
) -> np.ndarray:
    """Return one language's standardised vectors of length 1, ``[layer, item, h]``."""
    taken = loaded.take(parallel.POOLING, [ids[n] for n in chosen])
    return np.stack([measures.unit(parallel.standardised(taken[:, layer])) for layer in depths])


def mean_alignment(vectors: np.ndarray) -> np.ndarray:
    """Return mean A ``[language, language]`` of unit vectors ``[language, n, h]``.

    It is the mean of ``measures.alignment`` over items; NaN for a language with a zero vector.
    """
    n = vectors.shape[1]
    flat = vectors.reshape(len(vectors), -1)
    matched, sums = flat @ flat.T, vectors.sum(1)
    mismatched = (sums @ sums.T - matched) / (n - 1)
    return (matched - mismatched) / n * (n - 1) / n
