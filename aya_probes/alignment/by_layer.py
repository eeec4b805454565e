"""Concept alignment of two arrays of vectors: mean, p-value and interval at every layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aya_probes import project
from aya_probes.alignment import inference, measures

MIN_CONCEPTS = 4  # fewer allow neither p-values nor intervals
DRAWS = 10_000


@dataclass(frozen=True)
class LayerAlignment:
    """Concept alignment A of two languages, by layer (ADR-007)."""

    mean: np.ndarray
    """Mean A over concepts ``[layer]``: 0 is chance, 1 the most. NaN where a vector is constant."""
    lower: np.ndarray
    """Lower end of the 95% bootstrap interval over concepts ``[layer]``."""
    upper: np.ndarray
    """Upper end ``[layer]``."""
    p: np.ndarray
    """max-T permutation p-value ``[layer]``, corrected over all layers but the first."""


def alignment_by_layer(
    left: np.ndarray, right: np.ndarray, *, seed: int = project.SEED
) -> LayerAlignment:
    """Return the alignment of two arrays ``[concept, wording, layer, hidden]``, by layer.

    ``left[i]`` and ``right[i]`` are the same concept in two languages (or two models of one width).
    Both arrays are centred; A is the cosine of a concept with itself less its mean cosine with the
    other concepts, over different wordings. With one wording a concept, the cosines are those of
    that wording: then A also counts what the two sentences share besides the concept.

    p-values come from permuting the concepts of one array, for all layers together: they are
    corrected for having looked at every layer. The first layer (the input) is no part of that
    maximum. Raises ValueError unless the shapes are equal, with at least 4 concepts.
    """
    left, right = np.asarray(left, np.float32), np.asarray(right, np.float32)
    if left.ndim != 4 or left.shape != right.shape or len(left) < MIN_CONCEPTS:
        raise ValueError(
            "want two [concept, wording, layer, hidden] arrays of one shape with at least "
            f"{MIN_CONCEPTS} concepts, got {left.shape} and {right.shape}"
        )
    n, wordings = left.shape[:2]
    cosines = measures.cosines(measures.mean_centre(left), measures.mean_centre(right))
    similarity = measures.wording_mean(cosines, same_wording=wordings == 1)  # [layer, n, n]
    aligned = measures.alignment(similarity)  # [layer, n]
    lower, upper = inference.expanded_interval(aligned, inference.resample_weights(n, DRAWS, seed))
    p = inference.permutation_p(similarity, inference.permutations(n, DRAWS, seed))
    return LayerAlignment(aligned.mean(-1), lower, upper, p)
