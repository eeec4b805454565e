"""Alignment on the parallel corpus: sentence retrieval at large n, and unbiased CKA, with errors.

Vectors are ``content_mean``, centred by language and row. One language is in memory at a time
beside the pivot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from aya_probes.alignment import measures
from aya_probes.extraction import store
from aya_probes.files import finite, finite_list
from aya_probes.stimuli import Manifest

MIN_ITEMS = 5  # for the jackknife of unbiased CKA
POOLING = "content_mean"
NORMAL_95 = float(special.ndtri(0.975))


def corpus_ids(manifest: Manifest) -> dict[str, list[str]]:
    """Return the parallel stimuli of every language in corpus order."""
    ids: dict[str, list[str]] = {}
    for s in manifest.stimuli:
        if s.kind == "parallel":
            ids.setdefault(s.language, []).append(s.stimulus_id)
    return ids


def retrieval_entry(won: np.ndarray) -> dict[str, Any]:
    """Return a JSON entry of two-way retrieval ``[row, n]``: rate and Wilson's 95% interval."""
    from scipy import stats  # a second to import: not for --help

    n = won.shape[1]
    bounds = [
        stats.binomtest(int(row.sum()), n).proportion_ci(method="wilson")
        if np.isfinite(row).all()
        else (np.nan, np.nan)
        for row in won
    ]
    entry = _entry(won.mean(1), np.array(bounds))
    return entry | {"n": n, "chance": finite(1 / (2 * n - 1), 5)}


def cka_entry(values: np.ndarray, n: int) -> dict[str, Any]:
    """Return a JSON entry of CKA ``[row, (estimate, jackknife error)]`` with 95% intervals."""
    estimate, error = values.T
    margin = NORMAL_95 * error
    return _entry(estimate, np.stack([estimate - margin, estimate + margin], axis=1)) | {"n": n}


def _entry(mean: np.ndarray, bounds: np.ndarray) -> dict[str, Any]:
    return {
        "mean": finite_list(mean[:-1]),
        "lower": finite_list(bounds[:-1, 0]),
        "upper": finite_list(bounds[:-1, 1]),
        "p": None,
        "final_norm": finite(float(mean[-1]), 5),
        "final_norm_interval": finite_list(bounds[-1]),
    }


def analyse(
    loaded: store.Activations,
    manifest: Manifest,
    pivot: str,
    others: Sequence[str],
    variant: str,
    tables: dict[str, Any],
) -> None:
    """Write ``parallel_retrieval`` and ``parallel_cka`` of one variant into ``tables``."""
    ids = corpus_ids(manifest)
    if len(ids.get(pivot, ())) < MIN_ITEMS:
        return
    n = len(ids[pivot])
    anchor = loaded.take(POOLING, ids[pivot])
    anchor -= anchor.mean(0)
    grams = [measures.gram(anchor[:, row]).astype(np.float32) for row in range(anchor.shape[1])]
    tables = tables.setdefault(POOLING, {})
    for code in others:
        other = loaded.take(POOLING, ids[code])
        other -= other.mean(0)
        won, cka = [], []
        for row, gram in enumerate(grams):
            a, b = measures.unit(anchor[:, row]), measures.unit(other[:, row])
            won.append(measures.retrieval(a @ b.T)["two_way"])
            cka.append(measures.unbiased_cka(gram, measures.gram(other[:, row])))
        for name, entry in (
            ("parallel_retrieval", retrieval_entry(np.array(won))),
            ("parallel_cka", cka_entry(np.array(cka), n)),
        ):
            tables.setdefault(name, {}).setdefault(variant, {})[code] = entry
