"""Models and texts of the extraction benchmark: seeded, random, made offline."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from aya_probes import probes, project, stimuli, suites
from aya_probes.errors import StudyError
from aya_probes.models import embedded, loading
from aya_probes.models.residuals import LoadedModel
from aya_probes.stimuli import Stimulus
from aya_probes.suites import Variant

VOCABULARY = 32_000  # small on purpose: a large one would flatter whoever skips the head
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "A": (
        "llama",
        {
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
        },
    ),
    "B": (
        "cohere2",
        {
            "hidden_size": 2048,
            "intermediate_size": 11_008,
            "num_hidden_layers": 4,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "sliding_window": 4096,
            "logit_scale": 1.0,
        },
    ),
    "tiny": (
        "llama",
        {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
        },
    ),
}
LABELS = {
    "A": "A: Llama shape, hidden 512, 12 layers",
    "B": "B: Tiny Aya shape, hidden 2048/11,008, 4 of its 36 layers",
    "tiny": "tiny: Llama shape, hidden 64, 3 layers",
}


class FoldedTokenizer:
    """The mini suite's tokenizer with its ids folded into a small vocabulary.

    Real texts keep their real lengths and offsets; which token a random model sees is no matter.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, text: str, **options: Any) -> Any:
        """Tokenise ``text``, ids modulo the vocabulary."""
        out = self._tokenizer(text, **options)
        out["input_ids"] = [token % VOCABULARY for token in out["input_ids"]]
        return out

    def __getattr__(self, name: str) -> Any:
        """Take everything else from the tokenizer itself."""
        return getattr(self._tokenizer, name)


@dataclass(frozen=True)
class Subject:
    """A model under test and the variant it stands for."""

    label: str
    loaded: LoadedModel
    variant: Variant
    identity: dict[str, Any]
    tokenizer: Any  # the real one, for peers that want to own it


def build(name: str, tokenizer: Any | None = None) -> Subject:
    """Return a seeded random model of shape ``name`` in float32, on the CPU."""
    kind, sizes = SHAPES[name]
    config = AutoConfig.for_model(
        kind, vocab_size=VOCABULARY, bos_token_id=2, eos_token_id=1, pad_token_id=0, **sizes
    )
    torch.manual_seed(0)
    causal_lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    real = tokenizer or AutoTokenizer.from_pretrained(mini_folder(), local_files_only=True)
    loaded = loading.wrap(causal_lm, FoldedTokenizer(real), torch.device("cpu"), torch.float32)
    variant = Variant(name=name, role="base", path="seeded")
    return Subject(LABELS[name], loaded, variant, {"role": "base", "path": "seeded"}, real)


def load(where: str) -> Subject:
    """Return real weights: ``mini`` or the folder of a model."""
    if where == "mini":
        variant = suites.load_suite("mini").variant("base")
    else:
        variant = Variant(name="model", role="base", path=where)
    source = loading.resolve_source(variant)
    loaded = loading.load_variant(variant, source, device=torch.device("cpu"), dtype=torch.float32)
    label = "mini: Gemma 3 270M, hidden 640, 18 layers" if where == "mini" else "real weights"
    return Subject(label, loaded, variant, source.identity, loaded.tokenizer)


def mini_folder() -> Any:
    """Return the folder of the mini suite's converted weights and tokenizer."""
    variant = suites.load_suite("mini").variant("base")
    if variant.package is None or variant.sha256 is None:
        raise StudyError("suite mini: its base variant names no package")
    return embedded.converted_weights(variant.package, variant.sha256, variant.repo)


def as_dtype(subject: Subject, dtype: torch.dtype) -> Subject:
    """Return a copy of the subject in another precision."""
    loaded = subject.loaded
    causal_lm = copy.deepcopy(loaded.causal_lm).to(dtype)
    wrapped = loading.wrap(causal_lm, loaded.tokenizer, loaded.device, dtype)
    return Subject(subject.label, wrapped, subject.variant, subject.identity, subject.tokenizer)


def twin(causal_lm: nn.Module) -> nn.Module:
    """Return a copy that shares the weights: what a peer rebuilds or hooks stays its own."""
    shared = {id(p): p for p in [*causal_lm.parameters(), *causal_lm.buffers()]}
    return copy.deepcopy(causal_lm, shared)


def _concepts() -> list[probes.Concept]:
    return probes.load_probes(project.ROOT / "data" / "concept_probes.json")


def probe_sentences(count: int) -> list[Stimulus]:
    """Return ``count`` of the committed probe sentences, drawn with a seed, in their order."""
    every = [
        Stimulus(
            f"{c.id}-{language}-{s.wording}", "probe", c.id, s.wording, language, s.text, s.span
        )
        for c in _concepts()
        for language, sentences in c.sentences.items()
        for s in sentences
    ]
    order = np.random.default_rng([project.SEED, 10]).permutation(len(every))
    return [every[n] for n in sorted(order[:count])]


def mixed(count: int) -> list[Stimulus]:
    """Return the three lengths that the study reads, a third each: names, sentences, long ones."""
    return _texts(count, (0, 1, 3))


def long(count: int) -> list[Stimulus]:
    """Return texts as long as a corpus's sentences: two to four probe sentences joined."""
    return _texts(count, (2, 3, 4))


def _texts(count: int, sizes: Sequence[int]) -> list[Stimulus]:
    """Return seeded texts: ``sizes`` sentences of a language joined, 0 = a bare term."""
    draw = np.random.default_rng([project.SEED, 11])
    concepts, texts = _concepts(), []
    for number in range(count):
        size = sizes[number % len(sizes)]
        chosen = draw.choice(len(concepts), size=max(1, size), replace=False)
        languages = sorted(concepts[chosen[0]].sentences)
        language = languages[int(draw.integers(len(languages)))]
        words = [concepts[n].terms[language] for n in chosen]
        sentences = [concepts[n].sentences[language][number % 3].text for n in chosen]
        text = " ".join(sentences if size else words)
        name = f"T{number:04d}"
        texts.append(Stimulus(name, "parallel", name, None, language, text, None))
    order = draw.permutation(count)
    return [texts[n] for n in order]


def manifest(texts: Sequence[Stimulus]) -> stimuli.Manifest:
    """Return a manifest of the texts, under the mini suite's name."""
    suite = suites.load_suite("mini")
    return stimuli.Manifest(suite, {"schema_version": project.SCHEMA_VERSION}, tuple(texts))


def linear_layers(decoder: nn.Module) -> list[nn.Linear]:
    """Return the decoder's matrix products: the least that any way of running it has to do."""
    return [module for module in decoder.modules() if isinstance(module, nn.Linear)]
