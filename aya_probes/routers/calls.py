"""Call a router that belongs to someone else: it may hang, crash, or return anything.

A function runs in a process of its own, which is killed if it does not answer in time and started
again for the next text. A server is asked over HTTP. Whatever happens, the outcome of a call is an
answer or the reason why there is none.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import httpx2

from aya_probes import errors
from aya_probes.errors import UsageError

START_S = 120.0  # to import a module: a language identifier may load its models then
LONGEST_REPLY = 65_536  # bytes
_SHOWN = 60  # characters of a reply in a reason


@dataclass(frozen=True)
class Outcome:
    """What a router did with a text."""

    answer: str | None
    """The variant it named; None if it named none."""
    reason: str
    """Why there is no answer; empty if there is one."""
    seconds: float
    """How long it took."""


class Router(Protocol):
    """Something that chooses a variant for a text."""

    def __call__(self, text: str) -> Outcome:
        """Return what the router did with ``text``; never raises for what a router does."""


def read_answer(value: object) -> tuple[str | None, str]:
    """Return the variant that a router's reply names, or None and the reason.

    A reply is the variant's name, or an object with the name under ``variant``.
    """
    if isinstance(value, dict):
        if "variant" not in value:
            keys = ", ".join(sorted(map(str, value)))[:_SHOWN]
            return None, f"its reply has no field 'variant' (fields: {keys or 'none'})"
        value = value["variant"]
    if not isinstance(value, str):
        return None, f"it returned {_show(value)} ({type(value).__name__}), not a variant's name"
    return value, ""


def _show(value: object) -> str:
    text = errors.escape_hidden(repr(value))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


# --- functions ---------------------------------------------------------------------------------


def _serve(pipe: Connection, target: str, path: list[str]) -> None:
    """Import the function and answer texts from ``pipe`` until it closes; runs in a child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # stdout is the report's
    sys.path[:0] = path
    module, _, name = target.partition(":")
    try:
        function = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
        if not callable(function):
            raise TypeError(f"{name} is not a function")
    except Exception as error:
        pipe.send((None, errors.summarise(error)))
        return
    pipe.send(("ready", ""))
    with contextlib.suppress(EOFError):
        while True:
            text = pipe.recv()
            try:
                reply = read_answer(function(text))
            except Exception as error:
                reply = None, f"it raised {errors.summarise(error)}"
            pipe.send(reply)


class FunctionRouter:
    """A Python function ``module:function`` from text to variant, in a process of its own."""

    def __init__(self, target: str, timeout: float) -> None:
        """Remember the function; it is imported at the first call, or by ``start``."""
        module, colon, name = target.partition(":")
        if not colon or not all(p.isidentifier() for p in f"{module}.{name}".split(".")):
            raise UsageError(f"--router: {target!r} is not of the form module:function")
        self.target = target
        self._timeout = timeout
        self._process: Any = None
        self._pipe: Connection | None = None

    def start(self) -> None:
        """Start the process and import the function; raises UsageError if that fails."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, self.target, [str(Path.cwd())])
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        state, reason = self._receive(START_S)
        if state is None:
            self.stop()
            raise UsageError(
                f"--router {self.target}: cannot be used: {reason}; give module:function as seen "
                "from this folder"
            )

    def __call__(self, text: str) -> Outcome:
        """Return the function's answer, or why there is none."""
        started = time.monotonic()
        if self._process is None:
            self.start()
            started = time.monotonic()
        assert self._pipe is not None
        try:
            self._pipe.send(text)
            answer, reason = self._receive(self._timeout)
        except OSError:
            answer, reason = None, self._ended()
        return Outcome(answer, reason, time.monotonic() - started)

    def _receive(self, timeout: float) -> tuple[str | None, str]:
        """Return the child's message; a child that is late or gone is stopped."""
        assert self._pipe is not None
        try:
            if self._pipe.poll(timeout):
                answer, reason = self._pipe.recv()
                return answer, reason
        except (EOFError, OSError):
            return None, self._ended()
        self.stop()
        return None, f"no answer within {timeout:g} s"

    def _ended(self) -> str:
        self._process.join(5)
        code = self._process.exitcode
        self.stop()
        return f"its process ended (exit code {code})"

    def stop(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


# --- servers -----------------------------------------------------------------------------------


class HttpRouter:
    """A server that is sent ``{"text": …}`` by POST and replies ``{"variant": …}``."""

    def __init__(self, url: str, timeout: float) -> None:
        """Prepare the client; raises UsageError for something that is not a URL."""
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, ValueError):
            parsed = httpx2.URL("")
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise UsageError(f"--url: {url!r} is not a URL; give http://host:port/path")
        self.target = url
        self._timeout = timeout
        self._client = httpx2.Client(timeout=timeout)

    def __call__(self, text: str) -> Outcome:
        """Return the server's answer, or why there is none."""
        started = time.monotonic()
        try:
            answer, reason = self._ask(text, started + self._timeout)
        except httpx2.TimeoutException:
            answer, reason = None, f"no answer within {self._timeout:g} s"
        except httpx2.HTTPError as error:
            answer, reason = None, f"no answer: {errors.summarise(error)}"
        return Outcome(answer, reason, time.monotonic() - started)

    def _ask(self, text: str, deadline: float) -> tuple[str | None, str]:
        body = json.dumps({"text": text}, ensure_ascii=False).encode()
        headers = {"content-type": "application/json; charset=utf-8"}
        content = b""
        with self._client.stream("POST", self.target, content=body, headers=headers) as response:
            for part in response.iter_bytes():
                content += part
                if time.monotonic() > deadline:
                    return None, f"no answer within {self._timeout:g} s"
                if len(content) > LONGEST_REPLY:
                    return None, f"its reply is longer than {LONGEST_REPLY} bytes"
        kind = response.headers.get("content-type", "")
        if response.status_code != 200:
            return None, f"HTTP status {response.status_code}: {_show(_start(content))}"
        if "html" in kind or content.lstrip()[:1] == b"<":
            return None, f"it replied with HTML, not JSON: {_show(_start(content))}"
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            return None, f"its reply is not JSON: {_show(_start(content))}"
        return read_answer(value)

    def stop(self) -> None:
        """Close the connection."""
        self._client.close()


def _start(content: bytes) -> str:
    return content[:200].decode("utf-8", "replace")


@contextlib.contextmanager
def open_router(function: str | None, url: str | None, timeout: float) -> Iterator[Router]:
    """Open the router given as ``module:function`` or as a URL, and stop it afterwards.

    Raises UsageError for one that cannot be imported, or is neither.
    """
    if url is not None:
        server = HttpRouter(url, timeout)
        try:
            yield server
        finally:
            server.stop()
        return
    process = FunctionRouter(function or "", timeout)
    process.start()
    try:
        yield process
    finally:
        process.stop()
