"""A small Llama whose weights translate words, through a concept or from word to word.

A prompt is ``<bos> stem end pair``: a word is two tokens, a stem of its own and an ending of its
language, and the last token names the pair of languages. Every token is a direction of its own.

Attention of block ``gather`` lets the ending read the stem, that of block ``read`` lets the last
token read the ending, and the feed-forward part of the last block writes the answer. In kind
``abstract``, what the ending holds from layer ``gather`` on is the concept's direction, the same in
every language, and the answer is looked up by concept and target language: a vector of another
language, put at the ending from layer ``gather`` up to ``read`` − 1, must move the answer to its
concept. In kind ``direct``, it is a direction of the word, and the answer is looked up by word and
pair of languages: a word of a language that the pair does not name must not move the answer to its
translation. Outside of these layers no vector moves any answer.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from aya_probes.models import loading
from aya_probes.models.residuals import LoadedModel
from aya_probes.patching.engine import Prompt
from aya_probes.planted import tiny

Kind = Literal["abstract", "direct"]
LANGUAGES = ("en", "fr", "sw", "hi")
CONCEPTS = 10
BLOCKS = 6
POSITION = 2  # of the word's last token, its ending
HIDDEN, HEADS = 192, 4
HELD = 3.0  # length of what is read, beside tokens of length √2
ANSWER = 6.0
SHARPNESS = 1.5  # of attention
GATE = 4.0
_MARKS = ("bos", "stem", "end", "pair")

Table = dict[str, torch.Tensor]


def word_token(language: str, concept: int) -> int:
    """Return the token of a word: its stem where it is given, and the whole word as an answer."""
    return 3 + LANGUAGES.index(language) * CONCEPTS + concept


def _end_token(language: str) -> int:
    return word_token(LANGUAGES[-1], CONCEPTS - 1) + 1 + LANGUAGES.index(language)


def _pair_token(source: str, target: str) -> int:
    place = LANGUAGES.index(source) * len(LANGUAGES) + LANGUAGES.index(target)
    return _end_token(LANGUAGES[-1]) + 1 + place


def prompt(source: str, target: str, concept: int) -> Prompt:
    """Return the prompt that asks for a concept's word in ``target``, given that in ``source``."""
    tokens = (2, word_token(source, concept), _end_token(source), _pair_token(source, target))
    return Prompt(tokens, POSITION)


def model(kind: Kind, gather: int, read: int, seed: int = 0) -> LoadedModel:
    """Return the planted model; blocks are counted from 1, like layers, gather < read < BLOCKS."""
    if not 1 <= gather < read < BLOCKS:
        raise ValueError(f"gather {gather} and read {read} must be 1 <= gather < read < {BLOCKS}")
    words = [(code, c) for code in LANGUAGES for c in range(CONCEPTS)]
    pairs = [(a, b) for a in LANGUAGES for b in LANGUAGES]
    lookups = [(a, b, c) for a, b in pairs for c in range(CONCEPTS)]
    config = LlamaConfig(
        vocab_size=_pair_token(LANGUAGES[-1], LANGUAGES[-1]) + 1,
        hidden_size=HIDDEN,
        intermediate_size=len(lookups),
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    torch.manual_seed(seed)
    planted = LlamaForCausalLM(config).requires_grad_(False)
    at = _directions(config.vocab_size, len(words), seed)
    # What a word becomes: its concept's direction, or a direction of its own.
    held = [c if kind == "abstract" else n for n, (_, c) in enumerate(words)]
    for block in planted.model.layers:
        for weight in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj):
            weight.weight.zero_()
        block.self_attn.o_proj.weight.zero_()
        block.mlp.down_proj.weight.zero_()
    stems = at["token"][[word_token(*word) for word in words]]
    marks = dict(zip(_MARKS, at["mark"], strict=True))
    _attend(
        planted.model.layers[gather - 1].self_attn,
        {"end": "stem", "pair": "bos"},
        marks,
        (stems, at["held"][held], 1 / 2**0.5),
    )
    _attend(
        planted.model.layers[read - 1].self_attn,
        {"pair": "end"},
        marks,
        (at["held"], at["moved"], HELD / (2 + HELD**2) ** 0.5),
    )
    by_pair = {p: at["token"][_pair_token(*p)] for p in pairs}
    moved = [held[words.index((a, c))] for a, _, c in lookups]
    if kind == "abstract":  # any pair with the target will do
        by_pair = {p: sum(by_pair[a, p[1]] for a in LANGUAGES) for p in pairs}
        kept = [n for n, (a, _, _) in enumerate(lookups) if a == LANGUAGES[0]]
    else:
        kept = list(range(len(lookups)))
    answers = at["answer"][[words.index((b, c)) for _, b, c in lookups]]
    keys = torch.stack([by_pair[a, b] for a, b, _ in lookups])
    _look_up(planted.model.layers[-1].mlp, at["moved"][moved][kept], keys[kept], answers[kept])
    _write_tokens(planted, at, marks)
    return loading.wrap(planted, tiny.byte_tokenizer(), torch.device("cpu"), torch.float32)


