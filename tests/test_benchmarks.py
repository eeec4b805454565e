"""The benchmarks run, their ways agree with each other, and their measures are what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import alignment_stats as st


@pytest.mark.parametrize("same_wording", [True, False])
def test_sampled_alignment_is_the_all_pairs_one(same_wording: bool) -> None:
    draw = np.random.default_rng(1)
    meaning = draw.normal(size=(30, 1, 4, 16))
    left, right = (st.mean_centre(meaning + draw.normal(size=(30, 3, 4, 16))) for _ in "ab")
    similarity = st.wording_mean(st.cosines(left, right), same_wording=same_wording)
    values, separation = st.sampled_alignment(
        left, right, same_wording=same_wording, negatives=29, seed=0
    )
    np.testing.assert_allclose(values, st.alignment(similarity), atol=1e-12)
    np.testing.assert_allclose(separation, st.separation(similarity), rtol=1e-9)
    few, estimate = st.sampled_alignment(
        left, right, same_wording=same_wording, negatives=10, seed=0
    )
    np.testing.assert_allclose(few, values, atol=1e-12)  # A does not depend on the sample
    np.testing.assert_allclose(estimate, separation, rtol=0.15)
    assert not np.allclose(estimate, separation, rtol=1e-6)


def test_sampled_alignment_refuses_more_negatives_than_there_are() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 2, 3, 4))
    for negatives in (0, 5):
        with pytest.raises(ValueError, match="want 1 to 4"):
            st.sampled_alignment(vectors, vectors, same_wording=True, negatives=negatives, seed=0)


def test_every_way_gives_the_vectors_that_ours_gives() -> None:
    from benchmarks import extract, models
    from tests.conftest import byte_tokenizer

    subject = models.build("tiny", byte_tokenizer())
    case = extract.make_case("tiny", subject, models.probes(6))
    ways = ("ours", "ours_bf16", "naive", "base", "padded", "sorted")
    found = extract.measure(case, ways, 1, lambda text: None)
    for name in ways:
        row = found["ways"][name]
        assert row["relative_error"] < (3e-2 if name == "ours_bf16" else 1e-5), name
        assert row["cpu_s"]["median"] > 0
    assert found["ways"]["naive"]["speed_up"]["median"] == 1
    assert any("of the floor" in line for line in extract.lines(found))


@pytest.mark.parametrize("name", ["nnsight", "transformer_lens"])
def test_a_peer_that_is_not_installed_is_skipped_with_the_reason(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    from benchmarks import models, peers
    from tests.conftest import byte_tokenizer

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(peers.Skip, match="uv sync --group bench"):
        peers.WAYS[name][1](models.build("tiny", byte_tokenizer()))


def test_the_error_of_a_wrong_pooling_is_seen() -> None:
    from benchmarks import extract

    exact = {0: np.random.default_rng(0).normal(size=(5, 4, 8))}
    right = extract.errors({0: exact[0].copy()}, exact, sees_row_l=True)
    assert right["relative_error"] < 1e-15
    wrong = exact[0].copy()
    wrong[2, 1] *= 1.5
    assert extract.errors({0: wrong}, exact, sees_row_l=True)["relative_error"] == pytest.approx(
        0.5
    )
    # A way that reads hidden_states has no row L before the norm: it is left out, not compared.
    seen = np.delete(exact[0], -2, axis=0)
    assert extract.errors({0: seen}, exact, sees_row_l=False)["relative_error"] < 1e-15


def test_scipy_and_loops_agree_with_ours() -> None:
    from benchmarks import analysis

    assert analysis.enumerated_difference() < 1e-6
    case = analysis.permutation_case(300, 30, 1)
    assert case["difference_from_loops"] < 1e-12
    case = analysis.bootstrap_case(500, 2, 1)
    assert case["difference_from_loops"] < 1e-12
    assert case["difference_from_scipy_of_width"] < 0.2
    assert analysis.alignment_case(1)["difference_from_loops"] < 1e-6


def test_every_store_gives_back_what_it_took() -> None:
    from benchmarks import store

    ways = store.measure(20, 1)
    assert all(way["relative_error"] < 2**-10 for way in ways.values())


def test_the_disk_formula_is_the_size_of_the_shards(tmp_path: Path) -> None:
    from benchmarks import store
    from extraction import job_size

    store.Shards(tmp_path).write(store.vectors(64))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    formula = job_size.disk_bytes(64, 64, store.ROWS, store.HIDDEN)
    assert size == pytest.approx(formula, rel=2e-3)


def test_the_cost_model_counts_operations_as_the_matrices_do() -> None:
    from benchmarks import cost_model

    one, three = cost_model.tiny_aya(10, 1), cost_model.tiny_aya(10, 3)
    assert one.tokens == 105_000
    assert three.flop == pytest.approx(1.8e15, rel=0.02)  # by hand: 105 k x 3 x 2 x 2.81e9
    assert three.parallel_s == pytest.approx(one.sequential_s)
    assert three.parallel_dollars > three.dollars
    assert cost_model.tiny_aya(70, 1).flop == pytest.approx(7 * one.flop, rel=1e-6)


def test_the_machine_is_described_without_names() -> None:
    import platform

    from benchmarks import machine

    text = json.dumps(machine.describe("numpy"))
    assert platform.node() not in text
    assert str(Path.home()) not in text
