"""The labels, on texts whose category is known by construction, and effects, on planted vectors."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import failure_classifier
from aya_probes import (
    build_manifest,
    errors,
    perturbations,
    project,
    run_folder,
    stimuli,
    suites,
)
from aya_probes.alignment import measures
from aya_probes.extraction import store
from aya_probes.failures import category_tests, edge_cases, effects, labels, run
from aya_probes.failures.edge_cases import Candidate
from aya_probes.failures.labels import UNATTRIBUTED, LanguageRules, Text
from aya_probes.failures.spelling import skeleton
from aya_probes.planted.run import write_activations
from aya_probes.results.failures import (
    EdgeCase,
    Evidence,
    FailureCase,
    load_borrowed_words,
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


@pytest.mark.parametrize(
    ("parent", "text"),
    [
        ("Afẹ́fẹ́ máa ń kún.", "Afẹfẹ maa n kun."),  # no tone marks
        ("Afẹ́fẹ́ máa ń kún.", "Afefe maa n kun"),  # nor underdots
        ("L'eau d'un œil.", "L\u2019eau d\u2019un œil."),
        ("رأيت المدرسة في القرى.", "رايت المدرسه في القري."),
        ("كتاب جديد", "كتـــاب جديد"),
        ("ፀሐይ ሀገር ሰው ዓይን።", "ጸሀይ ኀገር ሠው አይን::"),
        ("বড\u09bc মেয\u09bc", "ব\u09dc মে\u09df"),
        ("वह दिखा।", "1. वह दिखा।"),
        ("वह दिखा।", "(१) वह दिखा।"),
    ],
)
def test_another_spelling_of_the_same_words_is_unicode_edge(parent: str, text: str) -> None:
    assert text != parent
    assert skeleton(text) == skeleton(parent)
    assert find_labels(parent, text)[0] == "UNICODE_EDGE"


@pytest.mark.parametrize(
    ("parent", "text"),
    [
        ("वह दिखा।", "वह दिखी।"),  # a vowel sign is no mark
        ("क्या", "कया"),  # nor is a virama
        ("5 आँखें", "6 आँखें"),
        ("वह 1. दिखा।", "वह 2. दिखा।"),  # not at the start
        ("في", "فى ظل"),
        ("ሀገር", "ለገር"),
        ("።", "!"),  # nothing to compare
        ("वह दिखा।", "वह दिखा।"),  # nothing changed
    ],
)
def test_other_words_are_not(parent: str, text: str) -> None:
    assert "UNICODE_EDGE" not in find_labels(parent, text)


def test_formal_terms_are_found_in_any_case_and_composition() -> None:
    manifest = stimuli.Manifest(suites.Suite("tiny", "en", ("en", "fr"), "cldr", ()), {}, ())
    rules = labels.build_rules(manifest, {"fr": ["De\u0301cès", " "]})["fr"]
    parent = Text("Il est mort.", "fr", 1.0)
    assert labels.label(Text("Son DÉCÈS.", "fr", 1.0), parent, rules) == ["FORMAL_REGISTER"]
    assert labels.label(Text("Sa mort.", "fr", 1.0), parent, rules) == []


def first_labels() -> dict[str, Counter[str]]:
    """Return, by category, how often each first label is given to the committed pairs."""
    suite = suites.load_suite("mini")
    paths = run_folder.RunPaths()
    config = build_manifest.Config(suite, paths, suite.corpus, None, None, None, None)
    _, texts = build_manifest.written_stimuli(config, suite.languages)
    pairs = perturbations.load_perturbations(suites.resolve_path(suite.perturbations))
    rules = labels.build_rules(stimuli.Manifest(suite, {}, tuple(texts)), pairs.lexicons or {})
    found: dict[str, Counter[str]] = {category: Counter() for category in labels.CATEGORIES}
    for pair in pairs.pairs:
        # Tokens decide only the last label, which every text of its category has by its tag.
        text, parent = Text(pair.text, pair.tag, 1.0), Text(pair.parent, pair.language, 1.0)
        given = labels.label(text, parent, rules[pair.language])
        found[pair.category][(given or [UNATTRIBUTED])[0]] += 1
    return found


def test_the_agreement_of_labels_is_what_the_document_says() -> None:
    document = (project.ROOT / "docs" / "failure_taxonomy.md").read_text("utf-8")
    rows = re.findall(r"^\| ([A-Z_]+) \| (\d+) \| (\d+) \| (\d+)% \|$", document, re.MULTILINE)
    said = {name: (int(pairs), int(agree), int(share)) for name, pairs, agree, share in rows}
    measured = {}
    for category, given in first_labels().items():
        share = round(100 * given[category] / given.total())
        measured[category] = (given.total(), given[category], share)
    assert said == measured


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
        "subtype": "",
        "mixed": "",
        "anchor": "en",
        "labels": "CODE_SWITCH;FORMAL_REGISTER",
        "effect": 0.5,
        "reference_effect": 0.0,
        "delta": 0.5,
        "lower": 0.4,
        "upper": 0.6,
        "pivot_effect": 0.5,
        "pivot_delta": 0.5,
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
    assert (tested.category, tested.subtype, tested.n, tested.parents) == ("A", "", 20, 20)
    assert tested.mean_delta == pytest.approx(0.95)
    assert tested.p is not None
    assert tested.p < 0.01
    assert tested.p_holm == tested.p  # the only test that was asked
    assert tested.lower is not None
    assert tested.upper is not None
    assert 0 < tested.lower < 0.95 < tested.upper
    assert (untested.n, untested.p, untested.lower, untested.p_holm) == (2, None, None, None)


def test_texts_without_an_effect_on_tokens_are_no_parents() -> None:
    cases = [failure_case(f"{n:02d}", delta=1.0) for n in range(20)]
    (enough,) = category_tests.compare_categories(cases, seed=0)
    assert enough.p is not None
    cases[0] = failure_case("00", delta=1.0, verdict="no_op")
    (found,) = category_tests.compare_categories(cases, seed=0)
    assert (found.n, found.parents, found.p) == (19, 19, None)


def test_a_parent_counts_once_and_subtypes_are_a_family_of_their_own() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=20)
    cases = []
    for n in range(20):
        change = {"category": "A", "parent_id": f"C{n:02d}-hi-1"}
        cases += [
            failure_case(f"x-{n}", subtype="x", delta=1 + n / 10, **change),
            failure_case(f"y-{n}", subtype="y", delta=float(noise[n]), **change),
            failure_case(f"z-{n}", delta=0.0, **change),  # of no subtype
        ]
    whole, x, y = category_tests.compare_categories(cases, seed=0)
    assert [test.subtype for test in (whole, x, y)] == ["", "x", "y"]
    assert (whole.n, whole.parents, x.n, x.parents) == (60, 20, 20, 20)
    means = (1 + np.arange(20) / 10 + noise) / 3
    assert whole.mean_delta == pytest.approx(means.mean())
    assert x.p is not None
    assert y.p is not None
    assert x.p < 0.01 < y.p
    assert (whole.p_holm, x.p_holm, y.p_holm) == (whole.p, 2 * x.p, y.p)  # Holm by family


# --- effects ----------------------------------------------------------------------------------

LANGUAGES = ("en", "hi", "sw", "fr")


def study(
    folder: Path, cases: list[stimuli.Stimulus], changed: dict[str, np.ndarray], shared: float
) -> tuple[stimuli.Manifest, store.Activations]:
    """12 concepts x 2 wordings in 4 languages, and ``cases`` with the vectors ``changed``.

    A sentence is ``shared`` times the meaning of its concept, and what is its own.
    """
    variants = (suites.Variant("base", "base"),)
    suite = suites.Suite("tiny", "en", LANGUAGES, "cldr", variants)
    probes = [
        stimuli.Stimulus(f"C{c:02d}-{code}-{k}", "probe", f"C{c:02d}", k, code, "text", None)
        for code in LANGUAGES
        for c in range(1, 13)
        for k in (1, 2)
    ]
    manifest = stimuli.Manifest(suite, {}, (*probes, *cases))
    rng = np.random.default_rng(0)
    meaning = {f"C{c:02d}": rng.normal(size=(6, 64)) for c in range(1, 13)}  # norm last
    vectors = {
        s.stimulus_id: shared * meaning[s.item_id] + rng.normal(size=(6, 64)) for s in probes
    }
    for case in cases:
        move = changed[case.stimulus_id]
        vectors[case.stimulus_id] = vectors[str(case.parent_id)] + move
        if case.mixed:  # words of the English sentence, beside its meaning
            own = vectors[f"{case.item_id}-en-{case.wording}"] - shared * meaning[case.item_id]
            vectors[case.stimulus_id] = vectors[case.stimulus_id] + own
    return manifest, write_activations(
        folder / "base", manifest, {"content_mean": vectors, "span_mean": vectors}
    )


def case_of(name: str, concept: str, wording: int, **change: Any) -> stimuli.Stimulus:
    parent = f"{concept}-hi-{wording}"
    return stimuli.Stimulus(
        name, "perturbation", concept, wording, "hi", "text", None, parent, **change
    )


def test_effect_is_the_alignment_of_the_grid_with_the_text_put_in(tmp_path: Path) -> None:
    move = np.random.default_rng(1).normal(size=(6, 64))
    case = case_of("X", "C03", 2)
    manifest, loaded = study(tmp_path, [case], {"X": move}, shared=1.0)
    space = effects.Space(manifest, loaded)
    found = effects.measure_effects(space, loaded, [case], {"hi": 3}, seed=0)
    grids = {c: effects.take_probes(manifest, loaded, c) for c in LANGUAGES}
    scaled = {c: (g - g.mean((0, 1))) / g.std((0, 1)) for c, g in grids.items()}
    units = {c: (g / np.linalg.norm(g, axis=-1, keepdims=True))[:, 1] for c, g in scaled.items()}
    text = (loaded.take("content_mean", ["X"])[0] - grids["hi"].mean((0, 1))) / grids["hi"].std(
        (0, 1)
    )
    mean = np.mean([units[code] for code in ("en", "sw", "fr")], axis=0)
    anchors = {"anchor": mean / np.linalg.norm(mean, axis=-1, keepdims=True), "pivot": units["en"]}
    changed = units["hi"].copy()
    changed[2] = text / np.linalg.norm(text, axis=-1, keepdims=True)
    for name, value in (("anchor", found.value[0]), ("pivot", found.pivot[0])):
        before, after = (
            measures.alignment(np.einsum("jlh,ilh->lji", anchors[name][:, 1:5], grid[:, 1:5]))[
                :, 2
            ].mean()
            for grid in (units["hi"], changed)
        )
        assert value == pytest.approx(after - before, abs=1e-5), name
    assert found.draws[0].mean() == pytest.approx(found.value[0], abs=0.02)
    assert found.levels[0, :, 0] - found.levels[0, :, 1] == pytest.approx(
        [found.value[0], found.pivot[0]]
    )


def test_a_text_that_gains_only_pivot_words_does_not_gain_under_the_anchor(tmp_path: Path) -> None:
    concepts = [f"C{n:02d}" for n in range(1, 13)]
    cases = [case_of(f"X-{c}", c, 1, mixed=("en",)) for c in concepts]
    still = {case.stimulus_id: np.zeros((6, 64)) for case in cases}
    manifest, loaded = study(tmp_path, cases, still, shared=0.7)
    space = effects.Space(manifest, loaded)
    found = effects.measure_effects(space, loaded, cases, {"hi": 3}, seed=0)
    assert found.pivot.min() > 0.1  # every text gains where its words come from
    assert found.value.max() < 0.02  # and no text gains where they do not
    unsaid = [case_of(case.stimulus_id, case.item_id, 1) for case in cases]
    borrowed = effects.measure_effects(space, loaded, unsaid, {"hi": 3}, seed=0)
    assert borrowed.value.mean() > 0.05  # what the anchor would be without `mixed`


def test_the_anchor_leaves_out_the_languages_that_are_in_the_text() -> None:
    languages = ("en", "hi", "ur", "pt-BR", "sr-Latn")

    def anchor(**change: Any) -> list[str]:
        return effects.anchor_languages(case_of("X", "C01", 1, **change), languages)

    assert anchor() == ["en", "ur", "pt-BR", "sr-Latn"]
    assert anchor(mixed=("ur", "en")) == ["pt-BR", "sr-Latn"]
    assert anchor(tag="ur-Latn") == ["en", "pt-BR", "sr-Latn"]
    assert anchor(mixed=("eng", "pt", "sr-Cyrl")) == ["ur"]
    assert anchor(mixed=languages) == []


def test_best_variants_keep_those_not_measurably_below() -> None:
    draws = np.linspace(-0.1, 0.1, 101)[None]

    def effect(value: float, drawn: np.ndarray) -> effects.Effects:
        return effects.Effects(np.array([value]), drawn, np.zeros(1), np.zeros((1, 2, 2)))

    measured = {
        "base": effect(0.0, 0.0 * draws),
        "fire": effect(0.05, 0.05 + draws),
        "earth": effect(-1.0, -1.0 + draws),
    }
    assert effects.find_best_variants(measured) == [["fire", "base"]]


def test_a_run_without_control_and_base_is_refused() -> None:
    suite = suites.load_suite("mini")
    assert effects.choose_reference(suite, ["fire", "base", "global"]) == "global"
    assert effects.choose_reference(suite, ["fire", "base"]) == "base"
    with pytest.raises(errors.StudyError, match=r"control or base.*batch_runner"):
        effects.choose_reference(suite, ["fire"])


# --- the stage --------------------------------------------------------------------------------


TARGETS = ("base", "fire", "fire-seed2")


def planted_manifest(languages: tuple[str, ...]) -> stimuli.Manifest:
    """24 concepts; 20 texts of 20 parents mix English words in, which are controls alone."""
    suite = suites.Suite(
        "tiny",
        "en",
        languages,
        "cldr",
        (
            suites.Variant("base", "base", path="base"),
            suites.Variant("fire", "regional", path="fire", targets=("hi",)),
            suites.Variant("fire-seed2", "seed", path="fire", of="fire"),
        ),
    )
    concepts = [f"C{n:02d}" for n in range(1, 25)]
    found = [
        stimuli.Stimulus(f"{c}-{code}-{k}", "probe", c, k, code, "text", None)
        for code in languages
        for c in concepts
        for k in (1, 2)
    ]
    for concept in concepts[:20]:
        mixed: dict[str, Any] = {
            "category": "CODE_SWITCH",
            "tag": "hi",
            "subtype": "english",
            "mixed": ("en",),
        }
        parent = f"{concept}-hi-1"
        for kind, end, text in (("perturbation", "", "वह eye"), ("control", "-borrowed", "eye")):
            found.append(
                stimuli.Stimulus(
                    f"X-{concept}{end}", kind, concept, 1, "hi", text, None, parent, **mixed
                )
            )
    metadata = {
        "schema_version": project.SCHEMA_VERSION,
        "concepts": dict.fromkeys(concepts, "name"),
    }
    return stimuli.Manifest(suite, metadata, tuple(found))


def plant(run_dir: Path, languages: tuple[str, ...]) -> Path:
    """Write activations in which ``fire`` moves the mixed texts towards their meaning.

    The borrowed words alone are the English sentence.
    """
    manifest = planted_manifest(languages)
    paths = run_folder.RunPaths(run_dir)
    stimuli.save_manifest(paths.manifest, manifest)
    rng = np.random.default_rng(0)
    meaning = {c: rng.normal(size=(6, 32)) for c in manifest.metadata["concepts"]}  # norm last
    vectors = {s.stimulus_id: rng.normal(size=(6, 32)) for s in manifest.stimuli}
    for stimulus in manifest.stimuli:
        if stimulus.kind == "probe" and stimulus.wording == 1:
            vectors[stimulus.stimulus_id] += meaning[stimulus.item_id]
        elif stimulus.kind == "control":
            english = vectors[f"{stimulus.item_id}-en-1"] - meaning[stimulus.item_id]
            vectors[stimulus.stimulus_id] = english
    tokens = {s.stimulus_id: {"token_ids": [n]} for n, s in enumerate(manifest.stimuli)}
    for name in TARGETS:
        moved = vectors | {
            s.stimulus_id: vectors[s.stimulus_id] + (name != "base") * meaning[s.item_id]
            for s in manifest.stimuli
            if s.kind == "perturbation"
        }
        write_activations(
            paths.activations / name, manifest, {"content_mean": moved, "span_mean": moved}, tokens
        )
    return run_dir


@pytest.fixture
def planted_run(tmp_path: Path) -> Path:
    return plant(tmp_path / "run", LANGUAGES)


def classify(run_dir: Path, *flags: str) -> int:
    return failure_classifier.main(["--run-dir", str(run_dir), *flags])


FROZEN = {  # by FAILURES_VERSION: the numbers of the planted run
    2: {
        "case": (-0.0254391, 0.468646, 0.456081, 0.48, 0.127887, 0.389106),
        "test": (-0.00117351, 0.521408, 0.491338, 0.552649, 0.0001, 0.0001),
    }
}


def test_numbers_change_only_with_the_version(planted_run: Path) -> None:
    assert classify(planted_run) == 0
    paths = run_folder.RunPaths(planted_run)
    case = load_failure_cases(paths.failure_cases)[0]
    test, by_subtype = load_category_tests(paths.failure_tests)
    frozen = FROZEN[run.FAILURES_VERSION]  # a new version writes its numbers down above
    numbers = (case.effect, case.delta, case.lower, case.upper, case.pivot_effect, case.pivot_delta)
    assert numbers == pytest.approx(frozen["case"], rel=1e-5)
    found = (test.mean_effect, test.mean_delta, test.lower, test.upper, test.p, test.p_holm)
    assert found == pytest.approx(frozen["test"], rel=1e-5)
    assert (test.subtype, by_subtype.subtype) == ("", "english")
    assert by_subtype.mean_delta == test.mean_delta


def test_what_is_saved_can_be_loaded(planted_run: Path) -> None:
    paths = run_folder.RunPaths(planted_run)
    found = run.run(run.Config(paths, None, seed=3))
    assert found is not None
    assert load_edge_cases(paths.edge_cases) == found.edge_cases
    saved = load_failure_cases(paths.failure_cases)
    assert [case.stimulus_id for case in saved] == [f"X-C{n:02d}" for n in range(1, 21)]
    assert {case.verdict for case in saved} == {"regional_better"}
    assert saved[0].delta == pytest.approx(found.cases[0].delta, rel=1e-5)
    assert {(case.mixed, case.anchor, case.subtype) for case in saved} == {
        ("en", "sw+fr", "english")
    }
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
    for path in (paths.failure_tests, paths.borrowed_words):
        path.write_text("altered", encoding="utf-8")
        assert not skipped()
    assert load_category_tests(paths.failure_tests)
    assert load_borrowed_words(paths.borrowed_words)
    paths.edge_cases.unlink()
    assert not skipped()
    monkeypatch.setattr(run, "FAILURES_VERSION", run.FAILURES_VERSION + 1)
    assert not skipped()
    assert skipped()


def test_borrowed_words_bring_the_pivot_and_not_the_anchor(planted_run: Path) -> None:
    paths = run_folder.RunPaths(planted_run)
    found = run.run(run.Config(paths, None, seed=0))
    assert found is not None
    rows = load_borrowed_words(paths.borrowed_words)
    assert [(r.variant, r.language, r.subtype, r.mixed, r.n) for r in rows] == [
        (name, "hi", "english", "en", 20) for name in ("base", "fire")
    ]
    base, fire = rows
    cases = {case.stimulus_id: case for case in found.cases}
    assert fire.anchor_text - fire.anchor_parent == pytest.approx(
        np.mean([case.effect for case in cases.values()]), abs=1e-5
    )
    assert fire.pivot_text - fire.pivot_parent == pytest.approx(
        np.mean([case.pivot_effect for case in cases.values()]), abs=1e-5
    )
    assert base.pivot_words > base.pivot_parent > 0.1  # the words are the pivot's own
    assert abs(base.anchor_words) < 0.1 < base.anchor_parent
    assert fire.anchor_text > base.anchor_text + 0.1


def test_variants_that_train_another_again_are_no_answer_of_a_router(planted_run: Path) -> None:
    found = run.run(run.Config(run_folder.RunPaths(planted_run), None, seed=0))
    assert found is not None
    assert found.edge_cases.metadata.variants == ("base", "fire")
    assert set(found.edge_cases.cases[0].evidence.effect) == {"base", "fire"}


@pytest.mark.fault("no language left to measure a mixed text against", "left out; a note says so")
def test_a_text_without_an_anchor_is_left_out_with_a_note(tmp_path: Path, capsys: Any) -> None:
    run_dir = plant(tmp_path / "two", ("en", "hi"))
    assert classify(run_dir) == 0
    noted = capsys.readouterr().err
    assert "20 perturbed texts are not measured" in noted
    assert "--languages" in noted
    paths = run_folder.RunPaths(run_dir)
    assert load_failure_cases(paths.failure_cases) == []
    assert load_borrowed_words(paths.borrowed_words) == []
