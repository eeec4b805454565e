"""Concept alignment of two arrays of vectors: mean, p-value and interval at every layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aya_probes import project
from aya_probes.alignment import inference, measures

MIN_CONCEPTS = 4  # below this there are no p-values or intervals
DRAWS = 10_000


@dataclass(frozen=True)
class LayerAlignment:
    """Concept alignment A of two languages at every layer (ADR-007)."""

    mean: np.ndarray
    """Mean A over concepts ``[layer]``: 0 is chance, 1 the maximum. NaN for zero vectors."""
    lower: np.ndarray
    """Lower end of the 95% bootstrap interval over concepts ``[layer]``."""
    upper: np.ndarray
    """Upper end of the same interval ``[layer]``."""
    p: np.ndarray
    """Max-T permutation p-value ``[layer]``, corrected over all layers except the first, which has
    its own."""


def alignment_by_layer(
    left: np.ndarray, right: np.ndarray, *, raw: bool = False, seed: int = project.SEED
) -> LayerAlignment:
    """Return the alignment of two arrays ``[concept, wording, layer, hidden]`` at every layer.

    ``left[i]`` and ``right[i]`` hold the same concept in two languages, or in two models with the
    same hidden size. Each array is standardised by layer: mean-centred, and each dimension divided
    by its standard deviation, so that no few dimensions rule the cosine (ADR-016). ``raw`` only
    mean-centres. A is a concept's cosine with its translation minus its mean cosine with the other
    concepts (``measures.alignment``), over pairs of different wordings. With one wording, A also
    counts what else the two sentences share.

    The permutation test permutes the concepts of one array. Its p-values are corrected over all
    layers except the first, the input of the model (``inference.max_t``). Raises ValueError unless
    both arrays have the same shape and at least 4 concepts.
    """
    left, right = np.asarray(left, np.float32), np.asarray(right, np.float32)
    if left.ndim != 4 or left.shape != right.shape or len(left) < MIN_CONCEPTS:
        raise ValueError(
            "expected two [concept, wording, layer, hidden] arrays of the same shape with at "
            f"least {MIN_CONCEPTS} concepts, got {left.shape} and {right.shape}"
        )
    n, wordings = left.shape[:2]
    scale = measures.mean_centre if raw else measures.standardise
    cosines = measures.cosines(scale(left), scale(right))
    similarity = measures.wording_mean(cosines, same_wording=wordings == 1)  # [layer, n, n]
    aligned = measures.alignment(similarity)  # [layer, n]
    lower, upper = inference.expanded_interval(aligned, inference.resample_weights(n, DRAWS, seed))
    p = inference.permutation_p(similarity, inference.permutations(n, DRAWS, seed))
    return LayerAlignment(aligned.mean(-1), lower, upper, p)
