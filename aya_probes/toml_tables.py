"""Read TOML files, and check the keys and types of their tables."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aya_probes import errors, files

Table = dict[str, Any]  # a TOML table
LONGEST = 1000  # characters of a string


def read_toml(path: Path) -> Table:
    """Return the table of a TOML file; raises StudyError for a file that cannot be read."""
    try:
        return tomllib.loads(files.decode(path.read_bytes(), str(path), "restore it"))
    except tomllib.TOMLDecodeError as error:
        raise errors.StudyError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise errors.StudyError(f"{path}: cannot be read: {error.strerror}") from None


def check_types(raw: Table, types: Mapping[str, type], where: str) -> Table:
    """Return ``raw`` without None; raises StudyError for an unknown key, a wrong type or text.

    ``where`` names the table in messages.
    """
    clean = {key: value for key, value in raw.items() if value is not None}
    for key, value in clean.items():
        if key not in types:
            raise errors.StudyError(f"{where}: {errors.unknown('key', key, types)}")
        if not isinstance(value, types[key]) or (types[key] is int and isinstance(value, bool)):
            kind = types[key].__name__
            raise errors.StudyError(f"{where}: {key} must be a {kind}, but is {short(value)}")
        for text in value if isinstance(value, list) else [value]:
            if isinstance(value, list) and not isinstance(text, str):
                raise errors.StudyError(f"{where}: {key} must hold strings, holds {short(text)}")
            if isinstance(text, str) and (
                len(text) > LONGEST or errors.escape_hidden(text) != text
            ):
                raise errors.StudyError(
                    f"{where}: {key} holds hidden or control characters, or is longer than "
                    f"{LONGEST} characters: {short(text)}"
                )
    return clean


def short(value: object) -> str:
    """Return a value as text of at most 80 characters, for messages."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
