"""Any folder of line-parallel texts as the corpus, the map of languages, and degenerate vectors."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import build_stimuli
import concept_alignment
from aya_probes import (
    files,
    parallel_folder,
    power,
    project,
    records,
    run_folder,
    stimuli,
    suites,
)
from aya_probes.alignment import inference, language_map, measures, parallel
from aya_probes.planted.run import write_activations
from aya_probes.results.alignment import load_results
from aya_probes.results.curves import (
    HUB_SKEW,
    PARALLEL_ALIGNMENT,
    PARALLEL_CKA,
    PARALLEL_CSLS,
    PARALLEL_RETRIEVAL,
    RAW,
)
from aya_probes.results.tables import Contrast, LanguagePair
from aya_probes.stimuli import Manifest
from tests import planted_stage

LINES = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Texts of five languages, as TICO-like corpora name them: every name in another way."""
    made = tmp_path / "corpus"
    made.mkdir()
    for name in ("en.txt", "hi.txt", "swh_Latn.devtest", "zh.txt", "pt-BR.tok.txt"):
        write(made / name)
    write(made / "documents.tsv", [f"article {n // 2}" for n in range(LINES)])
    return made


def write(path: Path, lines: Sequence[str] = ()) -> None:
    """Write given lines, or a text of six."""
    text = lines or [f"{path.name} line {n}" for n in range(1, LINES + 1)]
    path.write_text("\n".join(text) + "\n", "utf-8")


def build(folder: Path, *flags: str, suite: str = "tiny-aya-70") -> int:
    run = folder.parent / "run"
    line = ["--suite", suite, "--parallel-dir", str(folder), "--run-dir", str(run)]
    return build_stimuli.main([*line, *flags])


def manifest(folder: Path) -> Manifest:
    return stimuli.load_manifest(run_folder.RunPaths(folder.parent / "run").manifest)


# --- names of files ---------------------------------------------------------------------------


def test_files_are_read_by_bcp_47_and_by_flores_names(folder: Path) -> None:
    assert build(folder) == 0
    made = manifest(folder)
    assert made.suite.languages == ("en", "hi", "sw", "zh-Hans", "pt")
    assert made.suite.corpus == made.metadata["corpus"]["corpus"] == "parallel"
    assert made.suite.variant("water").targets == ("zh-Hans", "pt")
    assert made.metadata["documents"] == [0, 0, 1, 1, 2, 2]
    third = {s.language: s.text for s in made.stimuli if s.item_id == "line-0003"}
    assert third["sw"] == "swh_Latn.devtest line 3"
    assert third["pt"] == "pt-BR.tok.txt line 3"
    assert len(made.stimuli) == 5 * LINES


def test_a_limit_takes_the_first_lines(folder: Path) -> None:
    assert build(folder, "--limit", "3") == 0
    assert manifest(folder).metadata["documents"] == [0, 0, 1]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("zh", "zh-Hans"),
        ("zh-TW", "zh-Hant"),
        ("zh_Hant", "zh-Hant"),
        ("cmn_Hans", "zh-Hans"),
        ("tl", "fil"),
        ("tgl_Latn", "fil"),
        ("pes", "fa"),
        ("fa", "fa"),
        ("prs", "prs"),
        ("pt-BR", "pt"),
        ("iw", "he"),
        ("sr-Latn", None),  # FLORES has Serbian in Cyrillic
        ("es-LA", None),
        ("README", None),
        ("", None),
    ],
)
def test_equivalent_tags_are_one_language(name: str, code: str | None) -> None:
    assert parallel_folder.language_of(name) == code


def test_every_code_and_every_name_of_flores_is_its_own_language() -> None:
    for code, row in suites.load_languages().items():
        assert parallel_folder.language_of(code) == parallel_folder.language_of(row.flores) == code


