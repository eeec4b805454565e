"""The list of languages and the suite of seventy, and what FLORES+ lacks of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import langcodes
import pandas as pd
import pytest
from babel.core import get_global

from aya_probes import corpora, errors, suites
from aya_probes.corpora import FLORES_RENAMED
from aya_probes.models import hub

KNOWN = suites.load_languages()
TEN = {
    "en": ("English", "Latn", "eng_Latn", "eng"),
    "hi": ("Hindi", "Deva", "hin_Deva", "hin"),
    "bn": ("Bengali", "Beng", "ben_Beng", "ben"),
    "sw": ("Swahili", "Latn", "swh_Latn", "swa"),
    "am": ("Amharic", "Ethi", "amh_Ethi", "amh"),
    "fr": ("French", "Latn", "fra_Latn", "fra"),
    "es": ("Spanish", "Latn", "spa_Latn", "spa"),
    "ar": ("Arabic", "Arab", "arb_Arab", "arb"),
    "yo": ("Yoruba", "Latn", "yor_Latn", "yor"),
    "ta": ("Tamil", "Taml", "tam_Taml", "tam"),
}
REGIONS = {
    "Africa",
    "Americas",
    "Central and North Asia",
    "East and Southeast Asia",
    "Europe",
    "Oceania",
    "South Asia",
    "West Asia",
}


def test_every_config_of_flores_plus_is_there_once() -> None:
    assert len(KNOWN) == 230
    names = [FLORES_RENAMED.get(row.flores, row.flores) for row in KNOWN.values()]
    assert len(set(names)) == len({row.name for row in KNOWN.values()}) == 230
    assert set(FLORES_RENAMED) <= {row.flores for row in KNOWN.values()}


def test_the_languages_of_the_shipped_probes_have_not_changed() -> None:
    found = {code: KNOWN[code] for code in TEN}
    assert {c: (r.name, r.script, r.flores, r.ntrex) for c, r in found.items()} == TEN


def test_codes_are_valid_and_scripts_are_those_of_the_texts() -> None:
    usual = get_global("likely_subtags")
    for code, row in KNOWN.items():
        assert langcodes.tag_is_valid(code), code
        assert row.script == row.flores.split("_")[1], code
        assert row.region in REGIONS, code
        likely = usual.get(code.split("-")[0], "").split("_")[1:2]
        if likely and not langcodes.get(code).script:  # Hang is a part of Kore
            assert row.script == likely[0].replace("Kore", "Hang"), code


def test_the_seventy_languages_have_a_region_each() -> None:
    suite = suites.load_suite("tiny-aya-70")
    assert (len(suite.languages), suite.probes, suite.perturbations) == (69, "", "")
    assert suite.default_names() == ["base", "global", "fire", "earth", "water"]
    targets = {v.name: v.targets for v in suite.variants if v.targets}
    assert {name: len(codes) for name, codes in targets.items()} == {
        "fire": 9,
        "earth": 15,
        "water": 44,
    }
    counts = Counter(code for codes in targets.values() for code in codes)
    assert set(counts) == set(suite.languages) - {suite.pivot}
    assert set(counts.values()) == {1}
    assert {KNOWN[code].region for code in targets["fire"]} == {"South Asia"}
    parent = suites.load_suite("tiny-aya")
    assert [v.repo for v in suite.variants] == [v.repo for v in parent.variants]


@pytest.mark.fault("a suite that names an unknown language", "refused with the code to write")
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("hin_Deva", "unknown language 'hin_Deva'; write 'hi'"),
        ("xx", "unknown language 'xx'; add it to data/languages.toml"),
    ],
)
def test_an_unknown_language_of_a_suite(tmp_path: Path, code: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\nextends = "mini"\nlanguages = ["en", "{code}"]\n', "utf-8")
    with pytest.raises(errors.StudyError, match=f"mine.toml: languages: {message}"):
        suites.load_suite(str(path))


@pytest.fixture
def flores_plus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set on disk with a whole config, one with dev sentences alone, and no third."""
    splits = {"eng_Latn": ("dev", "devtest"), "hin_Deva": ("dev", "devtest"), "wuu_Hans": ("dev",)}
    card = ["---", "configs:"]
    for config, names in splits.items():
        card += [f"- config_name: {config}", "  data_files:"]
        for split in names:
            file = f"{config}-{split}.parquet"
            card += [f"  - split: {split}", f"    path: {file}"]
            rows = {"id": range(3), "text": [f"{config} {n}" for n in range(3)]}
            pd.DataFrame(rows).to_parquet(tmp_path / file)
    (tmp_path / "README.md").write_text("\n".join([*card, "---", ""]), "utf-8")
    monkeypatch.setattr(corpora, "FLORES_REPO", str(tmp_path))
    monkeypatch.setattr(hub, "dataset_commit", lambda repository: None)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


@pytest.mark.fault("FLORES+ has no such config, or no devtest sentences", "refused by language")
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ta", r"has no config tam_Taml; fix `flores` of ta .* or leave ta out"),
        ("wuu", r"wuu_Hans: no devtest sentences; leave wuu out"),
    ],
)
def test_a_language_that_flores_plus_lacks(flores_plus: Path, code: str, message: str) -> None:
    found = corpora.load_flores(["en", "hi"], "en", None, None)
    assert found.texts["hi"] == [f"hin_Deva {n}" for n in range(3)]
    with pytest.raises(errors.StudyError, match=message):
        corpora.load_flores(["en", code], "en", None, None)
