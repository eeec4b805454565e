"""Read and write files: atomic writes, hashes, and errors that say how to fix them.

JSON is UTF-8 with sorted keys and a final newline, so the same data gives the same bytes.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from aya_probes.errors import StudyError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MAKE_MANIFEST = "uv run build_stimuli.py"
MAKE_ACTIVATIONS = "uv run batch_runner.py --local"
MAKE_CURVES = "uv run concept_alignment.py"
MAKE_FAILURES = "uv run failure_classifier.py"
_TEMPORARY = ".writing-"


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; on success it is synced and replaces ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f"{_TEMPORARY}{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).chmod(0o644)
        os.replace(name, path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed run left in ``folder``.

    Hold the lock of the run folder when calling it, as another run could be writing there.
    """
    for path in folder.glob(f"{_TEMPORARY}*"):
        path.unlink(missing_ok=True)


def canonical_json(data: Any, *, indent: int | None = 1) -> str:
    """Return ``data`` as JSON text with sorted keys; raises ValueError for NaN and infinities."""
    return (
        json.dumps(data, ensure_ascii=False, sort_keys=True, indent=indent, allow_nan=False) + "\n"
    )


def digest(data: Any) -> str:
    """Return the sha256 of the canonical JSON of ``data``."""
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()


def save_json(path: Path, data: Any, *, indent: int | None = 1) -> None:
    """Write ``data`` as canonical JSON, atomically."""
    _write(path, canonical_json(data, indent=indent).encode())


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as handle:
        handle.write(content)
    _record_sum(path, content)


def _sums(path: Path) -> tuple[Path, str] | None:
    """Return the SHA256SUMS file that lists ``path``, and its name there (for ``sha256sum -c``)."""
    if path.parent.name == "results":
        return path.parent / "SHA256SUMS", path.name
    if path.name == "p1_edge_cases.json":
        return path.parent / "results" / "SHA256SUMS", f"../{path.name}"
    return None


def _read_sums(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {name: sha for sha, _, name in (line.partition("  ") for line in lines) if name}


def _record_sum(path: Path, content: bytes) -> None:
    where = _sums(path)
    if where is not None:
        sums = _read_sums(where[0]) | {where[1]: hashlib.sha256(content).hexdigest()}
        with atomic_write(where[0]) as handle:
            handle.write("".join(f"{sums[n]}  {n}\n" for n in sorted(sums)).encode())


def _check_sum(path: Path, content: bytes, make: str) -> None:
    """Raise StudyError if SHA256SUMS lists another hash for the file; unlisted files pass."""
    where = _sums(path)
    expected = _read_sums(where[0]).get(where[1]) if where else None
    if where and expected and hashlib.sha256(content).hexdigest() != expected:
        raise StudyError(
            f"{path}: altered since it was written (see {where[0]}); regenerate it with: {make}"
        )


def matches_sum(path: Path) -> bool:
    """Return whether a result exists and has the hash that SHA256SUMS lists."""
    where = _sums(path)
    if where is None or not path.is_file():
        return False
    return _read_sums(where[0]).get(where[1]) == hashlib.sha256(path.read_bytes()).hexdigest()


def decode(content: bytes, source: str, fix: str) -> str:
    """Return UTF-8 bytes as text, without a byte order mark.

    Raises StudyError for other encodings, with ``source`` and the line; it ends with ``fix``.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise StudyError(f"{source}: is UTF-16, not UTF-8; save it as UTF-8, or {fix}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StudyError(
            f"{source}: line {line}: not UTF-8 ({error.reason}); save it as UTF-8, or {fix}"
        ) from None


def load_json(path: Path, make: str) -> Any:
    """Read JSON; raises StudyError with ``path`` and ``make``, the command that writes it."""
    try:
        content = path.read_bytes()
        _check_sum(path, content, make)
    except FileNotFoundError:
        raise StudyError(f"{path}: missing; make it with: {make}") from None
    except IsADirectoryError:
        raise StudyError(f"{path}: is a folder, not a file; move it away, then: {make}") from None
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read ({error})") from None
    return parse_json(decode(content, str(path), f"make it with: {make}"), str(path), make)


def parse_json(text: str, source: str, make: str) -> Any:
    """Parse JSON; raises StudyError for bad syntax, NaN, infinities and lone surrogates."""
    try:
        data = json.loads(text, parse_float=_finite_float, parse_constant=_finite_float)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise StudyError(
            f"{source}: holds a lone surrogate; fix it or regenerate it with: {make}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise StudyError(
            f"{source}: not valid JSON ({error}); regenerate it with: {make}"
        ) from None
    return data


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def need(record: Any, name: str, kind: type | tuple[type, ...], where: str, make: str) -> Any:
    """Return field ``name`` of a parsed JSON object, which must be of type ``kind``.

    Otherwise raises StudyError with ``where``, the field and ``make``, the command that writes it.
    """
    if not isinstance(record, dict) or name not in record:
        raise StudyError(
            f"{where}: field {name!r} is missing; fix it or regenerate it with: {make}"
        )
    value = record[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise StudyError(
            f"{where}: field {name!r} has the wrong type ({type(value).__name__}); "
            f"fix it or regenerate it with: {make}"
        )
    return value


def need_name(record: Any, name: str, where: str, make: str) -> str:
    """Return field ``name``, which must be an identifier: 1 to 100 letters, digits, . _ -

    Identifiers become parts of ids, paths and messages. Raises StudyError as ``need`` does.
    """
    value = str(need(record, name, str, where, make))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise StudyError(
            f"{where}: field {name!r} must be at most 100 letters, digits, . _ - but is "
            f"{value[:60]!r}; fix it or regenerate it with: {make}"
        )
    return value


def save_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV: floats with 6 significant digits, missing values as empty cells."""
    _write(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())


def load_csv(path: Path, columns: tuple[str, ...], make: str) -> pd.DataFrame:
    """Return a CSV with all cells as text; raises StudyError if it is unreadable or incomplete."""
    import pandas as pd

    try:
        content = path.read_bytes()
        _check_sum(path, content, make)
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise StudyError(f"{path}: missing; make it with: {make}") from None
    except (ValueError, OSError, OverflowError) as error:
        raise StudyError(
            f"{path}: not a readable table ({error}); regenerate it with: {make}"
        ) from None
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise StudyError(f"{path}: column {missing[0]!r} is missing; regenerate it with: {make}")
    return table


def finite(value: float, digits: int = 6) -> float | None:
    """Return a number rounded to ``digits`` significant digits; NaN and infinities become None."""
    return None if not math.isfinite(value) else float(f"{value:.{digits}g}")


def finite_list(values: np.ndarray, digits: int = 5) -> list[float | None]:
    """Return a vector rounded for JSON as in ``finite``."""
    return [finite(float(value), digits) for value in values]
