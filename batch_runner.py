"""Extract the activations of every variant: locally, or on a GPU through Modal.

Both ways take the same flags, skip what is finished and end in the same files.

Reads:  data/stimulus_manifest.json
Writes: activations/<variant>/{plan.json,tokens.json,shard-NNNNN.safetensors}

    uv run batch_runner.py --local
    uv run batch_runner.py --dry-run
    uv run modal run batch_runner.py --variants fire,earth      # or: uv run batch_runner.py
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import batch_flags

batch_flags.answer_help(__name__)  # the imports below take a second

import artifacts  # noqa: E402
import hub  # noqa: E402
import interrupts  # noqa: E402
import modal_config  # noqa: E402
import run_lock  # noqa: E402
import study  # noqa: E402
from artifacts import Manifest  # noqa: E402
from batch_flags import build_parser  # noqa: E402
from extraction import job_size, prefetch, runner, store  # noqa: E402
from study import RunPaths, StudyError, UsageError, Variant  # noqa: E402

PROG = "batch_runner.py"
MODAL_GRACE_S = 15.0  # after Ctrl-C: Modal's client stops the app, which costs money until then


@dataclass(frozen=True)
class Config:
    paths: RunPaths
    variants: tuple[str, ...] | None
    options: runner.Options
    local: bool
    parallel: bool
    dry_run: bool
    gpu: str


def run_local(config: Config, manifest: Manifest, variants: Sequence[Variant]) -> None:
    """Extract the variants here, one after the other; the next one's files come meanwhile."""
    from tqdm import tqdm

    import model_loader

    for variant, source in prefetch.one_ahead(variants, model_loader.resolve_source):
        folder = store.variant_dir(config.paths, variant.name)
        folder.mkdir(parents=True, exist_ok=True)
        with tqdm(total=0, unit="token", desc=f"{variant.name}: loading", mininterval=0.5) as bar:

            def announce(tokens: int, note: str, bar: Any = bar, name: str = variant.name) -> None:
                bar.write(f"{name}: on {note}")
                bar.set_description(name)
                bar.reset(total=tokens)

            runner.extract(
                runner.Job(manifest, variant, folder, config.options),
                source=source,
                announce=announce,
                progress=bar.update,
            )
        print(f"{variant.name}: {len(manifest.stimuli)} stimuli in {folder}", flush=True)


# --- Modal ------------------------------------------------------------------------------------


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
    """Extract one variant in a container.

    Returns ``{"folder": …}`` on the activations volume, or ``{"error": …}`` for what the user has
    to mend: an exception would be retried on the GPU, in vain.
    """
    root = Path(modal_config.ACTIVATIONS_DIR)
    try:
        manifest = artifacts.parse_manifest(manifest_json, "the manifest sent to Modal")
        target = root / manifest.sha256[:16] / name
        target.mkdir(parents=True, exist_ok=True)
        job = runner.Job(manifest, manifest.suite.variant(name), target, runner.Options(**options))
        if job.options.overwrite or not runner.finished(job):
            device = remote_device(manifest, job.options.device)
            options_here = dataclasses.replace(job.options, device=device)
            runner.extract(dataclasses.replace(job, options=options_here))
    except StudyError as error:
        return {"error": _on_volumes(str(error))}
    except OSError as error:
        if not study.is_disk_error(error):
            raise
        return {"error": _on_volumes(f"{error.filename}: {error.strerror}")}
    finally:  # also what was finished before a failure
        modal_config.weights_volume.commit()
        modal_config.activations_volume.commit()
    return {"folder": target.relative_to(root).as_posix()}


def _on_volumes(message: str) -> str:
    """Say how a path of a container is reached from here."""
    for folder, name in modal_config.VOLUMES.items():
        if f"{folder}/" in message:
            message += f" ({folder} is Volume {name}: `uv run modal volume ls|rm {name} PATH`)"
    return message


def remote_device(manifest: Manifest, asked: str) -> str:
    """Return where a container computes; raises StudyError without CUDA.

    A suite with ``allow_cpu`` may do without a GPU.
    """
    import torch

    if torch.cuda.is_available() and asked != "cpu":
        return "cuda"
    if manifest.suite.allow_cpu and asked != "cuda":
        return "cpu"
    raise StudyError(
        f"no CUDA device in the container for --device {asked}: check --gpu and GPU in "
        "modal_config.py (a suite with allow_cpu = true may use the CPU)"
    )


