"""Measure what the README's command costs: ``pipeline.py`` on suite mini, the first and second run.

The first run starts without converted weights and without activations. The peak is the largest
resident memory of any one process of the run.

Writes: benchmarks/results/pipeline_cost.json

    uv run benchmarks/pipeline_cost.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import machine
from aya_probes import command_line, project


def measure(folder: Path, flags: Sequence[str]) -> dict[str, float]:
    """Run the pipeline into ``folder``, weight cache included; returns seconds and peak GB."""
    line = [sys.executable, str(project.ROOT / "pipeline.py"), "--run-dir", str(folder / "run")]
    line += flags
    environment = {**os.environ, "AYA_PROBES_CACHE": str(folder / "cache")}
    started = time.monotonic()
    process = subprocess.Popen(line, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if code := os.waitstatus_to_exitcode(status):
        raise subprocess.CalledProcessError(code, line)
    return {"seconds": round(seconds, 1), "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 2)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the pipeline twice and save what each run cost."""
    parser = machine.parser(
        "benchmarks/pipeline_cost.py", "Measure pipeline.py.", "pipeline_cost.json"
    )
    args = parser.parse_args(argv)
    flags = ["--limit", "10", "--variants", "base,untrained"] if args.quick else []
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: measure(Path(folder), flags) for name in ("first", "second")}
    described = machine.describe("torch", "transformers", "numpy")
    machine.save(args, "pipeline_cost.json", {"machine": described, "runs": runs})
    return 0


if __name__ == "__main__":
    raise SystemExit(command_line.run_stage("benchmarks/pipeline_cost.py", main))
