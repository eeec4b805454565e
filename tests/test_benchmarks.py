"""The benchmark of extraction runs as a process, and what it times is exact."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
