"""Routers that answer, hang, crash and return nonsense, as functions and as real servers."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import threading
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

import check_router
from aya_probes import project, records
from aya_probes.errors import UsageError
from aya_probes.failures import edge_cases
from aya_probes.results.failures import (
    EdgeCase,
    EdgeCaseFile,
    EdgeCaseInfo,
    Evidence,
    load_edge_cases,
    save_edge_cases,
)
from aya_probes.routers import calls, check
from aya_probes.routers.calls import Outcome
from examples import router as example
from examples import serve_router
from tools import edge_case_schema

VARIANTS = ("base", "global", "fire", "earth")
HIDDEN = "\u202bمرحبا\u202c e\u0301\u200d"  # bidi marks, a decomposed é, a joiner
ROUTERS = """
import os, sys, time

def fire(text): return "fire"
def echo(text):
    print("noise on stdout")
    return {"variant": "fire" if text == "TEXT" else "base"}
def hangs(text):
    if "hang" in text: time.sleep(600)
    return "fire"
def crashes(text):
    if "crash" in text: os._exit(3)
    return "fire"
def leaves(text): sys.exit("bye")
def raises(text): raise KeyError(text)
def number(text): return 3
def nothing(text): return None
def other(text): return {"model": "fire"}
def unknown(text): return "water\\u200b"
not_a_function = 1
""".replace("TEXT", HIDDEN)


def make_case(
    text: str,
    acceptable: Sequence[str] = ("fire",),
    *,
    language: str = "hi",
    category: str = "UNICODE_EDGE",
    status: str = "confirmed",
) -> EdgeCase:
    evidence = Evidence(
        "p", "c", "s", "fire", "global", {"fire": 0.1}, 0.1, (0.0, 0.2), "1-3", "content_mean", "r"
    )
    return EdgeCase(
        test_id="P1-01",
        input=text,
        language_ground_truth=language,
        expected_variant=acceptable[0],
        acceptable_variants=tuple(acceptable),
        failure_category=category,
        status=status,
        routing_recommendation="",
        p1_test_assertion="",
        evidence=evidence,
    )


def make_file(cases: Sequence[EdgeCase]) -> EdgeCaseFile:
    info = EdgeCaseInfo(
        suite="mini",
        label="",
        note="",
        inputs_sha256="",
        manifest_sha256="",
        seed=0,
        variants=VARIANTS,
        router_best_pass_rate={},
        discriminating=True,
        status_counts={},
        code_sha256="",
    )
    numbered = [replace(case, test_id=f"P1-{n:02d}") for n, case in enumerate(cases, 1)]
    return EdgeCaseFile(
        project.SCHEMA_VERSION, "test", ("UNICODE_EDGE", "CODE_SWITCH"), info, tuple(numbered)
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(ROUTERS, encoding="utf-8")
    (tmp_path / "broken.py").write_text("import no_such_module_xyz", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save_cases(folder: Path, cases: Sequence[EdgeCase]) -> Path:
    path = folder / "cases.json"
    save_edge_cases(path, make_file(cases))
    return path


def test_a_text_arrives_as_it_is_and_prints_do_not_mix_with_json(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save_cases(folder, [make_case(HIDDEN)])
    line = ["--cases", str(path), "--json"]
    assert check_router.main(["--router", "mine:echo", *line]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["passes"] is True
    assert [case["answer"] for case in report["cases"]] == ["fire"]


def test_a_function_that_hangs_or_crashes_fails_that_case_only(folder: Path) -> None:
    content = make_file([make_case(text) for text in ("a", "hang or crash", "b")])
    for name, reason in (("hangs", "no answer within 1 s"), ("crashes", "its process ended (exit")):
        with calls.open_router(f"mine:{name}", None, 1.0) as router:
            started = time.monotonic()
            report = check.check_router(router, content)
        assert [result.passed for result in report.results] == [True, False, True]
        assert report.results[1].reason.startswith(reason)
        assert time.monotonic() - started < 120


def test_whatever_a_function_returns_has_a_reason(folder: Path) -> None:
    expected = {
        "raises": "it raised KeyError",
        "number": "it returned 3 (int), not a variant's name",
        "nothing": "it returned None (NoneType), not a variant's name",
        "other": "its reply has no field 'variant' (fields: model)",
        "leaves": "its process ended (exit code 1)",
    }
    for name, reason in expected.items():
        with calls.open_router(f"mine:{name}", None, 20.0) as router:
            outcome = router("text")
        assert outcome.answer is None
        assert outcome.reason.startswith(reason)


def test_a_function_that_is_not_there_is_a_usage_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_cases(folder, [make_case("x")])
    for target, message in (
        ("mine", "is not of the form module:function"),
        ("broken:route", "No module named 'no_such_module_xyz'"),
        ("mine:not_a_function", "not_a_function is not a function"),
    ):
        assert check_router.main(["--router", target, "--cases", str(path)]) == 2
        assert message in capsys.readouterr().err


def answer(name: str | None, reason: str = "") -> calls.Router:
    return lambda text: Outcome(name, reason, 0.0)


def test_an_unknown_variant_fails_and_its_hidden_characters_show() -> None:
    report = check.check_router(answer("water\u200b"), make_file([make_case("x")]))
    assert report.results[0].reason == (
        "unknown variant 'water⟨U+200B⟩'; valid: base, global, fire, earth"
    )


def test_baselines_are_counted_beside_the_router() -> None:
    """Four cases by hand: two scripts, three languages."""
    cases = [
        make_case("वह", ["fire"], language="hi"),
        make_case("vah", ["global"], language="hi-Latn"),
        make_case("mtu", ["earth"], language="sw", category="CODE_SWITCH"),
        make_case("vah hai", ["earth"], language="hi-Latn", category="CODE_SWITCH"),
        make_case("x", ["base"], status="tie"),
    ]
    report = check.check_router(answer("earth"), make_file(cases))
    passed = {(t.by, t.name): (t.cases, dict(t.passed)) for t in report.tallies}
    assert passed["all", "all"] == (
        4,
        {"router": 2, "constant": 2, "script_only": 3, "language_only": 3},
    )
    assert passed["category", "CODE_SWITCH"][1]["router"] == 2
    assert passed["language", "hi-Latn"][0] == 2
    assert not report.passes
    text = check.format_table(report)
    assert "P1-01 UNICODE_EDGE hi: named earth; acceptable: fire" in text
    assert "1 cases are ties or unconfirmed and do not count" in text
    rates = edge_cases.rate_routers(cases[:4], VARIANTS)
    assert rates == {"constant": 0.5, "script_only": 0.75, "language_only": 0.75}


def test_a_file_without_cases_that_count_judges_no_router(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_cases(tmp_path, [make_case("x", status="tie")])
    assert check_router.main(["--router", "any:thing", "--cases", str(path)]) == 1
    assert "none of its 1 cases counts (confirmed, control)" in capsys.readouterr().err


# --- servers ----------------------------------------------------------------------------------


class Replies(BaseHTTPRequestHandler):
    """Replies by path; remembers the bodies that it was sent."""

    seen: ClassVar[list[bytes]]
    release: ClassVar[threading.Event]

    def do_POST(self) -> None:
        self.seen.append(self.rfile.read(int(self.headers["content-length"])))
        kind, body, status = {
            "/fire": ("application/json", b'{"variant": "fire"}', 200),
            "/name": ("application/json", b'"fire"', 200),
            "/html": ("text/html", b"<!doctype html><p>fire</p>", 200),
            "/hidden-html": ("application/json", b"\n<html>", 200),
            "/nonsense": ("application/json", b"\xff\xfe fire", 200),
            "/list": ("application/json", b"[1]", 200),
            "/down": ("text/plain", b"try later", 503),
            "/moved": ("text/plain", b"", 302),
            "/long": ("application/json", b'"' + b"x" * 70_000 + b'"', 200),
            "/silent": ("application/json", b"", 200),
        }[self.path]
        if self.path == "/silent":
            self.release.wait(60)
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serve() -> Iterator[tuple[str, type[Replies]]]:
    class Handler(Replies):
        seen: ClassVar[list[bytes]] = []
        release = threading.Event()

    handler = Handler
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        handler.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_is_sent_the_text_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unicodedata.normalize("NFC", HIDDEN) != HIDDEN
    path = save_cases(tmp_path, [make_case(HIDDEN)])
    with serve() as (url, handler):
        assert check_router.main(["--url", f"{url}/fire", "--cases", str(path)]) == 0
        assert json.loads(handler.seen[0].decode()) == {"text": HIDDEN}
    assert "1 of 1 cases passed" in capsys.readouterr().out


def test_whatever_a_server_replies_has_a_reason() -> None:
    expected = {
        "html": "it replied with HTML, not JSON: '<!doctype html>",
        "hidden-html": "it replied with HTML",
        "nonsense": "its reply is not JSON",
        "list": "it returned [1] (list), not a variant's name",
        "down": "HTTP status 503: 'try later'",
        "moved": "HTTP status 302",
        "long": "its reply is longer than 65536 bytes",
        "silent": "no answer within 0.5 s",
    }
    with serve() as (url, _):
        for path, reason in expected.items():
            with calls.open_router(
                None, f"{url}/{path}", 0.5 if path == "silent" else 20
            ) as router:
                outcome = router("text")
            assert outcome.answer is None
            assert outcome.reason.startswith(reason)
        with calls.open_router(None, f"{url}/name", 20) as router:
            assert router("text").answer == "fire"
    with calls.open_router(None, f"{url}/fire", 20) as router:  # nobody listens any more
        assert router("text").reason.startswith("no answer: ConnectError")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/", "http://", ""])
def test_what_is_not_a_url_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="is not a URL; give http://host:port/path"):
        calls.HttpRouter(url, 1)


# --- the committed cases, the schema, the examples --------------------------------------------


def test_the_committed_schema_is_that_of_the_records() -> None:
    committed = json.loads(edge_case_schema.SCHEMA.read_text(encoding="utf-8"))
    assert committed == records.json_schema(EdgeCaseFile), "run: uv run tools/edge_case_schema.py"
    fields = committed["$defs"]["EdgeCase"]["required"]
    assert {"input", "acceptable_variants", "status"} <= set(fields)


def test_the_example_router_knows_the_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.ROOT)
    content = load_edge_cases(project.ROOT / "p1_edge_cases.json")
    with calls.open_router("examples.router:route", None, 20) as router:
        report = check.check_router(router, content)
    assert {result.answer for result in report.results} <= set(content.metadata.variants)
    assert 0 < report.total.passed["router"] < report.total.cases


def test_the_example_answers_the_same_when_it_is_served() -> None:
    content = load_edge_cases(project.ROOT / "p1_edge_cases.json")
    server = serve_router.make_server(example.route, 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with calls.open_router(None, f"http://127.0.0.1:{server.server_port}/", 20) as router:
            report = check.check_router(router, content)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert [r.answer for r in report.results] == [example.route(c.input) for c in content.cases]


@pytest.mark.parametrize(("module", "function"), [("py3langid", "py3langid"), ("lingua", "lingua")])
def test_identifiers_make_routers(
    module: str, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: uv sync --group routers")
    monkeypatch.chdir(project.ROOT)
    with calls.open_router(f"examples.identifiers:{function}", None, 60) as router:
        assert router("यह एक साधारण वाक्य है और इसे हर कोई समझता है।").answer == "fire"
        assert router("This is a plain sentence that everybody understands.").answer == "global"
