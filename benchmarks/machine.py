"""The machine under a benchmark: how it is described, and how time and memory are taken on it."""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aya_probes import command_line, project

RESULTS = project.ROOT / "benchmarks" / "results"
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def describe(*packages: str) -> dict[str, Any]:
    """Return processor, memory and versions; nothing that names a host, a user or a path."""
    flags, model = "", platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        first = info.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        pairs = (line.partition(":") for line in first)
        fields = {name.strip(): value.strip() for name, _, value in pairs}
        flags, model = fields.get("flags", ""), fields.get("model name", model)
        model += f" (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_vnni")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "instructions": [name for name in wanted if name in flags.split()],
        "memory_gib": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**30, 1) if pages else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def run_on_one_thread() -> None:
    """Start this script again with one thread, unless the environment asks for that already.

    The numerical libraries read the variables once, when they are imported.
    """
    wanted = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    wanted["TOKENIZERS_PARALLELISM"] = "false"
    if not wanted.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of ``work``, all threads of this process together."""
    started = time.process_time()
    work()
    return time.process_time() - started


def _resident(field: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no {field}")


def extra_peak_bytes(work: Callable[[], object]) -> int | None:
    """Return by how much ``work`` raises the resident memory at its peak (None off Linux)."""
    if not _CLEAR.exists():
        work()
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier work freed must not hide the peak
    _CLEAR.write_text("5", encoding="ascii")  # resets the peak
    before = _resident("VmRSS")
    work()
    return max(0, _resident("VmHWM") - before)


def spread(values: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """Return median, smallest and largest of some measurements, and how many they are."""
    return {
        "median": float(f"{statistics.median(values):.{digits}g}"),
        "min": float(f"{min(values):.{digits}g}"),
        "max": float(f"{max(values):.{digits}g}"),
        "n": len(values),
    }


def parser(prog: str, description: str, result: str) -> argparse.ArgumentParser:
    """Return a benchmark's parser: ``--quick``, ``--rounds`` and ``--out``."""
    made = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    made.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs")
    made.add_argument(
        "--rounds", type=command_line.positive_int, metavar="N", help="rounds measured"
    )
    made.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"where the numbers go (default benchmarks/results/{result}; not with --quick)",
    )
    return made


def save(args: argparse.Namespace, result: str, data: dict[str, Any]) -> None:
    """Write the numbers as JSON; a ``--quick`` run is only kept where ``--out`` says so."""
    path = args.out or (None if args.quick else RESULTS / result)
    if path is None:
        print("quick run: not saved")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"wrote {path}")
