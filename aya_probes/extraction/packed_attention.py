"""Attention over several texts in one row of tokens, each text seeing only itself.

The library's own way with packed texts is one mask of all tokens against all tokens: on a CPU that
costs as much as the layer's other work. Here the row is cut at the texts instead, texts of equal
length next to each other go through one call, and that call is the library's own SDPA function, so
grouped heads, scaling and causality are treated as for a text alone. Only a sliding window needs a
mask, and only where it is shorter than the text.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

_NAME = "packed_sdpa"
_REPLACES = "sdpa"
# Arguments that change the scores of a pair of tokens in ways that cutting the row cannot keep.
_UNKNOWN = ("position_bias", "softcap", "s_aux")
_runs: ContextVar[tuple[tuple[int, int], ...]] = ContextVar("runs")  # (texts, tokens each) in order


class CannotCut(Exception):
    """An attention whose result cutting the row at the texts would change."""


def cut(heads: torch.Tensor, start: int, count: int, length: int) -> torch.Tensor:
    """Return ``count`` texts of ``length`` tokens each, ``[text, heads, token, head]``.

    ``heads`` is ``[1, heads, tokens, head]``; the first text begins at token ``start``.
    """
    run = heads[0, :, start : start + count * length]
    return run.unflatten(1, (count, length)).transpose(0, 1)


def refuse_uncuttable(
    module: nn.Module, attention_mask: torch.Tensor | None, kwargs: Mapping[str, Any]
) -> None:
    """Raise CannotCut for an attention that is not computed from queries and keys alone."""
    if attention_mask is not None or any(kwargs.get(name) is not None for name in _UNKNOWN):
        raise CannotCut(f"{type(module).__name__} cannot attend to packed texts")


def _forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend inside each text; ``query``, ``key``, ``value`` are ``[1, heads, tokens, head]``."""
    refuse_uncuttable(module, attention_mask, kwargs)
    parts, start = [], 0
    for count, length in _runs.get():
        windowed = sliding_window is not None and sliding_window < length
        mask = _band(length, int(sliding_window or 0), query.device) if windowed else None
        q, k, v = (cut(heads, start, count, length) for heads in (query, key, value))
        out, _ = sdpa_attention_forward(module, q, k, v, mask, **kwargs)
        parts.append(out.flatten(0, 1))
        start += count * length
    return torch.cat(parts)[None], None


def _band(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Return the causal mask in which a token sees itself and the ``window - 1`` before it."""
    ones = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones.tril() & ones.triu(1 - window)


AttentionInterface.register(_NAME, _forward)


@contextlib.contextmanager
def packed(decoder: nn.Module, lengths: Sequence[int]) -> Iterator[None]:
    """While the context lasts, ``decoder`` attends inside texts of these lengths, in this order.

    A model that does not run the library's SDPA keeps the attention it has: whether that one keeps
    texts apart, by their position ids alone, is for the caller to check.
    """
    runs = tuple((len(list(same)), length) for length, same in itertools.groupby(lengths))
    token = _runs.set(runs)
    try:
        with replaced(decoder, _NAME):
            yield
    finally:
        _runs.reset(token)


@contextlib.contextmanager
def replaced(decoder: nn.Module, name: str) -> Iterator[None]:
    """While the context lasts, ``decoder`` runs the registered attention ``name`` for SDPA."""
    configs = {
        id(module.config): module.config
        for module in decoder.modules()
        if getattr(getattr(module, "config", None), "_attn_implementation", None) == _REPLACES
    }.values()
    try:
        for config in configs:
            config._attn_implementation = name
        yield
    finally:
        for config in configs:
            config._attn_implementation = _REPLACES
