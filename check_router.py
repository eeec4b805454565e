"""Run the edge cases of a study against a language router.

A router reads a text and names the variant that should answer it. It is a Python function from str
to str, or a server that is sent {"text": "…"} by POST and replies {"variant": "…"}. Beside it stand
the best router that always gives the same answer, and the best that sees only the script or only
the language. The exit code is 0 if every case that counts passes, else 1.

Reads:  p1_edge_cases.json

    uv run check_router.py --router examples.router:route
    uv run check_router.py --url http://127.0.0.1:8000/route --json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from aya_probes import command_line, errors
from aya_probes.run_folder import RunPaths

PROG = "check_router.py"


def seconds(text: str) -> float:
    """Return a positive number of seconds; raises ArgumentTypeError for other text."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 3600")
    return value


def build_parser() -> argparse.ArgumentParser:
    """Return the script's parser."""
    parser = command_line.common_parser(PROG, "Run the edge cases against a language router.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--router", metavar="MODULE:FUNCTION", help="a function from str to str")
    which.add_argument("--url", metavar="URL", help="a server that takes POST requests")
    parser.add_argument(
        "--cases", type=Path, metavar="FILE", help="edge cases (default: those of the run folder)"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="longest time for one text (default 10)",
    )
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")
    return parser


def run(args: argparse.Namespace) -> bool:
    """Check the router and print the report; returns whether it passes."""
    from tqdm import tqdm

    from aya_probes.results import failures
    from aya_probes.routers import calls, check

    path = args.cases or RunPaths(args.run_dir).edge_cases
    content = failures.load_edge_cases(path)
    counted = [case for case in content.cases if case.status in check.COUNTED]
    if not counted:
        raise errors.StudyError(
            f"{path}: none of its {len(content.cases)} cases counts ({', '.join(check.COUNTED)}), "
            "so it cannot judge a router"
        )
    with (
        calls.open_router(args.router, args.url, args.timeout) as router,
        tqdm(total=len(content.cases), unit="case", desc="router", disable=None) as bar,
    ):
        report = check.check_router(router, content, lambda: bar.update(1))
    if args.json:
        whole = {"router": args.router or args.url, "file": str(path), **report.to_json()}
        print(json.dumps(whole, ensure_ascii=False, indent=1))
    else:
        print(check.format_table(report))
        print(f"{report.total.passed['router']} of {report.total.cases} cases passed")
    return report.passes


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and check; returns 0 if every case passes, 1 if not, 2 for bad flags."""
    args = build_parser().parse_args(argv)
    passed: list[bool] = []
    code = command_line.run_stage(PROG, lambda: passed.append(run(args)))
    return code or (0 if passed[0] else errors.EXIT_DATA)


if __name__ == "__main__":
    command_line.exit_process(main())
