"""Hashes that identify a model's files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from aya_probes.errors import StudyError
from aya_probes.models import checkpoints
from aya_probes.suites import Variant

TOKENIZER_FILES = (  # what a tokenizer may be read from; chat templates change no stimulus
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as lower-case hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def folder_sha256(folder: Path, names: Sequence[str]) -> str:
    """Return one sha256 for the named files of a folder, in the order given."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(file_sha256(folder / name).encode())
    return digest.hexdigest()


def adapter_sha256(folder: Path, variant: str) -> str:
    """Return the hash of an adapter's configuration and weights; StudyError if one is missing."""
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            raise StudyError(
                f"{folder / name}: variant {variant}'s adapter is missing; "
                "restore it, or train it with tools/train_adapters.py"
            )
    return folder_sha256(folder, ADAPTER_FILES)


def tokenizer_sha256(folder: Path) -> str:
    """Return one hash for the names and contents of all tokenizer files of a model's folder."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            digest.update(f"{name} {file_sha256(folder / name)}\n".encode())
    return digest.hexdigest()


def model_sha256(folder: Path, variant: Variant) -> str:
    """Return the hash of a model's configuration and weights; StudyError if there is none.

    Only the files that are loaded count: those of the index, or ``model.safetensors``. A GGUF file
    holds its configuration, so that its hash is that of the file.
    """
    wanted_by = f"variant {variant.name}"
    if variant.gguf:
        return file_sha256(checkpoints.find_gguf(folder, variant.gguf, wanted_by))
    if not (folder / "config.json").is_file():
        raise StudyError(
            f"{folder}: no model of {wanted_by} here "
            "(config.json and *.safetensors expected); fix `path` in the suite file"
        )
    if variant.role == "untrained":  # needs no weights; those that are there always counted
        named = checkpoints.choose(folder, wanted_by).files
        weights = [name for name in named if (folder / name).is_file()]
    else:
        weights = [*checkpoints.find(folder, wanted_by).files]
    return folder_sha256(folder, ["config.json", *weights])
