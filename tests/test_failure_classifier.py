"""The labels, on texts whose category is known by construction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import failure_classifier as fc
from aya_probes import stimuli, suites
from aya_probes.alignment import measures
from aya_probes.extraction import store
from aya_probes.planted.run import write_activations

LANGUAGES = ("en", "hi", "sw")


def labels(parent: str, text: str, **change: Any) -> list[str]:
    given: dict[str, Any] = {
        "language": "hi",
        "tag": "hi",
        "languages": LANGUAGES,
        "latin_script": False,
        "terms": (),
        "lexicons": {},
        "pivot": "en",
        "fertility": 1.0,
        "parent_fertility": 1.0,
    }
    return fc.labels(parent, text, **{**given, **change})


@pytest.mark.parametrize(
    ("text", "change", "expected"),
    [
        ("वह \u200bआँख फिर दिखा।", {}, "UNICODE_EDGE"),
        ("vah aankh phir dikha", {}, "TRANSLITERATION"),
        ("वह eye फिर दिखा today।", {}, "CODE_SWITCH"),
        ("वह नेत्र फिर दिखा।", {"terms": ("नेत्र",)}, "FORMAL_REGISTER"),
        ("ऊ आँख फेर लउकल।", {"tag": "bho"}, "LOW_RESOURCE_VARIANT"),
        ("वह आँख फिर दिखी।", {"fertility": 1.6}, "LOW_RESOURCE_VARIANT"),
        ("वह आँख फिर दिखी।", {}, "UNATTRIBUTED"),
    ],
)
def test_category_by_construction(text: str, change: dict[str, Any], expected: str) -> None:
    assert fc.classify(labels("वह आँख फिर दिखा।", text, **change)) == expected


def test_marks_that_the_parent_has_too_are_no_edge() -> None:
    assert labels("क\u200d्ष है ५", "क\u200d्ष था ५") == []


def test_code_switch_in_one_script_needs_words_of_both() -> None:
    lexicons = {"sw": {"jicho", "ilionekana"}, "en": {"again", "today"}}
    change = {"language": "sw", "latin_script": True, "lexicons": lexicons}
    assert labels("p", "jicho ilionekana again today", **change) == ["CODE_SWITCH"]
    assert labels("p", "jicho ilionekana tena today", **change) == []


def test_verdicts() -> None:
    assert fc.verdict(True, 1, 2) == "no_op"
    assert fc.verdict(False, -2, -1) == "regional_worse"
    assert fc.verdict(False, 1, 2) == "regional_better"
    assert fc.verdict(False, -1, 2) == "no_difference"


def test_router_pass_rates_are_the_best_of_each_kind() -> None:
    cases = [
        {"input": "eye", "language_ground_truth": "en", "acceptable_variants": ["base"]},
        {"input": "jicho", "language_ground_truth": "sw", "acceptable_variants": ["earth"]},
        {"input": "आँख", "language_ground_truth": "hi", "acceptable_variants": ["fire"]},
        {"input": "दिल", "language_ground_truth": "hi", "acceptable_variants": ["base"]},
    ]
    rates = fc.router_pass_rates(cases, ["base", "fire", "earth"])
    assert rates == {"constant": 0.5, "script_only": 0.5, "language_only": 0.75}


def test_chosen_cases_are_distinct_and_balanced() -> None:
    rows = [
        {
            "stimulus_id": f"{category}-{n}",
            "variant": "fire",
            "category": category,
            "delta": (n - 10) / 10,
            "targeted": True,
            "best": ["fire"],
            "verdict": "regional_worse",
        }
        for category in fc.CATEGORIES
        for n in range(20)
    ]
    chosen = fc.choose_cases(rows)
    assert len({c["stimulus_id"] for c in chosen}) == fc.N_CASES
    assert sum(c["control"] for c in chosen) == fc.N_CONTROLS
    for category in fc.CATEGORIES:
        assert sum(c["category"] == category for c in chosen) >= fc.N_PER_CATEGORY


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
    effects = fc.variant_effects(manifest, loaded, manifest.stimuli[-1:], {"hi": 3}, seed=0)
    grid = {c: loaded.take("content_mean", fc.probe_grid(manifest, c)[0]) for c in ("en", "hi")}
    pivot, hindi = (measures.unit(grid[c] - grid[c].mean(0))[1::2, 1:5] for c in ("en", "hi"))
    changed = hindi.copy()
    text = loaded.take("content_mean", ["X"])[0] - grid["hi"].mean(0)
    changed[2] = measures.unit(text)[1:5]
    before, after = (
        measures.alignment(np.einsum("irh,jrh->rij", pivot, other))[:, 2].mean()
        for other in (hindi, changed)
    )
    assert effects.value[0] == pytest.approx(after - before)
    assert effects.draws[0].mean() == pytest.approx(effects.value[0], abs=0.02)


def test_best_variants_keep_those_not_measurably_below() -> None:
    draws = np.linspace(-0.1, 0.1, 101)[None]
    effects = {
        "base": fc.Effects(np.array([0.0]), 0.0 * draws),
        "fire": fc.Effects(np.array([0.05]), 0.05 + draws),
        "earth": fc.Effects(np.array([-1.0]), -1.0 + draws),
    }
    assert fc.best_variants(effects) == [["fire", "base"]]
