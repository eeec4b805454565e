"""Measure alignment by variant, language pair and layer, with controls and intervals.

Reads:  data/stimulus_manifest.json, activations/<variant>/
Writes: results/alignment_curves.json, curves.csv, commitment_matrix.csv, contrasts.csv,
        language_map.csv, token_audit.json

    uv run concept_alignment.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aya_probes import command_line
from aya_probes.run_folder import RunPaths


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser(
        "concept_alignment.py",
        "Measure cross-lingual alignment with controls and intervals.",
        "variants",
        "languages",
        "concepts",
        "seed",
        "overwrite",
        "n-bootstrap",
        "n-permutations",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and measure; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        from aya_probes.alignment import run
        from aya_probes.alignment.inputs import Config

        results, computed = run.run(
            Config(
                RunPaths(args.run_dir),
                args.variants,
                args.languages,
                args.concepts,
                args.n_bootstrap,
                args.n_permutations,
                args.seed,
                args.overwrite,
            )
        )
        path = RunPaths(args.run_dir).curves
        state = "in" if computed else "up to date, skipped:"
        print(f"{run.summary(results)} {state} {path}")

    return command_line.run_stage("concept_alignment.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
