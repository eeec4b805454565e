"""The labels, on texts whose category is known by construction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import failure_classifier
from aya_probes import errors, project, run_folder, stimuli, suites
from aya_probes.alignment import measures
from aya_probes.extraction import store
from aya_probes.failures import category_tests, edge_cases, effects, labels, run
from aya_probes.failures.edge_cases import Candidate
from aya_probes.failures.labels import LanguageRules, Text
from aya_probes.planted.run import write_activations
from aya_probes.results.failures import (
    EdgeCase,
    Evidence,
    FailureCase,
    load_category_tests,
    load_edge_cases,
    load_failure_cases,
)

HINDI = LanguageRules(False, ("en", "hi", "sw"), ("नेत्र",), (frozenset(), frozenset()))


def find_labels(parent: str, text: str, tag: str = "hi", fertility: float = 1.0) -> list[str]:
    return labels.label(Text(text, tag, fertility), Text(parent, "hi", 1.0), HINDI)


@pytest.mark.parametrize(
    ("text", "change", "expected"),
    [
        ("वह \u200bआँख फिर दिखा।", {}, ["UNICODE_EDGE"]),
        ("vah aankh phir dikha", {}, ["TRANSLITERATION"]),
        ("वह eye फिर दिखा today।", {}, ["CODE_SWITCH"]),
        ("वह नेत्र फिर दिखा।", {}, ["FORMAL_REGISTER"]),
        ("ऊ आँख फेर लउकल।", {"tag": "bho"}, ["LOW_RESOURCE_VARIANT"]),
        ("वह आँख फिर दिखी।", {"fertility": 1.6}, ["LOW_RESOURCE_VARIANT"]),
        ("वह नेत्र \u200b दिखा।", {"tag": "hi-IN"}, ["UNICODE_EDGE", "FORMAL_REGISTER"]),
        ("वह आँख फिर दिखी।", {}, []),
    ],
)
def test_category_by_construction(text: str, change: dict[str, Any], expected: list[str]) -> None:
    assert find_labels("वह आँख फिर दिखा।", text, **change) == expected


def test_marks_and_terms_that_the_parent_has_too_are_no_change() -> None:
    assert find_labels("क\u200d्ष है ५", "क\u200d्ष था ५") == []
    assert find_labels("वह नेत्र", "यह नेत्र") == []


def test_code_switch_in_one_script_needs_words_of_both() -> None:
    lexicons = (frozenset({"jicho", "ilionekana"}), frozenset({"again", "today"}))
    swahili = LanguageRules(True, ("en", "sw"), (), lexicons)
    parent = Text("p", "sw", 1.0)

    def find(text: str, rules: LanguageRules = swahili) -> list[str]:
        return labels.label(Text(text, "sw", 1.0), parent, rules)

    assert find("jicho ilionekana again today") == ["CODE_SWITCH"]
    assert find("jicho ilionekana tena today") == []
    pivot = LanguageRules(True, ("en", "sw"), (), lexicons[1:])
    assert find("jicho ilionekana again today", pivot) == []


def test_verdicts() -> None:
    assert effects.decide_verdict(True, 1, 2) == "no_op"
    assert effects.decide_verdict(False, -2, -1) == "regional_worse"
    assert effects.decide_verdict(False, 1, 2) == "regional_better"
    assert effects.decide_verdict(False, -1, 2) == "no_difference"


def edge_case(text: str, language: str, *acceptable: str) -> EdgeCase:
    evidence = Evidence("p", "", "s", "fire", "base", {}, 0.0, (0.0, 0.0), "1-5", "", "")
    return EdgeCase("P1-01", text, language, acceptable[0], acceptable, "", "", "", "", evidence)


def test_router_pass_rates_are_the_best_of_each_kind() -> None:
    cases = [
        edge_case("eye", "en", "base"),
        edge_case("jicho", "sw", "earth"),
        edge_case("आँख", "hi", "fire"),
        edge_case("दिल", "hi", "base"),
    ]
    rates = edge_cases.rate_routers(cases, ["base", "fire", "earth"])
    assert rates == {"constant": 0.5, "script_only": 0.5, "language_only": 0.75}


def failure_case(name: str, **change: Any) -> FailureCase:
    given: dict[str, Any] = {
        "stimulus_id": name,
        "parent_id": f"parent of {name}",
        "language": "hi",
        "tag": "hi",
        "variant": "fire",
        "reference_variant": "base",
        "category": "CODE_SWITCH",
        "labels": "CODE_SWITCH;FORMAL_REGISTER",
        "effect": 0.5,
        "reference_effect": 0.0,
        "delta": 0.5,
        "lower": 0.4,
        "upper": 0.6,
        "layers": "1-5",
        "pooling": "content_mean",
        "verdict": "regional_worse",
        "input": "text",
        "parent": "parent",
    }
    return FailureCase(**{**given, **change})


def test_chosen_cases_are_distinct_and_balanced() -> None:
    candidates = [
        Candidate(
            failure_case(f"{category}-{n}", category=category, delta=(n - 10) / 10),
            "",
            targeted=True,
            best=("fire",),
            effects={},
        )
        for category in labels.CATEGORIES
        for n in range(20)
    ]
    chosen = edge_cases.choose_cases(candidates)
    assert len({c.case.stimulus_id for c in chosen}) == edge_cases.N_CASES
    controls = [c for c in chosen if c.control]
    assert len(controls) == edge_cases.N_CONTROLS
    assert min(c.case.delta for c in controls) >= 0
    for category in labels.CATEGORIES:
        found = [c for c in chosen if c.case.category == category and not c.control]
        assert len(found) >= edge_cases.N_PER_CATEGORY


def test_an_edge_case_says_what_was_measured() -> None:
    worse = Candidate(failure_case("X"), "mixed", False, ("base", "fire"), {"base": 0.123456})
    found = edge_cases.make_edge_case(7, worse, "tiny")
    assert (found.test_id, found.status, found.expected_variant) == ("P1-07", "confirmed", "base")
    assert found.p1_test_assertion == "route(input) in ['base', 'fire']"
    assert found.evidence.effect == {"base": 0.1235}
    control = Candidate(failure_case("X"), "", True, ("base", "fire"), {}, control=True)
    assert edge_cases.make_edge_case(1, control, "").expected_variant == "fire"
    tie = Candidate(failure_case("X", verdict="no_difference"), "", True, ("base",), {})
    assert edge_cases.make_edge_case(1, tie, "").status == "tie"


def test_a_category_is_tested_over_20_parents_and_without_no_ops() -> None:
    many = [failure_case(f"{n:02d}", delta=n / 10, category="A") for n in range(20)]
    idle = [failure_case(f"idle-{n}", delta=9.0, category="A", verdict="no_op") for n in range(5)]
    few = [failure_case(f"few-{n}", category="B", delta=1.0) for n in range(2)]
    tested, untested = category_tests.compare_categories([*few, *idle, *many], seed=0)
    assert (tested.category, tested.n) == ("A", 20)
    assert tested.mean_delta == pytest.approx(0.95)
    assert tested.p is not None
    assert tested.p < 0.01
    assert tested.p_holm == tested.p  # the only test that was asked
    assert tested.lower is not None
    assert tested.upper is not None
    assert 0 < tested.lower < 0.95 < tested.upper
    assert (untested.n, untested.p, untested.lower, untested.p_holm) == (2, None, None, None)


def small_study(folder: Path) -> tuple[stimuli.Manifest, store.Activations]:
    """Random vectors of 6 concepts x 2 wordings in two languages, and one perturbed text."""
    suite = suites.Suite("tiny", "en", ("en", "hi"), "cldr", (suites.Variant("base", "base"),))
    probes = [
        stimuli.Stimulus(f"C{c:02d}-{code}-{k}", "probe", f"C{c:02d}", k, code, "text", None)
        for code in suite.languages
        for c in range(1, 7)
        for k in (1, 2)
    ]
    case = stimuli.Stimulus("X", "perturbation", "C03", 2, "hi", "text", None, "C03-hi-2")
    manifest = stimuli.Manifest(suite, {}, (*probes, case))
    rng = np.random.default_rng(0)
    vectors = {s.stimulus_id: rng.normal(size=(6, 8)) for s in manifest.stimuli}  # norm last
    return manifest, write_activations(
        folder / "base", manifest, {"content_mean": vectors, "span_mean": vectors}
    )


def test_effect_is_the_alignment_of_the_grid_with_the_text_put_in(tmp_path: Path) -> None:
    manifest, loaded = small_study(tmp_path)
    found = effects.measure_effects(manifest, loaded, manifest.stimuli[-1:], {"hi": 3}, seed=0)
    grid = {
        c: loaded.take("content_mean", effects.list_probes(manifest, c).ids) for c in ("en", "hi")
    }
    pivot, hindi = (measures.unit(grid[c] - grid[c].mean(0))[1::2, 1:5] for c in ("en", "hi"))
    changed = hindi.copy()
    text = loaded.take("content_mean", ["X"])[0] - grid["hi"].mean(0)
    changed[2] = measures.unit(text)[1:5]
    before, after = (
        measures.alignment(np.einsum("irh,jrh->rij", pivot, other))[:, 2].mean()
        for other in (hindi, changed)
    )
    assert found.value[0] == pytest.approx(after - before)
    assert found.draws[0].mean() == pytest.approx(found.value[0], abs=0.02)


def test_best_variants_keep_those_not_measurably_below() -> None:
    draws = np.linspace(-0.1, 0.1, 101)[None]
    measured = {
        "base": effects.Effects(np.array([0.0]), 0.0 * draws),
        "fire": effects.Effects(np.array([0.05]), 0.05 + draws),
        "earth": effects.Effects(np.array([-1.0]), -1.0 + draws),
    }
    assert effects.find_best_variants(measured) == [["fire", "base"]]


def test_a_run_without_control_and_base_is_refused() -> None:
    suite = suites.load_suite("mini")
    assert effects.choose_reference(suite, ["fire", "base", "global"]) == "global"
    assert effects.choose_reference(suite, ["fire", "base"]) == "base"
    with pytest.raises(errors.StudyError, match=r"control or base.*batch_runner"):
        effects.choose_reference(suite, ["fire"])


# --- the stage --------------------------------------------------------------------------------


@pytest.fixture
def planted_run(tmp_path: Path) -> Path:
    """24 concepts, 20 of them perturbed; ``fire`` moves the perturbed texts towards the pivot."""
    suite = suites.Suite(
        "tiny",
        "en",
        ("en", "hi"),
        "cldr",
        (
            suites.Variant("base", "base", path="base"),
            suites.Variant("fire", "regional", path="fire", targets=("hi",)),
        ),
    )
    concepts = [f"C{n:02d}" for n in range(1, 25)]
    found = [
        stimuli.Stimulus(f"{c}-{code}-{k}", "probe", c, k, code, "text", None)
        for code in suite.languages
        for c in concepts
        for k in (1, 2)
    ]
    found += [
        stimuli.Stimulus(
            f"X-{c}", "perturbation", c, 1, "hi", "वह eye", None, f"{c}-hi-1", "CODE_SWITCH", "hi"
        )
        for c in concepts[:20]
    ]
    metadata = {
        "schema_version": project.SCHEMA_VERSION,
        "concepts": dict.fromkeys(concepts, "name"),
    }
    manifest = stimuli.Manifest(suite, metadata, tuple(found))
    paths = run_folder.RunPaths(tmp_path / "run")
    stimuli.save_manifest(paths.manifest, manifest)
    rng = np.random.default_rng(0)
    vectors = {s.stimulus_id: rng.normal(size=(6, 8)) for s in manifest.stimuli}  # norm last
    for concept in concepts:
        vectors[f"{concept}-hi-1"] += vectors[f"{concept}-en-1"]
    tokens = {s.stimulus_id: {"token_ids": [n]} for n, s in enumerate(manifest.stimuli)}
    for name, pull in (("base", 0.0), ("fire", 1.0)):
        moved = vectors | {
            s.stimulus_id: vectors[s.stimulus_id] + pull * vectors[f"{s.item_id}-en-1"]
            for s in manifest.stimuli
            if s.kind == "perturbation"
        }
        write_activations(
            paths.activations / name, manifest, {"content_mean": moved, "span_mean": moved}, tokens
        )
    return paths.run_dir


def classify(run_dir: Path, *flags: str) -> int:
    return failure_classifier.main(["--run-dir", str(run_dir), *flags])


FROZEN = {  # by FAILURES_VERSION: the numbers of the planted run
    1: {
        "case": (-0.307453, 0.644439, 0.611959, 0.674669),
        "test": (-0.0495431, 0.661183, 0.57874, 0.743666, 0.0001, 0.0001),
    }
}


def test_numbers_change_only_with_the_version(planted_run: Path) -> None:
    assert classify(planted_run) == 0
    paths = run_folder.RunPaths(planted_run)
    case = load_failure_cases(paths.failure_cases)[0]
    (test,) = load_category_tests(paths.failure_tests)
    frozen = FROZEN[run.FAILURES_VERSION]  # a new version writes its numbers down above
    assert (case.effect, case.delta, case.lower, case.upper) == pytest.approx(
        frozen["case"], rel=1e-5
    )
    found = (test.mean_effect, test.mean_delta, test.lower, test.upper, test.p, test.p_holm)
    assert found == pytest.approx(frozen["test"], rel=1e-5)


def test_what_is_saved_can_be_loaded(planted_run: Path) -> None:
    paths = run_folder.RunPaths(planted_run)
    found = run.run(run.Config(paths, None, seed=3))
    assert found is not None
    assert load_edge_cases(paths.edge_cases) == found.edge_cases
    saved = load_failure_cases(paths.failure_cases)
    assert [case.stimulus_id for case in saved] == [f"X-C{n:02d}" for n in range(1, 21)]
    assert {case.verdict for case in saved} == {"regional_better"}
    assert saved[0].delta == pytest.approx(found.cases[0].delta, rel=1e-5)
    assert found.edge_cases.metadata.variants == ("base", "fire")
    assert {case.expected_variant for case in found.edge_cases.cases} == {"fire"}
    assert found.mislabelled == 0


def test_nothing_is_computed_again_unless_its_inputs_changed(
    planted_run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = run_folder.RunPaths(planted_run)

    def skipped(*flags: str) -> bool:
        capsys.readouterr()
        assert classify(planted_run, *flags) == 0
        return "up to date, skipped" in capsys.readouterr().out

    assert not skipped()
    monkeypatch.setattr(project, "source_hash", lambda: "edited")  # a comment, say
    assert skipped()
    assert not skipped("--overwrite")
    assert load_edge_cases(paths.edge_cases).metadata.code_sha256 == "edited"
    assert not skipped("--seed", "7")
    assert not skipped()
    paths.failure_tests.write_text("altered", encoding="utf-8")
    assert not skipped()
    assert load_category_tests(paths.failure_tests)
    paths.edge_cases.unlink()
    assert not skipped()
    monkeypatch.setattr(run, "FAILURES_VERSION", run.FAILURES_VERSION + 1)
    assert not skipped()
    assert skipped()
