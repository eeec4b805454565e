"""Activations on disk: a plan and float16 shards per variant, each hash-checked (ADR-005).

``activations/<variant>/plan.json`` says how the vectors were made and which stimuli lie in which
shard. ``shard-NNNNN.safetensors`` holds, per pooling, ``[stimulus, layer, hidden]`` float16 and one
power-of-two exponent per vector (int8), so that no residual overflows float16. A shard carries the
hash of its plan and of its own tensors: a truncated, foreign or altered shard is detected on load.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from aya_probes import files, run_folder
from aya_probes.errors import StudyError
from aya_probes.extraction import poolings
from aya_probes.extraction.plan import Plan, load_plan, plan_path


def to_float16(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale each vector (last axis) by its own power of two and round to float16.

    Returns the float16 array and the int8 exponents (one axis fewer); the value is
    ``stored * 2**exponent``. The largest element lies in [2^14, 2^15), so the relative error is at
    most 2^-11 per element of comparable size. Raises ValueError on NaN or infinity.
    """
    largest = np.abs(vectors).max(axis=-1)
    if not np.isfinite(largest).all():
        raise ValueError("vectors hold NaN or infinity")
    exponents = np.where(largest > 0, np.frexp(largest)[1] - 15, 0).clip(-127, 127)
    scaled = vectors.astype(np.float32, copy=False) * _power_of_two(-exponents)
    return scaled.astype(np.float16), exponents.astype(np.int8)


