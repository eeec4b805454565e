"""The project's root and cache folder, its schema version and its default seed."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCHEMA_VERSION = 3  # of the files on disk: raise it when a field is renamed or changes its meaning
SEED = 20260201  # default seed of all random draws of a run


def cache_dir() -> Path:
    """Return the user's cache folder for this project; ``AYA_PROBES_CACHE`` overrides it."""
    override = os.environ.get("AYA_PROBES_CACHE")
    if override:
        return Path(override)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "aya-cross-lingual-probes"


@functools.cache
def source_hash() -> str:
    """Return the sha256 of the package's source files, which results record as provenance.

    It never decides that results are stale; the version numbers in the code do (ADR-012).
    """
    package = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
