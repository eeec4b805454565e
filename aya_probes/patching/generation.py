"""Continue prompts greedily, as they are or patched: whether the whole answer is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from aya_probes.patching import engine
from aya_probes.patching.engine import Prompt, Setup


@dataclass(frozen=True)
class Start:
    """Where rows are patched before they are continued."""

    vectors: torch.Tensor
    """``[prompt, layer, hidden]``, for layers 0 .. L − 1."""
    layer: int
    """The layer of the patch."""
    onward: bool
    """Whether the layers above are patched too."""


def continue_greedily(
    setup: Setup, prompts: Sequence[Prompt], steps: int, start: Start | None = None
) -> list[list[int]]:
    """Return the ``steps`` most probable tokens, one after the other, after each prompt.

    ``start`` patches the prompts; what follows them is never patched. The whole prompt is run with
    a cache of its own where the setup is ``cached``, and anew for each token where it is not.
    """
    loaded = setup.loaded
    answers: dict[int, list[int]] = {}
    for group in engine.groups(prompts):
        first = prompts[group[0]]
        length = len(first.token_ids)
        size = setup.rows(length - setup.shared(first), length + steps)
        for begin in range(0, len(group), size):
            part = group[begin : begin + size]
            some = [prompts[n] for n in part]
            plan = None
            if start is not None:
                vectors = start.vectors[torch.tensor(part)].to(loaded.device, loaded.dtype)
                plan = engine.Plan((start.layer,), start.onward, vectors, first.position)
            tokens = _continue(setup, some, steps, plan)
            answers.update(zip(part, tokens.tolist(), strict=True))
    return [answers[n] for n in range(len(prompts))]


def _continue(
    setup: Setup, prompts: Sequence[Prompt], steps: int, plan: engine.Plan | None
) -> torch.Tensor:
    """Return the tokens ``[row, step]`` that follow prompts of one length."""
    loaded, shared = setup.loaded, setup.shared(prompts[0])
    layers = () if plan is None else engine.targets(plan, plan.layers[0], loaded.n_blocks)

    def change(layer: int, hidden: torch.Tensor) -> torch.Tensor:
        assert plan is not None
        return engine.put(plan, plan.position - shared, layer, hidden)

    ids = torch.tensor([prompt.token_ids for prompt in prompts], device=loaded.device)
    width, cached = ids.shape[1], setup.way == "cached"
    past, unread = engine.shared_past(setup, prompts[0], len(prompts)), ids[:, shared:]
    for step in range(steps):
        with engine.replaced_inputs(loaded, change, () if cached and step else layers):
            out = engine.run_on(loaded.causal_lm, unread, past, logits_to_keep=1, use_cache=cached)
        token = out.logits[:, -1].float().argmax(-1)[:, None]
        ids = torch.cat([ids, token], dim=1)
        past, unread = (out.past_key_values, token) if cached else (None, ids)
    return ids[:, width:]
