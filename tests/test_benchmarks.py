"""Benchmarks run as processes, and what they say of exactness holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aya_probes import project
from aya_probes.alignment import ceiling, measures
from aya_probes.planted import vectors as planted
from aya_probes.planted.vectors import Plant, Rogue


def test_what_the_extraction_benchmark_times_equals_float64_forwards(tmp_path: Path) -> None:
    out = tmp_path / "extract.json"
    script = project.ROOT / "benchmarks" / "extract.py"
    line = [sys.executable, str(script), "--quick", "--ways", "ours,ours_bf16,naive"]
    done = subprocess.run([*line, "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(out.read_text(encoding="utf-8"))["cases"].values()
    assert set(case["ways"]) == {"ours", "ours_bf16", "naive"}
    assert 0 < case["ways"]["ours"]["relative_error"] < 1e-5
    assert 0 < case["ways"]["ours_bf16"]["relative_error"] < 3e-2
    assert all(way["cpu_s"]["median"] > 0 for way in case["ways"].values())


def test_what_the_likelihood_benchmark_times_is_the_librarys_own_loss(tmp_path: Path) -> None:
    out = tmp_path / "likelihoods.json"
    line = [sys.executable, str(project.ROOT / "benchmarks" / "likelihoods.py"), "--quick"]
    done = subprocess.run([*line, "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cases = json.loads(out.read_text(encoding="utf-8"))["cases"]
    assert set(cases) == {"surprisal", "comprehension"}
    for case in cases.values():
        assert case["way"] == "packed"
        assert case["largest_difference_nats"] < 1e-3
        assert case["ratio"]["median"] > 0


def sweep(out: Path, *flags: str) -> dict[str, dict[str, Any]]:
    """Run the sweep over model types; returns what it found, by type."""
    line = [sys.executable, str(project.ROOT / "benchmarks" / "architectures.py"), *flags]
    done = subprocess.run([*line, "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {row["type"]: row for row in json.loads(out.read_text("utf-8"))["types"]}


def test_model_types_are_exact_or_refused(tmp_path: Path) -> None:
    found = sweep(tmp_path / "types.json", "cohere2", "falcon", "opt", "glm_moe_dsa", "bert")
    ways = {name: row["status"] for name, row in found.items()}
    assert ways == {
        "cohere2": "packed",
        "falcon": "padded",
        "opt": "packed",
        "glm_moe_dsa": "alone",
        "bert": "refused",
    }
    assert all(row["library"] == "agree" for name, row in found.items() if name != "bert")


@pytest.mark.slow
def test_every_model_type_is_what_the_table_says(tmp_path: Path) -> None:
    table = project.ROOT / "benchmarks" / "results" / "architectures.json"
    said = {row["type"]: row["status"] for row in json.loads(table.read_text("utf-8"))["types"]}
    found = sweep(tmp_path / "types.json")
    assert {name: row["status"] for name, row in found.items()} == said


def benchmark(name: str, out: Path, *flags: str) -> dict[str, Any]:
    """Run a benchmark that writes JSON; returns what it wrote."""
    line = [sys.executable, str(project.ROOT / "benchmarks" / name), "--json", str(out), *flags]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(out.read_text("utf-8")))


# --- planted vectors --------------------------------------------------------------------------

STRENGTH = np.full(3, 40.0)  # so large that everything else is rounding
DEEP = Plant(concept=np.zeros(3), sentence=np.zeros(3), anisotropy=np.zeros(3), hidden=32, n=20)


def rogue_values(mode: str) -> np.ndarray:
    """Return the first rogue dimension of two languages at one layer, ``[language, n, k]``."""
    plant = Plant(**{**vars(DEEP), "rogue": Rogue(mode, STRENGTH, sizes=(1.0,))})
    vectors = planted.draw(plant, seed=5)[0, :, :, :, 1]
    return vectors[..., 0] / STRENGTH[1]


def test_rogue_dimensions_do_what_their_mode_says() -> None:
    for mode in ("texts", "languages", "few", "outliers"):
        first, second = rogue_values(mode)
        texts = np.corrcoef((first - first.mean()).ravel(), (second - second.mean()).ravel())[0, 1]
        assert (abs(texts) > 0.3) == (mode == "few"), (mode, texts)
    apart = abs(np.diff(rogue_values("languages").mean(axis=(1, 2))))
    assert apart > 3 > abs(np.diff(rogue_values("texts").mean(axis=(1, 2))))
    large = np.abs(rogue_values("few").mean(-1)) > 1.5
    np.testing.assert_array_equal(np.flatnonzero(large[0]), [0, 1])
    np.testing.assert_array_equal(large[0], large[1])
    own = np.abs(rogue_values("outliers").mean(-1)) > 1.5
    assert own.sum(1).tolist() == [2, 2]
    first, second = rogue_values("private")
    assert first.std() > 10 * second.std()


def test_a_rotation_changes_dimensions_and_no_cosines() -> None:
    plain, turned = (
        planted.draw(Plant(**{**vars(DEEP), "rotated": turn}), seed=2)[0] for turn in (False, True)
    )
    np.testing.assert_allclose(
        planted.matrices(plain, raw=True), planted.matrices(turned, raw=True), atol=1e-4
    )
    spread = [vectors[0].std(axis=(0, 1, 2)) for vectors in (plain, turned)]
    assert spread[0][:3].mean() > 2 * spread[0][-16:].mean()
    assert spread[1][:3].mean() < 1.5 * spread[1][-16:].mean()


def test_own_vectors_by_layer_move_the_ceiling_and_not_what_is_shared() -> None:
    """The plants of a ceiling that falls: squared strength falls, in equal parts."""
    total = np.array([4.0, 1.0, 0.25])
    plant = Plant(
        concept=np.sqrt(total / 2),
        own=np.sqrt(total / 2),
        sentence=np.zeros(3),
        anisotropy=np.zeros(3),
        spread=0.0,
        n=200,
        hidden=512,
    )
    vectors = [measures.standardise(own) for own in planted.draw(plant, seed=1)[0]]
    within = ceiling.within_languages({"en": vectors[0], "hi": vectors[1]})
    cross = measures.alignment(
        measures.wording_mean(measures.cosines(*vectors), same_wording=False)
    ).mean(1)
    np.testing.assert_allclose(within["en"].mean(1), total / (1 + total), atol=0.02)
    np.testing.assert_allclose(cross, total / (1 + total) / 2, atol=0.02)


def test_categories_share_one_concept_vector() -> None:
    plant = Plant(concept=np.full(3, 50.0), sentence=np.zeros(3), categories=4, spread=0.0, n=20)
    plant = Plant(**{**vars(plant), "anisotropy": np.zeros(3)})
    matrix = planted.matrices(planted.draw(plant, seed=3)[0], raw=True)[0, 1]
    same = plant.blocks[:, None] == plant.blocks[None]
    assert matrix[same].min() > 0.95 > 0.8 > matrix[~same].max()


# --- what the benchmarks find -----------------------------------------------------------------


def test_rogue_dimensions_rule_raw_vectors_and_no_standardised_ones(tmp_path: Path) -> None:
    found = benchmark("measure_choice.py", tmp_path / "m.json", "--sizes", "20", "--draws", "4")
    rows = {(r["plant"], r["signal"], r["candidate"]): r for r in found["tables"]["candidates"]}
    candidates = {name for _, _, name in rows}
    assert len(rows) == 13 * len(candidates)
    faked = {name: rows["a tenth of the concepts share them", False, name] for name in candidates}
    assert faked["raw"]["early"] > 0.05
    assert max(abs(faked[name]["early"]) for name in candidates - {"raw"}) < 0.03
    hidden = {name: rows["noise", True, name]["called"] for name in candidates}
    assert hidden["standardised"] > hidden["raw"]
    assert {v["candidate"] for v in found["tables"]["choice"]} == candidates
    assert found["chosen"] in candidates - {"raw"}


def test_the_rule_takes_the_simplest_of_the_best_that_qualify(tmp_path: Path) -> None:
    found = benchmark("measure_choice.py", tmp_path / "m.json", "--sizes", "10", "--draws", "2")
    verdicts = found["tables"]["choice"]
    for verdict in verdicts:
        assert verdict["qualifies"] == (verdict["null"] <= verdict["limit"] + 1e-9)
    fitting = [v for v in verdicts if v["qualifies"]]
    best = max(fitting, key=lambda v: v["power"])
    tied = [v["candidate"] for v in fitting if v["power"] >= best["power"] - best["error"]]
    assert found["chosen"] == tied[0]


def test_the_same_seed_gives_the_same_validation_on_any_number_of_processes(
    tmp_path: Path,
) -> None:
    flags = ("--tables", "family_wise", "--draws", "2")
    one, two = (
        benchmark("validation.py", tmp_path / "v.json", *flags, "--jobs", jobs)["tables"]
        for jobs in ("1", "2")
    )
    assert one == two
    assert {row["draws"] for row in one["family_wise"]} == {4}


def test_validation_finds_what_is_planted(tmp_path: Path) -> None:
    flags = ("--tables", "shapes,decoys,contrast_errors", "--draws", "4", "--jobs", "1")
    tables = benchmark("validation.py", tmp_path / "v.json", *flags)["tables"]
    decoys = {row["plant"]: row for row in tables["decoys"]}
    assert all(row["published_rule"] == 1 for row in decoys.values())
    assert decoys["concept signal"]["within_called"] == 1
    category = decoys["only the category is shared"]
    assert category["concept_called"] == 1
    assert category["A"] > 0.15 > 0.05 > abs(category["A_within"])
    shapes = {row["plant"]: row for row in tables["shapes"]}
    assert shapes["monotone rise"]["RISE"] > 0
    assert shapes["rise, plateau, loss"]["RISE_PEAK_DECLINE"] > 0
    assert shapes["nothing in common even within a language"]["UNDEFINED"] == 1
    assert shapes["final norm taken as layer L"]["false"] > 0.5
    errors = tables["contrast_errors"]
    assert {row["plant"]: row["draws"] for row in errors}["corpus, documents ignored"] == 1
    assert len(errors) == 3 * 5 * 3


def test_an_unknown_table_is_refused_by_name(tmp_path: Path) -> None:
    script = project.ROOT / "benchmarks" / "validation.py"
    line = [sys.executable, str(script), "--tables", "shape", "--json", str(tmp_path / "v.json")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "shape" in done.stderr
    assert not (tmp_path / "v.json").exists()
