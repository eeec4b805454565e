"""Extract pooled residual-stream vectors of every stimulus: plan, shards, resume.

One forward pass per stimulus, many stimuli a forward pass (``packs``). Shards are rounded and
written while the next one is computed; those that match the plan are skipped.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import artifacts
import study
import weight_cache
from artifacts import Manifest
from extraction import store
from extraction.encoding import Encoded, audit, encode
from extraction.packs import can_pack, check_device, finite_pool, make_packs
from extraction.shard_writer import ShardWriter
from study import StudyError, Variant

SHARD_STIMULI = 256  # about 25 MB for mini, 160 MB for Tiny Aya
TOKEN_BUDGET = {"cpu": 512, "mps": 2048, "cuda": 8192}  # tokens a pack; the GEMM is full here
_CODE = (
    "model_loader.py",
    "extraction/encoding.py",
    "extraction/packed_attention.py",
    "extraction/packs.py",
    "extraction/runner.py",
    "extraction/shard_writer.py",
    "extraction/store.py",
)


@dataclass(frozen=True)
class Options:
    """What a user may set of an extraction."""

    device: str = "auto"
    dtype: str = "auto"
    token_budget: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Job:
    """The extraction of one variant: every stimulus of the manifest into ``folder``."""

    manifest: Manifest
    variant: Variant
    folder: Path
    options: Options = field(default_factory=Options)


Announce = Callable[[int, str], object]  # tokens to do and a note for people, before work
Progress = Callable[[int], object]  # tokens done, after every pack


def _silent(*anything: object) -> None:
    """Tell nobody."""


def versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the numbers."""
    names = ("torch", "transformers", "tokenizers", "numpy", "safetensors", "peft")
    return {name: importlib.metadata.version(name) for name in names}


def _requested_inputs(job: Job, identity: dict[str, Any], dtype: str) -> dict[str, Any]:
    return {
        "suite": job.manifest.suite.name,
        "variant": job.variant.name,
        "source": identity,
        "manifest_sha256": job.manifest.sha256,
        "poolings": list(study.POOLINGS),
        "dtype": dtype,
        "code_sha256": study.code_hash(*_CODE),
    }


def _check_plan(
    folder: Path, plan: dict[str, Any], wanted: dict[str, Any], fields: Sequence[str]
) -> None:
    """Refuse to go on under a plan whose ``fields`` differ from what is asked now."""
    changed = [name for name in fields if name in wanted and plan.get(name) != wanted[name]]
    if changed:
        raise StudyError(
            f"{store.plan_path(folder)}: {', '.join(changed)} changed since these "
            "activations were made; run again with --overwrite to make them anew"
        )


def finished(job: Job) -> bool:
    """Say, without loading a model, whether a variant's shards are all there and valid."""
    if not store.plan_path(job.folder).is_file():
        return False
    plan = store.load_plan(job.folder)
    wanted = _requested_inputs(job, {**plan["source"], **_known(job.variant)}, "")
    del wanted["dtype"]  # a finished extraction in another precision is kept; --overwrite redoes it
    _check_plan(job.folder, plan, wanted, list(wanted))
    return store.tokens_are_valid(job.folder, plan) and not store.missing_shards(job.folder, plan)


def _known(variant: Variant) -> dict[str, Any]:
    """Return what identifies a variant's weights without loading or fetching anything."""
    known: dict[str, Any] = {"role": variant.role}
    if variant.package:
        known |= {"package": variant.package, "sha256": variant.sha256}
    elif variant.repo:
        known |= {"repo": variant.repo}
        if variant.revision:
            known["revision"] = variant.revision
    elif variant.path:
        known["path"] = variant.path
        with contextlib.suppress(StudyError):  # what is finished does not need the weights
            known["sha256"] = weight_cache.model_sha256(study.resolve(variant.path), variant)
    if variant.role == "untrained":
        known["seed"] = variant.seed
    elif variant.adapter:
        with contextlib.suppress(StudyError):
            folder = study.resolve(variant.adapter)
            known["adapter_sha256"] = weight_cache.adapter_sha256(folder, variant.name)
    return known


def extract(
    job: Job,
    *,
    source: Any | None = None,
    announce: Announce = _silent,
    progress: Progress = _silent,
) -> int:
    """Extract one variant, skipping the shards that are there; returns how many were computed.

    ``source`` is what ``model_loader.resolve_source`` returned, where that is known already. The
    same plan gives the same bytes on the same machine. Raises StudyError on a changed plan, or
    non-finite values (variant, stimulus and row named).
    """
    import model_loader

    device, why = model_loader.choose_device(job.options.device)
    dtype = model_loader.choose_dtype(job.options.dtype, device)
    source = source or model_loader.resolve_source(job.variant)
    loaded = model_loader.load_variant(job.variant, source, device=device, dtype=dtype)

    def say(tokens: int, note: str) -> None:
        announce(tokens, f"{device.type} ({why}), {note}")

    return extract_loaded(job, loaded, source.identity, announce=say, progress=progress)


def extract_loaded(
    job: Job,
    loaded: Any,
    identity: dict[str, Any],
    *,
    announce: Announce = _silent,
    progress: Progress = _silent,
) -> int:
    """Do ``extract``'s work with a model that is loaded: check, plan, run, write."""
    with _memory_errors(job, loaded):
        return _extract(job, loaded, identity, announce, progress)


