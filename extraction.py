"""Extract pooled residual-stream vectors of every stimulus: plan, shards, resume.

One forward pass per stimulus, many stimuli a forward pass (``packs``). Shards are rounded and
written while the next one is computed; those that match the plan are skipped.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import activation_store as store
import artifacts
import study
import weight_cache
from artifacts import Manifest
from encoding import Encoded, audit
from encoding import encode as encode
from packs import can_pack, check_device, finite_pool, make_packs
from packs import pool_pack as pool_pack
from study import StudyError, Variant

SHARD_STIMULI = 256  # about 25 MB for mini, 160 MB for Tiny Aya
TOKEN_BUDGET = {"cpu": 512, "mps": 2048, "cuda": 8192}  # tokens a pack; the GEMM is full here
_CODE = (
    "activation_store.py",
    "encoding.py",
    "extraction.py",
    "model_loader.py",
    "packed_attention.py",
    "packs.py",
)


@dataclass(frozen=True)
class Options:
    """What a user may set of an extraction."""

    device: str = "auto"
    dtype: str = "auto"
    token_budget: int | None = None
    overwrite: bool = False


def versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the numbers."""
    names = ("torch", "transformers", "tokenizers", "numpy", "safetensors", "peft")
    return {name: importlib.metadata.version(name) for name in names}


def _requested_inputs(
    manifest: Manifest, variant: Variant, identity: dict[str, Any], dtype: str
) -> dict[str, Any]:
    return {
        "suite": manifest.suite.name,
        "variant": variant.name,
        "source": identity,
        "manifest_sha256": manifest.sha256,
        "poolings": list(study.POOLINGS),
        "dtype": dtype,
        "code_sha256": study.code_hash(*_CODE),
    }


def check_plan(
    folder: Path, plan: dict[str, Any], wanted: dict[str, Any], fields: Sequence[str]
) -> None:
    """Refuse to go on under a plan whose ``fields`` differ from what is asked now."""
    changed = [name for name in fields if name in wanted and plan.get(name) != wanted[name]]
    if changed:
        raise StudyError(
            f"{store.plan_path(folder)}: {', '.join(changed)} changed since these "
            "activations were made; run again with --overwrite to make them anew"
        )


def finished(folder: Path, manifest: Manifest, variant: Variant) -> bool:
    """Say, without loading a model, whether a variant's shards are all there and valid."""
    if not store.plan_path(folder).is_file():
        return False
    plan = store.load_plan(folder)
    wanted = _requested_inputs(manifest, variant, {**plan["source"], **_known(variant)}, "")
    del wanted["dtype"]  # a finished extraction in another precision is kept; --overwrite redoes it
    check_plan(folder, plan, wanted, list(wanted))
    return store.tokens_are_valid(folder, plan) and not store.missing_shards(folder, plan)


def _known(variant: Variant) -> dict[str, Any]:
    """Return what identifies a variant's weights without loading or fetching anything."""
    known: dict[str, Any] = {"role": variant.role}
    if variant.package:
        known |= {"package": variant.package, "sha256": variant.sha256}
    elif variant.repo:
        known |= {"repo": variant.repo}
        if variant.revision:
            known["revision"] = variant.revision
    if variant.role == "untrained":
        known["seed"] = variant.seed
    elif variant.adapter:
        weights = study.resolve(variant.adapter) / "adapter_model.safetensors"
        if weights.is_file():
            known["adapter_sha256"] = weight_cache.file_sha256(weights)
    return known


def extract_variant(
    manifest: Manifest,
    variant: Variant,
    folder: Path,
    options: Options,
    progress: Callable[[int], object] = lambda tokens: None,
    announce: Callable[[int, str], object] = lambda total, note: None,
    source: Any | None = None,
) -> int:
    """Extract one variant into ``folder``, skipping the shards that are there.

    ``source`` is what ``model_loader.resolve_source`` returned, where that is known already.

    ``announce(tokens, note)`` is called once before work, ``progress(tokens)`` after every pack.
    Returns the number of shards computed. The same plan gives the same bytes on the same machine.
    Raises StudyError on a changed plan, or non-finite values (variant, stimulus and row named).
    """
    import model_loader

    device, why = model_loader.choose_device(options.device)
    dtype = model_loader.choose_dtype(options.dtype, device)
    source = source or model_loader.resolve_source(variant)
    loaded = model_loader.load_variant(variant, source, device=device, dtype=dtype)
    return extract_loaded(
        loaded,
        source.identity,
        manifest,
        variant,
        folder,
        options,
        progress,
        lambda tokens, note: announce(tokens, f"{device.type} ({why}), {note}"),
    )


