"""Which texts are measured: a sample that two CPU cores finish, or all of them.

``small`` measures the surprisal of the probes and of some items of the parallel corpus, the same in
every language, and comprehension of one wording of each concept in one frame, both in turn, with
the pivot as the target. ``whole`` measures the surprisal of every stimulus and comprehension of
every probe and perturbed text in every frame, with the pivot and the second pivot as targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aya_probes.behaviour import candidates
from aya_probes.behaviour.frames import Frame
from aya_probes.stimuli import Manifest, Stimulus

SAMPLES = ("small", "whole")
PARALLEL_ITEMS = 40  # of the sample ``small``, in every language
SECOND_PIVOT = "fr"  # a target too, in suites that have it


@dataclass(frozen=True)
class Sample:
    """What a user may set of the choice of texts."""

    name: str = "small"
    """small or whole."""
    limit: int | None = None
    """Items of the parallel corpus, at most; None: 40 in ``small``, all in ``whole``."""
    seed: int = 0
    """Seed of the groups of candidates and of the choice of parallel items."""


@dataclass(frozen=True)
class Question:
    """A text, a frame and the pivot sentences to choose from."""

    text: Stimulus
    """The text to understand."""
    frame: Frame
    """The prompt."""
    target: str
    """Language of the candidates (BCP-47)."""
    candidates: tuple[Stimulus, ...]
    """The right sentence, then the mismatched ones."""


def choose_texts(manifest: Manifest, sample: Sample) -> list[Stimulus]:
    """Return the stimuli whose surprisal is measured, in the order of the manifest."""
    items = list(dict.fromkeys(s.item_id for s in manifest.stimuli if s.kind == "parallel"))
    limit = sample.limit or (PARALLEL_ITEMS if sample.name == "small" else len(items))
    order = np.random.default_rng([sample.seed, len(items), 20]).permutation(len(items))
    kept = {items[n] for n in order[:limit]}
    kinds = ("probe",) if sample.name == "small" else ("probe", "perturbation", "control")
    return [
        s
        for s in manifest.stimuli
        if s.kind in kinds or (s.kind == "parallel" and s.item_id in kept)
    ]


def targets_of(manifest: Manifest, sample: Sample) -> list[str]:
    """Return the languages of the candidates: the pivot, and in ``whole`` the second pivot."""
    suite = manifest.suite
    second = [SECOND_PIVOT] if SECOND_PIVOT in suite.languages else []
    wanted = [suite.pivot, *(second if sample.name == "whole" else [])]
    return list(dict.fromkeys(wanted))


def choose_questions(manifest: Manifest, frames: Sequence[Frame], sample: Sample) -> list[Question]:
    """Return what is asked for comprehension; empty for fewer than 5 concepts.

    In ``small``, the concepts of a group share wording and frame, so that a model that ignores the
    text is right once. The wording goes with the group, the frame with the group and the language.
    A text in the target language itself is not asked.
    """
    found: list[Question] = []
    for target in targets_of(manifest, sample):
        sentences = candidates.pivot_sentences(manifest, target)
        groups = candidates.group_concepts(candidates.mean_lengths(sentences), sample.seed)
        wordings = sorted({wording for _, wording in sentences})
        for text in manifest.stimuli:
            if text.kind not in ("probe", "perturbation") or text.language == target:
                continue
            choice = candidates.candidates_of(text, groups, sentences)
            if not choice:
                continue
            chosen = list(frames)
            if sample.name == "small":
                group = next(n for n, group in enumerate(groups) if text.item_id in group)
                if text.kind != "probe" or text.wording != wordings[group % len(wordings)]:
                    continue
                turn = group + manifest.suite.languages.index(text.language)
                chosen = [frames[turn % len(frames)]]
            found += [Question(text, frame, target, tuple(choice)) for frame in chosen]
    return found
