"""Tiny random models, a byte tokenizer, and a study of five concepts in three languages.

Tests and benchmarks run whole stages on them in seconds, without downloads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

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
VOCABULARY = 259  # three special tokens and every byte
_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TINY: dict[str, dict[str, Any]] = {  # the settings of each architecture's configuration
    "cohere2": {**_LLAMA, "sliding_window": 8, "logit_scale": 1.0},
    "gemma3_text": {**_LLAMA, "sliding_window": 8, "head_dim": 8},
    "llama": _LLAMA,
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256},
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level fast tokenizer that prepends BOS and pads left, like Cohere's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2}
    vocabulary |= {symbol: n for n, symbol in enumerate(alphabet, start=3)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, padding_side="left", **names)


def tiny_model(kind: str, seed: int) -> nn.Module:
    """Return a random causal LM of architecture ``kind`` (a key of TINY): 4 blocks, width 32."""
    special = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    config = AutoConfig.for_model(kind, vocab_size=VOCABULARY, **special, **TINY[kind])
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)


def save_tiny(folder: Path, kind: str = "cohere2", seed: int = 0) -> Path:
    """Save a tiny model and its tokenizer as a local model folder."""
    tiny_model(kind, seed).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def write_study(folder: Path, variants: Mapping[str, Mapping[str, object]]) -> Path:
    """Write probes, perturbations and a suite of 5 concepts x 3 languages; returns its path.

    ``variants`` holds each variant's table of the suite file by name.
    """
    concepts = [
        {
            "id": f"C{number:02d}",
            "concept": concept,
            "category": "organ",
            "languages": {
                code: {"term": term, "sources": ["test"], "sentences": _sentences(code, term)}
                for code, term in zip(LANGUAGES, terms, strict=True)
            },
        }
        for number, (concept, terms) in enumerate(TERMS.items(), start=1)
    ]
    pairs = [_perturbation(f"C{n:02d}", hindi) for n, (_, hindi, _) in enumerate(TERMS.values(), 1)]
    settings: dict[str, object] = {
        "name": "tiny",
        "label": "random Cohere2",
        "pivot": "en",
        "languages": LANGUAGES,
        "corpus": "cldr",
        "probes": "probes.json",
        "perturbations": "pairs.json",
    }
    lines = _toml(settings)
    for name, table in variants.items():
        lines += [f"[variants.{name}]", *_toml(table)]
    (folder / "probes.json").write_text(json.dumps({"concepts": concepts}), encoding="utf-8")
    (folder / "pairs.json").write_text(
        json.dumps({"lexicons": {}, "pairs": pairs}), encoding="utf-8"
    )
    suite = folder / "tiny.toml"
    suite.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return suite


def _sentences(code: str, term: str) -> list[dict[str, object]]:
    return [
        {"wording": wording, "text": frame.format(term), "surface": term}
        for wording, frame in enumerate(SENTENCES[code], start=1)
    ]


def _perturbation(concept: str, term: str) -> dict[str, object]:
    """Return the pair of a Hindi probe that differs from it by a zero-width space."""
    parent = SENTENCES["hi"][0].format(term)
    return {
        "id": f"UNICODE_EDGE-{concept}-hi",
        "category": "UNICODE_EDGE",
        "subtype": "zwsp",
        "language": "hi",
        "tag": "hi",
        "concept_id": concept,
        "wording": 1,
        "change": "zero-width space",
        "parent": parent,
        "text": f"\u200b{parent}",
    }


def _toml(table: Mapping[str, object]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]
