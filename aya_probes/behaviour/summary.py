"""Summaries of behaviour by language: information parity, and comprehension against chance."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import special

from aya_probes.alignment import inference
from aya_probes.behaviour.candidates import Group
from aya_probes.results.behaviour import (
    COMPREHENSION,
    PARITY,
    SURPRISAL,
    Behaviour,
    BehaviourSummary,
)

MIN_GROUPS = 4  # a bootstrap interval needs this many
ABOVE, NOT_ABOVE = "above_chance", "not_above_chance"
NORMAL_95 = float(special.ndtri(0.975))


def information_parity(pivot: np.ndarray, language: np.ndarray) -> float:
    """Return Σ surprisal of the pivot's texts / Σ surprisal of the same texts in the language.

    ``pivot [n]`` and ``language [n]`` are in nats. Tsvetkov & Kipnis 2024, "Information Parity".
    """
    return float(pivot.sum() / language.sum())


def parity_interval(
    pivot: np.ndarray, language: np.ndarray, groups: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    """Return the expanded bootstrap interval of ``information_parity``, resampling whole groups.

    ``groups [n]`` numbers the group of each text from 0; ``weights [B, G]`` are the resamples.
    """
    above, below = (inference.group_sums(values, groups) for values in (pivot, language))
    resampled = (weights @ above) / (weights @ below)
    lower, upper = inference.expanded_quantiles(resampled, weights.shape[1])
    return float(lower), float(upper)


def wilson(rate: float, n: int) -> tuple[float, float]:
    """Return the 95% interval of a rate over n independent units (Wilson 1927)."""
    z = NORMAL_95
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    margin = z * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return max(0.0, centre - margin), min(1.0, centre + margin)


def choice_p(
    choices: np.ndarray, concepts: np.ndarray, blocks: np.ndarray, *, count: int, seed: int
) -> float:
    """Return the one-sided permutation p-value of the accuracy of choices.

    ``choices [question, concept]`` is the credit for each concept's sentence (1 for the chosen one,
    1/k for each of k that tie); ``concepts [question]`` is the concept of each text, by number, and
    ``blocks [concept]`` the group of each concept. Under the null hypothesis the choice does not
    depend on the text, and the concepts of a group are exchangeable: all texts of a concept, in
    every wording and frame, are permuted together.
    """
    credit = np.zeros((len(blocks), len(blocks)))
    np.add.at(credit, concepts, choices)
    places = np.arange(len(blocks))
    orders = inference.block_permutations(blocks, count, seed)
    null = credit[places, orders].sum(1)
    reached = (null >= credit[places, places].sum() - inference.TIE).sum()
    return float((reached + 1) / (count + 1))


def summarise_parity(
    rows: Sequence[Behaviour],
    documents: Mapping[str, int],
    pivot: str,
    *,
    count: int,
    seed: int,
) -> list[BehaviourSummary]:
    """Return the information parity of every variant, language and kind of parallel text.

    ``documents`` is the document of each item of the parallel corpus. The texts of a concept, or
    the items of a document, are one unit.
    """
    nats: dict[tuple[str, str], dict[str, dict[tuple[str, int], float]]] = {}
    numbered: collections.Counter[tuple[str, str, str, str]] = collections.Counter()
    for row in rows:
        if row.measure == SURPRISAL and row.kind in ("probe", "parallel"):
            cell = (row.variant, row.kind, row.language, row.item_id)
            number = numbered[cell]  # the wordings of a concept come in the same order everywhere
            numbered[cell] += 1
            found = nats.setdefault((row.variant, row.kind), {}).setdefault(row.language, {})
            found[row.item_id, number] = row.nats
    summary = []
    for (variant, kind), by_language in nats.items():
        for language in by_language:
            if language == pivot or pivot not in by_language:
                continue
            keys = [key for key in by_language[language] if key in by_language[pivot]]
            names = [str(documents.get(item, item)) for item, _ in keys]
            groups = np.unique(names, return_inverse=True)[1]
            here, there = (
                np.array([by_language[code][key] for key in keys]) for code in (pivot, language)
            )
            size = int(groups.max()) + 1
            interval: tuple[float | None, float | None] = (None, None)
            if size >= MIN_GROUPS:
                weights = inference.resample_weights(size, count, seed)
                interval = parity_interval(here, there, groups, weights)
            value = information_parity(here, there)
            summary.append(
                _row(variant, language, pivot, kind, value, interval, n=len(keys), groups=size)
            )
    return summary


def summarise_comprehension(
    rows: Sequence[Behaviour], groups: Mapping[str, Sequence[Group]], *, count: int, seed: int
) -> list[BehaviourSummary]:
    """Return the accuracy of every variant, language and target on probes.

    ``groups`` holds the groups of concepts by target. The unit of an interval is the concept: its
    wordings and frames are averaged first.
    """
    cells: dict[tuple[str, str, str], list[Behaviour]] = {}
    for row in rows:
        if row.measure == COMPREHENSION and row.kind == "probe":
            cells.setdefault((row.variant, row.language, row.target), []).append(row)
    return [
        _accuracy(found, groups[target], count, seed) for (_, _, target), found in cells.items()
    ]


def _accuracy(
    found: Sequence[Behaviour], groups: Sequence[Group], count: int, seed: int
) -> BehaviourSummary:
    """Return the summary of one variant, language and target."""
    names = sorted({row.item_id for row in found})
    number = {concept: n for n, concept in enumerate(c for group in groups for c in group)}
    blocks = np.array([n for n, group in enumerate(groups) for _ in group])
    choices = np.zeros((len(found), len(number)))
    for line, row in enumerate(found):
        chosen = [number[concept] for concept in row.choice.split("+")]
        choices[line, chosen] = 1 / len(chosen)
    concepts = np.array([number[row.item_id] for row in found])
    by_concept = [
        float(np.mean([row.correct or 0 for row in found if row.item_id == name])) for name in names
    ]
    frames = sorted({row.frame for row in found})
    by_frame = [float(np.mean([r.correct or 0 for r in found if r.frame == f])) for f in frames]
    value, chance = float(np.mean(by_concept)), math.fsum(r.chance or 0 for r in found) / len(found)
    interval = wilson(value, len(names))
    first = found[0]
    summarised = _row(
        first.variant,
        first.language,
        first.target,
        first.kind,
        value,
        interval,
        n=len({r.stimulus_id for r in found}),
        groups=len(names),
    )
    return replace(
        summarised,
        measure=COMPREHENSION,
        frames=len(frames),
        chance=chance,
        p=choice_p(choices, concepts, blocks, count=count, seed=seed),
        margin=float(np.mean([r.margin or 0 for r in found])),
        lowest_frame=min(by_frame),
        status=ABOVE if interval[0] > chance else NOT_ABOVE,
    )


def mark_untestable(
    summary: Sequence[BehaviourSummary], reference: str | None
) -> list[BehaviourSummary]:
    """Return the rows with ``untestable`` for languages that the reference does not comprehend.

    A language, with a target, is untestable on every variant if the accuracy of ``reference`` is
    not above chance, or if the reference was not measured.
    """
    known = {
        (row.language, row.target): row
        for row in summary
        if row.measure == COMPREHENSION and row.variant == reference
    }
    marked = []
    for row in summary:
        if row.measure == COMPREHENSION:
            found = known.get((row.language, row.target))
            if found is None:
                row = replace(row, status=f"untestable (no reference variant {reference or ''})")
            elif found.status == NOT_ABOVE:
                chance = found.chance or 0
                row = replace(
                    row, status=f"untestable (accuracy {found.value:.2f}, chance {chance:.2f})"
                )
        marked.append(row)
    return marked


def is_testable(row: BehaviourSummary) -> bool:
    """Return whether a row may be averaged or compared: its language is not untestable."""
    return not row.status.startswith("untestable")


def _row(
    variant: str,
    language: str,
    target: str,
    kind: str,
    value: float,
    interval: tuple[float | None, float | None],
    **counts: int,
) -> BehaviourSummary:
    return BehaviourSummary(
        variant=variant,
        language=language,
        measure=PARITY,
        target=target,
        kind=kind,
        n=counts["n"],
        groups=counts["groups"],
        frames=None,
        value=value,
        lower=interval[0],
        upper=interval[1],
        chance=None,
        p=None,
        margin=None,
        lowest_frame=None,
        status="",
    )
