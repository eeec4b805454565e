"""Findings that compare variants, measures and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aya_probes import files
from aya_probes.findings.statement import (
    DESCRIBED,
    ESTABLISHED,
    NOT_ESTABLISHED,
    NOT_MEASURED,
    UNTESTABLE,
    Finding,
    Statement,
    names,
    p_text,
    size,
)
from aya_probes.results import contrasts
from aya_probes.results.curves import (
    CONCEPT,
    COSINE,
    PARALLEL_ALIGNMENT,
    RAW,
)
from aya_probes.results.failures import CategoryTest
from aya_probes.results.tables import Contrast
from aya_probes.results.whole_run import Run

LAST = "last"  # the published study's pooling
ON = {CONCEPT: "concepts", PARALLEL_ALIGNMENT: "texts of the parallel corpus"}
BASIS = {"region": "control", "adaptation": "base", "post-training": "base"}


def effect(row: Contrast) -> str:
    """Return an estimate with its interval, signed."""
    text = f"{row.estimate:+.3f} [{row.lower:.3f}, {row.upper:.3f}]"
    return text.replace("-", "−")


def small(value: float) -> str:
    """Return a size with 4 decimals, ``±0.0008``."""
    return "less than 0.0001" if value < 0.0001 else f"±{value:.4f}"


def _minus(contrast: str) -> str:
    return contrast.replace(" - ", " − ")


def _n(row: Contrast) -> str:
    what = "concepts" if row.measure == CONCEPT else "items"
    if row.groups == row.n:
        return f"{row.n} {what}"
    return f"{row.n} {what} in {row.groups} documents"


def region(run: Run) -> Finding:
    """Does regional tuning raise alignment in its own languages more than elsewhere?"""
    question = "Does regional tuning help its own languages more than others?"
    statements = []
    for measure, what in ON.items():
        for row in contrasts.choose(run.contrasts, measure, "specificity"):
            statements.append(_specificity(run, row, what))
    if not statements:
        text = (
            "The run has no regional variant with a control variant to compare it with, or too "
            "few concepts (8) and documents."
        )
        statements.append(Statement(UNTESTABLE, text))
    return Finding(question, statements, "differences", {"family": ["specificity"]})


def _specificity(run: Run, row: Contrast, what: str) -> Statement:
    null = contrasts.seed_null(run.contrasts, row, run.results.info.repeats)
    beyond = null is None or null.exceeded_by(row)
    verdict = ESTABLISHED if row.established and row.estimate > 0 and beyond else NOT_ESTABLISHED
    text = (
        f"{_minus(row.contrast)} on {what}: gain on its languages minus gain on others "
        f"{effect(row)}, p (Holm) {p_text(row.p_holm)}."
    )
    if null is None:
        text += " No second training seed shows how large a difference arises by chance."
    else:
        side = "beyond" if beyond else "not beyond"
        text += f" This is {side} the {small(null.estimate)} between two training seeds."
    if not row.established:
        text += f" An effect of {row.detectable:.3f} would have been seen with 80% power."
    return Statement(verdict, text, _n(row))


def dose(run: Run) -> Finding | None:
    """Is a gain one of the languages' text, or of training on these languages alone?"""
    statements = []
    for measure, what in ON.items():
        rows = {(r.contrast, r.part): r for r in contrasts.choose(run.contrasts, measure, "dose")}
        for contrast in dict.fromkeys(contrast for contrast, _ in rows):
            own, others = rows[contrast, "targets"], rows[contrast, "elsewhere"]
            gained = own.established and own.estimate > 0
            text = (
                f"{_minus(contrast)} on {what}: its languages {effect(own)}, p (Holm) "
                f"{p_text(own.p_holm)}; the others {effect(others)}, p (Holm) "
                f"{p_text(others.p_holm)}."
            )
            statements.append(Statement(ESTABLISHED if gained else NOT_ESTABLISHED, text, _n(own)))
    if not statements:
        return None
    question = "Do its languages gain against a control that read as much of each of them?"
    return Finding(question, statements, "differences", {"family": ["dose"]})


def adaptation(run: Run) -> Finding | None:
    """What does any further training change?"""
    statements: list[Statement] = []
    for family in ("post-training", "adaptation"):
        for measure, what in ON.items():
            rows = contrasts.choose(run.contrasts, measure, family)
            for contrast in dict.fromkeys(row.contrast for row in rows):
                here = [row for row in rows if row.contrast == contrast]
                statements += _gains(contrast, here, what)
    if not statements:
        return None
    question = "What does further training change against the base model?"
    return Finding(question, statements, "differences", {"family": ["adaptation"]})


def _gains(contrast: str, rows: Sequence[Contrast], what: str) -> list[Statement]:
    """Return how many languages gain or lose, with the largest change."""
    found = [row for row in rows if row.established]
    if not found:
        top = max(rows, key=lambda row: abs(row.estimate))
        text = (
            f"{_minus(contrast)} on {what}: no change is shown in any of {len(rows)} languages; "
            f"largest estimate {names([top.targets])} {effect(top)}."
        )
        return [Statement(NOT_ESTABLISHED, text, _n(top))]
    up = [row for row in found if row.estimate > 0]
    top = max(found, key=lambda row: abs(row.estimate))
    text = (
        f"{_minus(contrast)} on {what}: of {len(rows)} languages, {len(up)} gain and "
        f"{len(found) - len(up)} lose; largest change {names([top.targets])} {effect(top)}, "
        f"p (Holm) {p_text(top.p_holm)}."
    )
    return [Statement(ESTABLISHED, text, _n(top))]


