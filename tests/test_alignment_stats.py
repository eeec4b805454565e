"""Each measure against a value derived a second way, a property, and a planted truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from aya_probes.alignment import inference, layers, measures
from aya_probes.planted import vectors as planted

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
    cosine = measures.cosines(measures.mean_centre(left), measures.mean_centre(right))
    return measures.wording_mean(cosine, same_wording=False)


# --- similarity -------------------------------------------------------------------------------


def test_cosines_equal_the_double_loop() -> None:
    left, right = plant(0, np.ones(R))
    cosine = measures.cosines(left, right)
    for row, k, m, i, j in [(0, 0, 1, 2, 3), (5, 2, 2, 7, 7), (3, 1, 0, 19, 0)]:
        a, b = left[i, k, row], right[j, m, row]
        expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert cosine[row, k, m, i, j] == pytest.approx(expected)


def test_rows_of_all_languages_are_the_cosines_of_each_pair() -> None:
    vectors = [*plant(1, np.ones(R)), plant(2, np.ones(R))[0]]
    tables = list(measures.layer_cosines(vectors))
    for a, b in itertools.product(range(3), range(3)):
        expected = measures.cosines(vectors[a], vectors[b])
        for row, table in enumerate(tables):
            np.testing.assert_allclose(table[a, b], expected[row], atol=1e-12)
    for table, alone in zip(tables, measures.layer_cosines(vectors, pivot_only=True), strict=True):
        np.testing.assert_allclose(alone[0], table[0], atol=1e-12)


def test_alignment_and_control_equal_the_definition_term_by_term() -> None:
    matrix = np.random.default_rng(1).normal(size=(1, 5, 5))
    for i in range(5):
        rows = np.mean([matrix[0, i, j] for j in range(5) if j != i])
        columns = np.mean([matrix[0, j, i] for j in range(5) if j != i])
        expected = (matrix[0, i, i] - (rows + columns) / 2) * 4 / 5
        assert measures.alignment(matrix)[0, i] == pytest.approx(expected)
        assert measures.mismatched(matrix)[0, i] == pytest.approx((rows + columns) / 2)


def test_alignment_ignores_offsets_and_scale_and_sees_the_planted_rows() -> None:
    strength = np.array([0, 0, 1.0, 1.0, 0, 0])
    near, far = plant(2, strength), plant(2, strength, offset=30.0)
    values = measures.alignment(concept_matrix(*near)).mean(1)
    moved = measures.alignment(concept_matrix(far[0] * 7, far[1])).mean(1)
    np.testing.assert_allclose(values, moved, atol=1e-6)
    assert values[2:4].min() > 0.3
    assert np.abs(values[[0, 1, 4, 5]]).max() < 0.1
    raw = measures.wording_mean(measures.cosines(*far), same_wording=True)
    assert np.abs(measures.mismatched(raw)).min() > 0.8  # what raw cosine makes of the offset


def test_identical_vectors_align_fully_without_small_sample_bias() -> None:
    same = np.repeat(np.eye(N)[:, None, None, :], K, axis=1)
    assert measures.alignment(concept_matrix(same, same)) == pytest.approx(np.ones((1, N)))


def test_constant_vectors_give_nan_never_zero() -> None:
    left = np.ones((N, K, 1, H))
    matrix = concept_matrix(left, plant(3, np.ones(R))[0][:, :, :1])
    assert np.isnan(measures.alignment(matrix)).all()
    assert np.isnan(
        inference.permutation_p(np.repeat(matrix, 3, 0), inference.permutations(N, 50, 0))
    ).all()
    assert np.isnan(layers.mismatched_commitment(matrix[:, None]))


def test_retrieval_counts_ties_as_misses() -> None:
    scores = measures.retrieval(np.array([[1.0, 0.5, 0.0], [0.2, 0.9, 0.9], [0.1, 0.3, 0.8]]))
    assert scores["top1_forward"].tolist() == [1, 0, 1]
    assert scores["top1_backward"].tolist() == [1, 1, 0]
    assert scores["two_way"].tolist() == [1, 0, 0]
    assert scores["mrr"] == pytest.approx([1.0, (0.5 + 1) / 2, (1 + 0.5) / 2])


# --- CKA --------------------------------------------------------------------------------------


def cka(left: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    return measures.unbiased_cka(measures.gram(left), measures.gram(right))


def hsic_of_the_paper(k: np.ndarray, m: np.ndarray) -> float:
    """HSIC₁ as a mean over all quadruples of distinct items (Gretton's U-statistic)."""
    quadruples = itertools.permutations(range(len(k)), 4)
    terms = [
        k[i, j] * m[i, j] + k[i, j] * m[q, r] - 2 * k[i, j] * m[i, q] for i, j, q, r in quadruples
    ]
    return float(np.mean(terms))


def test_hsic_equals_the_mean_over_quadruples_with_and_without_each_item() -> None:
    rng = np.random.default_rng(10)
    x, y = rng.normal(size=(7, 3)) + 5, rng.normal(size=(7, 4)) - 2
    whole, without = measures._hsic(measures.gram(x), measures.gram(y))
    assert whole == pytest.approx(hsic_of_the_paper(x @ x.T, y @ y.T))
    for i in range(7):
        a, b = np.delete(x, i, 0), np.delete(y, i, 0)
        assert without[i] == pytest.approx(hsic_of_the_paper(a @ a.T, b @ b.T))


def test_cka_is_one_for_rotations_and_near_zero_for_noise() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(100, 20))
    rotation = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    assert cka(x, 3 * x @ rotation + 1)[0] == pytest.approx(1.0)
    assert abs(cka(x, rng.normal(size=(100, 2000)))[0]) < 0.05
    assert np.isnan(cka(np.ones((9, 4)), x[:9])).all()
    with pytest.raises(ValueError, match="at least 4"):
        cka(x[:3], x[:3])


