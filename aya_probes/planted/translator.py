"""A small Cohere2 that translates French words into Swahili, by a way that is known.

As in ``planted.model``, attention writes nothing and a token per word carries everything; a prompt
ends with the French word. Blocks are counted from 1, like layers. Block ``share`` writes what
stands in the middle, and block ``release`` takes it out and writes the Swahili word:

``pivot``     the English word's own direction, so that English is said on the way;
``abstract``  a direction of the concept that is no word's, so that no language is said;
``direct``    nothing: block ``release`` goes from the French word to the Swahili one.

A Swahili word is followed by a full stop, which ends an answer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from aya_probes.planted.model import (
    concept_word,
    directions,
    silent,
    word_tokenizer,
    write_values,
)

Way = Literal["pivot", "abstract", "direct"]
LANGUAGES = ("en", "fr", "sw", "yo")
CONCEPTS = 16
BLOCKS = 8
MIDDLE, ANSWER = 3.0, 4.0  # lengths of what is written, beside a token vector of length 1
STOP = "."


def vocabulary() -> dict[str, int]:
    """Return every word's token id, specials first."""
    words = [concept_word(code, c) for code in LANGUAGES for c in range(CONCEPTS)]
    return {word: n for n, word in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", STOP, *words])}


def model(way: Way, share: int, release: int, seed: int = 0) -> Any:
    """Return the planted Cohere2."""
    words, rng = vocabulary(), np.random.default_rng(seed)
    tokens, concepts = directions(rng, len(words)), directions(rng, CONCEPTS)
    planted = silent(tokens, BLOCKS, 4 * CONCEPTS, logit_scale=0.5, seed=seed)
    english, french, swahili = (
        tokens[[words[concept_word(code, c)] for c in range(CONCEPTS)]]
        for code in ("en", "fr", "sw")
    )
    middle = {"pivot": english, "abstract": concepts, "direct": None}[way]
    decoder = planted.get_decoder()
    with torch.no_grad():
        stop = tokens[words[STOP]].repeat(CONCEPTS, 1)
        write_values(decoder.layers[0].mlp, swahili, ANSWER * stop, cosine=1.0)
        last = decoder.layers[release - 1].mlp
        if middle is None:
            write_values(last, french, ANSWER * swahili, cosine=1.0)
        else:
            write_values(decoder.layers[share - 1].mlp, french, MIDDLE * middle, cosine=1.0)
            seen = MIDDLE / float(np.hypot(1, MIDDLE))
            write_values(last, middle, ANSWER * swahili - MIDDLE * middle, cosine=seen)
    return planted


FRAMES = {
    "translation": "{n} {source_language} {target_language} {source} {answer} .",
    "repetition": "{n} {source} {answer} .",
    "cloze": "{sentence} {n} {answer} .",
}


def save_suite(folder: Path, way: Way, share: int, release: int) -> Path:
    """Write model, probes, prompts.toml and suite into ``folder``; returns the suite file."""
    model(way, share, release).save_pretrained(folder / "model")
    word_tokenizer(vocabulary()).save_pretrained(folder / "model")
    concepts = [
        {
            "id": f"C{c:02d}",
            "concept": f"concept {c}",
            "category": "planted",
            "languages": {
                code: {
                    "term": (word := concept_word(code, c)),
                    "sources": ["planted"],
                    "sentences": [{"wording": 1, "text": f"see {word} now", "surface": word}],
                }
                for code in LANGUAGES
            },
        }
        for c in range(CONCEPTS)
    ]
    (folder / "probes.json").write_text(json.dumps({"concepts": concepts}), encoding="utf-8")
    (folder / "pairs.json").write_text('{"lexicons": {}, "pairs": []}', encoding="utf-8")
    names = ", ".join(f'{code} = "language-{code}"' for code in LANGUAGES)
    lines = []
    for code in LANGUAGES:
        lines += [f"[{code}]", f"names = {{ {names} }}"]
        for task, frame in FRAMES.items():
            lines.append(f"{task} = {json.dumps([frame.replace('{n}', n) for n in 'abc'])}")
    (folder / "prompts.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    suite = folder / "translator.toml"
    suite.write_text(
        f'name = "translator"\nlabel = "planted Cohere2"\npivot = "en"\nlanguages = '
        f'{json.dumps(LANGUAGES)}\ncorpus = "cldr"\nprobes = "probes.json"\n'
        'perturbations = "pairs.json"\n[variants.base]\npath = "model"\nrole = "base"\n'
        '[variants.untrained]\npath = "model"\nrole = "untrained"\n',
        encoding="utf-8",
    )
    return suite
