"""Equal tokens and equal English by construction, and the committed cards say so."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aya_probes import errors, project, suites
from aya_probes.models import fingerprints
from tools import train_adapters as ta

SUITE = suites.load_suite("mini")
NAMES = ("global", "fire", "earth")


@pytest.mark.parametrize("name", NAMES)
def test_budgets_are_equal_in_total_and_in_english(name: str) -> None:
    codes = ta.adapter_languages(SUITE.variant(name), SUITE)
    budget = ta.token_budget(codes, "en", 12_000)
    assert budget["en"] == 3_000
    assert sum(budget.values()) == pytest.approx(12_000, abs=len(codes))


def test_sequences_use_the_same_lines_in_every_language() -> None:
    encoded = {code: [[code_id, n, n] for n in range(50)] for code_id, code in enumerate("ab")}
    sequences, used = ta.training_sequences(encoded, {"a": 30, "b": 31}, seed=0)
    lines = {code: {s[1] for s in sequences if s[0] == n} for n, code in enumerate("ab")}
    assert used == {"a": 30, "b": 30}
    assert lines["a"] == lines["b"]
    with pytest.raises(errors.StudyError, match="too little text"):
        ta.training_sequences(encoded, {"a": 1_000}, seed=0)


def test_committed_cards_keep_the_promise() -> None:
    cards = [
        json.loads((project.ROOT / f"data/adapters/mini/{n}/card.json").read_text("utf-8"))
        for n in NAMES
    ]
    assert len({card["tokens"]["en"] for card in cards}) == 1
    assert len({card["data_sha256"] for card in cards}) == 1
    totals = [card["tokens_total"] for card in cards]
    assert max(totals) - min(totals) <= 10


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
    assert len(trained) == 3
    for variant in trained:
        folder = suites.resolve_path(str(variant.adapter))
        assert fingerprints.adapter_sha256(folder, variant.name) == variant.adapter_sha256
