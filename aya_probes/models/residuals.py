"""A loaded model and its residual stream: hooks, one forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from aya_probes.models.structure import block_input, block_output

Reduce = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class LoadedModel:
    """A model ready to run, in evaluation mode, with its tokenizer."""

    decoder: nn.Module
    """The model without its language-model head."""
    causal_lm: nn.Module
    """The whole model."""
    tokenizer: Any
    """Its tokenizer, a fast one."""
    blocks: nn.ModuleList
    """Its L blocks: layer 0 is the input of the first, layer i the output of the i-th."""
    final_norm: nn.Module
    """The norm after the last block."""
    hidden_size: int
    """Width of the residual stream."""
    device: torch.device
    """Where it computes."""
    dtype: torch.dtype
    """Precision of its weights."""

    @property
    def n_blocks(self) -> int:
        """L."""
        return len(self.blocks)

    @property
    def dtype_name(self) -> str:
        """float32 or bfloat16."""
        return str(self.dtype).removeprefix("torch.")


@contextlib.contextmanager
def on_device(loaded: LoadedModel, device: torch.device) -> Iterator[None]:
    """Keep a model on another device while the context lasts."""
    before = loaded.device
    try:
        loaded.causal_lm.to(device)
        loaded.device = device
        yield
    finally:
        loaded.causal_lm.to(before)
        loaded.device = before


@contextlib.contextmanager
def capture(loaded: LoadedModel, reduce: Reduce) -> Iterator[dict[int, torch.Tensor]]:
    """Collect ``reduce(hidden)`` of every layer during forward passes inside the context.

    ``hidden`` is ``[batch, tokens, hidden]``. Keys: 0 is the input of the first block, i the output
    of block i, L + 1 the output of the final norm. Hooks are removed on exit, whatever happens.
    """
    layers: dict[int, torch.Tensor] = {}
    handles = []

    def before_first(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        layers[0] = reduce(block_input(args, kwargs))

    def after(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            layers[layer] = reduce(block_output(output))

        return hook

    try:
        handles.append(loaded.blocks[0].register_forward_pre_hook(before_first, with_kwargs=True))
        for index, block in enumerate(loaded.blocks, start=1):
            handles.append(block.register_forward_hook(after(index)))
        handles.append(loaded.final_norm.register_forward_hook(after(loaded.n_blocks + 1)))
        yield layers
    finally:
        for handle in handles:
            handle.remove()


def forward(
    loaded: LoadedModel,
    input_ids: torch.Tensor,
    *,
    position_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
) -> None:
    """Run the decoder once, without cache and without the language-model head.

    ``position_ids`` that restart at 0 mark packed texts: attention stays inside each. The mask
    must then be None (an all-ones mask would silently join the texts), and the cache off.
    """
    if position_ids is not None and attention_mask is not None:
        raise ValueError("packed texts take no attention mask: it would join them")
    with torch.inference_mode():
        loaded.decoder(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
            use_cache=False,
        )