@contextlib.contextmanager
def _memory_errors(job: Job, loaded: Any) -> Iterator[None]:
    """Say how to go on where the device's memory does not hold a pack."""
    import model_loader

    try:
        yield
    except RuntimeError as error:
        if not model_loader.is_out_of_memory(error):
            raise
        device = loaded.device.type
        budget = job.options.token_budget or TOKEN_BUDGET[device]
        bf16 = "" if str(loaded.dtype) == "torch.bfloat16" else ", or with --dtype bf16 --overwrite"
        raise StudyError(
            f"variant {job.variant.name}: the memory of {device} does not hold the model and a "
            f"pack of {budget} tokens; run with --batch-size {max(1, budget // 4)} --overwrite"
            f"{bf16}"
        ) from None


def _extract(
    job: Job, loaded: Any, identity: dict[str, Any], announce: Announce, progress: Progress
) -> int:
    folder, name = job.folder, job.variant.name
    encoded = [encode(loaded.tokenizer, stimulus) for stimulus in job.manifest.stimuli]
    tokens = {
        s.stimulus_id: audit(loaded.tokenizer, s, e)
        for s, e in zip(job.manifest.stimuli, encoded, strict=True)
    }
    for item in encoded:
        _check_fits(loaded, item)
    parity = check_device(loaded, encoded)
    packable = can_pack(loaded, encoded, name)
    plan = _plan(job, loaded, identity, encoded, packable)
    plan["tokens_sha256"] = artifacts.digest(tokens)
    _open_folder(job, plan, tokens)
    todo = store.missing_shards(folder, plan)
    by_id = {item.stimulus_id: item for item in encoded}
    padded = "" if packable else ", padded batches (its attention cannot be packed)"
    announce(
        sum(len(by_id[i].token_ids) for n in todo for i in plan["shards"][n]["ids"]),
        plan["dtype"] + parity + padded,
    )
    with ShardWriter(folder, artifacts.digest(plan)) as writer:
        for number in todo:
            for names in plan["shards"][number]["packs"]:
                pack = [by_id[stimulus] for stimulus in names]
                writer.add(pack, *finite_pool(loaded, pack, name, packed=packable))
                progress(sum(len(item.token_ids) for item in pack))
            writer.save(number)
    return len(todo)


def _check_fits(loaded: Any, item: Encoded) -> None:
    """Refuse what the model's tables do not hold: an index out of range would crash the device."""
    where = f"stimulus {item.stimulus_id}"
    rows = loaded.decoder.get_input_embeddings().num_embeddings
    if max(item.token_ids) >= rows:
        raise StudyError(
            f"{where}: token {max(item.token_ids)} is not among the model's {rows}; the tokenizer "
            "belongs to another model: mend the model's folder"
        )
    limit = getattr(loaded.decoder.config, "max_position_embeddings", None)
    if isinstance(limit, int) and len(item.token_ids) > limit:
        raise StudyError(
            f"{where}: {len(item.token_ids)} tokens, the model takes {limit}; shorten its text"
        )


def _open_folder(job: Job, plan: dict[str, Any], tokens: dict[str, Any]) -> None:
    """Go on under the plan that is there, or begin anew under ``plan``."""
    folder = job.folder
    if store.plan_path(folder).is_file() and not job.options.overwrite:
        _check_plan(folder, store.load_plan(folder), plan, list(plan))
        if not store.tokens_are_valid(folder, plan):
            artifacts.save_json(folder / "tokens.json", tokens, indent=None)
        return
    for old in folder.glob("shard-*.safetensors"):
        old.unlink()
    artifacts.save_json(folder / "tokens.json", tokens, indent=None)
    artifacts.save_json(store.plan_path(folder), plan)


def _plan(
    job: Job, loaded: Any, identity: dict[str, Any], encoded: Sequence[Encoded], packable: bool
) -> dict[str, Any]:
    import torch

    device, dtype = loaded.device.type, str(loaded.dtype).removeprefix("torch.")
    budget = job.options.token_budget or TOKEN_BUDGET[device]
    packs = make_packs([len(e.token_ids) for e in encoded], budget, packable=packable)
    return _requested_inputs(job, identity, dtype) | {
        "schema_version": study.SCHEMA_VERSION,
        "device": device,
        "device_name": torch.cuda.get_device_name(loaded.device) if device == "cuda" else None,
        "threads": torch.get_num_threads() if device == "cpu" else None,
        "token_budget": budget,
        "packed": packable,
        "versions": versions(),
        "rows": [*map(str, range(loaded.n_blocks + 1)), "final_norm"],
        "hidden_size": loaded.hidden_size,
        "tokenizer_sha256": _tokenizer_sha256(loaded.tokenizer),
        "shards": _shards(packs, encoded),
    }


def _tokenizer_sha256(tokenizer: Any) -> str:
    # Through a file: as a Python string, a vocabulary of 262,144 takes a quarter of a gigabyte.
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.backend_tokenizer.save(f"{scratch}/tokenizer.json", pretty=False)
        return weight_cache.file_sha256(Path(scratch) / "tokenizer.json")


def _shards(packs: list[list[int]], encoded: Sequence[Encoded]) -> list[dict[str, Any]]:
    shards: list[dict[str, Any]] = []
    for pack in packs:
        if not shards or len(shards[-1]["ids"]) >= SHARD_STIMULI:
            shards.append({"packs": [], "ids": [], "span_ids": []})
        names = [encoded[position].stimulus_id for position in pack]
        shards[-1]["packs"].append(names)
        shards[-1]["ids"] += names
        shards[-1]["span_ids"] += [encoded[p].stimulus_id for p in pack if encoded[p].span]
    return shards
