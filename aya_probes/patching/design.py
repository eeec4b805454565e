"""Which prompts are patched with which: one query a concept, its tokens, and its donor."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from aya_probes.extraction import encoding
from aya_probes.models.residuals import LoadedModel
from aya_probes.patching.engine import Prompt
from aya_probes.probes import Concept
from aya_probes.prompts import FRAMES, Cell, Prompts, Query, make_queries

Place = Literal["word", "last"]
"""The last token of the concept's word, or of the prompt."""


def one_a_concept(
    prompts: Prompts, concepts: Sequence[Concept], cell: Cell, *, shots: int, seed: int
) -> tuple[list[Query], np.ndarray]:
    """Return one query for each usable concept, in their order, and the half of each, ``[n]``.

    The frames are taken in turn, so that no finding hangs on one, at the cost of one. The shots of
    a half are of the other half. Raises StudyError as ``make_queries``.
    """
    queries = make_queries(prompts, concepts, cell, frames=range(FRAMES), shots=shots, seed=seed)
    by_concept: dict[str, list[Query]] = {}
    for query in queries:
        by_concept.setdefault(query.concept_id, []).append(query)
    order = [concept.id for concept in concepts if concept.id in by_concept]
    shown = [by_concept[name][0].shots for name in order]
    half = np.array([int(text != shown[0]) for text in shown])
    return [by_concept[name][n % FRAMES] for n, name in enumerate(order)], half


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


def tokenise(loaded: LoadedModel, queries: Sequence[Query], place: Place = "word") -> Asked:
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
        positions.append(item.span[-1] if place == "word" else len(tokens[-1]) - 1)
    shared = [0] * len(queries)
    by_shots: dict[str, list[int]] = {}
    for number, query in enumerate(queries):
        by_shots.setdefault(query.shots, []).append(number)
    for group in by_shots.values():
        columns = zip(*(tokens[n] for n in group), strict=False)
        alike = itertools.takewhile(lambda column: len(set(column)) == 1, columns)
        common = len(list(alike)) if len(group) > 1 else 0
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
