"""Few-shot prompts that ask for a concept's word: translation, repetition and cloze.

``data/prompts.toml`` holds the frames; words and sentences come from the suite's concept probes. A
prompt is a line per shot, then the query, which ends just before the answer. Concepts are split
into two halves by seed, and the shots of a concept come from the other half: no shot shows the
answer, and the queries of a half share their shots.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from aya_probes import files, project, suites, toml_tables
from aya_probes.errors import StudyError
from aya_probes.probes import Concept, load_probes
from aya_probes.stimuli import Manifest

Task = Literal["translation", "repetition", "cloze"]
TASKS: tuple[Task, ...] = get_args(Task)
SLOTS: dict[Task, tuple[str, ...]] = {  # that a frame must have, once each
    "translation": ("source_language", "source", "target_language", "answer"),
    "repetition": ("source", "answer"),
    "cloze": ("sentence", "answer"),
}
OPTIONAL = ("source_language", "target_language")  # slots that any frame may have, any number
FRAMES = 3  # of each task and language, at least: no finding may hang on one wording
LEAST_CONCEPTS = 8  # fewer leave no half to draw shots from, and no test with power
SHOTS = 5
BLANK = "___"
DEFAULT_PATH = project.ROOT / "data" / "prompts.toml"
_KEYS: dict[str, type] = {"names": dict, "translation": list, "repetition": list, "cloze": list}
_SLOT = re.compile(r"\{([^{}]*)\}")

Forms = Mapping[str, Mapping[str, tuple[str, ...]]]  # concept id -> language -> valid answers


@dataclass(frozen=True)
class Prompts:
    """The frames of a prompt file, for the languages of a suite."""

    path: str
    """The file."""
    sha256: str
    """Hash of its content."""
    names: Mapping[str, Mapping[str, str]]
    """Language -> what it calls each language."""
    frames: Mapping[str, Mapping[Task, tuple[str, ...]]]
    """Language of the answer -> task -> frames."""


@dataclass(frozen=True)
class Query:
    """One prompt: shots, then a query that ends just before the answer."""

    task: Task
    """translation, repetition or cloze."""
    frame: str
    """Id of the frame: task, language and number from 1, such as translation-hi-2."""
    source: str
    """Language of the word or sentence that is given; for repetition and cloze the target."""
    target: str
    """Language of the answer."""
    concept_id: str
    """The concept asked for."""
    shots: str
    """The shots, with the end of their last line: what the queries of a half share."""
    text: str
    """The whole prompt; it begins with ``shots``."""
    span: tuple[int, int]
    """First character and end of the concept's word in the query part of ``text``; for cloze, of
    the blank."""
    closer: str
    """What ends an answer in this frame, such as a quotation mark or the end of the line."""
    answers: tuple[str, ...]
    """Valid answers in the target language."""


def load_prompts(path: Path, languages: Sequence[str]) -> Prompts:
    """Load the frames of ``languages``.

    Raises StudyError, with the file, the field and the fix, for a language without prompts or
    names, fewer than three frames of a task, and a frame without one of its slots.
    """
    raw = toml_tables.read_toml(path)
    names: dict[str, dict[str, str]] = {}
    frames: dict[str, dict[Task, tuple[str, ...]]] = {}
    for code in languages:
        if not isinstance(raw.get(code), dict):
            raise StudyError(
                f"{path}: language {code} has no prompts; add a table [{code}], or leave the "
                "language out with --languages"
            )
        where = f"{path}: {code}"
        table = toml_tables.check_types(raw[code], _KEYS, where)
        names[code] = _names(table.get("names", {}), languages, f"{where}: names")
        frames[code] = {task: _frames(table.get(task, []), task, where) for task in TASKS}
    return Prompts(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), names, frames)


def _names(table: dict[str, Any], languages: Sequence[str], where: str) -> dict[str, str]:
    for code in languages:
        if not isinstance(table.get(code), str) or not table[code].strip():
            raise StudyError(f"{where}: {code} is missing; add what the language calls it")
    return {code: table[code] for code in languages}


def _frames(given: list[str], task: Task, where: str) -> tuple[str, ...]:
    if len(set(given)) < FRAMES:
        raise StudyError(
            f"{where}: {task} has {len(set(given))} different frames; add {FRAMES} at least"
        )
    for number, frame in enumerate(given, start=1):
        here = f"{where}: {task}: frame {number} {frame!r}"
        slots = _SLOT.findall(frame)
        for slot in SLOTS[task]:
            if slots.count(slot) != 1:
                raise StudyError(f"{here} must have {{{slot}}} once; add or remove it")
        unknown = [slot for slot in slots if slot not in (*SLOTS[task], *OPTIONAL)]
        if unknown:
            valid = ", ".join(f"{{{slot}}}" for slot in (*SLOTS[task], *OPTIONAL))
            raise StudyError(f"{here}: unknown slot {{{unknown[0]}}}; valid: {valid}")
        if slots[-1] != "answer" or not frame.partition("{answer}")[0].strip():
            raise StudyError(f"{here} must end with {{answer}} and what closes it; move it there")
    return tuple(given)


def load_concepts(manifest: Manifest) -> list[Concept]:
    """Return the concepts of a run's manifest, as the suite's probes hold them.

    Raises StudyError if the suite has no probes, or its file lacks a concept of the run.
    """
    suite = manifest.suite
    if not suite.probes:
        raise StudyError(f"suite {suite.name} has no probes, so no words to ask for; add probes")
    path = suites.resolve_path(suite.probes)
    found = {concept.id: concept for concept in load_probes(path)}
    for name in manifest.metadata["concepts"]:
        if name not in found:
            raise StudyError(
                f"{path}: concept {name} of the run is not there; restore it, or make the "
                f"manifest again with: {files.MAKE_MANIFEST}"
            )
    return [found[name] for name in manifest.metadata["concepts"]]


def asked_settings(
    prompts: Prompts, concepts: Sequence[Concept], shots: int, seed: int
) -> dict[str, Any]:
    """Return what decides the queries of a stage, as JSON types for its plan."""
    languages = tuple(prompts.frames)
    return {
        "prompts_sha256": prompts.sha256,
        "words_sha256": files.digest(word_forms(concepts, languages)),
        "languages": list(languages),
        "concepts": [concept.id for concept in concepts],
        "shots": shots,
        "seed": seed,
    }


def word_forms(concepts: Sequence[Concept], languages: Sequence[str]) -> Forms:
    """Return the valid answers: each concept's term and the forms that its sentences attest."""
    return {
        concept.id: {
            code: tuple(
                dict.fromkeys([concept.terms[code], *(s.surface for s in concept.sentences[code])])
            )
            for code in languages
            if code in concept.terms
        }
        for concept in concepts
    }