def run_modal(config: Config, manifest: Manifest, variants: Sequence[Variant]) -> None:
    """Extract on Modal inside a running app, then download shard by shard."""
    text = artifacts.canonical_json(manifest.to_dict())
    options = vars(config.options)
    arguments = [(text, variant.name, options) for variant in variants]
    function = extract_remote
    if config.gpu != modal_config.GPU:
        function = extract_remote.with_options(gpu=config.gpu)
    results: Iterator[dict[str, str]] = (
        function.starmap(arguments)
        if config.parallel
        else (function.remote(*each) for each in arguments)
    )
    failed = []
    for variant, result in zip(variants, _told(results), strict=True):
        if "error" in result:
            failed.append(f"on Modal: {result['error']}")
            continue
        folder = store.variant_dir(config.paths, variant.name)
        download(modal_config.activations_volume, result["folder"], folder, manifest)
        print(f"{variant.name}: {len(manifest.stimuli)} stimuli in {folder}", flush=True)
    if failed:
        raise StudyError("; ".join(failed))


def _told(results: Iterator[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Pass results on; what a container raised is told in one line, as not of this machine."""
    import modal.exception

    try:
        yield from results
    except (modal.exception.Error, StudyError):
        raise
    except Exception as error:  # whatever the body raised: Modal raises it again here
        raise StudyError(
            f"on Modal: {type(error).__name__}: {study.visible(str(error))}; its log is above and "
            "on the app's page; run again without --overwrite (finished work is kept)"
        ) from error


def download(volume: Any, remote: str, folder: Path, manifest: Manifest) -> None:
    """Fetch a variant's files; a shard that is here and valid is not fetched again.

    Each shard is checked by its hash. Raises StudyError if one does not match, or if the plan is
    not of ``manifest``.
    """
    import aiohttp

    def fetch(name: str) -> None:
        with artifacts.atomic_write(folder / name) as handle:
            try:
                volume.read_file_into_fileobj(f"{remote}/{name}", handle)
            except (FileNotFoundError, aiohttp.ClientError, TimeoutError) as error:
                said = study.visible(str(error) or type(error).__name__)
                raise StudyError(
                    f"Modal: {remote}/{name} could not be downloaded ({said}); run again (what is "
                    "here is kept)"
                ) from None

    fetch("plan.json")
    fetch("tokens.json")
    plan = store.load_plan(folder)
    if plan["manifest_sha256"] != manifest.sha256:
        raise StudyError(f"{store.plan_path(folder)}: Modal made it for another manifest")
    wanted = [store.shard_path(folder, number) for number in range(len(plan["shards"]))]
    for old in set(folder.glob("shard-*.safetensors")) - set(wanted):
        old.unlink()
    sha = artifacts.digest(plan)
    for number in store.missing_shards(folder, plan):
        fetch(wanted[number].name)
        store.read_shard(wanted[number], sha)


@contextlib.contextmanager
def modal_session(inside: bool) -> Iterator[None]:
    """Run Modal's app, unless ``modal run`` runs it already; its failures get one message."""
    import modal
    import modal.exception

    stop: KeyboardInterrupt | None = None
    try:
        with contextlib.ExitStack() as stack:
            if not inside:
                stack.enter_context(modal.enable_output())
                stack.enter_context(modal_config.app.run())
            try:
                yield
            except KeyboardInterrupt as error:  # the app is stopped, and keeps it to itself
                stop = error
                raise
        if stop is not None:
            raise stop
    except modal.exception.Error as error:
        mend = "run again without --overwrite (finished work is kept)"
        if isinstance(error, (modal.exception.AuthError, modal.exception.ConnectionError)):
            mend = "sign in with `uv run modal setup`"
        raise StudyError(
            f"Modal: {study.visible(str(error) or type(error).__name__)}; {mend}, or extract here "
            "with --local"
        ) from None


def _refuse_what_is_here_only(
    config: Config, manifest: Manifest, variants: Sequence[Variant]
) -> None:
    device = config.options.device
    if device == "mps" or (device == "cpu" and not manifest.suite.allow_cpu):
        raise UsageError(f"--device {device}: Modal computes on a GPU; add --local")
    for variant in variants:
        if variant.package or variant.path or variant.adapter:
            raise StudyError(
                f"variant {variant.name} of suite {manifest.suite.name} has weights on this "
                "machine only; extract it with --local"
            )


# --- the stage --------------------------------------------------------------------------------


def dry_run(config: Config, manifest: Manifest, variants: Sequence[Variant]) -> None:
    """Print texts, tokens, bytes, disk, time and cost per variant; nothing is loaded or spent."""
    print(f"suite {manifest.suite.name}, estimates; nothing is computed, fetched or spent")
    dollars = 0.0
    cpu_rate = job_size.cpu_flop_per_s() * job_size.CPU_SHARE if config.local else 0.0
    for variant in variants:
        remote = variant.repo if not variant.package else None
        repository = hub.Repository(remote, f"variant {variant.name}", "") if remote else None
        model = job_size.describe_model(variant, repository)
        size = job_size.job_size(manifest, model)
        line = (
            f"{variant.name}: {size.texts:,} texts ({job_size.human_bytes(size.text_bytes)}), "
            f"about {size.tokens:,.0f} tokens; weights {job_size.human_bytes(size.weight_bytes)}; "
            f"activations {job_size.human_bytes(size.disk_bytes)} on disk"
        )
        if config.local:
            seconds = size.seconds(cpu_rate)
            line += f"; time in float32 on this CPU {job_size.human_time(seconds)}"
        else:
            price, tflops = modal_config.GPUS[config.gpu]
            seconds = size.seconds(tflops * 1e12 * job_size.GPU_SHARE)
            cost = None if seconds is None else seconds / 3600 * price
            dollars += cost or 0.0
            line += f"; on {config.gpu} " + (
                "time and cost unknown" if seconds is None else f"{seconds:.0f} s, ${cost:.2f}"
            )
        print(line + (f" (unknown: {model.why_unknown})" if model.why_unknown else ""))
    if not config.local:
        print(
            f"together about ${dollars:.2f} of GPU time; a first run also fetches the weights; "
            f"stopped after {job_size.human_time(modal_config.TIMEOUT_S)} a variant"
        )


def run(config: Config, *, inside_modal: bool = False) -> None:
    """Check the manifest and the names, then extract what is not finished, where asked."""
    manifest = artifacts.load_manifest(config.paths.manifest)
    suite = manifest.suite
    asked = config.variants or tuple(suite.default_names())
    variants = [suite.variant(n) for n in study.choose("variant", asked, suite.names())]
    if config.dry_run:
        return dry_run(config, manifest, variants)
    if not config.local:
        _refuse_what_is_here_only(config, manifest, variants)
    started = time.monotonic()
    grace = interrupts.GRACE_S if config.local else MODAL_GRACE_S
    with interrupts.prompt(PROG, grace), run_lock.hold(config.paths.run_dir, PROG):
        todo = [
            v for v in variants if config.options.overwrite or not _finished(config, manifest, v)
        ]
        if todo and config.local:
            run_local(config, manifest, todo)
        elif todo:
            with modal_session(inside_modal):
                run_modal(config, manifest, todo)
    print(
        f"{len(variants)} variants of suite {suite.name} in {config.paths.activations} "
        f"({time.monotonic() - started:.0f} s)"
    )
    return None


def _finished(config: Config, manifest: Manifest, variant: Variant) -> bool:
    folder = store.variant_dir(config.paths, variant.name)
    artifacts.remove_leftovers(folder)
    done = runner.finished(runner.Job(manifest, variant, folder))
    if done:
        print(f"{variant.name}: complete, skipped ({folder})")
    return done


def _config(args: argparse.Namespace) -> Config:
    gpu = args.gpu or modal_config.GPU
    if gpu not in modal_config.GPUS:
        raise UsageError(study.unknown("--gpu", gpu, modal_config.GPUS))
    options = runner.Options(args.device, args.dtype, args.batch_size, args.overwrite)
    return Config(
        RunPaths(args.run_dir),
        args.variants,
        options,
        args.local,
        args.parallel,
        args.dry_run,
        gpu,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and extract; returns the exit code."""
    args = build_parser().parse_args(argv)
    return study.run_stage(PROG, lambda: run(_config(args)))


@modal_config.app.local_entrypoint()  # type: ignore[untyped-decorator]
def modal_main(*arglist: str) -> None:
    """Take the same flags as the script: ``modal run batch_runner.py --variants fire``."""
    args = build_parser().parse_args(list(arglist))
    code = study.run_stage(PROG, lambda: run(_config(args), inside_modal=True))
    if code:
        sys.exit(code)


if __name__ == "__main__":
    study.leave(main())
