"""Run prompts with the residual stream replaced at one position (activation patching, ADR-018).

Layer l (0 .. L − 1) is the input of block l + 1. A patch at layer l puts a vector there at one
position of the prompt; ``onward`` puts the source's vectors at all layers from l on (Dumas et al.
2411.08745, whose own experiment this is), otherwise at layer l only.

Three ways give the same numbers. ``cached`` computes only what a patch can change: keys and values
of the tokens before the position are kept from the unpatched run, as are the inputs of the blocks
below layer l, which are then skipped. ``whole`` runs whole prompts, many at once, and ``alone`` one
by one. ``self_check`` finds out which of them a model can take.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from aya_probes.models import residuals
from aya_probes.models.residuals import LoadedModel
from aya_probes.models.structure import block_input

Way = Literal["cached", "whole", "alone"]
WAYS: tuple[Way, ...] = ("cached", "whole", "alone")
Read = Callable[[torch.Tensor], torch.Tensor]
"""Reduces the logits ``[row, vocabulary]`` of the next token to what is kept, ``[row, ...]``."""
TOKEN_BUDGET = {"cpu": 512, "mps": 2048, "cuda": 8192}  # tokens computed at once
KEPT_TOKENS = 16  # tokens whose keys and values are held, per token computed
KEPT_PREFIXES = 4


@dataclass(frozen=True)
class Prompt:
    """A tokenised prompt and the position at which it is patched."""

    token_ids: tuple[int, ...]
    """Its tokens, special ones included."""
    position: int
    """Where the residual stream is read or replaced, such as the last token of a word."""
    shared: int = 0
    """How many of its first tokens other prompts share, such as their shots: run once for all."""

    def __post_init__(self) -> None:
        """Raise ValueError for a position outside of the prompt."""
        if not 0 <= self.position < len(self.token_ids):
            raise ValueError(
                f"position {self.position} is outside of a prompt of {len(self.token_ids)} tokens"
            )


@dataclass(frozen=True)
class Setup:
    """How patched prompts are run."""

    loaded: LoadedModel
    way: Way = "cached"
    token_budget: int | None = None
    """Tokens computed at once, at most; None: ``TOKEN_BUDGET`` of the device."""
    prefixes: dict[tuple[int, ...], Any] = field(default_factory=dict, compare=False, repr=False)
    """Keys and values of the latest shared tokens, by these tokens."""

    def shared(self, prompt: Prompt) -> int:
        """Return how many first tokens are run once for all prompts that share them."""
        return min(prompt.shared, prompt.position) if self.way == "cached" else 0

    def rows(self, computed: int, held: int) -> int:
        """Return how many rows of so many computed tokens, and held ones, run at once."""
        if self.way == "alone":
            return 1
        budget = self.token_budget or TOKEN_BUDGET[self.loaded.device.type]
        return max(1, min(budget // computed, KEPT_TOKENS * budget // max(1, held)))


def groups(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Return the prompts (by number) that can run together: equal in length, position and in the
    tokens that they share."""
    found: dict[tuple[tuple[int, ...], int, int], list[int]] = {}
    for number, prompt in enumerate(prompts):
        key = (prompt.token_ids[: prompt.shared], len(prompt.token_ids), prompt.position)
        found.setdefault(key, []).append(number)
    return [found[key] for key in sorted(found)]


def capture(setup: Setup, prompts: Sequence[Prompt]) -> torch.Tensor:
    """Return the residual stream at each prompt's position, ``[prompt, layer 0..L, hidden]``.

    float32, on the CPU. The tokens after the position are not run: none of them can be seen there.
    """
    loaded = setup.loaded
    heads = [replace(p, token_ids=p.token_ids[: p.position + 1]) for p in prompts]
    out = torch.empty(len(prompts), loaded.n_blocks + 1, loaded.hidden_size)
    for group in groups(heads):
        for part in _parts(setup, heads, group):
            some = [heads[n] for n in part]
            with residuals.capture(loaded, lambda hidden: hidden[:, -1].float().cpu()) as layers:
                shared = setup.shared(some[0])
                past = shared_past(setup, some[0], len(some))
                layers.clear()  # of the shared tokens
                run_on(loaded.decoder, _ids([p.token_ids[shared:] for p in some], loaded), past)
            stacked = [layers[layer] for layer in range(loaded.n_blocks + 1)]
            out[torch.tensor(part)] = torch.stack(stacked, dim=1)
    return out


def _parts(setup: Setup, prompts: Sequence[Prompt], group: Sequence[int]) -> Iterator[list[int]]:
    """Yield a group in parts that run at once."""
    first = prompts[group[0]]
    length = len(first.token_ids)
    size = setup.rows(length - setup.shared(first), length)
    for start in range(0, len(group), size):
        yield list(group[start : start + size])