def extract_loaded(
    loaded: Any,
    identity: dict[str, Any],
    manifest: Manifest,
    variant: Variant,
    folder: Path,
    options: Options,
    progress: Callable[[int], object] = lambda tokens: None,
    announce: Callable[[int, str], object] = lambda total, note: None,
) -> int:
    """Do ``extract_variant``'s work with a model that is loaded: check, plan, run, write."""
    encoded = [encode(loaded.tokenizer, stimulus) for stimulus in manifest.stimuli]
    tokens = {
        s.stimulus_id: audit(loaded.tokenizer, s, e)
        for s, e in zip(manifest.stimuli, encoded, strict=True)
    }
    parity = check_device(loaded, encoded)
    packable = can_pack(loaded, encoded, variant.name)
    plan = _plan(loaded, identity, manifest, variant, options, encoded, packable)
    plan["tokens_sha256"] = artifacts.digest(tokens)
    if store.plan_path(folder).is_file() and not options.overwrite:
        check_plan(folder, store.load_plan(folder), plan, list(plan))
        if not store.tokens_are_valid(folder, plan):
            artifacts.save_json(folder / "tokens.json", tokens, indent=None)
    else:
        for old in folder.glob("shard-*.safetensors"):
            old.unlink()
        artifacts.save_json(folder / "tokens.json", tokens, indent=None)
        artifacts.save_json(store.plan_path(folder), plan)
    todo = store.missing_shards(folder, plan)
    by_id = {item.stimulus_id: item for item in encoded}
    note = (
        plan["dtype"]
        + parity
        + ("" if packable else ", padded batches (its attention cannot be packed)")
    )
    announce(sum(len(by_id[i].token_ids) for n in todo for i in plan["shards"][n]["ids"]), note)
    sha = artifacts.digest(plan)
    with ShardWriter(folder, sha) as writer:
        for number in todo:
            for names in plan["shards"][number]["packs"]:
                pack = [by_id[name] for name in names]
                writer.add(pack, *finite_pool(loaded, pack, variant.name, packed=packable))
                progress(sum(len(item.token_ids) for item in pack))
            writer.save(number)
    return len(todo)


def _plan(
    loaded: Any,
    identity: dict[str, Any],
    manifest: Manifest,
    variant: Variant,
    options: Options,
    encoded: Sequence[Encoded],
    packable: bool,
) -> dict[str, Any]:
    import torch

    device, dtype = loaded.device.type, str(loaded.dtype).removeprefix("torch.")
    budget = options.token_budget or TOKEN_BUDGET[device]
    packs = make_packs([len(e.token_ids) for e in encoded], budget, packable=packable)
    return _requested_inputs(manifest, variant, identity, dtype) | {
        "schema_version": study.SCHEMA_VERSION,
        "device": device,
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


class ShardWriter:
    """Round packs and write shards in a second thread while the next pack is computed.

    At most one pack waits, so memory holds one shard (float16) and two packs (float32). An error
    of the thread is raised by the next call or on leaving the context. Shards are written in
    order: a killed run leaves whole ones, the rerun makes the rest.
    """

    def __init__(self, folder: Path, plan_sha256: str) -> None:
        self._folder, self._sha = folder, plan_sha256
        self._parts: list[dict[str, np.ndarray]] = []  # of the second thread alone
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shard-writer")
        self._last: Future[None] | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def add(self, pack: Sequence[Encoded], pooled: np.ndarray, absmax: np.ndarray) -> None:
        """Add a pack's vectors (see ``packs.pool_pack``) to the shard."""
        self._next(lambda: self._parts.append(pack_tensors(pack, pooled, absmax)))

    def save(self, number: int) -> None:
        """End the shard and write it under ``number``."""
        self._next(lambda: self._write(number))

    def _write(self, number: int) -> None:
        tensors = {
            name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]
        }
        self._parts.clear()
        store.save_shard(store.shard_path(self._folder, number), tensors, self._sha)

    def _next(self, work: Callable[[], None]) -> None:
        if self._last is not None:
            self._last.result()
        self._last = self._pool.submit(work)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None and self._last is not None:
                self._last.result()
        finally:
            self._pool.shutdown(wait=True)


def pack_tensors(
    pack: Sequence[Encoded], pooled: np.ndarray, absmax: np.ndarray
) -> dict[str, np.ndarray]:
    """Return a pack's part of each of a shard's tensors, rounded for storage."""
    every = pooled.transpose(1, 0, 2, 3)  # [text, row, pooling, hidden]
    has_span = np.array([bool(item.span) for item in pack])
    tensors = {"absmax": absmax.T.astype(np.float32)}
    for kind, pooling in enumerate(study.POOLINGS):
        chosen = every[has_span, :, kind] if pooling == "span_mean" else every[:, :, kind]
        tensors[pooling], tensors[f"{pooling}.exponent"] = store.to_float16(chosen)
    return tensors
