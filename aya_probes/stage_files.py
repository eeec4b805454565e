"""The files of stages that run a model: one JSON per variant and stage, and arrays beside it.

``activations/<variant>/<stage>.json`` holds a ``StageFile``: the plan it was made under, and rows.
A stage with large numbers keeps them in ``<stage>.safetensors``, whose hash the JSON holds. This
module needs no torch: the half of a stage that analyses runs without it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as serialize

from aya_probes import files, project, records
from aya_probes.errors import StudyError
from aya_probes.run_folder import RunPaths


@dataclass(frozen=True)
class StageInputs:
    """What decides the rows. If one of these changed, the file is stale."""

    __pydantic_config__ = records.STRICT

    stage: str
    """Name of the stage."""
    stage_version: int
    """Version of the stage's method."""
    settings: dict[str, Any]
    """The stage's own settings, among them hashes of other files that it reads."""
    suite: str
    """Name of the suite."""
    variant: str
    """Name of the variant."""
    source: dict[str, str | int | None]
    """What identifies the weights, as in an extraction's plan."""
    manifest_sha256: str
    """Hash of the stimulus manifest."""
    dtype: str
    """Compute precision: float32 or bfloat16."""


@dataclass(frozen=True)
class StageFile:
    """What a stage measured on one variant, and how."""

    __pydantic_config__ = records.STRICT

    schema_version: int
    """Version of the file's fields."""
    inputs: StageInputs
    """What decides the rows."""
    device: str
    """cpu, cuda or mps."""
    versions: dict[str, str]
    """Library versions."""
    code_sha256: str
    """Hash of the package's source: provenance only."""
    arrays_sha256: str | None
    """Hash of the file of arrays; null without one."""
    rows: list[dict[str, Any]]
    """The stage's rows, of the stage's own fields."""


@dataclass(frozen=True)
class Measured:
    """What a stage found on one model: rows of JSON types, and arrays by name (none: no file)."""

    rows: Sequence[Mapping[str, Any]]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def stage_path(paths: RunPaths, variant: str, stage: str) -> Path:
    """Return the JSON file of a stage for a variant."""
    return paths.activations / variant / f"{stage}.json"


def arrays_path(path: Path) -> Path:
    """Return the file of arrays beside a stage's JSON file."""
    return path.with_suffix(".safetensors")


def save_stage(path: Path, content: StageFile, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a stage's file and its arrays, each atomically, the arrays first."""
    digest = None
    if arrays:
        plain = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
        data = serialize(plain)
        digest = hashlib.sha256(data).hexdigest()
        with files.atomic_write(arrays_path(path)) as handle:
            handle.write(data)
    content = dataclasses.replace(content, arrays_sha256=digest)
    files.save_json(path, records.to_json(content), indent=None)


def load_stage(path: Path, make: str) -> StageFile:
    """Load a stage's file; raises StudyError with the file, the field and ``make``."""
    raw = files.load_json(path, make)
    version = files.need(raw, "schema_version", int, str(path), make)
    if version != project.SCHEMA_VERSION:
        raise StudyError(
            f"{path}: schema_version {version} is of another version; regenerate it with: {make}"
        )
    return records.parse(StageFile, raw, str(path), make)


def arrays_are_valid(path: Path, content: StageFile) -> bool:
    """Tell whether the arrays that belong to a stage's file ``path`` are there and unaltered."""
    where = arrays_path(path)
    if content.arrays_sha256 is None:
        return True
    if not where.is_file():
        return False
    return hashlib.sha256(where.read_bytes()).hexdigest() == content.arrays_sha256


def load_arrays(path: Path, content: StageFile, make: str) -> dict[str, np.ndarray]:
    """Load the arrays that belong to a stage's file ``path``; empty where it has none.

    Raises StudyError if they are missing or not those that the file was written with.
    """
    if content.arrays_sha256 is None:
        return {}
    where = arrays_path(path)
    if not arrays_are_valid(path, content):
        raise StudyError(
            f"{where}: missing, or not the arrays of {path.name}; regenerate it with: {make}"
        )
    return dict(parse_tensors(where.read_bytes()))


def load_measured(
    paths: RunPaths, variant: str, stage: str, manifest_sha256: str, make: str
) -> StageFile:
    """Load what ``stage`` measured on a variant; raises StudyError if of another manifest."""
    path = stage_path(paths, variant, stage)
    content = load_stage(path, make)
    if content.inputs.manifest_sha256 != manifest_sha256:
        raise StudyError(
            f"{path}: measured on another manifest; regenerate it with: {make} --overwrite"
        )
    return content


def measured_variants(paths: RunPaths, names: Sequence[str], stage: str) -> list[str]:
    """Return the variants among ``names`` that ``stage`` has measured."""
    return [name for name in names if stage_path(paths, name, stage).is_file()]
