"""What a loaded variant is, and how it reads a text: the records that model_loader.py prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from aya_probes.models import residuals
from aya_probes.models.loading import Identity, Source
from aya_probes.models.residuals import LoadedModel
from aya_probes.suites import Variant


@dataclass(frozen=True)
class Hook:
    """Where one layer of the residual stream is read."""

    layer: str
    """0 .. L, or `final_norm`."""
    module: str
    """Name of the module inside the causal language model."""
    side: str
    """`input` or `output` of that module."""


@dataclass(frozen=True)
class TokenizerFacts:
    """What decides how a text becomes tokens."""

    class_name: str
    """Class of the tokenizer."""
    size: int
    """Number of tokens, special ones included."""
    bos: str | None
    """The token that begins a text, if the tokenizer names one."""
    adds_bos: bool
    """Whether it is put before every text."""
    eos: str | None
    """The token that ends a text, if the tokenizer names one."""
    adds_eos: bool
    """Whether it is put after every text."""
    normaliser: str | None
    """How characters are changed before they are cut into tokens; None: not at all."""
    padding_side: str
    """`left` or `right`. Extraction pads on the right itself, whatever is said here."""
    offsets: bool
    """Whether each token knows its characters; concept tokens cannot be found without."""


@dataclass(frozen=True)
class ModelDescription:
    """One loaded variant."""

    variant: str
    """Name of the variant."""
    identity: Identity
    """What identifies its weights: role, source, commit or sha256, adapter, seed."""
    location: str
    """The folder that the weights were read from."""
    class_name: str
    """Class of the causal language model."""
    layers: int
    """L: the number of blocks. Layer 0 is the input of the first."""
    hidden_size: int
    """Width of the residual stream."""
    dtype: str
    """Precision of weights and computation."""
    device: str
    """cpu, cuda or mps."""
    weight_bytes: int
    """Memory of all parameters, shared ones counted once."""
    hooks: tuple[Hook, ...]
    """Where each layer is read: 0 .. L, then `final_norm`."""
    tokenizer: TokenizerFacts
    """Its tokenizer."""


@dataclass(frozen=True)
class Piece:
    """One token of a text."""

    token_id: int
    """Its number in the vocabulary."""
    token: str
    """How the vocabulary spells it (byte-level vocabularies write bytes as letters)."""
    characters: str
    """The characters of the text that it covers, wholly or in part; empty for special tokens."""


@dataclass(frozen=True)
class TextDescription:
    """How a model reads one text."""

    pieces: tuple[Piece, ...]
    """Its tokens in order."""
    norms: dict[str, float]
    """Layer (0 .. L, `final_norm`) -> mean Euclidean norm over the tokens that are not special."""


def describe_model(variant: Variant, source: Source, loaded: LoadedModel) -> ModelDescription:
    """Return what ``loaded`` is; ``source`` is where it was loaded from."""
    weights = loaded.causal_lm.parameters()
    return ModelDescription(
        variant=variant.name,
        identity=source.identity,
        location=source.location,
        class_name=type(loaded.causal_lm).__name__,
        layers=loaded.n_blocks,
        hidden_size=loaded.hidden_size,
        dtype=loaded.dtype_name,
        device=loaded.device.type,
        weight_bytes=sum(weight.numel() * weight.element_size() for weight in weights),
        hooks=_hooks(loaded),
        tokenizer=_tokenizer_facts(loaded.tokenizer),
    )


def _hooks(loaded: LoadedModel) -> tuple[Hook, ...]:
    names = {module: name for name, module in loaded.causal_lm.named_modules()}
    blocks = [names[block] for block in loaded.blocks]
    return (
        Hook("0", blocks[0], "input"),
        *(Hook(str(layer), name, "output") for layer, name in enumerate(blocks, start=1)),
        Hook("final_norm", names[loaded.final_norm], "output"),
    )


def _tokenizer_facts(tokenizer: Any) -> TokenizerFacts:
    ids = tokenizer("a")["input_ids"]
    normaliser = tokenizer.backend_tokenizer.normalizer if tokenizer.is_fast else None
    return TokenizerFacts(
        class_name=type(tokenizer).__name__,
        size=len(tokenizer),
        bos=tokenizer.bos_token,
        adds_bos=bool(ids) and ids[0] == tokenizer.bos_token_id,
        eos=tokenizer.eos_token,
        adds_eos=bool(ids) and ids[-1] == tokenizer.eos_token_id,
        normaliser=None if normaliser is None else str(normaliser),
        padding_side=tokenizer.padding_side,
        offsets=tokenizer.is_fast,
    )


def describe_text(loaded: LoadedModel, text: str) -> TextDescription:
    """Run one text alone and return its tokens and the norms of its vectors."""
    out = loaded.tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    ids = out["input_ids"]
    tokens = loaded.tokenizer.convert_ids_to_tokens(ids)
    spans = zip(ids, tokens, out["offset_mapping"], strict=True)
    own = torch.tensor([not special for special in out["special_tokens_mask"]])

    def mean_norm(hidden: torch.Tensor) -> torch.Tensor:
        return hidden[0, own.to(hidden.device)].float().norm(dim=-1).mean()

    with residuals.capture(loaded, mean_norm) as norms:
        residuals.forward(loaded, torch.tensor([ids], device=loaded.device))
    labels = [hook.layer for hook in _hooks(loaded)]
    return TextDescription(
        tuple(Piece(token_id, token, text[start:end]) for token_id, token, (start, end) in spans),
        {label: float(norms[index]) for index, label in enumerate(labels)},
    )
