"""The plan of a variant's extraction: what was asked, how it was computed, what lies where."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from aya_probes import files, project, records
from aya_probes.errors import StudyError

MAKE = f"{files.MAKE_ACTIVATIONS} --overwrite"


@dataclass(frozen=True)
class Inputs:
    """What decides the vectors. If one of these changed, the activations are stale."""

    __pydantic_config__ = records.STRICT

    suite: str
    """Name of the suite."""
    variant: str
    """Name of the variant."""
    source: dict[str, str | int | None]
    """Where the weights come from: role, then repo with commit, or path or package with sha256;
    of a path also the hash of its tokenizer's files; the name of a GGUF file, and that its weights
    are dequantised; the adapter's sha256; the seed of random weights."""
    manifest_sha256: str
    """Hash of the stimulus manifest."""
    poolings: tuple[str, ...]
    """Poolings stored, in order."""
    dtype: str
    """Compute precision: float32 or bfloat16."""
    extraction_version: int
    """`EXTRACTION_VERSION` of the code that computed the vectors."""


@dataclass(frozen=True)
class Shard:
    """The stimuli of one shard."""

    __pydantic_config__ = records.STRICT

    packs: tuple[tuple[str, ...], ...]
    """Stimulus ids, as they were computed together; in this order the shard holds them."""
    span_ids: tuple[str, ...]
    """The stimuli among them that have a span, in order."""

    @property
    def ids(self) -> tuple[str, ...]:
        """All stimulus ids in the order of the shard."""
        return tuple(name for pack in self.packs for name in pack)


@dataclass(frozen=True)
class Plan:
    """How the vectors of one variant were made, and which stimuli lie in which shard."""

    __pydantic_config__ = records.STRICT

    schema_version: int
    """Version of the file's fields."""
    inputs: Inputs
    """What decides the vectors."""
    layers: tuple[str, ...]
    """Labels along the layer axis: 0 .. L, then `final_norm`."""
    hidden_size: int
    """Width of a vector."""
    device: str
    """cpu, cuda or mps."""
    device_name: str | None
    """The GPU's name; null elsewhere."""
    threads: int | None
    """CPU threads; null on a GPU."""
    token_budget: int
    """Tokens computed at once, at most."""
    packed: bool
    """False: the texts were padded or, with a token budget of 1, run one by one."""
    versions: dict[str, str]
    """Library versions."""
    tokenizer_sha256: str
    """Hash of the tokenizer."""
    tokens_sha256: str
    """Hash of tokens.json."""
    shards: tuple[Shard, ...]
    """The shards, by number."""
    code_sha256: str
    """Hash of the package's source: provenance only."""

    @functools.cached_property
    def sha256(self) -> str:
        """The hash that every shard of this plan carries."""
        return files.digest(records.to_json(self))

    @property
    def layer_count(self) -> int:
        """L + 2: layers 0..L and the final norm."""
        return len(self.layers)


def plan_path(folder: Path) -> Path:
    """Return the plan of a variant's folder."""
    return folder / "plan.json"


def save_plan(folder: Path, plan: Plan) -> None:
    """Write a variant's plan."""
    files.save_json(plan_path(folder), records.to_json(plan))


def load_plan(folder: Path) -> Plan:
    """Load and check a variant's plan; raises StudyError for one of another version."""
    path = plan_path(folder)
    raw = files.load_json(path, files.MAKE_ACTIVATIONS)
    version = files.need(raw, "schema_version", int, str(path), MAKE)
    if version != project.SCHEMA_VERSION:
        raise StudyError(
            f"{path}: schema_version {version} is of another version; regenerate it with: {MAKE}"
        )
    plan = records.parse(Plan, raw, str(path), MAKE)
    for number, shard in enumerate(plan.shards):
        if len(set(shard.ids)) != len(shard.ids) or not set(shard.span_ids) <= set(shard.ids):
            raise StudyError(
                f"{path}: shards.{number}: ids occur twice, or span_ids has others; "
                f"regenerate it with: {MAKE}"
            )
    if len(plan.layers) < 3 or plan.hidden_size < 1:
        raise StudyError(
            f"{path}: field 'layers' or 'hidden_size' is too small; regenerate it with: {MAKE}"
        )
    return plan


def refuse_changes(folder: Path, changed: list[str]) -> None:
    """Raise StudyError naming the ``changed`` fields, if there are any."""
    if changed:
        raise StudyError(
            f"{plan_path(folder)}: {', '.join(changed)} changed since these activations were "
            "made; run again with --overwrite to regenerate them"
        )
