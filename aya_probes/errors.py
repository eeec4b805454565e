"""Errors that a user can fix, and how a message shows what a screen hides."""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Iterable

EXIT_DATA = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class StudyError(Exception):
    """Bad data or an environment that cannot serve: one message that says what mends it."""

    exit_code = EXIT_DATA


class UsageError(StudyError):
    """A flag or a name that does not exist: the message lists the valid ones."""

    exit_code = EXIT_USAGE


def unknown(kind: str, value: object, valid: Iterable[str]) -> str:
    """Say that ``value`` is not a known ``kind`` and list the valid ones."""
    return f"unknown {kind} {value!r}; valid: {', '.join(valid)}"


def escape_hidden(text: str) -> str:
    """Show what a screen hides: format, control and lone surrogate characters as code points."""
    return "".join(
        f"⟨U+{ord(char):04X}⟩" if unicodedata.category(char) in ("Cc", "Cf", "Cs") else char
        for char in text
    )


def is_disk_error(error: Exception) -> bool:
    """Say whether this machine's disk refused: full, read-only, not permitted …"""
    if not isinstance(error, OSError) or error.errno not in DISK_FIXES:
        return False
    return error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


DISK_FIXES = {
    errno.ENOSPC: "free some disk space, then run again without --overwrite (what is done stays)",
    errno.EDQUOT: "your disk quota is used up: free some, then run again without --overwrite",
    errno.EACCES: "make it writable, or choose another folder with --run-dir DIR",
    errno.EPERM: "make it writable, or choose another folder with --run-dir DIR",
    errno.EROFS: "it is on a read-only disk: choose another folder with --run-dir DIR",
    errno.ENOTDIR: "a part of this path is a file: choose another folder with --run-dir DIR",
    errno.EEXIST: "a file stands where a folder should be: choose another with --run-dir DIR",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter one with --run-dir DIR",
    errno.ELOOP: "its links lead in a circle: choose another folder with --run-dir DIR",
    errno.EISDIR: "a folder stands where a file should be: move it away",
    errno.EFBIG: "the file size limit was reached: raise it (ulimit -f) and run again",
}
