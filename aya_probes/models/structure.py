"""Find the decoder, its blocks and its final norm by what runs, not by name or order.

One forward pass over six tokens shows which modules run, how often, in which order and with what
shape. What does not fit is refused with the module's name: a guess would store wrong vectors
without an error (ADR 014).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from aya_probes import errors
from aya_probes.errors import StudyError

PROBE_SHAPE = (2, 3)  # texts and tokens of the probe forward
_DEPTHS = ["num_hidden_layers", "num_layers"]  # keys of a configuration that may count its blocks


@dataclass(frozen=True)
class Structure:
    """Where the residual stream of a causal language model is read."""

    decoder: nn.Module
    """The model without its language-model head."""
    blocks: nn.ModuleList
    """Its L blocks, in the order in which they run."""
    final_norm: nn.Module
    """The norm that runs after the last block."""
    hidden_size: int
    """Width of the residual stream."""


@dataclass
class _Trace:
    """What one forward pass ran."""

    ends: dict[nn.Module, list[int]] = field(default_factory=dict)
    """Module -> when it returned, counted over all modules."""
    inputs: dict[nn.Module, tuple[int, ...] | None] = field(default_factory=dict)
    """Module -> shape of its first input."""
    outputs: dict[nn.Module, tuple[int, ...] | None] = field(default_factory=dict)
    """Module -> shape of its output."""


def block_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the hidden states that a block is called with; None if it is called with none."""
    return args[0] if args else kwargs.get("hidden_states")


def block_output(output: Any) -> Any:
    """Return the hidden states among what a block returns."""
    return output if isinstance(output, torch.Tensor) or not output else output[0]


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


@contextlib.contextmanager
def _tracing(model: nn.Module) -> Iterator[_Trace]:
    trace, clock, handles = _Trace(), iter(range(1 << 30)), []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        trace.inputs[module] = _shape(block_input(args, kwargs))

    def after(module: nn.Module, args: Any, output: Any) -> None:
        trace.ends.setdefault(module, []).append(next(clock))
        trace.outputs[module] = _shape(block_output(output))

    try:
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
        yield trace
    finally:
        for handle in handles:
            handle.remove()


def find_decoder(causal_lm: nn.Module) -> nn.Module:
    """Return the model without its head; some classes call the head itself their decoder."""
    for candidate in (causal_lm.get_decoder(), getattr(causal_lm, "base_model", None)):
        if isinstance(candidate, nn.Module) and hasattr(candidate, "config"):
            return candidate
    raise _refused(causal_lm, "has no decoder with a configuration")


def find_structure(causal_lm: nn.Module) -> Structure:
    """Return decoder, blocks and final norm of a causal language model in evaluation mode.

    The blocks are the outermost ModuleList that runs, of as many modules as the configuration has
    layers. Each must run once, in order, and map ``[text, token, hidden]`` to the same shape, where
    hidden is the configuration's hidden size. The final norm is the last norm that runs after the
    last block, outside of all blocks, with that shape. Raises StudyError, naming the module that
    does not fit.
    """
    decoder = find_decoder(causal_lm)
    device = next(decoder.parameters()).device
    ids = torch.arange(6, device=device).reshape(PROBE_SHAPE)
    try:
        with _tracing(decoder) as trace, torch.inference_mode():
            decoder(input_ids=ids, use_cache=False)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # a model may raise anything
        reason = f"does not run on {PROBE_SHAPE[1]} tokens ({errors.summarise(error)})"
        raise _refused(causal_lm, reason) from None
    blocks = _find_list(causal_lm, decoder, trace)
    names = {module: name for name, module in decoder.named_modules()}
    hidden_size = _check_blocks(causal_lm, blocks, names, trace)
    return Structure(decoder, blocks, _find_norm(causal_lm, blocks, names, trace), hidden_size)


def _find_list(causal_lm: nn.Module, decoder: nn.Module, trace: _Trace) -> nn.ModuleList:
    config = decoder.config
    # In an encoder-decoder's configuration, num_hidden_layers may count the encoder's blocks; where
    # a block attends twice (LongCat), it counts attention layers, and num_layers the blocks.
    own = [key for key in ("decoder_layers", "num_decoder_layers") if getattr(config, key, None)]
    depths = [depth for key in own or _DEPTHS if (depth := getattr(config, key, None))]
    inner: set[nn.Module] = set()
    found = []
    for module in decoder.modules():  # a parent before its children
        if not isinstance(module, nn.ModuleList) or module in inner:
            continue
        inner.update(child for child in module.modules() if child is not module)
        if len(module) in depths and any(member in trace.ends for member in module):
            found.append(module)
    if len(found) != 1:
        if not depths:
            raise _refused(causal_lm, "has a configuration that does not count its blocks")
        what = "no list" if not found else f"{len(found)} lists"
        raise _refused(causal_lm, f"has {what} of {' or '.join(map(str, depths))} blocks that run")
    return found[0]


def _check_blocks(
    causal_lm: nn.Module, blocks: nn.ModuleList, names: dict[nn.Module, str], trace: _Trace
) -> int:
    """Return the hidden size, after each block was seen to run once, in order, on one stream."""
    wanted, latest = (*PROBE_SHAPE, 0), -1
    for number, block in enumerate(blocks):
        where = f"block {names[block]} ({type(block).__name__})"
        runs = trace.ends.get(block, [])
        before, after = trace.inputs.get(block), trace.outputs.get(block)
        if len(runs) != 1:
            raise _refused(causal_lm, f"{where} runs {len(runs)} times in a forward pass, not once")
        if runs[0] < latest:
            raise _refused(causal_lm, f"{where} runs before the block that is listed before it")
        latest = runs[0]
        if number == 0 and before is not None:
            wanted = (*PROBE_SHAPE, before[-1])
        for side, shape in (("reads", before), ("returns", after)):
            if shape != wanted:
                raise _refused(
                    causal_lm,
                    f"{where} {side} {_named(shape)}, not one stream [text, token, hidden] "
                    f"= {_named(wanted)}",
                )
    said = getattr(causal_lm.config.get_text_config(decoder=True), "hidden_size", None)
    if said not in (None, wanted[-1]):
        where = f"blocks {names[blocks]} carry {wanted[-1]} values a token"
        raise _refused(causal_lm, f"{where}, not one stream of hidden_size {said}")
    return wanted[-1]


def _named(shape: tuple[int, ...] | None) -> str:
    return "no tensor" if shape is None else str(list(shape))


def _find_norm(
    causal_lm: nn.Module, blocks: nn.ModuleList, names: dict[nn.Module, str], trace: _Trace
) -> nn.Module:
    inside = set(blocks.modules())
    wanted, end = trace.outputs[blocks[-1]], trace.ends[blocks[-1]][-1]
    norms = {
        runs[-1]: module
        for module, runs in trace.ends.items()
        if module not in inside
        and "norm" in type(module).__name__.lower()
        and runs[-1] > end
        and trace.outputs[module] == wanted
    }
    if not norms:
        last = f"{names[blocks[-1]]} ({type(blocks[-1]).__name__})"
        raise _refused(causal_lm, f"runs no norm after its last block {last}")
    return norms[max(norms)]  # if it also ran before, capture keeps what it gave last


def _refused(causal_lm: nn.Module, reason: str) -> StudyError:
    return StudyError(
        f"{type(causal_lm).__name__} {reason}; this architecture is not supported (docs/models.md)"
    )
