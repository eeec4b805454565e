"""Build the stimulus manifest of a suite: probes, parallel corpus and perturbation pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aya_probes import (
    command_line,
    corpora,
    errors,
    files,
    parallel_folder,
    perturbations,
    probes,
    project,
    run_folder,
    stimuli,
    suites,
)
from aya_probes.corpora import ParallelCorpus
from aya_probes.errors import StudyError
from aya_probes.perturbations import Perturbation
from aya_probes.probes import Concept
from aya_probes.run_folder import RunPaths
from aya_probes.stimuli import Manifest, Stimulus
from aya_probes.suites import Suite

MANIFEST_VERSION = 3  # raise this number when the same suite and corpus would give other stimuli


@dataclass(frozen=True)
class Config:
    """The settings of the stage."""

    suite: Suite
    """The suite, with its variants and languages."""
    paths: RunPaths
    """The run folder."""
    corpus: str
    """Parallel corpus: cldr, flores or parallel."""
    flores_dir: Path | None
    """FLORES-200 folder; None means the Hugging Face hub."""
    limit: int | None
    """Number of parallel items to keep; None means all."""
    languages: tuple[str, ...] | None
    """Languages to include; None means all of the suite."""
    concepts: tuple[str, ...] | None
    """Concepts to include; None means all."""
    parallel_dir: Path | None = None
    """Folder of line-parallel texts; the corpus is then parallel."""


def probe_stimuli(
    concepts: Sequence[Concept], languages: Sequence[str], source: Path
) -> list[Stimulus]:
    """Return one stimulus per concept, language and wording.

    Raises StudyError if a concept lacks a language, or its languages differ in their wordings.
    """
    stimuli = []
    for concept in concepts:
        wordings = {}
        for code in languages:
            if code not in concept.sentences:
                raise StudyError(
                    f"{source}: {concept.id}: language {code!r} is missing; add it, or "
                    "leave it out with --languages"
                )
            wordings[code] = [s.wording for s in concept.sentences[code]]
            for sentence in concept.sentences[code]:
                stimuli.append(
                    Stimulus(
                        f"{concept.id}-{code}-{sentence.wording}",
                        "probe",
                        concept.id,
                        sentence.wording,
                        code,
                        sentence.text,
                        sentence.span,
                    )
                )
        if len({tuple(found) for found in wordings.values()}) != 1:
            raise StudyError(
                f"{source}: {concept.id}: wordings differ between languages, fix them: {wordings}"
            )
    return stimuli


def parallel_stimuli(corpus: ParallelCorpus) -> list[Stimulus]:
    """Return one stimulus per language and item of the parallel corpus."""
    return [
        Stimulus(
            f"{corpus.metadata['corpus']}-{item}-{code}", "parallel", item, None, code, text, None
        )
        for code, lines in corpus.texts.items()
        for item, text in zip(corpus.ids, lines, strict=True)
    ]


def perturbation_stimuli(
    pairs: Sequence[Perturbation], probes: Sequence[Stimulus], source: Path
) -> list[Stimulus]:
    """Return the perturbed texts whose parents are among ``probes``, and their controls.

    The control of a text with borrowed words is these words alone. Raises StudyError for a text
    that is the same as its parent's, or whose parent has changed since it was written.
    """
    known = {probe.stimulus_id: probe for probe in probes}
    found = []
    for pair in pairs:
        if pair.parent_id not in known:
            continue
        parent = known[pair.parent_id].text
        if pair.id in known:
            raise StudyError(
                f"{source}: {pair.id}: a probe has this id (concept-language-wording); rename it"
            )
        if pair.parent != parent:
            raise StudyError(
                f"{source}: {pair.id}: its parent {pair.parent_id} has changed since the pair was "
                f"written; the parent is now {parent!r}: rewrite `text` and `parent` of every pair "
                f"that this lists: {files.MAKE_MANIFEST} --show {pair.parent_id}"
            )
        if pair.text == parent:
            raise StudyError(f"{source}: {pair.id}: the text is the same as its parent's; fix it")
        changed = Stimulus(
            pair.id,
            "perturbation",
            pair.concept_id,
            pair.wording,
            pair.language,
            pair.text,
            None,
            pair.parent_id,
            pair.category,
            pair.tag,
            pair.subtype or None,
            pair.mixed or None,
        )
        found.append(changed)
        if pair.borrowed:
            words = " ".join(pair.borrowed)
            control = dataclasses.replace(changed, kind="control", text=words)
            found.append(dataclasses.replace(control, stimulus_id=f"{pair.id}-borrowed"))
    return found


def load_corpus(config: Config, languages: Sequence[str]) -> ParallelCorpus:
    """Return the parallel corpus; raises UsageError for flags that contradict each other.

    A folder of texts may lack some of the ``languages``; the corpus then lacks them too.
    """
    folder = config.parallel_dir
    if (folder is None) != (config.corpus != parallel_folder.CORPUS):
        raise errors.UsageError(
            f"--corpus {config.corpus} and --parallel-dir exclude each other; keep one"
            if folder
            else f"--corpus {config.corpus} needs --parallel-dir"
        )
    if folder is not None:
        if config.flores_dir is not None:
            raise errors.UsageError("--flores-dir and --parallel-dir exclude each other; keep one")
        return parallel_folder.load_folder(languages, config.suite.pivot, folder, config.limit)
    if config.corpus == "flores":
        corpus = corpora.load_flores(languages, config.suite.pivot, config.flores_dir, config.limit)
    elif config.flores_dir is not None:
        raise errors.UsageError("--flores-dir needs --corpus flores")
    else:
        corpus = corpora.load_cldr(languages, config.suite.pivot)
        if config.limit is not None:
            texts = {code: lines[: config.limit] for code, lines in corpus.texts.items()}
            corpus = corpora.ParallelCorpus(
                corpus.ids[: config.limit],
                texts,
                corpus.metadata,
                corpus.documents[: config.limit],
            )
    return corpus


def written_stimuli(
    config: Config, languages: Sequence[str]
) -> tuple[list[Concept], list[Stimulus]]:
    """Return the concepts, and the texts written for this project: probes, then perturbations.

    Both are empty in a suite without probes.
    """
    suite = config.suite
    if not suite.probes:
        if config.concepts:
            raise errors.UsageError(f"--concepts: suite {suite.name} has no probes")
        return [], []
    probes_file = suites.resolve_path(suite.probes)
    concepts = probes.load_probes(probes_file)
    wanted = command_line.choose("concept", config.concepts, [c.id for c in concepts])
    concepts = [concept for concept in concepts if concept.id in wanted]
    texts = probe_stimuli(concepts, languages, probes_file)
    if suite.perturbations:
        pairs_file = suites.resolve_path(suite.perturbations)
        pairs = perturbations.load_perturbations(pairs_file).pairs
        texts += perturbation_stimuli(pairs, texts, pairs_file)
    return concepts, texts


def run(config: Config) -> tuple[Path, Manifest]:
    """Build and save the manifest; returns its path and content. Raises StudyError for bad data."""
    suite = config.suite
    languages = command_line.choose("language", config.languages, suite.languages)
    if suite.pivot not in languages or len(languages) < 2:
        raise errors.UsageError(
            f"--languages must name {suite.pivot!r} (the pivot) and another language"
        )
    corpus = load_corpus(config, languages)
    languages = [code for code in languages if code in corpus.texts]
    concepts, texts = written_stimuli(config, languages)
    found = [s for s in texts if s.kind == "probe"]
    changed = [s for s in texts if s.kind != "probe"]
    texts = [*found, *parallel_stimuli(corpus), *changed]
    manifest = Manifest(
        dataclasses.replace(
            suite,
            languages=tuple(languages),
            corpus=config.corpus,
            variants=tuple(
                dataclasses.replace(v, targets=tuple(t for t in v.targets if t in languages))
                for v in suite.variants
            ),
        ),
        {
            "schema_version": project.SCHEMA_VERSION,
            "manifest_version": MANIFEST_VERSION,
            "corpus": corpus.metadata,
            "concepts": {concept.id: concept.name for concept in concepts},
            "categories": {concept.id: concept.category for concept in concepts},
            "documents": corpus.documents,
            "counts": {kind: sum(s.kind == kind for s in texts) for kind in stimuli.KINDS},
        },
        tuple(texts),
    )
    with run_folder.lock_run(config.paths.run_dir, "build_stimuli.py"):
        files.remove_leftovers(config.paths.manifest.parent)
        stimuli.save_manifest(config.paths.manifest, manifest)
    return config.paths.manifest, manifest
