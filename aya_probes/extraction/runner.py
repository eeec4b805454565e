"""Extract pooled residual-stream vectors of every stimulus: plan, shards, resume.

One forward pass per stimulus, many stimuli a forward pass (``packs``). Shards are rounded and
written while the next one is computed; those that match the plan are skipped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from aya_probes import files, project, suites
from aya_probes.errors import StudyError
from aya_probes.extraction import store
from aya_probes.extraction.encoding import Encoded, TokenAudit, audit_tokens, check_fits, encode
from aya_probes.extraction.packs import (
    Batching,
    check_device,
    choose_batching,
    finite_pool,
    make_packs,
)
from aya_probes.extraction.plan import (
    Inputs,
    Plan,
    Shard,
    load_plan,
    plan_path,
    refuse_changes,
    save_plan,
)
from aya_probes.extraction.poolings import POOLINGS
from aya_probes.extraction.shard_writer import ShardWriter
from aya_probes.models import fingerprints, loading
from aya_probes.models.loading import Identity, Source
from aya_probes.models.residuals import LoadedModel
from aya_probes.run_folder import RunPaths
from aya_probes.stimuli import Manifest
from aya_probes.suites import Variant

# Raise it when the stored vectors change: another pooling, capture point or rounding (ADR-012).
EXTRACTION_VERSION = 5
SHARD_STIMULI = 256  # about 25 MB for mini, 160 MB for Tiny Aya
SLOWER = {  # what a user is told where texts cannot be packed
    "packed": "",
    "padded": ", padded batches (its attention cannot be packed)",
    "alone": ", text by text (packing and padding change its vectors)",
}
TOKEN_BUDGET = {"cpu": 512, "mps": 2048, "cuda": 8192}  # tokens a pack; the GEMM is full here


@dataclass(frozen=True)
class Options:
    """What a user may set of an extraction."""

    device: str = "auto"
    """auto, cuda, mps or cpu."""
    dtype: str = "auto"
    """auto, float32 or bf16."""
    token_budget: int | None = None
    """Tokens computed at once, at most; None: ``TOKEN_BUDGET`` of the device."""
    overwrite: bool = False
    """Compute everything again."""


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
    """Report nothing."""


def versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the numbers."""
    names = ("torch", "transformers", "tokenizers", "numpy", "safetensors", "peft")
    return {name: importlib.metadata.version(name) for name in names}


def requested_inputs(job: Job, identity: Identity, dtype: str) -> Inputs:
    """Return what decides the vectors of ``job`` as it is asked now."""
    return Inputs(
        suite=job.manifest.suite.name,
        variant=job.variant.name,
        source=identity,
        manifest_sha256=job.manifest.sha256,
        poolings=POOLINGS,
        dtype=dtype,
        extraction_version=EXTRACTION_VERSION,
    )


def changed_fields(old: object, new: object, *, ignore: Sequence[str] = ()) -> list[str]:
    """Return the names of the fields in which two records of one type differ."""
    changed = []
    for name in (part.name for part in dataclasses.fields(type(old))):  # type: ignore[arg-type]
        before, after = getattr(old, name), getattr(new, name)
        if name in ignore or before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            keys = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
            changed.append(f"{name} ({', '.join(keys)})")
        else:
            changed.append(name)
    return changed


def finished(job: Job) -> bool:
    """Tell, without loading a model, whether a variant's shards are all there and valid.

    Raises StudyError if the activations there were made from other inputs. A finished extraction
    in another precision is kept; ``--overwrite`` computes it again.
    """
    if not plan_path(job.folder).is_file():
        return False
    plan = load_plan(job.folder)
    identity = {**plan.inputs.source, **known_identity(job.variant)}
    wanted = requested_inputs(job, identity, plan.inputs.dtype)
    refuse_changes(job.folder, changed_fields(plan.inputs, wanted))
    return store.tokens_are_valid(job.folder, plan) and not store.missing_shards(job.folder, plan)


def unfinished(
    paths: RunPaths, manifest: Manifest, variants: Sequence[Variant], *, overwrite: bool
) -> list[Variant]:
    """Return the variants that are still to be extracted, and print the others as skipped."""
    if overwrite:
        return list(variants)
    todo = []
    for variant in variants:
        folder = store.variant_dir(paths, variant.name)
        files.remove_leftovers(folder)
        if finished(Job(manifest, variant, folder)):
            print(f"{variant.name}: complete, skipped ({folder})")
        else:
            todo.append(variant)
    return todo


