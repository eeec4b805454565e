"""Alignment on the parallel corpus: sentence retrieval and unbiased CKA, with 95% intervals.

Vectors are ``content_mean``, mean-centred by language and layer. Only the pivot and one other
language are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special, stats

from aya_probes.alignment import measures
from aya_probes.extraction import store
from aya_probes.files import finite
from aya_probes.results.curves import (
    PARALLEL_CKA,
    PARALLEL_RETRIEVAL,
    Curve,
    CurveKey,
    number,
    values,
)
from aya_probes.stimuli import Manifest

MIN_ITEMS = 5  # the jackknife of unbiased CKA needs this many
POOLING = "content_mean"
NORMAL_95 = float(special.ndtri(0.975))


def corpus_ids(manifest: Manifest) -> dict[str, list[str]]:
    """Return the ids of the parallel stimuli by language, in corpus order."""
    ids: dict[str, list[str]] = {}
    for s in manifest.stimuli:
        if s.kind == "parallel":
            ids.setdefault(s.language, []).append(s.stimulus_id)
    return ids


def retrieval_curve(won: np.ndarray) -> Curve:
    """Return the rate of two-way retrieval ``won [layer, n]`` with Wilson's 95% interval."""
    n = won.shape[1]
    bounds = [
        stats.binomtest(int(layer.sum()), n).proportion_ci(method="wilson")
        if np.isfinite(layer).all()
        else (np.nan, np.nan)
        for layer in won
    ]
    return _curve(won.mean(1), np.array(bounds), n, finite(1 / (2 * n - 1), 5))


def cka_curve(table: np.ndarray, n: int) -> Curve:
    """Return CKA with its 95% interval, of ``table [layer, (estimate, jackknife error)]``."""
    estimate, error = table.T
    margin = NORMAL_95 * error
    return _curve(estimate, np.stack([estimate - margin, estimate + margin], axis=1), n, None)


def _curve(mean: np.ndarray, bounds: np.ndarray, n: int, chance: float | None) -> Curve:
    """Return a curve of ``mean [layer]`` and ``bounds [layer, 2]``, final_norm last."""
    last = values(bounds[-1])
    return Curve(
        values(mean[:-1]),
        number(mean[-1]),
        values(bounds[:-1, 0]),
        values(bounds[:-1, 1]),
        final_norm_interval=(last[0], last[1]),
        n=n,
        chance=chance,
    )


def measure(
    loaded: store.Activations, manifest: Manifest, others: Sequence[str], variant: str
) -> dict[CurveKey, Curve]:
    """Return retrieval and CKA of every language with the pivot; empty below 5 items."""
    ids, pivot = corpus_ids(manifest), manifest.suite.pivot
    if len(ids.get(pivot, ())) < MIN_ITEMS:
        return {}
    n = len(ids[pivot])
    anchor = loaded.take(POOLING, ids[pivot])
    anchor -= anchor.mean(0)
    depth = anchor.shape[1]
    grams = [measures.gram(anchor[:, layer]).astype(np.float32) for layer in range(depth)]
    curves = {}
    for code in others:
        other = loaded.take(POOLING, ids[code])
        other -= other.mean(0)
        won, cka = [], []
        for layer, gram in enumerate(grams):
            a, b = measures.unit(anchor[:, layer]), measures.unit(other[:, layer])
            won.append(measures.retrieval(a @ b.T)["two_way"])
            cka.append(measures.unbiased_cka(gram, measures.gram(other[:, layer])))
        for name, curve in (
            (PARALLEL_RETRIEVAL, retrieval_curve(np.array(won))),
            (PARALLEL_CKA, cka_curve(np.array(cka), n)),
        ):
            curves[CurveKey(POOLING, name, variant, pivot, code)] = curve
    return curves
