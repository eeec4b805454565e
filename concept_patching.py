"""Patch concepts between languages: what moves, at which layers, and what does not.

The residual stream at a concept's word is put into a prompt that asks for another concept in
another language, at each layer; controls, tests and contrasts are in docs/adr/018-patching.md.

Reads:  data/stimulus_manifest.json, data/prompts.toml, the suite's probes and models
Writes: activations/<variant>/patching.json, .safetensors
        results/concept_patching.csv, concept_patching.json, patching_contrasts.csv

    uv run concept_patching.py
    uv run concept_patching.py --variants base --targets en --limit 10
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aya_probes import command_line, signals
from aya_probes.run_folder import RunPaths

PROG = "concept_patching.py"


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    parser = command_line.common_parser(
        PROG,
        "Patch concepts between languages, with controls and intervals.",
        "variants",
        "languages",
        "device",
        "dtype",
        "seed",
        "overwrite",
        "shots",
        "prompts",
        "n-bootstrap",
        "n-permutations",
    )
    parser.add_argument(
        "--targets",
        type=command_line.comma_list,
        metavar="en,fr",
        help="languages of answers that are tried (default: all)",
    )
    parser.add_argument(
        "--limit",
        type=command_line.positive_int,
        metavar="N",
        help="use only the first N concepts (at least 8)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and patch; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        from aya_probes import prompts
        from aya_probes.patching import run

        config = run.Config(
            paths=RunPaths(args.run_dir),
            variants=args.variants,
            languages=args.languages,
            targets=args.targets,
            limit=args.limit,
            frames=args.prompts or prompts.DEFAULT_PATH,
            shots=args.shots or prompts.SHOTS,
            n_bootstrap=args.n_bootstrap,
            n_permutations=args.n_permutations,
            seed=args.seed,
            device=args.device,
            dtype=args.dtype,
            overwrite=args.overwrite,
        )
        with signals.handle_signals(PROG):
            results = run.run(config)
        print(f"{run.summary(results)} in {config.paths.results / 'concept_patching.csv'}")

    return command_line.run_stage(PROG, stage)


if __name__ == "__main__":
    command_line.exit_process(main())