def unpatched(setup: Setup, prompts: Sequence[Prompt], read: Read) -> torch.Tensor:
    """Return ``read`` of the next-token logits of prompts as they are, ``[prompt, ...]``."""
    found: dict[int, torch.Tensor] = {}
    for group in groups(prompts):
        for part in _parts(setup, prompts, group):
            some = [prompts[n] for n in part]
            shared = setup.shared(some[0])
            ids = _ids([p.token_ids[shared:] for p in some], setup.loaded)
            past = shared_past(setup, some[0], len(some))
            with torch.inference_mode():
                values = read(_logits(setup.loaded, ids, past))
            found.update(zip(part, values.cpu(), strict=True))
    return torch.stack([found[n] for n in range(len(prompts))])


def patched(
    setup: Setup,
    prompts: Sequence[Prompt],
    vectors: torch.Tensor,
    read: Read,
    *,
    layers: Sequence[int],
    onward: bool,
) -> torch.Tensor:
    """Return ``read`` of the next-token logits after each patch, ``[prompt, condition, l, ...]``.

    ``vectors [prompt, condition, layer, hidden]`` holds what is put in, for layers 0 .. L − 1 (more
    are ignored); l runs over ``layers``. Raises ValueError for other shapes and layers.
    """
    loaded = setup.loaded
    if vectors.shape[0] != len(prompts) or vectors.shape[2] < loaded.n_blocks:
        raise ValueError(
            f"vectors {list(vectors.shape)} do not fit {len(prompts)} prompts and "
            f"{loaded.n_blocks} layers"
        )
    if wrong := [layer for layer in layers if not 0 <= layer < loaded.n_blocks]:
        raise ValueError(f"layer {wrong[0]} is not one of 0..{loaded.n_blocks - 1}")
    cells: dict[tuple[int, int], torch.Tensor] = {}  # (prompt, condition) -> [l, ...]
    run = _cached if setup.way == "cached" else _whole
    for group in groups(prompts):
        first = prompts[group[0]]
        length, position = len(first.token_ids), first.position
        computed = length - position if setup.way == "cached" else length
        pairs = [(n, c) for n in group for c in range(vectors.shape[1])]
        size = setup.rows(computed, length)
        for start in range(0, len(pairs), size):
            part = pairs[start : start + size]
            chosen = torch.stack([vectors[n, c] for n, c in part]).to(loaded.device, loaded.dtype)
            plan = Plan(tuple(layers), onward, chosen, position)
            with torch.inference_mode():
                values = run(setup, [prompts[n] for n, _ in part], plan, read)
            cells.update(zip(part, values.cpu(), strict=True))
    rows = [
        torch.stack([cells[n, c] for c in range(vectors.shape[1])]) for n in range(len(prompts))
    ]
    return torch.stack(rows)


@dataclass(frozen=True)
class Plan:
    """What is put into rows of one length and position."""

    layers: tuple[int, ...]
    """The layers at which a patch starts, one after the other."""
    onward: bool
    """Whether the layers above are replaced too."""
    vectors: torch.Tensor
    """``[row, layer, hidden]``, on the device of the model, in its precision."""
    position: int
    """The position of the prompts that is replaced."""

    def replaces(self, start: int, layer: int) -> bool:
        """Return whether a patch that starts at layer ``start`` replaces ``layer``."""
        return layer == start or (self.onward and layer > start)


def _ids(token_ids: Sequence[Sequence[int]], loaded: LoadedModel) -> torch.Tensor:
    return torch.tensor([list(ids) for ids in token_ids], device=loaded.device)


def shared_past(setup: Setup, prompt: Prompt, rows: int) -> Any:
    """Return the keys and values of the shared tokens for so many rows; None if there are none."""
    shared = setup.shared(prompt)
    if not shared:
        return None
    key = prompt.token_ids[:shared]
    if key not in setup.prefixes:
        while len(setup.prefixes) >= KEPT_PREFIXES:
            setup.prefixes.pop(next(iter(setup.prefixes)))
        setup.prefixes[key] = run_on(
            setup.loaded.decoder, _ids([key], setup.loaded), None, use_cache=True
        ).past_key_values
    past = copy.deepcopy(setup.prefixes[key])
    if rows > 1:
        past.batch_repeat_interleave(rows)
    return past


def run_on(model: nn.Module, ids: torch.Tensor, past: Any, **arguments: Any) -> Any:
    """Run a model on ``ids``, which follow the tokens of ``past``; these grow by ``ids``."""
    if past is not None:
        start = past.get_seq_length()
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)[None]
        arguments |= {"position_ids": positions.expand(len(ids), -1), "past_key_values": past}
    arguments = {"use_cache": past is not None, **arguments}
    with torch.inference_mode():
        return model(input_ids=ids, **arguments)


def _logits(loaded: LoadedModel, ids: torch.Tensor, past: Any = None) -> torch.Tensor:
    """Return the logits of the next token ``[row, vocabulary]``, float32."""
    return run_on(loaded.causal_lm, ids, past, logits_to_keep=1).logits[:, -1].float()


