"""Which prompts are patched with which: one query a concept, its tokens, and its donor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aya_probes.errors import StudyError
from aya_probes.extraction import encoding
from aya_probes.models.residuals import LoadedModel
from aya_probes.patching.engine import Prompt
from aya_probes.probes import Concept
from aya_probes.prompts import FRAMES, Cell, Prompts, Query, make_queries

Place = str
WORD, LAST = "word", "last"  # the last token of the concept's word, and of the prompt


def one_a_concept(
    prompts: Prompts, concepts: Sequence[Concept], cell: Cell, seed: int
) -> list[Query]:
    """Return one query for each usable concept, the frames in turn, in the order of ``concepts``.

    No finding then hangs on one frame, at the cost of one. Raises StudyError as ``make_queries``.
    """
    queries = make_queries(prompts, concepts, cell, frames=range(FRAMES), seed=seed)
    by_concept: dict[str, list[Query]] = {}
    for query in queries:
        by_concept.setdefault(query.concept_id, []).append(query)
    order = [concept.id for concept in concepts if concept.id in by_concept]
    return [by_concept[name][n % FRAMES] for n, name in enumerate(order)]


def donors(queries: Sequence[Query], seed: int) -> np.ndarray:
    """Return for each query the number of the concept whose vector is put into it, ``[n]``.

    A random cycle within each half of the concepts, so that it is never the concept asked for, and
    never one whose answer the shots show. Raises StudyError for a half of one concept.
    """
    rng = np.random.default_rng([seed, len(queries), 12])
    found = np.empty(len(queries), dtype=int)
    for half in halves(queries):
        if len(half) < 2:
            raise StudyError(
                f"{queries[half[0]].frame}: one concept alone shares its shots, so none can be "
                "patched into it; take more with --concepts"
            )
        cycle = rng.permutation(half)
        found[cycle] = np.roll(cycle, 1)
    return found


def halves(queries: Sequence[Query]) -> list[list[int]]:
    """Return the queries (by number) in two halves: those that do not show each other's answers.

    Shots come from the other half: a concept in the shots of a query is not of its half.
    """
    first = [0]
    rest = []
    for number, query in enumerate(queries[1:], start=1):
        mine = query.concept_id in queries[0].shot_concepts
        (rest if mine else first).append(number)
    return [half for half in (first, rest) if half]


@dataclass(frozen=True)
class Asked:
    """Queries as a model reads them."""

    queries: tuple[Query, ...]
    prompts: tuple[Prompt, ...]
    """Token ids, and the position of the concept's word or of the last token."""

    def at(self, numbers: Sequence[int]) -> Asked:
        """Return the queries of these numbers, in this order."""
        return Asked(
            tuple(self.queries[n] for n in numbers), tuple(self.prompts[n] for n in numbers)
        )


def tokenise(loaded: LoadedModel, queries: Sequence[Query], place: Place = WORD) -> Asked:
    """Tokenise queries and find the position that is patched.

    The tokens that all queries with the same shots begin with are marked as shared. Raises
    StudyError, naming the frame and the concept, for a word that no token covers and for a prompt
    that the model has no positions for.
    """
    tokens, positions = [], []
    for query in queries:
        name = f"{query.frame}: {query.concept_id}"
        item = encoding.encode_text(loaded.tokenizer, query.text, query.span, name)
        encoding.check_fits(loaded, item)
        tokens.append(tuple(_without_end(loaded.tokenizer, item.token_ids)))
        positions.append(item.span[-1] if place == WORD else len(tokens[-1]) - 1)
    shared = [0] * len(queries)
    by_shots: dict[str, list[int]] = {}
    for number, query in enumerate(queries):
        by_shots.setdefault(query.shots, []).append(number)
    for group in by_shots.values():
        common = len(os.path.commonprefix([tokens[n] for n in group])) if len(group) > 1 else 0
        for number in group:
            shared[number] = min(common, min(positions[n] for n in group))
    prompts = [
        Prompt(ids, position, common)
        for ids, position, common in zip(tokens, positions, shared, strict=True)
    ]
    return Asked(tuple(queries), tuple(prompts))


def _without_end(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """Return the tokens without an end-of-text token, which would end the prompt."""
    end = len(ids)
    while end > 1 and ids[end - 1] == tokenizer.eos_token_id:
        end -= 1
    return list(ids[:end])
