"""Each measure against a value derived a second way, a property, and a planted truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import alignment_stats as st

N, K, R, H = 20, 3, 6, 48


def plant(seed: int, strength: np.ndarray, *, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two languages that share a concept signal of ``strength`` per row."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(N, 1, 1, H)) * strength[:, None]
    return (
        signal + rng.normal(size=(N, K, R, H)) + offset,
        signal + rng.normal(size=(N, K, R, H)) - 2 * offset,
    )


def concept_matrix(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    cosine = st.cosines(st.mean_centre(left), st.mean_centre(right))
    return st.wording_mean(cosine, same_wording=False)


def test_cosines_equal_the_double_loop() -> None:
    left, right = plant(0, np.ones(R))
    cosine = st.cosines(left, right)
    for row, k, m, i, j in [(0, 0, 1, 2, 3), (5, 2, 2, 7, 7), (3, 1, 0, 19, 0)]:
        a, b = left[i, k, row], right[j, m, row]
        expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert cosine[row, k, m, i, j] == pytest.approx(expected)


def test_alignment_equals_the_definition_term_by_term() -> None:
    matrix = np.random.default_rng(1).normal(size=(1, 5, 5))
    for i in range(5):
        rows = np.mean([matrix[0, i, j] for j in range(5) if j != i])
        columns = np.mean([matrix[0, j, i] for j in range(5) if j != i])
        expected = (matrix[0, i, i] - (rows + columns) / 2) * 4 / 5
        assert st.alignment(matrix)[0, i] == pytest.approx(expected)


def test_alignment_ignores_offsets_and_scale_and_sees_the_planted_rows() -> None:
    strength = np.array([0, 0, 1.0, 1.0, 0, 0])
    near, far = plant(2, strength), plant(2, strength, offset=30.0)
    values = st.alignment(concept_matrix(*near)).mean(1)
    moved = st.alignment(concept_matrix(far[0] * 7, far[1])).mean(1)
    np.testing.assert_allclose(values, moved, atol=1e-6)
    assert values[2:4].min() > 0.3
    assert np.abs(values[[0, 1, 4, 5]]).max() < 0.1
    raw = st.wording_mean(st.cosines(*far), same_wording=True)
    assert np.abs(st.mismatched(raw)[:]).min() > 0.9  # what raw cosine makes of the offset


def test_identical_vectors_align_fully_without_small_sample_bias() -> None:
    same = np.repeat(np.eye(N)[:, None, None, :], K, axis=1)
    assert st.alignment(concept_matrix(same, same)) == pytest.approx(np.ones((1, N)))


def test_constant_vectors_give_nan_never_zero() -> None:
    left = np.ones((N, K, 1, H))
    matrix = concept_matrix(left, plant(3, np.ones(R))[0][:, :, :1])
    assert np.isnan(st.alignment(matrix)).all()
    assert np.isnan(st.permutation_p(np.repeat(matrix, 3, 0), st.permutations(N, 50, 0))).all()


def test_permutation_p_equals_all_permutations_by_hand() -> None:
    matrix = np.random.default_rng(4).normal(size=(3, 5, 5))
    orders = np.array(list(itertools.permutations(range(5))))
    sums = np.array([[sum(row[i, p[i]] for i in range(5)) for row in matrix] for p in orders])
    z = (sums - sums.mean(0)) / sums.std(0)
    observed = z[0]  # the identity comes first
    expected = [
        (sum(z[:, 1:].max(1) >= value - 1e-12) + 1) / (len(orders) + 1) for value in observed
    ]
    np.testing.assert_allclose(st.permutation_p(matrix, orders), expected)


def test_family_wise_error_is_at_its_nominal_rate() -> None:
    orders = st.permutations(N, 400, 5)
    false = sum(
        (
            st.permutation_p(concept_matrix(*plant(seed, np.zeros(R), offset=5)), orders)[1:]
            <= 0.05
        ).any()
        for seed in range(500)
    )
    assert false <= 41  # binomial(500, .05): more than 41 has probability 0.001


def test_retrieval_counts_ties_as_misses() -> None:
    scores = st.retrieval(np.array([[1.0, 0.5, 0.0], [0.2, 0.9, 0.9], [0.1, 0.3, 0.8]]))
    assert scores["top1_forward"].tolist() == [1, 0, 1]
    assert scores["top1_backward"].tolist() == [1, 1, 0]
    assert scores["two_way"].tolist() == [1, 0, 0]
    assert scores["mrr"] == pytest.approx([1.0, (0.5 + 1) / 2, (1 + 0.5) / 2])


def test_cka_is_one_for_rotations_and_near_zero_for_noise() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(100, 20))
    rotation = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    assert st.unbiased_cka(x, 3 * x @ rotation + 1) == pytest.approx(1.0)
    assert abs(st.unbiased_cka(x, rng.normal(size=(100, 2000)))) < 0.05
    with pytest.raises(ValueError, match="at least 4"):
        st.unbiased_cka(x[:3], x[:3])


def test_expanded_interval_is_wider_than_percentiles_by_the_t_factor() -> None:
    values = np.random.default_rng(7).normal(size=N)
    weights = st.resample_weights(N, 20_000, 0)
    lower, upper = st.expanded_interval(values, weights)
    se = values.std(ddof=1) / np.sqrt(N)
    assert upper - lower == pytest.approx(2 * 2.093 * se, rel=0.03)  # t(19)
    assert lower < values.mean() < upper


def test_sign_flip_is_exact_for_few_units_and_seeded_for_many() -> None:
    assert st.sign_flip_p(np.ones(3), count=0, seed=0, two_sided=False) == 1 / 8
    many = np.random.default_rng(8).normal(size=30)
    assert st.sign_flip_p(many, count=999, seed=1) == st.sign_flip_p(many, count=999, seed=1)


def test_holm_by_hand() -> None:
    adjusted = st.holm(np.array([0.01, np.nan, 0.04, 0.03]))
    np.testing.assert_allclose(adjusted, [0.03, np.nan, 0.06, 0.06])


def test_commitment_needs_three_rows_of_half_the_peak() -> None:
    mean = np.array([0.9, 0.3, 0.1, 0.5, 0.6, 0.5, 0.1])
    p = np.array([0.001, 0.001, 0.2, 0.01, 0.01, 0.04, 0.5])
    assert st.commitment_layer(mean, p) == 3
    assert st.commitment_layer(mean, np.full(7, 0.2)) is None


def test_shape_of_planted_curves() -> None:
    rng = np.random.default_rng(9)
    noise = rng.normal(size=(7, N)) * 0.05
    peak = np.array([0, 0.1, 0.3, 0.6, 0.4, 0.2, 0.05])[:, None] + noise
    assert st.shape_label(peak, seed=0) == ("RISE_PEAK_COLLAPSE", 3)
    assert st.shape_label(np.linspace(0, 1, 7)[:, None] + noise, seed=0)[0] == "MONOTONE_RISE"
    assert st.shape_label(np.linspace(1, 0, 7)[:, None] + noise, seed=0)[0] == "MONOTONE_FALL"
    flat = [st.shape_label(rng.normal(size=(7, N)), seed=s)[0] for s in range(100)]
    assert sum(label == "RISE_PEAK_COLLAPSE" for label in flat) <= 5
