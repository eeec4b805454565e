"""Each measure against a value derived a second way, a property, and a planted truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from aya_probes.alignment import inference, layers, measures

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


def test_csls_by_hand() -> None:
    matrix = np.array([[0.9, 0.8, 0.1], [0.3, 0.7, 0.2], [0.5, 0.9, 0.6]])
    found = measures.csls(matrix, neighbours=2)
    rows = np.array([0.85, 0.5, 0.75])  # means of the two largest values of each row
    columns = np.array([0.7, 0.85, 0.4])
    np.testing.assert_allclose(found, 2 * matrix - rows[:, None] - columns)
    np.testing.assert_allclose(  # with fewer columns than neighbours, all are neighbours
        measures.csls(matrix), 2 * matrix - matrix.mean(1)[:, None] - matrix.mean(0)
    )


def test_csls_retrieves_what_a_hub_hides() -> None:
    rng = np.random.default_rng(14)
    matrix = 0.3 * np.eye(40) + rng.uniform(0, 0.05, size=(40, 40))
    hubs = np.where(np.arange(40) < 3, 0.4, 0.0)  # three columns are near to every row
    plain, scaled = (
        measures.retrieval(m)["two_way"].mean()
        for m in (matrix + hubs, measures.csls(matrix + hubs))
    )
    assert plain < 0.2
    assert scaled == 1
    assert abs(measures.hub_skew(matrix)) < 1
    assert measures.hub_skew(matrix + hubs) > 2


def test_hub_skew_is_the_skewness_of_neighbour_counts() -> None:
    rng = np.random.default_rng(15)
    matrix = rng.normal(size=(30, 30)) + rng.normal(size=30)
    counts = np.zeros(30)
    for row in matrix:
        for column in sorted(range(30), key=lambda j: -row[j])[:4]:
            counts[column] += 1
    assert measures.hub_skew(matrix, 4) == pytest.approx(stats.skew(counts))
    assert measures.hub_skew(np.eye(8), neighbours=1) == 0  # every column once
    assert np.isnan(measures.hub_skew(np.full((8, 8), np.nan)))


# --- CKA --------------------------------------------------------------------------------------


def cka(left: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Return unbiased CKA and its jackknife error."""
    value, pseudo = measures.unbiased_cka(measures.gram(left), measures.gram(right))
    return value, float(pseudo.std(ddof=1) / np.sqrt(len(pseudo)))


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


def test_pseudo_values_of_cka_are_made_of_cka_without_each_item() -> None:
    rng = np.random.default_rng(13)
    x = rng.normal(size=(9, 4))
    y = x + rng.normal(size=(9, 4))
    value, pseudo = measures.unbiased_cka(measures.gram(x), measures.gram(y))
    for i in range(9):
        without = cka(np.delete(x, i, 0), np.delete(y, i, 0))[0]
        assert pseudo[i] == pytest.approx(9 * value - 8 * without)
    few = measures.unbiased_cka(measures.gram(x[:4]), measures.gram(y[:4]))
    assert np.isfinite(few[0])
    assert np.isnan(few[1]).all()


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


def test_expanded_quantiles_of_means_are_the_expanded_interval() -> None:
    values = np.random.default_rng(17).normal(size=(3, N))
    weights = inference.resample_weights(N, 500, 0)
    np.testing.assert_allclose(
        inference.expanded_quantiles(weights @ values.T, N),
        inference.expanded_interval(values, weights),
    )


def test_expanded_quantiles_leave_out_few_undefined_resamples_and_no_more() -> None:
    resampled = np.random.default_rng(18).normal(size=(1_000, 2))
    resampled[:50, 0] = np.nan
    resampled[:51, 1] = np.nan
    lower, upper = inference.expanded_quantiles(resampled, N)
    expected = inference.expanded_quantiles(resampled[50:, :1], N)
    assert (lower[0], upper[0]) == pytest.approx((expected[0][0], expected[1][0]))
    assert np.isnan([lower[1], upper[1]]).all()


def test_the_detectable_effect_is_found_in_four_of_five_samples() -> None:
    rng = np.random.default_rng(19)
    for n in (10, N, 200):
        sample = rng.normal(size=n)
        sample *= 2 / sample.std(ddof=1)  # SD 2, as below
        effect = float(inference.detectable(sample))
        drawn = rng.normal(effect, 2, size=(4_000, n))
        power = np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue <= 0.05)
        assert power == pytest.approx(0.8, abs=0.03)


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


def test_commitment_of_resampled_curves_is_that_of_each() -> None:
    rng = np.random.default_rng(20)
    means = rng.uniform(0.2, 1, size=(300, 9))
    p = np.array([0.001, 0.04, 0.01, 0.01, 0.2, 0.01, 0.02, 0.03, 0.04])
    found = layers.commitment_layers(means, p)
    each = [layers.commitment_layer(mean, p) for mean in means]
    assert found.tolist() == [-1 if layer is None else layer for layer in each]
    assert len(set(found.tolist())) >= 4  # layers 1, 5 and 6, and none


def test_layer_interval_is_of_whole_layers() -> None:
    drawn = np.repeat([2, 3, 4, 9], [3, 500, 494, 3])
    assert layers.layer_interval(drawn) == (3, 4)
    assert layers.layer_interval(np.repeat([2, 3, 9], [30, 930, 40])) == (2, 9)
    assert layers.layer_interval(drawn, level=0.5) == (3, 4)
