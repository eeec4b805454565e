"""Estimates of an extraction before it is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aya_probes.extraction import job_size
from aya_probes.models import hub
from aya_probes.stimuli import Manifest
from aya_probes.suites import Variant


@dataclass(frozen=True)
class Gpu:
    """A GPU that Modal rents out."""

    name: str
    """As Modal calls it."""
    price: float
    """Dollars an hour."""
    tflops: float
    """Dense bf16 TFLOP/s."""
    timeout_s: float
    """Seconds after which Modal stops a variant."""


def print_estimate(manifest: Manifest, variants: Sequence[Variant], gpu: Gpu | None) -> None:
    """Print texts, tokens, bytes, disk, time and cost of each variant; nothing is loaded or spent.

    Without a ``gpu`` the time is that on this CPU.
    """
    print(f"suite {manifest.suite.name}, estimates; nothing is computed, fetched or spent")
    dollars = 0.0
    cpu_rate = job_size.cpu_flop_per_s() * job_size.CPU_SHARE if gpu is None else 0.0
    for variant in variants:
        remote = variant.repo if not variant.package else None
        repository = hub.Repository(remote, f"variant {variant.name}", "") if remote else None
        model = job_size.describe_model(variant, repository)
        size = job_size.job_size(manifest, model)
        line = (
            f"{variant.name}: {size.texts:,} texts ({_human_bytes(size.text_bytes)}), "
            f"about {size.tokens:,.0f} tokens; weights {_human_bytes(size.weight_bytes)}; "
            f"activations {_human_bytes(size.disk_bytes)} on disk"
        )
        if gpu is None:
            seconds = size.seconds(cpu_rate)
            line += f"; time in float32 on this CPU {_human_time(seconds)}"
        else:
            seconds = size.seconds(gpu.tflops * 1e12 * job_size.GPU_SHARE)
            cost = None if seconds is None else seconds / 3600 * gpu.price
            dollars += cost or 0.0
            line += f"; on {gpu.name} " + (
                "time and cost unknown" if seconds is None else f"{seconds:.0f} s, ${cost:.2f}"
            )
        print(line + (f" (unknown: {model.why_unknown})" if model.why_unknown else ""))
    if gpu is not None:
        print(
            f"together about ${dollars:.2f} of GPU time; a first run also fetches the weights; "
            f"stopped after {_human_time(gpu.timeout_s)} a variant"
        )


def _human_bytes(count: int | None) -> str:
    """Return ``count`` in decimal units."""
    if count is None:
        return "unknown"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _human_time(seconds: float | None) -> str:
    """Return ``seconds`` as seconds, minutes or hours."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
