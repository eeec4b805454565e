"""Measures that a few dimensions cannot rule, and alignment against a concept's own category."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from aya_probes.alignment import inference, measures
from aya_probes.planted import vectors as planted

N, K, L, H = 20, 3, 4, 32
SHARED = planted.strength(np.array([0.0, 0.3, 0.3, 0.0]))


def plant(seed: int, concept: np.ndarray = SHARED) -> np.ndarray:
    """Return two languages ``[2, n, k, l, h]`` that share concepts at layers 1 and 2."""
    made = planted.Plant(concept, np.zeros(L), np.full(L, 16.0), hidden=H, spread=0.2)
    return planted.draw(made, seed)[0]


def aligned(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean A between different wordings ``[l]``, and the p-value of each layer alone."""
    similarity = measures.wording_mean(measures.cosines(left, right), same_wording=False)
    null = inference.permutations(N, 999, 0)
    p = [inference.permutation_p(layer[None], null)[0] for layer in similarity]
    return measures.alignment(similarity).mean(-1), np.array(p)


# --- standardise ------------------------------------------------------------------------------


def test_standardised_vectors_are_z_scores_of_each_language_and_layer() -> None:
    vectors = plant(0)[0].astype(np.float64)
    expected = stats.zscore(vectors.reshape(N * K, L, H), axis=0).reshape(vectors.shape)
    np.testing.assert_allclose(measures.standardise(vectors), expected, atol=1e-9)


def test_standardising_ignores_the_scale_and_offset_of_every_dimension() -> None:
    rng = np.random.default_rng(1)
    vectors = plant(1)[0].astype(np.float64)
    found = measures.standardise(vectors)
    moved = vectors * rng.uniform(0.01, 100, size=(L, H)) + rng.normal(size=(L, H))
    np.testing.assert_allclose(measures.standardise(moved), found, atol=1e-6)
    np.testing.assert_allclose(measures.standardise(found), found, atol=1e-9)
    order = rng.permutation(N)  # the scale does not know which concept a vector belongs to
    np.testing.assert_allclose(measures.standardise(vectors[order]), found[order], atol=1e-9)


def test_a_dimension_without_variance_and_a_constant_layer_become_zero() -> None:
    vectors = plant(2)[0].astype(np.float64)
    vectors[..., 5] = 3.0
    vectors[:, :, 2] = 1.0
    found = measures.standardise(vectors)
    assert (found[..., 5] == 0).all()
    assert (found[:, :, 2] == 0).all()
    rest = np.delete(found, 5, axis=-1)[:, :, [0, 1, 3]]
    np.testing.assert_allclose(rest.std((0, 1)), 1)
    assert np.isnan(measures.unit(found)[:, :, 2]).all()


def test_a_rogue_dimension_no_longer_hides_a_signal() -> None:
    vectors = plant(3)
    hidden = vectors.copy()
    hidden[..., 7] += 200 * np.random.default_rng(3).normal(size=(2, N, K, L))  # apart in each text
    assert aligned(*map(measures.mean_centre, vectors))[1][1:3].tolist() == [0.001, 0.001]
    assert (aligned(*map(measures.mean_centre, hidden))[1][1:3] > 0.05).all()
    robust, p = aligned(*map(measures.standardise, hidden))
    assert p[1:3].tolist() == [0.001, 0.001]
    assert robust[1:3].min() > 0.2
    assert np.abs(robust[[0, 3]]).max() < 0.1
    assert (p[[0, 3]] > 0.05).all()


def test_a_rogue_dimension_no_longer_fakes_a_signal() -> None:
    vectors = plant(4, np.zeros(L))
    vectors[:, :3, ..., 7] += 200  # three concepts share one dimension, the others nothing
    assert aligned(*map(measures.mean_centre, vectors))[0].min() > 0.4
    assert np.abs(aligned(*map(measures.standardise, vectors))[0]).max() < 0.1


# --- dominance --------------------------------------------------------------------------------


def test_dominance_by_hand() -> None:
    vectors = np.array([[3.0, 4, 0], [0, 10, 0], [0, 0, 0]])[:, None]  # squares .36 .64 and 0 1
    np.testing.assert_allclose(measures.dominance(vectors, (1, 2, 10))[:, 0], [0.82, 1, 1])


def test_dominance_is_the_share_of_dimensions_unless_some_rule() -> None:
    vectors = np.random.default_rng(5).normal(size=(4_000, 2, 50))
    np.testing.assert_allclose(
        measures.dominance(vectors), np.tile([[1 / 50], [3 / 50], [10 / 50]], 2), rtol=0.15
    )
    vectors[:, 1, [8, 9, 10]] *= 40
    one, three, ten = measures.dominance(vectors)[:, 1]
    assert one == pytest.approx(1 / 3, abs=0.05)
    assert three > 0.95
    assert ten > three
    scaled = measures.standardise(vectors[:, None])[:, 0]
    np.testing.assert_allclose(
        measures.dominance(scaled)[:, 1], measures.dominance(scaled)[:, 0], rtol=0.15
    )


# --- within category --------------------------------------------------------------------------


def test_alignment_within_equals_the_definition_term_by_term() -> None:
    matrix = np.random.default_rng(6).normal(size=(2, 7, 7))
    blocks = np.array([0, 1, 0, 2, 1, 0, 3])
    expected = []
    for i in (0, 1, 2, 4, 5):  # 3 and 6 are alone in their category
        peers = [j for j in range(7) if blocks[j] == blocks[i] and j != i]
        control = (matrix[:, i, peers].mean(1) + matrix[:, peers, i].mean(1)) / 2
        expected.append((matrix[:, i, i] - control) * 9 / 10)
    found = measures.alignment_within(matrix, blocks, centred_on=10)
    np.testing.assert_allclose(found, np.array(expected).T)


def test_within_one_category_is_alignment() -> None:
    matrix = np.random.default_rng(7).normal(size=(2, 6, 6))
    np.testing.assert_allclose(
        measures.alignment_within(matrix, np.zeros(6)), measures.alignment(matrix)
    )


def test_a_shared_category_is_alignment_but_not_within_it() -> None:
    rng = np.random.default_rng(8)
    field = np.repeat(rng.normal(size=(5, 1, 1, H)), 4, axis=0)  # of five categories
    own = rng.normal(size=(N, 1, 1, H))
    blocks = np.repeat(np.arange(5), 4)

    def measured(signal: np.ndarray) -> tuple[float, float]:
        left, right = (
            measures.standardise(signal + rng.normal(size=(N, K, 1, H))) for _ in range(2)
        )
        similarity = measures.wording_mean(measures.cosines(left, right), same_wording=False)
        inside = measures.alignment_within(similarity, blocks)
        return float(measures.alignment(similarity).mean()), float(inside.mean())

    category_only, within = measured(field)
    assert category_only > 0.3
    assert abs(within) < 0.1
    both, within = measured(field + own)
    assert within > 0.2
    assert both > within


# --- relative to the ceiling ------------------------------------------------------------------


def test_disattenuation_undoes_noise() -> None:
    """A true correlation of 0.5, seen through ceilings of 0.9 and 0.4, is found again."""
    assert measures.disattenuated(
        np.array(0.5 * np.sqrt(0.9 * 0.4)), np.array(0.9), np.array(0.4)
    ) == pytest.approx(0.5)
    found = measures.disattenuated(
        np.full(4, 0.1), np.array([0.5, 0.0, -0.2, np.nan]), np.full(4, 0.5)
    )
    np.testing.assert_allclose(found, [0.2, np.nan, np.nan, np.nan])
