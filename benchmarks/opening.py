"""Measure how long a user waits: ``--help`` of every script, the analysis, the demo, the tests.

Wall time of whole processes, as a user sees it. What needs something that is not here (extracted
activations, the demo's server) is skipped with the reason.

Writes: benchmarks/results/opening.json

    uv run benchmarks/opening.py
    uv run benchmarks/opening.py --pytest --pipeline   # the tests and a first run too: ten minutes
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import study
from benchmarks import machine

STAGES = (
    "pipeline.py",
    "build_stimuli.py",
    "batch_runner.py",
    "concept_alignment.py",
    "failure_classifier.py",
    "train_adapters.py",
    "app.py",
    "viz/alignment_curves.py",
    "viz/annotated_curve.py",
    "viz/heatmap.py",
    "viz/published_reanalysis.py",
    "viz/report_tables.py",
    "benchmarks/validation.py",
)
BARS_S = {"help": 1.0, "analysis": 90.0, "demo": 5.0, "pytest": 180.0}
DEMO_LIMIT_S = 120.0


def run_seconds(command: Sequence[str]) -> float:
    """Return the wall time of a command; raises StudyError with its last words if it fails."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=study.ROOT, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - started
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise study.StudyError(f"{' '.join(command[1:])}: exit code {done.returncode}: {words}")
    return taken


def help_times(scripts: Sequence[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Return the time of each script's ``--help``, the scripts interleaved."""
    seconds: dict[str, list[float]] = {name: [] for name in scripts}
    for _ in range(rounds):
        for name in scripts:
            seconds[name].append(run_seconds([sys.executable, name, "--help"]))
    return {name: machine.spread(values) for name, values in seconds.items()}


def analysis_time() -> dict[str, Any]:
    """Return the time of ``concept_alignment.py`` on the repository's own activations."""
    paths = study.RunPaths()
    if not paths.manifest.is_file() or not any(paths.activations.glob("*/plan.json")):
        return {
            "skip": "no activations here: uv run build_stimuli.py, then batch_runner.py --local"
        }
    with tempfile.TemporaryDirectory() as scratch:  # the repository's own results stay
        run = Path(scratch)
        (run / "data").mkdir()
        (run / "data" / "stimulus_manifest.json").symlink_to(paths.manifest)
        (run / "activations").symlink_to(paths.activations)
        command = [sys.executable, "concept_alignment.py", "--run-dir", str(run)]
        return machine.spread([run_seconds(command)])


def demo_time(rounds: int) -> dict[str, Any]:
    """Return the time from starting ``app.py --demo`` to the first page it serves."""
    return machine.spread([_first_page() for _ in range(rounds)])


def _first_page() -> float:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "app.py", "--demo", "--port", str(port)],
        cwd=study.ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while time.perf_counter() - started < DEMO_LIMIT_S:
            if server.poll() is not None:
                raise study.StudyError(f"app.py --demo ended with exit code {server.returncode}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    page.read()
                    return time.perf_counter() - started
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.02)
        raise study.StudyError(f"app.py --demo served no page within {DEMO_LIMIT_S:.0f} s")
    finally:
        server.terminate()
        server.wait()


def pipeline_times() -> dict[str, Any]:
    """Return wall time and peak memory of ``pipeline.py`` without any cache, and once more."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "pipeline.py", "--run-dir", f"{scratch}/run"]
        environment = {**os.environ, "AYA_PROBES_CACHE": f"{scratch}/cache"}
        return {
            name: _whole_run(command, environment, Path(scratch) / "run")
            for name in ("first run, embedded weights converted", "second run")
        }


def _whole_run(command: Sequence[str], environment: dict[str, str], run: Path) -> dict[str, Any]:
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(command, cwd=study.ROOT, env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        taken = time.perf_counter() - started
        if child.returncode:
            log.seek(0)
            words = log.read().strip().splitlines()[-1:]
            raise study.StudyError(f"pipeline.py: exit code {child.returncode}: {words}")
    ours, committed = study.RunPaths(run).results, study.RunPaths().results
    names = [path.name for path in ours.iterdir() if path.suffix in (".json", ".csv")]
    same = [name for name in names if (ours / name).read_bytes() == (committed / name).read_bytes()]
    return {
        "wall_s": round(taken, 1),
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 2),  # Linux counts in KiB
        "files": len(names),
        "files_as_committed": len(same),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, save."""
    parser = machine.parser("benchmarks/opening.py", "Measure waiting times.", "opening.json")
    parser.add_argument("--pytest", action="store_true", help="time the default tests too")
    parser.add_argument("--pipeline", action="store_true", help="time pipeline.py, uncached, too")
    args = parser.parse_args(argv)
    rounds = args.rounds or (1 if args.quick else 5)
    times: dict[str, Any] = {"help": help_times(STAGES[:2] if args.quick else STAGES, rounds)}
    for name, spread in times["help"].items():
        print(f"{name + ' --help':<34} {spread['median']:6.2f} s (bar {BARS_S['help']:.0f} s)")
    if not args.quick:
        times["analysis"] = analysis_time()
        times["demo"] = demo_time(min(3, rounds))
        if args.pytest:
            command = [sys.executable, "-m", "pytest", "-q", "-x"]
            times["pytest"] = machine.spread([run_seconds(command)])
        if args.pipeline:
            times["pipeline"] = pipeline_times()
            print(times["pipeline"])
    for name, spread in ((n, times[n]) for n in ("analysis", "demo", "pytest") if n in times):
        shown = f"SKIP: {spread['skip']}" if "skip" in spread else f"{spread['median']:6.2f} s"
        print(f"{name:<34} {shown} (bar {BARS_S[name]:.0f} s)")
    described = machine.describe("modal", "gradio", "numpy", "scipy", "pandas")
    machine.save(
        args,
        "opening.json",
        {"machine": described, "rounds": rounds, "bars_s": BARS_S, "times": times},
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(study.run_stage("benchmarks/opening.py", main))
