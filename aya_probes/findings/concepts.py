"""Findings about the base variant: whether, where and how concepts are shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aya_probes.findings.statement import (
    DESCRIBED,
    ESTABLISHED,
    NOT_ESTABLISHED,
    UNTESTABLE,
    Finding,
    Statement,
    at,
    best,
    largest,
    n_text,
    names,
    size,
    untestable,
)
from aya_probes.results.curves import (
    CONCEPT,
    DISATTENUATED,
    PARALLEL_RETRIEVAL,
    WITHIN_CATEGORY,
    Shape,
)
from aya_probes.results.whole_run import ALPHA, Run


def _test_of(run: Run, measure: str, subject: str) -> list[Statement]:
    """Return which languages pass a measure's test on base, which do not, and which cannot."""
    info, statements = run.results.info, []
    passed = [c for c in run.testable if run.passes(measure, run.base, c)]
    missed = [
        c for c in run.testable if c not in passed and run.smallest_p(measure, run.base, c) > ALPHA
    ]
    unknown = [c for c in run.testable if c not in passed and c not in missed]
    pivot = names([info.pivot])
    if passed:
        text = (
            f"{subject} with {pivot} in {len(passed)} of {len(run.testable)} testable languages "
            f"of {run.base}: {names(passed)} (max-T p ≤ {ALPHA}, by language)."
        )
        text += largest(run, measure, passed)
        statements.append(Statement(ESTABLISHED, text, n_text(run, measure, passed)))
    if missed:
        p = min(run.smallest_p(measure, run.base, c) for c in missed)
        text = f"Not shown for {names(missed)}: the smallest p is {p:.3f}."
        text += largest(run, measure, missed)
        statements.append(Statement(NOT_ESTABLISHED, text, n_text(run, measure, missed)))
    if unknown:
        text = f"{names(unknown)}: the measure is undefined there."
        statements.append(Statement(UNTESTABLE, text))
    if void := untestable(run):
        shares = [run.results.input_share(run.base, c).share for c in void]
        text = (
            f"{names(void)}: {min(shares):.0%} to {max(shares):.0%} of the concepts have "
            f"the same input as in {pivot}, so a curve would be no evidence."
        )
        statements.append(Statement(UNTESTABLE, text))
    return statements


def shared(run: Run) -> Finding:
    """Is a concept, or its category, shared across languages?"""
    question = "Is a concept or its category shared with the other languages?"
    if not run.results.info.concepts:
        text = "The suite has no probes, so concepts cannot be asked about."
        return Finding(question, [Statement(UNTESTABLE, text)], "curves")
    statements = _test_of(run, CONCEPT, "Concepts or their categories are shared")
    cued = [
        c
        for c in run.testable
        if run.passes(CONCEPT, run.base, c) and run.results.passing_cues(CONCEPT, c)
    ]
    if cued:
        text = (
            f"In {names(cued)} a cue that is not meaning, such as shared tokens, passes the same "
            "test: there the alignment need not be shared meaning."
        )
        statements.append(Statement(NOT_ESTABLISHED, text, size(run)))
    return Finding(question, statements, "curves", {"measure": [CONCEPT]})


def itself(run: Run) -> Finding | None:
    """Is it the concept itself, or only its category?"""
    if not run.results.info.concepts:
        return None
    question = "Is it the concept itself, and not only its category?"
    subject = "Against concepts of the same category alone, concepts are shared"
    statements = _test_of(run, WITHIN_CATEGORY, subject)
    return Finding(question, statements, "curves", {"measure": [WITHIN_CATEGORY]})


def place(run: Run) -> Finding | None:
    """Where in the network does sharing begin?"""
    if not run.results.info.concepts:
        return None
    rows = {code: run.layers[run.base, code] for code in run.results.info.others}
    starts = {
        code: row.commitment_layer
        for code, row in rows.items()
        if row.status == "committed" and row.commitment_layer is not None
    }
    never = [code for code, row in rows.items() if row.status == "never"]
    other = [code for code in rows if code not in starts and code not in never]
    statements, last = [], run.results.info.last_layer
    if starts:
        low, high = min(starts.values()), max(starts.values())
        each = ", ".join(
            f"{names([code])} {layer}{_between(run, code)}" for code, layer in starts.items()
        )
        where = f"at layer {low}" if low == high else f"between layers {low} and {high}"
        text = f"Sharing begins {where} of {last} ({run.base}). By language: {each}."
        statements.append(Statement(ESTABLISHED, text, size(run)))
    if never:
        text = f"{names(never)}: no three layers in a row pass the rule."
        statements.append(Statement(NOT_ESTABLISHED, text, size(run)))
    if other:
        text = ", ".join(f"{names([code])} ({rows[code].status})" for code in other)
        statements.append(Statement(UNTESTABLE, f"No layer is computed for {text}."))
    question = "Where in the network does the sharing begin?"
    return Finding(question, statements, "curves", {"measure": [CONCEPT]})