def known_identity(variant: Variant) -> Identity:
    """Return what identifies a variant's weights without loading or fetching anything."""
    known: Identity = {"role": variant.role}
    if variant.package:
        known |= {"package": variant.package, "sha256": variant.sha256}
    elif variant.repo:
        known |= {"repo": variant.repo}
        if variant.revision:
            known["revision"] = variant.revision
    elif variant.path:
        known["path"] = variant.path
        folder = suites.resolve_path(variant.path)
        with contextlib.suppress(StudyError):  # what is finished does not need the weights
            known["sha256"] = fingerprints.model_sha256(folder, variant)
            known["tokenizer_sha256"] = fingerprints.tokenizer_sha256(folder)
    if variant.role == "untrained":
        known["seed"] = variant.seed
    elif variant.adapter:
        with contextlib.suppress(StudyError):
            folder = suites.resolve_path(variant.adapter)
            known["adapter_sha256"] = fingerprints.adapter_sha256(folder, variant.name)
    return known


def extract(
    job: Job,
    *,
    source: Source | None = None,
    announce: Announce = _silent,
    progress: Progress = _silent,
) -> int:
    """Load one variant and extract it; returns how many shards were computed.

    ``source`` is what ``loading.resolve_source`` returned, where that is known already. Raises
    StudyError as ``extract_loaded`` does.
    """
    device, why = loading.choose_device(job.options.device)
    dtype = loading.choose_dtype(job.options.dtype, device)
    source = source or loading.resolve_source(job.variant)
    loaded = loading.load_variant(job.variant, source, device=device, dtype=dtype)

    def announce_device(tokens: int, note: str) -> None:
        announce(tokens, f"{device.type} ({why}), {note}")

    return extract_loaded(job, loaded, source.identity, announce=announce_device, progress=progress)


def extract_loaded(
    job: Job,
    loaded: LoadedModel,
    identity: Identity,
    *,
    announce: Announce = _silent,
    progress: Progress = _silent,
) -> int:
    """Extract a variant whose model is loaded, skipping the shards that are there.

    Returns how many shards were computed. The same plan gives the same bytes on the same machine.
    Raises StudyError for a changed plan, for non-finite values (variant, stimulus and layer named)
    and when the device's memory is used up.
    """
    with _memory_errors(job, loaded):
        texts = _encode(job, loaded)
        parity = check_device(loaded, texts.encoded)
        batching = choose_batching(loaded, texts.encoded, job.variant.name)
        plan = _open_folder(job, _plan(job, loaded, identity, texts, batching), texts.tokens)
        todo = store.missing_shards(job.folder, plan)
        by_id = {item.stimulus_id: item for item in texts.encoded}
        announce(
            sum(len(by_id[i].token_ids) for n in todo for i in plan.shards[n].ids),
            plan.inputs.dtype + parity + SLOWER[batching],
        )
        with ShardWriter(job.folder, plan.sha256) as writer:
            for number in todo:
                for names in plan.shards[number].packs:
                    pack = [by_id[stimulus] for stimulus in names]
                    vectors = finite_pool(loaded, pack, job.variant.name, packed=plan.packed)
                    writer.add(pack, *vectors)
                    progress(sum(len(item.token_ids) for item in pack))
                writer.save(number)
        return len(todo)


@contextlib.contextmanager
def _memory_errors(job: Job, loaded: LoadedModel) -> Iterator[None]:
    """Explain how to go on if the device's memory does not hold a pack."""
    try:
        yield
    except RuntimeError as error:
        if not loading.is_out_of_memory(error):
            raise
        device = loaded.device.type
        budget = job.options.token_budget or TOKEN_BUDGET[device]
        bf16 = "" if loaded.dtype_name == "bfloat16" else ", or with --dtype bf16 --overwrite"
        raise StudyError(
            f"variant {job.variant.name}: the memory of {device} does not hold the model and a "
            f"pack of {budget} tokens; run with --batch-size {max(1, budget // 4)} --overwrite"
            f"{bf16}"
        ) from None


