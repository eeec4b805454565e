"""Tokens of a stimulus, and the positions among them that each pooling averages."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from aya_probes.errors import StudyError
from aya_probes.stimuli import Stimulus

MAX_TOKENS = 2048  # a stimulus is a sentence, not a document


@dataclass(frozen=True)
class Encoded:
    """A tokenised stimulus and the token positions that each pooling averages."""

    stimulus_id: str
    token_ids: list[int]
    span: list[int]  # empty where the stimulus has no span
    content: list[int]
    last: int

    def positions(self, pooling: str) -> list[int]:
        """Return the token positions that ``pooling`` averages."""
        if pooling == "span_mean":
            return self.span
        if pooling == "content_mean":
            return self.content
        return [self.content[-1]] if pooling == "last_content" else [self.last]


def sentence_end(text: str) -> int:
    """Return the length of ``text`` without closing punctuation and white space."""
    end = len(text)
    while end and (text[end - 1].isspace() or unicodedata.category(text[end - 1]).startswith("P")):
        end -= 1
    return end or len(text)


def encode(tokenizer: Any, stimulus: Stimulus) -> Encoded:
    """Tokenise a stimulus and find the tokens of each pooling.

    A token belongs to the concept if its characters, trimmed of white space, intersect the surface
    form (fused prefixes and byte pieces count). Content leaves out special tokens and
    sentence-final punctuation. Raises StudyError where a pooling would be empty.
    """
    out = tokenizer(stimulus.text, return_offsets_mapping=True, return_special_tokens_mask=True)
    ids, special = list(out["input_ids"]), out["special_tokens_mask"]
    where = f"stimulus {stimulus.stimulus_id}"
    if len(ids) > MAX_TOKENS:
        raise StudyError(f"{where}: {len(ids)} tokens, at most {MAX_TOKENS}; shorten its text")
    end = sentence_end(stimulus.text)
    offsets, trimmed = out["offset_mapping"], list[tuple[int, int]]()
    for start, stop in offsets:
        piece = stimulus.text[start:stop]
        left = start + len(piece) - len(piece.lstrip())
        trimmed.append((left, max(left, start + len(piece.rstrip()))))
    real = [n for n in range(len(ids)) if not special[n]]
    content = [n for n in real if offsets[n][0] < end]
    if not content:
        raise StudyError(f"{where}: the tokenizer leaves no content token of {stimulus.text!r}")
    span: list[int] = []
    if stimulus.span is not None:
        first, last = stimulus.span
        span = [
            n
            for n in real
            if trimmed[n][0] < last and trimmed[n][1] > first and trimmed[n][0] < trimmed[n][1]
        ]
        if not span:
            raise StudyError(f"{where}: no token covers its span {stimulus.span}")
    return Encoded(stimulus.stimulus_id, ids, span, content, real[-1])


def audit(tokenizer: Any, stimulus: Stimulus, encoded: Encoded) -> dict[str, Any]:
    """Return what the token audit keeps of a stimulus."""
    bos = tokenizer.bos_token_id
    return {
        "token_ids": encoded.token_ids,
        "span_tokens": encoded.span,
        "final_token": encoded.token_ids[encoded.last],
        "bos": bos is not None and encoded.token_ids[0] == bos,
        "tokens_per_character": round(len(encoded.content) / max(1, len(stimulus.text)), 4),
    }
