"""First tokens of words: what stands for a concept's word in a language when a model answers.

A word's probability is that of its first token, summed over the ways in which it can begin: every
valid form, with and without a space before it, in lower case and with a capital. Two kinds of
tokens are left out and counted: those with which the same concept's word in another language also
begins, since they do not tell the languages apart, and those with which another concept's word in
the same language begins, since they do not tell the concepts apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aya_probes.errors import StudyError
from aya_probes.probes import Concept
from aya_probes.prompts import LEAST_CONCEPTS, Forms

_SPACES = "▁Ġ \t\n"  # how vocabularies write a space (Metaspace, byte-level), or the space itself


@dataclass(frozen=True)
class FirstTokens:
    """The tokens that begin each concept's word in each language."""

    concepts: tuple[str, ...]
    """Concept ids."""
    languages: tuple[str, ...]
    """Languages."""
    tokens: Mapping[tuple[str, str], tuple[int, ...]]
    """(concept id, language) -> token ids that tell both apart from others; may be empty."""
    shared_language: Mapping[str, int]
    """Language -> number of tokens left out because another language shares them."""
    shared_concept: Mapping[str, int]
    """Language -> number of tokens left out because another concept shares them."""

    @property
    def vocabulary(self) -> list[int]:
        """All tokens, in order."""
        return sorted({token for some in self.tokens.values() for token in some})

    def usable(self, language: str) -> list[str]:
        """Return the concepts that have a token in a language."""
        return [name for name in self.concepts if self.tokens[name, language]]


def variants(form: str) -> Iterator[str]:
    """Yield the ways in which a valid form can begin an answer."""
    cased = dict.fromkeys([form, form.lower(), form[:1].upper() + form[1:]])
    for word in cased:
        yield word
        yield f" {word}"


def _begins(tokenizer: Any, forms: Sequence[str]) -> set[int]:
    """Return the first tokens of a word.

    A token that only marks a space is none, nor is a single letter of a script with capitals,
    which begins words without number.
    """
    texts = [text for form in forms for text in variants(form)]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    firsts = {ids[0] for ids in encoded if ids}
    pieces = dict(zip(firsts, tokenizer.convert_ids_to_tokens(list(firsts)), strict=True))
    special = {tokenizer.unk_token_id, *tokenizer.all_special_ids}

    def begins(token: int, piece: str) -> bool:
        bare = piece.strip(_SPACES)
        letter = len(bare) == 1 and bare.lower() != bare.upper()
        return bool(bare) and not letter and token not in special

    return {token for token, piece in pieces.items() if begins(token, piece)}


def first_tokens(tokenizer: Any, forms: Forms, languages: Sequence[str]) -> FirstTokens:
    """Return the first tokens of every concept's word in every language, shared ones left out."""
    concepts = tuple(forms)
    begins = {(c, a): _begins(tokenizer, forms[c].get(a, ())) for c in concepts for a in languages}
    by_language = dict.fromkeys(languages, 0)
    by_concept = dict.fromkeys(languages, 0)
    kept: dict[tuple[str, str], tuple[int, ...]] = {}
    for (concept, language), mine in begins.items():
        abroad = set().union(*(begins[concept, a] for a in languages if a != language))
        others = set().union(*(begins[c, language] for c in concepts if c != concept))
        by_language[language] += len(mine & abroad)
        by_concept[language] += len(mine & others - abroad)
        kept[concept, language] = tuple(sorted(mine - abroad - others))
    return FirstTokens(concepts, tuple(languages), kept, by_language, by_concept)


def check_enough(found: FirstTokens, language: str) -> None:
    """Raise StudyError if fewer than 8 concepts keep a first token in ``language``."""
    usable = found.usable(language)
    if len(usable) < LEAST_CONCEPTS:
        lost = [name for name in found.concepts if name not in usable]
        raise StudyError(
            f"language {language}: only {len(usable)} concepts have a word that this model's "
            f"tokenizer begins unambiguously, at least {LEAST_CONCEPTS} are needed (without: "
            f"{', '.join(lost)}); add concepts to the suite's probes, or leave the language out "
            "with --languages"
        )


def pool(
    logits: np.ndarray, vocabulary: Sequence[int], groups: Sequence[Sequence[int]]
) -> np.ndarray:
    """Return log Σ exp over each group's tokens, ``[..., group]`` of ``logits [..., token]``.

    ``vocabulary`` names the tokens of the last axis. A group without tokens gives NaN.
    """
    place = {token: n for n, token in enumerate(vocabulary)}
    out = np.full((*logits.shape[:-1], len(groups)), np.nan)
    for number, group in enumerate(groups):
        if group:
            part = logits[..., [place[token] for token in group]].astype(np.float64)
            top = part.max(-1)
            out[..., number] = top + np.log(np.exp(part - top[..., None]).sum(-1))
    return out


def matched_controls(
    found: FirstTokens, concepts: Sequence[Concept], language: str
) -> dict[str, str]:
    """Return, for each concept, another one whose word in ``language`` is of its length and rank.

    The rank of a token in the vocabulary stands for its frequency: merges are learnt in the order
    of their counts. The match has the smallest sum of the difference in letters and the difference
    in the logarithm (base 2) of the rank of the first token.
    """
    terms = {concept.id: concept.terms.get(language, "") for concept in concepts}
    usable = found.usable(language)

    def rank(name: str) -> float:
        tokens = found.tokens[name, language]
        return float(np.log2(min(tokens) + 1)) if tokens else 0.0

    def distance(name: str, other: str) -> tuple[float, str]:
        letters = abs(len(terms[name]) - len(terms[other]))
        return letters + abs(rank(name) - rank(other)), other

    return {
        name: min((o for o in usable if o != name), key=lambda o: distance(name, o), default=name)
        for name in found.concepts
    }
