"""Load a model: one variant of a suite, or any causal language model by name or folder.

Only safetensors and GGUF files are read, and no code of a model's folder is run.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from aya_probes import errors, suites
from aya_probes.command_line import DEVICES, DTYPES
from aya_probes.errors import StudyError
from aya_probes.models import (
    checkpoints,
    completeness,
    embedded,
    fingerprints,
    gguf_files,
    hub,
    residuals,
    sentencepieces,
    structure,
)
from aya_probes.suites import Variant

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

Identity = dict[str, str | int | None]  # what identifies a variant's weights in a plan


@dataclass(frozen=True)
class Source:
    """Where a variant's weights lie on this machine and what identifies them in a plan."""

    location: str
    """The model's folder."""
    adapter: Path | None
    """The folder of a LoRA adapter to merge into it."""
    identity: Identity
    """What identifies both."""


def choose_device(requested: str) -> tuple[torch.device, str]:
    """Return the device for ``--device`` and the reason; raises StudyError if it is not there."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if requested == "cuda" and not cuda:
        raise StudyError("--device cuda: no CUDA device is available; use --device cpu")
    if requested == "mps" and not mps:
        raise StudyError("--device mps: no MPS device is available; use --device cpu")
    if requested != "auto":
        return torch.device(requested), "asked for"
    if cuda:
        return torch.device("cuda"), f"CUDA is available ({torch.cuda.get_device_name(0)})"
    if mps:
        return torch.device("mps"), "no CUDA; Apple MPS is available"
    return torch.device("cpu"), "no CUDA and no MPS"


def choose_dtype(requested: str, device: torch.device) -> torch.dtype:
    """Return the compute precision; float16 is never used (its range overflows)."""
    if requested == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if requested == "bf16" else torch.float32


def resolve_source(variant: Variant) -> Source:
    """Find a variant's files: convert or check the cache, hash local weights, pin a hub commit."""
    identity: Identity = {"role": variant.role}
    if variant.package:
        assert variant.sha256 is not None  # checked when the suite was read
        location = str(embedded.converted_weights(variant.package, variant.sha256, variant.repo))
        identity |= {"package": variant.package, "sha256": variant.sha256}
    elif variant.path:
        folder = suites.resolve_path(variant.path)
        location = str(folder)
        identity |= {"path": variant.path, "sha256": fingerprints.model_sha256(folder, variant)}
        identity["tokenizer_sha256"] = fingerprints.tokenizer_sha256(folder)
        if variant.sha256 and variant.sha256 != identity["sha256"]:
            raise StudyError(
                f"{folder}: weights have sha256 {identity['sha256']}, the suite "
                f"expects {variant.sha256} for variant {variant.name}"
            )
    else:
        assert variant.repo is not None
        repository, whole = hub_repository(variant), variant.role != "untrained"
        if variant.gguf:
            folder = hub.fetch_gguf(repository, variant.revision, variant.gguf)
        else:
            folder = hub.fetch_model(repository, variant.revision, weights=whole)
        location = str(folder)
        identity |= {"repo": variant.repo, "revision": folder.name}
    if variant.gguf:
        identity |= {"gguf": variant.gguf, "weights": gguf_files.LABEL}
    adapter = None
    if variant.adapter and variant.role != "untrained":
        adapter = suites.resolve_path(variant.adapter)
        identity["adapter_sha256"] = fingerprints.adapter_sha256(adapter, variant.name)
        if variant.adapter_sha256 and variant.adapter_sha256 != identity["adapter_sha256"]:
            raise StudyError(
                f"{adapter}: the adapter's sha256 is {identity['adapter_sha256']}, the suite "
                f"expects {variant.adapter_sha256} for variant {variant.name}; restore its files, "
                "or write the hash into the suite file if it was trained again"
            )
    if variant.role == "untrained":
        identity["seed"] = variant.seed
    return Source(location, adapter, identity)


def hub_repository(variant: Variant) -> hub.Repository:
    """Return a variant's hub repository, and what to do if it cannot be had."""
    assert variant.repo is not None
    fallback = "or try without a hub: uv run build_stimuli.py --suite mini"
    return hub.Repository(variant.repo, f"variant {variant.name}", fallback)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a device's memory was used up; only CUDA has an exception of its own for it."""
    text = re.search(r"out of memory|can't allocate memory", str(error), re.IGNORECASE)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and text is not None
    )


def _advice(error: Exception, folder: Path) -> str:
    """Return what a user can do about a model that the library does not load."""
    text = str(error)
    if "sentencepiece" in text.lower() or "tiktoken" in text.lower():
        return f"its folder needs a tokenizer.json: {sentencepieces.SAVE}"
    if checkpoints.is_quantised(folder):
        return (
            "its config.json says quantization_config: give the model without quantisation, or "
            "install what the message names"
        )
    if isinstance(error, ImportError):
        return "install what the message names, or convert the model to plain safetensors"
    if "Unrecognized" in text or "not recognize" in text:
        return "this architecture is not supported (docs/models.md)"
    return "fix or replace its files"


def _reason(error: Exception) -> str:
    """Return an error on one line, without the library's list of every model that it knows."""
    return errors.summarise(error).partition(" Model type should be one of")[0]


@contextlib.contextmanager
def model_errors(variant: Variant, source: Source) -> Iterator[None]:
    """Turn the library's refusal of a model's files into one message that names them."""
    try:
        yield
    except Exception as error:  # the libraries raise of every kind, ``Exception`` itself included
        if isinstance(error, StudyError) or errors.is_disk_error(error):
            raise
        if is_out_of_memory(error):
            raise StudyError(
                f"variant {variant.name}: not enough memory to load it; use --dtype bf16, or a "
                "device with more memory"
            ) from None
        raise StudyError(
            f"variant {variant.name}: the model in {source.location} cannot be loaded "
            f"({_reason(error)}); {_advice(error, Path(source.location))}"
        ) from None


