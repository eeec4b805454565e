"""Extract pooled residual-stream vectors of every stimulus: plan, packs, pooling, shards.

One forward pass per stimulus. Texts are sorted by length; those of equal length run together
without padding, the rest are packed into one sequence whose position ids restart at each text
(attention then stays inside a text). Where a model's attention cannot be packed, which the
start-up self-check finds out, every pack holds texts of one length only. Pooling is one small
matrix product per row on the device, in float32.
"""

from __future__ import annotations

import importlib.metadata
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import activation_store as store
import artifacts
import study
import weight_cache
from artifacts import Manifest, Stimulus
from study import StudyError, Variant

SHARD_STIMULI = 256  # about 25 MB for mini, 160 MB for Tiny Aya
TOKEN_BUDGET = {"cpu": 512, "mps": 2048, "cuda": 8192}  # tokens a pack; the GEMM is full here
MAX_TOKENS = 2048  # a stimulus is a sentence, not a document
SELF_CHECK_TEXTS = 8
# Largest relative deviation of a packed vector from a one-by-one forward.
SELF_CHECK_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
# Devices whose results are compared with the CPU's before they are used, and the smallest cosine of
# a pooled vector there that is let pass.
UNPROVEN_DEVICES = ("mps",)
PARITY_COSINE = {"float32": 0.9999, "bfloat16": 0.999}
_CODE = ("activation_store.py", "extraction.py", "model_loader.py")


@dataclass(frozen=True)
class Options:
    """What a user may set of an extraction."""

    device: str = "auto"
    dtype: str = "auto"
    token_budget: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Encoded:
    """A tokenised stimulus and the token positions that each pooling averages."""

    stimulus_id: str
    token_ids: list[int]
    span: list[int]  # empty where the stimulus has no span
    content: list[int]
    last: int

    def positions(self, pooling: str) -> list[int]:
        """Return the token positions that ``pooling`` averages."""
        if pooling == "span_mean":
            return self.span
        if pooling == "content_mean":
            return self.content
        return [self.content[-1]] if pooling == "last_content" else [self.last]


def sentence_end(text: str) -> int:
    """Return the length of ``text`` without closing punctuation and white space."""
    end = len(text)
    while end and (text[end - 1].isspace() or unicodedata.category(text[end - 1]).startswith("P")):
        end -= 1
    return end or len(text)


def encode(tokenizer: Any, stimulus: Stimulus) -> Encoded:
    """Tokenise a stimulus and find the tokens of each pooling.

    A token belongs to the concept if its characters, trimmed of white space, intersect the surface
    form (fused prefixes and byte pieces count). Content leaves out special tokens and
    sentence-final punctuation. Raises StudyError where a pooling would be empty.
    """
    out = tokenizer(stimulus.text, return_offsets_mapping=True, return_special_tokens_mask=True)
    ids, special = list(out["input_ids"]), out["special_tokens_mask"]
    where = f"stimulus {stimulus.stimulus_id}"
    if len(ids) > MAX_TOKENS:
        raise StudyError(f"{where}: {len(ids)} tokens, at most {MAX_TOKENS}; shorten its text")
    end = sentence_end(stimulus.text)
    offsets, trimmed = out["offset_mapping"], list[tuple[int, int]]()
    for start, stop in offsets:
        piece = stimulus.text[start:stop]
        left = start + len(piece) - len(piece.lstrip())
        trimmed.append((left, max(left, start + len(piece.rstrip()))))
    real = [n for n in range(len(ids)) if not special[n]]
    content = [n for n in real if offsets[n][0] < end]
    if not content:
        raise StudyError(f"{where}: the tokenizer leaves no content token of {stimulus.text!r}")
    span: list[int] = []
    if stimulus.span is not None:
        first, last = stimulus.span
        span = [
            n
            for n in real
            if trimmed[n][0] < last and trimmed[n][1] > first and trimmed[n][0] < trimmed[n][1]
        ]
        if not span:
            raise StudyError(f"{where}: no token covers its span {stimulus.span}")
    return Encoded(stimulus.stimulus_id, ids, span, content, real[-1])


def audit(tokenizer: Any, stimulus: Stimulus, encoded: Encoded) -> dict[str, Any]:
    """Return what the token audit keeps of a stimulus."""
    bos = tokenizer.bos_token_id
    return {
        "token_ids": encoded.token_ids,
        "span_tokens": encoded.span,
        "final_token": encoded.token_ids[encoded.last],
        "bos": bos is not None and encoded.token_ids[0] == bos,
        "tokens_per_character": round(len(encoded.content) / max(1, len(stimulus.text)), 4),
    }


