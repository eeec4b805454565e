"""Measure how well each variant predicts the texts, and how well it understands them.

Surprisal is −log P of a text. Comprehension asks in a translation frame which of at least five
pivot sentences a text means. A language that the reference variant does not comprehend above chance
is marked as untestable.

Reads:  data/stimulus_manifest.json, data/behaviour_frames.toml
Writes: activations/<variant>/behaviour.{json,safetensors}, results/behaviour.csv,
        results/behaviour_summary.csv; with --sample whole also results/behaviour_tests.csv and
        results/behaviour_cases.csv

    uv run behaviour.py
    uv run behaviour.py --sample whole --device cuda
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from aya_probes import command_line, signals
from aya_probes.run_folder import RunPaths

PROG = "behaviour.py"


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    parser = command_line.common_parser(
        PROG,
        "Measure surprisal and comprehension of every variant.",
        "variants",
        "device",
        "dtype",
        "limit",
        "seed",
        "overwrite",
    )
    parser.add_argument(
        "--sample",
        choices=("small", "whole"),
        default="small",
        help="small: probes and 40 parallel items, one frame a text (two CPU cores); whole: every "
        "text, every frame, and French as a second target (default small)",
    )
    parser.add_argument(
        "--frames",
        type=Path,
        metavar="FILE",
        help="file of prompts (default data/behaviour_frames.toml)",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Measure the variants that are not finished, then write the results."""
    with signals.handle_signals(PROG, signals.GRACE_S):
        _run(args)


def _run(args: argparse.Namespace) -> None:
    from aya_probes import model_stage, run_folder, stimuli
    from aya_probes.behaviour import cases, frames, measure, sampling, summary
    from aya_probes.behaviour import run as analysis

    paths = RunPaths(args.run_dir)
    manifest = stimuli.load_manifest(paths.manifest)
    suite = manifest.suite
    asked = args.variants or tuple(suite.default_names())
    variants = [suite.variant(n) for n in command_line.choose("variant", asked, suite.names())]
    sample = sampling.Sample(args.sample, args.limit, args.seed)
    stage = measure.BehaviourStage(frames.load_frames(args.frames or frames.FRAME_FILE), sample)
    options = model_stage.Options(args.device, args.dtype, args.overwrite)
    with run_folder.lock_run(paths.run_dir, PROG):
        model_stage.run_stages(paths, manifest, variants, [stage], options)
        found = analysis.summarise_run(paths, manifest, stage.settings, args.seed)
    asked_rows = [row for row in found.summary if row.chance is not None]
    untestable = sorted({r.language for r in asked_rows if not summary.is_testable(r)})
    if not asked_rows:
        print("note: comprehension was not asked: it needs probes of at least 5 concepts")
    elif untestable:
        print(f"untestable (not above chance on {found.reference}): {', '.join(untestable)}")
    if found.cases:
        chosen, short = cases.choose_cases(found.cases)
        print(f"{len(chosen)} confirmed cases and controls of {len(found.cases)} perturbed texts")
        for line in short:
            print(f"note: {line}")
    print(f"{len(found.rows)} rows in {paths.behaviour}, {len(found.summary)} in its summary")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and measure; returns the exit code."""
    args = build_parser().parse_args(argv)
    return command_line.run_stage(PROG, lambda: run(args))


if __name__ == "__main__":
    command_line.exit_process(main())
