"""Alignment on the parallel corpus: sentence alignment, retrieval and unbiased CKA (ADR-016).

Vectors are ``content_mean``, standardised by language and layer; the same measures on vectors that
are only mean-centred have the suffix ``_raw``. Sentences of one document resemble each other, so
intervals resample documents. Only the pivot and two other languages are in memory at a time. Layers
are measured in parallel threads, on which no number depends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import special

from aya_probes.alignment import estimates, inference, measures
from aya_probes.alignment.inputs import AlignmentInputs
from aya_probes.extraction import store
from aya_probes.files import finite
from aya_probes.results.curves import (
    HUB_SKEW,
    PARALLEL_ALIGNMENT,
    PARALLEL_CKA,
    PARALLEL_CSLS,
    PARALLEL_RETRIEVAL,
    RAW,
    Curve,
    CurveKey,
    number,
    values,
)
from aya_probes.stimuli import Manifest

MIN_ITEMS = 5  # the jackknife of unbiased CKA needs this many
MIN_DOCUMENTS = 4  # intervals need this many
MAX_THREADS = 8  # each needs memory for a few matrices [n, n] and [n, h]
POOLING = "content_mean"
NORMAL_95 = float(special.ndtri(0.975))

Items = dict[tuple[str, str], np.ndarray]  # (measure, language) -> values [layer, item]


def corpus_ids(manifest: Manifest) -> dict[str, list[str]]:
    """Return the ids of the parallel stimuli by language, in corpus order."""
    ids: dict[str, list[str]] = {}
    for s in manifest.stimuli:
        if s.kind == "parallel":
            ids.setdefault(s.language, []).append(s.stimulus_id)
    return ids


@dataclass(frozen=True)
class _Bounds:
    """The intervals of values per item, with whole documents resampled."""

    documents: np.ndarray  # of each item, from 0
    weights: np.ndarray | None  # resamples of the documents [B, G]; None for too few

    def alignment(self, table: np.ndarray) -> Curve:
        """Return the mean of ``table [layer, n]`` with bootstrap intervals."""
        if self.weights is None:
            return estimates.mean_curve(table, None, n=table.shape[1])
        bounds = inference.group_interval(table, self.documents, self.weights)
        return estimates.bounded(table.mean(1), *bounds, n=table.shape[1])

    def error(self, table: np.ndarray) -> np.ndarray:
        """Return the standard error of the mean ``[layer]`` of ``table [layer, n]``."""
        sums = inference.group_sums(table - table.mean(1, keepdims=True), self.documents)
        groups, n = sums.shape[1], table.shape[1]
        return np.asarray(np.sqrt((sums**2).sum(1) * groups / max(1, groups - 1)) / n)

    def retrieval(self, won: np.ndarray) -> Curve:
        """Return the rate of ``won [layer, n]`` with Wilson's interval for clustered items.

        n is divided by the design effect: the variance over documents, by that of independent items
        (at least 1).
        """
        n, rate = won.shape[1], won.mean(1)
        plain = rate * (1 - rate) / n
        effect = np.maximum(1, self.error(won) ** 2 / np.where(plain > 0, plain, np.inf))
        size, z = n / effect, NORMAL_95
        centre = (rate + z**2 / (2 * size)) / (1 + z**2 / size)
        margin = z * np.sqrt(rate * (1 - rate) / size + z**2 / (4 * size**2)) / (1 + z**2 / size)
        chance = finite(1 / (2 * n - 1), 5)
        low, high = np.maximum(0, centre - margin), np.minimum(1, centre + margin)
        return estimates.bounded(rate, low, high, n=n, chance=chance)

    def cka(self, whole: np.ndarray, pseudo: np.ndarray) -> Curve:
        """Return CKA ``whole [layer]`` with jackknife intervals, of pseudo-values ``[layer,
        n]``."""
        margin = NORMAL_95 * self.error(pseudo)
        return estimates.bounded(whole, whole - margin, whole + margin, n=pseudo.shape[1])


def standardised(vectors: np.ndarray) -> np.ndarray:
    """Return ``vectors [n, h]`` of one layer standardised (``measures.standardise``)."""
    return np.asarray(measures.standardise(vectors[:, None, None])[:, 0, 0])


def measure(
    loaded: store.Activations, task: AlignmentInputs, variant: str
) -> tuple[dict[CurveKey, Curve], Items]:
    """Return the curves of every language with the pivot, and the values of its items.

    Both are empty below 5 items.
    """
    ids, pivot = corpus_ids(task.manifest), task.suite.pivot
    if len(ids.get(pivot, ())) < MIN_ITEMS:
        return {}, {}
    groups = int(task.documents.max()) + 1
    weights = task.weights(groups) if groups >= MIN_DOCUMENTS else None
    bounds = _Bounds(task.documents, weights)
    curves: dict[CurveKey, Curve] = {}
    items: Items = {}
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        anchors = _prepare(pool, loaded.take(POOLING, ids[pivot]))
        following = [*task.others[1:], None]
        reading = pool.submit(loaded.take, POOLING, ids[task.others[0]])
        for code, after in zip(task.others, following, strict=True):
            other = reading.result()
            if after is not None:  # read beside the computation
                reading = pool.submit(loaded.take, POOLING, ids[after])
            for suffix, anchor in anchors.items():
                layers = _compare(pool, anchor, other, suffix)
                for name, curve, table in _summarise(layers, suffix, bounds):
                    curves[CurveKey(POOLING, name + suffix, variant, pivot, code)] = curve
                    if table is not None:
                        items[name + suffix, code] = table.astype(np.float32)
    return curves, items


def scaled(vectors: np.ndarray, suffix: str) -> np.ndarray:
    """Return ``vectors [n, h]`` standardised, or mean-centred for the suffix ``_raw``."""
    return vectors - vectors.mean(0) if suffix else standardised(vectors)


@dataclass(frozen=True)
class _Anchor:
    """The pivot at one layer: what every other language is compared with."""

    unit: np.ndarray
    gram: np.ndarray
    hsic: measures.Hsic


@dataclass(frozen=True)
class _Layer:
    """The measures of the pivot and another language at one layer, by item but for ``cka``."""

    aligned: np.ndarray
    won: np.ndarray
    csls_won: np.ndarray | None
    cka: float
    cka_items: np.ndarray
    hub_skew: float


def _prepare(pool: ThreadPoolExecutor, vectors: np.ndarray) -> dict[str, list[_Anchor]]:
    """Return the pivot's layers of ``vectors [n, layer, h]``, for both scalings."""

    def anchor(layer: int, suffix: str) -> _Anchor:
        mine = scaled(vectors[:, layer], suffix)
        gram = measures.gram(mine).astype(np.float32)
        return _Anchor(measures.unit(mine), gram, measures.self_hsic(gram))

    layers = range(vectors.shape[1])
    return {s: list(pool.map(anchor, layers, [s] * len(layers))) for s in ("", RAW)}


