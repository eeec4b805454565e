"""Which pivot sentences a model chooses from, so that one that ignores the text is at chance.

Concepts are put into groups of at least five of similar length. The candidates of a text are the
pivot's sentences, in the text's wording, for the concepts of its group: the right one and at least
four mismatched ones. Every sentence of a group is the right one for its own texts and a mismatched
one for the others. A model whose choice does not depend on the text therefore gets exactly one of
each group right, and chance is 1 / size of the group without any assumption about the model.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from aya_probes.stimuli import Manifest, Stimulus

GROUP = 5  # concepts, at least: the right sentence and four mismatched ones

Group = tuple[str, ...]  # concepts


def group_concepts(lengths: Mapping[str, float], seed: int) -> list[Group]:
    """Return groups of 5 to 9 concepts that are close in ``lengths``, drawn by ``seed``.

    Concepts are sorted by length and shuffled within strata of two groups before they are cut.
    Empty for fewer than 5 concepts.
    """
    names = sorted(lengths, key=lambda name: (lengths[name], name))
    count = len(names) // GROUP
    if not count:
        return []
    rng = np.random.default_rng([seed, len(names), 19])
    ends = np.linspace(0, len(names), count + 1).round().astype(int)
    for start in range(0, count, 2):
        stratum = slice(ends[start], ends[min(start + 2, count)])
        names[stratum] = rng.permutation(names[stratum]).tolist()
    return [tuple(sorted(names[a:b])) for a, b in itertools.pairwise(ends)]


def pivot_sentences(manifest: Manifest, target: str) -> dict[tuple[str, int], Stimulus]:
    """Return the probes in the language ``target`` by concept and wording."""
    return {
        (s.item_id, int(s.wording or 0)): s
        for s in manifest.stimuli
        if s.kind == "probe" and s.language == target
    }


def mean_lengths(sentences: Mapping[tuple[str, int], Stimulus]) -> dict[str, float]:
    """Return the mean length in characters of each concept's sentences, over its wordings."""
    lengths: dict[str, list[int]] = {}
    for (concept, _), sentence in sentences.items():
        lengths.setdefault(concept, []).append(len(sentence.text))
    return {concept: float(np.mean(values)) for concept, values in lengths.items()}


def candidates_of(
    text: Stimulus, groups: Sequence[Group], sentences: Mapping[tuple[str, int], Stimulus]
) -> list[Stimulus]:
    """Return the candidates for a text, the right one first; empty if there are fewer than 5."""
    wording = int(text.wording or 0)
    group = next((group for group in groups if text.item_id in group), ())
    others = [concept for concept in group if concept != text.item_id]
    keys = [(concept, wording) for concept in (text.item_id, *others)]
    if len(keys) < GROUP or any(key not in sentences for key in keys):
        return []
    return [sentences[key] for key in keys]
