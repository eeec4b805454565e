"""Effects: how far a perturbation moves a text away from the pivot sentence with its meaning.

::

    A(x)      = (1 - 1/n) * (cos(x, own) - mean_j cos(x, other_j) / 2)
    effect(v) = mean over layers of A(text) - A(parent), on the vectors of variant v
    delta     = effect(regional variant) - effect(reference variant)

x is the content_mean vector of the text or of its parent, minus the mean of its language's probes.
own is the pivot sentence with the parent's concept and wording. other_j are the negatives, the
n - 1 pivot sentences of the other concepts in that wording. The layers are the peak of
``sentence_alignment`` on the reference variant in the parent's language, and two on either side.

A is ``alignment.measures.alignment`` for one row of the similarity matrix, without half of the
column mean. That term is the same for a text and its parent, so it cancels.

A single pair has no concepts to resample. Its draws resample the negatives: their interval covers
the choice of negatives, and does not show whether the case generalises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aya_probes import files
from aya_probes.alignment import inference, measures
from aya_probes.errors import StudyError
from aya_probes.extraction.store import Activations
from aya_probes.stimuli import Manifest, Stimulus
from aya_probes.suites import Suite

POOLING = "content_mean"
HALF_WINDOW = 2  # layers on either side of the peak
RESAMPLES = 2_000


@dataclass(frozen=True)
class Effects:
    """The effects of all cases on one variant."""

    value: np.ndarray
    """Effects ``[case]``."""
    draws: np.ndarray
    """Effects with resampled negatives ``[case, resample]``."""


class ProbeGrid(NamedTuple):
    """The probes of one language."""

    ids: list[str]  # by concept, then by wording
    concepts: list[str]
    wordings: list[int]


def choose_reference(suite: Suite, variants: Sequence[str]) -> str:
    """Return the control variant, else base; raises StudyError if the run has neither."""
    for role in ("control", "base"):
        for name in variants:
            if suite.variant(name).role == role:
                return name
    raise StudyError(
        "failures are measured against a control or base variant, and this run has "
        f"neither; extract one with: {files.MAKE_ACTIVATIONS}"
    )


def list_probes(manifest: Manifest, language: str) -> ProbeGrid:
    """Return the probes of a language."""
    probes = [s for s in manifest.stimuli if s.kind == "probe" and s.language == language]
    concepts = list(dict.fromkeys(s.item_id for s in probes))
    wordings = sorted({s.wording for s in probes if s.wording is not None})
    return ProbeGrid(
        [f"{c}-{language}-{k}" for c in concepts for k in wordings], concepts, wordings
    )


def take_probes(manifest: Manifest, loaded: Activations, language: str) -> np.ndarray:
    """Return the vectors of a language's probes ``[concept, wording, layer, hidden]``."""
    grid = list_probes(manifest, language)
    vectors = loaded.take(POOLING, grid.ids)
    return vectors.reshape(len(grid.concepts), len(grid.wordings), *vectors.shape[1:])


def find_peaks(manifest: Manifest, loaded: Activations) -> dict[str, int]:
    """Return, by language, the layer 1..L of the largest ``sentence_alignment`` with the pivot."""
    grids = {
        code: measures.mean_centre(take_probes(manifest, loaded, code))
        for code in manifest.suite.languages
    }
    pivot = grids[manifest.suite.pivot]
    peaks = {}
    for code, grid in grids.items():
        matrix = measures.wording_mean(measures.cosines(pivot, grid), same_wording=True)
        peaks[code] = 1 + int(measures.alignment(matrix).mean(1)[1:-1].argmax())
    return peaks


def list_layers(peak: int, last_layer: int) -> range:
    """Return the layers around ``peak`` that an effect averages, within 1..``last_layer``."""
    return range(max(1, peak - HALF_WINDOW), min(last_layer, peak + HALF_WINDOW) + 1)


def measure_effects(
    manifest: Manifest,
    loaded: Activations,
    cases: Sequence[Stimulus],
    peaks: Mapping[str, int],
    seed: int,
) -> Effects:
    """Return the effects of all cases on one variant; ``peaks`` are layers by language."""
    pivot = manifest.suite.pivot
    ids, concepts, wordings = list_probes(manifest, pivot)
    means = {
        code: loaded.take(POOLING, list_probes(manifest, code).ids).mean(0)
        for code in {pivot, *(case.language for case in cases)}
    }
    probes = measures.unit(take_probes(manifest, loaded, pivot) - means[pivot])
    weights = inference.resample_weights(len(concepts) - 1, RESAMPLES, seed)
    shrink = (len(concepts) - 1) / len(concepts)
    value, draws = np.empty(len(cases)), np.empty((len(cases), RESAMPLES))
    for n, case in enumerate(cases):
        layers = list_layers(peaks[case.language], loaded.plan.layer_count - 2)
        window = slice(layers.start, layers.stop)
        texts = loaded.take(POOLING, [case.stimulus_id, str(case.parent_id)])
        texts = measures.unit(texts - means[case.language])[:, window]
        position = ids.index(f"{case.item_id}-{pivot}-{case.wording}")
        concept, wording = divmod(position, len(wordings))
        own = probes[concept, wording, window]
        others = [other for other in range(len(concepts)) if other != concept]
        negatives = probes[others, wording][:, window]
        matched = np.einsum("tlh,lh->t", texts, own) / len(layers)
        mismatched = np.einsum("tlh,jlh->tj", texts, negatives) / len(layers)
        gain, drift = matched[0] - matched[1], (mismatched[0] - mismatched[1]) / 2
        value[n] = shrink * (gain - drift.mean())
        draws[n] = shrink * (gain - drift @ weights.T)
    return Effects(value, draws)


def find_best_variants(effects: Mapping[str, Effects]) -> list[list[str]]:
    """Return, for each case, the variant with the largest effect and all not measurably below."""
    names = list(effects)
    values = np.stack([effects[name].value for name in names])
    found = []
    for n, best in enumerate(values.argmax(0)):
        first = effects[names[best]].draws[n]
        others = [name for name in names if name != names[best]]
        ties = [v for v in others if np.quantile(first - effects[v].draws[n], 0.025) <= 0]
        found.append([names[best], *ties])
    return found


def decide_verdict(no_op: bool, lower: float, upper: float) -> str:
    """Return the verdict: no_op, regional_worse, regional_better or no_difference."""
    if no_op:
        return "no_op"
    return "regional_worse" if upper < 0 else "regional_better" if lower > 0 else "no_difference"