@pytest.mark.fault("a corpus folder with names of its own", "read through languages.tsv")
def test_a_mapping_names_the_language_of_any_file(folder: Path, capsys: Any) -> None:
    (folder / "zh.txt").rename(folder / "test.zh-cn.final")
    (folder / "hi.txt").rename(folder / "all.txt")  # Allar, by its name
    write(folder / "languages.tsv", ["# code, file", "zh-Hans\ttest.zh-cn.final", "hi\tall.txt"])
    write(folder / "notes.md")
    assert build(folder) == 0
    assert manifest(folder).suite.languages == ("en", "hi", "sw", "zh-Hans", "pt")
    said = capsys.readouterr().err
    assert "not read, as their language is unknown: notes.md" in said
    assert "no file of te, mr, bn" in said
    assert "which are left out" in said


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.fault(
    "a corpus folder without the pivot; unequal lines; a blank line; two files of a language",
    "refused, file and fix named",
)
@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("hi.txt", ["one"], "line counts differ: {0}/en.txt has 6, but {0}/hi.txt has 1"),
        ("hi.txt", ["1", " ", "3", "4", "5", "6"], "{0}/hi.txt: line 2 is blank"),
        ("hin_Deva.txt", ["1"], "hi.txt and hin_Deva.txt are both hi; remove one"),
        ("documents.tsv", ["1"], "{0}/documents.tsv: 1 lines, but the texts have 6"),
        ("documents.tsv", ["1", "", "3", "4", "5", "6"], "documents.tsv: line 2 is blank"),
        ("languages.tsv", ["xx\ten.txt"], "languages.tsv: line 1: unknown language 'xx'"),
        ("languages.tsv", ["hi en.txt"], "line 1 must be a code, a tab and a file name"),
        ("languages.tsv", ["hi\t../hi.txt"], "line 1: no file '../hi.txt' in this folder"),
        ("languages.tsv", ["hi\ten.txt", "sw\ten.txt"], "line 2: en.txt has two languages"),
        ("languages.tsv", ["hi\ten.txt"], "en.txt and hi.txt are both hi"),
    ],
)
def test_a_broken_folder(
    folder: Path, name: str, lines: list[str], message: str, capsys: Any
) -> None:
    write(folder / name, lines)
    assert build(folder) == 1
    assert message.format(folder) in capsys.readouterr().err
    assert not (folder.parent / "run").exists()


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (("en.txt",), "no file of the pivot 'en'; name it after the language"),
        (("hi.txt", "swh_Latn.devtest", "zh.txt", "pt-BR.tok.txt"), "no file of any language but"),
    ],
)
def test_a_folder_without_the_languages(
    folder: Path, gone: tuple[str, ...], message: str, capsys: Any
) -> None:
    for name in gone:
        (folder / name).unlink()
    assert build(folder) == 1
    assert message in capsys.readouterr().err


def test_a_folder_that_is_not_there(folder: Path, capsys: Any) -> None:
    assert build(folder / "none") == 1
    assert "--parallel-dir:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--corpus", "cldr"], "--corpus cldr and --parallel-dir exclude each other"),
        (["--flores-dir", "x"], "--flores-dir and --parallel-dir exclude each other"),
    ],
)
def test_flags_that_contradict_each_other(
    folder: Path, flags: list[str], message: str, capsys: Any
) -> None:
    assert build(folder, *flags) == 2
    assert message in capsys.readouterr().err


def test_a_suite_may_ask_for_a_folder(folder: Path, capsys: Any) -> None:
    path = folder.parent / "mine.toml"
    path.write_text('name = "mine"\nextends = "tiny-aya-70"\ncorpus = "parallel"\n', "utf-8")
    assert build_stimuli.main(["--suite", str(path), "--run-dir", str(folder.parent / "r")]) == 2
    assert "--corpus parallel needs --parallel-dir" in capsys.readouterr().err
    assert build(folder, suite=str(path)) == 0


# --- what a run could find --------------------------------------------------------------------


def test_the_smallest_effect_is_told_before_anything_is_computed(folder: Path, capsys: Any) -> None:
    assert build(folder) == 0
    assert "smallest difference" not in capsys.readouterr().out  # six sentences: no contrasts
    for path in [*folder.glob("*.t*"), folder / "swh_Latn.devtest"]:
        write(path, [f"{path.name} {n}" for n in range(400)])
    assert build(folder) == 0
    values = np.random.default_rng(0).normal(size=400)
    values *= power.SENTENCES.control / values.std(ddof=1)
    said = capsys.readouterr().out
    assert f"parallel_alignment {inference.detectable(values):.4f} (" in said
    assert "400 sentences" in said
    assert "concept" not in said
    assert build_stimuli.main(["--run-dir", str(folder.parent / "mini")]) == 0
    said = capsys.readouterr().out
    assert "concept_alignment 0.0035 (0.0064), 20 concepts; parallel_alignment" in said
    assert "260 names" in said


@pytest.mark.parametrize(
    ("spread", "run"),
    [
        (power.CONCEPTS, "."),
        (power.NAMES, "."),
        (power.SENTENCES, "runs/mini-flores"),
    ],
)
def test_the_spreads_are_those_of_the_published_results(spread: power.Spread, run: str) -> None:
    path = run_folder.RunPaths(project.ROOT / run).contrasts
    rows = records.load_table(Contrast, path, files.MAKE_CURVES)
    rows = [row for row in rows if (row.measure, row.window) == (spread.measure, "all")]
    for family, expected in (("region", spread.control), ("adaptation", spread.base)):
        found = [
            row.detectable
            / inference.detectable_from(1.0, row.groups)
            * np.sqrt(row.n / row.groups)
            for row in rows
            if row.family == family
        ]
        assert np.median(found) == pytest.approx(expected, rel=0.2)


