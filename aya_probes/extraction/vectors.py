"""Residual-stream vectors of a few texts, in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aya_probes import errors
from aya_probes.extraction import packs
from aya_probes.extraction.encoding import Encoded, check_fits, encode_text
from aya_probes.extraction.poolings import BY_NAME, POOLINGS
from aya_probes.models.residuals import LoadedModel


def encode_texts(
    loaded: LoadedModel, texts: Sequence[str], spans: Sequence[tuple[int, int]] | None = None
) -> list[Encoded]:
    """Tokenise texts; ``spans`` holds the ``(first, end)`` characters of each one's concept.

    Raises StudyError, naming the text by its number from 0, where the model cannot read it.
    """
    chosen = spans if spans is not None else [None] * len(texts)
    encoded = [
        encode_text(loaded.tokenizer, text, span, f"text {number}")
        for number, (text, span) in enumerate(zip(texts, chosen, strict=True))
    ]
    for item in encoded:
        check_fits(loaded, item)
    return encoded


def residual_vectors(
    model: LoadedModel,
    texts: Sequence[str],
    *,
    pooling: str = "content_mean",
    spans: Sequence[tuple[int, int]] | None = None,
) -> np.ndarray:
    """Return the residual stream of each text, ``[text, layer, hidden]`` float32, layers 0 .. L.

    Layer 0 is the input of the first block and layer i the output of block i, before the final
    norm. ``pooling`` names the tokens that are averaged: ``content_mean`` (all but special tokens
    and closing punctuation), ``last_content`` (the last of those), ``last`` (the last token that is
    not special) or ``span_mean`` (the tokens of a word, which then needs ``spans``: the characters
    ``(first, end)`` of the word in each text). Each text runs alone: nothing depends on the others.

    Raises ValueError for an unknown pooling, ``span_mean`` without spans, a single string, or no
    texts; StudyError for a text that the model cannot read and for NaN or infinity.
    """
    if pooling not in POOLINGS:
        raise ValueError(errors.unknown("pooling", pooling, POOLINGS))
    if isinstance(texts, str) or not texts:
        raise ValueError("texts: want a list of at least one text")
    if BY_NAME[pooling].needs_span and spans is None:
        raise ValueError(f"pooling {pooling} needs spans: the (first, end) characters of each word")
    encoded = encode_texts(model, texts, spans)
    pooled = packs.one_by_one(model, encoded, "model")  # [layer, text, pooling, hidden]
    layers = pooled[: model.n_blocks + 1, :, POOLINGS.index(pooling)]
    return np.ascontiguousarray(layers.swapaxes(0, 1))