def make_packs(lengths: Sequence[int], budget: int, *, packable: bool) -> list[list[int]]:
    """Group texts (by position) into packs of at most ``budget`` tokens, shortest first.

    Groups of equal length that fill a pack stand alone; the remainders share packs if ``packable``.
    """
    by_length: dict[int, list[int]] = {}
    for position, length in enumerate(lengths):
        by_length.setdefault(length, []).append(position)
    packs, rest = [], []
    for length, members in sorted(by_length.items()):
        size = max(1, budget // length)
        full = len(members) // size * size if packable else len(members)
        packs += [members[i : i + size] for i in range(0, full, size)]
        rest += members[full:]
    pack: list[int] = []
    for position in rest:
        if pack and sum(lengths[p] for p in pack) + lengths[position] > budget:
            packs.append(pack)
            pack = []
        pack.append(position)
    return packs + ([pack] if pack else [])


def pool_pack(loaded: Any, pack: Sequence[Encoded]) -> tuple[np.ndarray, np.ndarray]:
    """Run one pack; returns pooled ``[row, text, pooling, hidden]`` and absmax ``[row, text]``.

    Poolings that a text does not have (span_mean without a span) are zero.
    """
    import torch

    import model_loader

    lengths = [len(item.token_ids) for item in pack]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    weights = np.zeros((len(pack), len(study.POOLINGS), sum(lengths)), dtype=np.float32)
    for text, item in enumerate(pack):
        for kind, pooling in enumerate(study.POOLINGS):
            positions = item.positions(pooling)
            if positions:
                weights[text, kind, starts[text] + np.array(positions)] = 1 / len(positions)
    device = loaded.device
    matrix = torch.from_numpy(weights.reshape(-1, sum(lengths))).to(device)
    flat = torch.tensor([token for item in pack for token in item.token_ids], device=device)
    owner = torch.repeat_interleave(torch.arange(len(pack)), torch.tensor(lengths)).to(device)

    def reduce(hidden: Any) -> Any:
        tokens = hidden.reshape(-1, hidden.shape[-1]).float()
        largest = torch.zeros(len(pack), device=device)
        largest.scatter_reduce_(0, owner, tokens.abs().amax(-1), "amax")
        return torch.cat([(matrix @ tokens).reshape(len(pack), -1), largest[:, None]], dim=1)

    with model_loader.capture(loaded, reduce) as rows:
        if len(set(lengths)) == 1:
            model_loader.forward(loaded, flat.reshape(len(pack), -1))
        else:
            positions = torch.cat([torch.arange(length) for length in lengths]).to(device)
            model_loader.forward(loaded, flat[None], position_ids=positions[None])
    out = torch.stack([rows[row] for row in sorted(rows)]).cpu().numpy()
    pooled = out[..., :-1].reshape(len(rows), len(pack), len(study.POOLINGS), -1)
    return pooled, out[..., -1]


def self_check(loaded: Any, texts: Sequence[Encoded]) -> float:
    """Return the largest relative deviation of packed vectors from one-by-one forwards."""
    packed, _ = pool_pack(loaded, texts)
    single = np.concatenate([pool_pack(loaded, [text])[0] for text in texts], axis=1)
    scale = np.linalg.norm(single, axis=-1) + 1e-12
    return float((np.linalg.norm(packed - single, axis=-1) / scale * (scale > 1e-6)).max())


def _mixed_lengths(encoded: Sequence[Encoded]) -> list[Encoded]:
    """Return a few texts spread over the lengths that occur, for the self-check."""
    ordered = sorted(encoded, key=lambda item: (len(item.token_ids), item.stimulus_id))
    step = max(1, (len(ordered) - 1) // (SELF_CHECK_TEXTS - 1))
    return ordered[::step][:SELF_CHECK_TEXTS]


def can_pack(loaded: Any, encoded: Sequence[Encoded]) -> bool:
    """Check packing against one-by-one forwards; raises StudyError if equal lengths differ too."""
    tolerance = SELF_CHECK_TOLERANCE[str(loaded.dtype).removeprefix("torch.")]
    if self_check(loaded, _mixed_lengths(encoded)) <= tolerance:
        return True
    lengths = [len(item.token_ids) for item in encoded]
    common = max(set(lengths), key=lengths.count)
    same = [item for item in encoded if len(item.token_ids) == common][:SELF_CHECK_TEXTS]
    deviation = self_check(loaded, same)
    if not deviation <= tolerance:
        raise StudyError(
            f"self-check failed: a batch deviates from one-by-one forwards by "
            f"{deviation:.2g} (at most {tolerance:g}); try --device cpu --dtype float32"
        )
    return False


def check_device(loaded: Any, encoded: Sequence[Encoded]) -> str:
    """Compare an unproven device with the CPU on a few texts; returns a note for the user.

    Raises StudyError if a pooled vector differs.
    """
    import torch

    import model_loader

    kind = loaded.device.type
    if kind not in UNPROVEN_DEVICES:
        return ""
    texts = _mixed_lengths(encoded)
    there = np.concatenate([pool_pack(loaded, [text])[0] for text in texts], axis=1)
    with model_loader.moved(loaded, torch.device("cpu")):
        here = np.concatenate([pool_pack(loaded, [text])[0] for text in texts], axis=1)
    norms = np.linalg.norm(there, axis=-1) * np.linalg.norm(here, axis=-1)
    cosine = float(((there * here).sum(-1) / np.where(norms > 0, norms, 1))[norms > 0].min())
    if not cosine >= PARITY_COSINE[str(loaded.dtype).removeprefix("torch.")]:
        raise StudyError(
            f"--device {kind}: its vectors differ from the CPU's (smallest cosine {cosine:.6f}); "
            "use --device cpu"
        )
    return f", same as the CPU (cosine {cosine:.6f})"


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
) -> int:
    """Extract one variant into ``folder``, skipping the shards that are there.

    ``announce(tokens, note)`` is called once before work, ``progress(tokens)`` after every pack.
    Returns the number of shards computed. The same plan gives the same bytes on the same machine.
    Raises StudyError on a changed plan, or non-finite values (variant, stimulus and row named).
    """
    import torch

    import model_loader

    device, why = model_loader.choose_device(options.device)
    dtype = model_loader.choose_dtype(options.dtype, device)
    source = model_loader.resolve_source(variant)
    loaded = model_loader.load_variant(variant, source, device=device, dtype=dtype)
    encoded = [encode(loaded.tokenizer, stimulus) for stimulus in manifest.stimuli]
    tokens = {
        s.stimulus_id: audit(loaded.tokenizer, s, e)
        for s, e in zip(manifest.stimuli, encoded, strict=True)
    }
    parity = check_device(loaded, encoded)
    packable = can_pack(loaded, encoded)
    budget = options.token_budget or TOKEN_BUDGET[device.type]
    packs = make_packs([len(e.token_ids) for e in encoded], budget, packable=packable)
    plan = _requested_inputs(manifest, variant, source.identity, str(dtype).removeprefix("torch."))
    plan |= {
        "schema_version": study.SCHEMA_VERSION,
        "device": device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "token_budget": budget,
        "packed": packable,
        "versions": versions(),
        "rows": [*map(str, range(loaded.n_blocks + 1)), "final_norm"],
        "hidden_size": loaded.hidden_size,
        "tokenizer_sha256": artifacts.digest(loaded.tokenizer.backend_tokenizer.to_str()),
        "tokens_sha256": artifacts.digest(tokens),
        "shards": _shards(packs, encoded),
    }
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
    note = f"{device.type} ({why}), {plan['dtype']}{parity}"
    note += "" if packable else ", not packable"
    announce(sum(len(by_id[i].token_ids) for n in todo for i in plan["shards"][n]["ids"]), note)
    sha = artifacts.digest(plan)
    for number in todo:
        shard_packs = [[by_id[i] for i in pack] for pack in plan["shards"][number]["packs"]]
        tensors = _compute_shard(loaded, shard_packs, plan, progress)
        store.save_shard(store.shard_path(folder, number), tensors, sha)
    return len(todo)


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


def _compute_shard(
    loaded: Any,
    packs: Sequence[Sequence[Encoded]],
    plan: dict[str, Any],
    progress: Callable[[int], object],
) -> dict[str, np.ndarray]:
    pooled, absmax = [], []
    for pack in packs:
        values, largest = pool_pack(loaded, pack)
        bad = np.argwhere(~np.isfinite(values).all(axis=(2, 3)) | ~np.isfinite(largest))
        if len(bad):
            row, text = bad[0]
            raise StudyError(
                f"variant {plan['variant']}: stimulus {pack[text].stimulus_id}: row "
                f"{plan['rows'][row]} holds NaN or infinity; try --dtype float32, or "
                "check the model's weights"
            )
        pooled.append(values)
        absmax.append(largest)
        progress(sum(len(item.token_ids) for item in pack))
    every = np.concatenate(pooled, axis=1).transpose(1, 0, 2, 3)  # [text, row, pooling, hidden]
    has_span = np.array([bool(item.span) for pack in packs for item in pack])
    tensors = {"absmax": np.concatenate(absmax, axis=1).T.astype(np.float32)}
    for kind, pooling in enumerate(study.POOLINGS):
        chosen = every[has_span, :, kind] if pooling == "span_mean" else every[:, :, kind]
        tensors[pooling], tensors[f"{pooling}.exponent"] = store.to_float16(chosen)
    return tensors
