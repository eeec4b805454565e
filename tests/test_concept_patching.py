"""concept_patching.py on a tiny model: what it writes, resumes, refuses and calls untestable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import build_stimuli
import concept_patching
from aya_probes import probes, project, prompts, records, stage_files
from aya_probes.alignment import inference
from aya_probes.alignment.contrasts import Draws
from aya_probes.lens import accuracy, words
from aya_probes.models import loading
from aya_probes.models.residuals import LoadedModel
from aya_probes.patching import analysis, design, donors, engine
from aya_probes.patching.analysis import Measurement
from aya_probes.planted import tiny
from aya_probes.prompts import Cell
from aya_probes.results import patching as results_file
from aya_probes.results.patching import PatchRow
from aya_probes.results.tables import Contrast
from aya_probes.run_folder import RunPaths

LANGUAGES = ("en", "fr", "sw", "yo")
CONCEPTS = 10
DRAWS = ["--n-bootstrap", "100", "--n-permutations", "99", "--device", "cpu"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of two tiny variants, with ten real concepts and a vocabulary that tells them
    apart."""
    folder = tmp_path_factory.mktemp("patching")
    raw = json.loads((project.ROOT / "data" / "concept_probes.json").read_text("utf-8"))
    concepts = raw["concepts"][:CONCEPTS]
    for concept in concepts:
        concept["languages"] = {code: concept["languages"][code] for code in LANGUAGES}
    (folder / "probes.json").write_text(json.dumps({"concepts": concepts}), encoding="utf-8")
    (folder / "pairs.json").write_text('{"lexicons": {}, "pairs": []}', encoding="utf-8")
    tokenizer = word_tokenizer(concepts)
    for seed, name in enumerate(("base", "global"), start=1):
        config = AutoConfig.for_model(
            "llama",
            vocab_size=len(tokenizer),
            bos_token_id=2,
            eos_token_id=1,
            pad_token_id=0,
            **tiny.TINY["llama"],
        )
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "patching.toml").write_text(
        f'name = "patching"\nlabel = "random Llama"\npivot = "en"\n'
        f"languages = {json.dumps(LANGUAGES)}\n"
        'corpus = "cldr"\nprobes = "probes.json"\nperturbations = "pairs.json"\n'
        '[variants.base]\npath = "base"\nrole = "base"\n'
        '[variants.global]\npath = "global"\nrole = "control"\n',
        encoding="utf-8",
    )
    return folder


