"""Browse the results in a web page: findings first, then the view that shows each of them.

``--demo`` only reads saved results: it needs no torch and makes no outbound request. Without it,
one more tab reads sentences that the visitor types, with the suite's models, and places them among
the run's own pairs. Where no flags can be given, AYA_PROBES_PAGE holds them (docs/space.md).

Reads:  results/ (and, without --demo, data/stimulus_manifest.json and activations/)
Writes: nothing

    uv run app.py --demo
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from aya_probes import command_line
from aya_probes.run_folder import RunPaths

FLAGS = "AYA_PROBES_PAGE"  # environment variable with the flags, if none are given


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    parser = command_line.common_parser("app.py", "Browse the results in a web page.", "device")
    parser.add_argument("--demo", action="store_true", help="only show saved results")
    parser.add_argument("--host", default="127.0.0.1", help="address (default 127.0.0.1)")
    parser.add_argument("--port", type=command_line.positive_int, help="port (default: a free one)")
    return parser


def run(args: argparse.Namespace) -> None:
    """Serve the page until interrupted."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
    if args.demo:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from aya_probes.page.data import load_data

    paths = RunPaths(args.run_dir)
    data, model = load_data(paths), None
    if not args.demo:
        from aya_probes.page.pair import PairModel

        model = PairModel(paths, args.device)
    import gradio as gr

    from aya_probes.page import build, downloads

    info = data.results.info
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    build.build_page(data, model).launch(
        server_name=args.host,
        server_port=args.port,
        theme=theme,
        css=build.stylesheet(),
        head=build.head(),
        footer_links=["api"],
        app_kwargs={"routes": downloads.routes(build.make_views(data), info.label or info.suite)},
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and serve; returns the exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    args = build_parser().parse_args(given or shlex.split(os.environ.get(FLAGS, "")))
    return command_line.run_stage("app.py", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
