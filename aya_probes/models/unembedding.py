"""Next-token logits of any vector of the residual stream, by the model's own head.

A model may scale its logits (Cohere2, Granite), cap them softly (Gemma 2) or add a bias. None of
that is repeated here: the class of the model runs, with its decoder replaced for the moment by one
that returns the given vectors. The same way gives the logits of a few tokens: the head is replaced
for the moment by its rows of these tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from aya_probes.errors import StudyError
from aya_probes.models.residuals import LoadedModel

Head = Callable[[torch.Tensor], torch.Tensor]  # normed vectors [n, hidden] -> logits [n, token]
_PROBE = 6  # tokens of the check
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}  # of logits, relative to their largest


@contextlib.contextmanager
def head(loaded: LoadedModel, tokens: Sequence[int] | None = None) -> Iterator[Head]:
    """Inside the context, give the function from vectors after the final norm to logits (float32).

    With ``tokens``, only these have logits, in this order, at a cost without the rest of the
    vocabulary. The model must not run otherwise in the context; it is restored on exit, whatever
    happens. Raises StudyError for a model without an unembedding.
    """
    model, decoder = loaded.causal_lm, loaded.decoder
    whole = _unembedding(loaded)
    given: list[torch.Tensor] = []

    def instead(*args: Any, **kwargs: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=given[-1])

    def logits(vectors: torch.Tensor) -> torch.Tensor:
        given.append(vectors.to(loaded.dtype)[None])
        ids = torch.zeros(1, len(vectors), dtype=torch.long, device=vectors.device)
        try:
            with torch.inference_mode():
                return model(input_ids=ids, use_cache=False).logits[0].float()
        finally:
            given.clear()

    try:
        if tokens is not None:
            model.set_output_embeddings(_rows(whole, tokens))
        decoder.forward = instead
        yield logits
    finally:
        decoder.__dict__.pop("forward", None)
        if tokens is not None:
            model.set_output_embeddings(whole)


def _unembedding(loaded: LoadedModel) -> nn.Linear:
    found = loaded.causal_lm.get_output_embeddings()
    if not isinstance(found, nn.Linear):
        raise StudyError(
            f"{type(loaded.causal_lm).__name__} has no unembedding (a linear output layer), so its "
            "layers have no next-token distribution; use a causal language model with one"
        )
    return found


def _rows(whole: nn.Linear, tokens: Sequence[int]) -> nn.Linear:
    """Return a linear layer of the chosen rows of an unembedding."""
    chosen = torch.tensor(list(tokens), device=whole.weight.device)
    part = nn.Linear(whole.in_features, len(tokens), bias=whole.bias is not None, device="meta")
    part.weight = nn.Parameter(whole.weight[chosen], requires_grad=False)
    if whole.bias is not None:
        part.bias = nn.Parameter(whole.bias[chosen], requires_grad=False)
    return part


def normed(loaded: LoadedModel, vectors: torch.Tensor) -> torch.Tensor:
    """Return residual vectors ``[n, hidden]`` after the final norm, as the head reads them."""
    with torch.inference_mode():
        out: torch.Tensor = loaded.final_norm(vectors.to(loaded.dtype))
    return out


def check(loaded: LoadedModel) -> None:
    """Raise StudyError if norm and head do not give the model's own logits.

    A decoder can have a step after its final norm; a lens would then read it wrongly.
    """
    size = loaded.decoder.get_input_embeddings().num_embeddings
    ids = torch.arange(_PROBE, device=loaded.device)[None] % size
    seen: list[torch.Tensor] = []
    hook = loaded.final_norm.register_forward_hook(lambda _, __, out: seen.append(out))
    try:
        with torch.inference_mode():
            wanted = loaded.causal_lm(input_ids=ids, use_cache=False).logits[0].float()
    finally:
        hook.remove()
    with head(loaded) as read:
        found = read(seen[-1].reshape(-1, seen[-1].shape[-1]))
    error = float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
    if not error <= TOLERANCE[loaded.dtype_name]:
        raise StudyError(
            f"{type(loaded.causal_lm).__name__}: its logits are not those of its final norm and "
            f"unembedding (relative deviation {error:.2g}); the logit lens cannot read this model"
        )
