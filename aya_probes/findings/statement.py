"""Findings as records, and the words that their sentences share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aya_probes import suites
from aya_probes.results.curves import Curve
from aya_probes.results.whole_run import Run

ESTABLISHED, NOT_ESTABLISHED = "established", "not established"
UNTESTABLE, NOT_MEASURED, DESCRIBED = "untestable", "not measured", "described"
VERDICTS = {
    ESTABLISHED: "a corrected test is passed",
    NOT_ESTABLISHED: "asked, and the test is not passed",
    UNTESTABLE: "these inputs cannot answer the question",
    NOT_MEASURED: "the stage was not run",
    DESCRIBED: "a number with its interval, without a test",
}
"""What each verdict means."""


@dataclass(frozen=True)
class Statement:
    """One sentence of a finding."""

    verdict: str
    """A key of ``VERDICTS``."""
    text: str
    """The sentence, with its numbers and their intervals."""
    n: str = ""
    """What the numbers are computed over, such as ``20 concepts``."""


@dataclass(frozen=True)
class Finding:
    """The answer to one question of the study."""

    question: str
    statements: Sequence[Statement]
    view: str
    """Name of the page's view that shows it."""
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The settings of that view."""


# --- words ------------------------------------------------------------------------------------


def names(codes: Sequence[str]) -> str:
    """Return the English names of languages, joined by commas."""
    known = suites.load_languages()
    return ", ".join(known[code].name for code in codes)


def size(run: Run) -> str:
    """Return what the run's numbers are computed over: its concepts, or items of its corpus."""
    info = run.results.info
    if info.concepts:
        return f"{info.n} concepts x {info.wordings} wordings"
    return f"{info.parallel_corpus['items']} items"


def p_text(p: float | None) -> str:
    """Return a p-value with 3 decimals, ``< 0.001`` below that."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def n_text(run: Run, measure: str, codes: Sequence[str]) -> str:
    """Return over how many concepts a measure is computed in some languages of base."""
    info = run.results.info
    curves = [run.results.curve(measure, run.base, code) for code in codes]
    counts = {curve.n or info.n for curve in curves if curve is not None}
    if not counts:
        return ""
    between = dict.fromkeys((min(counts), max(counts)))
    return f"{' to '.join(map(str, between))} concepts x {info.wordings} wordings"


def at(curve: Curve, layer: int, digits: int = 2) -> str:
    """Return ``0.34 [0.26, 0.42] at layer 6``."""
    mean, lower, upper = (curve.array(name)[layer] for name in ("mean", "lower", "upper"))
    bounds = "" if lower != lower else f" [{lower:.{digits}f}, {upper:.{digits}f}]"
    return f"{mean:.{digits}f}{bounds} at layer {layer}".replace("-", "−")


def best(run: Run, measure: str, codes: Sequence[str], variant: str) -> tuple[str, Curve] | None:
    """Return the language with the largest value of a measure, and its curve."""
    found = []
    for code in codes:
        curve = run.results.curve(measure, variant, code)
        if curve is not None and curve.peak is not None:
            found.append((float(curve.array()[curve.peak]), code, curve))
    if not found:
        return None
    _, code, curve = max(found, key=lambda entry: entry[0])
    return code, curve


def largest(run: Run, measure: str, codes: Sequence[str], what: str = "A") -> str:
    top = best(run, measure, codes, run.base)
    if top is None or top[1].peak is None:
        return ""
    code, curve = top
    return f" Largest: {names([code])}, {what} = {at(curve, curve.peak or 0)}."


def untestable(run: Run) -> list[str]:
    return [code for code in run.results.info.others if code not in run.testable]
