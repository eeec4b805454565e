"""Which files of a model's folder are its weights: chosen once, for fetching, hashes and loading.

A folder may hold several copies of one model (``consolidated.safetensors``, an old single file
beside new shards, pickles). The index decides if there is one, and else ``model.safetensors``.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from aya_probes.errors import StudyError

SINGLE = "model.safetensors"
INDEX = f"{SINGLE}.index.json"
ADAPTER = "adapter_config.json"
LOCAL = {"local_files_only": True, "trust_remote_code": False}  # of every call of the library
OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf")
CONVERT = (
    "convert it where you trust it: load it with transformers' AutoModelForCausalLM and save it "
    "with save_pretrained, which writes safetensors"
)


@dataclass(frozen=True)
class Weights:
    """The weight files of one model."""

    entry: str
    """The file that is read first: the index, or the only file."""
    files: tuple[str, ...]
    """The safetensors files, sorted by name."""


def choose(folder: Path, wanted_by: str) -> Weights:
    """Return the weights that a folder's index or configuration names, whether there or not.

    Raises StudyError, naming the index, for one that cannot be read.
    """
    entry = INDEX if (folder / INDEX).is_file() else SINGLE
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # the library explains them
        entry = json.loads((folder / "config.json").read_text("utf-8"))["transformers_weights"]
    if not _is_plain(entry):
        raise StudyError(
            f"{wanted_by}: {folder / 'config.json'}: transformers_weights names no file of this "
            "folder; fix or delete it"
        )
    if not entry.endswith(".index.json"):
        return Weights(entry, (entry,))
    path = folder / entry
    again = "fetch or save the model again"
    try:
        named = sorted(set(json.loads(path.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StudyError(f"{wanted_by}: {path} is not an index of weights; {again}") from None
    wrong = [name for name in named if not _is_plain(name) or not name.endswith(".safetensors")]
    if wrong or not named:
        what = f"names {wrong[0]!r}, not a safetensors file beside it" if wrong else "names no file"
        raise StudyError(f"{wanted_by}: {path} {what}; {again}")
    return Weights(entry, tuple(named))


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and bool(name) and Path(name).name == name and "\\" not in name


def find(folder: Path, wanted_by: str) -> Weights:
    """Return the weights of a folder that has them all; raises StudyError, with the fix, if not."""
    if (folder / ADAPTER).is_file():  # the library would load the model that the adapter names
        raise StudyError(
            f"{wanted_by}: {folder / ADAPTER} makes this folder a LoRA adapter; give it with "
            f"`adapter`, or delete {ADAPTER} if the adapter is merged into these weights"
        )
    weights = choose(folder, wanted_by)
    missing = [name for name in weights.files if not (folder / name).is_file()]
    if not missing:
        return weights
    if weights.entry not in weights.files:
        raise StudyError(
            f"{wanted_by}: {folder / weights.entry} names {missing[0]}, which is not there "
            f"({len(missing)} of {len(weights.files)} files missing); fetch or save the model again"
        )
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    raise StudyError(f"{wanted_by}: {folder} has {explain_absence(names, weights.entry)}")


def explain_absence(names: list[str], entry: str = SINGLE) -> str:
    """Return what a folder of these files has instead of safetensors weights, and what to do."""
    shards = sorted(name for name in names if Path(name).match("*.safetensors"))
    if shards:
        return (
            f"no {entry} and no {INDEX}, only {shards[0]}; save the model again with "
            "transformers' save_pretrained"
        )
    other = sorted(name for name in names if any(Path(name).match(p) for p in OTHER_FORMATS))
    if not other:
        return f"no safetensors weights ({entry} expected); fetch or save the model again"
    if other[0].endswith(".gguf"):
        return f'no safetensors weights but {other[0]}; give gguf = "{other[0]}" in the suite file'
    return f"no safetensors weights but {other[0]}, and reading that format can run code; {CONVERT}"


def is_quantised(folder: Path) -> bool:
    """Tell whether a folder's configuration says that its weights are quantised."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        settings = json.loads((folder / "config.json").read_text("utf-8"))
        return settings.get("quantization_config") is not None
    return False


def find_gguf(folder: Path, name: str, wanted_by: str) -> Path:
    """Return the file ``name`` of a folder; raises StudyError naming the files that are there."""
    path = folder / name
    if not path.is_file():
        there = sorted(p.name for p in folder.glob("*") if p.suffix == ".gguf")
        raise StudyError(f"{wanted_by}: {folder} has no {name} ({list_gguf(there)})")
    return path


def list_gguf(names: list[str]) -> str:
    """Return what to do about a missing file where these GGUF files are."""
    if not names:
        return "it has no GGUF file; fix `gguf` or its folder in the suite file"
    return f"its GGUF files: {', '.join(names)}; fix `gguf` in the suite file"
