"""Planted runs of the alignment stage: manifests, and the inputs of a single measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from aya_probes import project, run_folder, stimuli, suites
from aya_probes.alignment import inference
from aya_probes.alignment.inputs import AlignmentInputs
from aya_probes.stimuli import Manifest, Stimulus

CATEGORY = 4  # concepts per category


def _a_text(language: str, concept: int, wording: int) -> str:
    return "a text"


def manifest(
    suite: suites.Suite,
    *,
    concepts: int = 0,
    wordings: int = 2,
    documents: Sequence[int] = (),
    text: Callable[[str, int, int], str] = _a_text,
) -> Manifest:
    """Return a manifest of ``concepts`` probes and of one corpus item for each document number.

    Concepts and wordings are counted from 1; every four concepts are a category. ``text`` returns
    a probe of a language, a concept and a wording; its first character is the span.
    """
    numbers = range(1, concepts + 1)
    probes = [
        Stimulus(f"C{c:02d}-{code}-{k}", "probe", f"C{c:02d}", k, code, text(code, c, k), (0, 1))
        for code in suite.languages
        for c in numbers
        for k in range(1, wordings + 1)
    ]
    parallel = [
        Stimulus(f"P{n}-{code}", "parallel", f"P{n}", None, code, "a text", None)
        for code in suite.languages
        for n in range(len(documents))
    ]
    metadata = {
        "schema_version": project.SCHEMA_VERSION,
        "corpus": {"items": len(documents)},
        "concepts": {f"C{c:02d}": f"concept {c}" for c in numbers},
        "categories": {f"C{c:02d}": f"field {(c - 1) // CATEGORY}" for c in numbers},
        "documents": list(documents),
    }
    return Manifest(suite, metadata, (*probes, *parallel))


def saved(folder: Path, made: Manifest) -> Manifest:
    """Write a manifest into a run folder; return it as it is read back."""
    path = run_folder.RunPaths(folder).manifest
    stimuli.save_manifest(path, made)
    return stimuli.load_manifest(path)


def inputs(made: Manifest, *, draws: int = 500, seed: int = 0) -> AlignmentInputs:
    """Return what a measure needs to know of a run, with few random draws."""
    concepts = list(made.metadata["concepts"])
    return AlignmentInputs(
        made,
        made.suite.names(),
        list(made.suite.languages),
        concepts,
        sorted({s.wording for s in made.stimuli if s.wording is not None}),
        draws,
        inference.permutations(max(1, len(concepts)), draws, seed),
        seed,
    )