def _read_weights(variant: Variant, source: Source, dtype: torch.dtype) -> nn.Module:
    """Load the whole model from the GGUF file or the safetensors; see ``completeness.check``."""
    if variant.gguf:
        causal_lm, report = gguf_files.load_model(_header(variant, source), dtype, _name(variant))
    else:
        causal_lm, report = _read_safetensors(variant, source, dtype)
    completeness.check(causal_lm, report, f"{_name(variant)}: the weights in {source.location}")
    return causal_lm


def _read_safetensors(
    variant: Variant, source: Source, dtype: torch.dtype
) -> tuple[nn.Module, dict[str, Any]]:
    """Load the weights that ``checkpoints`` chooses; the library would choose by another order.

    Returns the model and the library's report of the loading.
    """
    weights = checkpoints.find(Path(source.location), _name(variant))
    config = AutoConfig.from_pretrained(source.location, **checkpoints.LOCAL)
    for part in (config, config.get_text_config()):  # a model of images and text may load either
        part.transformers_weights = weights.entry
    model, report = AutoModelForCausalLM.from_pretrained(
        source.location,
        config=config,
        generation_config=GenerationConfig(),  # plays no part here: its file may hold anything
        dtype=dtype,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # completeness names them; the library's error does not
        output_loading_info=True,
        **checkpoints.LOCAL,
    )
    return model, report


def _name(variant: Variant) -> str:
    return f"variant {variant.name}"


def _header(variant: Variant, source: Source) -> gguf_files.Header:
    assert variant.gguf is not None
    path = checkpoints.find_gguf(Path(source.location), variant.gguf, _name(variant))
    return gguf_files.read_header(path, _name(variant))


def _read_config(variant: Variant, source: Source) -> Any:
    if variant.gguf:
        return gguf_files.load_config(_header(variant, source), _name(variant))
    return AutoConfig.from_pretrained(source.location, **checkpoints.LOCAL)


def read_tokenizer(variant: Variant, source: Source) -> Any:
    """Load the tokenizer of the folder, or else the one that the GGUF file describes."""
    if not variant.gguf:
        return sentencepieces.load_tokenizer(Path(source.location), _name(variant))
    if not (Path(source.location) / "tokenizer.json").is_file():
        return gguf_files.load_tokenizer(_header(variant, source), _name(variant))
    config = _read_config(variant, source)  # else the library needs a config.json
    return AutoTokenizer.from_pretrained(source.location, config=config, **checkpoints.LOCAL)


def load_variant(
    variant: Variant, source: Source, *, device: torch.device, dtype: torch.dtype
) -> residuals.LoadedModel:
    """Load a variant for inference; role ``untrained`` gets seeded random weights instead.

    No code of the model's folder is run. Raises StudyError for files that do not make a whole
    model: the library would fill gaps with random weights.
    """
    with model_errors(variant, source):
        tokenizer = read_tokenizer(variant, source)
        if variant.role == "untrained":
            config = _read_config(variant, source)
            torch.manual_seed(variant.seed)
            causal_lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(dtype)
        else:
            causal_lm = _read_weights(variant, source, dtype)
    if not tokenizer.is_fast:
        raise StudyError(
            f"variant {variant.name}: its tokenizer has no offsets (not a fast "
            "tokenizer), so the concept's tokens cannot be found"
        )
    if source.adapter is not None:
        from aya_probes.models import lora  # PEFT takes seconds to import

        causal_lm = lora.merge(causal_lm, source.adapter, variant.name)
    with model_errors(variant, source):
        causal_lm = causal_lm.to(device)
    try:
        return wrap(causal_lm, tokenizer, device, dtype)
    except StudyError as error:
        raise StudyError(f"variant {variant.name}: {error}") from None


def load_model(
    name: str | Path,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> residuals.LoadedModel:
    """Load a causal language model from a folder, or from the hub by its name ``owner/model``.

    ``device``: auto, cuda, mps, cpu. ``dtype``: auto, float32, bf16. Raises ValueError for other
    values and StudyError, which says what to do, for a model that is not there or not whole.
    """
    if device not in DEVICES:
        raise ValueError(errors.unknown("device", device, DEVICES))
    if dtype not in DTYPES:
        raise ValueError(errors.unknown("dtype", dtype, DTYPES))
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if isinstance(name, Path) or folder.is_absolute() or name.startswith((".", "~")):
            raise StudyError(f"{folder}: no such folder; give a model's folder or its hub name")
        fallback = "or give the folder of a model on this machine"
        repository = hub.Repository(name, "load_model", fallback)
        folder = hub.fetch_model(repository, revision, weights=True)
    where, _ = choose_device(device)
    variant = Variant(str(name), "base")
    source = Source(str(folder), None, {"role": variant.role})
    return load_variant(variant, source, device=where, dtype=choose_dtype(dtype, where))


def wrap(
    causal_lm: nn.Module, tokenizer: Any, device: torch.device, dtype: torch.dtype
) -> residuals.LoadedModel:
    """Make a LoadedModel of a causal LM: evaluation mode, blocks and final norm found.

    Raises StudyError as ``structure.find_structure`` does.
    """
    causal_lm.eval().requires_grad_(False)
    found = structure.find_structure(causal_lm)
    return residuals.LoadedModel(
        decoder=found.decoder,
        causal_lm=causal_lm,
        tokenizer=tokenizer,
        blocks=found.blocks,
        final_norm=found.final_norm,
        hidden_size=found.hidden_size,
        device=device,
        dtype=dtype,
    )
