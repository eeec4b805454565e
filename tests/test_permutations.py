"""Permutation tests: equal to all permutations by hand, uniform, and at their nominal rate."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from aya_probes.alignment import inference, measures
from aya_probes.planted import vectors as planted

N = 20
BLOCKS = np.array([0, 1, 0, 1, 0, 2])
ALL = np.array(list(itertools.permutations(range(5))))


def within_blocks() -> np.ndarray:
    """Return all 3! · 2! · 1! permutations of six concepts that stay within ``BLOCKS``."""
    orders = np.array(list(itertools.permutations(range(6))))
    return orders[(BLOCKS[orders] == BLOCKS).all(1)]


def studentised(matrix: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return Σ C_{i,π(i)} ``[order, pair, row]``, minus its mean and divided by its SD."""
    n = matrix.shape[-1]
    sums = np.array(
        [[[sum(row[i, p[i]] for i in range(n)) for row in pair] for pair in matrix] for p in orders]
    )
    # Over all permutations, the moments of Hoeffding's formula are those of the sums themselves.
    return np.asarray((sums - sums.mean(0)) / sums.std(0))


def reached(null: np.ndarray, observed: float) -> float:
    return float(((null >= observed - 1e-9).sum() + 1) / (len(null) + 1))


# --- max-T ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orders", "blocks"), [(ALL, None), (within_blocks(), BLOCKS)], ids=["all", "within blocks"]
)
def test_max_t_equals_all_permutations_by_hand(
    orders: np.ndarray, blocks: np.ndarray | None
) -> None:
    n = orders.shape[1]
    matrix = np.random.default_rng(4).normal(size=(2, 3, n, n))
    z = studentised(matrix, orders)  # the identity comes first
    own, joint = inference.max_t(matrix, orders, blocks)
    for pair, row in itertools.product(range(2), range(3)):
        null = z[:, pair, 0] if row == 0 else z[:, pair, 1:].max(1)
        assert own[pair, row] == pytest.approx(reached(null, z[0, pair, row]))
        null = z[:, :, 0].max(1) if row == 0 else z[:, :, 1:].max((1, 2))
        assert joint[pair, row] == pytest.approx(reached(null, z[0, pair, row]))


