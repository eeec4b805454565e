"""Run texts together: packs, pooling, and a check that packing does not change a text's vectors.

Texts are sorted by length and packed without padding into rows of tokens whose position ids restart
at each text; attention is cut at the texts (``packed_attention``). Where a model's attention cannot
be cut, which the start-up self-check finds out, the sorted texts are padded on the right instead;
where padding changes the vectors too, each text runs alone.
Pooling is a sum over few tokens per layer on the device, in float32; one copy to the host a pack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from aya_probes.errors import StudyError
from aya_probes.extraction import packed_attention, poolings
from aya_probes.extraction.encoding import Encoded
from aya_probes.models import loading, residuals
from aya_probes.models.residuals import LoadedModel

Batching = Literal["packed", "padded", "alone"]
SELF_CHECK_TEXTS = 8
# Largest relative deviation of a packed vector from a one-by-one forward.
SELF_CHECK_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
# Devices whose results are compared with the CPU's before they are used, and the smallest cosine of
# a pooled vector there that is let pass.
UNPROVEN_DEVICES = ("mps",)
PARITY_COSINE = {"float32": 0.9999, "bfloat16": 0.999}


def make_packs(lengths: Sequence[int], budget: int, *, packable: bool) -> list[list[int]]:
    """Group texts (by position) into packs of at most ``budget`` tokens, shortest first.

    Sorted texts waste no padding where packs are padded (``packable`` false: the budget then counts
    the padding), and put equal lengths together, which share one attention call.
    """
    packs: list[list[int]] = []
    pack: list[int] = []
    tokens = 0
    for position in sorted(range(len(lengths)), key=lambda p: (lengths[p], p)):
        length = lengths[position]
        after = tokens + length if packable else (len(pack) + 1) * length
        if pack and after > budget:
            packs.append(pack)
            pack, after = [], length
        pack.append(position)
        tokens = after
    return packs + ([pack] if pack else [])


def pool_pack(
    loaded: LoadedModel, pack: Sequence[Encoded], *, packed: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Run texts; returns pooled ``[layer, text, pooling, hidden]`` and absmax ``[layer, text]``.

    The layers are 0 .. L, then the final norm; absmax is the largest absolute value of a text.
    ``packed``: all in one row without padding, attention cut at the texts. Otherwise one text a
    row, padded on the right to the longest. Sums are in float32, in the same order every time.
    Poolings that need a span are zero for a text without one.
    """
    lengths = [len(item.token_ids) for item in pack]
    step = max(lengths)
    starts = [0, *np.cumsum(lengths)[:-1]] if packed else [n * step for n in range(len(pack))]
    bags = [
        [starts[text] + position for position in item.positions(pooling)]
        for text, item in enumerate(pack)
        for pooling in poolings.POOLINGS
    ]
    device = loaded.device
    chosen = torch.tensor([token for bag in bags for token in bag], device=device)
    weights = torch.tensor([1 / len(bag) for bag in bags for _ in bag], device=device)
    first = torch.tensor([0, *np.cumsum([len(bag) for bag in bags])[:-1]], device=device)
    width = sum(lengths) if packed else len(pack) * step
    owner = torch.full((width,), len(pack))  # padding belongs to a text that is not there
    for text, length in enumerate(lengths):
        owner[starts[text] : starts[text] + length] = text
    owner = owner.to(device)

    def reduce(hidden: torch.Tensor) -> torch.Tensor:
        tokens = hidden.reshape(-1, hidden.shape[-1]).float()
        largest = torch.zeros(len(pack) + 1, device=device)
        extreme = torch.maximum(tokens.amax(-1), -tokens.amin(-1))
        largest.scatter_reduce_(0, owner, extreme, "amax")
        pooled = torch.nn.functional.embedding_bag(
            chosen, tokens, first, mode="sum", per_sample_weights=weights
        )
        return torch.cat([pooled.reshape(len(pack), -1), largest[:-1, None]], dim=1)

    with residuals.capture(loaded, reduce) as layers:
        (_forward_packed if packed else _forward_padded)(loaded, pack)
    if len(layers) != loaded.n_blocks + 2:  # never seen: each block ran once when it was found
        raise StudyError(
            f"{type(loaded.causal_lm).__name__}: {len(layers)} of {loaded.n_blocks + 2} layers "
            "ran; this architecture is not supported (docs/models.md)"
        )
    out = torch.stack([layers[layer] for layer in sorted(layers)]).cpu().numpy()
    pooled = out[..., :-1].reshape(len(layers), len(pack), len(poolings.POOLINGS), -1)
    return pooled, out[..., -1]


def _forward_packed(loaded: LoadedModel, pack: Sequence[Encoded]) -> None:
    ids = torch.tensor([[token for item in pack for token in item.token_ids]])
    lengths = [len(item.token_ids) for item in pack]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    with packed_attention.packed(loaded.decoder, lengths):
        residuals.forward(loaded, ids.to(loaded.device), position_ids=positions.to(loaded.device))


