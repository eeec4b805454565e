"""The flags that stages share, and the messages and exit codes with which a stage ends."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from aya_probes import errors, project

DEVICES = ("auto", "cuda", "mps", "cpu")
DTYPES = ("auto", "float32", "bf16")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(errors.EXIT_USAGE, f"{self.prog}: {message}\n")


def comma_list(text: str) -> tuple[str, ...]:
    """Return the items of ``a,b,c``; raises ArgumentTypeError for an empty or a repeated item."""
    items = tuple(item.strip() for item in text.split(","))
    if not all(items):
        raise argparse.ArgumentTypeError(f"{text!r} is not a comma-separated list")
    if len(set(items)) != len(items):
        raise argparse.ArgumentTypeError(f"{text!r} has an item twice")
    return items


def positive_int(text: str) -> int:
    """Return a whole number of at least 1; raises ArgumentTypeError for other text."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


_FLAGS: dict[str, dict[str, Any]] = {
    "variants": {"type": comma_list, "metavar": "A,B", "help": "only these variants"},
    "languages": {"type": comma_list, "metavar": "hi,am", "help": "only these languages"},
    "concepts": {"type": comma_list, "metavar": "C01,C02", "help": "only these concepts"},
    "device": {"choices": DEVICES, "default": "auto", "help": "where to compute (default auto)"},
    "dtype": {
        "choices": DTYPES,
        "default": "auto",
        "help": "compute precision (auto: bf16 on CUDA, else float32)",
    },
    "batch-size": {
        "type": positive_int,
        "metavar": "TOKENS",
        "help": "largest number of tokens per batch (default 512 on CPU, 8192 on a GPU)",
    },
    "limit": {"type": positive_int, "metavar": "N", "help": "use only the first N parallel items"},
    "seed": {
        "type": int,
        "default": project.SEED,
        "help": f"seed of all random draws (default {project.SEED})",
    },
    "overwrite": {"action": "store_true", "help": "recompute what is up to date"},
    "n-bootstrap": {
        "type": positive_int,
        "default": 10_000,
        "metavar": "B",
        "help": "number of bootstrap resamples over concepts (default 10000)",
    },
    "n-permutations": {
        "type": positive_int,
        "default": 10_000,
        "metavar": "B",
        "help": "number of permutations of the concepts (default 10000)",
    },
    "shots": {"type": positive_int, "metavar": "N", "help": "shots of a prompt (default 5)"},
    "prompts": {"type": Path, "metavar": "FILE", "help": "frames (default data/prompts.toml)"},
}


def common_parser(prog: str, description: str, *flags: str) -> argparse.ArgumentParser:
    """Return a parser with ``--run-dir`` and the named flags of ``_FLAGS``."""
    parser = _Parser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=project.ROOT,
        metavar="DIR",
        help="folder for the files of the run (default: the repository)",
    )
    for flag in flags:
        parser.add_argument(f"--{flag}", **_FLAGS[flag])
    return parser


def choose(kind: str, asked: Sequence[str] | None, valid: Sequence[str]) -> list[str]:
    """Return ``asked`` (None: all) in the order of ``valid``; UsageError for an unknown name."""
    if asked is None:
        return list(valid)
    for name in asked:
        if name not in valid:
            raise errors.UsageError(errors.unknown(kind, name, valid))
    return [name for name in valid if name in asked]


def run_stage(prog: str, stage: Callable[[], object]) -> int:
    """Run a stage and return its exit code: 0, 1 (data or machine), 2 (usage), 130 or 143.

    A StudyError or disk error is printed as one message. 130 is Ctrl-C and 143 is SIGTERM. Any
    other exception is a bug of this project and is raised with its traceback.
    """
    try:
        stage()
    except errors.StudyError as error:
        lines = (errors.escape_hidden(line) for line in str(error).split("\n"))
        print(f"{prog}: error: " + "\n".join(lines), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        print(f"\n{interruption_message(prog)}", file=sys.stderr)
        return int(getattr(stop, "exit_code", errors.EXIT_INTERRUPTED))
    except OSError as error:
        if not errors.is_disk_error(error):
            raise
        print(f"{prog}: error: {errors.explain_disk_error(error)}", file=sys.stderr)
        return errors.EXIT_DATA
    return 0


def interruption_message(prog: str) -> str:
    """Return the message of an interrupted stage."""
    return f"{prog}: interrupted; what was finished is kept; run again without --overwrite."


def exit_process(code: int) -> NoReturn:
    """End the process; after an interruption immediately, without freeing a loaded model."""
    if code in (errors.EXIT_INTERRUPTED, errors.EXIT_TERMINATED):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)
