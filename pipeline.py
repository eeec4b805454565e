"""Run every stage in order: stimuli, extraction, alignment, failures, figures.

A thin runner over each script's ``main``; stages that are finished are skipped by themselves.

    uv run pipeline.py
    uv run pipeline.py --suite mini-flores --flores-dir PATH --run-dir runs/mini-flores
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from aya_probes import command_line, run_folder, suites

FIGURES = ("viz.alignment_curves", "viz.annotated_curve", "viz.heatmap")


def build_parser() -> argparse.ArgumentParser:
    """Return the runner's parser."""
    parser = command_line.common_parser(
        "pipeline.py",
        "Run every stage of the study on this machine.",
        "variants",
        "languages",
        "concepts",
        "device",
        "dtype",
        "limit",
        "seed",
        "overwrite",
    )
    parser.add_argument("--suite", default=suites.DEFAULT_SUITE, help="suite name or TOML path")
    parser.add_argument("--corpus", choices=suites.CORPORA, help="default: the suite's")
    parser.add_argument("--flores-dir", type=Path, metavar="DIR", help="FLORES-200 folder")
    return parser


def stage_arguments(args: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """Return each stage's module and its command line."""

    def flags(*names: str) -> list[str]:
        line = ["--run-dir", str(args.run_dir)]
        for name in names:
            value = getattr(args, name.replace("-", "_"))
            if value is True:
                line.append(f"--{name}")
            elif value is not None and value is not False:
                line += [f"--{name}", ",".join(value) if isinstance(value, tuple) else str(value)]
        return line

    return [
        ("build_stimuli", flags("suite", "corpus", "flores-dir", "languages", "concepts", "limit")),
        ("batch_runner", [*flags("variants", "device", "dtype", "overwrite"), "--local"]),
        ("concept_alignment", flags("variants", "seed")),
        ("failure_classifier", flags("variants", "seed")),
        *((name, flags()) for name in FIGURES),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages until one fails; returns its exit code."""
    args = build_parser().parse_args(argv)
    paths = run_folder.RunPaths(args.run_dir)
    started = time.monotonic()
    for name, line in stage_arguments(args):
        print(f"--- {name.replace('.', '/')}.py", flush=True)
        code = int(importlib.import_module(name).main(line))
        if code:
            print(f"pipeline.py: stopped at {name.replace('.', '/')}.py", file=sys.stderr)
            return code
    print(f"\nDone in {time.monotonic() - started:.0f} s. Wrote:")
    for path in (
        paths.curves,
        paths.commitment,
        paths.contrasts,
        paths.failure_cases,
        paths.edge_cases,
        *sorted(paths.assets.glob("*.png")),
    ):
        print(f"  {path}")
    print(f"Look at it: uv run app.py --demo{paths.flag()}")
    return 0


if __name__ == "__main__":
    command_line.exit_process(main())
