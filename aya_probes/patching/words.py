"""The first tokens of words: what a next-token distribution says about a concept in a language.

A word counts as begun by any token that begins one of its forms after the prompt, with and without
a space and a capital. Tokens that begin two of the words that are compared are left out of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aya_probes.prompts import Forms, Query

Starts = Mapping[tuple[str, str], frozenset[int]]
"""(concept id, language) -> tokens that begin one of its forms."""


def first_tokens(tokenizer: Any, endings: Sequence[Query], forms: Forms) -> Starts:
    """Return the tokens with which each word can begin after one of the prompts ``endings``.

    A form that the tokenizer fuses with the end of the prompt begins with no token of its own and
    gives none. A word may have no token.
    """
    places = [(concept, code) for concept, known in forms.items() for code in known]
    found: dict[tuple[str, str], set[int]] = {place: set() for place in places}
    for query in endings:
        tail = query.text[len(query.shots) :]
        before = list(tokenizer(tail)["input_ids"])
        texts, owners = [], []
        for concept, code in places:
            for form in _variants(forms[concept][code]):
                texts.append(tail + form)
                owners.append((concept, code))
        for owner, ids in zip(owners, tokenizer(texts)["input_ids"], strict=True):
            if len(ids) > len(before) and list(ids[: len(before)]) == before:
                found[owner].add(int(ids[len(before)]))
    return {place: frozenset(tokens) for place, tokens in found.items()}


def _variants(forms: Sequence[str]) -> list[str]:
    cased = [form for word in forms for form in (word, word[:1].upper() + word[1:])]
    return list(dict.fromkeys(space + form for form in cased for space in ("", " ")))


@dataclass(frozen=True)
class WordSets:
    """The tokens by which the words of one comparison are told apart."""

    concepts: tuple[str, ...]
    """Ids of the concepts, in the order of both lists of sets."""
    target: tuple[tuple[int, ...], ...]
    """Tokens of each concept's word in the target language; empty: not told apart."""
    source: tuple[tuple[int, ...], ...]
    """The same in the source language, or in any of several."""
    shared: int
    """Number of tokens that were left out, since they begin two of the words."""

    @property
    def usable(self) -> np.ndarray:
        """Return which concepts have a token of their own in both, ``[n]`` bool."""
        return np.array([bool(t) and bool(s) for t, s in zip(self.target, self.source, strict=True)])

    def log_p(self, log_probabilities: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
        """Return log P of each word ``[..., 2, n]``: of its target and its source tokens.

        ``log_probabilities [..., t]`` are those of ``tokens``. NaN for a word without a token.
        """
        place = {token: n for n, token in enumerate(tokens)}
        out = np.full((*log_probabilities.shape[:-1], 2, len(self.concepts)), np.nan)
        for side, sets in enumerate((self.target, self.source)):
            for n, mine in enumerate(sets):
                if mine:
                    chosen = log_probabilities[..., [place[token] for token in mine]]
                    out[..., side, n] = np.logaddexp.reduce(chosen, axis=-1)
        return out


def tell_apart(
    starts: Starts, concepts: Sequence[str], target: str, sources: Sequence[str]
) -> WordSets:
    """Return the tokens that begin only one of the words in ``target`` and in ``sources``.

    The words of a concept in several sources count as one. Tokens are sorted.
    """
    of_target = [starts.get((c, target), frozenset()) for c in concepts]
    of_source = [
        frozenset().union(*(starts.get((c, code), frozenset()) for code in sources))
        for c in concepts
    ]
    counts = Counter(token for tokens in (*of_target, *of_source) for token in tokens)
    several = {token for token, count in counts.items() if count > 1}

    def own(sets: Sequence[frozenset[int]]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(sorted(tokens - several)) for tokens in sets)

    return WordSets(tuple(concepts), own(of_target), own(of_source), len(several))