def _forward_padded(loaded: LoadedModel, pack: Sequence[Encoded]) -> None:
    lengths = torch.tensor([len(item.token_ids) for item in pack])
    step = int(lengths.max())
    # Token 0 stands in the padding: no real token sees it, and no pooling counts it.
    ids = torch.tensor([item.token_ids + [0] * (step - len(item.token_ids)) for item in pack])
    mask = (torch.arange(step) < lengths[:, None]).long().to(loaded.device)
    residuals.forward(loaded, ids.to(loaded.device), attention_mask=None if mask.all() else mask)


def finite_pool(
    loaded: LoadedModel, pack: Sequence[Encoded], variant: str, *, packed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Run ``pool_pack``; raises StudyError naming variant, stimulus and layer on NaN or infinity.

    A bad text can spoil those that run with it (attention multiplies what it masks by 0, and
    0 x NaN is NaN). What fails is therefore run again text by text, to name the cause.
    """
    values, largest = pool_pack(loaded, pack, packed=packed)
    bad = np.argwhere((~np.isfinite(values).all(axis=(2, 3)) | ~np.isfinite(largest)).T)
    if not len(bad):
        return values, largest
    if len(pack) > 1:
        for item in pack:
            finite_pool(loaded, [item], variant, packed=False)
    text, layer = bad[0]  # of the first text that fails, its first layer
    label = "final_norm" if layer == loaded.n_blocks + 1 else f"layer {layer}"
    raise StudyError(
        f"variant {variant}: stimulus {pack[text].stimulus_id}: {label} holds NaN or "
        "infinity; try --dtype float32, or check the model's weights"
    )


def one_by_one(loaded: LoadedModel, texts: Sequence[Encoded], variant: str) -> np.ndarray:
    """Run each text alone, through the library's own attention; returns pooled vectors.

    Raises StudyError, naming the place, if a forward gives NaN or infinity.
    """
    single = [finite_pool(loaded, [text], variant, packed=False)[0] for text in texts]
    return np.concatenate(single, axis=1)


def self_check(
    loaded: LoadedModel, texts: Sequence[Encoded], alone: np.ndarray, variant: str, *, packed: bool
) -> float:
    """Return the largest relative deviation of texts run together from ``one_by_one``'s result."""
    return _deviation(finite_pool(loaded, texts, variant, packed=packed)[0], alone)


def _deviation(together: np.ndarray, alone: np.ndarray) -> float:
    scale = np.linalg.norm(alone, axis=-1) + 1e-12
    return float((np.linalg.norm(together - alone, axis=-1) / scale * (scale > 1e-6)).max())


def _mixed_lengths(encoded: Sequence[Encoded]) -> list[Encoded]:
    """Return a few texts spread over the lengths that occur, the longest among them."""
    ordered = sorted(encoded, key=lambda item: (len(item.token_ids), item.stimulus_id))
    chosen = np.linspace(0, len(ordered) - 1, min(SELF_CHECK_TEXTS, len(ordered)))
    return [ordered[round(position)] for position in chosen]


def choose_batching(loaded: LoadedModel, encoded: Sequence[Encoded], variant: str) -> Batching:
    """Return the fastest way to run texts together that gives the vectors that they have alone.

    ``packed`` where attention can be cut at the texts, else ``padded``; ``alone`` where padding
    changes the vectors too. Raises StudyError, naming the place, if a text alone gives NaN.
    """
    tolerance = SELF_CHECK_TOLERANCE[loaded.dtype_name]
    texts = _mixed_lengths(encoded)
    alone = one_by_one(loaded, texts, variant)
    ways: tuple[Batching, ...] = ("packed", "padded")
    for way in ways:
        try:
            deviation = self_check(loaded, texts, alone, variant, packed=way == "packed")
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # a model may take neither position ids nor a mask
            if loading.is_out_of_memory(error):
                raise
            continue
        if deviation <= tolerance:
            return way
    again = one_by_one(loaded, texts, variant)
    if not _deviation(again, alone) <= tolerance:
        raise StudyError(
            f"variant {variant}: self-check failed: the same text gives other vectors the second "
            f"time (relative deviation {_deviation(again, alone):.2g}, at most {tolerance:g}): "
            "this model is not deterministic"
        )
    return "alone"


def check_device(loaded: LoadedModel, encoded: Sequence[Encoded]) -> str:
    """Compare an unproven device with the CPU on a few texts; returns a note for the user.

    Raises StudyError if a pooled vector differs.
    """
    kind = loaded.device.type
    if kind not in UNPROVEN_DEVICES:
        return ""
    texts = _mixed_lengths(encoded)
    there = np.concatenate([pool_pack(loaded, [text])[0] for text in texts], axis=1)
    with residuals.on_device(loaded, torch.device("cpu")):
        here = np.concatenate([pool_pack(loaded, [text])[0] for text in texts], axis=1)
    norms = np.linalg.norm(there, axis=-1) * np.linalg.norm(here, axis=-1)
    cosine = float(((there * here).sum(-1) / np.where(norms > 0, norms, 1))[norms > 0].min())
    if not cosine >= PARITY_COSINE[loaded.dtype_name]:
        raise StudyError(
            f"--device {kind}: its vectors differ from the CPU's (smallest cosine {cosine:.6f}); "
            "use --device cpu"
        )
    return f", same as the CPU (cosine {cosine:.6f})"