def test_one_block_is_no_block() -> None:
    matrix = np.random.default_rng(5).normal(size=(2, 4, N, N))
    orders = inference.permutations(N, 200, 0)
    for one, other in zip(
        inference.max_t(matrix, orders),
        inference.max_t(matrix, orders, np.full(N, 7)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_max_t_gathers_and_multiplies_to_the_same_p(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = planted.matrices(planted.draw(planted.Plant(), 5)[0])
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


def test_a_family_joins_pairs_that_keep_different_concepts() -> None:
    matrix = np.random.default_rng(6).normal(size=(2, 3, 5, 5))
    kept = np.array([True, True, False, True, True])
    parts = (matrix[:1], matrix[1:][:, :, kept][:, :, :, kept])
    orders = (ALL, inference.induced(ALL, kept))
    z = [studentised(*each)[:, 0] for each in zip(parts, orders, strict=True)]
    family = [inference.permutation_null(*each) for each in zip(parts, orders, strict=True)]
    largest = np.max([each[:, 1:].max(1) for each in z], axis=0)
    first = np.max([each[:, 0] for each in z], axis=0)
    for null, each in zip(family, z, strict=True):
        [p] = null.p_joint(family)
        expected = [reached(first if row == 0 else largest, each[0, row]) for row in range(3)]
        assert p.tolist() == pytest.approx(expected)


def test_row_0_has_its_own_p() -> None:
    """Equal inputs at layer 0 say nothing of the layers above, and these nothing of layer 0."""
    rng = np.random.default_rng(7)
    matrix = rng.normal(size=(1, 4, N, N))
    orders = inference.permutations(N, 999, 0)
    plain = inference.max_t(matrix, orders)[0][0]
    matrix[0, 0] += 3 * np.eye(N)
    aligned = inference.max_t(matrix, orders)[0][0]
    assert aligned[0] == 1 / 1000
    np.testing.assert_array_equal(aligned[1:], plain[1:])
    alone = inference.max_t(matrix[:, :1], orders)[0][0]
    assert alone[0] == aligned[0]
    matrix[0, 2] += 3 * np.eye(N)
    assert inference.max_t(matrix, orders)[0][0, 0] == aligned[0]


def test_undefined_layers_have_no_p_and_change_no_other() -> None:
    matrix = np.random.default_rng(8).normal(size=(1, 4, N, N))
    orders = inference.permutations(N, 99, 0)
    expected = inference.max_t(matrix, orders)[0][0]
    with_gap = np.insert(matrix, 2, np.nan, axis=1)
    found = inference.max_t(with_gap, orders)[0][0]
    assert np.isnan(found[2])
    np.testing.assert_array_equal(np.delete(found, 2), expected)


def rogue(languages: np.ndarray, seed: int) -> np.ndarray:
    """Return the vectors with one dimension of 100 times their length, apart in each text."""
    noise = np.random.default_rng([seed, 1]).normal(size=languages.shape[:-1])
    return np.concatenate([languages, 100 * noise[..., None].astype(np.float32)], axis=-1)


@pytest.mark.parametrize("scale", [measures.standardise, measures.mean_centre])
def test_family_wise_error_is_at_its_nominal_rate(
    scale: Callable[[np.ndarray], np.ndarray],
) -> None:
    zero = np.zeros(8)
    plant = planted.Plant(zero, zero, np.full(8, 16.0), hidden=24, wordings=2)

    def rejected(seed: int) -> bool:
        left, right = map(scale, rogue(planted.draw(plant, seed)[0], seed))
        matrix = measures.wording_mean(measures.cosines(left, right), same_wording=False)
        p = inference.permutation_p(matrix, inference.permutations(N, 199, seed))
        return bool((p[1:] <= 0.05).any())

    false = sum(rejected(seed) for seed in range(200))
    assert false <= stats.binom.ppf(0.999, 200, 0.05)
    assert false >= stats.binom.ppf(0.001, 200, 0.05)  # a test that never rejects is none


def test_within_category_test_sees_concepts_and_not_their_category() -> None:
    """Cosines that only the category raises pass the whole test, not the one within it."""
    rng = np.random.default_rng(9)
    blocks = np.repeat(np.arange(5), 4)
    same = (blocks[:, None] == blocks[None]).astype(float)
    orders = inference.permutations(N, 999, 0)
    inside = inference.block_permutations(blocks, 999, 0)
    field = rng.normal(size=(1, 3, N, N)) + same
    assert (inference.max_t(field, orders)[0] <= 0.01).all()
    assert (inference.max_t(field, inside, blocks)[0] > 0.05).all()
    concept = field + 2 * np.eye(N)
    assert (inference.max_t(concept, inside, blocks)[0] <= 0.01).all()


# --- the permutations themselves --------------------------------------------------------------


def test_block_permutations_stay_within_blocks_and_are_uniform() -> None:
    orders = inference.block_permutations(BLOCKS, 6_000, 0)
    assert (BLOCKS[orders] == BLOCKS).all()
    counts = Counter(map(tuple, orders.tolist()))
    assert set(counts) == set(map(tuple, within_blocks().tolist()))
    assert stats.chisquare(list(counts.values())).pvalue > 0.001


def test_all_permutations_induce_each_of_a_part_equally_often() -> None:
    for kept in itertools.product([False, True], repeat=5):
        size = sum(kept)
        if size < 2:
            continue
        found = inference.induced(ALL, np.array(kept))
        counts = Counter(map(tuple, found.tolist()))
        assert set(counts) == set(itertools.permutations(range(size)))
        assert len(set(counts.values())) == 1
    np.testing.assert_array_equal(inference.induced(ALL, np.ones(5, dtype=bool)), ALL)


def test_induced_permutations_keep_the_order_of_the_shared_one() -> None:
    order, kept = np.array([[4, 0, 3, 1, 2]]), np.array([True, False, True, True, False])
    assert inference.induced(order, kept).tolist() == [[2, 1, 0]]  # of 4, 3 and 1


# --- language labels --------------------------------------------------------------------------


def test_language_labels_are_permuted_exactly() -> None:
    values = np.array([0.5, 0.4, 0.3, 0.1, 0.1, 0.0])
    p, floor = inference.label_permutation_p(values, np.array([1, 1, 1, 0, 0, 0], dtype=bool))
    assert (p, floor) == (1 / 20, 1 / 20)
    p, _ = inference.label_permutation_p(values, np.array([1, 1, 0, 1, 0, 0], dtype=bool))
    assert p == 3 / 20  # .5+.4 with .3, .1 or the other .1 reach it
    with pytest.raises(ValueError, match="both groups"):
        inference.label_permutation_p(values, np.ones(6, dtype=bool))


def test_many_labels_are_sampled_to_the_exact_p(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(10).normal(size=18)
    chosen = np.arange(18) < 8
    values[chosen] += 0.5
    exact, floor = inference.label_permutation_p(values, chosen)
    assert floor == 1 / 43_758
    monkeypatch.setattr(inference, "ENUMERATED_LABELS", 0)
    sampled, floor = inference.label_permutation_p(values, chosen, count=20_000, seed=3)
    assert floor == 1 / 20_001
    assert sampled == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))
    again = inference.label_permutation_p(values, chosen, count=20_000, seed=3)
    assert again == (sampled, floor)
    values[chosen] += 100
    assert inference.label_permutation_p(values, chosen, count=999)[0] < 0.01
    assert inference.label_permutation_p(-values, chosen, count=999)[0] == 1


def test_sampled_labels_reject_at_their_nominal_rate() -> None:
    """Seventy languages, twenty of them targeted, and no effect."""
    rng = np.random.default_rng(11)
    chosen = np.arange(70) < 20
    found = [
        inference.label_permutation_p(rng.normal(size=70), chosen, count=199, seed=seed)[0]
        for seed in range(400)
    ]
    for level in (0.05, 0.5):
        rejected = sum(p <= level for p in found)
        assert stats.binom.ppf(0.001, 400, level) <= rejected
        assert rejected <= stats.binom.ppf(0.999, 400, level)
