"""Failures and cases from comprehension, on planted contrasts; and nothing from nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import behaviour
import build_stimuli
from aya_probes.behaviour import cases, contrasts, losses
from aya_probes.behaviour.cases import CaseInputs
from aya_probes.behaviour.losses import LossInputs
from aya_probes.results import behaviour as results
from aya_probes.results.behaviour import CaseDecision, LossTest
from aya_probes.run_folder import RunPaths
from aya_probes.stimuli import Stimulus

FRAMES, MISMATCHED = 3, 4
Plant = Callable[[Stimulus], float]  # the level of a text


def make_texts(
    category: str = "CODE_SWITCH", language: str = "hi", concepts: int = 24, wordings: int = 2
) -> list[Stimulus]:
    return [
        Stimulus(
            f"{category}-C{c:02d}-{language}-{k}",
            "perturbation",
            f"C{c:02d}",
            k,
            language,
            "text",
            None,
            parent_id=f"C{c:02d}-{language}-{k}",
            category=category,
        )
        for c in range(concepts)
        for k in range(1, wordings + 1)
    ]


def plant(
    texts: Sequence[Stimulus], parent: float, text: Plant, rng: np.random.Generator, noise: float
) -> dict[str, np.ndarray]:
    """Contrasts of parents at one level and of texts at theirs, with noise in every entry."""
    found = {}
    for stimulus in texts:
        own = text(stimulus) + noise * rng.normal(size=(FRAMES, MISMATCHED))
        found[stimulus.stimulus_id] = own
        found[str(stimulus.parent_id)] = parent + noise * rng.normal(size=(FRAMES, MISMATCHED))
    return found


# --- losses -----------------------------------------------------------------------------------


def test_a_loss_is_the_margin_of_the_parent_minus_that_of_the_text() -> None:
    (text,) = make_texts(concepts=1, wordings=1)
    found = {
        text.stimulus_id: np.array([[1.0, 3.0], [0.0, 0.0], [-1.0, 1.0]]),
        str(text.parent_id): np.array([[4.0, 4.0], [1.0, 3.0], [0.0, 1.0]]),
    }
    np.testing.assert_allclose(losses.losses(found, [text]), [[2.0, 2.0, 0.5]])


def compare(
    texts: Sequence[Stimulus],
    loss: Plant,
    rng: np.random.Generator,
    untestable: dict[str, str] | None = None,
) -> dict[tuple[str, str], LossTest]:
    """Both variants lose 2 nats by every change, ``fire`` loses ``loss`` more."""
    every = {
        "global": plant(texts, 8, lambda _: 6.0, rng, 0.5),
        "fire": plant(texts, 9, lambda text: 7.0 - loss(text), rng, 0.5),
    }
    inputs = LossInputs(tuple(texts), every, "global", "en", untestable or {})
    return {(t.category, t.language): t for t in losses.compare_losses(inputs, ["fire"], 0)}


def test_a_planted_failure_is_found_and_what_both_lose_is_none() -> None:
    texts = make_texts("CODE_SWITCH") + make_texts("UNICODE_EDGE") + make_texts(language="sw")
    rng = np.random.default_rng(0)
    found = compare(
        texts,
        lambda t: 1.5 * (t.category == "CODE_SWITCH"),
        rng,
        {"sw": "untestable (accuracy 0.20, chance 0.20)"},
    )
    failed, kept = found["CODE_SWITCH", "hi"], found["UNICODE_EDGE", "hi"]
    assert (failed.n, failed.parents) == (48, 48)
    assert failed.mean_excess == pytest.approx(1.5, abs=0.2)
    assert failed.mean_loss == pytest.approx(3.5, abs=0.2)
    assert failed.lower is not None
    assert failed.upper is not None
    assert failed.lower < 1.5 < failed.upper
    assert failed.lowest_frame is not None
    assert failed.lowest_frame > 1
    assert failed.p_holm is not None
    assert kept.p_holm is not None
    assert failed.p_holm < 0.001 < 0.05 < kept.p_holm
    missing = found["CODE_SWITCH", "sw"]
    assert missing.status == "untestable (accuracy 0.20, chance 0.20)"
    assert (missing.mean_excess, missing.p) == (None, None)


def test_losses_without_a_difference_are_called_at_their_level() -> None:
    """Family-wise: two categories, Holm at 5%."""
    texts = make_texts("CODE_SWITCH", wordings=1) + make_texts("UNICODE_EDGE", wordings=1)
    draws, called = 100, 0
    for seed in range(draws):
        found = compare(texts, lambda _: 0.0, np.random.default_rng(seed))
        called += any((test.p_holm or 1) <= 0.05 for test in found.values())
    assert called <= stats.binom.ppf(0.999, draws, 0.05)


def test_few_parents_give_no_p_value_and_unchanged_tokens_no_row() -> None:
    rng = np.random.default_rng(1)
    found = compare(make_texts(concepts=19, wordings=1), lambda _: 1.0, rng)
    (test,) = found.values()
    assert (test.parents, test.p, test.lower) == (19, None, None)
    texts = make_texts(concepts=21, wordings=1)
    same = {t.stimulus_id: np.ones((FRAMES, MISMATCHED)) for t in texts}
    same |= {str(t.parent_id): np.ones((FRAMES, MISMATCHED)) for t in texts}
    inputs = LossInputs(tuple(texts), {"a": same, "b": same}, "a", "en", {})
    assert losses.compare_losses(inputs, ["b"], 0) == []


# --- cases ------------------------------------------------------------------------------------


def decide(
    levels: dict[str, Plant],
    *,
    noise: float = 0.1,
    gap: float = 0.5,
    texts: Sequence[Stimulus] | None = None,
    untestable: dict[str, str] | None = None,
) -> list[CaseDecision]:
    rng = np.random.default_rng(3)
    texts = texts or make_texts(concepts=6)
    every = {name: plant(texts, 8, own, rng, noise) for name, own in levels.items()}
    targets = {"fire": ("hi",), "earth": ("sw",)}
    return cases.decide_cases(CaseInputs(tuple(texts), every, targets, untestable or {}, gap))


def test_the_variant_that_understands_is_confirmed_and_named_control_if_tuned() -> None:
    found = decide({"global": lambda _: 1.0, "fire": lambda _: 4.0, "earth": lambda _: 3.9})
    assert {(d.expected_variant, d.acceptable_variants, d.status) for d in found} == {
        ("fire", "fire+earth", cases.CONTROL)
    }
    found = decide({"global": lambda _: 4.0, "fire": lambda _: 1.0})
    assert {(d.expected_variant, d.acceptable_variants, d.status) for d in found} == {
        ("global", "global", cases.CONFIRMED)
    }


def test_a_variant_that_reads_the_parent_badly_is_not_rewarded() -> None:
    """``fire`` loses nothing by the change, from a parent that it does not understand."""
    texts = make_texts(concepts=6)
    rng = np.random.default_rng(4)
    every = {
        "global": plant(texts, 12, lambda _: 5.0, rng, 0.1),
        "fire": plant(texts, 1, lambda _: 1.0, rng, 0.1),
    }
    found = cases.decide_cases(CaseInputs(tuple(texts), every, {}, {}, 0.5))
    assert {d.expected_variant for d in found} == {"global"}


def test_one_frame_or_one_mismatched_sentence_against_it_makes_a_tie() -> None:
    texts = make_texts(concepts=2)
    for place in (np.s_[1, :], np.s_[:, 2]):
        better, worse = (np.full((FRAMES, MISMATCHED), value) for value in (5.0, 2.0))
        better[place] = 1.0
        every = {
            name: dict.fromkeys([t.stimulus_id for t in texts], value)
            for name, value in (("a", better), ("b", worse))
        }
        found = cases.decide_cases(CaseInputs(tuple(texts), every, {}, {}, 0.5))
        assert {(d.status, d.acceptable_variants) for d in found} == {(cases.TIE, "a+b")}


def test_other_wordings_and_the_null_gap_can_refuse() -> None:
    turned = decide({"a": lambda t: 4.0 if t.wording == 1 else 2.0, "b": lambda _: 3.0})
    assert {(d.status, d.reason) for d in turned} == {
        (cases.UNCONFIRMED, "b is not worse on the other wordings"),
        (cases.UNCONFIRMED, "a is not worse on the other wordings"),
    }
    close = decide({"a": lambda _: 4.0, "b": lambda _: 3.0}, gap=2.0)
    assert {d.reason for d in close} == {"b is not further off than models that should not differ"}
    alone = decide({"a": lambda _: 4.0, "b": lambda _: 1.0}, texts=make_texts(wordings=1))
    assert {d.reason for d in alone} == {"b cannot be compared on another wording"}
    assert {d.acceptable_variants for d in (*turned, *close, *alone)} == {"a+b"}
    unknown = decide({"a": lambda _: 4.0, "b": lambda _: 1.0}, gap=math.inf)
    assert {d.status for d in unknown} == {cases.UNCONFIRMED}


def test_gaps_are_the_quantiles_of_what_should_not_differ() -> None:
    rng = np.random.default_rng(5)
    left = {str(n): rng.normal(0, 1, (1, 1)) for n in range(4000)}
    right = {name: value + rng.normal(0, 0.5) for name, value in left.items()}
    assert cases.seed_gap(left, right) == pytest.approx(0.5 * 1.96, rel=0.05)
    assert cases.untrained_gap(left) == pytest.approx(2**0.5 * 1.96, rel=0.05)
    assert cases.seed_gap(left, {}) == cases.untrained_gap({}) == math.inf


def test_a_pmi_table_gives_back_the_contrasts() -> None:
    table = contrasts.pack_pmi([np.array([3.0, 1, 2, 0, 4]), np.arange(6.0)])[contrasts.PMI]
    rows = [make_row("a"), make_row("b")]
    found = contrasts.collect(rows, table, "en")
    np.testing.assert_array_equal(found["a"], [[2, 1, 3, -1]])
    np.testing.assert_array_equal(found["b"], [[-1, -2, -3, -4, -5]])
    assert contrasts.pack_pmi([]) == {}
    with pytest.raises(ValueError, match="2 lines of pmi for 1 questions"):
        contrasts.collect(rows[:1], table, "en")


def make_row(name: str) -> results.Behaviour:
    return results.Behaviour(
        variant="v",
        stimulus_id=name,
        kind="probe",
        item_id=name,
        language="hi",
        measure=results.COMPREHENSION,
        target="en",
        frame="label",
        nats=1.0,
        tokens=1,
        bytes=1,
        nats_per_token=1.0,
        nats_per_byte=1.0,
        pmi=1.0,
        margin=1.0,
        lead=1.0,
        correct=1.0,
        choice=name,
        chance=0.2,
    )


# --- nothing from nothing ---------------------------------------------------------------------


def test_two_copies_of_a_model_are_all_ties() -> None:
    texts = make_texts()
    one = plant(texts, 8, lambda _: 4.0, np.random.default_rng(6), 1.0)
    every = {"base": one, "fire": dict(one), "earth": dict(one)}
    found = cases.decide_cases(CaseInputs(tuple(texts), every, {}, {}, 0.0))
    assert {d.status for d in found if not d.reason.startswith("no variant prefers")} == {cases.TIE}
    assert cases.choose_cases(found)[0] == []


def test_models_that_know_nothing_yield_next_to_nothing_even_without_the_filter() -> None:
    """Noise in every entry, correlated over frames; the filter of languages is switched off."""
    rng = np.random.default_rng(7)
    texts = make_texts(concepts=200)

    def noise() -> dict[str, np.ndarray]:
        shared = {t.stimulus_id: rng.normal(size=(1, MISMATCHED)) for t in texts}
        return {n: v + 0.3 * rng.normal(size=(FRAMES, MISMATCHED)) for n, v in shared.items()}

    every = {name: noise() for name in ("base", "fire", "earth")}
    gap = cases.untrained_gap(noise())
    found = cases.decide_cases(CaseInputs(tuple(texts), every, {"fire": ("hi",)}, {}, gap))
    counts = Counter(d.status for d in found)
    assert counts[cases.CONFIRMED] + counts[cases.CONTROL] <= 0.02 * len(texts)
    filtered = cases.decide_cases(CaseInputs(tuple(texts), every, {}, {"hi": "untestable"}, gap))
    assert {(d.status, d.reason) for d in filtered} == {(cases.UNCONFIRMED, "untestable")}


def test_quotas_are_filled_or_said_to_be_short() -> None:
    kinds = ("CODE_SWITCH", "UNICODE_EDGE")
    first = decide({"global": lambda _: 4.0, "fire": lambda _: 1.0})[0]
    many = [
        replace(first, stimulus_id=f"{c}-{n}", category=c, level=float(n))
        for c in kinds
        for n in range(3 if c == "UNICODE_EDGE" else 40)
    ]
    tuned = [replace(first, stimulus_id=f"t-{n}", status=cases.CONTROL) for n in range(9)]
    chosen, short = cases.choose_cases([*many, *tuned, replace(first, status=cases.TIE)])
    assert len(chosen) == cases.N_CASES
    assert sum(d.status == cases.CONTROL for d in chosen) == cases.N_CONTROLS
    assert sum(d.category == "UNICODE_EDGE" for d in chosen) == 3
    assert short == ["3 of 4 confirmed cases of UNICODE_EDGE (0 tie, 0 unconfirmed)"]
    none, short = cases.choose_cases([replace(first, status=cases.TIE)])
    assert none == []
    assert short == [
        "0 of 8 controls in which a regional variant is right",
        "0 of 4 confirmed cases of CODE_SWITCH (1 tie, 0 unconfirmed)",
    ]


def test_random_models_yield_no_case_through_the_whole_stage(
    tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--run-dir", str(tmp_path)]
    assert build_stimuli.main(["--suite", str(tiny_suite), *run, "--limit", "12"]) == 0
    line = [*run, "--device", "cpu", "--sample", "whole", "--limit", "2"]
    assert behaviour.main([*line, "--variants", "base,global,fire,untrained"]) == 0
    out = capsys.readouterr().out
    assert "0 confirmed cases and controls of 5 perturbed texts" in out
    assert "0 of 4 confirmed cases of UNICODE_EDGE (0 tie, 5 unconfirmed)" in out
    paths = RunPaths(tmp_path)
    decided = results.load_cases(paths.behaviour_cases)
    assert {(d.status, d.reason[:10]) for d in decided} == {(cases.UNCONFIRMED, "untestable")}
    tests = results.load_tests(paths.behaviour_tests)
    assert {t.variant for t in tests} == {"base", "fire"}
    assert {t.p for t in tests} == {None}
