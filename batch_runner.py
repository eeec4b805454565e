"""Extract the activations of every variant: locally, or on a GPU through Modal.

Reads:  data/stimulus_manifest.json
Writes: activations/<variant>/{plan.json,tokens.json,shard-NNNNN.safetensors}

    uv run batch_runner.py --local
    uv run modal run batch_runner.py --variants fire,earth
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import batch_flags

batch_flags.answer_help(__name__)  # the imports below take a second

import activation_store as store  # noqa: E402
import artifacts  # noqa: E402
import extraction  # noqa: E402
import modal_config  # noqa: E402
import prefetch  # noqa: E402
import study  # noqa: E402
from artifacts import Manifest  # noqa: E402
from batch_flags import build_parser  # noqa: E402
from study import RunPaths, StudyError  # noqa: E402

A10_DOLLARS_PER_HOUR = 1.10  # Modal's list price; an estimate for --dry-run, not a quote
A10_TOKENS_PER_S = 4_000  # conservative, for a 3.35B model in bf16
CHARACTERS_PER_TOKEN = 3.0  # over the ten languages; --dry-run loads no tokenizer


@dataclass(frozen=True)
class Config:
    paths: RunPaths
    variants: tuple[str, ...] | None
    options: extraction.Options
    local: bool
    parallel: bool
    dry_run: bool


def run_local(config: Config, manifest: Manifest, names: Sequence[str]) -> None:
    """Extract the named variants here, one after the other; the next one's files come meanwhile."""
    from tqdm import tqdm

    import model_loader

    todo = []
    for name in names:
        variant, folder = manifest.suite.variant(name), store.variant_dir(config.paths, name)
        if not config.options.overwrite and extraction.finished(folder, manifest, variant):
            print(f"{name}: complete, skipped ({folder})")
        else:
            todo.append(variant)
    for variant, source in prefetch.one_ahead(todo, model_loader.resolve_source):
        name, folder = variant.name, store.variant_dir(config.paths, variant.name)
        folder.mkdir(parents=True, exist_ok=True)
        with tqdm(total=0, unit="token", desc=f"{name}: loading", mininterval=0.5) as bar:

            def announce(tokens: int, note: str, bar: Any = bar, name: str = name) -> None:
                bar.set_description(f"{name} on {note}")
                bar.reset(total=tokens)

            extraction.extract_variant(
                manifest, variant, folder, config.options, bar.update, announce, source=source
            )
        print(f"{name}: {len(manifest.stimuli)} stimuli in {folder}", flush=True)


@modal_config.app.function(  # type: ignore[untyped-decorator]
    image=modal_config.image,
    gpu=modal_config.GPU,
    timeout=modal_config.TIMEOUT_S,
    retries=modal_config.RETRIES,
    secrets=[modal_config.token_secret],
    volumes={
        modal_config.WEIGHTS_DIR: modal_config.weights_volume,
        modal_config.ACTIVATIONS_DIR: modal_config.activations_volume,
    },
)
def extract_remote(manifest_json: str, name: str, dtype: str, overwrite: bool) -> str:
    """Extract one variant in a container; returns its folder on the activations volume."""
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA device in this container: check GPU in modal_config.py")
    folder = Path(modal_config.ACTIVATIONS_DIR)
    key = hashlib.sha256(manifest_json.encode()).hexdigest()
    manifest_path = folder / "manifests" / f"{key}.json"
    manifest_path.parent.mkdir(parents=True, exist_ok=True)
    manifest_path.write_text(manifest_json, encoding="utf-8")
    manifest = artifacts.load_manifest(manifest_path)
    target = folder / manifest.sha256[:16] / name
    target.mkdir(parents=True, exist_ok=True)
    options = extraction.Options(device="cuda", dtype=dtype, overwrite=overwrite)
    extraction.extract_variant(manifest, manifest.suite.variant(name), target, options)
    modal_config.activations_volume.commit()
    return str(target.relative_to(folder))


