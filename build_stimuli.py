"""Build the stimulus manifest: concept probes, parallel corpus and perturbation pairs.

The suite is chosen only here. The manifest contains the whole suite, and later stages read it from
there.

Reads:  data/suites/<suite>.toml, data/concept_probes.json, data/perturbations.json, the corpus
Writes: data/stimulus_manifest.json

    uv run build_stimuli.py
    uv run build_stimuli.py --suite mini-flores --flores-dir PATH --run-dir runs/mini-flores

``--show ID`` writes nothing. It prints one sentence and what depends on it, for people who correct
sentences:

    uv run build_stimuli.py --show C08-hi-1
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from aya_probes import command_line, suites
from aya_probes.run_folder import RunPaths


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    parser = command_line.common_parser(
        "build_stimuli.py",
        "Build the stimulus manifest of a suite.",
        "languages",
        "concepts",
        "limit",
    )
    parser.add_argument(
        "--suite",
        default=suites.DEFAULT_SUITE,
        help=f"{', '.join(suites.suite_names())}, or a TOML path (default mini)",
    )
    parser.add_argument("--corpus", choices=suites.CORPORA, help="corpus (default: the suite's)")
    parser.add_argument(
        "--flores-dir",
        type=Path,
        metavar="DIR",
        help="FLORES-200 folder with devtest/*.devtest (default: Hugging Face hub)",
    )
    parser.add_argument(
        "--parallel-dir",
        type=Path,
        metavar="DIR",
        help="folder of line-parallel texts named after their languages (hi.txt) as the corpus",
    )
    parser.add_argument(
        "--show",
        metavar="ID",
        help="only print a probe (such as C08-hi-1) or a pair, and what depends on it",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and build the manifest; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        from aya_probes import build_manifest, power, sentences

        suite = suites.load_suite(args.suite)
        if args.show is not None:
            print(sentences.describe(suite, args.show))
            return
        config = build_manifest.Config(
            suite,
            RunPaths(args.run_dir),
            args.corpus or ("parallel" if args.parallel_dir else suite.corpus),
            args.flores_dir,
            args.limit,
            args.languages,
            args.concepts,
            args.parallel_dir,
        )
        path, manifest = build_manifest.run(config)
        counts = ", ".join(f"{n} {kind}" for kind, n in manifest.metadata["counts"].items())
        print(
            f"suite {suite.name}: {counts} stimuli in {len(manifest.suite.languages)} languages "
            f"in {path}"
        )
        for line in power.describe(manifest):
            print(line)

    return command_line.run_stage("build_stimuli.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
