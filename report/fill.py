"""Fill the tables of the documents from the results, so that no number in them is typed by hand.

Each table stands between ``<!-- table:NAME -->`` and ``<!-- /table -->``. ``--check`` changes
nothing and exits 1 if a table is out of date.

Reads:  results/, runs/mini-flores/results/, benchmarks/results/, docs/*.json,
        data/adapters/mini/*/card.json, data/perturbations.json, data/stimuli_review.csv
Writes: REPORT.md, README.md, docs/{artifacts,models,performance,stimuli,validation}.md

    uv run report/fill.py
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import findings
import tables_alignment
import tables_contrasts
import tables_corpus
import tables_evidence
import tables_models
import tables_performance
import tables_records
import tables_stimuli
from aya_probes import command_line, errors, files, project
from aya_probes.errors import StudyError
from aya_probes.run_folder import RunPaths

MAKE = "uv run report/fill.py"
DOCUMENTS = tuple(
    project.ROOT / name
    for name in (
        "REPORT.md",
        "README.md",
        "docs/artifacts.md",
        "docs/models.md",
        "docs/performance.md",
        "docs/stimuli.md",
        "docs/validation.md",
    )
)
_FUNCTIONS = (
    *tables_alignment.TABLES,
    *tables_corpus.TABLES,
    *tables_contrasts.TABLES,
    *tables_stimuli.TABLES,
    *tables_evidence.TABLES,
    *findings.TABLES,
)
TABLES: dict[str, Callable[[RunPaths], str]] = {
    **{function.__name__: function for function in _FUNCTIONS},
    **tables_performance.TABLES,
    **tables_models.TABLES,
    **tables_records.TABLES,
}


def fill(text: str, paths: RunPaths, source: Path) -> str:
    """Return ``text`` with every table replaced by what the results say."""

    def table(match: re.Match[str]) -> str:
        if match[1] not in TABLES:
            raise StudyError(f"{source}: {errors.unknown('table', match[1], TABLES)}")
        return f"<!-- table:{match[1]} -->\n{TABLES[match[1]](paths)}\n<!-- /table -->"

    return re.sub(r"<!-- table:(\w+) -->.*?<!-- /table -->", table, text, flags=re.DOTALL)


def run(paths: RunPaths, *, check: bool) -> list[Path]:
    """Fill the documents, or with ``check`` raise StudyError if that would change one."""
    filled = {path: fill(path.read_text(encoding="utf-8"), paths, path) for path in DOCUMENTS}
    for path, text in filled.items():
        if text == path.read_text(encoding="utf-8"):
            continue
        if check:
            raise StudyError(f"{path}: a table disagrees with the results; fill it with: {MAKE}")
        with files.atomic_write(path) as handle:
            handle.write(text.encode())
    return list(filled)


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    parser = command_line.common_parser("report/fill.py", "Fill the tables of the documents.")
    parser.add_argument("--check", action="store_true", help="only compare, exit 1 on a difference")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and fill; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        for path in run(RunPaths(args.run_dir), check=args.check):
            print(path)

    return command_line.run_stage("report/fill.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
