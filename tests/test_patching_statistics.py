"""Patching's tests find what is planted, and reject as often as they should where nothing is."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from aya_probes.alignment import inference
from aya_probes.alignment.contrasts import Draws
from aya_probes.errors import StudyError
from aya_probes.patching import analysis, donors, statistics
from aya_probes.patching.analysis import Curve
from aya_probes.planted import patch_scores, patchable, patched
from aya_probes.planted.patch_scores import ScorePlant


def test_the_effect_is_the_interaction_of_a_linear_model() -> None:
    rng = np.random.default_rng(0)
    n = 6
    scores = rng.normal(size=(2, n, n))
    rows = np.repeat(np.eye(n), n, axis=0)
    columns = np.tile(np.eye(n), (n, 1))
    design_matrix = np.hstack([np.ones((n * n, 1)), rows, columns])
    for layer in range(2):
        flat = scores[layer].ravel()
        fitted = design_matrix @ np.linalg.lstsq(design_matrix, flat, rcond=None)[0]
        residual = (flat - fitted).reshape(n, n).diagonal() * n / (n - 1)
        assert statistics.effect(scores)[layer] == pytest.approx(residual)
    off = scores[0][~np.eye(n, dtype=bool)].mean()
    assert statistics.effect(scores)[0].mean() == pytest.approx(scores[0].diagonal().mean() - off)


def test_rows_and_columns_are_no_effect_and_a_rise_is_one() -> None:
    rng = np.random.default_rng(1)
    additive = rng.normal(size=(3, 8, 1)) + rng.normal(size=(3, 1, 8))
    assert np.abs(statistics.effect(additive)).max() < 1e-12
    risen = additive + 2.5 * np.eye(8)
    assert statistics.effect(risen).mean(1) == pytest.approx(2.5)


def test_the_word_asked_for_carries_no_interaction() -> None:
    rng = np.random.default_rng(2)
    additive = rng.normal(size=(2, 8, 1)) + rng.normal(size=(2, 1, 8))
    asked = np.roll(np.eye(8, dtype=bool), 1, axis=1)
    asked[3] = False  # a concept whose prompt's own word is not told apart
    fallen = additive - 7.0 * asked
    assert statistics.without_asked(fallen, asked) == pytest.approx(additive, abs=1e-6)
    free = np.zeros((8, 8), dtype=bool)
    assert statistics.without_asked(fallen, free) == pytest.approx(fallen)
    with pytest.raises(ValueError, match="no effect of it"):
        statistics.without_asked(fallen, np.eye(8, dtype=bool))


def test_sign_flips_agree_with_all_of_them() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0.6, 1, size=(3, 8))
    found = statistics.larger_p(values, count=20_000, seed=0)
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    t = signs @ (values / np.sqrt((values**2).sum(1))[:, None]).T
    largest, observed = t[:, 1:].max(1), t[0]
    exact = [(t[:, 0] >= observed[0] - 1e-9).mean()]
    exact += [(largest >= value - 1e-9).mean() for value in observed[1:]]
    assert found == pytest.approx(exact, abs=0.01)
    assert statistics.larger_p(3 * values, count=500, seed=0) == pytest.approx(
        statistics.larger_p(values, count=500, seed=0)
    )
    assert np.isnan(statistics.larger_p(np.zeros((2, 8)), count=10, seed=0)).all()


@pytest.mark.parametrize(
    ("holds", "wanted"),
    [
        ("0011100", (2, 4)),
        ("1111000", (1, 3)),
        ("0110111", (4, 6)),
        ("0110110", None),
        ("0000111", (4, 6)),
        ("0111011", (1, 3)),
    ],
)
def test_edges_of_the_first_run_of_three(holds: str, wanted: tuple[int, int] | None) -> None:
    assert statistics.edges(np.array([mark == "1" for mark in holds])) == wanted


def rejected(plant: ScorePlant, draws: int) -> np.ndarray:
    """Return how often each test of 99 draws rejects: concept, not neutral, beyond, window."""
    found = []
    for seed in range(draws):
        drawn = patch_scores.draw(plant, seed)
        orders = inference.permutations(plant.n, 99, seed)
        both = [statistics.without_asked(s, drawn.asked) for s in (drawn.target, drawn.source)]
        moved, away = map(statistics.effect, both)
        p = (
            statistics.concept_p(both[0], orders),
            statistics.larger_p(moved - away, count=99, seed=seed),
        )
        weights = inference.resample_weights(plant.n, 50, seed)
        window = statistics.estimate_window(moved, away, p, weights)
        raw = statistics.concept_p(drawn.target, orders)
        calls = [(values[1:] <= 0.05).any() for values in (p[0], raw, p[1])]
        found.append([*calls, window.first is not None])
    return np.array(found, dtype=float).mean(0)


def test_error_rates_over_five_hundred_nulls() -> None:
    # Binomial: at most 37 of 500 at a level of 5% (99% of the draws).
    concept, raw, beyond, window = rejected(ScorePlant(n=10), 500)
    assert concept <= 37 / 500
    assert beyond <= 37 / 500
    assert window <= 37 / 500
    assert raw > 37 / 500  # what making the asked word neutral is for


def test_what_both_languages_carry_is_no_window() -> None:
    size = np.where(
        (np.arange(patch_scores.LAYERS) > 4) & (np.arange(patch_scores.LAYERS) < 12), 1.5, 0.0
    )
    alike = ScorePlant(target=size, source=size, n=10)
    concept, _, beyond, window = rejected(alike, 100)
    assert concept > 0.9
    assert max(beyond, window) <= 0.11  # 99% of the draws of a binomial of 5% over 100
    moved = rejected(replace(alike, source=np.zeros(patch_scores.LAYERS), n=16), 30)
    assert moved[3] > 0.8


DRAWS = Draws(inference.resample_weights(patchable.CONCEPTS, 200, 0), 999, 0)


@pytest.fixture(scope="module")
def planted() -> dict[str, dict[tuple[str, str, str], Curve]]:
    return {
        kind: {
            (c.condition, c.source, c.patched): c
            for c in analysis.curves(patched.measure(kind, gather=2, read=5))
        }
        for kind in ("abstract", "direct")
    }


def test_a_shared_concept_moves_across_languages_in_its_layers(
    planted: dict[str, dict[tuple[str, str, str], Curve]],
) -> None:
    curves = planted["abstract"]
    for condition, source in (("mean_sources", "mean"), ("source", "sw"), ("source", "hi")):
        rows, window = analysis.rows_of("base", curves[condition, source, "onward"], DRAWS)
        moved = [row.p_moved for row in rows]
        assert moved[:5] == pytest.approx([1] * 5, abs=1e-4)  # up to layer read − 1
        assert moved[5] == pytest.approx(0, abs=1e-4)
        assert all(row.p_source == pytest.approx(0, abs=1e-4) for row in rows)
        assert [row.p_effect <= 0.05 for row in rows if row.p_effect is not None][1:5] == [True] * 4
        assert window.last == 4
    rows, window = analysis.rows_of("base", curves["mean_sources", "mean", "single"], DRAWS)
    assert [round(row.p_moved or 0, 3) for row in rows] == [0, 0, 1, 1, 1, 0]
    assert (window.first, window.last) == (2, 4)  # from layer gather to read − 1
    assert window.first_interval == (2, 2)
    assert window.last_interval == (4, 4)
    assert window.found_share == 1.0
    assert [round(row.p_asked or 0, 3) for row in rows] == [1, 1, 0, 0, 0, 1]


def test_a_direct_translation_is_not_moved_by_another_language(
    planted: dict[str, dict[tuple[str, str, str], Curve]],
) -> None:
    curves = planted["direct"]
    for key, curve in curves.items():
        rows, window = analysis.rows_of("base", curve, DRAWS)
        if key[0] == "same_language":  # which moves the word, as a word of that language
            assert [round(row.p_moved or 0, 3) for row in rows] == [1, 1, 1, 1, 1, 0]
            continue
        assert window.first is None, key
        assert max(row.p_moved or 0 for row in rows) < 0.05, key


def test_controls_move_nothing_in_a_model_that_shares_concepts(
    planted: dict[str, dict[tuple[str, str, str], Curve]],
) -> None:
    curves = planted["abstract"]
    for condition in ("random", "mean_concepts", "wrong_concept"):
        rows, window = analysis.rows_of("base", curves[condition, "mean", "onward"], DRAWS)
        assert window.first is None, condition
        assert max(row.p_moved or 0 for row in rows) < 0.1, condition
    mismatched = curves["mismatched_layer", "mean", "onward"]
    rows, _ = analysis.rows_of("base", mismatched, DRAWS)
    # Layer 2 gets the vector of layer 5, which still holds the concept; layer 4 that of layer 1.
    assert (rows[4].p_moved or 0) < 0.05
    centred = curves["centred", "mean", "onward"]
    rows, _ = analysis.rows_of("base", centred, DRAWS)
    assert rows[3].p_moved == pytest.approx(1, abs=1e-2)


def test_a_planted_translator_has_its_blocks_in_order() -> None:
    with pytest.raises(ValueError, match="gather 3 and read 3"):
        patchable.model("abstract", 3, 3)


def test_donors_are_never_asked_for_and_never_in_the_other_half() -> None:
    half = np.array([0, 1, 1, 0, 0, 1, 0, 1, 1])
    for seed in range(20):
        donor = donors.donors(half, seed)
        assert sorted(donor) == list(range(9))
        assert (donor != np.arange(9)).all()
        assert (half[donor] == half).all()
        assert (donor[donor] != np.arange(9)).all()  # so that a wrong concept is a third one
    with pytest.raises(StudyError, match="2 concepts share their shots, at least 3"):
        donors.donors(np.array([0, 0, 1, 0, 1]), 0)
