"""The committed stimuli, the corpora, and every refusal of bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import build_stimuli
from aya_probes import corpora as parallel_corpus
from aya_probes import errors, probes, project, run_folder, stimuli, suites
from aya_probes.planted.tiny import write_study

PROBES = project.ROOT / "data" / "concept_probes.json"
MINI = suites.load_suite("mini")


def test_committed_probes_are_20_concepts_in_10_languages_and_3_wordings() -> None:
    concepts = probes.load_probes(PROBES)
    assert [c.id for c in concepts] == [f"C{n:02d}" for n in range(1, 21)]
    for concept in concepts:
        assert set(concept.sentences) == set(MINI.languages)
        for sentences in concept.sentences.values():
            assert [s.wording for s in sentences] == [1, 2, 3]
            assert len({s.text for s in sentences}) == 3


def test_every_term_has_a_named_source() -> None:
    with (project.ROOT / "data" / "concept_sources.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    terms = {(c.id, code): c.terms[code] for c in probes.load_probes(PROBES) for code in c.terms}
    assert {(r["concept_id"], r["language"]): r["term"] for r in rows} == terms
    assert all(row["sources"] for row in rows)


def test_committed_perturbations_have_parents_and_cover_the_categories() -> None:
    pairs, lexicons = probes.load_perturbations(project.ROOT / "data" / "perturbations.json")
    counts = {c: sum(p.category == c for p in pairs) for c in {p.category for p in pairs}}
    assert len(counts) == 5
    assert min(counts.values()) >= 8
    assert {p.language for p in pairs if p.category == "FORMAL_REGISTER"} <= set(lexicons)


def test_mini_manifest_is_deterministic(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert build_stimuli.main(["--run-dir", str(tmp_path / name)]) == 0
    first = run_folder.RunPaths(tmp_path / "a").manifest
    assert first.read_bytes() == run_folder.RunPaths(tmp_path / "b").manifest.read_bytes()
    manifest = stimuli.load_manifest(first)
    assert manifest.metadata["counts"]["probe"] == 600
    assert manifest.metadata["corpus"]["items"] >= 250
    assert len(manifest.metadata["corpus"]["kinds"]) >= 4
    assert manifest.suite == MINI


@pytest.fixture
def flores(tmp_path: Path) -> Path:
    folder = tmp_path / "flores" / "devtest"
    folder.mkdir(parents=True)
    for code in MINI.languages:
        name = suites.load_languages()[code].flores
        (folder / f"{name}.devtest").write_text(f"one {code}\ntwo {code}\n", encoding="utf-8")
    return folder.parent


def build(tmp_path: Path, *flags: str) -> int:
    return build_stimuli.main(["--run-dir", str(tmp_path / "run"), *flags])


def test_flores_folder_is_aligned_by_line(tmp_path: Path, flores: Path) -> None:
    assert build(tmp_path, "--suite", "mini-flores", "--flores-dir", str(flores)) == 0
    manifest = stimuli.load_manifest(run_folder.RunPaths(tmp_path / "run").manifest)
    second = {s.text for s in manifest.stimuli if s.item_id == "devtest-0002"}
    assert second == {f"two {code}" for code in MINI.languages}


@pytest.mark.parametrize(
    ("content", "message"),
    [("one\n", "unequal line counts"), ("one\n\n", "line 2 is blank"), (None, "No such file")],
)
def test_broken_flores_is_refused_by_name(
    tmp_path: Path, flores: Path, capsys: Any, content: str | None, message: str
) -> None:
    path = flores / "devtest" / "hin_Deva.devtest"
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert build(tmp_path, "--suite", "mini-flores", "--flores-dir", str(flores)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "hin_Deva" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "listed"),
    [
        (["--suite", "nosuch"], "mini-flores"),
        (["--languages", "en,xx"], "yo"),
        (["--concepts", "C99"], "C20"),
        (["--languages", "hi,bn"], "pivot"),
    ],
)
def test_unknown_names_exit_2(tmp_path: Path, capsys: Any, flags: list[str], listed: str) -> None:
    assert build(tmp_path, *flags) == 2
    assert listed in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--corpus", "wmt"], ["--limit", "0"], ["--sweet", "mini"]])
def test_bad_flags_exit_2(tmp_path: Path, flags: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        build(tmp_path, *flags)
    assert stop.value.code == 2


def test_surface_form_not_in_its_sentence(tmp_path: Path, capsys: Any) -> None:
    suite = write_study(tmp_path, {"base": {"path": "base", "role": "base"}})
    probes = json.loads((tmp_path / "probes.json").read_text("utf-8"))
    probes["concepts"][2]["languages"]["hi"]["sentences"][0]["surface"] = "हाथ"
    (tmp_path / "probes.json").write_text(json.dumps(probes), encoding="utf-8")
    assert build(tmp_path, "--suite", str(suite)) == 1
    error = capsys.readouterr().err
    assert "probes.json: C03: hi: wording 1" in error
    assert "surface" in error


def test_suite_files_from_strangers_are_checked(tmp_path: Path, capsys: Any) -> None:
    suite = tmp_path / "mine.toml"
    suite.write_text('name = "mine"\npivot = "en"\nlanguages = ["en"]\nspell = 1\n', "utf-8")
    assert build(tmp_path, "--suite", str(suite)) == 1
    assert "unknown key 'spell'" in capsys.readouterr().err
    suite.write_text("name = ", "utf-8")
    assert build(tmp_path, "--suite", str(suite)) == 1
    assert "not valid TOML" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("stimuli"), "'stimuli' is missing"),
        (lambda m: m["stimuli"][0].update(span=[0, 999]), "span"),
        (lambda m: m["stimuli"][0].update(text=5), "'text' has the wrong type"),
        (lambda m: m["metadata"].update(schema_version=99), "schema_version"),
        (lambda m: m["stimuli"].append(m["stimuli"][0]), "occurs twice"),
    ],
)
def test_broken_manifests_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    assert build(tmp_path, "--limit", "2") == 0
    path = run_folder.RunPaths(tmp_path / "run").manifest
    raw = json.loads(path.read_text("utf-8"))
    change(raw)
    path.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(errors.StudyError, match=message):
        stimuli.load_manifest(path)


def test_cldr_refuses_a_language_it_does_not_have() -> None:
    with pytest.raises(errors.StudyError, match="CLDR has no language"):
        parallel_corpus.load_cldr(["en", "qqq"], "en")


def test_unwritable_folder(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "run").write_text("a file, not a folder")
    assert build(tmp_path) == 1
    assert "run" in capsys.readouterr().err
