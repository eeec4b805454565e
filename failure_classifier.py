"""Attribute failures: measure how perturbing a text changes alignment on each regional variant.

A perturbed text can be further from what its parent's meaning has in other languages than its
parent is. This stage measures how much further on each regional variant, compared with the control
variant (the formula is in aya_probes/failures/effects.py). For texts that mix languages it also
measures what their borrowed words bring alone. It chooses test cases for a language router.

Reads:  data/stimulus_manifest.json, data/perturbations.json, activations/<variant>/
Writes: results/failure_cases.csv, results/failure_tests.csv, results/borrowed_words.csv,
        p1_edge_cases.json

    uv run failure_classifier.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from aya_probes import command_line
from aya_probes.run_folder import RunPaths


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser(
        "failure_classifier.py",
        "Attribute failures and write edge cases.",
        "variants",
        "seed",
        "overwrite",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and measure; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        from aya_probes.failures import edge_cases, run

        paths = RunPaths(args.run_dir)
        found = run.run(run.Config(paths, args.variants, args.seed, args.overwrite))
        if found is None:
            print(f"{paths.failure_cases}: up to date, skipped")
            return
        count = len(found.edge_cases.cases)
        if not found.cases:
            missing = "regional variant" if found.texts else "perturbed text"
            print(
                f"note: nothing to measure, as this run has no {missing}; "
                f"{paths.failure_cases}, {paths.failure_tests.name} and {paths.edge_cases.name} "
                "have no rows",
                file=sys.stderr,
            )
            return
        if count < edge_cases.N_CASES:
            print(
                f"warning: only {count} of {edge_cases.N_CASES} edge cases: this run has too few "
                "perturbation pairs",
                file=sys.stderr,
            )
        print(
            f"{len(found.cases)} rows in {paths.failure_cases}, {len(found.tests)} in "
            f"{paths.failure_tests.name}, {len(found.borrowed)} in {paths.borrowed_words.name}; "
            f"{found.mislabelled} texts detected "
            f"as another category than they were made for; {count} edge cases in "
            f"{paths.edge_cases}, discriminating: {found.edge_cases.metadata.discriminating}"
        )

    return command_line.run_stage("failure_classifier.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
