"""Findings: the verdicts follow from the records, and nothing is left out."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from aya_probes import project
from aya_probes.findings import cautions, concepts, questions, variants
from aya_probes.findings.statement import (
    DESCRIBED,
    ESTABLISHED,
    NOT_ESTABLISHED,
    NOT_MEASURED,
    UNTESTABLE,
    VERDICTS,
    at,
    names,
    p_text,
)
from aya_probes.results.curves import CONCEPT, Curve, CurveKey, Inputs
from aya_probes.results.failures import load_category_tests
from aya_probes.results.whole_run import Run, load_run
from aya_probes.run_folder import RunPaths

MINI, FLORES = RunPaths(), RunPaths(project.ROOT / "runs" / "mini-flores")


@pytest.fixture(scope="module")
def run() -> Run:
    return load_run(MINI)


def with_p(run: Run, code: str, p: float) -> Run:
    """Return the run with another p-value of concept alignment for a language of base."""
    key = CurveKey("span_mean", CONCEPT, run.base, run.results.info.pivot, code)
    curve = run.results.curves[key]
    changed = dataclasses.replace(curve, p=tuple(p for _ in curve.mean))
    results = dataclasses.replace(run.results, curves={**run.results.curves, key: changed})
    return dataclasses.replace(run, results=results)


def with_inputs(run: Run, code: str, share: float) -> Run:
    """Return the run with a language whose inputs are mostly those of the pivot."""
    inputs = dict(run.results.inputs)
    key = ("span_mean", run.base, run.results.info.pivot, code)
    inputs[key] = Inputs(share, True, inputs[key].concepts)
    return dataclasses.replace(run, results=dataclasses.replace(run.results, inputs=inputs))


def test_a_language_moves_with_its_p_value(run: Run) -> None:
    code = run.testable[0]
    name = names([code])
    strong, weak = (concepts.shared(with_p(run, code, p)) for p in (0.001, 0.5))
    for finding, verdict in ((strong, ESTABLISHED), (weak, NOT_ESTABLISHED)):
        found = [s.verdict for s in finding.statements if name in s.text and "cue" not in s.text]
        assert found == [verdict]


def test_a_language_with_the_pivots_inputs_is_untestable_and_not_just_missing(run: Run) -> None:
    code = run.testable[0]
    finding = concepts.shared(with_inputs(with_p(run, code, 0.001), code, 0.7))
    found = [s for s in finding.statements if names([code]) in s.text and "cue" not in s.text]
    assert [s.verdict for s in found] == [UNTESTABLE]
    assert "70%" in found[0].text


def test_every_language_has_exactly_one_verdict_on_sharing(run: Run) -> None:
    for ask in (concepts.shared, concepts.itself):
        finding = ask(run)
        assert finding is not None
        for code in run.results.info.others:
            found = [
                s.verdict
                for s in finding.statements
                if names([code]) in s.text.split(" Largest")[0] and "cue" not in s.text
            ]
            assert len(found) == 1, (code, found)


def test_the_number_of_a_sentence_is_that_of_the_curve(run: Run) -> None:
    finding = concepts.shared(run)
    match = re.search(
        r"Largest: (\w+), A = ([\d.]+) \[([\d.]+), ([\d.]+)\] at layer (\d+)",
        finding.statements[0].text,
    )
    assert match is not None
    code = next(c for c in run.results.info.others if names([c]) == match[1])
    curve = run.curve(CONCEPT, run.base, code)
    layer = int(match[5])
    wanted = [curve.array(name)[layer] for name in ("mean", "lower", "upper")]
    assert [float(match[n]) for n in (2, 3, 4)] == pytest.approx(wanted, abs=0.005)
    heights = {
        c: max(v for v in run.curve(CONCEPT, run.base, c).mean if v is not None)
        for c in run.testable
        if run.passes(CONCEPT, run.base, c)
    }
    assert code == max(heights, key=lambda c: heights[c])


def test_a_region_is_established_only_beyond_the_seeds(run: Run) -> None:
    rows = [
        r
        for r in run.contrasts
        if r.measure == CONCEPT and r.family == "specificity" and r.window == "all"
    ]
    won = next(r for r in rows if r.established)

    def verdict(changed: Run) -> str:
        found = variants.region(changed).statements
        return next(
            s.verdict
            for s in found
            if s.text.startswith(f"{won.contrast.replace(' - ', ' − ')} on concepts")
        )

    assert verdict(run) == ESTABLISHED
    missed = dataclasses.replace(won, p_holm=0.2)
    others = [missed if r is won else r for r in run.contrasts]
    assert verdict(dataclasses.replace(run, contrasts=others)) == NOT_ESTABLISHED
    # The same difference between two seeds, as large as the contrast itself.
    large = [
        dataclasses.replace(r, estimate=1.0 if r.targets in won.targets.split("+") else 0.0)
        if r.family == "seed"
        else r
        for r in run.contrasts
    ]
    assert verdict(dataclasses.replace(run, contrasts=large)) == NOT_ESTABLISHED
    # A loss is no gain, however certain.
    loss = dataclasses.replace(won, estimate=-0.1, lower=-0.11, upper=-0.09)
    others = [loss if r is won else r for r in run.contrasts]
    assert verdict(dataclasses.replace(run, contrasts=others)) == NOT_ESTABLISHED


def test_a_gain_at_equal_dose_needs_the_corrected_test_and_the_right_sign(run: Run) -> None:
    own = next(
        r
        for r in run.contrasts
        if (r.measure, r.family, r.part, r.window) == (CONCEPT, "dose", "targets", "all")
    )

    def verdict(**changed: Any) -> str:
        other = dataclasses.replace(own, **changed)
        rows = [other if r is own else r for r in run.contrasts]
        found = variants.dose(dataclasses.replace(run, contrasts=rows))
        assert found is not None
        head = f"{own.contrast.replace(' - ', ' − ')} on concepts"
        return next(s.verdict for s in found.statements if s.text.startswith(head))

    assert verdict(estimate=0.1, p_holm=0.01) == ESTABLISHED
    assert verdict(estimate=0.1, p_holm=0.2) == NOT_ESTABLISHED
    assert verdict(estimate=-0.1, p_holm=0.01) == NOT_ESTABLISHED
    without = [r for r in run.contrasts if r.family != "dose"]
    assert variants.dose(dataclasses.replace(run, contrasts=without)) is None


def test_a_run_without_probes_says_so_and_answers_the_rest() -> None:
    found = questions.find(load_run(FLORES), None)
    verdicts = {f.question: [s.verdict for s in f.statements] for f in found}
    assert verdicts["Is a concept or its category shared with the other languages?"] == [UNTESTABLE]
    assert NOT_MEASURED in [v for vs in verdicts.values() for v in vs]
    assert any(ESTABLISHED in vs or DESCRIBED in vs for vs in verdicts.values())


def test_no_test_makes_no_claim(run: Run) -> None:
    for path, tests in ((MINI, load_category_tests(MINI.failure_tests)), (FLORES, None)):
        for finding in questions.find(load_run(path), tests):
            assert finding.statements, finding.question
            for statement in finding.statements:
                assert statement.verdict in VERDICTS
                assert "nan" not in statement.text.lower().split()
                assert "None" not in statement.text


def test_failures_count_only_losses_that_pass_the_corrected_test() -> None:
    tests = [t for t in load_category_tests(MINI.failure_tests) if not t.subtype]
    wanted = [
        t for t in tests if t.p_holm is not None and t.p_holm <= 0.05 and (t.mean_delta or 0) < 0
    ]
    statements = variants.failures(tests).statements
    assert sum(s.verdict == ESTABLISHED for s in statements) == len(wanted)
    none = variants.failures([dataclasses.replace(t, p=None, p_holm=None) for t in tests])
    assert {s.verdict for s in none.statements} == {UNTESTABLE}


def test_small_p_values_are_not_printed_as_zero() -> None:
    assert [p_text(p) for p in (0.0004, 0.001, 0.25, None)] == ["< 0.001", "0.001", "0.250", ""]


def test_cautions_name_what_a_design_lacks(run: Run, tmp_path: Path) -> None:
    roles = {
        v: "base" if r in ("control", "seed", "untrained") else r
        for v, r in run.results.info.roles.items()
    }
    info = dataclasses.replace(run.results.info, roles=roles, note="")
    bare = dataclasses.replace(run, results=dataclasses.replace(run.results, info=info))
    text = " ".join(cautions.find(bare, RunPaths(tmp_path)))
    for word in ("No control variant", "No second training seed", "No untrained variant"):
        assert word in text
        assert word not in " ".join(cautions.find(run, MINI))
    assert "SHA256SUMS" in text
    assert "SHA256SUMS" not in " ".join(cautions.find(run, MINI))


def test_a_curve_without_an_interval_prints_none(run: Run) -> None:
    assert at(Curve((0.0, 0.5), None), 1) == "0.50 at layer 1"
