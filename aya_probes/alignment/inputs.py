"""What an alignment run compares (variants, languages, concepts), and its random draws."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from aya_probes import command_line, errors, files, stimuli
from aya_probes.alignment import inference
from aya_probes.errors import StudyError
from aya_probes.extraction.plan import plan_path
from aya_probes.run_folder import RunPaths
from aya_probes.stimuli import Manifest
from aya_probes.suites import Suite

MIN_CONCEPTS = 4  # p-values and intervals need this many
MIN_SPLIT_CONCEPTS = 8  # shapes and contrasts need this many: two halves of 4


@dataclass(frozen=True)
class Config:
    """The settings of the analysis; None means all."""

    paths: RunPaths
    variants: tuple[str, ...] | None
    languages: tuple[str, ...] | None
    concepts: tuple[str, ...] | None
    n_bootstrap: int
    n_permutations: int
    seed: int
    overwrite: bool = False


@dataclass(frozen=True)
class AlignmentInputs:
    """What is compared, and the random draws that all cells share."""

    manifest: Manifest
    variants: list[str]
    languages: list[str]
    concepts: list[str]
    """Ids of the concepts; empty in a suite without probes."""
    wordings: list[int]
    n_bootstrap: int
    orders: np.ndarray
    """Permutations of the concepts ``[permutation, concept]``."""
    seed: int

    @property
    def suite(self) -> Suite:
        return self.manifest.suite

    @property
    def others(self) -> list[str]:
        """All languages except the pivot."""
        return [code for code in self.languages if code != self.suite.pivot]

    @property
    def order(self) -> list[str]:
        """All languages, the pivot first."""
        return [self.suite.pivot, *self.others]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All language pairs, those with the pivot first."""
        return list(itertools.combinations(self.order, 2))

    @property
    def infers(self) -> bool:
        """Whether there are enough concepts for p-values and intervals."""
        return len(self.concepts) >= MIN_CONCEPTS

    @functools.cached_property
    def categories(self) -> np.ndarray:
        """The semantic field of each concept, as a number ``[concept]``."""
        named = [self.manifest.metadata["categories"][c] for c in self.concepts]
        return np.unique(named, return_inverse=True)[1]

    @functools.cached_property
    def documents(self) -> np.ndarray:
        """The document of each item of the parallel corpus, numbered from 0 ``[item]``."""
        return np.unique(self.manifest.metadata["documents"], return_inverse=True)[1]

    def weights(self, n: int) -> np.ndarray | None:
        """Return bootstrap weights ``[resample, n]``, or None for too few concepts for
        intervals."""
        if n < MIN_CONCEPTS:
            return None
        return inference.resample_weights(n, self.n_bootstrap, self.seed)

    def probe_ids(self, language: str) -> list[str]:
        """Return the probe ids of a language, by concept and then by wording."""
        return [f"{c}-{language}-{k}" for c in self.concepts for k in self.wordings]


def load_inputs(config: Config) -> AlignmentInputs:
    """Read the manifest and choose variants, languages and concepts.

    Raises UsageError for an unknown name, and StudyError for a single concept.
    """
    manifest = stimuli.load_manifest(config.paths.manifest)
    suite = manifest.suite
    languages = command_line.choose("language", config.languages, suite.languages)
    if suite.pivot not in languages or len(languages) < 2:
        raise errors.UsageError(
            f"--languages must name {suite.pivot!r} (the pivot) and another language"
        )
    known = list(manifest.metadata["concepts"])
    if config.concepts and not known:
        raise errors.UsageError(f"--concepts: suite {suite.name} has no probes")
    concepts = command_line.choose("concept", config.concepts, known)
    if len(concepts) == 1:
        raise StudyError(
            f"{config.paths.manifest}: alignment needs at least 2 concepts, found {len(concepts)}; "
            f"give more with --concepts, or regenerate it with: {files.MAKE_MANIFEST}"
        )
    wordings = sorted(
        {s.wording for s in manifest.stimuli if s.kind == "probe" and s.wording is not None}
    )
    _warn_of_few(len(concepts), len(wordings))
    return AlignmentInputs(
        manifest,
        choose_variants(config, suite),
        languages,
        concepts,
        wordings,
        config.n_bootstrap,
        inference.permutations(max(1, len(concepts)), config.n_permutations, config.seed),
        config.seed,
    )


def choose_variants(config: Config, suite: Suite) -> list[str]:
    """Return the variants asked for, else all with activations; warns of missing default ones.

    Raises UsageError for an unknown variant, and StudyError if there are no activations at all.
    """
    if config.variants:
        return command_line.choose("variant", config.variants, suite.names())
    here = [v for v in suite.names() if plan_path(config.paths.activations / v).is_file()]
    if not here:
        raise StudyError(
            f"{config.paths.activations}: no activations; make them with: {files.MAKE_ACTIVATIONS}"
        )
    for name in suite.default_names():
        if name not in here:
            errors.warn(
                f"variant {name} has no activations, so it and its contrasts are left out; "
                f"make them with: {files.MAKE_ACTIVATIONS} --variants {name}"
            )
    return here


def _warn_of_few(concepts: int, wordings: int) -> None:
    """Warn of results that need more concepts or wordings."""
    if not concepts:
        errors.warn("the suite has no probes: only measures of the parallel corpus are computed")
        return
    if concepts < MIN_CONCEPTS:
        errors.warn(
            f"{concepts} concepts: p-values, intervals and commitment layers need at least "
            f"{MIN_CONCEPTS}, shapes and contrasts {MIN_SPLIT_CONCEPTS}; they are left out"
        )
    elif concepts < MIN_SPLIT_CONCEPTS:
        errors.warn(
            f"{concepts} concepts: shapes and contrasts need at least {MIN_SPLIT_CONCEPTS} (two "
            "halves of 4); they are left out"
        )
    if wordings < 2:
        errors.warn(
            "one wording per concept: `concept_alignment` compares different wordings; it is "
            "left out"
        )
