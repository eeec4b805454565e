"""Attention over trees: continuations that share a prefix, and several trees in one row of tokens.

A tree is a prefix and its branches. A token of the prefix sees the prefix up to itself. A token of
a branch sees the whole prefix and its own branch up to itself. The prefix is thus computed once for
all branches. As in ``extraction.packed_attention``, the row is cut at the trees, and trees of the
same shape next to each other go through one call of the library's own SDPA function.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from aya_probes.extraction import packed_attention

Shape = tuple[int, tuple[int, ...]]  # tokens of the prefix, tokens of each branch

_NAME = "tree_sdpa"
_runs: ContextVar[tuple[tuple[int, Shape], ...]] = ContextVar("tree_runs")


def width(shape: Shape) -> int:
    """Return the number of tokens of a tree."""
    return shape[0] + sum(shape[1])


def position_ids(shape: Shape) -> list[int]:
    """Return the position of each token in its text: every branch goes on where the prefix ends."""
    prefix, branches = shape
    return [*range(prefix), *(prefix + n for length in branches for n in range(length))]


@functools.lru_cache(maxsize=64)
def allowed(shape: Shape, window: int | None) -> torch.Tensor:
    """Return which token (row) sees which (column), ``[token, token]`` of bool.

    With a ``window``, a token sees itself and the ``window - 1`` positions before it.
    """
    prefix, branches = shape
    branch = torch.tensor([0] * prefix + [n for n, m in enumerate(branches, 1) for _ in range(m)])
    order = torch.arange(len(branch))
    position = torch.tensor(position_ids(shape))
    seen = (branch[:, None] == branch[None]) | (branch[None] == 0)
    seen &= order[:, None] >= order[None]
    if window is not None:
        seen &= position[:, None] - position[None] < window
    return seen


def _forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend inside each tree; ``query``, ``key``, ``value`` are ``[1, heads, tokens, head]``."""
    packed_attention.refuse_uncuttable(module, attention_mask, kwargs)
    parts, start = [], 0
    for count, shape in _runs.get():
        length = width(shape)
        mask = allowed(shape, sliding_window).to(query.device)
        q, k, v = (packed_attention.cut(h, start, count, length) for h in (query, key, value))
        out, _ = sdpa_attention_forward(module, q, k, v, mask, **kwargs)
        parts.append(out.flatten(0, 1))
        start += count * length
    return torch.cat(parts)[None], None


AttentionInterface.register(_NAME, _forward)


@contextlib.contextmanager
def packed(decoder: nn.Module, shapes: Sequence[Shape]) -> Iterator[None]:
    """While the context lasts, ``decoder`` attends inside trees of these shapes, in this order.

    A model that does not run the library's SDPA keeps the attention it has, which mixes the
    branches: the caller has to check its result.
    """
    runs = tuple((len(list(same)), shape) for shape, same in itertools.groupby(shapes))
    token = _runs.set(runs)
    try:
        with packed_attention.replaced(decoder, _NAME):
            yield
    finally:
        _runs.reset(token)