def _directions(tokens: int, words: int, seed: int) -> Table:
    """Return orthonormal directions: of marks, tokens, and what words become on their way."""
    sizes = {"mark": len(_MARKS), "token": tokens, "held": words, "moved": words, "answer": words}
    normal = np.random.default_rng(seed).normal(size=(HIDDEN, HIDDEN))
    basis = torch.tensor(np.linalg.qr(normal)[0].T).float()
    ends = np.cumsum(list(sizes.values()))
    return {
        name: basis[end - size : end] for (name, size), end in zip(sizes.items(), ends, strict=True)
    }


def _write_tokens(planted: Any, at: Table, marks: Table) -> None:
    """Write embeddings (a token's own direction and its mark's) and the head."""
    embedding = at["token"].clone()
    for code in LANGUAGES:
        for concept in range(CONCEPTS):
            embedding[word_token(code, concept)] += marks["stem"]
        embedding[_end_token(code)] += marks["end"]
        for other in LANGUAGES:
            embedding[_pair_token(code, other)] += marks["pair"]
    embedding[2] += marks["bos"]
    planted.model.embed_tokens.weight.copy_(embedding)
    planted.lm_head.weight.zero_()
    first = word_token(LANGUAGES[0], 0)
    planted.lm_head.weight[first : first + len(at["answer"])] = 1.5 * at["answer"]


def _attend(
    attention: Any,
    looks: dict[str, str],
    marks: Table,
    copies: tuple[torch.Tensor, torch.Tensor, float],
) -> None:
    """Make marked tokens look at others with a mark, and write what they find there.

    ``copies`` holds directions, what is written for each, and the cosine that a direction has with
    the residual stream where it is found. Only the first head works, with coordinates that its
    rotary embedding turns least.
    """
    size = HIDDEN // HEADS
    for place, (query, key) in zip((size // 2 - 1, size - 1), looks.items(), strict=False):
        attention.q_proj.weight[place] = SHARPNESS * marks[query]
        attention.k_proj.weight[place] = SHARPNESS * marks[key]
    found, written, cosine = copies
    gain = HELD / (cosine * HIDDEN**0.5)
    attention.v_proj.weight[: len(found)] = found
    attention.o_proj.weight[:, : len(found)] = gain * written.T


def _look_up(mlp: Any, first: torch.Tensor, second: torch.Tensor, values: torch.Tensor) -> None:
    """Make an MLP write values[n] where its input holds both first[n] and second[n]."""
    scale = GATE / HIDDEN**0.5
    length = (2 + HELD**2) ** 0.5
    drive, other = torch.tensor(GATE * HELD / length), GATE / length
    gain = ANSWER / (torch.nn.functional.silu(drive) * drive.new_tensor(other))
    mlp.gate_proj.weight.zero_()
    mlp.up_proj.weight.zero_()
    mlp.gate_proj.weight[: len(first)] = scale * first
    mlp.up_proj.weight[: len(second)] = scale * second
    mlp.down_proj.weight[:, : len(values)] = gain * values.T
