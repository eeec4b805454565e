"""What the lens shows, as functions from arrays to arrays.

``table [concept asked, layer, language, concept]`` holds log P of each concept's word (up to a
constant of prompt and layer). A language is present at a layer if the word of the concept asked is
more probable there than the words of other concepts in the same language, which are its control
words: they have the language, the frequencies and the shapes of words, and another meaning. It
leads another language if its advantage is larger. Both are tested by permuting concepts, with the
largest statistic over layers (Westfall & Young 1993), as everywhere in the study (ADR 008).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aya_probes.alignment import inference
from aya_probes.prompts import LEAST_CONCEPTS

LEVEL = 0.05


def specific(matrix: np.ndarray) -> np.ndarray:
    """Return the advantage of the concept asked, in nats, ``[..., n]`` of ``matrix [..., n, n]``.

    M_ii − ½(mean of M_ij over j ≠ i + mean of M_ji over j ≠ i): the other words in this prompt, and
    this word in the other prompts. Constants of prompts and of words cancel; chance is 0.
    """
    n = matrix.shape[-1]
    diagonal = np.diagonal(matrix, axis1=-2, axis2=-1)
    rows = (matrix.sum(-1) - diagonal) / (n - 1)
    columns = (matrix.sum(-2) - diagonal) / (n - 1)
    return np.asarray(diagonal - (rows + columns) / 2)


@dataclass(frozen=True)
class Tested:
    """An advantage by layer, over the concepts that can be compared."""

    kept: np.ndarray
    """Which of the concepts asked are compared, ``[n]`` bool."""
    values: np.ndarray
    """``[layer, concept kept]``, in nats."""
    null: inference.Null
    """Its null distribution, of one pair."""

    @property
    def mean(self) -> np.ndarray:
        """Mean over concepts by layer."""
        return np.asarray(self.values.mean(-1))

    @functools.cached_property
    def p(self) -> np.ndarray:
        """One-sided p-values by layer, max-T over layers 1..L; layer 0 has its own."""
        return self.null.p()[0]

    def interval(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the 95% bootstrap interval of the mean over concepts, by layer."""
        return inference.expanded_interval(self.values, weights)


Case = tuple[np.ndarray, np.ndarray]  # matrix [layer, n, n], and which concepts are kept [n]


def compare_concepts(cases: Mapping[str, Case], orders: np.ndarray) -> dict[str, Tested]:
    """Test matrices on the concepts that each keeps; those with fewer than 8 are left out.

    Matrices that keep the same concepts share the draws' products, which is most of the work.
    """
    groups: dict[bytes, list[str]] = {}
    for name, (_, kept) in cases.items():
        if kept.sum() >= LEAST_CONCEPTS:
            groups.setdefault(kept.tobytes(), []).append(name)
    found = {}
    for names in groups.values():
        kept = cases[names[0]][1]
        parts = np.stack([cases[name][0][:, kept][:, :, kept] for name in names])
        null = inference.permutation_null(parts, inference.induced(orders, kept))
        for n, name in enumerate(names):
            own = slice(n, n + 1)
            single = inference.Null(null.observed[own], null.first[own], null.largest[own])
            found[name] = Tested(kept, specific(parts[n]), single)
    return found


@dataclass(frozen=True)
class LensTests:
    """The tests of one cell through one lens."""

    present: dict[str, Tested]
    """Language -> advantage of the concept asked in that language."""
    leads: dict[str, Tested]
    """Language -> its advantage minus the target's."""
    over_others: Tested | None
    """The pivot's advantage minus the mean of those of languages that are neither pivot, source
    nor target."""

    def layers_present(self, language: str) -> list[int]:
        """Return the layers from 1 on at which a language is present."""
        return _below(self.present[language].p) if language in self.present else []

    def layers_leading(self, language: str, family: Sequence[str]) -> list[int]:
        """Return the layers from 1 on at which a language is present and leads the target.

        The lead is corrected over the languages of ``family`` too.
        """
        if language not in self.leads:
            return []
        nulls = [self.leads[name].null for name in family if name in self.leads]
        found = set(_below(self.leads[language].null.p_joint(nulls)[0]))
        return sorted(found & set(self.layers_present(language)))

    def layers_over_others(self) -> list[int]:
        """Return the layers from 1 on at which the pivot leads the other languages."""
        return _below(self.over_others.p) if self.over_others is not None else []


