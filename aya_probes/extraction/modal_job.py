"""Extraction on Modal: what a container does, and what this machine does before and after.

The Modal objects themselves are in modal_config.py and batch_runner.py; they are handed in.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import modal
import modal.exception
import torch

from aya_probes import errors, files, stimuli
from aya_probes.errors import StudyError, UsageError
from aya_probes.extraction import runner, store
from aya_probes.extraction.plan import load_plan, plan_path
from aya_probes.run_folder import RunPaths
from aya_probes.stimuli import Manifest
from aya_probes.suites import Variant


@dataclass(frozen=True)
class Service:
    """The Modal objects that an extraction uses."""

    app: Any
    function: Any  # extracts one variant in a container
    activations: Any  # Volume
    inside: bool  # ``modal run`` runs the app already


# --- in the container -------------------------------------------------------------------------


def extract_in_container(
    manifest_json: str, name: str, options: dict[str, Any], root: Path, volumes: Mapping[str, str]
) -> dict[str, str]:
    """Extract one variant below ``root``; ``volumes`` maps mount points to Volume names.

    Returns ``{"folder": ...}`` below ``root``, or ``{"error": ...}`` with what the user has to fix.
    An exception instead would make Modal try again on the GPU, in vain.
    """
    try:
        manifest = stimuli.parse_manifest(manifest_json, "the manifest sent to Modal")
        target = root / manifest.sha256[:16] / name
        target.mkdir(parents=True, exist_ok=True)
        job = runner.Job(manifest, manifest.suite.variant(name), target, runner.Options(**options))
        if job.options.overwrite or not runner.finished(job):
            device = remote_device(manifest, job.options.device)
            options_here = dataclasses.replace(job.options, device=device)
            runner.extract(dataclasses.replace(job, options=options_here))
    except StudyError as error:
        return {"error": _name_volumes(str(error), volumes)}
    except OSError as error:
        if not errors.is_disk_error(error):
            raise
        return {"error": _name_volumes(f"{error.filename}: {error.strerror}", volumes)}
    return {"folder": target.relative_to(root).as_posix()}


def _name_volumes(message: str, volumes: Mapping[str, str]) -> str:
    """Add the Modal Volume that holds a container path, and the commands that reach it."""
    for folder, name in volumes.items():
        if f"{folder}/" in message:
            message += f" ({folder} is Volume {name}: `uv run modal volume ls|rm {name} PATH`)"
    return message


def remote_device(manifest: Manifest, asked: str) -> str:
    """Return the device of a container: cuda, or cpu for a suite with ``allow_cpu``.

    Raises StudyError if there is no CUDA and the suite does not allow a CPU.
    """
    if torch.cuda.is_available() and asked != "cpu":
        return "cuda"
    if manifest.suite.allow_cpu and asked != "cuda":
        return "cpu"
    raise StudyError(
        f"no CUDA device in the container for --device {asked}: check --gpu and GPU in "
        "modal_config.py (a suite with allow_cpu = true may use the CPU)"
    )


# --- on this machine --------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """What the user asked of Modal."""

    gpu: str | None  # None: the default of the function
    parallel: bool
    options: runner.Options


def extract_all(
    service: Service,
    request: Request,
    paths: RunPaths,
    manifest: Manifest,
    variants: Sequence[Variant],
) -> None:
    """Extract on Modal, then download shard by shard.

    Raises StudyError with the message of every variant that failed; the others are downloaded.
    """
    with session(service):
        text = files.canonical_json(manifest.to_dict())
        arguments = [(text, variant.name, vars(request.options)) for variant in variants]
        function = service.function
        if request.gpu is not None:
            function = function.with_options(gpu=request.gpu)
        results: Iterator[dict[str, str]] = (
            function.starmap(arguments)
            if request.parallel
            else (function.remote(*each) for each in arguments)
        )
        failed = []
        for variant, result in zip(variants, _explain_remote_errors(results), strict=True):
            if "error" in result:
                failed.append(f"on Modal: {result['error']}")
                continue
            folder = store.variant_dir(paths, variant.name)
            download(service.activations, result["folder"], folder, manifest)
            print(f"{variant.name}: {len(manifest.stimuli)} stimuli in {folder}", flush=True)
        if failed:
            raise StudyError("; ".join(failed))


def _explain_remote_errors(results: Iterator[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Pass results on; turn an exception from a container into one line that says so."""
    try:
        yield from results
    except (modal.exception.Error, StudyError):
        raise
    except Exception as error:  # whatever the body raised: Modal raises it again here
        raise StudyError(
            f"on Modal: {type(error).__name__}: {errors.escape_hidden(str(error))}; its log is "
            "above and on the app's page; run again without --overwrite (finished work is kept)"
        ) from error


def download(volume: Any, remote: str, folder: Path, manifest: Manifest) -> None:
    """Fetch a variant's files; a shard that is here and valid is not fetched again.

    Each shard is checked by its hash. Raises StudyError if one does not match, or if the plan is
    not of ``manifest``.
    """

    def fetch(name: str) -> None:
        with files.atomic_write(folder / name) as handle:
            try:
                volume.read_file_into_fileobj(f"{remote}/{name}", handle)
            except (FileNotFoundError, aiohttp.ClientError, TimeoutError) as error:
                said = errors.escape_hidden(str(error) or type(error).__name__)
                raise StudyError(
                    f"Modal: {remote}/{name} could not be downloaded ({said}); run again (what is "
                    "here is kept)"
                ) from None

    fetch("plan.json")
    fetch("tokens.json")
    plan = load_plan(folder)
    if plan.inputs.manifest_sha256 != manifest.sha256:
        raise StudyError(f"{plan_path(folder)}: Modal made it for another manifest")
    wanted = [store.shard_path(folder, number) for number in range(len(plan.shards))]
    for old in set(folder.glob("shard-*.safetensors")) - set(wanted):
        old.unlink()
    for number in store.missing_shards(folder, plan):
        fetch(wanted[number].name)
        store.read_shard(wanted[number], plan.sha256)


@contextlib.contextmanager
def session(service: Service) -> Iterator[None]:
    """Run Modal's app, unless ``modal run`` runs it already.

    Raises StudyError, with one message, for whatever Modal's client raises.
    """
    stop: KeyboardInterrupt | None = None
    try:
        with contextlib.ExitStack() as stack:
            if not service.inside:
                stack.enter_context(modal.enable_output())
                stack.enter_context(service.app.run())
            try:
                yield
            except KeyboardInterrupt as error:  # the app is stopped, and keeps it to itself
                stop = error
                raise
        if stop is not None:
            raise stop
    except modal.exception.Error as error:
        fix = "run again without --overwrite (finished work is kept)"
        if isinstance(error, (modal.exception.AuthError, modal.exception.ConnectionError)):
            fix = "sign in with `uv run modal setup`"
        said = errors.escape_hidden(str(error) or type(error).__name__)
        raise StudyError(f"Modal: {said}; {fix}, or extract here with --local") from None


def refuse_local_weights(manifest: Manifest, variants: Sequence[Variant], device: str) -> None:
    """Raise for a device that Modal does not have, and for weights only this machine has."""
    if device == "mps" or (device == "cpu" and not manifest.suite.allow_cpu):
        raise UsageError(f"--device {device}: Modal computes on a GPU; add --local")
    for variant in variants:
        if variant.package or variant.path or variant.adapter:
            raise StudyError(
                f"variant {variant.name} of suite {manifest.suite.name} has weights on this "
                "machine only; extract it with --local"
            )
