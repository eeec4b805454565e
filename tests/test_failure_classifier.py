"""The labels, on texts whose category is known by construction."""

from __future__ import annotations

from typing import Any

import pytest

import failure_classifier as fc

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