def _between(run: Run, code: str) -> str:
    row = run.layers[run.base, code]
    if row.commitment_lower is None:
        return ""
    return f" [{row.commitment_lower}, {row.commitment_upper}]"


def shape(run: Run) -> Finding | None:
    """Does alignment rise, peak and decline?"""
    info = run.results.info
    if not info.concepts:
        return None
    shapes = {c: s for c in info.others if (s := run.results.shapes.get((run.base, c))) is not None}
    question = "Does sharing rise, peak and decline towards the output?"
    whole = [c for c, s in shapes.items() if s.label == "RISE_PEAK_DECLINE"]
    void = [c for c, s in shapes.items() if s.label in ("UNTESTABLE", "UNDEFINED")]
    rest = [c for c in shapes if c not in whole and c not in void]
    statements = []
    if not shapes:
        text = "The shape needs 8 concepts with noise ceilings."
        statements.append(Statement(UNTESTABLE, text))
    if whole:
        text = (
            f"Relative to the noise ceiling, both the rise and the decline before the final norm "
            f"are shown in {len(whole)} of {len(shapes)} languages: {names(whole)}."
            f"{_kept(shapes, whole, info.last_layer)}"
        )
        statements.append(Statement(ESTABLISHED, text, size(run)))
    if rest:
        text = ", ".join(f"{names([c])} ({shapes[c].label})" for c in rest)
        statements.append(Statement(NOT_ESTABLISHED, f"Not both in {text}.", size(run)))
    if void:
        text = f"{names(void)}: the ceiling is not above 0, or inputs are identical."
        statements.append(Statement(UNTESTABLE, text))
    return Finding(question, statements, "curves", {"measure": [DISATTENUATED]})


def _kept(shapes: Mapping[str, Shape], codes: Sequence[str], last: int) -> str:
    kept = {c: k for c in codes if (k := shapes[c].retained) is not None}
    if not kept:
        return ""
    steepest = shapes[min(kept, key=lambda c: kept[c])].decline
    text = f" At layer {last} they keep {min(kept.values()):.0%} to {max(kept.values()):.0%}"
    if steepest is not None:
        text += ", steepest: a decline of {:.2f} [{:.2f}, {:.2f}]".format(*steepest)
    return text + "."


def corpus(run: Run) -> Finding | None:
    """Are translations of sentences found among others?"""
    info = run.results.info
    top = best(run, PARALLEL_RETRIEVAL, info.others, run.base)
    if top is None:
        return None
    question = "Are translations of whole texts found among the others of the parallel corpus?"
    curves = {c: run.results.curve(PARALLEL_RETRIEVAL, run.base, c) for c in info.others}
    above: list[str] = []
    below: list[str] = []
    for code, curve in curves.items():
        if curve is None or curve.peak is None:
            continue
        low = curve.array("lower")[curve.peak]
        (above if low > (curve.chance or 0) else below).append(code)
    code, curve = top
    chance = "" if curve.chance is None else f", chance {curve.chance:.3f}"
    text = (
        f"Two-way retrieval is above chance at its best layer, which is chosen on the same data, "
        f"in {len(above)} of {len(curves)} languages ({names(above)}). Highest: "
        f"{names([code])}, {at(curve, curve.peak or 0)}{chance}."
    )
    weakest = _weakest(run, above)
    n = f"{info.parallel_corpus['items']} items of {info.parallel_corpus['corpus']}"
    statements = [Statement(DESCRIBED, text + weakest, n)] if above else []
    if below:
        statements.append(Statement(NOT_ESTABLISHED, f"Not above chance: {names(below)}.", n))
    return Finding(question, statements, "curves", {"measure": [PARALLEL_RETRIEVAL]})


def _weakest(run: Run, codes: Sequence[str]) -> str:
    found = [
        (float(curve.array()[curve.peak]), code, curve)
        for code in codes
        if (curve := run.results.curve(PARALLEL_RETRIEVAL, run.base, code)) is not None
        and curve.peak is not None
    ]
    if not found:
        return ""
    _, code, curve = min(found, key=lambda entry: entry[0])
    return f" Lowest: {names([code])}, {at(curve, curve.peak or 0)}."
