"""Flags of ``batch_runner.py``, apart from it so that ``--help`` answers before Modal is imported.

Modal's objects have to stand at the top level of ``batch_runner.py``, and its client takes a second
to import.
"""

from __future__ import annotations

import argparse
import sys

import study


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser; the Modal entrypoint gives its arguments to the same one."""
    parser = study.common_parser(
        "batch_runner.py",
        "Extract the activations of every variant (Modal, or --local).",
        "variants",
        "device",
        "dtype",
        "batch-size",
        "overwrite",
    )
    parser.add_argument("--local", action="store_true", help="compute on this machine")
    parser.add_argument(
        "--parallel", action="store_true", help="Modal: one container per variant at the same time"
    )
    parser.add_argument(
        "--gpu", type=str.upper, metavar="NAME", help="Modal: another GPU than the default A10"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the size of the job and stop")
    return parser


def answer_help(name: str) -> None:
    """Answer ``--help`` and leave, where the module called ``name`` runs as the script."""
    if name == "__main__" and not {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        build_parser().parse_args()