def normalise(word: str) -> str:
    """Return a word as answers are compared: NFC, casefolded, without white space at its ends."""
    return unicodedata.normalize("NFC", word).casefold().strip()


def usable_concepts(
    concepts: Sequence[Concept], task: Task, source: str, target: str
) -> list[Concept]:
    """Return the concepts that can be asked for.

    A concept needs its words in both languages. For a translation they must differ: a word that
    both languages write alike, such as *virus*, can be copied.
    """
    forms = word_forms(concepts, (source, target))

    def usable(concept: Concept) -> bool:
        known = forms[concept.id]
        if source not in known or target not in known:
            return False
        alike = normalise(concept.terms[source]) in map(normalise, known[target])
        return task != "translation" or not alike

    return [concept for concept in concepts if usable(concept)]


@dataclass(frozen=True)
class Cell:
    """What is asked: a task from a source language into a target language."""

    task: Task
    source: str
    target: str


def make_queries(
    prompts: Prompts,
    concepts: Sequence[Concept],
    cell: Cell,
    *,
    frames: Sequence[int] = (0, 1, 2),
    shots: int = SHOTS,
    seed: int = project.SEED,
) -> list[Query]:
    """Return a query for every chosen frame (counted from 0) and every usable concept.

    Shots are drawn by ``seed`` from the other half of the usable concepts, the same for every
    query of a half in a frame. Cloze takes a concept's sentences in turn by frame, where the
    blank stands for the concept. Raises StudyError for fewer than 8 usable concepts.
    """
    if cell.task != "translation" and cell.source != cell.target:
        raise ValueError(f"{cell.task} has one language, not {cell.source} and {cell.target}")
    chosen = usable_concepts(concepts, cell.task, cell.source, cell.target)
    if len(chosen) < LEAST_CONCEPTS:
        raise StudyError(
            f"{prompts.path}: {cell.task} from {cell.source} into {cell.target} has "
            f"{len(chosen)} usable concepts, at least {LEAST_CONCEPTS} are needed; add concepts "
            "with a term in both languages to the suite's probes, or take more with --concepts"
        )
    forms = word_forms(chosen, (cell.source, cell.target))
    rng = np.random.default_rng([seed, len(chosen), 11])
    order = rng.permutation(len(chosen))
    halves = (sorted(order[::2]), sorted(order[1::2]))
    queries = []
    for frame in frames:
        writer = _Writer(prompts, cell, frame)
        lines = [writer.write(concept) for concept in chosen]
        for mine, others in (halves, halves[::-1]):
            picked = rng.choice(others, min(shots, len(others)), replace=False)
            block = "".join(lines[n].shot + "\n" for n in picked)
            queries += [
                Query(
                    cell.task,
                    writer.frame_id,
                    cell.source,
                    cell.target,
                    chosen[n].id,
                    block,
                    block + lines[n].query,
                    (len(block) + lines[n].span[0], len(block) + lines[n].span[1]),
                    writer.closer,
                    forms[chosen[n].id][cell.target],
                )
                for n in mine
            ]
    return queries


@dataclass(frozen=True)
class _Line:
    """A concept in a frame: as a shot with its answer, and as a query without."""

    shot: str
    query: str
    span: tuple[int, int]


class _Writer:
    """Writes concepts into one frame."""

    def __init__(self, prompts: Prompts, cell: Cell, number: int) -> None:
        frame = prompts.frames[cell.target][cell.task][number]
        self.frame_id = f"{cell.task}-{cell.target}-{number + 1}"
        names = prompts.names[cell.target]
        for slot, code in zip(OPTIONAL, (cell.source, cell.target), strict=True):
            frame = frame.replace(f"{{{slot}}}", names[code])
        self._cell, self._number = cell, number
        self._head, _, rest = frame.partition("{answer}")
        self.closer = rest or "\n"
        self._rest = rest

    def write(self, concept: Concept) -> _Line:
        """Return the line of a concept."""
        if self._cell.task == "cloze":
            sentences = concept.sentences[self._cell.target]
            sentence = sentences[self._number % len(sentences)]
            first, end = sentence.span
            given = f"{sentence.text[:first]}{BLANK}{sentence.text[end:]}"
            slot, answer, inner = "{sentence}", sentence.surface, (first, first + len(BLANK))
        else:
            given = concept.terms[self._cell.source]
            slot, answer, inner = "{source}", concept.terms[self._cell.target], (0, len(given))
        start = self._head.index(slot)
        query = self._head.replace(slot, given)
        span = (start + inner[0], start + inner[1])
        # A tokenizer joins a space with the word that follows: a prompt that ends in one would ask
        # for a word without it.
        return _Line(query + answer + self._rest, query.rstrip(), span)
