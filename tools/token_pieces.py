"""Save the text of every token of the probes, which the page shows in its view of tokens.

It reads the tokenizer of the suite's variant and no weights of the model beyond its folder.

Reads:  results/token_audit.json, results/alignment_curves.json
Writes: results/token_pieces.json

    uv run tools/token_pieces.py --suite mini
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from aya_probes import command_line, files, suites
from aya_probes.errors import StudyError
from aya_probes.run_folder import RunPaths


def run(paths: RunPaths, suite: str) -> Path:
    """Write the text of each token by its id; returns the path written.

    Raises StudyError if the tokenizer does not have a token of the audit.
    """
    audit = files.load_json(paths.token_audit, files.MAKE_CURVES)
    variant = suites.load_suite(suite).variant(audit["variant"])
    from aya_probes.models import loading

    tokenizer = loading.read_tokenizer(variant, loading.resolve_source(variant))
    ids = sorted({n for probe in audit["probes"].values() for n in probe["token_ids"]})
    pieces = tokenizer.convert_ids_to_tokens(ids)
    unknown = [n for n, piece in zip(ids, pieces, strict=True) if piece is None]
    if unknown:
        raise StudyError(
            f"{paths.token_audit}: token {unknown[0]} is not one of {audit['variant']} of suite "
            f"{suite}; name the suite that the run was made with"
        )
    found = {str(n): piece for n, piece in zip(ids, pieces, strict=True)}
    files.save_json(paths.token_pieces, found)
    return paths.token_pieces


def build_parser() -> argparse.ArgumentParser:
    """Return the tool's parser."""
    parser = command_line.common_parser("tools/token_pieces.py", "Save the text of tokens.")
    parser.add_argument("--suite", default=suites.DEFAULT_SUITE, help="suite name or TOML path")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and save; returns the exit code."""
    args = build_parser().parse_args(argv)
    return command_line.run_stage(
        "tools/token_pieces.py", lambda: print(run(RunPaths(args.run_dir), args.suite))
    )


if __name__ == "__main__":
    raise SystemExit(main())