def from_float16(stored: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Undo ``to_float16``; returns float32."""
    return stored.astype(np.float32) * _power_of_two(exponents)


def _power_of_two(exponents: np.ndarray) -> np.ndarray:
    """Return ``2**exponents`` with a last axis of 1: multiplying by it is exact, as ldexp is."""
    return np.ldexp(np.float32(1), exponents.astype(np.int32))[..., None]


def variant_dir(paths: run_folder.RunPaths, variant: str) -> Path:
    """Return the folder of a variant's activations."""
    return paths.activations / variant


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of shard ``number``."""
    return folder / f"shard-{number:05d}.safetensors"


def save_shard(path: Path, tensors: dict[str, np.ndarray], plan_sha256: str) -> None:
    """Write one shard atomically, with the hashes of its plan and its content."""
    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(tensors.items())}
    # One key: safetensors writes several in an order that differs from run to run.
    header = {"hashes": f"plan={plan_sha256} content={_content_hash(arrays)}"}
    with files.atomic_write(path) as handle:
        handle.write(serialize(arrays, metadata=header))


def _content_hash(tensors: dict[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        total.update(f"{name}{array.dtype}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


# What a broken header raises: some dtypes and shapes fail only when the tensor is asked for.
_BROKEN_HEADER = (ValueError, TypeError, KeyError, AttributeError, OverflowError)


def _has_form(tensors: dict[str, np.ndarray]) -> bool:
    """Tell whether a shard holds every pooling with its exponents, and absmax."""
    for name in poolings.POOLINGS:
        vectors, exponents = tensors.get(name), tensors.get(f"{name}.exponent")
        if vectors is None or exponents is None or vectors.ndim != 3:
            return False
        if vectors.dtype != np.float16 or exponents.dtype != np.int8:
            return False
        if exponents.shape != vectors.shape[:2]:
            return False
    return "absmax" in tensors


def read_shard(path: Path, plan_sha256: str) -> dict[str, np.ndarray]:
    """Read a shard and check both hashes; raises StudyError naming the file and the fix."""
    fix = f"regenerate it with: {files.MAKE_ACTIVATIONS}"
    try:
        with safe_open(path, framework="numpy") as shard:
            hashes = (shard.metadata() or {}).get("hashes", "")
            names = shard.keys()
            tensors = {name: shard.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise StudyError(f"{path}: missing; {fix}") from None
    except (SafetensorError, OSError, *_BROKEN_HEADER) as error:
        raise StudyError(f"{path}: truncated or not a safetensors file ({error}); {fix}") from None
    plan, _, content = hashes.removeprefix("plan=").partition(" content=")
    if plan != plan_sha256:
        raise StudyError(f"{path}: belongs to another plan; {fix} --overwrite")
    if content != _content_hash(tensors):
        raise StudyError(f"{path}: content does not match its hash (altered on disk); {fix}")
    if not _has_form(tensors):
        raise StudyError(f"{path}: lacks a pooling, or has it in another form; {fix}")
    return tensors


def shard_is_valid(path: Path, plan_sha256: str) -> bool:
    """Tell whether a shard is there, whole, and of this plan."""
    if not path.is_file():
        return False
    try:
        read_shard(path, plan_sha256)
    except StudyError:
        return False
    return True


def tokens_are_valid(folder: Path, plan: Plan) -> bool:
    """Tell whether tokens.json is there and is what the plan was made with."""
    try:
        tokens = files.load_json(folder / "tokens.json", files.MAKE_ACTIVATIONS)
    except StudyError:
        return False
    return bool(files.digest(tokens) == plan.tokens_sha256)


def missing_shards(folder: Path, plan: Plan) -> list[int]:
    """Return the numbers of the shards that still have to be computed."""
    sha = plan.sha256
    return [n for n in range(len(plan.shards)) if not shard_is_valid(shard_path(folder, n), sha)]


@dataclass(frozen=True)
class Activations:
    """Pooled vectors of one variant, read from its checked shards when they are taken.

    Nothing but the index is held: a study of 10,000 sentences does not fit in memory whole.
    """

    folder: Path
    plan: Plan
    tokens: dict[str, dict[str, Any]]  # the token audit, by stimulus id

    @functools.cached_property
    def content_sha256(self) -> str:
        """Hash of all vectors and tokens, whatever plan or code they were made under."""
        contents = []
        for number in range(len(self.plan.shards)):
            with safe_open(shard_path(self.folder, number), framework="numpy") as shard:
                contents.append(shard.metadata()["hashes"].partition(" content=")[2])
        return files.digest([contents, self.plan.tokens_sha256, list(self.plan.layers)])

    @functools.cached_property
    def _index(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Return ``"ids" | "span_ids" -> stimulus id -> (shard, position)``."""
        return {
            key: {
                name: (number, position)
                for number, shard in enumerate(self.plan.shards)
                for position, name in enumerate(getattr(shard, key))
            }
            for key in ("ids", "span_ids")
        }

    def take(self, pooling: str, stimulus_ids: Sequence[str]) -> np.ndarray:
        """Return ``[stimulus, layer, hidden]`` float32 in the order asked, joined by id.

        The layers are 0 .. L, then the final norm. Raises StudyError for a stimulus that was not
        extracted or has no span.
        """
        index = self._index["span_ids" if poolings.BY_NAME[pooling].needs_span else "ids"]
        wanted: dict[int, list[tuple[int, int]]] = {}
        for target, name in enumerate(stimulus_ids):
            if name not in index:
                raise StudyError(
                    f"{plan_path(self.folder)}: stimulus {name} has no {pooling} vector; "
                    f"regenerate it with: {files.MAKE_ACTIVATIONS} --overwrite"
                )
            number, position = index[name]
            wanted.setdefault(number, []).append((target, position))
        shape = (len(stimulus_ids), len(self.plan.layers), self.plan.hidden_size)
        out = np.empty(shape, dtype=np.float32)
        for number, places in sorted(wanted.items()):
            with safe_open(shard_path(self.folder, number), framework="numpy") as shard:
                stored, exponents = (
                    shard.get_slice(pooling),
                    shard.get_tensor(f"{pooling}.exponent"),
                )
                for target, position in places:
                    half = stored[position : position + 1][0]
                    out[target] = from_float16(half, exponents[position])
        return out


def open_activations(folder: Path, manifest_sha256: str) -> Activations:
    """Open a variant's activations, every hash checked, one shard in memory at a time.

    Raises StudyError if the plan is for another manifest or a file is missing or altered.
    """
    plan = load_plan(folder)
    if plan.inputs.manifest_sha256 != manifest_sha256:
        raise StudyError(
            f"{plan_path(folder)}: made for another data/stimulus_manifest.json; "
            f"regenerate it with: {files.MAKE_ACTIVATIONS} --overwrite"
        )
    sha = plan.sha256
    for number in range(len(plan.shards)):
        read_shard(shard_path(folder, number), sha)
    tokens = files.load_json(folder / "tokens.json", files.MAKE_ACTIVATIONS + " --overwrite")
    if plan.tokens_sha256 != files.digest(tokens):
        raise StudyError(
            f"{folder / 'tokens.json'}: content does not match the plan; "
            f"regenerate it with: {files.MAKE_ACTIVATIONS} --overwrite"
        )
    return Activations(folder, plan, tokens)
