"""What the lens claims: advantages derived a second way, and verdicts on planted tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aya_probes.alignment import inference
from aya_probes.lens import claims
from aya_probes.lens.claims import CellLanguages, LensTests
from aya_probes.planted import lens as planted
from aya_probes.planted.lens import LANGUAGES, LAYERS, LensPlant

CELL = CellLanguages(LANGUAGES, source="fr", target="hi", pivot="en")
EARLY = np.where((np.arange(LAYERS) >= 5) & (np.arange(LAYERS) <= 10), 3.0, 0.0)
LATE = np.where(np.arange(LAYERS) >= 12, 5.0, 0.0)


def test_an_advantage_is_against_other_words_and_other_prompts() -> None:
    matrix = np.random.default_rng(0).normal(size=(3, 6, 6))
    found = claims.specific(matrix)
    for layer in range(3):
        for i in range(6):
            others = [j for j in range(6) if j != i]
            words = np.mean([matrix[layer, i, j] for j in others])
            prompts = np.mean([matrix[layer, j, i] for j in others])
            wanted = matrix[layer, i, i] - (words + prompts) / 2
            assert found[layer, i] == pytest.approx(wanted)
    moved = matrix + np.arange(6) * 7.0 + np.arange(6)[:, None] * 3.0  # of words, of prompts
    np.testing.assert_allclose(claims.specific(moved).mean(-1), found.mean(-1))


def test_matrices_that_are_tested_together_get_their_own_p_values() -> None:
    rng = np.random.default_rng(1)
    orders = inference.permutations(10, 199, 0)
    every, some = np.ones(10, dtype=bool), np.arange(10) != 4
    cases = {name: (rng.normal(size=(4, 10, 10)), every) for name in "ab"}
    cases["c"] = (rng.normal(size=(4, 10, 10)), some)
    cases["d"] = (rng.normal(size=(4, 10, 10)), np.arange(10) < 7)
    found = claims.compare_concepts(cases, orders)
    assert set(found) == {"a", "b", "c"}  # seven concepts are too few
    for name, tested in found.items():
        matrix, kept = cases[name]
        part = matrix[:, kept][:, :, kept]
        wanted = inference.permutation_p(part, inference.induced(orders, kept))
        np.testing.assert_array_equal(tested.p, wanted)


def _tests(plant: LensPlant, seed: int = 0) -> tuple[LensTests, LensTests]:
    orders = inference.permutations(plant.n, 499, seed)
    plain, fitted = planted.draw(plant, seed)
    return (
        claims.compare_languages(plain, CELL, orders),
        claims.compare_languages(fitted, CELL, orders),
    )


def test_the_verdict_is_what_is_planted() -> None:
    nothing = _tests(LensPlant())
    alone = _tests(LensPlant({"hi": LATE}))
    pivot = _tests(LensPlant({"en": EARLY, "hi": LATE}))
    shared = _tests(LensPlant({"en": EARLY, "es": EARLY, "ar": EARLY, "hi": LATE}))
    source = _tests(LensPlant({"fr": EARLY, "hi": LATE}))
    assert claims.claim(*nothing, CELL).verdict == claims.claim(*alone, CELL).verdict == "none"
    found = claims.claim(*pivot, CELL)
    assert (found.verdict, found.layers, found.others) == ("pivot", tuple(range(5, 11)), ())
    assert pivot[0].layers_present("hi") == list(range(12, LAYERS))
    found = claims.claim(*shared, CELL)
    assert (found.verdict, found.others) == ("shared", ("es", "ar"))
    assert claims.claim(*source, CELL).others == ("fr",)
    assert claims.claim(*source, CELL).verdict == "none"
    assert claims.claim(pivot[0], alone[1], CELL).verdict == "disagree"
    into_pivot = replace(CELL, target="en")
    assert claims.claim(*pivot, into_pivot).verdict == ""


def test_concepts_without_a_word_of_their_own_are_left_out() -> None:
    plant = LensPlant({"en": EARLY, "hi": LATE})
    table = planted.draw(plant, 3)[0]
    orders = inference.permutations(plant.n, 199, 0)
    lost = table.copy()
    lost[:, :, LANGUAGES.index("en"), :5] = np.nan
    tests = claims.compare_languages(lost, CELL, orders)
    assert tests.present["en"].values.shape == (LAYERS, 15)
    assert tests.leads["en"].kept.tolist() == [False] * 5 + [True] * 15
    assert tests.present["hi"].values.shape == (LAYERS, 20)
    lost[:, :, LANGUAGES.index("en"), :13] = np.nan
    tests = claims.compare_languages(lost, CELL, orders)
    assert "en" not in tests.present
    assert claims.claim(tests, tests, CELL).verdict == "untested"
