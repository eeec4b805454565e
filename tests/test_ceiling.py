"""Ceilings, alignment relative to them, and shapes: a concept that both languages lose alike is no
decline, one whose sharing alone is lost is."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from aya_probes import suites
from aya_probes.alignment import ceiling, layers, measures
from aya_probes.alignment.inputs import AlignmentInputs
from aya_probes.results.curves import CEILING, DISATTENUATED, CurveKey
from tests import planted_stage

N, K, L, H = 20, 2, 8, 48  # layers 0..7, then final_norm
FLAT = np.ones(L + 1)
WAVE = np.array([0.3, 0.4, 0.7, 1, 1, 0.7, 0.4, 0.3, 0.3])
EARLY = np.array([0.3, 0.5, 1, 1, 1, 1, 0.5, 0.3, 0.3])


@functools.cache
def task() -> AlignmentInputs:
    suite = suites.Suite(
        "planted", "en", ("en", "hi"), "cldr", (suites.Variant("base", "base", path="x"),)
    )
    return planted_stage.inputs(planted_stage.manifest(suite, concepts=N, wordings=K))


def draw(seed: int, encoded: np.ndarray, shared: np.ndarray) -> dict[str, np.ndarray]:
    """Return the vectors ``[n, k, l, h]`` of two languages, standardised.

    A span encodes its concept with strength ``encoded [l]``: a mixture of what both languages share
    and what each has alone. ``shared [l]`` is the cosine of the two mixtures, and so the true
    disattenuated alignment.
    """
    rng = np.random.default_rng(seed)
    common, *alone = rng.standard_normal((3, N, 1, 1, H), dtype=np.float32)
    noise = rng.standard_normal((2, N, K, len(encoded), H), dtype=np.float32)
    strong, weak = (encoded * np.sqrt([shared, 1 - shared])).astype(np.float32)[..., None]
    return {
        code: measures.standardise(strong * common + weak * own + each)
        for code, own, each in zip(("en", "hi"), alone, noise, strict=True)
    }


def crossed(vectors: dict[str, np.ndarray]) -> np.ndarray:
    """Return A_i across the two languages ``[l, n]``."""
    cosines = measures.cosines(vectors["en"], vectors["hi"])
    return measures.alignment(measures.wording_mean(cosines, same_wording=False))


def relative(seed: int, encoded: np.ndarray, shared: np.ndarray) -> ceiling.Disattenuated:
    """Return disattenuated alignment of a plant."""
    vectors = draw(seed, encoded, shared)
    own = ceiling.within_languages(vectors)
    found = ceiling.disattenuate(crossed(vectors), own["en"], own["hi"], task())
    assert found is not None
    return found


def label(seed: int, encoded: np.ndarray, shared: np.ndarray) -> str:
    found = ceiling.shape(relative(seed, encoded, shared), void=False)
    assert found is not None
    return found.label


# --- the ceiling ------------------------------------------------------------------------------


def test_a_ceiling_is_alignment_between_wordings_one_cosine_at_a_time() -> None:
    vectors = {code: table[:5, :, :2] for code, table in draw(0, FLAT, FLAT).items()}
    found = ceiling.within_languages(vectors)
    for code, table in vectors.items():
        unit = table / np.linalg.norm(table, axis=-1, keepdims=True)
        for layer in range(2):
            matrix = np.zeros((5, 5))
            for k in range(K):
                for m in range(K):
                    if k != m:
                        pairs = unit[:, k, layer] @ unit[:, m, layer].T
                        matrix += pairs / (K * (K - 1))
            others = (matrix.sum(1) - matrix.diagonal()) / 4  # C is symmetric
            expected = (matrix.diagonal() - others) * 4 / 5
            np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
            np.testing.assert_allclose(found[code][layer], expected, atol=1e-6)


def test_relative_alignment_is_the_planted_sharing() -> None:
    for encoded, shared in ((FLAT, WAVE), (WAVE + 0.3, 0.6 * FLAT), (FLAT, 0.0 * FLAT)):
        curves = [relative(seed, encoded, shared).curve for seed in range(30)]
        np.testing.assert_allclose(np.mean(curves, axis=0), shared, atol=0.05)


def test_relative_alignment_does_not_depend_on_noise() -> None:
    """Alignment across languages falls with noise; relative to the ceiling it stays."""
    few, many = (np.mean(crossed(draw(1, s * FLAT, 0.7 * FLAT))) for s in (2.0, 0.6))
    assert few > 2.5 * many
    low, high = (relative(1, s * FLAT, 0.7 * FLAT).curve.mean() for s in (0.6, 2.0))
    assert low == pytest.approx(high, abs=0.1)


def test_intervals_of_relative_alignment_cover_the_truth() -> None:
    inside = []
    for seed in range(100):
        curve = relative(seed, FLAT, 0.6 * FLAT).to_curve(N)
        inside.append((curve.array("lower") <= 0.6) & (curve.array("upper") >= 0.6))
        assert curve.n is None
    assert 0.88 <= np.mean(inside) <= 0.99


def test_a_layer_without_a_ceiling_is_undefined() -> None:
    encoded = np.where(np.arange(L + 1) == 4, 0.0, 1.0)
    found = relative(2, encoded, 0.5 * FLAT)
    assert np.flatnonzero(np.isnan(found.curve)).tolist() == [4]
    assert np.isnan(found.resampled[:, 4]).all()
    curve = found.to_curve(N)
    assert curve.mean[4] is None
    assert curve.lower is not None
    assert curve.lower[4] is None
    shape = ceiling.shape(found, void=False)
    assert shape is not None
    assert (shape.label, shape.peak_layer, shape.retained) == ("UNDEFINED", None, None)


@pytest.mark.parametrize("code", ["en", "hi"])
def test_a_ceiling_that_one_language_lacks_is_enough_to_be_undefined(code: str) -> None:
    vectors = draw(2, FLAT, 0.5 * FLAT)
    vectors[code][:, :, 4] = np.random.default_rng(7).normal(size=(N, K, H))
    own = ceiling.within_languages(vectors)
    found = ceiling.disattenuate(crossed(vectors), own["en"], own["hi"], task())
    assert found is not None
    assert np.flatnonzero(np.isnan(found.curve)).tolist() == [4]


def test_concepts_that_a_pair_leaves_out_are_left_out_of_its_ceilings() -> None:
    vectors = draw(3, FLAT, 0.6 * FLAT)
    own = ceiling.within_languages(vectors)
    cross = crossed(vectors)
    cross[:, 15:] = np.nan
    found = ceiling.disattenuate(cross, own["en"], own["hi"], task())
    assert found is not None
    assert found.n == found.to_curve(N).n == 15
    expected = cross[:, :15].mean(1) / np.sqrt(
        own["en"][:, :15].mean(1) * own["hi"][:, :15].mean(1)
    )
    np.testing.assert_allclose(found.curve, expected, rtol=1e-6)
    cross[:, 3:] = np.nan
    assert ceiling.disattenuate(cross, own["en"], own["hi"], task()) is None


def test_every_language_has_a_ceiling_and_all_but_the_pivot_a_relative_curve() -> None:
    vectors = draw(4, FLAT, 0.6 * FLAT)
    curves, found = ceiling.measure(task(), vectors, {"hi": crossed(vectors)}, "span_mean", "base")
    keys = {
        CurveKey("span_mean", CEILING, "base", "en", "en"),
        CurveKey("span_mean", CEILING, "base", "en", "hi"),
        CurveKey("span_mean", DISATTENUATED, "base", "en", "hi"),
    }
    assert set(curves) == keys
    assert list(found) == ["hi"]
    for key, curve in curves.items():
        assert (curve.array("lower") < curve.array()).all()
        assert (curve.array() < curve.array("upper")).all()
        assert (curve.p is None) == (key.measure in (CEILING, DISATTENUATED))


# --- shapes -----------------------------------------------------------------------------------


def test_what_both_languages_lose_alike_is_no_decline() -> None:
    """Alignment across languages rises and falls with what a span encodes; relative to it, not."""
    raw = crossed(draw(5, WAVE + 0.3, 0.8 * FLAT)).mean(1)
    assert raw[3:5].min() > 1.5 * max(raw[0], raw[7])
    labels = [label(seed, WAVE + 0.3, 0.8 * FLAT) for seed in range(200)]
    assert sum(found not in ("FLAT", "UNRESOLVED") for found in labels) <= 10


def test_where_only_the_sharing_is_lost_there_is_a_decline() -> None:
    """The ceiling stays, so nothing but the sharing rises, peaks and declines."""
    own = ceiling.within_languages(draw(6, FLAT, WAVE))["hi"].mean(1)
    assert own.max() < 1.2 * own.min()
    found = [ceiling.shape(relative(seed, FLAT, WAVE), void=False) for seed in range(20)]
    assert sum(shape is not None and shape.label == "RISE_PEAK_DECLINE" for shape in found) >= 18
    [one] = [shape for shape in found[:1] if shape]
    assert one.peak_layer in (3, 4)
    assert one.peak_interval is not None
    assert one.peak_interval[0] <= one.peak_layer <= one.peak_interval[1]
    assert one.retained == pytest.approx(0.3, abs=0.15)
    assert one.norm_step == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize(
    ("shared", "truth"),
    [
        (np.linspace(0.2, 1, L + 1), "RISE"),
        (np.linspace(1, 0.2, L + 1), "FALL"),
        (EARLY, "RISE_PEAK_DECLINE"),
    ],
)
def test_planted_shapes_are_named(shared: np.ndarray, truth: str) -> None:
    labels = [label(seed, FLAT, shared) for seed in range(20)]
    assert labels.count(truth) >= 18
    assert set(labels) <= {truth, "UNRESOLVED", "FLAT"}


def test_flat_curves_get_a_false_label_in_at_most_one_of_twenty() -> None:
    labels = [label(seed, FLAT, 0.6 * FLAT) for seed in range(200)]
    assert sum(found not in ("FLAT", "UNRESOLVED") for found in labels) <= 10


def test_a_step_at_the_final_norm_is_no_decline() -> None:
    shared = np.where(np.arange(L + 1) < L, 0.8, 0.1)
    found = ceiling.shape(relative(7, FLAT, shared), void=False)
    assert found is not None
    assert found.label == "FLAT"
    assert found.norm_step == pytest.approx(-0.7, abs=0.15)


def test_shapes_need_eight_concepts_and_inputs_that_differ() -> None:
    some = relative(8, FLAT, 0.6 * FLAT)
    assert ceiling.shape(None, void=False) is None
    assert ceiling.shape(ceiling.Disattenuated(some.curve, some.resampled, 7), void=False) is None
    void = ceiling.shape(some, void=True)
    assert void is not None
    assert void.label == "UNTESTABLE"


def test_shape_bounds_are_simultaneous_over_layers() -> None:
    """The critical value is that of the largest deviation: with one inner layer it is smaller."""
    rng = np.random.default_rng(9)
    curve = np.array([0, 0, 0.33, 0, 0])
    resampled = curve + 0.1 * rng.normal(size=(4_000, 5))
    assert layers.shape_label(curve, resampled, 1_000)[0] == "FLAT"
    assert layers.shape_label(1.6 * curve, resampled + 0.6 * curve, 1_000) == (
        "RISE_PEAK_DECLINE",
        2,
    )
    few = layers.shape_label(1.6 * curve, resampled + 0.6 * curve, 5)[0]
    assert few == "FLAT"  # five concepts: the bounds are those of t with 4 degrees of freedom
