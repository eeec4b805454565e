"""What an extraction costs, on paper: operations, seconds, bytes.

A token costs two operations a weight of the decoder's matrices; all else (attention, norms,
pooling) is the share by which a run misses the floor. What a GPU does is assumed, not measured: the
constants of ``extraction/job_size.py``, which ``--dry-run`` uses too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import modal_config
from extraction import job_size

CALIBRATION = "A probes"  # the case that sets rate and share; the others are predicted from it

# Tiny Aya, published shape: 36 layers, hidden 2048, FFN 11,008, 4 of 16 heads of 128 for keys.
LAYERS, HIDDEN, FFN, KEYS = 36, 2048, 11_008, 512
TINY_AYA_WEIGHTS = LAYERS * (2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS + 3 * HIDDEN * FFN)
TINY_AYA_BYTES = 3_349_227_520 * 2  # all parameters in bf16
TOKENS_PER_TEXT = 105_000 / 2_600  # the ten languages of the study
PROBES, PARALLEL = 60, 200  # texts a language
A10_DOLLARS, A10_TFLOPS = modal_config.GPUS["A10"]
A10_FLOP_PER_S = A10_TFLOPS * 1e12 * job_size.GPU_SHARE


@dataclass(frozen=True)
class Job:
    """A study's extraction on a GPU: per variant unless it says otherwise."""

    texts: int
    tokens: int
    flop: float  # of all variants
    compute_s: float  # of all variants
    sequential_s: float
    parallel_s: float
    dollars: float
    parallel_dollars: float
    disk_bytes: float  # of all variants


def tiny_aya(languages: int, variants: int) -> Job:
    """Return the cost of extracting Tiny Aya variants over so many languages."""
    texts = languages * (PROBES + PARALLEL)
    tokens = round(texts * TOKENS_PER_TEXT)
    one = 2.0 * TINY_AYA_WEIGHTS * tokens
    seconds = one / A10_FLOP_PER_S
    load = TINY_AYA_BYTES / job_size.READ_BYTES_PER_S
    sequential = job_size.START_S + variants * (load + seconds)
    parallel = job_size.START_S + load + seconds
    return Job(
        texts,
        tokens,
        one * variants,
        seconds * variants,
        sequential,
        parallel,
        sequential / 3600 * A10_DOLLARS,
        parallel * variants / 3600 * A10_DOLLARS,
        variants * job_size.disk_bytes(texts, languages * PROBES, LAYERS + 2, HIDDEN),
    )


def predictions(cases: dict[str, Any]) -> Iterator[tuple[str, int, float, dict[str, Any]]]:
    """Yield name, tokens, predicted and measured CPU seconds of every case but ``CALIBRATION``.

    Seconds = tokens x operations a token / (rate x share), rate and share of the latter.
    """
    if CALIBRATION not in cases:
        return
    known = cases[CALIBRATION]
    rate = known["gflop_per_s"]["ours"]["median"] * 1e9
    share = known["ways"]["ours"]["floor_share"]["median"]
    for name, case in cases.items():
        if name != CALIBRATION:
            seconds = case["tokens"] * case["flop_per_token"] / (rate * share)
            yield name, case["tokens"], seconds, case["ways"]["ours"]["cpu_s"]
