"""Repositories of the Hugging Face hub: one commit, its files, their hashes, and plain messages.

A model is fetched whole by ``huggingface_hub.snapshot_download``, which caches, resumes, and works
offline with ``HF_HUB_OFFLINE=1``. It is then loaded from its folder, so that a download can fail in
one place only. Weights are safetensors; no code of a repository is run.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
from huggingface_hub import constants, get_session, set_client_factory
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import disable_progress_bars, logging

from aya_probes import errors
from aya_probes.errors import StudyError
from aya_probes.models import checkpoints, fingerprints

SITE = "https://huggingface.co"
_SETTINGS = ("*.json", "*.model", "merges.txt", "vocab.txt")
_ELSEWHERE = ("*/*",)  # original checkpoints, ONNX exports …


@dataclass(frozen=True)
class Repository:
    """A repository as the messages name it."""

    name: str
    """owner/name."""
    wanted_by: str
    """What needs it: `variant fire`, `--corpus flores`."""
    fallback: str
    """How to go on without it; may be empty."""
    kind: str = "model"
    """`model` or `dataset`."""

    @property
    def url(self) -> str:
        """Return the page where its licence is accepted."""
        return f"{SITE}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"


def fetch_model(repository: Repository, revision: str | None, *, weights: bool) -> Path:
    """Return the local folder of a model's files, fetched if need be; its name is the commit.

    Every file is checked against the hash that the hub gives for it. Raises StudyError, which says
    what to do, for a gate, a missing repository, a broken network or a broken file.
    """
    folder = _fetch(repository, revision, _SETTINGS)
    weights_files: tuple[str, ...] = ()
    if weights:  # one copy of them: repositories may hold several
        weights_files = checkpoints.choose(folder, repository.wanted_by).files
        _fetch(repository, folder.name, [glob.escape(name) for name in weights_files])
    _check_files(folder, weights_files, repository)
    if weights and not any((folder / name).is_file() for name in weights_files):
        raise StudyError(
            f"{repository.wanted_by}: {repository.name} at {folder.name} has "
            f"{_explain_absence(repository, folder.name)}, or choose another repository or revision"
        )
    if weights:
        checkpoints.find(folder, repository.wanted_by)
    return folder


def fetch_gguf(repository: Repository, revision: str | None, name: str) -> Path:
    """Return the local folder with one GGUF file and a model's small files, as ``fetch_model``."""
    folder = _fetch(repository, revision, (*_SETTINGS, glob.escape(name)))
    if not (folder / name).is_file():
        there = [file for file in _list_files(repository, folder.name) if file.endswith(".gguf")]
        hint = checkpoints.list_gguf(sorted(there))
        if constants.HF_HUB_OFFLINE:
            hint = f"in the cache {constants.HF_HUB_CACHE}; unset HF_HUB_OFFLINE and run again"
        raise StudyError(
            f"{repository.wanted_by}: {repository.name} at {folder.name} has no {name} ({hint})"
        )
    _check_files(folder, (name,), repository)
    return folder


def _check_files(folder: Path, weights_files: Sequence[str], repository: Repository) -> None:
    for path in sorted(folder.iterdir()):
        if path.name in weights_files or any(path.match(pattern) for pattern in _SETTINGS):
            _check_file(path, repository)


def _fetch(repository: Repository, revision: str | None, patterns: Sequence[str]) -> Path:
    with explain_errors(repository):
        return Path(
            huggingface_hub.snapshot_download(
                repository.name,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(_ELSEWHERE),
            )
        )


def _explain_absence(repository: Repository, commit: str) -> str:
    return checkpoints.explain_absence(_list_files(repository, commit))


def _list_files(repository: Repository, commit: str) -> list[str]:
    names: list[str] = []
    with contextlib.suppress(StudyError), explain_errors(repository):  # offline: names unknown
        names = huggingface_hub.HfApi().list_repo_files(repository.name, revision=commit)
    return [name for name in names if "/" not in name]


def _check_file(path: Path, repository: Repository) -> None:
    """Check a cached file against the hub's hash of it, which is the name of its blob.

    LFS files are named by their sha256, others by git's sha1. A cache without symbolic links keeps
    no such name: nothing is checked there.
    """
    if not path.is_symlink():
        return
    expected = path.readlink().name
    if not path.is_file():
        found = "missing"
    elif re.fullmatch(r"[0-9a-f]{64}", expected):
        found = fingerprints.file_sha256(path)
    elif re.fullmatch(r"[0-9a-f]{40}", expected):
        data = path.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    else:
        return
    if found != expected:
        raise StudyError(
            f"{repository.wanted_by}: {path}: its hash is {found}, the hub says {expected}; delete "
            f"{path.resolve()} and run again: it is fetched again"
        )