def untrained(run: Run) -> Finding | None:
    """What do tokenizer and architecture give without training?"""
    info = run.results.info
    control = info.first("untrained")
    if control is None or not info.concepts:
        return None
    question = "Is it more than tokenizer and architecture give?"
    passed = [c for c in run.testable if run.passes(CONCEPT, control, c)]
    text = (
        f"With random weights the test is passed in {len(passed)} of {len(run.testable)} "
        f"languages{': ' + names(passed) if passed else ''}."
    )
    if passed:
        text += " There the base model's alignment needs the difference to random weights."
    statements = [Statement(DESCRIBED, text, size(run))]
    rows = contrasts.choose(run.contrasts, CONCEPT, "trained")
    rows = [row for row in rows if row.contrast.split(" - ")[0] == run.base]
    up = [row for row in rows if row.established and row.estimate > 0]
    rest = [row.targets for row in rows if row not in up]
    if up:
        top = max(up, key=lambda row: row.estimate)
        text = (
            f"{_minus(top.contrast)}: more alignment in {len(up)} of {len(rows)} languages; most "
            f"in {names([top.targets])}, {effect(top)}."
        )
        statements.append(Statement(ESTABLISHED, text, _n(top)))
    if rest:
        statements.append(Statement(NOT_ESTABLISHED, f"No difference shown: {names(rest)}."))
    return Finding(question, statements, "differences", {"family": ["trained"]})


def robust(run: Run) -> Finding:
    """Does the answer depend on standardising the vectors?"""
    found = run.results.disagreements
    question = "Does the answer depend on how vectors are scaled?"
    measure = CONCEPT if run.results.info.concepts else PARALLEL_ALIGNMENT
    settings = {"measure": [measure + RAW]}
    if not found:
        text = "Standardised and raw vectors agree on every test of this run."
        return Finding(question, [Statement(DESCRIBED, text)], "curves", settings)
    mine = [text for text in found if f", {run.base}:" in text]
    words = "; ".join(mine) if mine else found[0]
    text = (
        f"Standardised and raw vectors disagree in {len(found)} statements. On {run.base}: {words}."
        if mine
        else f"Standardised and raw vectors disagree in {len(found)} statements, such as {words}."
    )
    return Finding(question, [Statement(NOT_ESTABLISHED, text)], "curves", settings)


def artefact(run: Run) -> Finding | None:
    """Would the usual measure, raw cosine of the last token, have answered?"""
    info = run.results.info
    if not info.concepts:
        return None
    question = "Would the raw cosine of the last token have answered the question?"
    void = [c for c in info.others if run.results.is_untestable(run.base, c, LAST)]
    if not void:
        text = "Last tokens differ between the languages; its mismatched control is in the view."
        return Finding(question, [Statement(DESCRIBED, text)], "curves")
    starts = {
        c: curve.array()[0]
        for c in void
        if (curve := run.results.curve(COSINE, run.base, c, LAST)) is not None
    }
    text = (
        f"No: the last token is the same in {len(void)} of {len(info.others)} languages "
        f"({names(void)}), so their curves start at {min(starts.values()):.2f} without any shared "
        "meaning."
    )
    settings: Mapping[str, Sequence[str]] = {"measure": [COSINE], "pooling": [LAST]}
    return Finding(question, [Statement(UNTESTABLE, text, size(run))], "curves", settings)


def failures(tests: Sequence[CategoryTest] | None) -> Finding:
    """On which kinds of text does a regional variant change more than its reference?"""
    question = "On which kinds of changed text does a regional variant lose alignment?"
    if tests is None:
        text = f"Not measured yet: run {files.MAKE_FAILURES}."
        return Finding(question, [Statement(NOT_MEASURED, text)], "failures")
    whole = [t for t in tests if not t.subtype]
    tested = [t for t in whole if t.p_holm is not None]
    statements = [
        Statement(ESTABLISHED, _case(test), f"{test.parents} sentences")
        for test in sorted(tested, key=lambda t: t.mean_delta or 0.0)
        if (test.p_holm or 0.0) <= 0.05 and (test.mean_delta or 0.0) < 0
    ]
    rest = len(tested) - len(statements)
    if rest:
        text = f"{rest} of {len(tested)} tests of a category in a language show no loss."
        statements.append(Statement(NOT_ESTABLISHED, text))
    few = len(whole) - len(tested)
    if few:
        text = f"{few} categories in a language have too few sentences (20) for a test."
        statements.append(Statement(UNTESTABLE, text))
    if not whole:
        text = "This run has no perturbed text or no regional variant."
        statements.append(Statement(UNTESTABLE, text))
    return Finding(question, statements, "failures")


def _case(test: CategoryTest) -> str:
    bounds = "" if test.lower is None else f" [{test.lower:.3f}, {test.upper:.3f}]"
    text = (
        f"{test.category} in {names([test.language])}: {test.variant} loses more than "
        f"{test.reference_variant}, {test.mean_delta:+.3f}{bounds}, p (Holm) {p_text(test.p_holm)}."
    )
    return text.replace("-", "−")
