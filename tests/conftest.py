"""Fixtures: tiny random models made from a config, and a study small enough for every test."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

# A shell starts a job in the background with SIGINT ignored, and every process it starts inherits
# that: the tests that send it would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

LANGUAGES = ("en", "hi", "sw")
SENTENCES = {
    "en": ("The {} was seen again.", "Nobody forgot that {} today."),
    "hi": ("वह {} फिर दिखा।", "आज कोई {} नहीं भूला।"),
    "sw": ("Ile {} ilionekana tena.", "Hakuna aliyesahau {} leo."),
}
TERMS = {
    "eye": ("eye", "आँख", "jicho"),
    "heart": ("heart", "दिल", "moyo"),
    "bone": ("bone", "हड्डी", "mfupa"),
    "blood": ("blood", "ख़ून", "damu"),
    "nose": ("nose", "नाक", "pua"),
}
TINY: dict[str, dict[str, Any]] = {
    "cohere2": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
                "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 8,
                "logit_scale": 1.0},
    "gemma3_text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
                    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
                    "sliding_window": 8},
    "llama": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
              "num_attention_heads": 4, "num_key_value_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256},
}  # fmt: skip


def byte_tokenizer() -> Any:
    """Return a byte-level fast tokenizer that prepends BOS and pads left, like Cohere's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2}
    vocabulary |= {symbol: n for n, symbol in enumerate(alphabet, start=3)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
        padding_side="left",
    )  # fmt: skip


def tiny_model(kind: str, seed: int) -> Any:
    """Return a random causal LM of the given architecture, 4 blocks of width 32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind, vocab_size=259, bos_token_id=2, eos_token_id=1, pad_token_id=0, **TINY[kind]
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)


def save_tiny(folder: Path, kind: str = "cohere2", seed: int = 0) -> Path:
    """Save a tiny model and its tokenizer as a local model folder."""
    tiny_model(kind, seed).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def write_study(folder: Path, variants: dict[str, dict[str, Any]]) -> Path:
    """Write probes, perturbations and a suite of 5 concepts x 3 languages; returns its path."""
    concepts = []
    for number, (concept, terms) in enumerate(TERMS.items(), start=1):
        languages = {}
        for code, term in zip(LANGUAGES, terms, strict=True):
            texts = [frame.format(term) for frame in SENTENCES[code]]
            languages[code] = {
                "term": term,
                "sources": ["test"],
                "sentences": [
                    {"wording": k, "text": text, "surface": term}
                    for k, text in enumerate(texts, start=1)
                ],
            }
        concepts.append({"id": f"C{number:02d}", "concept": concept, "category": "organ",
                         "languages": languages})  # fmt: skip
    pairs = [
        {"id": f"UNICODE_EDGE-C{n:02d}-hi", "category": "UNICODE_EDGE", "language": "hi",
         "tag": "hi", "concept_id": f"C{n:02d}", "wording": 1, "change": "zero-width space",
         "text": "\u200b" + SENTENCES["hi"][0].format(terms[1])}
        for n, terms in enumerate(TERMS.values(), start=1)
    ]  # fmt: skip
    (folder / "probes.json").write_text(json.dumps({"concepts": concepts}), encoding="utf-8")
    (folder / "pairs.json").write_text(
        json.dumps({"lexicons": {}, "pairs": pairs}), encoding="utf-8"
    )
    lines = ['name = "tiny"', 'label = "random Cohere2"', 'pivot = "en"',
             f"languages = {json.dumps(LANGUAGES)}", 'corpus = "cldr"', 'probes = "probes.json"',
             'perturbations = "pairs.json"']  # fmt: skip
    for name, table in variants.items():
        lines.append(f"[variants.{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    suite = folder / "tiny.toml"
    suite.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return suite


@pytest.fixture(scope="session")
def tiny_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of four variants of a random tiny Cohere2 on disk."""
    folder = tmp_path_factory.mktemp("tiny")
    for seed, name in enumerate(("base", "global", "fire"), start=1):
        save_tiny(folder / name, seed=seed)
    return write_study(folder, {
        "base": {"path": "base", "role": "base"},
        "global": {"path": "global", "role": "control"},
        "fire": {"path": "fire", "role": "regional", "targets": ["hi"]},
        "untrained": {"path": "base", "role": "untrained"},
    })  # fmt: skip


@pytest.fixture(scope="session")
def tiny_run(tiny_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the tiny suite, made by every stage's ``main``."""
    import pipeline

    run = tmp_path_factory.mktemp("run")
    line = [
        "--suite",
        str(tiny_suite),
        "--run-dir",
        str(run),
        "--limit",
        "40",
        "--device",
        "cpu",
        "--variants",
        "base,global,fire,untrained",
    ]
    assert pipeline.main(line) == 0
    return run
