"""Suites as people have them, through every stage: own languages, ids, wordings, labels, pairs."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from transformers import AutoConfig, AutoModelForCausalLM

import batch_runner
import build_stimuli
import pipeline
from aya_probes import errors, figures, fonts, run_folder, stimuli, suites
from aya_probes.page import build, curves
from aya_probes.page.data import load_data
from aya_probes.page.pair import PairModel, TypedPair
from aya_probes.page.view import complete
from aya_probes.planted.tiny import save_tiny, write_study
from aya_probes.results.alignment import load_results
from aya_probes.results.curves import CONCEPT, SENTENCE
from aya_probes.results.failures import (
    load_borrowed_words,
    load_category_tests,
    load_edge_cases,
    load_failure_cases,
)

Raw = dict[str, Any]
VARIANTS: dict[str, dict[str, object]] = {
    "base": {"role": "base"},
    "fire": {"role": "regional", "targets": ["hi"]},
}
OWN_LANGUAGES = {
    "sr-Latn": suites.Language("sr-Latn", "Serbian (Latin)", "Latn", "srp_Latn", "srp"),
    "pt-BR": suites.Language("pt-BR", "Brazilian Portuguese", "Latn", "por_Latn", "por"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models, which every study here uses."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "fire"), start=1):
        save_tiny(folder / name, seed=seed)
    return folder


@pytest.fixture
def study(tmp_path: Path, models: Path) -> Path:
    """A suite file of the two models; its probes and pairs lie beside it."""
    placed = {name: table | {"path": str(models / name)} for name, table in VARIANTS.items()}
    return write_study(tmp_path, placed)


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text("utf-8")), "utf-8")


def edit_json(path: Path, change: Callable[[Raw], object]) -> None:
    raw = json.loads(path.read_text("utf-8"))
    change(raw)
    path.write_text(json.dumps(raw, ensure_ascii=False), "utf-8")


def run_all(suite: Path, *flags: str) -> run_folder.RunPaths:
    """Run every stage and open the page's data."""
    run = suite.parent / "run"
    line = ["--suite", str(suite), "--run-dir", str(run), "--limit", "10", "--device", "cpu"]
    assert pipeline.main([*line, *flags]) == 0
    paths = run_folder.RunPaths(run)
    build.build_page(load_data(paths), PairModel(paths, "cpu"))
    return paths


# --- languages, ids, wordings -----------------------------------------------------------------


@pytest.fixture
def own_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    """data/languages.toml with two more entries."""
    known = suites.load_languages() | OWN_LANGUAGES
    monkeypatch.setattr(suites, "load_languages", lambda: known)


@pytest.fixture
def bcp_study(study: Path, own_languages: None) -> Path:
    """The study in sr-Latn and pt-BR, with hyphens in the ids of concepts and pairs."""

    def rename(text: str) -> str:
        for old, new in (('"hi"', '"sr-Latn"'), ('"sw"', '"pt-BR"'), ('"C0', '"body-part-')):
            text = text.replace(old, new)
        return text.replace("-C0", "-of-body-part-")

    for name in ("probes.json", "pairs.json", study.name):
        edit(study.parent / name, rename)
    edit_json(study.parent / "pairs.json", lambda raw: raw["pairs"][1].update(tag="sr-Latn-RS"))
    edit_json(study.parent / "pairs.json", lambda raw: raw["pairs"][2].update(tag="cnr-Latn"))
    mixed = {"text": "वह blood फिर दिखा।", "mixed": ["en-GB"], "borrowed": ["blood"]}
    edit_json(study.parent / "pairs.json", lambda raw: raw["pairs"][3].update(mixed))
    return study


def test_tags_with_script_or_region_and_ids_with_hyphens_pass_every_stage(bcp_study: Path) -> None:
    paths = run_all(bcp_study)
    manifest = stimuli.load_manifest(paths.manifest)
    assert manifest.suite.languages == ("en", "sr-Latn", "pt-BR")
    assert manifest.suite.variant("fire").targets == ("sr-Latn",)
    parallel = {s.language: s.text for s in manifest.stimuli if s.kind == "parallel"}
    assert parallel.keys() == set(manifest.suite.languages)
    assert not any("Ѐ" <= letter <= "ӿ" for letter in parallel["sr-Latn"])  # Cyrillic
    data = load_data(paths)
    assert data.results.info.others == ["sr-Latn", "pt-BR"]
    assert data.results.curve(CONCEPT, "base", "pt-BR") is not None
    assert data.failures is not None
    labels = {case.stimulus_id: case.labels.split(";") for case in data.failures}
    third = "UNICODE_EDGE-of-body-part-3-hi"
    assert [name for name, found in labels.items() if "LOW_RESOURCE_VARIANT" in found] == [third]
    assert {case.parent_id for case in data.failures} == {
        f"body-part-{n}-sr-Latn-1" for n in range(1, 6)
    }
    anchors = {case.stimulus_id: case.anchor for case in data.failures}
    assert anchors.pop("UNICODE_EDGE-of-body-part-4-hi") == "pt-BR"
    assert set(anchors.values()) == {"en+pt-BR"}
    borrowed = load_borrowed_words(paths.borrowed_words)
    assert {(row.language, row.mixed, row.n) for row in borrowed} == {("sr-Latn", "en-GB", 1)}
    assert (paths.assets / "alignment_curve_avg_sr-Latn.png").is_file()
    drawn = pd.read_csv(paths.assets / "concept_alignment_heatmap.csv")
    assert set(drawn.language) == {"sr-Latn", "pt-BR"}
    view = curves.make(data)
    settings = complete(view, {"languages": ["sr-Latn"], "measure": ["sentence_alignment"]})
    assert "Serbian (Latin)" in view.show(settings).charts[0]


