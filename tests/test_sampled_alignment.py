"""Alignment without all n² cosines equals the one with them."""

from __future__ import annotations

import numpy as np
import pytest

from aya_probes.alignment import measures


@pytest.mark.parametrize("same_wording", [True, False])
def test_sampled_alignment_is_the_all_pairs_one(same_wording: bool) -> None:
    draw = np.random.default_rng(1)
    meaning = draw.normal(size=(30, 1, 4, 16))
    left, right = (measures.mean_centre(meaning + draw.normal(size=(30, 3, 4, 16))) for _ in "ab")
    similarity = measures.wording_mean(measures.cosines(left, right), same_wording=same_wording)
    values, separation = measures.sampled_alignment(
        left, right, same_wording=same_wording, negatives=29, seed=0
    )
    np.testing.assert_allclose(values, measures.alignment(similarity), atol=1e-12)
    np.testing.assert_allclose(separation, measures.separation(similarity), rtol=1e-9)
    few, estimate = measures.sampled_alignment(
        left, right, same_wording=same_wording, negatives=10, seed=0
    )
    np.testing.assert_allclose(few, values, atol=1e-12)  # A does not depend on the sample
    np.testing.assert_allclose(estimate, separation, rtol=0.15)
    assert not np.allclose(estimate, separation, rtol=1e-6)


def test_sampled_alignment_refuses_more_negatives_than_there_are() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 2, 3, 4))
    for negatives in (0, 5):
        with pytest.raises(ValueError, match="must be 1 to 4"):
            measures.sampled_alignment(
                vectors, vectors, same_wording=True, negatives=negatives, seed=0
            )
