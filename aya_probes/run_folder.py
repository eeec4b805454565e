"""The paths of one run's files, and the lock that keeps a second run out of its folder.

The operating system releases the lock when a process ends, even if it is killed. The text in the
lock file only says which process holds it.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aya_probes import errors, project
from aya_probes.errors import StudyError


@dataclass(frozen=True)
class RunPaths:
    """The paths of a run's files below the repository root or ``--run-dir``."""

    run_dir: Path = project.ROOT

    @property
    def manifest(self) -> Path:
        return self.run_dir / "data" / "stimulus_manifest.json"

    @property
    def activations(self) -> Path:
        return self.run_dir / "activations"

    @property
    def results(self) -> Path:
        return self.run_dir / "results"

    @property
    def curves(self) -> Path:
        return self.results / "alignment_curves.json"

    @property
    def curve_table(self) -> Path:
        return self.results / "curves.csv"

    @property
    def commitment(self) -> Path:
        return self.results / "commitment_matrix.csv"

    @property
    def contrasts(self) -> Path:
        return self.results / "contrasts.csv"

    @property
    def language_map(self) -> Path:
        return self.results / "language_map.csv"

    @property
    def token_audit(self) -> Path:
        return self.results / "token_audit.json"

    @property
    def token_pieces(self) -> Path:
        return self.results / "token_pieces.json"

    @property
    def logit_lens(self) -> Path:
        return self.results / "logit_lens.csv"

    @property
    def concept_patching(self) -> Path:
        return self.results / "concept_patching.csv"

    @property
    def report(self) -> Path:
        return self.results / "report.html"

    @property
    def published(self) -> Path:
        return self.results / "published_reanalysis.json"

    @property
    def failure_cases(self) -> Path:
        return self.results / "failure_cases.csv"

    @property
    def failure_tests(self) -> Path:
        return self.results / "failure_tests.csv"

    @property
    def borrowed_words(self) -> Path:
        return self.results / "borrowed_words.csv"

    @property
    def behaviour(self) -> Path:
        return self.results / "behaviour.csv"

    @property
    def behaviour_summary(self) -> Path:
        return self.results / "behaviour_summary.csv"

    @property
    def behaviour_tests(self) -> Path:
        return self.results / "behaviour_tests.csv"

    @property
    def behaviour_cases(self) -> Path:
        return self.results / "behaviour_cases.csv"

    @property
    def edge_cases(self) -> Path:
        return self.run_dir / "p1_edge_cases.json"

    @property
    def assets(self) -> Path:
        return self.run_dir / "assets"

    def flag(self) -> str:
        """Return the ``--run-dir`` flag that later commands need; empty for the default folder."""
        return "" if self.run_dir.resolve() == project.ROOT else f" --run-dir {self.run_dir}"


LOCK_NAME = ".run-lock.json"
_BUSY = (errno.EAGAIN, errno.EACCES)
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextlib.contextmanager
def lock_run(folder: Path, command: str) -> Iterator[None]:
    """Lock ``folder`` for this process inside the context; ``command`` is written into the lock.

    Raises StudyError with the holder (process, host, command, start) if another run has the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_NAME
    with contextlib.ExitStack() as stack:
        descriptor = _lock(path)
        if descriptor is None:
            print(f"note: {folder}: no file locks on this disk; run one at a time", file=sys.stderr)
        else:
            stack.callback(os.close, descriptor)
            stack.callback(path.unlink, missing_ok=True)  # runs first, still locked
            os.write(descriptor, json.dumps(_holder(command)).encode())
        yield


def _lock(path: Path) -> int | None:
    import fcntl

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(descriptor).st_ino:
                    os.ftruncate(descriptor, 0)  # clear what a killed run left
                    return descriptor
            os.close(descriptor)  # its last holder has just removed the file: try again
        except OSError as error:
            os.close(descriptor)
            if error.errno in _UNSUPPORTED:
                return None
            if error.errno not in _BUSY:
                raise
            raise StudyError(f"{path.parent}: {_who(path)}; wait for it or stop it") from None


def _holder(command: str) -> dict[str, str | int]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": now}


def _who(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return errors.escape_hidden(
            f"in use by {holder['command']} (process {holder['pid']} on {holder['host']}, "
            f"since {holder['since']})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return f"in use by another run (its name is not readable in {path.name})"
