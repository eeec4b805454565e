"""Ask which words each layer would say: the pivot's, the source's or the target's.

Asks every variant for words (translation, repetition, cloze), then reads each layer where the
answer is predicted through the final norm and the unembedding (logit lens), and through a lens
fitted on the run's parallel corpus. Cells that the variant does not answer above chance are
untestable, and nothing is read there.

Reads:  data/stimulus_manifest.json, data/prompts.toml, the suite's probes
Writes: activations/<variant>/lens.json and lens.safetensors, results/logit_lens.csv,
        results/logit_lens_cells.csv, results/logit_lens.json

    uv run logit_lens.py
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence

from aya_probes import command_line, signals
from aya_probes.run_folder import RunPaths

PROG = "logit_lens.py"
N_DRAWS = 2_000  # every cell and lens takes tens of tests


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    parser = command_line.common_parser(
        PROG,
        "Ask which words each layer would say, and in which language.",
        "variants",
        "languages",
        "device",
        "dtype",
        "seed",
        "overwrite",
        "shots",
        "prompts",
    )
    parser.add_argument(
        "--sources",
        type=command_line.comma_list,
        metavar="fr,es",
        help="translate from these languages (default: fr and es, or the first two)",
    )
    parser.add_argument(
        "--limit",
        type=command_line.positive_int,
        metavar="N",
        help="use only the first N concepts, at least 8",
    )
    parser.add_argument(
        "--n-permutations",
        type=command_line.positive_int,
        default=N_DRAWS,
        metavar="B",
        help=f"number of permutations and of bootstrap resamples (default {N_DRAWS})",
    )
    parser.add_argument(
        "--analyse-only", action="store_true", help="run no model: analyse what was measured"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, measure and analyse; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        from aya_probes import prompts
        from aya_probes.lens import run

        paths = RunPaths(args.run_dir)
        with signals.handle_signals(PROG):
            cells = run.run(
                run.Config(
                    paths,
                    args.variants,
                    args.languages,
                    args.sources,
                    args.limit,
                    args.shots or prompts.SHOTS,
                    args.prompts or prompts.DEFAULT_PATH,
                    args.seed,
                    args.device,
                    args.dtype,
                    args.n_permutations,
                    args.overwrite,
                    args.analyse_only,
                )
            )
        where = paths.results / "logit_lens_cells.csv"
        if cells is None:
            print(f"{where}: up to date, skipped")
            return
        testable = [cell for cell in cells if cell.status == "testable"]
        verdicts = Counter(cell.verdict for cell in testable if cell.verdict)
        said = ", ".join(f"{name} {count}" for name, count in sorted(verdicts.items()))
        print(
            f"{len(testable)} of {len(cells)} cells testable; pivot leads: {said or 'not tested'}; "
            f"in {where}"
        )

    return command_line.run_stage(PROG, stage)


if __name__ == "__main__":
    command_line.exit_process(main())
