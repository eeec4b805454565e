"""Extract the activations of every variant, on this machine or on a GPU through Modal.

Both ways take the same flags, skip finished work and write the same files.

Reads:  data/stimulus_manifest.json
Writes: activations/<variant>/{plan.json,tokens.json,shard-NNNNN.safetensors}

    uv run batch_runner.py --local
    uv run batch_runner.py --dry-run
    uv run modal run batch_runner.py --variants fire,earth      # or: uv run batch_runner.py
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import modal_config
from aya_probes import command_line, errors, signals
from aya_probes.run_folder import RunPaths

PROG = "batch_runner.py"
MODAL_GRACE_S = 15.0  # after Ctrl-C, Modal's client needs time to stop the app, which costs money


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser, which ``modal run`` uses too."""
    parser = command_line.common_parser(
        PROG,
        "Extract the activations of every variant (Modal, or --local).",
        "variants",
        "device",
        "dtype",
        "batch-size",
        "overwrite",
    )
    parser.add_argument("--local", action="store_true", help="compute on this machine")
    parser.add_argument(
        "--parallel", action="store_true", help="Modal: run all variants at once, a container each"
    )
    parser.add_argument(
        "--gpu",
        type=str.upper,
        metavar="NAME",
        default=modal_config.GPU,
        help=f"Modal: GPU to use (default {modal_config.GPU})",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the size of the job and exit")
    return parser


@modal_config.app.function(  # type: ignore[untyped-decorator]
    image=modal_config.image,
    gpu=modal_config.GPU,
    cpu=modal_config.CPU_CORES,
    memory=modal_config.MEMORY_MB,
    timeout=modal_config.TIMEOUT_S,
    retries=modal_config.RETRIES,
    secrets=[modal_config.token_secret],
    volumes={
        modal_config.WEIGHTS_DIR: modal_config.weights_volume,
        modal_config.ACTIVATIONS_DIR: modal_config.activations_volume,
    },
)
def extract_remote(manifest_json: str, name: str, options: dict[str, Any]) -> dict[str, str]:
    """Extract one variant in a container, and commit the Volumes even after a failure.

    Returns the folder in the activations Volume, or the error that the user has to fix.
    """
    from aya_probes.extraction import modal_job

    root = Path(modal_config.ACTIVATIONS_DIR)
    try:
        return modal_job.extract_in_container(
            manifest_json, name, options, root, modal_config.VOLUMES
        )
    finally:
        modal_config.weights_volume.commit()
        modal_config.activations_volume.commit()


def run(args: argparse.Namespace, *, inside_modal: bool = False) -> None:
    """Extract, with Ctrl-C and SIGTERM handled before the first slow import."""
    grace = signals.GRACE_S if args.local else MODAL_GRACE_S
    with signals.handle_signals(PROG, grace):
        _extract(args, inside_modal)


def _extract(args: argparse.Namespace, inside_modal: bool) -> None:
    """Check the manifest and the names, then extract the variants that are not finished."""
    from aya_probes import run_folder, stimuli
    from aya_probes.extraction import dry_run, local, modal_job, runner

    if args.gpu not in modal_config.GPUS:
        raise errors.UsageError(errors.unknown("--gpu", args.gpu, modal_config.GPUS))
    paths = RunPaths(args.run_dir)
    manifest = stimuli.load_manifest(paths.manifest)
    suite = manifest.suite
    asked = args.variants or tuple(suite.default_names())
    variants = [suite.variant(n) for n in command_line.choose("variant", asked, suite.names())]
    if args.dry_run:
        gpu = dry_run.Gpu(args.gpu, *modal_config.GPUS[args.gpu], modal_config.TIMEOUT_S)
        dry_run.print_estimate(manifest, variants, None if args.local else gpu)
        return
    if not args.local:
        modal_job.refuse_local_weights(manifest, variants, args.device)
    options = runner.Options(args.device, args.dtype, args.batch_size, args.overwrite)
    started = time.monotonic()
    with run_folder.lock_run(paths.run_dir, PROG):
        todo = runner.unfinished(paths, manifest, variants, overwrite=args.overwrite)
        if todo and args.local:
            local.extract_all(paths, manifest, todo, options)
        elif todo:
            service = modal_job.Service(
                modal_config.app, extract_remote, modal_config.activations_volume, inside_modal
            )
            other_gpu = args.gpu if args.gpu != modal_config.GPU else None
            request = modal_job.Request(other_gpu, args.parallel, options)
            modal_job.extract_all(service, request, paths, manifest, todo)
    print(
        f"{len(variants)} variants of suite {suite.name} in {paths.activations} "
        f"({time.monotonic() - started:.0f} s)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and extract; returns the exit code."""
    args = build_parser().parse_args(argv)
    return command_line.run_stage(PROG, lambda: run(args))


@modal_config.app.local_entrypoint()  # type: ignore[untyped-decorator]
def modal_main(*arglist: str) -> None:
    """Run the script under ``modal run batch_runner.py``, with the same flags."""
    args = build_parser().parse_args(list(arglist))
    code = command_line.run_stage(PROG, lambda: run(args, inside_modal=True))
    if code:
        sys.exit(code)


if __name__ == "__main__":
    command_line.exit_process(main())
