"""Benchmarks run as processes, and what they say of exactness holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aya_probes import project


def test_what_the_extraction_benchmark_times_equals_float64_forwards(tmp_path: Path) -> None:
    out = tmp_path / "extract.json"
    script = project.ROOT / "benchmarks" / "extract.py"
    line = [sys.executable, str(script), "--quick", "--ways", "ours,ours_bf16,naive"]
    done = subprocess.run([*line, "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(out.read_text(encoding="utf-8"))["cases"].values()
    assert set(case["ways"]) == {"ours", "ours_bf16", "naive"}
    assert 0 < case["ways"]["ours"]["relative_error"] < 1e-5
    assert 0 < case["ways"]["ours_bf16"]["relative_error"] < 3e-2
    assert all(way["cpu_s"]["median"] > 0 for way in case["ways"].values())


def sweep(out: Path, *flags: str) -> dict[str, dict[str, Any]]:
    """Run the sweep over model types; returns what it found, by type."""
    line = [sys.executable, str(project.ROOT / "benchmarks" / "architectures.py"), *flags]
    done = subprocess.run([*line, "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {row["type"]: row for row in json.loads(out.read_text("utf-8"))["types"]}


def test_model_types_are_exact_or_refused(tmp_path: Path) -> None:
    found = sweep(tmp_path / "types.json", "cohere2", "falcon", "opt", "glm_moe_dsa", "bert")
    ways = {name: row["status"] for name, row in found.items()}
    assert ways == {
        "cohere2": "packed",
        "falcon": "padded",
        "opt": "packed",
        "glm_moe_dsa": "alone",
        "bert": "refused",
    }
    assert all(row["library"] == "agree" for name, row in found.items() if name != "bert")


@pytest.mark.slow
def test_every_model_type_is_what_the_table_says(tmp_path: Path) -> None:
    table = project.ROOT / "benchmarks" / "results" / "architectures.json"
    said = {row["type"]: row["status"] for row in json.loads(table.read_text("utf-8"))["types"]}
    found = sweep(tmp_path / "types.json")
    assert {name: row["status"] for name, row in found.items()} == said
