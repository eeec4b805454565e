"""Effects, tests and windows from what the patching stage measured; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aya_probes.alignment import inference
from aya_probes.alignment.contrasts import Draws
from aya_probes.lens import accuracy
from aya_probes.patching import statistics
from aya_probes.prompts import LEAST_CONCEPTS
from aya_probes.results.patching import ExactWords, PatchCell, PatchRow, PatchWindow

TESTED = "tested"
MEAN_OF_SOURCES = "mean"
NO_PATCH = "none"


@dataclass(frozen=True)
class Measurement:
    """The patching file of one variant."""

    variant: str
    rows: Sequence[Mapping[str, Any]]
    arrays: Mapping[str, np.ndarray]

    def of_kind(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the rows of a kind."""
        return [row for row in self.rows if row["kind"] == kind]

    @property
    def tokens(self) -> Mapping[str, Any]:
        """The row that names languages and concepts, in the order of the arrays."""
        return self.of_kind("tokens")[0]


@dataclass(frozen=True)
class Curve:
    """One thing put in, at every layer."""

    test: str
    target: str
    given: str
    condition: str
    source: str
    patched: str
    concepts: tuple[str, ...]
    """The concepts that are told apart, in order."""
    left_out: tuple[str, ...]
    in_target: np.ndarray
    """Effect on the target's words ``[l, n]``."""
    in_source: np.ndarray
    """Effect on the words of the language of the vectors ``[l, n]``."""
    scores: np.ndarray
    """``[l, n, n]``, of which ``in_target`` is the effect."""
    probabilities: np.ndarray
    """``[l, 3]``: mean probability of moved, asked and source, as in ``PatchRow``."""

    @property
    def testable(self) -> bool:
        """Whether enough concepts are told apart; without, there are no values."""
        return len(self.concepts) >= LEAST_CONCEPTS


def status(row: Mapping[str, Any]) -> str:
    """Return whether a cell is tested, or why not."""
    if row["testable"]:
        return TESTED
    if row["usable"] < LEAST_CONCEPTS:
        return f"untestable ({row['usable']} usable concepts)"
    return f"untestable (accuracy {row['correct']} of {row['asked']})"


def cells(measured: Measurement) -> list[PatchCell]:
    """Return the accuracy of every cell."""
    return [
        PatchCell(
            measured.variant,
            row["task"],
            row["target"],
            row["given"],
            row["correct"],
            row["asked"],
            *accuracy.wilson(row["correct"], row["asked"]),
            status(row),
        )
        for row in measured.of_kind("cell")
    ]


def exact_words(measured: Measurement) -> list[ExactWords]:
    """Return how often whole words are written."""
    return [
        ExactWords(measured.variant, row["target"], e["layer"], e["moved"], e["kept"], e["n"])
        for row in measured.of_kind("patch")
        for e in row["exact"]
    ]


@dataclass(frozen=True)
class _Comparison:
    """Log P after and before a patch, for the words of a target and a source language."""

    after: np.ndarray
    """``[l, i, 2, k]``: the target's words and the source's."""
    before: np.ndarray
    """``[i, 2, k]``."""
    concepts: list[str]
    asked: list[str]
    """The concept that each row's prompt asks for."""


def curves(measured: Measurement) -> Iterator[Curve]:
    """Yield what is measured of every patch; without values where too few words are told apart."""
    for row in measured.of_kind("patch"):
        target = row["target"]
        before = measured.arrays[f"{target}/before"]
        for patched in ("onward", "single"):
            table = measured.arrays[f"{target}/{patched}"]
            names = row["conditions"]
            if patched == "single":
                names = [name for name in names if name.startswith("mean_sources")]
            for number, name in enumerate(names):
                condition, _, source = name.partition(":")
                source = source or MEAN_OF_SOURCES
                codes = row["sources"] if source == MEAN_OF_SOURCES else [source]
                if condition == "same_language":
                    source, codes = row["given"], [row["given"]]
                pair = (target, codes)
                compared = _compare(measured, row, table[number], before, pair)
                head = ("word", target, row["given"], condition, source, patched)
                yield _curve(head, compared)
    for row in measured.of_kind("sentence"):
        yield from _sentences(measured, row)


def _sentences(measured: Measurement, row: Mapping[str, Any]) -> Iterator[Curve]:
    """Yield the second test. A turned sentence asks for its own concept: nothing is neutral."""
    code = row["language"]
    pivot = row["pivot"]
    for test in ("turned", "moved"):
        given = code if test == "turned" else pivot
        own = (
            dict(row) | {"asked": [None] * len(row["concepts"])} if test == "turned" else dict(row)
        )
        for number, condition in enumerate(row[test]):
            compared = _compare(
                measured,
                own,
                measured.arrays[f"sentence-{code}/{test}"][number],
                measured.arrays[f"sentence-{code}/{test}-before"],
                (pivot, [code]),
            )
            yield _curve((test, pivot, given, condition, code, "single"), compared)


def _compare(
    measured: Measurement,
    row: Mapping[str, Any],
    after: np.ndarray,
    before: np.ndarray,
    pair: tuple[str, Sequence[str]],
) -> _Comparison:
    """Choose the words of a target and of one or more source languages, of the row's concepts."""
    languages, known = measured.tokens["languages"], measured.tokens["concepts"]
    chosen = [known.index(concept) for concept in row["concepts"]]
    sides = [[languages.index(pair[0])], [languages.index(code) for code in pair[1]]]

    def pick(table: np.ndarray) -> np.ndarray:
        words = table[..., chosen].astype(float)
        return np.stack([_any_of(words[..., side, :]) for side in sides], axis=-2)

    return _Comparison(pick(after), pick(before), list(row["concepts"]), list(row["asked"]))


