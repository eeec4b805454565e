"""Effects: how far a perturbation moves a text away from what its parent's meaning has elsewhere.

::

    A(x)      = (1 - 1/n) * (cos(x, own) - mean_j cos(x, other_j) / 2)
    effect(v) = mean over layers of A(text) - A(parent), on the vectors of variant v
    delta     = effect(regional variant) - effect(reference variant)

x is the content_mean vector of the text or of its parent, standardised by its language's probes
(ADR-016). own is the anchor of the parent's concept and wording, and other_j, the negatives, are
those of the n - 1 other concepts. An anchor is the mean of the unit vectors of that sentence in all
languages of the suite but the parent's own and those that are mixed into the text: a text gains
nothing by words that it borrows from a language that it is compared with (ADR-015). The effect
against the pivot alone is measured beside it. The layers are the peak of ``sentence_alignment`` on
the reference variant in the parent's language, and two on either side.

A is ``alignment.measures.alignment`` for one row of the similarity matrix, without half of the
column mean. That term is the same for a text and its parent, so it cancels.

A single pair has no concepts to resample. Its draws resample the negatives: their interval covers
the choice of negatives, and does not show whether the case generalises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import langcodes
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
    pivot: np.ndarray
    """Effects against the pivot's sentence alone ``[case]``."""
    levels: np.ndarray
    """A of the text and of its parent, against the anchor and against the pivot ``[case, 2,
    2]``."""


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


class Space:
    """The standardised probes of one variant, which texts are compared with."""

    def __init__(self, manifest: Manifest, loaded: Activations) -> None:
        self.pivot = manifest.suite.pivot
        self.grid = list_probes(manifest, self.pivot)
        self._scales: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.units: dict[str, np.ndarray] = {}
        """Unit vectors ``[concept, wording, layer, hidden]`` by language."""
        for code in manifest.suite.languages:
            vectors = take_probes(manifest, loaded, code)
            centred = vectors - vectors.mean((0, 1), keepdims=True)
            self._scales[code] = (
                vectors.mean((0, 1)),
                np.sqrt(np.square(centred).mean((0, 1))),
            )
            self.units[code] = measures.unit(measures.standardise(vectors))

    def place(self, vectors: np.ndarray, language: str, window: slice) -> np.ndarray:
        """Return unit vectors ``[text, layer, hidden]``, standardised by the language.

        ``vectors`` are texts at the layers of ``window``.
        """
        mean, spread = (part[window] for part in self._scales[language])
        varies = spread > 1e-6 * spread.max(-1, keepdims=True)
        scaled = np.where(varies, (vectors - mean) / np.where(varies, spread, 1), 0)
        return measures.unit(scaled)

    def anchors(self, languages: Sequence[str], wording: int, window: slice) -> np.ndarray:
        """Return the anchors of all concepts ``[concept, layer, hidden]``, of length 1."""
        mean = np.mean([self.units[code][:, wording, window] for code in languages], axis=0)
        return measures.unit(mean)


def anchor_languages(case: Stimulus, languages: Sequence[str]) -> list[str]:
    """Return the languages of a case's anchor: neither the parent's own nor a mixed one.

    Languages are compared without script and region. The list is empty if all are left out.
    """
    used = {_language(t) for t in (case.language, case.tag or case.language, *(case.mixed or ()))}
    return [code for code in languages if _language(code) not in used]


def _language(tag: str) -> str | None:
    return langcodes.get(tag).language


def find_peaks(space: Space) -> dict[str, int]:
    """Return, by language, the layer 1..L of the largest ``sentence_alignment`` with the pivot."""
    peaks = {}
    for code, grid in space.units.items():
        cosines = measures.cosines(space.units[space.pivot], grid)
        matrix = measures.wording_mean(cosines, same_wording=True)
        peaks[code] = 1 + int(measures.alignment(matrix).mean(1)[1:-1].argmax())
    return peaks


def list_layers(peak: int, last_layer: int) -> range:
    """Return the layers around ``peak`` that an effect averages, within 1..``last_layer``."""
    return range(max(1, peak - HALF_WINDOW), min(last_layer, peak + HALF_WINDOW) + 1)


def measure_effects(
    space: Space,
    loaded: Activations,
    cases: Sequence[Stimulus],
    peaks: Mapping[str, int],
    seed: int,
) -> Effects:
    """Return the effects of all cases on one variant; ``peaks`` are layers by language."""
    _, concepts, wordings = space.grid
    weights = inference.resample_weights(len(concepts) - 1, RESAMPLES, seed)
    count = len(cases)
    value, pivot, draws = np.empty(count), np.empty(count), np.empty((count, RESAMPLES))
    levels = np.empty((count, 2, 2))
    for n, case in enumerate(cases):
        layers = list_layers(peaks[case.language], loaded.plan.layer_count - 2)
        window = slice(layers.start, layers.stop)
        texts = loaded.take(POOLING, [case.stimulus_id, str(case.parent_id)])[:, window]
        texts = space.place(texts, case.language, window)
        concept, wording = concepts.index(case.item_id), wordings.index(int(case.wording or 0))
        against = []
        for languages in (anchor_languages(case, list(space.units)), [space.pivot]):
            anchors = space.anchors(languages, wording, window)
            found = np.einsum("tlh,jlh->tj", texts, anchors) / len(layers)  # [text, concept]
            against.append((found[:, concept], np.delete(found, concept, axis=1)))
        shrink = (len(concepts) - 1) / len(concepts)
        levels[n] = [shrink * (own - others.mean(1) / 2) for own, others in against]
        (own, others), _ = against
        gain, drift = own[0] - own[1], (others[0] - others[1]) / 2
        value[n], pivot[n] = levels[n, :, 0] - levels[n, :, 1]
        draws[n] = shrink * (gain - drift @ weights.T)
    return Effects(value, draws, pivot, levels)


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
