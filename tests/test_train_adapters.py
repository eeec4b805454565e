"""Equal tokens and equal English by construction, and the committed cards say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aya_probes import errors, project, residual_vectors, suites
from aya_probes.models import fingerprints, loading
from aya_probes.planted.tiny import save_tiny, write_study
from tools import train_adapters as ta

SUITE = suites.load_suite("mini")
NAMES = tuple(v.name for v in SUITE.variants if v.adapter)


@pytest.mark.parametrize("name", NAMES)
def test_budgets_are_equal_in_total_and_in_english(name: str) -> None:
    codes = ta.adapter_languages(SUITE.variant(name), SUITE)
    budget = ta.token_budget(codes, "en", 12_000, 3_000)
    assert budget["en"] == 3_000
    assert sum(budget.values()) == pytest.approx(12_000, abs=len(codes))


def test_a_second_seed_has_the_languages_of_the_variant_that_it_repeats() -> None:
    repeated = [v for v in SUITE.variants if v.role in suites.REPEATS]
    assert repeated
    for variant in repeated:
        origin = SUITE.variant(str(variant.of))
        assert ta.adapter_languages(variant, SUITE) == ta.adapter_languages(origin, SUITE)


def test_sequences_use_the_same_lines_in_every_language() -> None:
    encoded = {code: [[code_id, n, n] for n in range(50)] for code_id, code in enumerate("ab")}
    sequences, used = ta.training_sequences(encoded, {"a": 30, "b": 31}, seed=0)
    lines = {code: {s[1] for s in sequences if s[0] == n} for n, code in enumerate("ab")}
    assert used == {"a": 30, "b": 30}
    assert lines["a"] == lines["b"]
    with pytest.raises(errors.StudyError, match="too little text"):
        ta.training_sequences(encoded, {"a": 1_000}, seed=0)


def test_committed_cards_keep_the_promise() -> None:
    """The same English and the same data; the same total, or for a dose control the same dose."""
    cards = {
        n: json.loads((project.ROOT / f"data/adapters/mini/{n}/card.json").read_text("utf-8"))
        for n in NAMES
    }
    assert len({card["tokens"]["en"] for card in cards.values()}) == 1
    assert len({card["data_sha256"] for card in cards.values()}) == 1
    suite = suites.load_suite("mini")
    doses = {n: cards.pop(n) for n in NAMES if suite.variant(n).role == "dose"}
    totals = [card["tokens_total"] for card in cards.values()]
    assert max(totals) - min(totals) <= 10
    others = set(suite.languages) - {suite.pivot}
    for card in doses.values():
        assert set(card["tokens"]) - {suite.pivot} == others
        for regional in suite.by_role("regional"):
            for code in regional.targets:
                assert abs(card["tokens"][code] - cards[regional.name]["tokens"][code]) <= 10


@pytest.mark.parametrize("name", NAMES)
def test_adapters_name_no_folder_of_a_machine(name: str) -> None:
    path = project.ROOT / f"data/adapters/mini/{name}/adapter_config.json"
    assert json.loads(path.read_text("utf-8"))["base_model_name_or_path"] == "google/gemma-3-270m"


def test_missing_corpus_names_the_file(tmp_path: Any, capsys: Any) -> None:
    line = ["--parallel-dir", str(tmp_path), "--flores-dir", str(tmp_path), "--overwrite"]
    assert ta.main(line) == 1
    assert "newstest2019-src.eng.txt" in capsys.readouterr().err


@pytest.mark.parametrize("suite", ["mini", "mini-flores"])
def test_the_shipped_suites_pin_their_adapters(suite: str) -> None:
    trained = [v for v in suites.load_suite(suite).variants if v.adapter]
    assert tuple(v.name for v in trained) == NAMES
    for variant in trained:
        folder = suites.resolve_path(str(variant.adapter))
        assert fingerprints.adapter_sha256(folder, variant.name) == variant.adapter_sha256


def write_corpora(folder: Path, lines: int) -> list[str]:
    """Write a parallel corpus and a held-out one of three languages; returns the flags for them."""
    languages = suites.load_languages()
    (folder / "devtest").mkdir()
    for code, frame in (("en", "Line {} about the eye."), ("hi", "आँख {}"), ("sw", "Jicho {}.")):
        text = "".join(frame.format(n) + "\n" for n in range(lines))
        ta.parallel_file(folder, code, "en").write_text(text, "utf-8")
        (folder / "devtest" / f"{languages[code].flores}.devtest").write_text(text, "utf-8")
    return ["--parallel-dir", str(folder), "--flores-dir", str(folder)]


def test_adapters_are_trained_saved_and_loaded(tmp_path: Path, capsys: Any) -> None:
    save_tiny(tmp_path / "base", "llama", seed=1)
    tuned = {"path": "base", "role": "regional", "targets": ["hi"], "adapter": "adapters/tuned"}
    suite_file = write_study(tmp_path, {"base": {"path": "base", "role": "base"}, "tuned": tuned})
    corpora = write_corpora(tmp_path, lines=300)
    line = [
        "--suite",
        str(suite_file),
        *corpora,
        "--tokens",
        "4000",
        "--eval-limit",
        "5",
        "--float32",
    ]
    assert ta.main(line) == 0
    folder = tmp_path / "adapters/tuned"
    card = json.loads((folder / "card.json").read_text("utf-8"))
    assert card["tokens"]["en"] == 1000
    assert card["tokens"]["hi"] in (2999, 3000)  # a sentence is not cut to a single token
    assert card["loss_last_tenth"] < card["loss_first_tenth"]
    assert set(card["perplexity_before"]) == set(card["perplexity_after"]) == {"en", "hi", "sw"}
    assert card["perplexity_after"]["hi"] < card["perplexity_before"]["hi"]
    sha = fingerprints.adapter_sha256(folder, "tuned")
    assert f'adapter_sha256 = "{sha}"' in capsys.readouterr().out
    # The adapter changes the vectors of the model that it is merged into.
    suite = suites.load_suite(str(suite_file))
    vectors = {}
    for variant in suite.variants:
        source = loading.resolve_source(variant)
        loaded = loading.load_variant(
            variant, source, device=torch.device("cpu"), dtype=torch.float32
        )
        vectors[variant.name] = residual_vectors(loaded, ["आँख"])
    assert np.abs(vectors["tuned"] - vectors["base"])[0, -1].max() > 1e-4
    assert ta.main(line) == 0
    assert "is there; --overwrite trains it again" in capsys.readouterr().out
    assert fingerprints.adapter_sha256(folder, "tuned") == sha
