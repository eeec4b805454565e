"""Tokenizers that are only a SentencePiece file: read as SentencePiece reads them, or refused.

Without a ``tokenizer.json`` the library converts the file by a class that it chooses by the model's
type and the folder's settings. A class that does not fit cuts texts otherwise, without an error.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import sentencepiece
from transformers import AutoTokenizer
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from aya_probes import errors
from aya_probes.errors import StudyError
from aya_probes.models import checkpoints

FILES = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spm.model",
)
CHECK_TEXTS = (  # several scripts, and what normalisers change
    "The eye was seen again.",
    "वह आँख फिर दिखा।",
    "ዓይን 2 አየሁ",
    "Ile  jicho, tena?",
    "e\u0301 ﬁ Ａ① क\u093c \u200bx",
)
SAVE = (
    "load the tokenizer with transformers where it works and save it with save_pretrained, which "
    "writes tokenizer.json"
)


def find(folder: Path) -> Path | None:
    """Return the file that a folder's tokenizer is converted from; None if it has a better one."""
    if (folder / "tokenizer.json").is_file():
        return None
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def _read(path: Path, wanted_by: str) -> sentencepiece.SentencePieceProcessor:
    content = path.read_bytes()
    if content:  # an empty file is no error for SentencePiece
        with contextlib.suppress(RuntimeError):
            return sentencepiece.SentencePieceProcessor(model_proto=content)
    raise StudyError(
        f"{wanted_by}: {path} is not a file of SentencePiece (perhaps of tiktoken), and "
        f"{path.parent} has no tokenizer.json; {SAVE}"
    )


def load_tokenizer(folder: Path, wanted_by: str) -> Any:
    """Return a folder's tokenizer, which reads a SentencePiece file as SentencePiece does.

    For some types of model (Mistral, Phi-3) the library passes over the class that the folder's
    settings name; that class is tried too. Raises StudyError if neither fits.
    """
    path = find(folder)
    if path is None:
        return AutoTokenizer.from_pretrained(folder, **checkpoints.LOCAL)
    _read(path, wanted_by)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **checkpoints.LOCAL)
        named = _named_class(folder)
        if named and not isinstance(tokenizer, named) and _difference(tokenizer, path, wanted_by):
            tokenizer = named.from_pretrained(folder, **checkpoints.LOCAL)
    except (StudyError, MemoryError):
        raise
    except Exception as error:  # the library raises of every kind
        raise StudyError(
            f"{wanted_by}: the library cannot read {path} ({errors.summarise(error)}); "
            f"fix tokenizer_class in tokenizer_config.json, or {SAVE}"
        ) from None
    check_reading(tokenizer, folder, wanted_by)
    return tokenizer


def _named_class(folder: Path) -> Any:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        return tokenizer_class_from_name(settings["tokenizer_class"])
    return None


def check_reading(tokenizer: Any, folder: Path, wanted_by: str) -> None:
    """Refuse a tokenizer that cuts a text into other pieces than its SentencePiece file does."""
    path = find(folder)
    difference = path and _difference(tokenizer, path, wanted_by)
    if difference:
        raise StudyError(
            f"{wanted_by}: {type(tokenizer).__name__} reads {path} otherwise than SentencePiece "
            f"({difference}); fix tokenizer_class in tokenizer_config.json, or {SAVE}"
        )


def _difference(tokenizer: Any, path: Path, wanted_by: str) -> str:
    """Return in what a tokenizer's reading differs from SentencePiece's; empty if in nothing.

    Some classes number all pieces higher by a constant. Special tokens that are added play no part.
    """
    own, shifts = _read(path, wanted_by), set()
    for text in CHECK_TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        # An unknown piece is written as the text in one of them and as the token in the other.
        found = [
            "<?>" if n == tokenizer.unk_token_id else tokenizer.convert_ids_to_tokens(n)
            for n in ids
        ]
        numbers = own.encode(text)
        expected = ["<?>" if own.is_unknown(n) else own.id_to_piece(n) for n in numbers]
        if found != expected:
            return f"{' '.join(found)!r}, not {' '.join(expected)!r}"
        known = [piece != "<?>" for piece in found]
        shifts |= {a - b for a, b, here in zip(ids, numbers, known, strict=True) if here}
    return f"other numbers of its pieces, by {sorted(shifts)}" if len(shifts) > 1 else ""