def _below(p: np.ndarray) -> list[int]:
    return [layer for layer in range(1, len(p)) if p[layer] <= LEVEL]


@dataclass(frozen=True)
class CellLanguages:
    """The languages of a cell, by their place in the table."""

    names: tuple[str, ...]
    """Languages along the table's third axis."""
    source: str
    """Language of the word given."""
    target: str
    """Language of the answer."""
    pivot: str
    """The study's pivot."""

    @property
    def others(self) -> list[str]:
        """The languages that are neither source, target nor pivot."""
        return [a for a in self.names if a not in (self.source, self.target, self.pivot)]


def compare_languages(table: np.ndarray, languages: CellLanguages, orders: np.ndarray) -> LensTests:
    """Test a cell's ``table [concept, layer, language, concept]``; see ``LensTests``.

    ``orders [B, concept]`` are the permutations, shared by every test. A concept whose word has no
    token of its own in a language (NaN) is left out of that language's tests.
    """
    by_language = {a: table[:, :, n].swapaxes(0, 1) for n, a in enumerate(languages.names)}
    known = {a: np.isfinite(m).all(axis=(0, 1)) for a, m in by_language.items()}
    target, pivot = languages.target, languages.pivot
    cases: dict[str, Case] = {}
    for name, matrix in by_language.items():
        cases[f"present {name}"] = (matrix, known[name])
        if name != target:
            cases[f"lead {name}"] = (matrix - by_language[target], known[name] & known[target])
    if pivot not in (languages.source, target) and languages.others:
        stack = np.stack([by_language[a] for a in languages.others])
        counts = np.isfinite(stack).sum(0)
        mean = np.where(counts > 0, np.nansum(stack, axis=0) / counts.clip(1), np.nan)
        both = known[pivot] & (counts > 0).all(axis=(0, 1))
        cases["over others"] = (by_language[pivot] - mean, both)
    found = compare_concepts(cases, orders)
    return LensTests(
        {a: found[f"present {a}"] for a in languages.names if f"present {a}" in found},
        {a: found[f"lead {a}"] for a in languages.names if f"lead {a}" in found},
        found.get("over others"),
    )


@dataclass(frozen=True)
class Claim:
    """What both lenses agree on for a cell."""

    verdict: str
    """pivot: the pivot leads the target and the other languages. shared: it leads the target, and
    other languages do as well as it. none: no lead is found. disagree: one lens shows a lead, and
    nothing is claimed. untested: fewer than 8 concepts have words of their own in both languages.
    Empty where the pivot is source or target."""
    layers: tuple[int, ...]
    """Layers at which the pivot leads the target in both lenses."""
    others: tuple[str, ...]
    """Other languages, the source included, that lead the target at some layer in both lenses."""


def claim(plain: LensTests, fitted: LensTests, languages: CellLanguages) -> Claim:
    """Return what the plain and the fitted lens both show."""
    lenses = (plain, fitted)
    exploratory = [a for a in languages.names if a not in (languages.pivot, languages.target)]
    others = tuple(
        name
        for name in exploratory
        if _shared([lens.layers_leading(name, exploratory) for lens in lenses])
    )
    if languages.pivot in (languages.source, languages.target):
        return Claim("", (), others)
    if languages.pivot not in plain.leads or languages.pivot not in fitted.leads:
        return Claim("untested", (), others)
    found = [lens.layers_leading(languages.pivot, [languages.pivot]) for lens in lenses]
    layers = _shared(found)
    if not any(found):
        return Claim("none", (), others)
    if not layers:
        return Claim("disagree", (), others)
    above = [
        layer for layer in layers if all(layer in lens.layers_over_others() for lens in lenses)
    ]
    return Claim("pivot" if above else "shared", layers, others)


def _shared(found: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sorted(set(found[0]).intersection(*found[1:])))
