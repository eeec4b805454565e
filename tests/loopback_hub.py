"""A small Hugging Face hub on loopback, for the real client libraries to talk to.

It serves what the clients ask for: repository info, file lists, ``paths-info``, and files by HEAD
and GET with commit, ETag and size headers; files that the hub keeps in LFS are redirected to a
"CDN" path and honour Range. Faults are switched on per test: a gate (with the hub's own status and
error codes), a download that breaks off, a server that goes silent, content that is not what the
file list promises.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

GRANTED, NOT_GRANTED = "hf_granted", "hf_not_granted"
LFS_SUFFIXES = (".safetensors", ".parquet")
SLICE = 256 * 1024


@dataclass(frozen=True)
class File:
    """A file's content and its hashes, as the hub lists them."""

    data: bytes
    sha256: str
    git: str


@functools.lru_cache(maxsize=500)
def _file(path: Path, changed_ns: int, size: int) -> File:
    data = path.read_bytes()
    git = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    return File(data, hashlib.sha256(data).hexdigest(), git)


@dataclass
class Repo:
    """A repository of one commit, from a folder."""

    folder: Path
    kind: str = "model"  # model | dataset
    gated: bool = False

    @property
    def files(self) -> dict[str, File]:
        paths = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        stats = [path.stat() for path in paths]
        return {
            path.relative_to(self.folder).as_posix(): _file(path, stat.st_mtime_ns, stat.st_size)
            for path, stat in zip(paths, stats, strict=True)
        }

    @property
    def commit(self) -> str:
        listing = {name: file.sha256 for name, file in self.files.items()}
        return hashlib.sha1(json.dumps(listing, sort_keys=True).encode()).hexdigest()


@dataclass
class Hub:
    """The running hub: its repositories, its faults and a log of the requests."""

    url: str
    repos: dict[str, Repo] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)  # path parts that are never answered
    break_after: dict[str, int] = field(default_factory=dict)  # file: bytes sent, once
    replaced: dict[str, bytes] = field(default_factory=dict)  # file: other content than listed
    down: int | None = None  # a status for every request
    bytes_per_s: float | None = None  # how fast content is sent (benchmarks/overlap.py)
    log: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def cdn(self) -> str:
        """The same server under another name: files in LFS come from another host."""
        return self.url.replace("127.0.0.1", "localhost")


