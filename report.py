"""Write the report of a run: findings, figures, tables, methods and provenance in one file.

The file opens from disk and needs no network.

Reads:  results/
Writes: results/report.html

    uv run report.py --run-dir runs/mine
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aya_probes import command_line
from aya_probes.run_folder import RunPaths


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser("report.py", "Write the report of a run as one HTML file.")


def run(args: argparse.Namespace) -> None:
    """Write the report and print its path."""
    from aya_probes.html_report import document

    print(document.save(RunPaths(args.run_dir)))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and write; returns the exit code."""
    args = build_parser().parse_args(argv)
    return command_line.run_stage("report.py", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
