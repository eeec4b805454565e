"""Tokenizers that are only a SentencePiece file: read as SentencePiece reads them, or refused.

Without a ``tokenizer.json`` the library converts the file by the class that the folder's settings
name. A class that does not fit cuts texts otherwise, without an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sentencepiece

from aya_probes.errors import StudyError

FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
CHECK_TEXTS = ("The eye was seen again.", "वह आँख फिर दिखा।", "ዓይን 2 አየሁ", "Ile jicho, tena?")
SAVE = (
    "load the tokenizer with transformers where it works and save it with save_pretrained, which "
    "writes tokenizer.json"
)


def find(folder: Path) -> Path | None:
    """Return the file that a folder's tokenizer is converted from; None if it has a better one."""
    if (folder / "tokenizer.json").is_file():
        return None
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def check_file(folder: Path, wanted_by: str) -> None:
    """Refuse a SentencePiece file that SentencePiece cannot read; the library names tiktoken."""
    path = find(folder)
    if path is not None:
        _read(path, wanted_by)


def _read(path: Path, wanted_by: str) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except RuntimeError:
        raise StudyError(
            f"{wanted_by}: {path} is not a file of SentencePiece, and {path.parent} has no "
            f"tokenizer.json; {SAVE}"
        ) from None


def check_reading(tokenizer: Any, folder: Path, wanted_by: str) -> None:
    """Refuse a tokenizer that cuts a text into other pieces than its SentencePiece file does."""
    path = find(folder)
    if path is None:
        return
    own = _read(path, wanted_by)
    for text in CHECK_TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        # An unknown piece is written as the text in one of them and as the token in the other.
        found = [
            "" if n == tokenizer.unk_token_id else tokenizer.convert_ids_to_tokens(n) for n in ids
        ]
        pieces = zip(own.encode(text, out_type=int), own.encode(text, out_type=str), strict=True)
        expected = ["" if own.is_unknown(number) else piece for number, piece in pieces]
        if found != expected:
            raise StudyError(
                f"{wanted_by}: {type(tokenizer).__name__} reads {path} otherwise than "
                f"SentencePiece ({' '.join(found)!r}, not {' '.join(expected)!r}); fix "
                f"tokenizer_class in tokenizer_config.json, or {SAVE}"
            )