@dataclass(frozen=True)
class _Texts:
    """The stimuli as the model reads them."""

    encoded: list[Encoded]
    """The stimuli in the order of the manifest."""
    audits: dict[str, TokenAudit]
    """What tokens.json keeps of them, by stimulus id."""

    @functools.cached_property
    def tokens(self) -> dict[str, dict[str, object]]:
        """The content of tokens.json."""
        return {name: vars(audit) for name, audit in self.audits.items()}


def _encode(job: Job, loaded: LoadedModel) -> _Texts:
    stimuli = job.manifest.stimuli
    try:
        encoded = [encode(loaded.tokenizer, stimulus) for stimulus in stimuli]
        for item in encoded:
            check_fits(loaded, item)
    except StudyError as error:
        raise StudyError(f"variant {job.variant.name}: stimulus {error}") from None
    audits = {
        stimulus.stimulus_id: audit_tokens(loaded.tokenizer, stimulus, item)
        for stimulus, item in zip(stimuli, encoded, strict=True)
    }
    return _Texts(encoded, audits)


def _open_folder(job: Job, plan: Plan, tokens: dict[str, dict[str, object]]) -> Plan:
    """Return the plan to work under: the one that is there, or ``plan`` in an emptied folder."""
    folder = job.folder
    if plan_path(folder).is_file() and not job.options.overwrite:
        old = load_plan(folder)
        changed = changed_fields(old.inputs, plan.inputs)
        # The code's hash is provenance: an edited comment does not stop a resume.
        refuse_changes(
            folder, changed or changed_fields(old, plan, ignore=("code_sha256", "inputs"))
        )
        if not store.tokens_are_valid(folder, old):
            files.save_json(folder / "tokens.json", tokens, indent=None)
        return old
    for shard in folder.glob("shard-*.safetensors"):
        shard.unlink()
    files.save_json(folder / "tokens.json", tokens, indent=None)
    save_plan(folder, plan)
    return plan


def _plan(
    job: Job, loaded: LoadedModel, identity: Identity, texts: _Texts, batching: Batching
) -> Plan:
    device = loaded.device.type
    budget = job.options.token_budget or TOKEN_BUDGET[device]
    lengths = [len(item.token_ids) for item in texts.encoded]
    budget = 1 if batching == "alone" else budget  # a pack holds one text at least
    packs = make_packs(lengths, budget, packable=batching == "packed")
    return Plan(
        schema_version=project.SCHEMA_VERSION,
        inputs=requested_inputs(job, identity, loaded.dtype_name),
        layers=(*map(str, range(loaded.n_blocks + 1)), "final_norm"),
        hidden_size=loaded.hidden_size,
        device=device,
        device_name=torch.cuda.get_device_name(loaded.device) if device == "cuda" else None,
        threads=torch.get_num_threads() if device == "cpu" else None,
        token_budget=budget,
        packed=batching == "packed",
        versions=versions(),
        tokenizer_sha256=_tokenizer_sha256(loaded.tokenizer),
        tokens_sha256=files.digest(texts.tokens),
        shards=_shards(packs, texts.encoded),
        code_sha256=project.source_hash(),
    )


def _tokenizer_sha256(tokenizer: Any) -> str:
    # Through a file: as a Python string, a vocabulary of 262,144 takes a quarter of a gigabyte.
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.backend_tokenizer.save(f"{scratch}/tokenizer.json", pretty=False)
        return fingerprints.file_sha256(Path(scratch) / "tokenizer.json")


def _shards(packs: list[list[int]], encoded: Sequence[Encoded]) -> tuple[Shard, ...]:
    """Fill shards with packs until each has ``SHARD_STIMULI`` texts."""
    groups: list[list[list[int]]] = []
    for pack in packs:
        if not groups or sum(map(len, groups[-1])) >= SHARD_STIMULI:
            groups.append([])
        groups[-1].append(pack)
    return tuple(
        Shard(
            packs=tuple(tuple(encoded[n].stimulus_id for n in pack) for pack in group),
            span_ids=tuple(
                encoded[n].stimulus_id for pack in group for n in pack if encoded[n].span
            ),
        )
        for group in groups
    )
