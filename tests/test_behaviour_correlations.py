"""Correlations of alignment and comprehension, on planted answers: yes, no, and seemingly yes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from aya_probes.behaviour import correlations
from aya_probes.behaviour.correlations import over_languages, over_texts, over_variants

DRAWS = 300
AT_MOST = int(stats.binom.ppf(0.999, DRAWS, 0.05))  # false calls of an exact test at 5%


def test_over_languages_is_pearsons_r_with_fishers_interval() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12))
    found = over_languages(x, y, count=2000)
    expected = stats.pearsonr(x, y)
    interval = expected.confidence_interval()
    assert found.r == pytest.approx(expected.statistic)
    assert (found.lower, found.upper) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(expected.pvalue, abs=0.03)
    assert found.p_floor == 1 / 2001


def test_a_partial_correlation_is_the_recursive_formula() -> None:
    rng = np.random.default_rng(1)
    x, y, z = rng.normal(size=(3, 15))
    xy, xz, yz = (stats.pearsonr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    found = over_languages(x, y, z[:, None], count=50)
    assert found.r == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))


def test_within_languages_is_the_pooled_correlation_of_deviations() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 5, 20))
    languages = np.repeat(["am", "bn", "hi", "sw", "yo"], 20)
    found = over_texts(x.ravel(), y.ravel(), languages, count=50)
    a, b = (v - v.mean(1, keepdims=True) for v in (x, y))
    assert found.r == pytest.approx((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def test_scale_and_order_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 9))
    turned = rng.permutation(9)
    one, other = over_languages(x, y), over_languages(5 - 3 * x[turned], 2 + y[turned])
    assert one.r == pytest.approx(-(other.r or 0))


def called(p_values: list[float | None]) -> int:
    return sum(p is not None and p <= 0.05 for p in p_values)


def plant(rng: np.random.Generator, shared: float) -> tuple[np.ndarray, np.ndarray]:
    """Alignment and comprehension of 9 languages that have ``shared`` variance of a cause."""
    cause = rng.normal(size=9)
    x, y = (np.sqrt(shared) * cause + np.sqrt(1 - shared) * rng.normal(size=9) for _ in range(2))
    return x, y


def test_over_languages_finds_yes_and_not_no() -> None:
    rng = np.random.default_rng(4)
    yes = [over_languages(*plant(rng, 0.9), count=199).p for _ in range(DRAWS)]
    no = [over_languages(*plant(rng, 0), count=199).p for _ in range(DRAWS)]
    assert called(yes) > 0.8 * DRAWS
    assert called(no) <= AT_MOST


def test_the_interval_covers_the_planted_correlation() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(DRAWS):
        found = over_languages(*plant(rng, 0.8), count=10)
        assert found.lower is not None
        assert found.upper is not None
        inside += found.lower <= 0.8 <= found.upper
    assert inside >= stats.binom.ppf(0.001, DRAWS, 0.95)


def test_a_shared_cause_such_as_spelling_is_held_constant() -> None:
    """Alignment and comprehension both follow the share of common strings, and nothing else."""
    rng = np.random.default_rng(6)
    plain, partial = [], []
    for _ in range(DRAWS):
        strings = rng.normal(size=12)
        x, y = (strings + 0.3 * rng.normal(size=12) for _ in range(2))
        plain.append(over_languages(x, y, count=199).p)
        partial.append(over_languages(x, y, strings[:, None], count=199).p)
    assert called(plain) > 0.9 * DRAWS
    assert called(partial) <= AT_MOST


def test_languages_that_differ_say_nothing_about_their_texts() -> None:
    rng = np.random.default_rng(7)
    languages = np.repeat(np.arange(9), 20)
    level = rng.normal(size=9)[languages] * 3
    no = []
    for _ in range(DRAWS):
        x, y = (level + rng.normal(size=180) for _ in range(2))
        no.append(over_texts(x, y, languages, count=99).p)
    assert called(no) <= AT_MOST
    text = rng.normal(size=180)
    yes = over_texts(text + level, level + text + rng.normal(size=180), languages, count=999)
    assert yes.p == 1 / 1000
    assert 0.6 < (yes.r or 0) < 0.8


def test_a_training_is_one_observation_in_all_its_languages() -> None:
    """Variants differ by a training effect in every language, unrelated in the two measures."""
    rng = np.random.default_rng(8)
    no = []
    for _ in range(DRAWS):
        x, y = (rng.normal(size=(5, 1)) + 0.2 * rng.normal(size=(5, 9)) for _ in range(2))
        no.append(over_variants(x, y))
    assert called([found.p for found in no]) <= AT_MOST
    assert {(found.n, found.units, found.p_floor) for found in no} == {(45, 5, 1 / 120)}
    training = rng.normal(size=(6, 9))
    yes = over_variants(training, training + 0.2 * rng.normal(size=(6, 9)))
    assert yes.p == pytest.approx(1 / 720, abs=2 / 720)
    assert (yes.r or 0) > 0.9


def test_what_does_not_vary_has_no_correlation() -> None:
    x = np.arange(9.0)
    for found in (over_languages(x, np.ones(9)), over_languages(x[:3], x[:3])):
        assert (found.r, found.lower, found.p) == (None, None, None)
    same = over_languages(x, x**2, x[:, None] * 2)
    assert same.r is None


def test_bad_input_is_refused() -> None:
    x = np.arange(9.0)
    with pytest.raises(ValueError, match=r"expected two vectors of 9 values"):
        over_languages(x, x[:8])
    with pytest.raises(ValueError, match="NaN or infinite"):
        over_languages(x, np.where(x == 3, np.nan, x))
    with pytest.raises(ValueError, match="8 rows of covariates for 9 values"):
        over_languages(x, x, x[:8, None])
    with pytest.raises(ValueError, match=r"expected two \[variant, language\] arrays"):
        over_variants(x, x)
    assert correlations.MIN_UNITS == 4