@contextlib.contextmanager
def replaced_inputs(
    loaded: LoadedModel, change: Callable[[int, torch.Tensor], torch.Tensor], layers: Sequence[int]
) -> Iterator[None]:
    """Call ``change(layer, hidden)`` on the input of blocks, and go on with what it returns.

    ``hidden`` is ``[row, token, hidden]``. Hooks are removed on exit, whatever happens.
    """
    handles = []

    def before(layer: int) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            hidden = change(layer, block_input(args, kwargs))
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        return hook

    try:
        for layer in layers:
            block = loaded.blocks[layer]
            handles.append(block.register_forward_pre_hook(before(layer), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def put(plan: Plan, position: int, layer: int, hidden: torch.Tensor) -> torch.Tensor:
    """Return ``hidden`` with the plan's vectors of ``layer`` at ``position``."""
    changed = hidden.clone()
    changed[:, position] = plan.vectors[:, layer]
    return changed


def targets(plan: Plan, start: int, n_blocks: int) -> list[int]:
    """Return the layers that a patch starting at layer ``start`` replaces."""
    return [layer for layer in range(n_blocks) if plan.replaces(start, layer)]


def _whole(setup: Setup, prompts: Sequence[Prompt], plan: Plan, read: Read) -> torch.Tensor:
    """Run whole prompts once a layer; returns ``[row, l, ...]``."""
    loaded = setup.loaded
    ids = _ids([prompt.token_ids for prompt in prompts], loaded)
    change = functools.partial(put, plan, plan.position)
    found = []
    for start in plan.layers:
        with replaced_inputs(loaded, change, targets(plan, start, loaded.n_blocks)):
            found.append(read(_logits(loaded, ids)))
    return torch.stack(found, dim=1)


# --- only what a patch can change -------------------------------------------------------------


@dataclass(frozen=True)
class _Unpatched:
    """What the unpatched run of some rows leaves for the patched ones."""

    past: Any
    """Keys and values of the tokens before the position; None if there are none."""
    inputs: list[torch.Tensor]
    """Input of every block from the position on, ``[row, token, hidden]``."""
    returns: list[type]
    """What every block returns: a tensor, or a tuple that begins with one."""


def _cached(setup: Setup, prompts: Sequence[Prompt], plan: Plan, read: Read) -> torch.Tensor:
    """Run the tokens from the position on through the blocks from layer l on."""
    loaded = setup.loaded
    suffix = _ids([prompt.token_ids[plan.position :] for prompt in prompts], loaded)
    before = _run_unpatched(setup, prompts, plan.position)
    found = []
    for start in plan.layers:
        layers = targets(plan, start, loaded.n_blocks)

        def change(layer: int, hidden: torch.Tensor, start: int = start) -> torch.Tensor:
            return put(plan, 0, layer, before.inputs[start] if layer == start else hidden)

        with skipped(loaded, before.returns[:start]), replaced_inputs(loaded, change, layers):
            found.append(read(_logits(loaded, suffix, copy.deepcopy(before.past))))
    return torch.stack(found, dim=1)


def _run_unpatched(setup: Setup, prompts: Sequence[Prompt], position: int) -> _Unpatched:
    """Run each prompt once, whichever of the rows it stands in."""
    loaded, shared = setup.loaded, setup.shared(prompts[0])
    distinct = list(dict.fromkeys(prompt.token_ids for prompt in prompts))
    rows = torch.tensor(
        [distinct.index(prompt.token_ids) for prompt in prompts], device=loaded.device
    )
    past = shared_past(setup, prompts[0], len(distinct))
    if position > shared:
        ids = _ids([ids[shared:position] for ids in distinct], loaded)
        past = run_on(loaded.decoder, ids, past, use_cache=True).past_key_values
    inputs: dict[int, torch.Tensor] = {}
    returns: dict[int, type] = {}

    def keep(layer: int, hidden: torch.Tensor) -> torch.Tensor:
        inputs[layer] = hidden[rows]
        return hidden

    def note(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            returns[layer] = type(output)

        return hook

    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced_inputs(loaded, keep, range(loaded.n_blocks)))
        for layer, block in enumerate(loaded.blocks):
            stack.callback(block.register_forward_hook(note(layer)).remove)
        suffix = _ids([ids[position:] for ids in distinct], loaded)
        _logits(loaded, suffix, copy.deepcopy(past))
    if past is not None:
        past.batch_select_indices(rows)
    layers = range(loaded.n_blocks)
    return _Unpatched(past, [inputs[n] for n in layers], [returns[n] for n in layers])


@contextlib.contextmanager
def skipped(loaded: LoadedModel, returns: Sequence[type]) -> Iterator[None]:
    """Let the first blocks hand on what they are given, as ``returns`` says: nothing is computed.

    The blocks are as they were on exit, whatever happens.
    """
    blocks = list(loaded.blocks)[: len(returns)]

    def hand_on(kind: type) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden = block_input(args, kwargs)
            return (hidden, None, None) if kind is tuple else hidden

        return forward

    own = [block.__dict__.get("forward") for block in blocks]  # of this instance, mostly none
    try:
        for block, kind in zip(blocks, returns, strict=True):
            block.__dict__["forward"] = hand_on(kind)
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            block.__dict__.pop("forward", None)
            if forward is not None:
                block.__dict__["forward"] = forward