def describe_model(repository: Repository, revision: str | None) -> tuple[dict[str, Any], int]:
    """Return a model's configuration and the bytes of its weights; fetches none."""
    with explain_errors(repository):
        name, api = repository.name, huggingface_hub.HfApi()
        config = Path(huggingface_hub.hf_hub_download(name, "config.json", revision=revision))
        files = api.model_info(name, revision=revision, files_metadata=True).siblings or []
        sizes = {file.rfilename: file.size or 0 for file in files}
        if checkpoints.INDEX in sizes:
            huggingface_hub.hf_hub_download(name, checkpoints.INDEX, revision=config.parent.name)
        weights = checkpoints.choose(config.parent, repository.wanted_by).files
        size = sum(sizes.get(file, 0) for file in weights)
        return dict(json.loads(config.read_text("utf-8"))), size


def file_size(repository: Repository, revision: str | None, name: str) -> int | None:
    """Return the bytes of one file of a model; None if it has no such file."""
    with explain_errors(repository):
        api = huggingface_hub.HfApi()
        info = api.model_info(repository.name, revision=revision, files_metadata=True)
        return next((file.size for file in info.siblings or [] if file.rfilename == name), None)


def dataset_commit(repository: Repository) -> str | None:
    """Return the commit of a dataset's main branch, None when HF_HUB_OFFLINE is set.

    Asks the hub for access too: ``datasets`` would fall back to any older copy in the cache.
    """
    if constants.HF_HUB_OFFLINE:
        return None
    with explain_errors(repository):
        huggingface_hub.auth_check(repository.name, repo_type=repository.kind)
        return str(huggingface_hub.HfApi().dataset_info(repository.name).sha)


@contextlib.contextmanager
def explain_errors(repository: Repository, *more: type[Exception]) -> Iterator[None]:
    """Turn failures of the hub's clients, and ``more``, into one StudyError that names the fix."""
    logging.set_verbosity_error()
    disable_progress_bars()
    _bound_waiting()
    try:
        yield
    except (OSError, ValueError, RuntimeError, httpx2.HTTPError, *more) as error:
        # RuntimeError: what the Xet client raises when a transfer fails.
        if errors.is_disk_error(error):
            raise
        message = f"{repository.wanted_by}: {_explain(error, repository)}"
        if repository.fallback:
            message += f"; {repository.fallback}"
        raise StudyError(message) from None


@functools.cache
def _bound_waiting() -> None:
    """Give every request of the client a timeout: some of its calls would wait for ever."""

    def bound(request: httpx2.Request) -> None:
        timeouts = request.extensions.setdefault("timeout", {})
        for phase in ("connect", "read", "write", "pool"):
            if timeouts.get(phase) is None:
                timeouts[phase] = constants.HF_HUB_ETAG_TIMEOUT

    hooks = {"request": [*get_session().event_hooks["request"], bound]}
    set_client_factory(lambda: httpx2.Client(event_hooks=hooks, follow_redirects=True))


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and what led to it, outermost first."""
    found: list[BaseException] = []
    while error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__ or error
    return found


def _explain(error: BaseException, repository: Repository) -> str:
    def first(*kinds: type[BaseException]) -> Any:
        return next((link for link in _chain(error) if isinstance(link, kinds)), None)

    response = getattr(first(hub_errors.HfHubHTTPError), "response", None)
    status = getattr(response, "status_code", None)
    login = "sign in with `uv run hf auth login`"
    if first(hub_errors.GatedRepoError):
        if status == 403:
            return (
                f"your account has no access to {repository.name}: accept its licence at "
                f"{repository.url} and wait until it is granted (or {login} as another user)"
            )
        return f"{repository.name} is gated: accept its licence at {repository.url} and {login}"
    if first(hub_errors.RevisionNotFoundError):
        return f"{repository.name} has no such revision; fix `revision` in the suite file"
    if first(hub_errors.RepositoryNotFoundError):
        return (
            f"{repository.name} does not exist, or your token may not see it: look at "
            f"{repository.url}, fix the name, or {login}"
        )
    if first(hub_errors.OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        return (
            f"HF_HUB_OFFLINE is set and {repository.name} is not wholly in the cache "
            f"({constants.HF_HUB_CACHE}); unset it and run again"
        )
    if first(httpx2.TimeoutException):
        return (
            f"{constants.ENDPOINT} stopped answering (HF_HUB_ETAG_TIMEOUT "
            f"{constants.HF_HUB_ETAG_TIMEOUT} s, HF_HUB_DOWNLOAD_TIMEOUT "
            f"{constants.HF_HUB_DOWNLOAD_TIMEOUT} s); run again, the files fetched are kept"
        )
    if response is not None:
        said = response.headers.get("X-Error-Message") or response.reason_phrase
        fix = login if status in (401, 403) else "run again later"
        return f"{constants.ENDPOINT} refused {repository.name} ({status} {said}); {fix}"
    if first(httpx2.TransportError):
        return (
            f"{constants.ENDPOINT} cannot be reached; check the network and run again, or set "
            "HF_HUB_OFFLINE=1 to use what is in the cache"
        )
    said = list(dict.fromkeys(_first_line(link) for link in (error, _chain(error)[-1])))
    text = errors.escape_hidden(": ".join(said))
    return f"{repository.name}: {text}; run again, the files fetched are kept"


def _first_line(error: BaseException) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
