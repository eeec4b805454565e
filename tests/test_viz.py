"""Figures: the numbers drawn are those of the results, with and without probes."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import concept_alignment
from aya_probes import figures, files, published, records, run_folder, suites
from aya_probes.page import build
from aya_probes.page.data import load_data
from aya_probes.page.measures import MEASURES, available
from aya_probes.page.view import render
from aya_probes.planted.run import write_activations
from aya_probes.results import contrasts as chosen
from aya_probes.results.alignment import load_results
from aya_probes.results.curves import (
    CEILING,
    CONCEPT,
    DISATTENUATED,
    PARALLEL_ALIGNMENT,
    PARALLEL_CKA,
    PARALLEL_CSLS,
    PARALLEL_RETRIEVAL,
    RAW,
    Cue,
)
from aya_probes.results.tables import Contrast
from aya_probes.run_folder import RunPaths
from tests import planted_stage
from viz import (
    alignment_curves,
    annotated_curve,
    contrasts,
    heatmap,
    hero,
    language_map,
    published_reanalysis,
)

FIGURES = tuple(
    script.main
    for script in (alignment_curves, annotated_curve, heatmap, hero, contrasts, language_map)
)
SUITE = suites.Suite(
    "planted",
    "en",
    ("en", "hi", "sw", "fr"),
    "cldr",
    (
        suites.Variant("base", "base", path="x"),
        suites.Variant("untrained", "untrained", path="x"),
        suites.Variant("global", "control", path="x"),
        suites.Variant("fire", "regional", path="x", targets=("hi",)),
        suites.Variant("fire-seed2", "seed", path="x", of="fire"),
    ),
    label="planted",
)
CORPUS = {"corpus": "cldr", "items": 24, "documents": 24, "identical_to_pivot": {"hi": 0.25}}
LAYERS, HIDDEN = 8, 24  # layers 0..6, then final_norm


def planted_run(folder: Path, concepts: int) -> Path:
    """Write and analyse a run in which every variant but the untrained one shares its items."""
    made = planted_stage.manifest(SUITE, concepts=concepts, documents=range(24))
    made = dataclasses.replace(made, metadata=made.metadata | {"corpus": CORPUS})
    manifest = planted_stage.saved(folder, made)
    rng = np.random.default_rng(5)
    shape = (LAYERS, HIDDEN)
    shared: dict[str, np.ndarray] = {}
    noise = {s.stimulus_id: rng.normal(size=shape) for s in manifest.stimuli}
    for variant in SUITE.variants:
        table: dict[str, np.ndarray] = {}
        for s in manifest.stimuli:
            item = shared.setdefault(s.item_id, rng.normal(size=shape))
            strength = 0.0 if variant.role == "untrained" else 1.0
            gain = 1.5 if s.language == "hi" and variant.name.startswith("fire") else 1.0
            own = rng.normal(size=shape) * 0.2
            vector = item * strength * gain + noise[s.stimulus_id] + own
            table[s.stimulus_id] = vector.astype(np.float32)
        vectors = {"content_mean": table, "span_mean": table}
        write_activations(RunPaths(folder).activations / variant.name, manifest, vectors)
    line = ["--run-dir", str(folder), "--n-bootstrap", "199", "--n-permutations", "199"]
    assert concept_alignment.main(line) == 0
    return folder


def draw_all(run: Path) -> run_folder.RunPaths:
    """Draw every figure of a run."""
    for draw in FIGURES:
        assert draw(["--run-dir", str(run)]) == 0
    return RunPaths(run)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> run_folder.RunPaths:
    """A run of 8 concepts with its figures."""
    return draw_all(planted_run(tmp_path_factory.mktemp("planted"), concepts=8))


@pytest.fixture(scope="module")
def no_probes(tmp_path_factory: pytest.TempPathFactory) -> run_folder.RunPaths:
    """A run of the parallel corpus alone, with its figures."""
    return draw_all(planted_run(tmp_path_factory.mktemp("corpus"), concepts=0))


def drawn_curve(paths: RunPaths, name: str, *cell: str) -> list[float]:
    """Return the drawn values of a variant, language and measure; final_norm last."""
    table = pd.read_csv(paths.assets / f"{name}.csv")
    variant, language, measure = cell
    mine = (table.variant == variant) & (table.language == language) & (table.measure == measure)
    return list(table[mine]["mean"])


# --- curves -------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [CONCEPT, CONCEPT + RAW, DISATTENUATED])
def test_the_numbers_beside_a_figure_are_the_results(planted: RunPaths, measure: str) -> None:
    for variant in ("fire", "fire-seed2"):
        drawn = drawn_curve(planted, "tweet_three_panel", variant, "hi", measure)
        curve = load_results(planted.curves).curve(measure, variant, "hi")
        assert curve is not None
        assert drawn == pytest.approx([*curve.array(), curve.final_norm], rel=1e-4, nan_ok=True)


def test_the_shaded_ceiling_is_the_mean_of_both_languages(planted: RunPaths) -> None:
    results = load_results(planted.curves)
    ceilings = [results.curve(CEILING, "base", code) for code in ("en", "hi")]
    assert ceilings[0] is not None
    assert ceilings[1] is not None
    drawn = drawn_curve(planted, "tweet_three_panel", "base", "hi", figures.PAIR_CEILING)
    product = ceilings[0].array() * ceilings[1].array()
    assert (product > 0).all()
    assert np.square(drawn[:-1]) == pytest.approx(product, rel=1e-4)


def test_a_second_seed_is_thin_in_the_colour_of_its_variant(planted: RunPaths) -> None:
    info = load_results(planted.curves).info
    assert info.repeats == {"fire-seed2": "fire"}
    styles = figures.styles(info)
    assert styles["fire-seed2"].colour == styles["fire"].colour
    assert styles["fire-seed2"].width < styles["fire"].width
    own = {styles[name].colour for name in ("base", "untrained", "global", "fire")}
    assert len(own) == 4


def test_passing_cues_stand_in_the_audit(planted: RunPaths) -> None:
    results = load_results(planted.curves)
    cues = {(CONCEPT, "hi", "length"): Cue(0.4, 0.01), (CONCEPT, "hi", "trigrams"): Cue(0.1, 0.2)}
    text = figures.audit_text(dataclasses.replace(results, cues=cues), "hi")
    assert text.endswith("cues that pass: length")
    assert "25%" in figures.audit_text(results, "hi", measure=PARALLEL_ALIGNMENT)


def test_figures_have_the_same_bytes_twice(planted: RunPaths, tmp_path: Path) -> None:
    shutil.copytree(planted.results, tmp_path / "results")
    again = draw_all(tmp_path)
    for path in planted.assets.iterdir():
        assert (again.assets / path.name).read_bytes() == path.read_bytes(), path.name


# --- contrasts ----------------------------------------------------------------------------------


def test_the_contrasts_drawn_are_those_of_the_results(planted: RunPaths) -> None:
    drawn = pd.read_csv(planted.assets / "contrasts.csv")
    table = records.load_table(Contrast, planted.contrasts, files.MAKE_CURVES)
    assert set(drawn.family) == {"specificity", "parts", "region"}
    assert set(drawn.measure) == {
        name + suffix
        for name in (CONCEPT, PARALLEL_ALIGNMENT, PARALLEL_RETRIEVAL, PARALLEL_CKA)
        for suffix in ("", RAW)
    }
    row = drawn[(drawn.measure == CONCEPT) & (drawn.family == "specificity")].iloc[0]
    found = chosen.choose(table, CONCEPT, "specificity")[0]
    assert (row.contrast, row.estimate, row.lower) == (found.contrast, found.estimate, found.lower)
    seeds = chosen.choose(table, CONCEPT, "seed specificity")[0]
    assert row.seed_estimate == pytest.approx(abs(seeds.estimate), rel=1e-4)
    assert row.seed_reach == pytest.approx(max(abs(seeds.lower), abs(seeds.upper)), rel=1e-4)
    assert row.estimate > row.seed_reach  # planted: fire gains on hi, its second seed as much


def make_contrast(family: str, contrast: str, targets: str, estimate: float) -> Contrast:
    """Return a contrast of one language with an interval of ± 0.1."""
    bounds = (estimate - 0.1, estimate + 0.1)
    head = (CONCEPT, family, contrast, "", targets, "", "all", "1-6")
    return Contrast(*head, estimate, *bounds, 0.5, 0.5, 0.1, 8, 8, None, None)


def test_the_seed_difference_is_the_largest_of_both_variants() -> None:
    seeds = {"fire": ("hi", -0.3), "global": ("hi", 0.2)}
    rows = [
        make_contrast("seed", f"{of}-seed2 - {of}", code, value)
        for of, (code, value) in seeds.items()
    ]
    repeats = {f"{name}-seed2": name for name in seeds}
    region = make_contrast("region", "fire - global", "hi", 0.45)
    null = chosen.seed_null(rows, region, repeats)
    assert null is not None
    assert null.estimate == pytest.approx(0.3)
    assert null.reach == pytest.approx(0.4)
    assert null.exceeded_by(region)
    assert not null.exceeded_by(dataclasses.replace(region, lower=0.29))
    assert not null.exceeded_by(dataclasses.replace(region, estimate=0.39))
    assert chosen.seed_null(rows, dataclasses.replace(region, targets="sw"), repeats) is None


def test_the_seed_difference_of_a_part_is_the_mean_over_its_languages() -> None:
    rows = [
        make_contrast("seed", "fire-seed2 - fire", code, value)
        for code, value in {"hi": 0.1, "bn": 0.3, "sw": -0.1}.items()
    ]
    part = dataclasses.replace(
        make_contrast("parts", "fire - global", "hi+bn", 0.5), part="targets"
    )
    found = chosen.seed_null(rows, part, {"fire-seed2": "fire"})
    assert found is not None
    assert found.reach is None
    assert found.estimate == pytest.approx(0.2)
    whole = dataclasses.replace(part, family="specificity", part="specificity", others="sw")
    found = chosen.seed_null(rows, whole, {"fire-seed2": "fire"})
    assert found is not None
    assert found.estimate == pytest.approx(0.3)


# --- without probes -----------------------------------------------------------------------------


def test_figures_without_probes_draw_the_parallel_corpus(no_probes: RunPaths) -> None:
    for name in ("tweet_three_panel", "hero", "annotated_rise_peak_collapse"):
        measures = set(pd.read_csv(no_probes.assets / f"{name}.csv").measure)
        assert PARALLEL_ALIGNMENT in measures
        assert PARALLEL_ALIGNMENT + RAW in measures
        assert all(measure.startswith("parallel") for measure in measures)
    curves = set(pd.read_csv(no_probes.assets / "tweet_three_panel.csv").measure)
    assert PARALLEL_CSLS in curves
    grids = pd.read_csv(no_probes.assets / "concept_alignment_heatmap.csv")
    assert set(grids.panel) == {
        name + suffix for name in (PARALLEL_ALIGNMENT, PARALLEL_RETRIEVAL) for suffix in ("", RAW)
    }
    results = load_results(no_probes.curves)
    curve = results.curve(PARALLEL_ALIGNMENT, "fire", "hi")
    assert curve is not None
    mine = grids[(grids.panel == PARALLEL_ALIGNMENT) & (grids.variant == "fire")]
    assert mine.set_index("language").value["hi"] == pytest.approx(curve.array().max(), rel=1e-4)


def test_the_map_draws_base_and_what_a_regional_variant_changes(no_probes: RunPaths) -> None:
    drawn = pd.read_csv(no_probes.assets / "language_map.csv", keep_default_na=False)
    table = pd.read_csv(no_probes.language_map)
    assert list(dict.fromkeys(drawn.variant)) == ["base", "fire"]
    for variant, reference, layer in (("base", "", 2), ("fire", "global", 3)):
        mine, other = (
            table[(table.variant == name) & (table.layer == layer)].alignment.to_numpy()
            for name in (variant, reference)
        )
        wanted = mine - other if reference else mine
        found = drawn[(drawn.variant == variant) & (drawn.layer == layer)]
        assert set(found.reference) == {reference}
        assert list(found.value) == pytest.approx(wanted, abs=1e-5)


def test_the_page_without_probes_offers_the_corpus_alone(no_probes: RunPaths) -> None:
    data = load_data(no_probes)
    assert all(MEASURES[m].label.startswith("corpus: ") for m in available(data.results))
    said = [render(view, {}) for view in build.make_views(data)]
    assert any("The suite has no probes" in text for text in said)
    assert any("so no tokens" in text for text in said)


def test_too_few_items_are_said_and_nothing_is_drawn(tmp_path: Path, capsys: Any) -> None:
    made = planted_stage.manifest(SUITE, concepts=0, documents=range(3))
    corpus = CORPUS | {"items": 3, "documents": 3}
    made = dataclasses.replace(made, metadata=made.metadata | {"corpus": corpus})
    manifest = planted_stage.saved(tmp_path, made)
    table = {s.stimulus_id: np.ones((LAYERS, HIDDEN), np.float32) for s in manifest.stimuli}
    for name in ("base", "global"):
        vectors = {"content_mean": table, "span_mean": {}}
        write_activations(RunPaths(tmp_path).activations / name, manifest, vectors)
    assert concept_alignment.main(["--run-dir", str(tmp_path)]) == 0
    paths = draw_all(tmp_path)
    assert capsys.readouterr().out.count("nothing to draw") == len(FIGURES)
    assert not paths.assets.exists()
    assert all(render(view, {}) for view in build.make_views(load_data(paths)))


# --- flags and files ----------------------------------------------------------------------------


@pytest.mark.parametrize("draw", FIGURES)
def test_missing_results_name_the_command(tmp_path: Path, capsys: Any, draw: Any) -> None:
    assert draw(["--run-dir", str(tmp_path)]) == 1
    assert "uv run concept_alignment.py" in capsys.readouterr().err


def test_an_unknown_language_lists_the_valid_ones(planted: RunPaths, capsys: Any) -> None:
    assert alignment_curves.main(["--run-dir", str(planted.run_dir), "--languages", "xx"]) == 2
    assert "hi, sw" in capsys.readouterr().err


def test_reanalysis_equals_the_published_curves_read_directly(tmp_path: Path) -> None:
    assert published_reanalysis.main(["--run-dir", str(tmp_path)]) == 0
    found = files.load_json(run_folder.RunPaths(tmp_path).published, "")
    raw = files.load_json(published.PUBLISHED, "")["curves"]

    def mean(variant: str, code: str, layer: int) -> float:
        return sum(row[code][layer] for row in raw[variant].values()) / len(raw[variant])

    hindi = found["claims"]["fire"]["hi"]
    assert hindi["layers_compared"] == [20, 1]
    ratio = mean("fire", "hi", 20) / mean("base", "hi", 1) - 1
    assert hindi["own_peaks"]["estimate"] == pytest.approx(ratio, abs=1e-4)
    gap = mean("fire", "fr", 20) - mean("base", "fr", 20)
    assert found["difference"]["fire"]["fr"]["estimate"] == pytest.approx(gap, abs=1e-4)
    assert all(entry["constant"] for entry in found["layer_0"]["base"].values())
    assert found["layer_0"]["earth"]["sw"]["cosine"] == 1.0
    region = found["difference_in_differences"]["matched_layer"]
    assert region["lower"] < region["estimate"] < region["upper"]
    assert region["p_language_floor"] == pytest.approx(1 / 35, abs=1e-4)


def test_broken_published_curves_are_refused(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "curves.json"
    path.write_text('{"metadata": {}, "curves": {"base": {"C01": {"hi": [1.0]}}}}')
    line = ["--run-dir", str(tmp_path), "--curves", str(path)]
    assert published_reanalysis.main(line) == 1
    assert "curves.json" in capsys.readouterr().err
