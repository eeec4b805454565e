"""Run all stages in order: stimuli, extraction, alignment, failures, figures and report.

Stages whose results are up to date are skipped.

    uv run pipeline.py
    uv run pipeline.py --suite mini-flores --flores-dir PATH --run-dir runs/mini-flores
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from aya_probes import command_line, run_folder, suites

Stage = tuple[str, Callable[[list[str]], int], list[str]]


def build_parser() -> argparse.ArgumentParser:
    """Return the runner's parser."""
    parser = command_line.common_parser(
        "pipeline.py",
        "Run all stages of the study on this machine.",
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
    parser.add_argument("--corpus", choices=suites.CORPORA, help="corpus (default: the suite's)")
    parser.add_argument("--flores-dir", type=Path, metavar="DIR", help="FLORES-200 folder")
    parser.add_argument(
        "--parallel-dir", type=Path, metavar="DIR", help="folder of line-parallel texts"
    )
    return parser


def _flags(args: argparse.Namespace, *names: str) -> list[str]:
    """Return the named flags of the runner as the command line of a stage."""
    line = ["--run-dir", str(args.run_dir)]
    for name in names:
        value = getattr(args, name.replace("-", "_"))
        if value is True:
            line.append(f"--{name}")
        elif value is not None and value is not False:
            line += [f"--{name}", ",".join(value) if isinstance(value, tuple) else str(value)]
    return line


def list_stages(args: argparse.Namespace) -> Iterator[Stage]:
    """Yield the name, entry point and command line of each stage, imported when it runs."""
    import build_stimuli

    names = ("suite", "corpus", "flores-dir", "parallel-dir", "languages", "concepts", "limit")
    yield "build_stimuli.py", build_stimuli.main, _flags(args, *names)
    import batch_runner

    line = _flags(args, "variants", "device", "dtype", "overwrite")
    yield "batch_runner.py", batch_runner.main, [*line, "--local"]
    import concept_alignment
    import failure_classifier

    line = _flags(args, "variants", "seed", "overwrite")
    yield "concept_alignment.py", concept_alignment.main, line
    yield "failure_classifier.py", failure_classifier.main, line
    from viz import alignment_curves, annotated_curve, contrasts, heatmap, hero, language_map

    yield "viz/hero.py", hero.main, _flags(args)
    yield "viz/alignment_curves.py", alignment_curves.main, _flags(args)
    yield "viz/annotated_curve.py", annotated_curve.main, _flags(args)
    yield "viz/heatmap.py", heatmap.main, _flags(args)
    yield "viz/contrasts.py", contrasts.main, _flags(args)
    yield "viz/language_map.py", language_map.main, _flags(args)
    import report

    yield "report.py", report.main, _flags(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages until one fails; returns its exit code, or 0."""
    args = build_parser().parse_args(argv)
    paths = run_folder.RunPaths(args.run_dir)
    started = time.monotonic()
    for name, stage, line in list_stages(args):
        print(f"--- {name}", flush=True)
        code = stage(line)
        if code:
            print(f"pipeline.py: stopped at {name}", file=sys.stderr)
            return code
    print(f"\nDone in {time.monotonic() - started:.0f} s. Results in {paths.results}:")
    for path in (
        paths.curve_table,
        paths.curves,
        paths.commitment,
        paths.contrasts,
        paths.failure_cases,
        paths.edge_cases,
        *sorted(paths.assets.glob("*.png")),
        paths.report,
    ):
        print(f"  {path}")
    print(f"Browse them: uv run app.py --demo{paths.flag()}")
    return 0


if __name__ == "__main__":
    command_line.exit_process(main())
