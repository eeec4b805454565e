"""Try every fault and write what happened to docs/reliability.md.

The faults are tests (``@pytest.mark.fault(what, outcome)``), so that each row of the table is kept
true by the suite; this runs them all, the slow ones too, fuzzing deeper than the suite does.

    uv run benchmarks/reliability.py
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aya_probes import project

PAGE = project.ROOT / "docs" / "reliability.md"
FILES = (
    "test_reliability.py",
    "test_hub.py",
    "test_modal.py",
    "test_batch_runner.py",
    "test_fuzz.py",
    "test_foreign_models.py",
    "test_tokenizer_files.py",
    "test_checkpoints.py",
    "test_checkpoint_kinds.py",
    "test_gguf.py",
    "test_lora_kinds.py",
    "test_own_suites.py",
    "test_encodings.py",
)
FUZZ_EXAMPLES = 300

HEAD = """# Faults tried, and what happens

This page is written by `uv run benchmarks/reliability.py`. It runs the tests marked `fault` with
real processes and files on {machine}, and fuzzes each loader with {examples} files. "as said"
means that the test confirmed the outcome in the second column; "**FAILED**" means that it did
not. The hub is a local server that the real client libraries talk to (`tests/loopback_hub.py`).

| fault | outcome | result |
| --- | --- | --- |
"""
TAIL = """
## Not covered

- The hub's Xet storage. The local hub serves plain HTTP, but commits, file lists and hashes are
  checked in the same way.
- Resuming a download after its process was killed. Complete files are kept, but the file that was
  being downloaded starts from the beginning, because the client gives its partial file a new name
  each time.
- Modal's own service: building the image, GPUs, scheduling, its retries and timeouts, and the
  consistency of its Volumes. The client is real, but it talks to `tests/loopback_modal.py`.
- Disks that report fsync as done before the data is written.
- File systems without `flock`. The program then runs without a lock and prints a note.
- An altered adapter whose hash the suite does not give in `adapter_sha256`. The shipped suites
  give it.
- A cache or snapshot without symbolic links (Windows). The hub's hash of a file is not stored
  there, so the file is not checked.
"""


@dataclass
class Recorder:
    """A pytest plugin that keeps one row per fault."""

    marks: dict[str, tuple[str, str]] = field(default_factory=dict)
    rows: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Remember the marks; leave out what is no fault."""
        items[:] = [item for item in items if item.get_closest_marker("fault")]
        for item in items:
            self.marks[item.nodeid] = item.get_closest_marker("fault").args
            self.rows.setdefault(self.marks[item.nodeid], [])

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the outcome of a test, or of a fixture that failed."""
        if report.when != "call" and report.outcome == "passed":
            return
        measured = [str(value) for name, value in report.user_properties if name == "measured"]
        result = {"passed": "as said", "failed": "**FAILED**"}.get(report.outcome, "not tried here")
        text = "; ".join([result, *measured])
        row = self.rows[self.marks[report.nodeid]]
        if text not in row:
            row.append(text)

    def table(self) -> str:
        """Return the rows in the order in which they ran."""
        return "".join(
            f"| {what} | {outcome} | {'; '.join(results) or 'not run'} |\n"
            for (what, outcome), results in self.rows.items()
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the faults, write the page; returns pytest's exit code."""
    parser = argparse.ArgumentParser(description="Try every fault; write docs/reliability.md.")
    parser.add_argument("--output", type=Path, default=PAGE, help="default docs/reliability.md")
    args = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("FUZZ_EXAMPLES", str(FUZZ_EXAMPLES))
    os.chdir(project.ROOT)
    recorder = Recorder()
    files = [f"tests/{name}" for name in FILES if (project.ROOT / "tests" / name).is_file()]
    code = int(pytest.main([*files, "-m", "fault and not gpu and not network"], [recorder]))
    machine = f"{platform.system()}, Python {platform.python_version()}"
    head = HEAD.format(machine=machine, examples=os.environ["FUZZ_EXAMPLES"])
    args.output.write_text(head + recorder.table() + TAIL, encoding="utf-8")
    print(f"{len(recorder.rows)} faults in {args.output}")
    return code


if __name__ == "__main__":
    sys.exit(main())