def word_tokenizer(concepts: list[dict[str, Any]]) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer that has learnt the words of the concepts as whole tokens."""
    texts = []
    for concept in concepts:
        for language in concept["languages"].values():
            forms = [language["term"], *(s["surface"] for s in language["sentences"])]
            texts += [f' "{form}" {form}' for form in forms] * 20
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<pad>", "<eos>", "<bos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def started(study: Path, run: Path) -> RunPaths:
    line = ["--suite", str(study / "patching.toml"), "--run-dir", str(run), "--limit", "4"]
    assert build_stimuli.main(line) == 0
    return RunPaths(run)


@pytest.fixture(scope="module")
def done(study: Path, tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A run in which every cell counts as answered."""
    paths = started(study, tmp_path_factory.mktemp("done"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accuracy, "above_chance", lambda rates: True)
        line = ["--run-dir", str(paths.run_dir), "--targets", "fr", "--shots", "2", *DRAWS]
        assert concept_patching.main(line) == 0
    return paths


def rows(paths: RunPaths) -> list[PatchRow]:
    return records.load_table(
        PatchRow, paths.results / "concept_patching.csv", results_file.MAKE_PATCHING
    )


def test_every_patch_and_control_has_a_row_at_every_layer(done: RunPaths) -> None:
    found = [r for r in rows(done) if r.condition != "none"]
    word = {
        (r.condition, r.source, r.patched)
        for r in found
        if (r.variant, r.target, r.test) == ("base", "fr", "word")
    }
    assert word == {
        ("source", "sw", "onward"),
        ("source", "yo", "onward"),
        ("mean_sources", "mean", "onward"),
        ("mean_sources", "mean", "single"),
        ("centred", "mean", "onward"),
        ("random", "mean", "onward"),
        ("mean_concepts", "mean", "onward"),
        ("wrong_concept", "mean", "onward"),
        ("same_language", "en", "onward"),
        ("mismatched_layer", "mean", "onward"),
    }
    sentences = {(r.test, r.condition) for r in found if r.test != "word"}
    assert sentences == {
        ("turned", "language_vector"),
        ("turned", "random_direction"),
        ("moved", "whole"),
        ("moved", "mean_centred"),
    }
    layers: dict[tuple[str, ...], list[int | None]] = {}
    for r in found:
        key = (r.variant, r.test, r.target, r.given, r.condition, r.source, r.patched)
        layers.setdefault(key, []).append(r.layer)
        assert r.status == "tested"
        assert 8 <= r.n <= CONCEPTS
        assert 0 <= (r.p_moved or 0) <= 1
    assert all(some == [0, 1, 2, 3] for some in layers.values())


def test_words_that_are_not_told_apart_are_named_and_have_no_values(done: RunPaths) -> None:
    path = stage_files.stage_path(done, "base", "patching")
    content = stage_files.load_stage(path, "x")
    arrays = stage_files.load_arrays(path, content, "x")
    row = next(r for r in content.rows if r["kind"] == "tokens")
    language = row["languages"].index("sw")
    for name in ("onward", "single", "before"):
        arrays[f"fr/{name}"][..., language, 3:] = np.nan
    curves = analysis.curves(Measurement("base", content.rows, arrays))
    draws = Draws(inference.resample_weights(8, 10, 0), 9, 0)
    found, window = next(
        analysis.rows_of("base", curve, draws) for curve in curves if curve.source == "sw"
    )
    assert [(r.status, r.layer, r.effect) for r in found] == [
        ("untestable (3 usable concepts)", None, None)
    ]
    assert window.first is None
    patch = next(r for r in content.rows if r["kind"] == "patch")
    assert set(window.left_out) == set(patch["concepts"][3:])


def test_the_record_and_the_contrasts_are_read_back(done: RunPaths) -> None:
    results = results_file.load(done)
    assert results.ways == {"base": "cached", "global": "cached"}
    tested = {(c.variant, c.task, c.target) for c in results.cells}
    assert ("global", "translation", "fr") in tested
    assert {c.status for c in results.cells} == {"tested"}
    assert len(results.exact) == 2 * 4
    assert all(w.n + len(w.left_out) <= CONCEPTS for w in results.windows)
    path = done.results / "patching_contrasts.csv"
    contrasts = records.load_table(Contrast, path, results_file.MAKE_PATCHING)
    assert {c.measure for c in contrasts} == {"patching_fr"}
    assert {c.family for c in contrasts} == {"post-training"}
    one = next(c for c in contrasts if (c.measure, c.window) == ("patching_fr", "all"))
    assert one.layers == "1-3"
    mine = {
        variant: np.mean(
            [
                r.effect or 0
                for r in rows(done)
                if (r.variant, r.target, r.condition, r.source)
                == (variant, "fr", "source", one.targets)
                and r.layer
            ]
        )
        for variant in ("base", "global")
    }
    assert one.estimate == pytest.approx(mine["global"] - mine["base"], abs=1e-4)


def load(study: Path) -> LoadedModel:
    return loading.load_model(study / "base", device="cpu", dtype="float32")


def test_unpatched_rows_hold_the_models_own_probabilities(done: RunPaths, study: Path) -> None:
    loaded = load(study)
    concepts = probes.load_probes(study / "probes.json")
    frames = prompts.load_prompts(prompts.DEFAULT_PATH, LANGUAGES)
    row = next(
        r for r in rows(done) if (r.variant, r.target, r.condition) == ("base", "fr", "none")
    )
    cell = Cell("translation", row.given, "fr")
    queries, _ = design.one_a_concept(frames, concepts, cell, shots=2, seed=project.SEED)
    path = stage_files.stage_path(done, "base", "patching")
    content = stage_files.load_stage(path, "x")
    tokens = next(r for r in content.rows if r["kind"] == "tokens")
    forms = prompts.word_forms(concepts, LANGUAGES)
    firsts = words.first_tokens(loaded.tokenizer, forms, LANGUAGES)
    chances = []
    for query in queries:
        with torch.inference_mode():
            ids = torch.tensor([loaded.tokenizer(query.text)["input_ids"]])
            chance = loaded.causal_lm(ids).logits[0, -1].softmax(-1)
        some = firsts.tokens[query.concept_id, "fr"]
        chances.append(float(chance[list(some)].sum()) if some else np.nan)
    assert tokens["layers"] == 4
    assert row.p_asked == pytest.approx(np.nanmean(chances), rel=1e-4)


def test_prompts_share_the_tokens_of_their_shots_and_are_patched_at_the_word(study: Path) -> None:
    loaded = load(study)
    concepts = probes.load_probes(study / "probes.json")
    frames = prompts.load_prompts(prompts.DEFAULT_PATH, LANGUAGES)
    cell = Cell("translation", "fr", "en")
    queries, half = design.one_a_concept(frames, concepts, cell, shots=3, seed=1)
    assert {q.frame for q in queries} == {f"translation-en-{n}" for n in (1, 2, 3)}
    asked = design.tokenise(loaded, queries)
    for query, prompt in zip(asked.queries, asked.prompts, strict=True):
        before = loaded.tokenizer.decode(prompt.token_ids[: prompt.position + 1])
        assert before.removeprefix("<bos>").strip().endswith(query.text[slice(*query.span)])
        assert prompt.shared <= prompt.position
    large = [p for p in asked.prompts if p.shared > 20]
    assert len(large) >= 6  # several prompts of a half and frame
    donor = donors.donors(half, 0)
    for query, number in zip(queries, donor, strict=True):
        answers = prompts.word_forms(concepts, ["en"])[queries[number].concept_id]["en"]
        assert not any(f'"{form}"\n' in query.shots for form in answers)
    last = design.tokenise(loaded, queries, "last")
    assert all(p.position == len(p.token_ids) - 1 for p in last.prompts)


def test_what_is_not_answered_is_untestable_and_never_averaged(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = started(study, tmp_path)
    line = ["--run-dir", str(tmp_path), "--variants", "base", "--targets", "en", *DRAWS]
    assert concept_patching.main(line) == 0
    assert "0 of 1 targets tested" in capsys.readouterr().out
    found = rows(paths)
    assert {r.condition for r in found} == {"none"}
    assert all(r.status.startswith("untestable (accuracy 0 of ") for r in found)
    assert all(r.p_moved is None and r.effect is None for r in found)
    assert concept_patching.main(line) == 0
    assert "patching complete, skipped" in capsys.readouterr().out
    assert concept_patching.main([*line, "--shots", "2"]) == 1
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message", "code"),
    [
        (["--limit", "6"], "usable concepts, at least 8 are needed", 1),
        (["--targets", "de"], "unknown target 'de'; valid: en, fr, sw, yo", 2),
        (["--languages", "fr,sw,yo"], "patching needs the pivot en and two others", 2),
        (["--languages", "en,fr"], "the vectors are of a third", 2),
        (["--variants", "fire"], "unknown variant 'fire'", 2),
    ],
)
def test_bad_input_is_named(
    study: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
    code: int,
) -> None:
    started(study, tmp_path)
    assert concept_patching.main(["--run-dir", str(tmp_path), *flags, *DRAWS]) == code
    assert message in capsys.readouterr().err


def test_the_model_is_as_it_was_whatever_happens(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started(study, tmp_path)
    monkeypatch.setattr(accuracy, "above_chance", lambda rates: True)
    seen: list[LoadedModel] = []
    patched: Callable[..., Any] = engine.patched

    def fail(setup: engine.Setup, *rest: Any, **options: Any) -> Any:
        seen.append(setup.loaded)
        if len(seen) > 4:  # after the self-check
            raise KeyboardInterrupt
        return patched(setup, *rest, **options)

    monkeypatch.setattr(engine, "patched", fail)
    line = ["--run-dir", str(tmp_path), "--variants", "base", "--targets", "fr", *DRAWS]
    assert concept_patching.main(line) == 130
    assert not (tmp_path / "results" / "concept_patching.csv").exists()
    modules = list(seen[-1].causal_lm.modules())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in modules)
    assert "interrupted" in capsys.readouterr().err