def test_one_wording_per_concept_passes_every_stage(study: Path, capsys: Any) -> None:
    def first_only(raw: Raw) -> None:
        for concept in raw["concepts"]:
            for entry in concept["languages"].values():
                del entry["sentences"][1:]

    edit_json(study.parent / "probes.json", first_only)
    paths = run_all(study)
    said = capsys.readouterr().out
    assert "each concept has one; add a second wording to the probes file" in said
    results = load_results(paths.curves)
    assert results.curve(CONCEPT, "base", "hi") is None
    assert results.curve(SENTENCE, "base", "hi", "content_mean") is not None
    assert len(load_failure_cases(paths.failure_cases)) == 5


@pytest.mark.fault("a perturbations file with no pairs", "every stage runs; a note says so")
def test_no_pairs_passes_every_stage(study: Path, capsys: Any) -> None:
    edit_json(study.parent / "pairs.json", lambda raw: raw.update(pairs=[]))
    paths = run_all(study)
    assert "nothing to measure, as this run has no perturbed text" in capsys.readouterr().err
    assert load_failure_cases(paths.failure_cases) == []
    assert load_category_tests(paths.failure_tests) == []
    assert load_borrowed_words(paths.borrowed_words) == []
    assert load_edge_cases(paths.edge_cases).cases == ()
    assert load_results(paths.curves).curve(CONCEPT, "base", "hi") is not None


# --- letters in figures, lengths on the page --------------------------------------------------


def test_every_installed_script_is_drawn_without_boxes(tmp_path: Path, capsys: Any) -> None:
    names = {"Devanagari": "हिन्दी", "Bengali": "বাংলা", "Tamil": "தமிழ்", "Ethiopic": "አማርኛ"}
    held = {script: fonts.choose_fonts(name) for script, name in names.items()}
    if any(missing for _, missing in held.values()):
        pytest.skip("no installed font has all of these scripts: install fonts-noto-core")
    figure, axes = plt.subplots()
    axes.set_title(" ".join(names.values()))
    with fonts.drawable(figure), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "scripts.png")
    plt.close(figure)
    assert capsys.readouterr().err == ""


@dataclass(frozen=True)
class Shown:
    """A row beside a figure."""

    value: int
    """A number."""


def test_a_letter_that_no_font_has_is_noted_once(tmp_path: Path, capsys: Any) -> None:
    figure, axes = plt.subplots()
    axes.set_title("a\U0010fffd costs $5 to $6")  # private use: no font has it
    for _ in range(2):
        figures.save(figure, Shown, [Shown(1)], tmp_path / "a.png")
    plt.close(figure)
    found = capsys.readouterr().err
    assert found.count("note: no installed font has") == 1
    assert "Glyph" not in found


@pytest.mark.fault("a typed sentence longer than the model's positions", "refused on the page")
def test_a_typed_sentence_that_is_too_long_is_refused_by_name(tmp_path: Path) -> None:
    save_tiny(tmp_path / "gpt2", "gpt2")  # 256 learned positions, one token a byte
    suite = write_study(tmp_path, {"base": {"path": "gpt2", "role": "base"}})
    paths = run_folder.RunPaths(tmp_path / "run")
    line = ["--suite", str(suite), "--run-dir", str(paths.run_dir), "--limit", "2"]
    assert build_stimuli.main(line) == 0
    pair = PairModel(paths, "cpu")
    with pytest.raises(errors.StudyError, match=r"second sentence on base: 301 tokens.* takes 256"):
        next(pair.compute(TypedPair("en", "short", "hi", "x" * 300), ["base"]))
    # A sentence that fits needs the run's own pairs to be placed among.
    with pytest.raises(errors.StudyError, match=r"uv run batch_runner.py"):
        next(pair.compute(TypedPair("en", "short", "hi", "x" * 200), ["base"]))


@pytest.mark.fault("a stimulus longer than the model's positions", "refused before anything is run")
def test_a_stimulus_that_is_too_long_is_refused_by_name(tmp_path: Path, capsys: Any) -> None:
    folder = save_tiny(tmp_path / "gpt2", "gpt2")
    config = AutoConfig.from_pretrained(folder, n_positions=8)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    suite = write_study(tmp_path, {"base": {"path": "gpt2", "role": "base"}})
    run = tmp_path / "run"
    assert build_stimuli.main(["--suite", str(suite), "--run-dir", str(run), "--limit", "2"]) == 0
    assert batch_runner.main(["--local", "--run-dir", str(run), "--device", "cpu"]) == 1
    found = capsys.readouterr().err
    assert re.search(r"variant base: stimulus \S+: \d+ tokens, the model takes 8; shorten", found)
    assert not list((run / "activations").rglob("*.safetensors"))