def test_cka_error_is_the_spread_over_repeated_samples() -> None:
    rng = np.random.default_rng(11)
    weights = rng.normal(size=(10, 30))

    def sample() -> tuple[float, float]:
        x = rng.normal(size=(80, 10))
        return cka(x, x @ weights + 3 * rng.normal(size=(80, 30)))

    estimates, errors = np.array([sample() for _ in range(150)]).T
    assert errors.mean() == pytest.approx(estimates.std(ddof=1), rel=0.25)


# --- inference --------------------------------------------------------------------------------


def test_max_t_equals_all_permutations_by_hand() -> None:
    matrix = np.random.default_rng(4).normal(size=(2, 3, 5, 5))
    orders = np.array(list(itertools.permutations(range(5))))
    sums = np.array(
        [[[sum(row[i, p[i]] for i in range(5)) for row in pair] for pair in matrix] for p in orders]
    )
    # Over all permutations, the moments of Hoeffding's formula are those of the sums themselves.
    z = (sums - sums.mean(0)) / sums.std(0)
    own, joint = inference.max_t(matrix, orders)
    for pair, row in itertools.product(range(2), range(3)):
        observed = z[0, pair, row] - 1e-9  # the identity comes first
        expected = ((z[:, pair, 1:].max(1) >= observed).sum() + 1) / (len(orders) + 1)
        assert own[pair, row] == pytest.approx(expected)
        expected = ((z[:, :, 1:].max((1, 2)) >= observed).sum() + 1) / (len(orders) + 1)
        assert joint[pair, row] == pytest.approx(expected)


def test_max_t_gathers_and_multiplies_to_the_same_p(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = measures.wording_mean(
        measures.cosines(*plant(5, np.full(R, 0.4))), same_wording=False
    )[None]
    orders = inference.permutations(N, 300, 0)
    product = inference.max_t(matrix, orders)
    monkeypatch.setattr(inference, "ONEHOT_CONCEPTS", 0)
    monkeypatch.setattr(inference, "CHUNK_VALUES", 1_000)
    np.testing.assert_array_equal(inference.max_t(matrix, orders), product)


def test_joint_p_is_never_below_the_pairs_own() -> None:
    matrix = planted.matrices(planted.draw(planted.Plant(), 1, languages=4)[0])
    own, joint = inference.max_t(matrix, inference.permutations(N, 200, 0))
    assert (joint >= own).all()
    assert (joint > own).any()


def test_family_wise_error_is_at_its_nominal_rate() -> None:
    def rejected(seed: int) -> bool:
        matrix = planted.matrices(planted.draw(planted.Plant(hidden=32), seed)[0])
        return bool(
            (
                inference.permutation_p(matrix[0], inference.permutations(N, 199, seed))[1:] <= 0.05
            ).any()
        )

    false = sum(rejected(seed) for seed in range(400))
    assert false <= stats.binom.ppf(0.999, 400, 0.05)
    assert false >= stats.binom.ppf(0.001, 400, 0.05)  # a test that never rejects is none


def test_expanded_interval_is_wider_than_percentiles_by_the_t_factor() -> None:
    values = np.random.default_rng(7).normal(size=N)
    weights = inference.resample_weights(N, 20_000, 0)
    lower, upper = inference.expanded_interval(values, weights)
    se = values.std(ddof=1) / np.sqrt(N)
    assert upper - lower == pytest.approx(2 * 2.093 * se, rel=0.03)  # t(19)
    assert lower < values.mean() < upper


def test_intervals_of_many_cells_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(8).normal(size=(3, 4, N))
    weights = inference.resample_weights(N, 500, 0)
    single = inference.expanded_interval(values[1, 2], weights)
    monkeypatch.setattr(inference, "CHUNK_VALUES", 1_000)
    lower, upper = inference.expanded_interval(values, weights)
    assert (lower[1, 2], upper[1, 2]) == pytest.approx(single)


def test_sign_flip_is_exact_for_few_units_and_agrees_with_scipy() -> None:
    assert inference.sign_flip_p(np.ones(3), count=0, seed=0, two_sided=False) == 1 / 8
    few = np.random.default_rng(8).normal(0.3, 1, size=(4, 10))
    expected = [
        stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=9_999).pvalue
        for d in few
    ]
    np.testing.assert_allclose(inference.sign_flip_p(few, count=0, seed=0), expected)
    assert np.isnan(inference.sign_flip_p(np.full(5, np.nan), count=0, seed=0))