def _blob(name: str, file: File) -> dict[str, Any]:
    size = len(file.data)
    entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": file.git}
    if name.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": file.sha256, "size": size, "pointerSize": 134}
    return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean; requests are in ``hub.log``."""

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.answer(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

    def say(self, data: Any) -> None:
        self.answer(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def serve(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path).strip("/")
        self.hub.log.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if any(part in path for part in self.hub.silent):
            self.hub.stop.wait()  # until the test ends: the client has to give up by itself
            self.close_connection = True
        elif self.hub.down is not None:
            self.refuse(self.hub.down, "", "the hub is down")
        elif path.startswith("api/"):
            self.api(path.removeprefix("api/"), body)
        elif path.startswith("cdn/"):
            self.cdn(path.removeprefix("cdn/"))
        else:
            self.resolve(path)

    do_GET = do_HEAD = do_POST = serve

    def find(self, kind: str, owner: str, name: str) -> Repo | None:
        repo = self.hub.repos.get(f"{owner}/{name}")
        if repo is None or repo.kind != kind:
            signed_in = "Authorization" in self.headers
            self.refuse(404 if signed_in else 401, "RepoNotFound", "Repository not found")
            return None
        return repo

    def api(self, path: str, body: bytes) -> None:
        if path.count("/") < 2:
            return self.refuse(404, "", "no such call")
        kinds, owner, name, *rest = path.split("/")
        repo = self.find(kinds.removesuffix("s"), owner, name)
        if repo is None:
            return None
        what, revision = [*rest, "main"][:2] if rest else ("revision", "main")
        if what == "auth-check":
            if self.is_open(repo, f"{owner}/{name}"):
                self.say({})
        elif revision not in ("main", repo.commit):
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif what == "revision":
            self.say({
                "_id": "0", "id": f"{owner}/{name}", "sha": repo.commit, "private": False,
                "gated": "manual" if repo.gated else False, "disabled": False, "tags": [],
                "downloads": 0, "likes": 0, "lastModified": "2026-01-01T00:00:00.000Z",
                "siblings": [{"rfilename": name, "size": len(file.data), "blobId": "0" * 40}
                             for name, file in repo.files.items()],
            })  # fmt: skip
        elif what == "tree":
            below = "/".join(rest[2:])
            entries = [_blob(n, f) for n, f in repo.files.items() if n.startswith(below)]
            self.say(entries)
        else:  # paths-info
            fields = urllib.parse.parse_qs(body.decode())
            asked = fields.get("paths", [])
            if not asked and body.startswith(b"{"):
                asked = json.loads(body)["paths"]
            files = repo.files
            found = [_blob(file, files[file]) for file in asked if file in files]
            folders = {f.rpartition("/")[0] for f in files}
            found += [{"type": "directory", "path": p, "oid": "0" * 40} for p in asked
                      if p in folders]  # fmt: skip
            self.say(found)

    def is_open(self, repo: Repo, name: str) -> bool:
        """Refuse a token that is unknown, or not enough for a gated repository."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in ("", GRANTED, NOT_GRANTED):
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif repo.gated and token == "":
            self.refuse(401, "GatedRepo", f"Access to {name} is restricted.")
        elif repo.gated and token == NOT_GRANTED:
            self.refuse(403, "GatedRepo", "you are not in the authorized list")
        else:
            return True
        return False

    def resolve(self, path: str) -> None:
        kind = "dataset" if path.startswith("datasets/") else "model"
        owner, name, _, revision, *rest = path.removeprefix("datasets/").split("/")
        repo = self.find(kind, owner, name)
        if repo is None:
            return None
        if not self.is_open(repo, f"{owner}/{name}"):
            return None
        if revision not in ("main", repo.commit):
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        name = "/".join(rest)
        commit = {"X-Repo-Commit": repo.commit}
        file = repo.files.get(name)
        if file is None:
            headers = {**commit, "X-Error-Code": "EntryNotFound",
                       "X-Error-Message": "Entry not found"}  # fmt: skip
            return self.answer(404, b"", headers)
        blob = _blob(name, file)
        if "lfs" in blob:
            return self.answer(302, b"", {
                **commit, "X-Linked-ETag": f'"{blob["lfs"]["oid"]}"',
                "X-Linked-Size": str(len(file.data)), "Location": f"{self.hub.cdn}/cdn/{path}",
            })  # fmt: skip
        return self.content(name, file.data, {**commit, "ETag": f'"{blob["oid"]}"'})

    def cdn(self, path: str) -> None:
        owner, name, _, _, *rest = path.removeprefix("datasets/").split("/")
        path = "/".join(rest)
        file = self.hub.repos[f"{owner}/{name}"].files[path]
        data = self.hub.replaced.get(path, file.data)
        self.content(path, data, {"ETag": f'"{file.sha256}"'})

    def content(self, file: str, data: bytes, headers: dict[str, str]) -> None:
        headers |= {"Accept-Ranges": "bytes"}
        first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        status, part = (206, data[first:]) if first else (200, data)
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        if self.command == "GET" and file in self.hub.break_after:
            sent = self.hub.break_after.pop(file)
            self.send_response(status)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part[:sent])
            self.close_connection = True  # fewer bytes than promised, then the end
        elif self.hub.bytes_per_s is None or self.command == "HEAD":
            self.answer(status, part, headers)
        else:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(part)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            for start in range(0, len(part), SLICE):
                self.wfile.write(part[start : start + SLICE])
                time.sleep(len(part[start : start + SLICE]) / self.hub.bytes_per_s)


def client_environment(url: str, home: Path, **more: str) -> dict[str, str]:
    """Return an environment whose clients know the hub at ``url`` only and cache below ``home``.

    What this process has set for the clients (offline, a token) is left out.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    return clean | {
        "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1", "OMP_NUM_THREADS": "1", **more,
    }  # fmt: skip


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub on a free port of 127.0.0.1 until the context ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"hub": hub})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
