"""GGUF files: a whole model in one file, read by transformers and dequantised.

transformers passes over settings and tensors of a file that it does not know, and fills in its own
defaults: the vectors would be others, without an error. Here such a file is refused by name.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
import transformers
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from aya_probes import errors, suites
from aya_probes.errors import StudyError
from aya_probes.models import checkpoints

LABEL = "dequantised"  # what a source of such weights is called in records
INSTEAD = "give the folder or repository with the model's safetensors instead"
EMBEDDINGS = ("token_embd.weight", "output.weight")
_FORMATS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_TEXT, _ARRAY = 8, 9
_BYTE_LEVEL = {*GGUF_PRE_TOKENIZER_SPLITS, "gpt-2"}  # how a byte-level vocabulary splits a text
# What cannot change a vector, or shows in the tensors' shapes.
_WITHOUT_EFFECT = {
    "context_length",
    "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "feed_forward_length",
    "final_logit_softcapping",
    "tensor_data_layout",
    "vocab_size",
}


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file."""

    shape: tuple[int, ...]
    """Its dimensions, the fastest first."""
    kind: int
    """How its values are stored."""
    offset: int
    """Where it begins in the data."""

    @property
    def stored_bytes(self) -> int:
        """Return its size in the file; raises ValueError for a kind that is not known."""
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(self.kind)]
        return math.prod(self.shape) // int(block) * int(size)


@dataclass(frozen=True)
class Header:
    """What a file says of its model, without the weights."""

    path: Path
    """The file."""
    metadata: dict[str, Any]
    """Its settings and vocabulary."""
    tensors: dict[str, Tensor]
    """Its tensors by name."""

    @property
    def architecture(self) -> str:
        """The architecture as llama.cpp calls it."""
        return str(self.metadata["general.architecture"])

    def setting(self, name: str) -> Any:
        """Return a setting of the architecture, such as ``block_count``; None if it is absent."""
        return self.metadata.get(f"{self.architecture}.{name}")


class _Reader:
    """Reads the values of a header one by one."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def take(self, size: int) -> bytes:
        if self._file.tell() + size > self._size:
            raise ValueError("the file is cut short")
        return self._file.read(size)

    def numbers(self, form: str, count: int = 1) -> tuple[Any, ...]:
        return struct.unpack(f"<{count}{form}", self.take(struct.calcsize(f"<{form}") * count))

    def text(self) -> str:
        return self.take(self.numbers("Q")[0]).decode()

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _ARRAY:
            (inner,), (count,) = self.numbers("I"), self.numbers("Q")
            if inner in _FORMATS:
                return list(self.numbers(_FORMATS[inner], count))
            return [self.value(inner) for _ in range(count)]
        return self.numbers(_FORMATS[kind])[0]

    def tensor(self) -> Tensor:
        shape = self.numbers("Q", self.numbers("I")[0])
        return Tensor(shape, self.numbers("I")[0], self.numbers("Q")[0])


def read_header(path: Path, wanted_by: str) -> Header:
    """Return what a file says of its model.

    Raises StudyError for another kind of file, one that is cut short, a part of a model, and an
    architecture that transformers does not read.
    """
    where = f"{wanted_by}: {path}"
    try:
        header, end = _read(path)
    except (ValueError, KeyError, struct.error, OverflowError, RecursionError) as error:
        raise StudyError(
            f"{where} is not a GGUF file that can be read ({errors.summarise(error)}); "
            "fetch or copy it again"
        ) from None
    if end > path.stat().st_size:
        raise StudyError(
            f"{where} is cut short: it has {path.stat().st_size:,} bytes and names {end:,}; "
            "fetch or copy it again"
        )
    if header.metadata.get("split.count", 1) > 1:
        raise StudyError(
            f"{where} is one of {header.metadata['split.count']} parts; {suites.JOIN_GGUF}"
        )
    if _read_settings(header) is None:
        example = " (Cohere2, such as Tiny Aya)" if header.architecture == "cohere2" else ""
        raise StudyError(
            f"{where}: transformers {transformers.__version__} does not read GGUF files of the "
            f"architecture {errors.escape_hidden(header.architecture)}{example}; {INSTEAD}"
        )
    return header


def _read(path: Path) -> tuple[Header, int]:
    """Return a file's header, and how many bytes the file must have."""
    with path.open("rb") as file:
        reader = _Reader(file, path.stat().st_size)
        if reader.take(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        if reader.numbers("I")[0] not in (2, 3):
            raise ValueError("its version is not 2 or 3, or its bytes are in big-endian order")
        tensors, settings = reader.numbers("Q", 2)
        metadata = {reader.text(): reader.value(reader.numbers("I")[0]) for _ in range(settings)}
        found = {reader.text(): reader.tensor() for _ in range(tensors)}
        step = int(metadata.get("general.alignment", 32))
        begin = -(-file.tell() // step) * step
    if not isinstance(metadata.get("general.architecture"), str):
        raise ValueError("it names no architecture")
    ends = [begin + tensor.offset + tensor.stored_bytes for tensor in found.values()]
    return Header(path, metadata, found), max(ends, default=begin)


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "")


def _read_settings(header: Header) -> set[str] | None:
    """Return the settings that transformers reads; None for an unknown architecture."""
    if header.architecture in GGUF_CONFIG_ARCHS:  # states that it takes all that a file says
        return {name.removeprefix(f"{header.architecture}.") for name in header.metadata}
    for name, table in GGUF_CONFIG_MAPPING.items():
        known = name not in ("general", "tokenizer")
        if known and _plain(name) == _plain(header.architecture):
            return {setting for setting, renamed in table.items() if renamed not in (None, -1)}
    return None


def _head_dim(config: Any) -> int:
    width = getattr(config, "head_dim", None)
    return int(width or config.hidden_size // config.num_attention_heads)


def _rope(config: Any) -> dict[str, Any]:
    return dict(getattr(config, "rope_parameters", None) or {})


def _rotary(config: Any) -> int:
    share = _rope(config).get("partial_rotary_factor")
    share = share or getattr(config, "partial_rotary_factor", None) or 1.0
    return int(_head_dim(config) * share)


_IN_CONFIG: dict[str, Callable[[Any], Any]] = {  # a setting -> what the model built has for it
    "attention.key_length": _head_dim,
    "attention.value_length": _head_dim,
    "attention.sliding_window": lambda config: getattr(config, "sliding_window", None),
    "attn_logit_softcapping": lambda config: getattr(config, "attn_logit_softcapping", None),
    "rope.dimension_count": _rotary,
    "rope.freq_base": lambda config: _rope(config).get("rope_theta"),
    "rope.freq_base_swa": lambda config: (
        _rope(config).get("sliding_attention", {}).get("rope_theta")
    ),
    "rope.scaling.type": lambda config: "none",
}


def load_config(header: Header, wanted_by: str) -> Any:
    """Return the model's configuration; raises StudyError for a setting that it does not take."""
    path = header.path
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, **checkpoints.LOCAL)
    taken, prefix = _read_settings(header) or set(), f"{header.architecture}."
    for name, value in header.metadata.items():
        setting = name.removeprefix(prefix)
        if setting == name or setting in taken or setting in _WITHOUT_EFFECT:
            continue
        built = _IN_CONFIG[setting](config) if setting in _IN_CONFIG else None
        if built != value:
            raise _passed_over(header, wanted_by, f"{name} = {str(value)[:40]}")
    scale = getattr(config, "query_pre_attn_scalar", None)
    if scale is not None and scale != _head_dim(config):
        raise _passed_over(header, wanted_by, "the scale of attention, which no GGUF file states")
    return config


def _passed_over(header: Header, wanted_by: str, what: str) -> StudyError:
    return StudyError(
        f"{wanted_by}: {header.path}: transformers {transformers.__version__} passes over {what}, "
        f"so the vectors would be wrong; {INSTEAD}"
    )


def read_model(path: Path, dtype: torch.dtype, **settings: Any) -> tuple[nn.Module, dict[str, Any]]:
    """Return a file's model, dequantised, and the library's report of the loading."""
    model, report = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=dtype,
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
        **checkpoints.LOCAL,
        **settings,
    )
    if hasattr(model.config, "quantization_config"):  # the weights are not quantised any more
        del model.config.quantization_config
    model.hf_quantizer = None
    return model, report