def test_holm_by_hand() -> None:
    adjusted = inference.holm(np.array([0.01, np.nan, 0.04, 0.03]))
    np.testing.assert_allclose(adjusted, [0.03, np.nan, 0.06, 0.06])


def test_language_labels_are_permuted_exactly() -> None:
    values = np.array([0.5, 0.4, 0.3, 0.1, 0.1, 0.0])
    p, floor = inference.label_permutation_p(values, np.array([1, 1, 1, 0, 0, 0], dtype=bool))
    assert (p, floor) == (1 / 20, 1 / 20)
    p, _ = inference.label_permutation_p(values, np.array([1, 1, 0, 1, 0, 0], dtype=bool))
    assert p == 3 / 20  # .5+.4 with .3, .1 or the other .1 reach it
    with pytest.raises(ValueError, match="both groups"):
        inference.label_permutation_p(values, np.ones(6, dtype=bool))


# --- layers -----------------------------------------------------------------------------------


def test_commitment_needs_three_rows_of_half_the_peak() -> None:
    mean = np.array([0.9, 0.3, 0.1, 0.5, 0.6, 0.5, 0.1])
    p = np.array([0.001, 0.001, 0.2, 0.01, 0.01, 0.04, 0.5])
    assert layers.commitment_layer(mean, p) == 3
    assert layers.commitment_layer(mean, np.full(7, 0.2)) is None
    assert layers.commitment_layer(np.full(7, np.nan), p) is None


def test_release_needs_three_rows_or_all_that_are_left() -> None:
    p = np.zeros(10)
    mean = np.array([0, 1, 1, 1, 0, 1, 0, 0, 0, 1.0])
    assert layers.release_layer(mean, p, 1) == 6  # the single dip at 4 is none
    assert layers.release_layer(np.array([0, 1, 1, 1, 1, 0, 0.0]), p[:7], 1) == 5
    assert layers.release_layer(np.ones(7), p[:7], 1) is None


def test_concept_commitment_and_its_rate_on_mismatched_pairs() -> None:
    wins = np.zeros((7, 2))
    wins[3:6, 1] = 1.0
    assert layers.concept_commitment(wins) == [None, 3]
    rng = np.random.default_rng(12)
    similarity = rng.normal(size=(12, 6, N, N))
    assert layers.mismatched_commitment(similarity) == 0  # independent rows: never three in a run
    held = np.repeat(rng.normal(size=(1, 1, N, N)), 12, 0)
    off = np.where(np.eye(N, dtype=bool), -np.inf, held[0, 0])
    winners = (off == off.max(0)) & (off == off.max(1, keepdims=True))
    assert layers.mismatched_commitment(held) == pytest.approx(winners.sum() / (N * (N - 1)))


def test_shape_of_planted_curves() -> None:
    rng = np.random.default_rng(9)
    noise = rng.normal(size=(7, N)) * 0.05
    peak = np.array([0, 0.1, 0.3, 0.6, 0.4, 0.2, 0.05])[:, None] + noise
    assert layers.shape_label(peak, seed=0) == ("RISE_PEAK_COLLAPSE", 3)
    assert layers.shape_label(np.linspace(0, 1, 7)[:, None] + noise, seed=0)[0] == "MONOTONE_RISE"
    assert layers.shape_label(np.linspace(1, 0, 7)[:, None] + noise, seed=0)[0] == "MONOTONE_FALL"
    flat = [layers.shape_label(rng.normal(size=(7, N)), seed=s)[0] for s in range(100)]
    assert sum(label == "RISE_PEAK_COLLAPSE" for label in flat) <= 5
