"""The ways that people extract hidden states, each to the same pooled vectors as ours.

A way takes a subject and its tokenised texts and hands ``keep(text, vectors)`` the four poolings
of every layer it can see, ``[layer, pooling, hidden]`` float32. What a library needs once, such as
wrapping the model, is done before the clock starts.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from aya_probes.extraction import packs, poolings, runner
from aya_probes.extraction.encoding import Encoded
from models import Subject, twin

Keep = Callable[[int, np.ndarray], None]
Way = Callable[[Sequence[Encoded], Keep], None]
BATCH = 16


class Skip(Exception):
    """A peer that cannot be measured here; the message is the reason."""


def pool(layers: torch.Tensor, item: Encoded) -> np.ndarray:
    """Pool ``[layer, token, hidden]`` to ``[layer, pooling, hidden]``; zero without a span."""
    pooled = []
    for name in poolings.POOLINGS:
        positions = item.positions(name)
        part = layers[:, positions] if positions else torch.zeros_like(layers[:, :1])
        pooled.append(part.float().mean(dim=1))
    return torch.stack(pooled, dim=1).numpy()


def naive(subject: Subject) -> Way:
    """One text at a time through the causal LM with ``output_hidden_states``."""
    return _one_by_one(subject.loaded.causal_lm, subject)


def base_model(subject: Subject) -> Way:
    """The same loop through the decoder: no language-model head."""
    return _one_by_one(subject.loaded.decoder, subject)


def _one_by_one(model: Any, subject: Subject) -> Way:
    def run(texts: Sequence[Encoded], keep: Keep) -> None:
        for number, item in enumerate(texts):
            with torch.inference_mode():
                out = model(torch.tensor([item.token_ids]), output_hidden_states=True)
                keep(number, pool(torch.cat(out.hidden_states), item))

    return run


def padded_batches(subject: Subject) -> Way:
    """Batches of 16 texts as they come, padded with a mask, through the causal LM."""

    def run(texts: Sequence[Encoded], keep: Keep) -> None:
        order = list(range(len(texts)))
        groups = [order[n : n + BATCH] for n in range(0, len(order), BATCH)]
        _run_padded(subject.loaded.causal_lm, texts, groups, keep)

    return run


def sorted_batches(subject: Subject) -> Way:
    """Sorted by length, padded to a token budget (ours), through the decoder."""

    def run(texts: Sequence[Encoded], keep: Keep) -> None:
        lengths = [len(item.token_ids) for item in texts]
        groups = packs.make_packs(lengths, runner.TOKEN_BUDGET["cpu"], packable=False)
        _run_padded(subject.loaded.decoder, texts, groups, keep)

    return run


def _run_padded(
    model: Any, texts: Sequence[Encoded], groups: Sequence[Sequence[int]], keep: Keep
) -> None:
    for group in groups:
        lengths = torch.tensor([len(texts[n].token_ids) for n in group])
        width = int(lengths.max())
        ids = torch.tensor(
            [texts[n].token_ids + [0] * (width - len(texts[n].token_ids)) for n in group]
        )
        mask = (torch.arange(width) < lengths[:, None]).long()
        with torch.inference_mode():
            out = model(ids, attention_mask=mask, output_hidden_states=True)
            for place, number in enumerate(group):
                layers = torch.stack([hidden[place] for hidden in out.hidden_states])
                keep(number, pool(layers, texts[number]))


def nnsight(subject: Subject) -> Way:
    """One trace a text, the input of block 0, every block's output and the norm's saved."""
    if importlib.util.find_spec("nnsight") is None:
        raise Skip("nnsight is not installed: uv sync --group bench")
    import nnsight as library

    model = library.NNsight(twin(subject.loaded.causal_lm))
    blocks, norm = _named(subject)

    def run(texts: Sequence[Encoded], keep: Keep) -> None:
        for number, item in enumerate(texts):
            ids = torch.tensor([item.token_ids])
            with torch.inference_mode():
                with model.trace(input_ids=ids, use_cache=False):
                    seen = library.save([])
                    layers = model.get(blocks)
                    seen.append(layers[0].input)
                    for layer in layers:
                        seen.append(layer.output)
                    seen.append(model.get(norm).output)
                keep(number, pool(torch.cat([_tensor(hidden) for hidden in seen]), item))

    return run


def _named(subject: Subject) -> tuple[str, str]:
    """Return the module paths of the block list and of the final norm."""
    names = {id(module): name for name, module in subject.loaded.causal_lm.named_modules()}
    return names[id(subject.loaded.blocks)], names[id(subject.loaded.final_norm)]


def _tensor(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]


def transformer_lens(subject: Subject) -> Way:
    """``run_with_cache`` a text, only the residual stream and the final norm kept."""
    if importlib.util.find_spec("transformer_lens") is None:
        raise Skip("transformer_lens is not installed: uv sync --group bench")
    from transformer_lens.model_bridge import TransformerBridge

    causal_lm = twin(subject.loaded.causal_lm)
    causal_lm.config.architectures = [type(causal_lm).__name__]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bridge = TransformerBridge.boot_transformers(
                "local",
                hf_model=causal_lm,
                tokenizer=subject.tokenizer,
                device="cpu",
                dtype=subject.loaded.dtype,
            )
    except Exception as error:
        raise Skip(f"TransformerLens does not load it: {str(error).splitlines()[0]}") from None
    depth = subject.loaded.n_blocks
    wanted = [
        "blocks.0.hook_resid_pre",
        *(f"blocks.{n}.hook_resid_post" for n in range(depth)),
        "ln_final.hook_out",
    ]

    def run(texts: Sequence[Encoded], keep: Keep) -> None:
        for number, item in enumerate(texts):
            with torch.inference_mode():
                _, cache = bridge.run_with_cache(
                    torch.tensor([item.token_ids]), names_filter=wanted
                )
                keep(number, pool(torch.cat([cache[name] for name in wanted]), item))

    return run


WAYS: dict[str, tuple[str, Callable[[Subject], Way]]] = {
    "naive": ("naive loop", naive),
    "base": ("base-model loop", base_model),
    "padded": ("batches of 16, padded", padded_batches),
    "sorted": ("sorted batches, padded", sorted_batches),
    "nnsight": ("nnsight", nnsight),
    "transformer_lens": ("TransformerLens", transformer_lens),
}
# What a way's layers are: those that read ``hidden_states`` cannot see layer L before the norm.
SEES_LAYER_L = {"nnsight", "transformer_lens", "ours"}
