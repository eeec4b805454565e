"""Windows of layers: which layers they average, and a peak that does not choose itself."""

from __future__ import annotations

import numpy as np
import pytest

from aya_probes.alignment.windows import ALL, MIDDLE, PEAK, WINDOWS, Windows

N, ROWS = 16, 11  # concepts; layers 0..9 and final_norm


def windows(values: np.ndarray, groups: np.ndarray | None = None) -> Windows:
    groups = np.arange(values.shape[1]) if groups is None else groups
    return Windows({("base", "hi"): values}, "base", groups, 0)


def test_windows_leave_out_layer_0_and_the_norm() -> None:
    values = np.arange(20.0)[:, None] * np.ones((1, N))  # layers 0..18, then final_norm
    values[0], values[19] = -1_000, 1_000
    made = windows(values)
    assert made.last == 18
    assert made.middle == (7, 12)
    np.testing.assert_allclose(made.read("base", "hi", ALL), np.arange(1, 19).mean())
    np.testing.assert_allclose(made.read("base", "hi", MIDDLE), np.arange(7, 13).mean())
    np.testing.assert_allclose(made.read("base", "hi", PEAK), np.arange(16, 19).mean())
    assert [made.text(name, ["hi"]) for name in WINDOWS] == ["1-18", "7-12", "16-18 / 16-18"]
    assert made.text(PEAK, ["hi", "ta"]) == "per language"


def test_the_middle_third_of_any_depth_is_inside_and_in_the_middle() -> None:
    for last in range(1, 60):
        first, end = windows(np.zeros((last + 2, 2))).middle
        assert 1 <= first <= end <= last
        assert first - 1 == last - end
        assert end - first + 1 == pytest.approx(last / 3, abs=2)


def test_the_peak_of_one_half_places_the_window_of_the_other() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(ROWS, N)) * 0.01
    made = windows(values)
    halves = [half for half, _ in made.halves("hi")]
    values[3, halves[0]] += 1
    values[7, halves[1]] += 1
    assert [peak for _, peak in made.halves("hi")] == [7, 3]
    found = made.read("base", "hi", PEAK)
    np.testing.assert_allclose(found[halves[0]], values[5:10, halves[0]].mean(0))
    np.testing.assert_allclose(found[halves[1]], values[1:6, halves[1]].mean(0))
    assert made.text(PEAK, ["hi"]) == "5-9 / 1-5"


def test_a_group_is_never_split_over_the_halves() -> None:
    groups = np.repeat(np.arange(8), 3)
    made = windows(np.random.default_rng(3).normal(size=(ROWS, 24)), groups)
    (one, _), (other, _) = made.halves("hi")
    assert (one == ~other).all()
    assert one.sum() == 12
    assert not set(groups[one]) & set(groups[other])
