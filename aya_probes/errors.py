"""Errors that a user can fix, and how messages show characters that a screen hides."""

from __future__ import annotations

import errno
import sys
import unicodedata
from collections.abc import Iterable

EXIT_DATA = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class StudyError(Exception):
    """Bad data, or a machine that cannot do the work. The message says how to fix it."""

    exit_code = EXIT_DATA


class UsageError(StudyError):
    """A flag or a name that does not exist. The message lists the valid ones."""

    exit_code = EXIT_USAGE


def unknown(kind: str, value: object, valid: Iterable[str]) -> str:
    """Return the message that ``value`` is not a known ``kind``; it lists the valid ones."""
    return f"unknown {kind} {value!r}; valid: {', '.join(valid)}"


def escape_hidden(text: str) -> str:
    """Return ``text`` with format, control and surrogate characters replaced by code points."""
    return "".join(
        f"⟨U+{ord(char):04X}⟩" if unicodedata.category(char) in ("Cc", "Cf", "Cs") else char
        for char in text
    )


def summarise(error: BaseException, length: int = 400) -> str:
    """Return an error's type and its whole text on one line, cut to ``length`` characters.

    The first line alone often names the function and not the cause.
    """
    lines = (" ".join(line.split()) for line in str(error).splitlines())
    text = escape_hidden(" ".join(line for line in lines if line))
    text = text if len(text) <= length else f"{text[: length - 3]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_DISK_FIXES = {
    errno.ENOSPC: "free some disk space and run again without --overwrite (finished work is kept)",
    errno.EDQUOT: "your disk quota is used up: free some space and run again without --overwrite",
    errno.EACCES: "make it writable, or choose another folder with --run-dir DIR",
    errno.EPERM: "make it writable, or choose another folder with --run-dir DIR",
    errno.EROFS: "it is on a read-only disk: choose another folder with --run-dir DIR",
    errno.ENOTDIR: "a part of this path is a file, not a folder: choose another with --run-dir DIR",
    errno.EEXIST: "a file is in the place of this folder: choose another with --run-dir DIR",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter one with --run-dir DIR",
    errno.ELOOP: "its symbolic links form a loop: choose another folder with --run-dir DIR",
    errno.EISDIR: "a folder is in the place of this file: move it away",
    errno.EFBIG: "the file size limit was reached: raise it (ulimit -f) and run again",
}


def is_disk_error(error: Exception) -> bool:
    """Return whether the disk refused: full, read-only, no permission and so on."""
    if not isinstance(error, OSError) or error.errno not in _DISK_FIXES:
        return False
    return error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def explain_disk_error(error: OSError) -> str:
    """Return the message for a disk error: the path, what happened and how to fix it."""
    where = escape_hidden(str(error.filename or "the run folder"))
    return f"{where}: {error.strerror}; {_DISK_FIXES[error.errno or errno.ENOSPC]}"


def warn(message: str) -> None:
    """Print a warning to stderr."""
    print(f"warning: {message}", file=sys.stderr)
