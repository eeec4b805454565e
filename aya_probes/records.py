"""Records: what stands in a file on disk, checked field by field when it is read.

A record is a frozen dataclass whose fields are documented by the string under each of them.
``load`` refuses a missing, unknown or wrongly typed field by name; ``describe`` returns the
documentation, from which docs/artifacts.md is filled.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from aya_probes import files
from aya_probes.errors import StudyError

STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
T = TypeVar("T")


def parse(kind: type[T], data: Any, where: str, make: str) -> T:
    """Return ``data`` (plain JSON types) as a record.

    Raises StudyError naming ``where``, the field and the command ``make`` that writes the file.
    """
    try:
        record: T = TypeAdapter(kind).validate_json(json.dumps(data))
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
    return TypeAdapter(type(record)).dump_python(record, mode="json")


def describe(kind: type[Any]) -> dict[str, str]:
    """Return the documentation of every field of a record, on one line each."""
    schema = TypeAdapter(kind).json_schema(mode="serialization")
    schema = schema["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    return {
        field.name: " ".join(schema["properties"][field.name]["description"].split())
        for field in dataclasses.fields(kind)
    }
