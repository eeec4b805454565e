"""The stage on planted activations: what is there is found, what is not is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import concept_alignment
from aya_probes import run_folder, suites
from aya_probes.planted import vectors as planted
from aya_probes.planted.run import write_activations
from aya_probes.results.alignment import load_results
from aya_probes.results.curves import (
    CEILING,
    CONCEPT,
    DISATTENUATED,
    NO_LENGTH,
    RAW,
    WITHIN_CATEGORY,
)
from tests import planted_stage

LANGUAGES = ("en", "hi", "sw", "fr", "ta", "am")
N, K = 16, 2
SHARED = planted.strength(np.array([0, 0, 0.4, 0.4, 0.4, 0.4, 0, 0, 0, 0]))  # layers 0..8, norm
VARIANTS = {
    "base": suites.Variant("base", "base", path="x"),
    "global": suites.Variant("global", "control", path="x"),
    "fire": suites.Variant("fire", "regional", path="x", targets=("hi", "ta")),
    "untrained": suites.Variant("untrained", "untrained", path="x"),
}
STRENGTH = {
    "base": SHARED,
    "global": SHARED,
    "fire": planted.strength(np.array([0, 0, 0.7, 0.7, 0.7, 0.7, 0, 0, 0, 0])),  # targets only
    "untrained": np.zeros(10),
}


def build(folder: Path, variants: tuple[str, ...] = tuple(VARIANTS), change: Any = None) -> Path:
    """Write a run of planted activations; ``change(variant, language, vectors)`` may alter them."""
    suite = suites.Suite(
        "planted", "en", LANGUAGES, "cldr", tuple(VARIANTS[name] for name in VARIANTS)
    )
    manifest = planted_stage.saved(folder, planted_stage.manifest(suite, concepts=N, wordings=K))
    paths = run_folder.RunPaths(folder)
    for name in variants:
        table: dict[str, np.ndarray] = {}
        for position, code in enumerate(LANGUAGES):
            strength = STRENGTH[name]
            if name == "fire" and code not in VARIANTS["fire"].targets:
                strength = SHARED
            plant = planted.Plant(
                concept=strength,
                sentence=np.zeros(10),
                anisotropy=np.full(10, 16.0),
                spread=0.2,
                n=N,
                wordings=K,
            )
            vectors = planted.draw(plant, 1, languages=len(LANGUAGES))[0, position]
            if change:
                vectors = change(name, code, vectors)
            for c in range(N):
                for k in range(K):
                    table[f"C{c + 1:02d}-{code}-{k + 1}"] = vectors[c, k]
        write_activations(
            paths.activations / name, manifest, {"content_mean": table, "span_mean": table}
        )
    return folder


def analyse(run: Path, *flags: str) -> int:
    return concept_alignment.main(
        ["--run-dir", str(run), "--n-permutations", "999", "--n-bootstrap", "999", *flags]
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build(tmp_path_factory.mktemp("planted"))
    assert analyse(folder) == 0
    return folder


def whole(run: Path) -> Any:
    table: Any = pd.read_csv(run_folder.RunPaths(run).commitment, dtype=str, keep_default_na=False)
    return table[table["concept_id"] == "ALL"].set_index(["variant", "language"])


def test_planted_layers_are_found_in_every_language_and_not_in_the_untrained(run: Path) -> None:
    table = whole(run)
    for code in LANGUAGES[1:]:
        found = table.loc[("base", code)]
        assert (found.status, found.commitment_layer, found.release_layer) == (
            "committed",
            "2",
            "6",
        )
        assert table.loc[("untrained", code)].status == "never"
        assert table.loc[("untrained", code)].commitment_layer == "-1"


def test_every_pair_has_both_p_values_and_the_norm_stands_apart(run: Path) -> None:
    found = load_results(run_folder.RunPaths(run).curves)
    keys = [key for key in found.curves if (key.measure, key.variant) == (CONCEPT, "base")]
    pairs = {(k.left, k.right): found.curves[k] for k in keys if k.pooling == "span_mean"}
    assert len(pairs) == len(LANGUAGES) * (len(LANGUAGES) - 1) // 2
    for curve in pairs.values():
        assert curve.p is not None
        assert len(curve.mean) == len(curve.p) == 9
        assert (curve.array("p") <= curve.array("p_joint")).all()
        assert curve.final_norm_interval is not None
        low, high = curve.final_norm_interval
        assert low is not None
        assert low <= (curve.final_norm or 0.0) <= (high or 0.0)
    agnostic = found.agnostic[CONCEPT, "base", "without_pivot"]
    others = [curve.array()[3] for (left, _), curve in pairs.items() if left != "en"]
    assert agnostic.pairs == len(others)
    assert agnostic.array()[3] == pytest.approx(np.mean(others), abs=1e-4)


def test_the_tidy_table_has_every_observation_once(run: Path) -> None:
    table = pd.read_csv(run_folder.RunPaths(run).curve_table)
    head = ["pooling", "measure", "variant", "language_a", "language_b", "capture", "layer"]
    assert not table.duplicated(head).any()
    found = load_results(run_folder.RunPaths(run).curves)
    assert len(table) == (len(found.curves) + len(found.agnostic)) * len(found.info.layers)
    one = table.query(
        "measure == 'concept_alignment' and pooling == 'span_mean' and variant == 'base'"
        " and language_b == 'hi' and language_a == 'en' and layer >= 0"
    )
    curve = found.curve(CONCEPT, "base", "hi")
    assert curve is not None
    for name in ("mean", "lower", "upper", "p"):
        np.testing.assert_allclose(one[name], curve.array(name), rtol=1e-4)
    assert set(table.n) == {N}
    assert set(table.measure) >= {
        *(CONCEPT, CONCEPT + RAW, CONCEPT + NO_LENGTH, WITHIN_CATEGORY, CEILING, DISATTENUATED),
    }


def test_results_survive_a_round_trip(run: Path) -> None:
    path = run_folder.RunPaths(run).curves
    assert load_results(path).to_json() == json.loads(path.read_text("utf-8"))


def test_unchanged_inputs_are_not_measured_again(run: Path, capsys: Any) -> None:
    paths = run_folder.RunPaths(run)
    stamps = {p.name: p.stat().st_mtime_ns for p in paths.results.iterdir()}
    assert analyse(run) == 0
    assert "up to date, skipped" in capsys.readouterr().out
    assert {p.name: p.stat().st_mtime_ns for p in paths.results.iterdir()} == stamps
    paths.curve_table.write_text("altered", encoding="utf-8")
    assert analyse(run) == 0
    assert "up to date" not in capsys.readouterr().out
    assert paths.curve_table.stat().st_mtime_ns > stamps[paths.curve_table.name]


def test_a_planted_regional_gain_is_called_in_its_languages_only(run: Path) -> None:
    table: Any = pd.read_csv(run_folder.RunPaths(run).contrasts)
    assert set(table.measure) == {CONCEPT, CONCEPT + RAW}
    assert set(table.family) == {
        *("specificity", "parts", "region", "adaptation", "post-training", "trained"),
    }
    for window in ("all", "middle", "peak"):
        found = table[(table.measure == CONCEPT) & (table.window == window)]
        region = found[found.family == "region"].set_index("targets")
        assert set(region.contrast) == {"fire - global"}
        assert (region.loc[["hi", "ta"]].p_holm <= 0.05).all()
        assert (region.loc[["hi", "ta"]].lower > 0).all()
        assert (region.loc[["sw", "fr", "am"]].p_holm > 0.05).all()
        [special] = found[found.family == "specificity"].to_dict("records")
        assert (special["targets"], special["others"]) == ("hi+ta", "sw+fr+am")
        assert special["p_holm"] <= 0.05
        assert special["p_language"] == special["p_language_floor"] == pytest.approx(1 / 10)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    run: Path, tmp_path: Path
) -> None:
    paths = run_folder.RunPaths(run)
    before = {p.name: p.read_bytes() for p in paths.results.iterdir()}
    assert analyse(run, "--overwrite") == 0
    assert {p.name: p.read_bytes() for p in paths.results.iterdir()} == before
    assert analyse(run, "--seed", "7") == 0
    assert paths.curves.read_bytes() != before[paths.curves.name]
    assert analyse(run) == 0


def same_start(count: int) -> Any:
    """Return a change that gives French the layer-0 vectors of the first concepts in English."""
    english: dict[str, np.ndarray] = {}

    def change(name: str, code: str, vectors: np.ndarray) -> np.ndarray:
        english.setdefault(name, vectors)
        if code == "fr":
            vectors = vectors.copy()
            vectors[:count, :, 0] = english[name][:count, :, 0]
        return vectors

    return change


def test_concepts_with_identical_inputs_are_left_out_of_their_pair(
    run: Path, tmp_path: Path, capsys: Any
) -> None:
    assert analyse(build(tmp_path, change=same_start(4))) == 0
    assert "fr 25% of the concepts" in capsys.readouterr().out
    paths = run_folder.RunPaths(tmp_path)
    found = load_results(paths.curves)
    assert found.input_share("base", "fr").concepts == ("C01", "C02", "C03", "C04")
    assert not found.is_untestable("base", "fr")
    french, hindi = (found.curve(CONCEPT, "base", code) for code in ("fr", "hi"))
    assert french is not None
    assert hindi is not None
    assert (french.n, hindi.n) == (12, None)
    assert french.array()[0] < 0.3  # of the concepts whose inputs differ
    assert (french.array("p")[2:6] <= 0.05).all()
    before = load_results(run_folder.RunPaths(run).curves).curve(CONCEPT, "base", "hi")
    assert before is not None
    assert hindi == replace(before, p_joint=hindi.p_joint)  # the family of p_joint has French in it
    table = whole(tmp_path).loc[("base", "fr")]
    assert (table.status, table.commitment_layer, table.identical_input) == (
        "committed",
        "2",
        "0.25",
    )
    rows: Any = pd.read_csv(paths.commitment).query("variant == 'base' and language == 'fr'")
    status = rows.set_index("concept_id").status
    assert (status.loc["C01":"C04"] == "untestable").all()
    assert (status.loc["C05":] == "descriptive").all()
    differences: Any = pd.read_csv(paths.contrasts)
    region = differences.query("family == 'region' and targets == 'fr'")
    assert set(region.n) == {12}


@pytest.mark.parametrize(("count", "untestable"), [(8, False), (9, True)])
def test_a_pair_is_untestable_without_half_of_its_concepts(
    tmp_path: Path, count: int, untestable: bool
) -> None:
    run = build(tmp_path, ("base", "untrained"), change=same_start(count))
    assert analyse(run) == 0
    table = whole(run)
    assert (table.loc[("base", "fr")].status == "untestable") == untestable
    assert (table.loc[("base", "fr")].commitment_layer == "") == untestable
    assert table.loc[("base", "hi")].status == "committed"
    found = load_results(run_folder.RunPaths(run).curves)
    assert (found.shapes["base", "fr"].label == "UNTESTABLE") == untestable
    curve = found.curve(CONCEPT, "base", "fr")
    assert curve is not None
    assert curve.n == (None if untestable else 8)
    contrasts: Any = pd.read_csv(run_folder.RunPaths(run).contrasts)
    assert ("fr" not in set(contrasts.targets)) == untestable


def test_a_rogue_dimension_hides_concepts_from_the_raw_measure_alone(
    run: Path, tmp_path: Path, capsys: Any
) -> None:
    def rogue(name: str, code: str, vectors: np.ndarray) -> np.ndarray:
        vectors = vectors.copy()
        rng = np.random.default_rng([9, LANGUAGES.index(code)])
        vectors[..., 5] += 300 * rng.normal(size=vectors.shape[:-1])
        return vectors

    assert analyse(build(tmp_path, ("base", "untrained"), change=rogue)) == 0
    found = load_results(run_folder.RunPaths(tmp_path).curves)
    plain = load_results(run_folder.RunPaths(run).curves)
    assert not any("base:" in line for line in plain.disagreements)
    for code in LANGUAGES[1:]:
        robust, raw = (found.curve(CONCEPT + end, "base", code) for end in ("", RAW))
        before = plain.curve(CONCEPT, "base", code)
        assert robust is not None
        assert before is not None
        assert raw is not None
        np.testing.assert_allclose(robust.array(), before.array(), atol=0.1)
        assert (robust.array("p")[2:6] <= 0.05).all()
        one, other = (r.curve("dominance_1", "base", code) for r in (found, plain))
        assert one is not None
        assert other is not None
        assert one.array().min() > 0.9
        assert other.array().max() < 0.3
    said = [line for line in found.disagreements if line.startswith(f"{CONCEPT}, base:")]
    assert said == [
        f"{CONCEPT}, base: established for hi, sw, fr, ta, am, but not established on raw vectors"
    ]
    assert said[0] in capsys.readouterr().out


def test_ceilings_categories_and_length_stand_beside_every_curve(run: Path) -> None:
    found = load_results(run_folder.RunPaths(run).curves)
    for code in LANGUAGES[1:]:
        aligned, within, ceiling, relative, no_length = (
            found.curve(name, "base", code)
            for name in (CONCEPT, WITHIN_CATEGORY, CEILING, DISATTENUATED, CONCEPT + NO_LENGTH)
        )
        assert aligned is not None
        assert within is not None
        assert ceiling is not None
        assert relative is not None
        assert no_length is not None
        assert (within.array("p")[2:6] <= 0.05).all()  # concepts, and no categories, are planted
        np.testing.assert_allclose(within.array(), aligned.array(), atol=0.15)
        np.testing.assert_allclose(no_length.array(), aligned.array(), atol=0.02)  # equal lengths
        assert (ceiling.array() > aligned.array()).all()  # each language has something of its own
        assert (relative.array()[2:6] > aligned.array()[2:6]).all()
        assert (relative.array("lower")[2:6] > relative.array("upper")[[1, 6]].max()).all()
        assert found.shapes["base", code].label == "RISE_PEAK_DECLINE"
        assert 2 <= (found.shapes["base", code].peak_layer or 0) <= 5
        assert found.passing_cues(CONCEPT, code) == []


def test_constant_and_zero_vectors_are_null_and_named(tmp_path: Path, capsys: Any) -> None:
    def flat(name: str, code: str, vectors: np.ndarray) -> np.ndarray:
        if name == "base" and code == "sw":
            vectors = vectors.copy()
            vectors[..., 4, :] = 1.0
            vectors[..., 5, :] = 0.0
        return vectors

    run = build(tmp_path, change=flat)
    assert analyse(run) == 0
    error = capsys.readouterr().err
    assert "concept_alignment on span_mean is undefined" in error
    assert "layers 4, 5 of base: sw" in error
    found = load_results(run_folder.RunPaths(run).curves)
    curve = found.curve(CONCEPT, "base", "sw")
    assert curve is not None
    for name in ("mean", "lower", "upper", "p", "p_joint"):
        assert np.isnan(curve.array(name)[[4, 5]]).all()
        assert np.isfinite(curve.array(name)[3])
    assert found.shapes["base", "sw"].label == "UNDEFINED"
    assert json.loads(run_folder.RunPaths(run).curves.read_text("utf-8"))  # no bare NaN


@pytest.mark.parametrize(
    ("count", "withheld"), [(2, "at least 4"), (3, "at least 4"), (5, "at least 8")]
)
def test_few_concepts_are_computed_without_inference(
    run: Path, tmp_path: Path, capsys: Any, count: int, withheld: str
) -> None:
    copy = tmp_path / "run"
    for name in ("data", "activations"):
        (copy).mkdir(exist_ok=True)
        (copy / name).symlink_to(run / name)
    names = ",".join(f"C{c:02d}" for c in range(1, count + 1))
    assert analyse(copy, "--concepts", names) == 0
    assert withheld in capsys.readouterr().err
    found = load_results(run_folder.RunPaths(copy).curves)
    curve = found.curve(CONCEPT, "base", "hi")
    assert curve is not None
    assert curve.array()[3] > 0
    assert (curve.p is None) == (count < 4)
    assert (curve.lower is None) == (count < 4)
    assert found.shapes == {}
    status = whole(copy).loc[("base", "hi")].status
    assert (status == "too_few_concepts") == (count < 4)


def test_a_missing_variant_is_left_out_by_name(tmp_path: Path, capsys: Any) -> None:
    run = build(tmp_path, variants=("base", "fire"))
    assert analyse(run) == 0
    error = capsys.readouterr().err
    assert "variant global has no activations" in error
    assert "--variants global" in error
    table: Any = pd.read_csv(run_folder.RunPaths(run).contrasts)
    assert set(table.contrast) == {"fire - base"}
    assert set(table.family) == {"region", "specificity", "parts"}
    assert analyse(run, "--variants", "base,global") == 1
    assert "global/plan.json: missing" in capsys.readouterr().err


def test_names_that_do_not_exist_and_single_ones_are_refused(run: Path, capsys: Any) -> None:
    assert analyse(run, "--variants", "water") == 2
    assert "base, global, fire, untrained" in capsys.readouterr().err
    assert analyse(run, "--languages", "en") == 2
    assert "and another language" in capsys.readouterr().err
    assert analyse(run, "--concepts", "C01") == 1
    assert "at least 2" in capsys.readouterr().err
