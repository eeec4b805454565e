"""Prompts: every language has frames, queries ask for the right word, and bad files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aya_probes import probes, project, prompts, suites
from aya_probes.errors import StudyError
from aya_probes.probes import Concept
from aya_probes.prompts import Cell, Prompts

LANGUAGES = ("en", "hi", "bn", "sw", "am", "fr", "es", "ar", "yo", "ta")


@pytest.fixture(scope="module")
def concepts() -> list[Concept]:
    return probes.load_probes(project.ROOT / "data" / "concept_probes.json")


@pytest.fixture(scope="module")
def loaded() -> Prompts:
    return prompts.load_prompts(prompts.DEFAULT_PATH, LANGUAGES)


def test_the_shipped_suites_have_prompts() -> None:
    for name in ("mini", "tiny-aya"):
        suite = suites.load_suite(name)
        found = prompts.load_prompts(prompts.DEFAULT_PATH, suite.languages)
        assert set(found.frames) == set(suite.languages)


@pytest.mark.parametrize(
    "cell",
    [
        *(Cell("translation", "fr", code) for code in LANGUAGES if code != "fr"),
        *(Cell("repetition", code, code) for code in LANGUAGES),
        *(Cell("cloze", code, code) for code in LANGUAGES),
    ],
    ids=lambda cell: f"{cell.task}-{cell.source}-{cell.target}",
)
def test_queries_ask_for_a_word_that_no_shot_shows(
    cell: Cell, concepts: list[Concept], loaded: Prompts
) -> None:
    queries = prompts.make_queries(loaded, concepts, cell)
    by_id = {concept.id: concept for concept in concepts}
    assert len(queries) == 3 * len(prompts.usable_concepts(concepts, cell.task, *_pair(cell)))
    for query in queries:
        concept = by_id[query.concept_id]
        lines = query.shots.splitlines()
        assert len(lines) == prompts.SHOTS == len(set(lines))
        assert query.text.startswith(query.shots)
        asked = query.text[len(query.shots) :]
        assert not asked.endswith(" ")
        assert "{" not in query.text
        assert query.span[0] >= len(query.shots)
        word = query.text[slice(*query.span)]
        assert word == (prompts.BLANK if cell.task == "cloze" else concept.terms[cell.source])
        # The query without its answer is no line of the shots: its concept is not among them.
        assert not any(line.startswith(asked) for line in lines)
        assert concept.terms[cell.target] in query.answers


def _pair(cell: Cell) -> tuple[str, str]:
    return cell.source, cell.target


def test_the_queries_of_a_half_share_shots_from_the_other_half(
    concepts: list[Concept], loaded: Prompts
) -> None:
    cell = Cell("translation", "fr", "sw")
    queries = prompts.make_queries(loaded, concepts, cell, frames=[1], shots=4)
    halves: dict[str, set[str]] = {}
    for query in queries:
        halves.setdefault(query.shots, set()).add(query.concept_id)
    assert sorted(len(half) for half in halves.values()) == [10, 10]
    (first, mine), (second, others) = halves.items()
    terms = {concept.id: concept.terms["fr"] for concept in concepts}
    assert all(f'"{terms[name]}"' not in first for name in mine)
    assert sum(f'"{terms[name]}"' in first for name in others) == 4
    assert all(f'"{terms[name]}"' not in second for name in others)
    again = prompts.make_queries(loaded, concepts, cell, frames=[1], shots=4)
    other = prompts.make_queries(loaded, concepts, cell, frames=[1], shots=4, seed=1)
    assert again == queries
    assert {query.shots for query in other} != set(halves)


def test_words_that_can_be_copied_are_not_asked_for(concepts: list[Concept]) -> None:
    usable = {c.name for c in prompts.usable_concepts(concepts, "translation", "en", "es")}
    assert {c.name for c in concepts} - usable == {"hospital", "virus"}
    assert len(prompts.usable_concepts(concepts, "repetition", "en", "en")) == len(concepts)


def test_fewer_than_eight_concepts_are_refused(concepts: list[Concept], loaded: Prompts) -> None:
    cell = Cell("translation", "en", "es")  # two of these ten are written alike
    assert prompts.make_queries(loaded, concepts[:10], cell)
    with pytest.raises(StudyError, match=r"prompts.toml: translation from en into es has 7 usable"):
        prompts.make_queries(loaded, concepts[1:10], cell)


FRAME = "{source_language} {source}: {target_language} {answer}"


def _file(folder: Path, **changes: object) -> Path:
    table: dict[str, object] = {
        "translation": [FRAME, f"a {FRAME}", f"b {FRAME}"],
        "repetition": ["{source} {answer}", "a {source} {answer}", "b {source} {answer}"],
        "cloze": ["{sentence} {answer}", "a {sentence} {answer}", "b {sentence} {answer}"],
        **changes,
    }
    path = folder / "own.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if key != "names"]
    names = table.get("names", 'names = { en = "English", fr = "French" }')
    path.write_text("\n".join(["[en]", str(names), *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("changes", "languages", "message"),
    [
        ({}, ["en", "fr"], r"own.toml: language fr has no prompts; add a table \[fr\]"),
        ({"names": 'names = { en = "English" }'}, ["en"], None),
        ({"names": "names = {}"}, ["en"], "own.toml: en: names: en is missing"),
        ({"cloze": ["{sentence} {answer}"] * 3}, ["en"], "cloze has 1 different frames; add 3"),
        (
            {"cloze": ["{answer}", "{sentence} {answer}", "a {sentence} {answer}"]},
            ["en"],
            r"en: cloze: frame 1 '\{answer\}' must have \{sentence\} once",
        ),
        (
            {"repetition": ["{source} {word} {answer}", *"ab"]},
            ["en"],
            r"unknown slot \{word\}; valid: \{source\}",
        ),
        (
            {"repetition": ["{answer} {source}", *"ab"]},
            ["en"],
            r"must end with \{answer\}",
        ),
        ({"other": ["x"]}, ["en"], "unknown key 'other'"),
    ],
)
def test_a_bad_prompt_file_is_named(
    tmp_path: Path, changes: dict[str, object], languages: list[str], message: str | None
) -> None:
    path = _file(tmp_path, **changes)
    if message is None:
        assert prompts.load_prompts(path, languages).names == {"en": {"en": "English"}}
        return
    with pytest.raises(StudyError, match=message):
        prompts.load_prompts(path, languages)