def load_model(
    header: Header, dtype: torch.dtype, wanted_by: str
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model as ``read_model`` does; raises StudyError for a tensor without a place."""
    config = load_config(header, wanted_by)
    model, report = read_model(header.path, dtype, config=config)
    unread = set(report["unexpected_keys"])
    if header.architecture not in GGUF_CONFIG_ARCHS:  # the library does not report what it leaves
        processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)()
        known = get_gguf_hf_weights_map(model, processor)
        unread |= {
            name for name in header.tensors if not {name, name.removesuffix(".weight")} & set(known)
        }
    if unread:
        raise _passed_over(header, wanted_by, f"{len(unread)} tensors (first: {min(unread)})")
    return model, report


def load_tokenizer(header: Header, wanted_by: str) -> Any:
    """Return the tokenizer that a file describes.

    Raises StudyError if it cuts or completes texts otherwise than the file says.
    """
    said = {name.removeprefix("tokenizer.ggml."): value for name, value in header.metadata.items()}
    kind, split = said.get("model"), said.get("pre")
    own = "put the model's tokenizer.json beside it"
    if kind not in ("gpt2", "llama") or (kind == "gpt2" and split not in _BYTE_LEVEL):
        raise StudyError(
            f"{wanted_by}: {header.path}: transformers {transformers.__version__} does not read "
            f"its tokenizer (model {kind}, pre {split}); {own}"
        )
    path = header.path
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, **checkpoints.LOCAL)
    assumed: dict[str, object] = {
        "add_bos_token": True,
        "add_eos_token": False,
        "add_space_prefix": True,
    }
    if kind == "gpt2":  # whether BOS is added then depends on the model
        assumed = {"add_bos_token": "not stated", "add_eos_token": False}
    built = _habits(tokenizer)
    for name, value in assumed.items():
        if said.get(name, value) != built[name]:
            raise StudyError(
                f"{wanted_by}: {header.path}: {name} is {said.get(name, value)}, but the "
                f"tokenizer that transformers builds from the file has {built[name]}; {own}"
            )
    return tokenizer


def _habits(tokenizer: Any) -> dict[str, bool]:
    """Return what a tokenizer puts around a text."""
    ids, first = tokenizer("a")["input_ids"], tokenizer.tokenize("a")[0]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    return {
        "add_bos_token": bos is not None and ids[:1] == [bos],
        "add_eos_token": eos is not None and ids[-1:] == [eos],
        "add_space_prefix": first.startswith("▁"),
    }
