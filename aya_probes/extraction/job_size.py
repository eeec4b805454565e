"""How large an extraction is before it is started: texts, tokens, bytes, disk, time and cost.

No weights are loaded or fetched. Sizes of models come from their configuration and file list (on
disk, or a few kilobytes from the hub); what cannot be known is said to be unknown. The constants
are assumptions, named here once and used by ``benchmarks/cost_model.py`` too.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from aya_probes import suites
from aya_probes.errors import StudyError
from aya_probes.extraction import poolings
from aya_probes.models import embedded, hub
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

    rows: int | None  # blocks + 1 input row + 1 final norm
    hidden: int | None
    weight_bytes: int | None
    matrix_weights: int | None  # parameters less embedding and head: what a token is multiplied by
    why_unknown: str = ""


@dataclass(frozen=True)
class JobSize:
    """The size of one variant's extraction."""

    texts: int
    tokens: float
    text_bytes: int
    disk_bytes: int | None
    weight_bytes: int | None
    flop: float | None

    def seconds(self, flop_per_s: float) -> float | None:
        """Return the estimated time where the weights lie near and that rate is reached."""
        if self.flop is None or self.weight_bytes is None:
            return None
        return START_S + self.weight_bytes / READ_BYTES_PER_S + self.flop / flop_per_s


def describe_model(variant: Variant, repository: hub.Repository | None) -> Model:
    """Return a variant's shape and sizes from its folder or its hub repository."""
    folder = suites.resolve_path(variant.path) if variant.path else None
    if variant.package and variant.sha256:
        folder = embedded.cache_folder(variant.package, variant.sha256)
        if not folder.is_dir():
            why = "its weights are converted on the first run"
            return Model(None, None, None, None, why)
    try:
        if folder is not None:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        else:
            assert repository is not None
            config, size = hub.describe_model(repository, variant.revision)
    except (StudyError, OSError, ValueError) as error:
        return Model(None, None, None, None, str(error))
    hidden = _number(config, "hidden_size", "n_embd")
    depth = _number(config, "num_hidden_layers", "n_layer")
    return Model(None if depth is None else depth + 2, hidden, size,
                 _matrix_weights(config, size, hidden))  # fmt: skip


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


def disk_bytes(texts: int, with_span: int, rows: int, hidden: int) -> int:
    """Return the size of a variant's shards: float16, an exponent a vector, absmax a row."""
    vectors = (len(poolings.POOLINGS) - 1) * texts + with_span
    return rows * (vectors * (hidden * FLOAT16_BYTES + EXPONENT_BYTES) + texts * ABSMAX_BYTES)


def job_size(manifest: Manifest, model: Model) -> JobSize:
    """Return the size of extracting all stimuli of ``manifest`` from ``model``."""
    texts = [stimulus.text for stimulus in manifest.stimuli]
    spans = sum(stimulus.span is not None for stimulus in manifest.stimuli)
    disk = None
    if model.rows is not None and model.hidden is not None:
        disk = disk_bytes(len(texts), spans, model.rows, model.hidden)
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


def human_bytes(count: int | None) -> str:
    """Return ``count`` in decimal units."""
    if count is None:
        return "unknown"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def human_time(seconds: float | None) -> str:
    """Return ``seconds`` as seconds, minutes or hours."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
