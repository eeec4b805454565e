"""Tokens of a stimulus, and the positions among them that each pooling averages."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aya_probes.errors import StudyError
from aya_probes.extraction import poolings
from aya_probes.models.residuals import LoadedModel
from aya_probes.stimuli import Stimulus

_SPACES = "▁Ġ \t\n"  # how vocabularies write a space (Metaspace, byte-level), or the space itself
MAX_TOKENS = 2048  # a stimulus is a sentence, not a document
_TABLE_SIZES = ("max_position_embeddings", "max_seq_len", "max_target_positions")


@dataclass(frozen=True)
class Encoded:
    """A tokenised stimulus, and the positions of the tokens that poolings choose from."""

    stimulus_id: str
    """The stimulus."""
    token_ids: list[int]
    """Its tokens, special ones included."""
    span: list[int]
    """Positions of the concept's tokens; empty where the stimulus has no span."""
    content: list[int]
    """Positions of all but special tokens and closing punctuation."""
    last: int
    """Position of the last token that is not special."""

    def positions(self, pooling: str) -> Sequence[int]:
        """Return the token positions that ``pooling`` averages."""
        return poolings.BY_NAME[pooling].positions(self)


def sentence_end(text: str) -> int:
    """Return the length of ``text`` without closing punctuation and white space."""
    end = len(text)
    while end and (text[end - 1].isspace() or unicodedata.category(text[end - 1]).startswith("P")):
        end -= 1
    return end or len(text)


def encode(tokenizer: Any, stimulus: Stimulus) -> Encoded:
    """Tokenise a stimulus; see ``encode_text``."""
    return encode_text(tokenizer, stimulus.text, stimulus.span, stimulus.stimulus_id)


def encode_text(
    tokenizer: Any, text: str, span: tuple[int, int] | None, stimulus_id: str
) -> Encoded:
    """Tokenise a text and find the tokens of each pooling.

    ``span`` holds the first character of the concept's surface form and the one after its last. A
    token belongs to the concept if its characters, trimmed of white space, intersect the span
    (fused prefixes and byte pieces count). A piece that only marks a space never does, though some
    tokenizers give it the characters of its neighbour. Content leaves out special tokens and
    sentence-final punctuation. Raises StudyError where a pooling would be empty.
    """
    out = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    ids, special, offsets = (
        list(out["input_ids"]),
        out["special_tokens_mask"],
        out["offset_mapping"],
    )
    if len(ids) > MAX_TOKENS:
        raise StudyError(
            f"{stimulus_id}: {len(ids)} tokens, at most {MAX_TOKENS}; shorten its text"
        )
    real = [n for n in range(len(ids)) if not special[n]]
    end = sentence_end(text)
    content = [n for n in real if offsets[n][0] < end]
    if not content:
        raise StudyError(f"{stimulus_id}: the tokenizer leaves no content token of {text!r}")
    in_span: list[int] = []
    if span is not None:
        pieces = tokenizer.convert_ids_to_tokens(ids)
        in_span = [
            n for n in real if pieces[n].strip(_SPACES) and _overlaps(text, offsets[n], span)
        ]
        if not in_span:
            raise StudyError(f"{stimulus_id}: no token covers its span {span}")
    return Encoded(stimulus_id, ids, in_span, content, real[-1])


def _overlaps(text: str, token: tuple[int, int], span: tuple[int, int]) -> bool:
    """Tell whether a token's characters, trimmed of white space, intersect the span."""
    piece = text[slice(*token)]
    start = token[0] + len(piece) - len(piece.lstrip())
    end = max(start, token[0] + len(piece.rstrip()))
    return start < span[1] and end > span[0] and start < end


def max_tokens(loaded: LoadedModel) -> int:
    """Return the length of the longest text that may be read: what the model has positions for."""
    sizes = [getattr(loaded.decoder.config, name, None) for name in _TABLE_SIZES]
    return min([MAX_TOKENS, *(size for size in sizes if isinstance(size, int))])


def check_fits(loaded: LoadedModel, item: Encoded) -> None:
    """Reject tokens or lengths that the model has no embedding for.

    An index out of range would crash the device. Raises StudyError naming the stimulus.
    """
    size = loaded.decoder.get_input_embeddings().num_embeddings
    if max(item.token_ids) >= size:
        raise StudyError(
            f"{item.stimulus_id}: token {max(item.token_ids)} is not among the model's {size}; the "
            "tokenizer belongs to another model: fix the model's folder"
        )
    limit = max_tokens(loaded)
    if len(item.token_ids) > limit:
        raise StudyError(
            f"{item.stimulus_id}: {len(item.token_ids)} tokens, the model takes {limit}; "
            "shorten its text"
        )


@dataclass(frozen=True)
class TokenAudit:
    """What tokens.json keeps of a stimulus."""

    token_ids: list[int]
    """Its tokens, special ones included."""
    span_tokens: list[int]
    """Positions of the concept's tokens; empty where the stimulus has no span."""
    final_token: int
    """The last token that is not special."""
    bos: bool
    """Whether the tokenizer put its BOS token first."""
    tokens_per_character: float
    """Content tokens per character of the text, to 4 digits."""


def audit_tokens(tokenizer: Any, stimulus: Stimulus, encoded: Encoded) -> TokenAudit:
    """Return what the token audit keeps of a stimulus."""
    bos = tokenizer.bos_token_id
    return TokenAudit(
        token_ids=encoded.token_ids,
        span_tokens=encoded.span,
        final_token=encoded.token_ids[encoded.last],
        bos=bos is not None and encoded.token_ids[0] == bos,
        tokens_per_character=round(len(encoded.content) / max(1, len(stimulus.text)), 4),
    )
