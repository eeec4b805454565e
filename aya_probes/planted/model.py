"""A small Cohere2 whose weights make concepts shared at one block and let them go at another.

Nothing is written into activations: the tokenizer has one token per word, every token has a random
embedding, and attention writes nothing. The feed-forward part of block ``share`` recognises each
concept's token in any language and writes the concept's direction, the same for every language; the
feed-forward part of block ``release`` recognises that direction and takes it out again. Layer i
is the output of block i, so concepts are shared at the layers share .. release − 1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import Cohere2Config, Cohere2ForCausalLM, PreTrainedTokenizerFast

LANGUAGES = ("en", "fr", "sw", "yo")
CONCEPTS = 16
WORDINGS = 2
FILLERS = 4  # words of a sentence besides the concept; never used twice
HIDDEN = 256
BLOCKS = 9
SHARED_LENGTH = 3.0  # of the concept direction, beside a token vector of length 1
GATE = 4.0  # gate and up weights: silu(z) z is about z² for what is recognised, about 0 otherwise


def concept_word(language: str, concept: int) -> str:
    """Return the word of a concept in a language."""
    return f"{language}concept{concept}"


def sentence(language: str, concept: int, wording: int) -> str:
    """Return a sentence: the concept's word between words that no other sentence has."""
    words = [f"{language}filler{concept}x{wording}x{n}" for n in range(FILLERS)]
    return " ".join([*words[:2], concept_word(language, concept), *words[2:]])


def vocabulary() -> dict[str, int]:
    """Return every word's token id, specials first."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>"]
    for language in LANGUAGES:
        for concept in range(CONCEPTS):
            words.append(concept_word(language, concept))
            for wording in range(WORDINGS):
                words += [w for w in sentence(language, concept, wording).split() if "filler" in w]
    return {word: number for number, word in enumerate(words)}


def word_tokenizer(vocabulary: dict[str, int], **settings: str) -> Any:
    """Return a fast tokenizer with one token per word, BOS first."""
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names, **settings)


def silent(tokens: Any, blocks: int, width: int, logit_scale: float, seed: int) -> Any:
    """Return a Cohere2 with these embeddings ``[token, hidden]`` whose blocks write nothing."""
    torch.manual_seed(seed)
    planted = Cohere2ForCausalLM(
        Cohere2Config(
            vocab_size=len(tokens),
            hidden_size=tokens.shape[1],
            num_hidden_layers=blocks,
            intermediate_size=width,
            num_attention_heads=4,
            num_key_value_heads=2,
            logit_scale=logit_scale,
            bos_token_id=2,
            eos_token_id=1,
            pad_token_id=0,
        )
    )
    decoder = planted.get_decoder()
    with torch.no_grad():
        decoder.embed_tokens.weight.copy_(tokens)
        for block in decoder.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return planted


def directions(rng: np.random.Generator, count: int) -> Any:
    """Draw vectors of length 1 ``[count, HIDDEN]``, centred as the norm of a block centres."""
    vectors = rng.normal(size=(count, HIDDEN))
    vectors -= vectors.mean(axis=1, keepdims=True)
    return torch.tensor(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).float()


def model(share: int, release: int, seed: int = 0) -> Any:
    """Return the planted Cohere2; blocks are counted from 1, like layers."""
    words, rng = vocabulary(), np.random.default_rng(seed)
    tokens, concepts = directions(rng, len(words)), directions(rng, CONCEPTS)
    planted = silent(tokens, BLOCKS, len(LANGUAGES) * CONCEPTS, logit_scale=1.0, seed=seed)
    ids = torch.tensor(
        [words[concept_word(code, c)] for code in LANGUAGES for c in range(CONCEPTS)]
    )
    shared = concepts.repeat(len(LANGUAGES), 1)  # the same direction for every language
    decoder = planted.get_decoder()
    with torch.no_grad():
        write_values(decoder.layers[share - 1].mlp, tokens[ids], SHARED_LENGTH * shared, cosine=1.0)
        # By then a token's vector is token + SHARED_LENGTH · concept.
        seen = SHARED_LENGTH / float(np.hypot(1, SHARED_LENGTH))
        write_values(
            decoder.layers[release - 1].mlp, concepts, -SHARED_LENGTH * concepts, cosine=seen
        )
    return planted


def write_values(mlp: Any, keys: Any, values: Any, *, cosine: float) -> None:
    """Make an MLP add values[n] where the direction of its input has ``cosine`` with keys[n]."""
    scale = GATE / HIDDEN**0.5  # a normed input has length √h
    drive = torch.tensor(GATE * cosine)
    gain = torch.nn.functional.silu(drive) * drive
    for weight in (mlp.gate_proj.weight, mlp.up_proj.weight):
        weight.zero_()
        weight[: len(keys)] = scale * keys
    mlp.down_proj.weight[:, : len(values)] = (values / gain).T


def save_suite(folder: Path, share: int, release: int) -> Path:
    """Write model, probes and suite into ``folder``; returns the suite file."""
    model(share, release).save_pretrained(folder / "model")
    word_tokenizer(vocabulary(), padding_side="left").save_pretrained(folder / "model")
    concepts = [
        {
            "id": f"C{c:02d}",
            "concept": f"concept {c}",
            "category": "planted",
            "languages": {
                code: {
                    "term": concept_word(code, c),
                    "sources": ["planted"],
                    "sentences": [
                        {
                            "wording": k + 1,
                            "text": sentence(code, c, k),
                            "surface": f" {concept_word(code, c)} ",
                        }
                        for k in range(WORDINGS)
                    ],
                }
                for code in LANGUAGES
            },
        }
        for c in range(CONCEPTS)
    ]
    (folder / "probes.json").write_text(json.dumps({"concepts": concepts}), encoding="utf-8")
    (folder / "pairs.json").write_text('{"lexicons": {}, "pairs": []}', encoding="utf-8")
    suite = folder / "planted.toml"
    suite.write_text(
        f'name = "planted"\nlabel = "planted Cohere2"\npivot = "en"\nlanguages = '
        f'{json.dumps(LANGUAGES)}\ncorpus = "cldr"\nprobes = "probes.json"\n'
        'perturbations = "pairs.json"\n[variants.base]\npath = "model"\nrole = "base"\n'
        '[variants.untrained]\npath = "model"\nrole = "untrained"\n',
        encoding="utf-8",
    )
    return suite
