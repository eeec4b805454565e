"""Continue prompts greedily, as they are or patched: whether the whole answer is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aya_probes.models.residuals import LoadedModel
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
    answers: dict[int, list[int]] = {}
    for group in engine.groups(prompts):
        length = len(prompts[group[0]].token_ids)
        size = setup.rows(length, length + steps)
        for first in range(0, len(group), size):
            part = group[first : first + size]
            some = [prompts[n] for n in part]
            layers, plan = (), None
            if start is not None:
                loaded = setup.loaded
                vectors = start.vectors[torch.tensor(part)].to(loaded.device, loaded.dtype)
                plan = engine.Plan((start.layer,), start.onward, vectors, some[0].position)
                layers = tuple(engine.targets(plan, start.layer, loaded.n_blocks))
            with torch.inference_mode():
                tokens = _continue(setup, some, steps, plan, layers)
            answers.update(zip(part, tokens.tolist(), strict=True))
    return [answers[n] for n in range(len(prompts))]


def _continue(
    setup: Setup,
    prompts: Sequence[Prompt],
    steps: int,
    plan: engine.Plan | None,
    layers: tuple[int, ...],
) -> torch.Tensor:
    """Return the tokens ``[row, step]`` that follow prompts of one length."""
    loaded = setup.loaded

    def change(layer: int, hidden: torch.Tensor) -> torch.Tensor:
        assert plan is not None
        return engine.put(plan, plan.position, layer, hidden)

    ids = torch.tensor([prompt.token_ids for prompt in prompts], device=loaded.device)
    width, past = ids.shape[1], None
    for _ in range(steps):
        cached = setup.way == "cached"
        if past is not None:
            token, past = _next(loaded, ids[:, -1:], use_cache=True, past_key_values=past)
        else:
            with engine.replaced_inputs(loaded, change, layers):
                token, past = _next(loaded, ids, use_cache=cached)
        past = past if cached else None
        ids = torch.cat([ids, token[:, None]], dim=1)
    return ids[:, width:]


def _next(loaded: LoadedModel, ids: torch.Tensor, **arguments: Any) -> tuple[torch.Tensor, Any]:
    """Return the most probable next token of each row, and the cache."""
    out = loaded.causal_lm(input_ids=ids, logits_to_keep=1, **arguments)
    return out.logits[:, -1].float().argmax(-1), getattr(out, "past_key_values", None)