def run_modal(config: Config, manifest: Manifest, names: Sequence[str]) -> None:
    """Extract on Modal inside a running app, then download shard by shard."""
    text = artifacts.canonical_json(manifest.to_dict())
    arguments = [(text, name, config.options.dtype, config.options.overwrite) for name in names]
    results: Iterator[str] = (
        extract_remote.starmap(arguments)
        if config.parallel
        else (extract_remote.remote(*each) for each in arguments)
    )
    for name, remote in zip(names, results, strict=True):
        download(remote, store.variant_dir(config.paths, name))
        print(f"{name}: downloaded to {store.variant_dir(config.paths, name)}", flush=True)


def download(remote: str, folder: Path) -> None:
    """Fetch a variant's files; a shard that is here and valid is not fetched again."""
    volume = modal_config.activations_volume

    def fetch(name: str) -> None:
        with artifacts.atomic_write(folder / name) as handle:
            volume.read_file_into_fileobj(f"{remote}/{name}", handle)

    fetch("tokens.json")
    fetch("plan.json")
    plan = store.load_plan(folder)
    sha = artifacts.digest(plan)
    for number in store.missing_shards(folder, plan):
        path = store.shard_path(folder, number)
        fetch(path.name)
        store.read_shard(path, sha)


def dry_run(config: Config, manifest: Manifest, names: Sequence[str]) -> None:
    """Print texts, tokens, disk, time and cost per variant; nothing is loaded or spent."""
    tokens = sum(len(s.text) for s in manifest.stimuli) / CHARACTERS_PER_TOKEN
    seconds = tokens / A10_TOKENS_PER_S + 120
    with_span = sum(s.span is not None for s in manifest.stimuli)
    vectors = 3 * len(manifest.stimuli) + with_span
    print(f"suite {manifest.suite.name}: {len(manifest.stimuli)} texts, about {tokens:,.0f} tokens")
    for name in names:
        line = f"{name}: about {vectors:,} pooled vectors a row"
        if not config.local:
            dollars = seconds / 3600 * A10_DOLLARS_PER_HOUR
            line += f"; on {modal_config.GPU} about {seconds:.0f} s, ${dollars:.2f} (estimate)"
        print(line)


def run(config: Config, *, inside_modal: bool = False) -> None:
    """Check the manifest and the names, then extract where asked."""
    manifest = artifacts.load_manifest(config.paths.manifest)
    suite = manifest.suite
    asked = config.variants or tuple(suite.default_names())
    names = study.choose("variant", asked, suite.names())
    if config.dry_run:
        return dry_run(config, manifest, names)
    started = time.monotonic()
    if config.local:
        run_local(config, manifest, names)
    else:
        _refuse_local_sources(manifest, names)
        if inside_modal:
            run_modal(config, manifest, names)
        else:
            import modal.exception

            try:
                with modal_config.app.run():
                    run_modal(config, manifest, names)
            except (modal.exception.AuthError, modal.exception.ConnectionError) as error:
                raise StudyError(
                    f"Modal: {error}; sign in with `uv run modal setup`, or extract "
                    "here with --local"
                ) from None
    print(
        f"{len(names)} variants of suite {suite.name} in {config.paths.activations} "
        f"({time.monotonic() - started:.0f} s)"
    )


def _refuse_local_sources(manifest: Manifest, names: Sequence[str]) -> None:
    for name in names:
        variant = manifest.suite.variant(name)
        if variant.package or variant.path or variant.adapter:
            raise StudyError(
                f"variant {name} of suite {manifest.suite.name} has weights on this "
                "machine only; extract it with --local"
            )


def _config(args: argparse.Namespace) -> Config:
    options = extraction.Options(args.device, args.dtype, args.batch_size, args.overwrite)
    return Config(
        RunPaths(args.run_dir), args.variants, options, args.local, args.parallel, args.dry_run
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and extract; returns the exit code."""
    args = build_parser().parse_args(argv)
    return study.run_stage("batch_runner.py", lambda: run(_config(args)))


@modal_config.app.local_entrypoint()  # type: ignore[untyped-decorator]
def modal_main(*arglist: str) -> None:
    """Take the same flags as the script: ``modal run batch_runner.py --variants fire``."""
    args = build_parser().parse_args(list(arglist))
    code = study.run_stage("batch_runner.py", lambda: run(_config(args), inside_modal=True))
    if code:
        sys.exit(code)


if __name__ == "__main__":
    study.leave(main())