def _any_of(log_p: np.ndarray) -> np.ndarray:
    """Return log of the summed probability over axis −2; NaN where all are NaN."""
    none = np.isnan(log_p).all(-2)
    summed = np.logaddexp.reduce(np.where(np.isnan(log_p), -np.inf, log_p), axis=-2)
    return np.where(none, np.nan, summed)


def _curve(head: tuple[str, str, str, str, str, str], compared: _Comparison) -> Curve:
    names = compared.concepts
    told = np.isfinite(compared.before).all((0, 1)) & np.isfinite(compared.after).all((0, 1, 2))
    kept = np.flatnonzero(told)
    left_out = tuple(name for n, name in enumerate(names) if not told[n])
    if len(kept) < LEAST_CONCEPTS:
        none = np.empty((0, 0))
        few = tuple(names[n] for n in kept)
        return Curve(*head, few, left_out, none, none, none, none)
    after = compared.after[:, kept][..., kept]  # [l, i, 2, k]
    before = compared.before[kept][..., kept]
    asked = np.array([[compared.asked[i] == names[k] for k in kept] for i in kept])
    change = after - before
    scores = [statistics.without_asked(change[:, :, side], asked) for side in (0, 1)]
    chance = np.exp(after)
    moved, source = (np.diagonal(chance[:, :, side], axis1=1, axis2=2).mean(1) for side in (0, 1))
    rows = asked.any(1)
    of_asked = np.where(asked, chance[:, :, 0], 0).sum(2)[:, rows]
    p_asked = of_asked.mean(1) if rows.any() else np.full(len(moved), np.nan)
    return Curve(
        *head,
        concepts=tuple(names[n] for n in kept),
        left_out=left_out,
        in_target=statistics.effect(scores[0]),
        in_source=statistics.effect(scores[1]),
        scores=scores[0],
        probabilities=np.stack([moved, p_asked, source], axis=1),
    )


def rows_of(variant: str, curve: Curve, draws: Draws) -> tuple[list[PatchRow], PatchWindow]:
    """Return a curve's row at each layer, with tests and intervals, and its window of layers.

    A curve of too few concepts has one row, which says so, and no window.
    """
    n = len(curve.concepts)
    what = (curve.condition, curve.source, curve.patched)
    head = (variant, curve.test, curve.target, curve.given, *what)
    place = (variant, curve.target, *what)
    if not curve.testable:
        few = f"untestable ({n} usable concepts)"
        window = PatchWindow(*place, None, None, None, None, 0.0, n, curve.left_out)
        return [_row(head, None, few, [None] * 9, n)], window
    orders = inference.permutations(n, draws.flips, draws.seed)
    p_effect = statistics.concept_p(curve.scores, orders)
    beyond = curve.in_target - curve.in_source
    p_beyond = statistics.larger_p(beyond, count=draws.flips, seed=draws.seed)
    weights = inference.resample_weights(n, len(draws.weights), draws.seed)
    lower, upper = inference.expanded_interval(curve.in_target, weights)
    columns = [
        *curve.probabilities.T,
        curve.in_target.mean(1),
        lower,
        upper,
        p_effect,
        beyond.mean(1),
        p_beyond,
    ]
    rows = [
        _row(head, layer, TESTED, [_number(column[layer]) for column in columns], n)
        for layer in range(len(beyond))
    ]
    p = (p_effect, p_beyond)
    found = statistics.estimate_window(curve.in_target, curve.in_source, p, weights)
    window = PatchWindow(
        *place,
        found.first,
        found.last,
        found.first_interval,
        found.last_interval,
        found.found_share,
        n,
        curve.left_out,
    )
    return rows, window


_Head = tuple[str, str, str, str, str, str, str]  # variant to patched of a PatchRow


def _row(
    head: _Head, layer: int | None, status: str, values: Sequence[float | None], n: int
) -> PatchRow:
    """Return a row; ``values`` are those of p_moved to p_beyond."""
    p_moved, p_asked, p_source, effect, lower, upper, p_effect, beyond, p_beyond = values
    return PatchRow(
        *head,
        layer,
        status,
        p_moved,
        p_asked,
        p_source,
        effect,
        lower,
        upper,
        p_effect,
        beyond,
        p_beyond,
        n,
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def unpatched_rows(measured: Measurement) -> list[PatchRow]:
    """Return a row for each cell as it is: what is tested unpatched, and what is untestable."""
    known = {row["target"]: row for row in measured.of_kind("patch")}
    found = []
    for row in measured.of_kind("cell"):
        test = "word" if row["task"] == "translation" else "turned"
        values: list[float | None] = [None, None, None]
        if test == "word" and row["target"] in known:
            values = _unpatched(measured, known[row["target"]])
        head = (measured.variant, test, row["target"], row["given"], NO_PATCH, "", "")
        found.append(_row(head, None, status(row), [*values, *[None] * 6], row["usable"]))
    return found


def _unpatched(measured: Measurement, row: Mapping[str, Any]) -> list[float | None]:
    """Return the probabilities of ``PatchRow`` without a patch."""
    before = measured.arrays[f"{row['target']}/before"]
    compared = _compare(measured, row, before[None], before, (row["target"], row["sources"]))
    chance = np.exp(compared.before)  # [i, 2, k]
    n = range(len(compared.concepts))
    asked = [compared.concepts.index(name) for name in compared.asked]
    means = (chance[n, 0, n], chance[n, 0, asked], chance[n, 1, n])
    return [_number(float(np.nanmean(values))) for values in means]
