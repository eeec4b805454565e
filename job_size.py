"""How large an extraction is before it is started: texts, tokens, bytes, disk, time and cost.

Nothing is computed and no weights are fetched. Sizes of models come from their configuration and
file list (on disk, or a few kilobytes from the hub); what cannot be known is said to be unknown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import hub
import study
from artifacts import Manifest
from study import StudyError, Variant

CHARACTERS_PER_TOKEN = 3.0  # over the ten languages; no tokenizer is loaded here
UTILISATION = 0.25  # of a GPU's dense bf16 peak, by short texts in packs; an assumption
COLD_START_S = 60.0  # container, imports; an assumption
READ_BYTES_PER_S = 150e6  # weights from the hub or a Volume into the GPU; an assumption
FLOAT16_BYTES, EXPONENT_BYTES, ABSMAX_BYTES = 2, 1, 4  # of a shard


@dataclass(frozen=True)
class Model:
    """What is known of a variant's model without its weights; None where it is not known."""

    rows: int | None  # blocks + 1 input row + 1 final norm
    hidden: int | None
    weight_bytes: int | None
    why_unknown: str = ""


@dataclass(frozen=True)
class JobSize:
    """The size of one variant's extraction."""

    texts: int
    tokens: float
    text_bytes: int
    disk_bytes: int | None
    weight_bytes: int | None

    def seconds(self, peak_tflops: float) -> float | None:
        """Return the estimated time on a GPU with that dense bf16 peak."""
        if self.weight_bytes is None:
            return None
        compute = self.weight_bytes * self.tokens / (peak_tflops * 1e12 * UTILISATION)
        return (
            COLD_START_S + self.weight_bytes / READ_BYTES_PER_S + compute
        )  # bf16: 2 bytes, 2 FLOP


def describe_model(variant: Variant, repository: hub.Repository | None) -> Model:
    """Return a variant's shape and weight bytes from its folder or its hub repository."""
    try:
        if repository is not None:
            config, size = hub.describe_model(repository, variant.revision)
        elif variant.path:
            folder = study.resolve(variant.path)
            config = json.loads((folder / "config.json").read_text("utf-8"))
            size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        else:
            return Model(None, None, None, "its weights are converted on the first run")
    except (StudyError, OSError, ValueError) as error:
        return Model(None, None, None, str(error))
    return Model(_number(config, "num_hidden_layers", "n_layer", add=2),
                 _number(config, "hidden_size", "n_embd"), size)  # fmt: skip


def _number(config: Any, *names: str, add: int = 0) -> int | None:
    tables = [config, config.get("text_config")] if isinstance(config, dict) else []
    found = [t[n] for t in tables if isinstance(t, dict) for n in names if type(t.get(n)) is int]
    return found[0] + add if found else None


def job_size(manifest: Manifest, model: Model) -> JobSize:
    """Return the size of extracting all stimuli of ``manifest`` from ``model``."""
    texts = [stimulus.text for stimulus in manifest.stimuli]
    disk = None
    if model.rows is not None and model.hidden is not None:
        spans = sum(stimulus.span is not None for stimulus in manifest.stimuli)
        vectors = (len(study.POOLINGS) - 1) * len(texts) + spans
        vector = model.hidden * FLOAT16_BYTES + EXPONENT_BYTES
        disk = model.rows * (vectors * vector + len(texts) * ABSMAX_BYTES)
    tokens = sum(map(len, texts)) / CHARACTERS_PER_TOKEN
    text_bytes = sum(len(text.encode()) for text in texts)
    return JobSize(len(texts), tokens, text_bytes, disk, model.weight_bytes)


def human_bytes(count: int | None) -> str:
    """Return ``count`` in decimal units."""
    if count is None:
        return "unknown"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