def test_a_test_finds_the_smallest_effect_in_four_of_five_runs() -> None:
    rng, n = np.random.default_rng(1), 24
    effect = inference.detectable_from(1.0, n)
    drawn = rng.normal(size=(1500, n)) + effect
    p = np.array([inference.sign_flip_p(row, count=999, seed=0) for row in drawn])
    assert (p <= 0.05).mean() == pytest.approx(0.8, abs=0.04)


# --- degenerate vectors -----------------------------------------------------------------------

SUITE = suites.Suite(
    "planted", "en", ("en", "hi", "sw", "fr"), "flores", (suites.Variant("base", "base", path="x"),)
)
ITEMS, HIDDEN, LAYERS = 40, 160, 3  # layers 0, 1 and final_norm; fewer sentences than dimensions


def draw(seed: int = 2) -> dict[str, np.ndarray]:
    """Return vectors ``[item, layer, hidden]``; only sw shares its sentences with en."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(ITEMS, LAYERS, HIDDEN))
    made = {code: rng.normal(size=meaning.shape) for code in SUITE.languages}
    made["en"] += meaning
    made["sw"] += meaning
    return {code: table.astype(np.float32) for code, table in made.items()}


def analyse(folder: Path, vectors: dict[str, np.ndarray], suite: suites.Suite) -> Any:
    """Run the stage on planted vectors of a suite without probes; returns its results."""
    items = len(next(iter(vectors.values())))
    bare = replace(suite, probes="", perturbations="")
    made = planted_stage.saved(
        folder, planted_stage.manifest(bare, documents=[n // 2 for n in range(items)])
    )
    table = {f"P{n}-{c}": vectors[c][n] for c in suite.languages for n in range(items)}
    paths = run_folder.RunPaths(folder)
    write_activations(paths.activations / "base", made, {"content_mean": table, "span_mean": {}})
    flags = ["--n-permutations", "199", "--n-bootstrap", "199"]
    assert concept_alignment.main(["--run-dir", str(folder), *flags]) == 0
    return load_results(paths.curves)


def by_language(results: Any, measure: str) -> dict[str, np.ndarray]:
    return {code: results.curve(measure, "base", code).array() for code in results.info.others}


@pytest.mark.fault("fewer sentences than dimensions", "no measure is biased by it")
def test_fewer_sentences_than_dimensions_bias_no_measure() -> None:
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(120):
        vectors = {code: parallel.standardised(table[:, 0]) for code, table in draw(seed).items()}
        anchor = vectors["en"]
        for code in ("sw", "hi"):
            similarity = measures.unit(anchor) @ measures.unit(vectors[code]).T
            cka, _ = measures.unbiased_cka(measures.gram(anchor), measures.gram(vectors[code]))
            found.setdefault(("A", code), []).append(float(measures.alignment(similarity).mean()))
            found.setdefault(("CKA", code), []).append(cka)
    means = {key: np.mean(values) for key, values in found.items()}
    # Half of the variance is shared: A is 1/2, and CKA, of squared covariances, 1/4.
    assert means["A", "sw"] == pytest.approx(0.5, abs=0.01)
    assert means["CKA", "sw"] == pytest.approx(0.25, abs=0.015)
    assert means["A", "hi"] == pytest.approx(0, abs=0.006)
    assert means["CKA", "hi"] == pytest.approx(0, abs=0.015)


@pytest.mark.fault("a language whose vectors are all the same", "undefined, with a warning")
def test_a_language_with_one_vector_is_undefined_and_changes_no_other(
    tmp_path: Path, capsys: Any
) -> None:
    whole = analyse(tmp_path / "whole", draw(), SUITE)
    vectors = draw() | {"fr": np.full((ITEMS, LAYERS, HIDDEN), 0.7, np.float32)}
    capsys.readouterr()
    found = analyse(tmp_path / "flat", vectors, SUITE)
    said = capsys.readouterr().err
    for name in (PARALLEL_ALIGNMENT, PARALLEL_CKA):
        assert f"{name} on content_mean is undefined (constant or zero vectors)" in said
    for name in (PARALLEL_ALIGNMENT, PARALLEL_RETRIEVAL, PARALLEL_CSLS, PARALLEL_CKA, HUB_SKEW):
        values, before = by_language(found, name), by_language(whole, name)
        assert np.isnan(values["fr"]).all()
        np.testing.assert_array_equal(values["sw"], before["sw"])
    pairs = load_map(tmp_path / "flat")
    assert {"fr" in (row.language_a, row.language_b) for row in pairs if row.alignment is None} == {
        True
    }


def test_a_language_with_the_vectors_of_the_pivot_is_aligned_at_once(tmp_path: Path) -> None:
    vectors = draw()
    found = analyse(tmp_path, vectors | {"fr": vectors["en"]}, SUITE)
    for name in (PARALLEL_ALIGNMENT, PARALLEL_RETRIEVAL, PARALLEL_CKA):
        assert by_language(found, name)["fr"] == pytest.approx(1, abs=1e-3)


@pytest.mark.fault("a dimension that does not vary", "left out of the measure")
def test_a_dimension_without_variance_changes_nothing(tmp_path: Path) -> None:
    vectors = draw()
    whole = analyse(tmp_path / "whole", vectors, SUITE)
    wider = {
        code: np.concatenate([table, np.full((ITEMS, LAYERS, 2), 30, np.float32)], axis=-1)
        for code, table in vectors.items()
    }
    found = analyse(tmp_path / "wider", wider, SUITE)
    for name in (PARALLEL_ALIGNMENT, PARALLEL_ALIGNMENT + RAW, PARALLEL_CKA):
        for code, values in by_language(found, name).items():
            # 30 is stored in float16 like every number: the others lose digits to it.
            np.testing.assert_allclose(values, by_language(whole, name)[code], atol=2e-3)


# --- the map of languages ---------------------------------------------------------------------


def load_map(folder: Path) -> list[LanguagePair]:
    path = run_folder.RunPaths(folder).language_map
    return records.load_table(LanguagePair, path, files.MAKE_CURVES)


def test_the_map_has_every_pair_of_languages(tmp_path: Path) -> None:
    vectors = draw()
    analyse(tmp_path, vectors, SUITE)
    rows = load_map(tmp_path)
    pairs = list(itertools.combinations(SUITE.languages, 2))
    assert {row.layer for row in rows} == {0, 1}
    assert [(r.language_a, r.language_b) for r in rows if r.layer == 1] == pairs
    for row in rows:
        left, right = (
            measures.unit(parallel.standardised(vectors[code][:, row.layer]))
            for code in (row.language_a, row.language_b)
        )
        expected = measures.alignment(left @ right.T).mean()
        assert row.alignment == pytest.approx(expected, abs=2e-3)
        assert row.n == ITEMS


def test_mean_alignment_is_that_of_all_cosines() -> None:
    vectors = measures.unit(np.random.default_rng(3).normal(size=(5, 30, 12)) + 0.4)
    found = language_map.mean_alignment(vectors)
    for left, right in itertools.product(range(5), repeat=2):
        expected = measures.alignment(vectors[left] @ vectors[right].T).mean()
        assert found[left, right] == pytest.approx(expected, abs=1e-9)


def test_the_sample_is_evenly_spaced_and_whole_where_it_can_be() -> None:
    assert language_map.sample(40).tolist() == list(range(40))
    chosen = language_map.sample(1012)
    assert len(chosen) == language_map.MAP_ITEMS
    assert (chosen[0], chosen[-1]) == (0, 1011)
    assert set(np.diff(chosen)) <= {3, 4}
    assert language_map.map_layers(36) == [12, 18, 24]
    assert language_map.map_layers(18) == [6, 9, 12]
    assert language_map.map_layers(4) == [1, 2, 3]


@pytest.mark.parametrize(
    ("concepts", "languages", "items", "expected"),
    [(0, 4, 40, True), (8, 10, 40, False), (8, 11, 40, True), (0, 4, 3, False)],
)
def test_a_small_suite_with_probes_needs_no_map(
    concepts: int, languages: int, items: int, expected: bool
) -> None:
    codes = tuple(list(suites.load_languages())[:languages])
    suite = replace(SUITE, pivot=codes[0], languages=codes)
    made = planted_stage.manifest(suite, concepts=concepts, documents=list(range(items)))
    assert language_map.applies(planted_stage.inputs(made)) is expected


@pytest.mark.fault("results/language_map.csv gone or altered", "the results are made again")
def test_results_without_the_map_are_not_up_to_date(tmp_path: Path, capsys: Any) -> None:
    analyse(tmp_path, draw(), SUITE)
    flags = ["--run-dir", str(tmp_path), "--n-permutations", "199", "--n-bootstrap", "199"]
    path = run_folder.RunPaths(tmp_path).language_map
    before = path.read_bytes()
    assert concept_alignment.main(flags) == 0
    assert "up to date" in capsys.readouterr().out
    for spoil in (path.unlink, lambda: path.write_text("x", "utf-8")):
        spoil()
        assert concept_alignment.main(flags) == 0
        assert "up to date" not in capsys.readouterr().out
        assert path.read_bytes() == before


@pytest.mark.slow
def test_the_scale_benchmark_runs(tmp_path: Path) -> None:
    out = tmp_path / "scale.json"
    line = [sys.executable, str(project.ROOT / "benchmarks" / "scale.py"), "--quick"]
    done = subprocess.run([*line, "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text("utf-8"))
    assert found["all_sentences"]["whole"]["languages"] == 69
    assert found["fewer_sentences"]["sentences"] < found["all_sentences"]["sentences"]
