"""How large an extraction is before it is started: texts, tokens, bytes, disk, time and cost.

No weights are loaded or fetched. Sizes of models come from their configuration and file list (on
disk, or a few kilobytes from the hub); what cannot be known is None. The constants are assumptions.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from aya_probes import suites
from aya_probes.errors import StudyError
from aya_probes.extraction import poolings
from aya_probes.models import checkpoints, embedded, gguf_files, hub
from aya_probes.stimuli import Manifest
from aya_probes.suites import Variant

CHARACTERS_PER_TOKEN = 3.0  # over the ten languages; no tokenizer is loaded here
GPU_SHARE = 0.28  # of a GPU's dense bf16 peak (35 of an A10's 125 TFLOP/s)
CPU_SHARE = 0.85  # of the float32 GEMM rate (docs/performance.md measures 87-96%)
START_S = 30.0  # a container, or this process: start and imports
READ_BYTES_PER_S = 0.5e9  # weights from a Volume or a disk
FLOAT16_BYTES, EXPONENT_BYTES, ABSMAX_BYTES = 2, 1, 4  # of a shard
_PROBE = 1024  # side of the square matrices that measure this CPU
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Model:
    """What is known of a variant's model without its weights; None where it is not known."""

    layers: int | None = None
    """L + 2: layers 0 .. L and the final norm."""
    hidden: int | None = None
    """Width of a vector."""
    weight_bytes: int | None = None
    """Bytes of its safetensors files, or of its GGUF file."""
    matrix_weights: int | None = None
    """Parameters without embedding and head: what every token is multiplied by."""
    why_unknown: str = ""
    """Why the fields above are not known."""


@dataclass(frozen=True)
class JobSize:
    """The size of one variant's extraction; None where it is not known."""

    texts: int
    """Number of stimuli."""
    tokens: float
    """Their tokens, estimated from their characters."""
    text_bytes: int
    """Their UTF-8 bytes."""
    disk_bytes: int | None
    """Bytes of the shards."""
    weight_bytes: int | None
    """Bytes of the weights."""
    flop: float | None
    """Floating-point operations: two for each matrix weight and token."""

    def seconds(self, flop_per_s: float) -> float | None:
        """Return the estimated time if the weights are near and that rate is reached."""
        if self.flop is None or self.weight_bytes is None:
            return None
        return START_S + self.weight_bytes / READ_BYTES_PER_S + self.flop / flop_per_s


def describe_model(variant: Variant, repository: hub.Repository | None) -> Model:
    """Return a variant's shape and sizes from its folder or its hub repository."""
    folder = suites.resolve_path(variant.path) if variant.path else None
    if variant.package and variant.sha256:
        folder = embedded.cache_folder(variant.package, variant.sha256)
        if not folder.is_dir():
            return Model(why_unknown="its weights are converted on the first run")
    try:
        if variant.gguf:
            return _describe_gguf(variant, variant.gguf, repository)
        if folder is not None:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            weights = checkpoints.choose(folder, f"variant {variant.name}").files
            size = sum((folder / name).stat().st_size for name in weights)
        else:
            assert repository is not None
            config, size = hub.describe_model(repository, variant.revision)
    except (StudyError, OSError, ValueError) as error:
        return Model(why_unknown=str(error))
    hidden = _number(config, "hidden_size", "n_embd")
    depth = _number(config, "num_hidden_layers", "n_layer")
    layers = None if depth is None else depth + 2
    return Model(layers, hidden, size, _matrix_weights(config, size, hidden))


def _describe_gguf(variant: Variant, name: str, repository: hub.Repository | None) -> Model:
    wanted_by = f"variant {variant.name}"
    if variant.path is None:
        assert repository is not None
        size = hub.file_size(repository, variant.revision, name)
        return Model(weight_bytes=size, why_unknown=f"the rest is in {name}, not fetched yet")
    path = checkpoints.find_gguf(suites.resolve_path(variant.path), name, wanted_by)
    header = gguf_files.read_header(path, wanted_by)
    matrices = (
        math.prod(tensor.shape)
        for label, tensor in header.tensors.items()
        if label not in gguf_files.EMBEDDINGS
    )
    depth = header.setting("block_count")
    layers = None if depth is None else depth + 2
    width, size = header.setting("embedding_length"), path.stat().st_size
    return Model(layers, width, size, sum(matrices))


def _tables(config: Any) -> list[dict[str, Any]]:
    tables = [config, config.get("text_config")] if isinstance(config, dict) else []
    return [table for table in tables if isinstance(table, dict)]


def _number(config: Any, *names: str) -> int | None:
    found = [t[n] for t in _tables(config) for n in names if type(t.get(n)) is int]
    return found[0] if found else None


def _matrix_weights(config: Any, size: int, hidden: int | None) -> int | None:
    stored = [str(t.get("dtype") or t.get("torch_dtype")) for t in _tables(config)]
    width = next((_BYTES[name] for name in stored if name in _BYTES), None)
    vocabulary = _number(config, "vocab_size")
    if width is None or vocabulary is None or hidden is None:
        return None
    untied = any(table.get("tie_word_embeddings") is False for table in _tables(config))
    return max(0, size // width - (2 if untied else 1) * vocabulary * hidden)


def disk_bytes(texts: int, with_span: int, layers: int, hidden: int) -> int:
    """Return the size of a variant's shards.

    That is float16 vectors with an exponent each, and an absmax per text and layer.
    """
    vectors = sum(with_span if p.needs_span else texts for p in poolings.BY_NAME.values())
    return layers * (vectors * (hidden * FLOAT16_BYTES + EXPONENT_BYTES) + texts * ABSMAX_BYTES)


def job_size(manifest: Manifest, model: Model) -> JobSize:
    """Return the size of extracting all stimuli of ``manifest`` from ``model``."""
    texts = [stimulus.text for stimulus in manifest.stimuli]
    spans = sum(stimulus.span is not None for stimulus in manifest.stimuli)
    disk = None
    if model.layers is not None and model.hidden is not None:
        disk = disk_bytes(len(texts), spans, model.layers, model.hidden)
    tokens = sum(map(len, texts)) / CHARACTERS_PER_TOKEN
    text_bytes = sum(len(text.encode()) for text in texts)
    flop = None if model.matrix_weights is None else 2 * model.matrix_weights * tokens
    return JobSize(len(texts), tokens, text_bytes, disk, model.weight_bytes, flop)


def cpu_flop_per_s() -> float:
    """Measure the float32 matrix rate of this CPU, all its cores; takes a fraction of a second."""
    matrix = np.ones((_PROBE, _PROBE), dtype=np.float32)

    def once() -> float:
        started = time.perf_counter()
        np.matmul(matrix, matrix)
        return time.perf_counter() - started

    return 2 * _PROBE**3 / min(once() for _ in range(4))
