"""Serve a router over HTTP, on this machine only.

uv run examples/serve_router.py examples.router:route 8000
uv run check_router.py --url http://127.0.0.1:8000/
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def make_server(route: Callable[[str], str], port: int) -> ThreadingHTTPServer:
    """Return a server that replies {"variant": route(text)} to {"text": text}."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            reply = json.dumps({"variant": route(json.loads(body)["text"])}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    module, _, name = sys.argv[1].partition(":")
    make_server(getattr(importlib.import_module(module), name), int(sys.argv[2])).serve_forever()