def _compare(
    pool: ThreadPoolExecutor, anchors: Sequence[_Anchor], other: np.ndarray, suffix: str
) -> list[_Layer]:
    """Return the layers of another language, ``other [n, layer, h]``, one layer per thread."""

    def compare(layer: int) -> _Layer:
        anchor, mine = anchors[layer], scaled(other[:, layer], suffix)
        similarity = anchor.unit @ measures.unit(mine).T
        return _Layer(
            measures.alignment(similarity),
            measures.retrieval(similarity)["two_way"],
            None if suffix else measures.retrieval(measures.csls(similarity))["two_way"],
            *measures.unbiased_cka(anchor.gram, measures.gram(mine), anchor.hsic),
            measures.hub_skew(similarity),
        )

    return list(pool.map(compare, range(len(anchors))))


def _summarise(
    layers: Sequence[_Layer], suffix: str, bounds: _Bounds
) -> Iterator[tuple[str, Curve, np.ndarray | None]]:
    """Yield the name, the curve and the item values (if they are kept) of each measure."""
    table = np.array([layer.aligned for layer in layers])
    yield PARALLEL_ALIGNMENT, bounds.alignment(table), table
    table = np.array([layer.won for layer in layers])
    yield PARALLEL_RETRIEVAL, bounds.retrieval(table), table
    if not suffix:
        yield PARALLEL_CSLS, bounds.retrieval(np.array([layer.csls_won for layer in layers])), None
    table = np.array([layer.cka_items for layer in layers])
    yield PARALLEL_CKA, bounds.cka(np.array([layer.cka for layer in layers]), table), table
    skews = np.array([layer.hub_skew for layer in layers])
    yield HUB_SKEW, Curve(values(skews[:-1]), number(skews[-1]), n=table.shape[1]), None
