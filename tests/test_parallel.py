"""The parallel corpus: measures per sentence, intervals by document, and a run without probes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import concept_alignment
from aya_probes import run_folder, suites
from aya_probes.alignment import inference, measures, parallel
from aya_probes.planted.run import write_activations
from aya_probes.results.alignment import Results, load_results
from aya_probes.results.curves import (
    HUB_SKEW,
    ITEM_MEASURES,
    PARALLEL_ALIGNMENT,
    PARALLEL_CKA,
    PARALLEL_CSLS,
    PARALLEL_RETRIEVAL,
    RAW,
    Curve,
)
from tests import planted_stage

LANGUAGES = ("en", "hi", "ta", "sw", "fr")
LAYERS, HIDDEN = 6, 24  # layers 0..4, then final_norm
DOCUMENTS = np.repeat(np.arange(20), [2, 3, 4, 3, 3] * 4)  # 60 sentences of 20 articles
ITEMS = len(DOCUMENTS)
VARIANTS = (
    suites.Variant("global", "control", path="x"),
    suites.Variant("fire", "regional", path="x", targets=("hi", "ta")),
)


# --- groups -----------------------------------------------------------------------------------


def test_group_sums_are_the_sums_of_each_group_in_any_order() -> None:
    rng = np.random.default_rng(0)
    groups = rng.permutation(DOCUMENTS)
    values = rng.normal(size=(2, 3, ITEMS))
    found = inference.group_sums(values, groups)
    for group in range(20):
        np.testing.assert_allclose(found[..., group], values[..., groups == group].sum(-1))


def test_group_interval_of_singletons_is_the_expanded_interval() -> None:
    rng = np.random.default_rng(1)
    values, weights = rng.normal(size=(3, 20)), inference.resample_weights(20, 400, 0)
    expected = inference.expanded_interval(values, weights)
    np.testing.assert_array_equal(
        inference.group_interval(values, np.arange(20), weights), expected
    )
    order = rng.permutation(20)  # the number of a group, and not its place, is what is resampled
    np.testing.assert_allclose(inference.group_interval(values[:, order], order, weights), expected)


def test_group_interval_of_equal_groups_is_that_of_their_means() -> None:
    rng = np.random.default_rng(2)
    values, weights = rng.normal(size=(2, 60)), inference.resample_weights(12, 400, 0)
    means = values.reshape(2, 12, 5).mean(-1)
    np.testing.assert_allclose(
        inference.group_interval(values, np.repeat(np.arange(12), 5), weights),
        inference.expanded_interval(means, weights),
    )


def test_intervals_by_document_cover_where_those_by_sentence_do_not() -> None:
    rng = np.random.default_rng(3)
    plain, grouped = (
        inference.resample_weights(ITEMS, 300, 0),
        inference.resample_weights(20, 300, 0),
    )
    values = rng.normal(size=(400, 20))[:, DOCUMENTS] + rng.normal(size=(400, ITEMS))

    def coverage(bounds: tuple[np.ndarray, np.ndarray]) -> float:
        return float(((bounds[0] <= 0) & (bounds[1] >= 0)).mean())

    assert 0.91 <= coverage(inference.group_interval(values, DOCUMENTS, grouped)) <= 0.98
    assert coverage(inference.expanded_interval(values, plain)) < 0.85


# --- intervals by document --------------------------------------------------------------------


def bounds(documents: np.ndarray) -> parallel._Bounds:
    return parallel._Bounds(documents, inference.resample_weights(int(documents.max()) + 1, 300, 0))


def test_retrieval_of_independent_items_has_wilsons_interval() -> None:
    won = np.zeros((3, 40))
    won[1, :13] = 1
    won[2] = 1
    curve = bounds(np.arange(40)).retrieval(won)
    for row, count in enumerate((0, 13)):
        exact = stats.binomtest(count, 40).proportion_ci(method="wilson")
        assert curve.lower is not None
        assert curve.upper is not None
        # The variance over items has n − 1 in it.
        assert (curve.lower[row], curve.upper[row]) == pytest.approx(tuple(exact), abs=2e-3)
    whole = stats.binomtest(40, 40).proportion_ci(method="wilson")
    assert curve.final_norm_interval == pytest.approx(tuple(whole))
    assert curve.chance == pytest.approx(1 / 79, abs=1e-4)


def test_retrieval_of_copied_items_has_the_interval_of_their_documents() -> None:
    won = (np.random.default_rng(4).uniform(size=(2, 200)) < 0.3).astype(float)
    one = bounds(np.arange(200)).retrieval(won)
    five = bounds(np.repeat(np.arange(200), 5)).retrieval(np.repeat(won, 5, axis=1))
    np.testing.assert_allclose(five.array(), one.array())
    np.testing.assert_allclose(five.array("lower"), one.array("lower"), atol=2e-3)
    np.testing.assert_allclose(five.array("upper"), one.array("upper"), atol=2e-3)
    narrow = bounds(np.arange(1000)).retrieval(np.repeat(won, 5, axis=1))
    assert narrow.array("upper") - narrow.array("lower") < 0.5 * (
        one.array("upper") - one.array("lower")
    )


def test_retrieval_intervals_cover_the_rate_of_clustered_items() -> None:
    rng = np.random.default_rng(5)
    rates = rng.beta(2, 3, size=(400, 20))[:, DOCUMENTS]  # of each article; 0.4 on average
    won = (rng.uniform(size=rates.shape) < rates).astype(float)
    curve = bounds(DOCUMENTS).retrieval(won)
    inside = (curve.array("lower") <= 0.4) & (curve.array("upper") >= 0.4)
    assert 0.91 <= inside.mean() <= 0.98


def test_cka_error_is_that_of_leaving_out_each_document() -> None:
    rng = np.random.default_rng(6)
    documents = np.repeat(np.arange(60), 3)
    strength = rng.uniform(0, 2, size=(60, 1))[documents]  # some articles are shared, some hardly
    x, y = strength * rng.normal(size=(180, HIDDEN)) + rng.normal(size=(2, 180, HIDDEN))

    def cka(kept: np.ndarray) -> tuple[float, np.ndarray]:
        return measures.unbiased_cka(measures.gram(x[kept]), measures.gram(y[kept]))

    value, pseudo = cka(np.arange(180))
    without = np.array([cka(documents != d)[0] for d in range(60)])
    error = np.sqrt(59 / 60 * np.square(without - without.mean()).sum())
    curve = bounds(documents).cka(np.array([value, value]), np.stack([pseudo, pseudo]))
    for low, middle, high in zip(
        curve.array("lower"), curve.array(), curve.array("upper"), strict=True
    ):
        assert middle - low == pytest.approx(high - middle) == pytest.approx(1.96 * error, rel=0.05)
    singles = float(pseudo.std(ddof=1) / np.sqrt(180))
    assert error > 1.25 * singles  # sentences of one article are not independent


# --- a run without probes ---------------------------------------------------------------------


def draw(variant: str) -> dict[str, np.ndarray]:
    """Return vectors ``[item, layer, hidden]``: sentences shared from layer 2 on, fire more."""
    rng = np.random.default_rng(7)
    meaning = rng.normal(size=(ITEMS, 1, HIDDEN)) + rng.normal(size=(20, 1, HIDDEN))[DOCUMENTS]
    made = {}
    for code in LANGUAGES:
        noise = 1.5 * rng.normal(size=(ITEMS, LAYERS, HIDDEN))
        own = np.random.default_rng([8, len(variant)]).normal(size=noise.shape)
        gain = 1.4 if variant == "fire" and code in ("hi", "ta") else 1.0
        strength = np.where(np.arange(LAYERS) >= 2, gain, 0.0)[:, None]
        made[code] = strength * meaning + noise + 0.2 * own + 5 * rng.normal(size=(LAYERS, HIDDEN))
        made[code][..., 3] += 50 * rng.normal(size=(ITEMS, LAYERS))  # a rogue dimension
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parallel")
    suite = suites.Suite("planted", "en", LANGUAGES, "flores", VARIANTS, "", "")
    manifest = planted_stage.saved(
        folder, planted_stage.manifest(suite, documents=DOCUMENTS.tolist())
    )
    for variant in VARIANTS:
        table = {
            f"P{n}-{code}": vectors[n]
            for code, vectors in draw(variant.name).items()
            for n in range(ITEMS)
        }
        write_activations(
            run_folder.RunPaths(folder).activations / variant.name,
            manifest,
            {"content_mean": table, "span_mean": {}},
        )
    assert analyse(folder) == 0
    return folder


def analyse(run: Path, *flags: str) -> int:
    line = ["--run-dir", str(run), "--n-permutations", "499", "--n-bootstrap", "499", *flags]
    return concept_alignment.main(line)


def results(run: Path) -> Results:
    return load_results(run_folder.RunPaths(run).curves)


def curve(found: Results, measure: str, language: str = "hi") -> Curve:
    wanted = found.curve(measure, "global", language)
    assert wanted is not None
    return wanted


def test_a_run_without_probes_has_every_measure_of_the_corpus_and_no_other(run: Path) -> None:
    found = results(run)
    scaled = (*ITEM_MEASURES, HUB_SKEW)
    expected = {*scaled, *(name + RAW for name in scaled), PARALLEL_CSLS}
    assert {key.measure for key in found.curves} == expected
    assert {key.right for key in found.curves} == set(LANGUAGES[1:])
    assert {curve.n for curve in found.curves.values()} == {ITEMS}
    assert (found.info.concepts, found.info.n) == ((), 0)
    assert not any((found.inputs, found.shapes, found.cues, found.agnostic, found.cosines))
    paths = run_folder.RunPaths(run)
    assert len(pd.read_csv(paths.commitment)) == 0
    assert json.loads(paths.token_audit.read_text("utf-8"))["probes"] == {}
    assert found.to_json() == json.loads(paths.curves.read_text("utf-8"))


def test_what_is_missing_is_said(run: Path, capsys: Any) -> None:
    assert analyse(run, "--overwrite") == 0
    said = capsys.readouterr()
    assert "the suite has no probes: only measures of the parallel corpus are computed" in said.err
    assert "2 variants x 4 languages, 60 items" in said.out
    assert analyse(run, "--concepts", "C01") == 2
    assert "--concepts: suite planted has no probes" in capsys.readouterr().err


def test_curves_of_the_corpus_are_the_measures_of_its_vectors(run: Path) -> None:
    vectors = {code: table.astype(np.float32) for code, table in draw("global").items()}
    saved = results(run)
    for suffix, scale in (("", measures.standardise), (RAW, measures.mean_centre)):
        english, hindi = (scale(vectors[code][:, None])[:, 0] for code in ("en", "hi"))
        for layer in range(LAYERS - 1):
            a, b = english[:, layer], hindi[:, layer]
            similarity = measures.unit(a) @ measures.unit(b).T
            best = [
                similarity[i, i] == similarity[i].max() == similarity[:, i].max()
                for i in range(ITEMS)
            ]
            expected = {
                PARALLEL_ALIGNMENT: measures.alignment(similarity).mean(),
                PARALLEL_RETRIEVAL: np.mean(best),
                PARALLEL_CKA: measures.unbiased_cka(measures.gram(a), measures.gram(b))[0],
            }
            for name, value in expected.items():
                found = curve(saved, name + suffix).mean[layer]
                assert found == pytest.approx(value, abs=3e-3)


def test_sentences_are_shared_where_they_were_planted(run: Path) -> None:
    saved = results(run)
    for code in LANGUAGES[1:]:
        for name in (PARALLEL_ALIGNMENT, PARALLEL_CKA):
            found = curve(saved, name, code)
            assert (found.array("lower")[2:] > 0.05).all()
            assert (found.array("lower")[:2] < 0.05).all()
        plain, scaled, raw = (
            curve(saved, name, code).array()[2:]
            for name in (PARALLEL_RETRIEVAL, PARALLEL_CSLS, PARALLEL_RETRIEVAL + RAW)
        )
        assert (curve(saved, PARALLEL_RETRIEVAL, code).array("lower")[2:] > 0.1).all()
        assert (scaled >= plain - 0.05).all()
        assert (raw < plain - 0.2).all()  # the rogue dimension rules it


def test_contrasts_of_the_corpus_are_by_document(run: Path) -> None:
    table: Any = pd.read_csv(run_folder.RunPaths(run).contrasts)
    assert set(table.measure) == {name + end for name in ITEM_MEASURES for end in ("", RAW)}
    assert set(table.family) == {"specificity", "parts", "region"}
    assert set(table.n) == {ITEMS}
    assert set(table.groups) == {20}
    found = table[(table.measure == PARALLEL_ALIGNMENT) & (table.window == "all")]
    [whole] = found[found.family == "specificity"].to_dict("records")
    assert (whole["targets"], whole["others"]) == ("hi+ta", "sw+fr")
    assert whole["p_holm"] <= 0.05
    assert whole["lower"] > 0
    assert whole["p_language"] == whole["p_language_floor"] == pytest.approx(1 / 6, rel=1e-4)
    region = found[found.family == "region"].set_index("targets")
    assert (region.loc[["hi", "ta"]].p_holm <= 0.05).all()
    assert (region.loc[["sw", "fr"]].p_holm > 0.05).all()


def test_few_items_have_no_measures_and_few_documents_no_intervals() -> None:
    suite = suites.Suite("planted", "en", ("en", "hi"), "flores", VARIANTS[:1], "", "")
    rng = np.random.default_rng(9)

    class Loaded:
        def take(self, pooling: str, ids: list[str]) -> np.ndarray:
            return rng.normal(size=(len(ids), 3, 8)).astype(np.float32)

    def measured(documents: list[int]) -> tuple[dict[Any, Curve], Any]:
        task = planted_stage.inputs(planted_stage.manifest(suite, documents=documents))
        loaded: Any = Loaded()
        return parallel.measure(loaded, task, "global")

    assert measured([0, 1, 2, 3]) == ({}, {})
    for documents, has_interval in (([0, 0, 1, 1, 2], False), ([0, 1, 2, 3, 3], True)):
        curves, items = measured(documents)
        assert set(items) == {
            (name + suffix, "hi") for name in ITEM_MEASURES for suffix in ("", RAW)
        }
        found = {key.measure: found for key, found in curves.items()}
        assert (found[PARALLEL_ALIGNMENT].lower is not None) == has_interval


def test_a_constant_layer_of_the_corpus_is_undefined_and_changes_no_other(
    run: Path, tmp_path: Path
) -> None:
    suite = suites.Suite("planted", "en", ("en", "hi"), "flores", VARIANTS[:1], "", "")
    manifest = planted_stage.saved(
        tmp_path, planted_stage.manifest(suite, documents=DOCUMENTS.tolist())
    )
    vectors = draw("global")
    vectors["hi"][:, 3] = 1.0
    table = {f"P{n}-{code}": vectors[code][n] for code in suite.languages for n in range(ITEMS)}
    folder = run_folder.RunPaths(tmp_path).activations / "global"
    write_activations(folder, manifest, {"content_mean": table, "span_mean": {}})
    assert analyse(tmp_path) == 0
    both = results(tmp_path), results(run)
    for name in (*ITEM_MEASURES, PARALLEL_CSLS, HUB_SKEW):
        flat, whole = (curve(found, name).array() for found in both)
        assert np.flatnonzero(np.isnan(flat)).tolist() == [3]
        np.testing.assert_allclose(np.delete(flat, 3), np.delete(whole, 3), atol=1e-4)
