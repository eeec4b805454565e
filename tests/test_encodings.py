"""Files as editors and other programs save them: read as plain UTF-8 is, or refused by name."""

from __future__ import annotations

import codecs
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import build_stimuli
from aya_probes import run_folder, stimuli, suites
from aya_probes.planted.tiny import write_study

FLORES = {
    "eng_Latn": ["The eye is open.", "The heart beats.", "A bone broke."],
    "hin_Deva": ["आँख खुली है।", "दिल धड़कता है।", "एक हड्डी टूटी।"],
    "swh_Latn": ["Jicho liko wazi.", "Moyo unapiga.", "Mfupa ulivunjika."],
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The suite file of a study on a FLORES folder; texts lie beside it."""
    suite = write_study(tmp_path, {"base": {"path": "base", "role": "base"}})
    suite.write_text(suite.read_text("utf-8").replace('"cldr"', '"flores"'), "utf-8")
    (tmp_path / "flores" / "devtest").mkdir(parents=True)
    for name, lines in FLORES.items():
        corpus_file(tmp_path, name).write_text("\n".join(lines) + "\n", "utf-8")
    articles = "\n".join(f"https://example.org/{n}" for n in range(3))
    (tmp_path / "flores" / "metadata_devtest.tsv").write_text(f"URL\n{articles}\n", "utf-8")
    return suite


def corpus_file(folder: Path, name: str) -> Path:
    return folder / "flores" / "devtest" / f"{name}.devtest"


def rewrite(path: Path, change: Callable[[str], bytes]) -> None:
    path.write_bytes(change(path.read_text("utf-8")))


def build(study: Path, run: str = "run") -> int:
    folder = study.parent
    line = ["--suite", str(study), "--flores-dir", str(folder / "flores")]
    return build_stimuli.main([*line, "--run-dir", str(folder / run)])


def texts(study: Path, run: str = "run") -> dict[str, tuple[str, Any]]:
    manifest = stimuli.load_manifest(run_folder.RunPaths(study.parent / run).manifest)
    return {s.stimulus_id: (s.text, s.span) for s in manifest.stimuli}


WAYS: dict[str, Callable[[str], bytes]] = {
    "byte order mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "both": lambda text: codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode(),
    "blank lines at the end": lambda text: (text + "\n \n\n").encode(),
}
SOURCES = ("tiny.toml", "probes.json", "pairs.json", "flores/devtest/eng_Latn.devtest")


@pytest.mark.fault(
    "a byte order mark, CRLF or blank last lines in a suite, stimuli or a corpus", "read as without"
)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("way", WAYS)
def test_marks_and_line_ends_change_nothing(study: Path, source: str, way: str) -> None:
    assert build(study, "plain") == 0
    rewrite(study.parent / source, WAYS[way])
    assert build(study) == 0
    assert texts(study) == texts(study, "plain")


@pytest.mark.fault("UTF-16 or Latin-1 in a suite, stimuli or a corpus", "refused, file and line")
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("encoding", "message"),
    [("utf-16", "is UTF-16, not UTF-8; save it as UTF-8"), ("latin-1", "line {}: not UTF-8")],
)
def test_other_encodings_are_refused(
    study: Path, source: str, encoding: str, message: str, capsys: Any
) -> None:
    path = study.parent / source
    last = path.read_text("utf-8").count("\n") + 1
    rewrite(path, lambda text: (text + "é").encode(encoding, "replace"))
    assert build(study) == 1
    found = capsys.readouterr().err
    assert path.name in found
    assert message.format(last) in found
    assert len(found.splitlines()) == 1


def test_a_blank_line_inside_a_corpus_is_refused_with_its_number(study: Path, capsys: Any) -> None:
    rewrite(
        corpus_file(study.parent, "hin_Deva"), lambda text: text.replace("\n", "\n\n", 1).encode()
    )
    rewrite(corpus_file(study.parent, "eng_Latn"), lambda text: (text + "One more.\n").encode())
    rewrite(corpus_file(study.parent, "swh_Latn"), lambda text: (text + "Moja zaidi.\n").encode())
    assert build(study) == 1
    assert "hin_Deva.devtest: line 2 is blank" in capsys.readouterr().err


def test_a_surface_in_another_unicode_form_is_found(study: Path) -> None:
    """The letter í is one character or two; the span covers what stands in the text."""
    path = study.parent / "probes.json"
    raw = json.loads(path.read_text("utf-8"))
    entry = raw["concepts"][0]["languages"]["sw"]["sentences"][0]
    entry["text"] = "Ile ji\u0301cho ilionekana tena."
    entry["surface"] = "jícho"
    path.write_text(json.dumps(raw), "utf-8")
    assert build(study) == 0
    text, span = texts(study)["C01-sw-1"]
    assert unicodedata.normalize("NFC", text[slice(*span)]) == "jícho"
    assert len(text[slice(*span)]) == 6


@pytest.mark.fault("a corpus folder with the names of FLORES+", "read")
def test_a_language_that_flores_renamed_is_found_by_both_names(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = suites.load_languages()
    known["sw"] = suites.Language("sw", "Swahili", "Latn", "tgl_Latn", "")
    monkeypatch.setattr(suites, "load_languages", lambda: known)
    corpus_file(study.parent, "swh_Latn").rename(corpus_file(study.parent, "fil_Latn"))
    assert build(study) == 0
    corpus_file(study.parent, "fil_Latn").rename(corpus_file(study.parent, "tgl_Latn"))
    assert build(study, "old") == 0
    assert texts(study) == texts(study, "old")
