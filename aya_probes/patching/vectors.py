"""What is put into a prompt: the vectors of a patch and of its controls.

All are made from the residual streams at the concept's word, captured in source prompts. ``donor``
numbers the concept whose vector goes into each prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

Streams = Mapping[str, torch.Tensor]
"""Language -> residual stream ``[concept, layer, hidden]`` of its source prompts."""

SOURCE, MEAN, CENTRED = "source", "mean_sources", "centred"
CONTROLS = ("random", "mean_concepts", "wrong_concept", "same_language", "mismatched_layer")
ALL_SOURCES = "mean"  # in place of a source language


def sources(streams: Streams, own: torch.Tensor, donor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the vectors of each source language, of their mean, and centred, ``[n, layer, h]``.

    ``own [concept, layer, hidden]`` is the stream of the patched prompts themselves. Centred: the
    donor's vector minus the mean of its language, plus the mean of the patched prompts: the concept
    without the language (the mean of the donor's language minus that of the prompts is the language
    vector). Both means leave the donor and the concept asked for out.
    """
    found = {f"{SOURCE}:{code}": stream[donor] for code, stream in streams.items()}
    mean = torch.stack(list(streams.values())).mean(0)
    found[f"{MEAN}:{ALL_SOURCES}"] = mean[donor]
    shift = _mean_of_others(own, donor) - _mean_of_others(mean, donor)
    found[f"{CENTRED}:{ALL_SOURCES}"] = mean[donor] + shift
    return found


def _mean_of_others(stream: torch.Tensor, donor: torch.Tensor) -> torch.Tensor:
    """Return for each prompt the mean over the concepts that are neither asked for nor donated."""
    n = len(stream)
    here = torch.arange(n)
    return (stream.sum(0) - stream[donor] - stream[here]) / (n - 2)


def controls(
    streams: Streams, own: torch.Tensor, donor: torch.Tensor, seed: int
) -> dict[str, torch.Tensor]:
    """Return the control vectors ``[n, layer, hidden]`` for the mean over source languages.

    - random: a random direction with the norm of the patch, one a layer and prompt;
    - mean_concepts: the mean over the concepts that are neither asked for nor donated;
    - wrong_concept: the patch of the donor's donor, scored as if it were the donor's;
    - same_language: the donor's vector of the patched prompts' own language;
    - mismatched_layer: the patch of the layer that lies half the depth away.
    """
    mean = torch.stack(list(streams.values())).mean(0)
    patch = mean[donor]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(patch.shape, generator=generator)
    depth = patch.shape[1] - 1  # layers 0..L
    away = (torch.arange(depth + 1) + depth // 2) % depth
    return {
        "random": noise / noise.norm(dim=-1, keepdim=True) * patch.norm(dim=-1, keepdim=True),
        "mean_concepts": _mean_of_others(mean, donor),
        "wrong_concept": mean[donor[donor]],
        "same_language": own[donor],
        "mismatched_layer": patch[:, away],
    }


def turned(
    mine: torch.Tensor, pivot: torch.Tensor, donor: torch.Tensor, seed: int
) -> dict[str, torch.Tensor]:
    """Return vectors for the last token of sentences in one language, ``[n, layer, hidden]``.

    - language_vector: the sentence's own vector minus (the mean of its language − the mean of the
      pivot's), each over the other concepts;
    - random_direction: the same, with a random direction of the language vector's norm.
    """
    shift = _mean_of_others(pivot, donor) - _mean_of_others(mine, donor)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(shift.shape, generator=generator)
    noise = noise / noise.norm(dim=-1, keepdim=True) * shift.norm(dim=-1, keepdim=True)
    return {
        "language_vector": mine + shift,
        "random_direction": mine + noise,
    }


def sentence(
    mine: torch.Tensor, pivot: torch.Tensor, donor: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return vectors for the last token of the pivot's sentences, ``[n, layer, hidden]``.

    - whole: the donor's sentence in the other language, which carries its concept and its language;
    - mean_centred: the same minus the mean of its language, plus the mean of the pivot.
    """
    shift = _mean_of_others(pivot, donor) - _mean_of_others(mine, donor)
    return {"whole": mine[donor], "mean_centred": mine[donor] + shift}


def stack(named: Mapping[str, torch.Tensor]) -> tuple[Sequence[str], torch.Tensor]:
    """Return the names and ``[n, condition, layer, hidden]``."""
    return list(named), torch.stack(list(named.values()), dim=1)
