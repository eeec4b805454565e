"""Records: the content of a file on disk, checked field by field when it is read.

A record is a frozen dataclass; the string under each field documents it. ``load`` refuses a
missing, unknown or wrongly typed field and names it. ``describe`` returns the documentation of the
fields, from which docs/artifacts.md is filled.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from aya_probes import files
from aya_probes.errors import StudyError

if TYPE_CHECKING:
    import pandas as pd

STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
T = TypeVar("T")


def parse(kind: type[T], data: Any, where: str, make: str) -> T:
    """Return ``data`` (plain JSON types) as a record.

    Raises StudyError with ``where``, the field and ``make``, the command that writes the file.
    """
    try:
        record: T = _adapter(kind).validate_json(json.dumps(data))
        return record
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        raise StudyError(
            f"{where}: field {field!r}: {first['msg'].lower()}; regenerate it with: {make}"
        ) from None


def load(kind: type[T], path: Path, make: str) -> T:
    """Read one record from a JSON file; raises StudyError as ``parse`` does."""
    return parse(kind, files.load_json(path, make), str(path), make)


def to_json(record: Any) -> Any:
    """Return a record as plain JSON types."""
    return _adapter(type(record)).dump_python(record, mode="json")


def json_schema(kind: type[Any]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a record's file."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | _adapter(kind).json_schema(mode="serialization")


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}  # making one takes some 10 ms


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def describe(kind: type[Any]) -> dict[str, str]:
    """Return the documentation of every field of a record, each on one line."""
    schema = _adapter(kind).json_schema(mode="serialization")
    schema = schema["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    return {
        field.name: " ".join(schema["properties"][field.name]["description"].split())
        for field in dataclasses.fields(kind)
    }


# --- tables -----------------------------------------------------------------------------------

_COLUMN_TYPES = {int: "Int64", float: "float64", str: "object", bool: "object"}


def _column_types(kind: type[Any]) -> dict[str, type]:
    """Return the type of each field; ``X | None`` becomes X."""
    found: dict[str, type] = {}
    for name, hint in typing.get_type_hints(kind).items():
        if isinstance(hint, types.UnionType):
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        found[name] = hint
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}


def save_table(path: Path, kind: type[Any], rows: Sequence[Any]) -> None:
    """Write records as CSV: one column per field, 6 significant digits, None as an empty cell."""
    import pandas as pd  # seconds, which --help does without

    columns = {
        name: pd.Series([getattr(row, name) for row in rows], dtype=_COLUMN_TYPES[column])
        for name, column in _column_types(kind).items()
    }
    files.save_csv(path, pd.DataFrame(columns))


def load_table(kind: type[T], path: Path, make: str) -> list[T]:
    """Return the records of a CSV that ``save_table`` wrote.

    Raises StudyError with the file, the line, the column and ``make``, the command that writes it.
    """
    columns = _column_types(kind)
    table = files.load_csv(path, tuple(columns), make)
    cells = {name: _parse_column(table[name], kind, path, make) for name, kind in columns.items()}
    return [
        kind(**dict(zip(columns, row, strict=True))) for row in zip(*cells.values(), strict=True)
    ]


def _parse_column(cells: pd.Series, kind: type, path: Path, make: str) -> list[Any]:
    if kind is str:
        return list(cells)
    parsed: list[Any] = []
    for line, cell in enumerate(cells, start=2):
        try:
            parsed.append(None if cell == "" else cell == "True" if kind is bool else kind(cell))
        except ValueError:
            raise StudyError(
                f"{path}: line {line}: {cells.name} {cell!r} is not a {kind.__name__}; "
                f"regenerate it with: {make}"
            ) from None
    return parsed
