"""Nothing is lost: faults tried on real processes and real files.

``@pytest.mark.fault(what, outcome)`` puts a line into docs/reliability.md, which
``uv run benchmarks/reliability.py`` regenerates from the fault tests of this file and the others.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import batch_runner
import build_stimuli
from aya_probes import (
    command_line,
    errors,
    files,
    project,
    records,
    run_folder,
    signals,
    stimuli,
    suites,
)
from aya_probes.extraction import runner, store
from aya_probes.models import fingerprints, hub, loading
from aya_probes.planted.tiny import save_tiny, write_study
from aya_probes.results import alignment, failures, tables

KILLS = 20
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
# Forks a child per command line, so that a run costs no imports; the child is a run like any other.
# ``hold``: it says so and waits for a signal when its first shard is there. ``count``: it says how
# many calls it made, in both of its threads. ``kill_at``: SIGKILL at that call.
FORK_SERVER = """
import itertools, json, os, resource, signal, sys, threading
import tqdm
import batch_runner
from aya_probes import command_line
from aya_probes.models import loading
from aya_probes.extraction import runner
from aya_probes.planted.tiny import byte_tokenizer, tiny_model
byte_tokenizer(), tiny_model("cohere2", 0)  # imports what loading imports
out = os.dup(1)

def say(word):
    os.write(out, f"{word}\\n".encode())

def hold():
    save = runner.ShardWriter.save
    def save_and_wait(self, number):
        save(self, number)
        self._last.result()
        say("held")
        signal.pause()
    runner.ShardWriter.save = save_and_wait

def watch(kill_at):
    calls = itertools.count(1)
    def called(frame, event, argument):
        if next(calls) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    threading.setprofile(called)
    sys.setprofile(called)
    return calls

for line in sys.stdin:
    argv, log, limit, runner.SHARD_STIMULI, how, kill_at = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if how == "hold":
            hold()
        calls = watch(kill_at) if how in ("count", "kill") else None
        code = batch_runner.main(argv)
        if how == "count":
            sys.setprofile(None)
            say(next(calls) - 1)
        command_line.exit_process(code)
    say(child)
    say(os.waitpid(child, 0)[1])
"""


class ForkServer:
    """Runs extractions as child processes of a process that has imported everything."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.shard_stimuli = runner.SHARD_STIMULI
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORK_SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=ENVIRONMENT, cwd=project.ROOT,
        )  # fmt: skip

    def start(
        self, *argv: str, limit: int = resource.RLIM_INFINITY, how: str = "", kill_at: int = 0
    ) -> int:
        """Start a run; returns its process id."""
        assert self.process.stdin is not None
        message = json.dumps([argv, str(self.log), limit, self.shard_stimuli, how, kill_at])
        print(message, file=self.process.stdin, flush=True)
        return int(self.heard())

    def heard(self) -> str:
        """Return the next word of the server or of the run that was started."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def wait(self) -> int:
        """Return the exit code of the run that was started (negative: killed by that signal)."""
        return os.waitstatus_to_exitcode(int(self.heard()))

    def run(self, *argv: str, limit: int = resource.RLIM_INFINITY) -> int:
        """Run to the end; returns the exit code."""
        self.start(*argv, limit=limit)
        return self.wait()

    def calls(self, *argv: str) -> int:
        """Run to the end; returns how many calls the run made."""
        self.start(*argv, how="count")
        calls = int(self.heard())
        assert self.wait() == 0
        return calls


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    running = ForkServer(tmp_path_factory.mktemp("server") / "log")
    yield running
    assert running.process.stdin is not None
    running.process.stdin.close()
    running.process.wait()


def flags(run: Path, *more: str) -> list[str]:
    line = ["--local", "--run-dir", str(run), "--device", "cpu", "--variants", "base"]
    return [*line, "--batch-size", "16", *more]  # small packs: a run of seconds


@pytest.fixture(scope="module")
def whole(tiny_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a manifest and no activations; several shards will come of it."""
    run = tmp_path_factory.mktemp("whole")
    assert build_stimuli.main(["--suite", str(tiny_suite), "--run-dir", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def expected(whole: Path, server: ForkServer) -> dict[str, bytes]:
    """The bytes of an uninterrupted extraction."""
    run = whole.parent / "expected"
    shutil.copytree(whole, run)
    assert server.run(*flags(run)) == 0
    found = contents(run)
    assert len(found) > 5
    return found


def contents(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((run / "activations/base").glob("*"))}


def fresh(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.fault(
    f"SIGKILL at {KILLS} random moments of an extraction, each time run again",
    "bytes identical to an uninterrupted run, no leftovers",
)
def test_sigkill_at_random_moments(
    whole: Path, server: ForkServer, tmp_path: Path, monkeypatch: Any,
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    monkeypatch.setattr(server, "shard_stimuli", 32)  # many shards: many places to be killed at
    run = fresh(whole, tmp_path)
    assert server.run(*flags(run)) == 0
    expected = contents(run)
    shards = sum(name.startswith("shard") for name in expected)
    shutil.rmtree(run / "activations")
    calls = server.calls(*flags(run))
    assert contents(run) == expected
    draw = random.Random(project.SEED)
    reached: list[int] = []
    for _ in range(KILLS):
        shutil.rmtree(run / "activations")
        server.start(*flags(run), how="kill", kill_at=draw.randrange(1, int(calls * 0.99)))
        assert server.wait() == -signal.SIGKILL
        reached.append(len(list((run / "activations").glob("base/shard-*"))))
        assert server.run(*flags(run)) == 0
        assert contents(run) == expected
        assert not (run / run_folder.LOCK_NAME).exists()
    record_property("measured", f"shards there at the kills: {sorted(reached)} of {shards}")
    assert len(set(reached)) >= 5  # spread over the extraction, not all before or after it


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(
            number, code, id=name,
            marks=pytest.mark.fault(
                f"{name} in the middle of an extraction, then run again",
                f"exit {code} at once; finished shards kept; the same bytes in the end",
            ),
        )
        for name, number, code in (
            ("Ctrl-C", signal.SIGINT, errors.EXIT_INTERRUPTED),
            ("SIGTERM", signal.SIGTERM, errors.EXIT_TERMINATED),
        )
    ],
)  # fmt: skip
def test_interrupts_keep_what_is_finished(
    number: int, code: int, whole: Path, expected: dict[str, bytes], server: ForkServer,
    tmp_path: Path, record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    run = fresh(whole, tmp_path)
    child = server.start(*flags(run), how="hold")
    assert server.heard() == "held", server.log.read_text("utf-8")
    first = store.shard_path(run / "activations/base", 0)
    kept = first.read_bytes()
    sent = time.monotonic()
    os.kill(child, number)
    assert server.wait() == code, server.log.read_text("utf-8")
    record_property("measured", f"ended {time.monotonic() - sent:.2f} s after the signal")
    error = server.log.read_text("utf-8")
    assert "interrupted; what was finished is kept" in error
    assert "Traceback" not in error
    assert first.read_bytes() == kept
    assert len(contents(run)) < len(expected)
    assert server.run(*flags(run)) == 0
    assert contents(run) == expected


@pytest.mark.slow
@pytest.mark.fault(
    "the command line itself: SIGTERM while torch is being imported",
    "exit 143, no traceback, no file",
)
def test_sigterm_during_start_up(whole: Path, tmp_path: Path) -> None:
    run = fresh(whole, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", str(project.ROOT / "batch_runner.py"), *flags(run)],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:  # every finished import is reported; torch's first parts come first
        if line.endswith(" torch._C\n"):
            break
    process.terminate()
    _, error = process.communicate(timeout=30)
    assert process.returncode == errors.EXIT_TERMINATED, error
    assert "Traceback" not in error
    assert contents(run) == {}


@pytest.mark.fault(
    "SIGTERM in the middle of a computation that does not return to Python for minutes",
    "exit 143 at once",
)
def test_an_interrupt_does_not_wait_for_a_long_computation(
    record_property: Callable[[str, object], None],
) -> None:
    code = (
        "import hashlib\nfrom aya_probes import command_line, signals\n"
        "def stage():\n"
        "    with signals.handle_signals('x.py'):\n"
        "        print('ready', flush=True)\n"
        "        hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)\n"
        "command_line.exit_process(command_line.run_stage('x.py', stage))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=project.ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    sent = time.monotonic()
    process.terminate()
    _, error = process.communicate(timeout=60)
    record_property("measured", f"ended {time.monotonic() - sent:.2f} s after the signal")
    assert process.returncode == errors.EXIT_TERMINATED
    assert "x.py: interrupted" in error


def test_signal_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals.handle_signals("x.py"):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.fault(
    "disk full in the middle of a shard (file size limit), then run again with room",
    "exit 1, the file and the fix named; finished shards kept; the same bytes in the end",
)
def test_a_full_disk(
    whole: Path, expected: dict[str, bytes], server: ForkServer, tmp_path: Path
) -> None:
    run = fresh(whole, tmp_path)
    shards = {name: len(data) for name, data in expected.items() if name.startswith("shard")}
    limit = max(len(d) for n, d in expected.items() if not n.startswith("shard"))
    assert limit < max(shards.values())
    limit = max(limit, min(shards.values())) + 1024  # the smallest shard fits, the largest does not
    assert server.run(*flags(run), limit=limit) == 1
    error = server.log.read_text("utf-8")
    assert "File too large; the file size limit was reached" in error
    assert "shard-" in error
    assert "Traceback" not in error
    left = contents(run)
    assert all(expected[name] == data for name, data in left.items())  # whole or not at all
    assert server.run(*flags(run)) == 0
    assert contents(run) == expected


@pytest.mark.slow
@pytest.mark.fault(
    "disk full in the middle of a shard (a small tmpfs), then run again with room",
    "exit 1, the file and the fix named; the same bytes in the end",
)
def test_a_full_tmpfs(
    whole: Path, expected: dict[str, bytes], server: ForkServer, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(map(len, expected.values())) // 2 + (whole / "data").stat().st_size
    size += run_folder.RunPaths(whole).manifest.stat().st_size
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        run = fresh(whole, disk)
        assert server.run(*flags(run)) == 1
        assert "No space left on device; free some disk" in server.log.read_text("utf-8")
        assert all(expected[name] == data for name, data in contents(run).items())
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert server.run(*flags(run)) == 0
        assert contents(run) == expected
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


HOLDER = """
import pathlib, sys
from aya_probes import run_folder
with run_folder.lock_run(pathlib.Path(sys.argv[1]), "batch_runner.py"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.fault(
    "a second run on the same folder; then the first is killed with SIGKILL and the lock is stale",
    "refused, exit 1, the holder named (process, host, command, since); then it runs",
)
def test_two_runs_on_one_folder(tmp_path: Path, tiny_suite: Path, capsys: Any) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, cwd=project.ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    line = ["--suite", str(tiny_suite), "--run-dir", str(tmp_path), "--limit", "2"]
    assert build_stimuli.main(line) == 1
    error = capsys.readouterr().err
    assert f"in use by batch_runner.py (process {process.pid} on " in error
    assert "since 20" in error
    assert not (tmp_path / "data").exists()
    process.kill()
    process.wait()
    assert (tmp_path / run_folder.LOCK_NAME).is_file()  # stale
    assert build_stimuli.main(line) == 0
    assert not (tmp_path / run_folder.LOCK_NAME).exists()


def test_a_lock_with_an_unreadable_holder_still_holds(tmp_path: Path) -> None:
    with run_folder.lock_run(tmp_path, "x"):
        (tmp_path / run_folder.LOCK_NAME).write_bytes(b"\xff")
        with pytest.raises(errors.StudyError, match="in use by another run"), \
             run_folder.lock_run(tmp_path, "y"):  # fmt: skip
            pass


# --- flipped bytes ----------------------------------------------------------------------------


def load_everything(run: Path, variant: str = "base") -> dict[str, Callable[[], Any]]:
    """Return every kind of artefact of a run and the loader that must notice a flipped byte."""
    paths = run_folder.RunPaths(run)
    sha = stimuli.load_manifest(paths.manifest).sha256
    folder = store.variant_dir(paths, variant)

    def activations() -> Any:
        loaded = store.open_activations(folder, sha)
        names = [name for shard in loaded.plan.shards for name in shard.span_ids]
        return loaded.take("span_mean", names).tobytes(), loaded.tokens

    def table(kind: type[Any], path: Path) -> Callable[[], Any]:
        return lambda: records.load_table(kind, path, "make")

    return {
        "data/stimulus_manifest.json": lambda: stimuli.load_manifest(paths.manifest),
        f"activations/{variant}/plan.json": activations,
        f"activations/{variant}/tokens.json": activations,
        f"activations/{variant}/shard-00000.safetensors": activations,
        "results/alignment_curves.json": lambda: alignment.load_results(paths.curves),
        "results/token_audit.json": lambda: files.load_json(paths.token_audit, "make"),
        "results/curves.csv": table(tables.CurveRow, paths.curve_table),
        "results/commitment_matrix.csv": table(tables.Layers, paths.commitment),
        "results/contrasts.csv": table(tables.Contrast, paths.contrasts),
        "results/failure_cases.csv": lambda: failures.load_failure_cases(paths.failure_cases),
        "results/failure_tests.csv": lambda: failures.load_category_tests(paths.failure_tests),
        "p1_edge_cases.json": lambda: failures.load_edge_cases(paths.edge_cases),
    }


FLIPPED = (
    "data/stimulus_manifest.json", "activations/base/plan.json", "activations/base/tokens.json",
    "activations/base/shard-00000.safetensors", "results/alignment_curves.json",
    "results/curves.csv", "results/token_audit.json", "results/commitment_matrix.csv",
    "results/contrasts.csv", "results/failure_cases.csv", "results/failure_tests.csv",
    "p1_edge_cases.json",
)  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.fault(
                f"a bit flipped at 25 random places of `{name}`",
                "refused on load, the file and the command named (or the same data)",
            ),
        )
        for name in FLIPPED
    ],
)
def test_a_flipped_bit_is_detected(
    name: str, tiny_run: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    load = load_everything(run)[name]
    path = run / name
    good, data = load(), path.read_bytes()
    draw = random.Random(project.SEED)
    refused = 0
    for _ in range(25):
        place, bit = draw.randrange(len(data)), 1 << draw.randrange(8)
        path.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
        try:
            assert load() == good  # white space between JSON tokens
        except errors.StudyError:
            refused += 1
    path.write_bytes(data)
    assert load() == good
    record_property("measured", f"{refused} of 25 refused")
    assert refused >= 15


@pytest.mark.fault(
    "a bit flipped in a model's weights whose sha256 the suite gives", "refused, both hashes named"
)
def test_a_flipped_bit_in_local_weights(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    variant = suites.Variant("base", "base", path=str(folder))
    sha = loading.resolve_source(variant).identity["sha256"]
    checked = suites.Variant("base", "base", path=str(folder), sha256=str(sha))
    assert loading.resolve_source(checked).identity["sha256"] == sha
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 4
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(errors.StudyError, match=f"the suite expects {sha}"):
        loading.resolve_source(checked)


@pytest.mark.fault(
    "a bit flipped in an adapter (weights, configuration) whose hash the suite gives",
    "refused, both hashes named",
)
@pytest.mark.parametrize("name", fingerprints.ADAPTER_FILES)
def test_a_flipped_bit_in_an_adapter(name: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    adapter = shutil.copytree(project.ROOT / "data/adapters/mini/fire", tmp_path / "fire")
    sha = fingerprints.adapter_sha256(adapter, "fire")
    variant = suites.Variant(
        "fire", "regional", path=str(folder), adapter=str(adapter), adapter_sha256=sha
    )
    assert loading.resolve_source(variant).identity["adapter_sha256"] == sha
    data = bytearray((adapter / name).read_bytes())
    data[-5] ^= 4
    (adapter / name).write_bytes(data)
    with pytest.raises(errors.StudyError, match=f"the suite expects {sha} for variant fire"):
        loading.resolve_source(variant)


@pytest.mark.fault("a file of the hub's cache altered on disk", "refused, the file to delete named")
def test_a_flipped_bit_in_the_hub_cache(tmp_path: Path) -> None:
    import hashlib

    data = b"weights"
    blob = tmp_path / "blobs" / hashlib.sha256(data).hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(data)
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    repository = hub.Repository("o/m", "variant base", "")
    hub._check_file(link, repository)
    blob.write_bytes(b"weighty")
    with pytest.raises(errors.StudyError, match=f"delete {blob.resolve()} and run again"):
        hub._check_file(link, repository)


@pytest.mark.fault("tokens.json deleted from a finished extraction", "regenerated by the next run")
def test_a_missing_tokens_file_is_repaired(
    whole: Path, expected: dict[str, bytes], server: ForkServer, tmp_path: Path
) -> None:
    run = fresh(whole, tmp_path)
    (run / "activations/base").mkdir(parents=True)
    for name, data in expected.items():
        (run / "activations/base" / name).write_bytes(data)
    (run / "activations/base/tokens.json").unlink()
    assert server.run(*flags(run)) == 0
    assert contents(run) == expected


@pytest.mark.fault("a plan of another version of this program", "refused; --overwrite named")
def test_a_plan_of_another_version(tiny_run: Path, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    path = run / "activations/base/plan.json"
    plan = json.loads(path.read_text("utf-8"))
    files.save_json(path, {**plan, "schema_version": 99})
    assert batch_runner.main(flags(run)) == 1
    error = capsys.readouterr().err
    assert "plan.json: schema_version 99 is of another version" in error
    assert "--overwrite" in error


@pytest.mark.fault("a read-only run folder", "exit 1, the folder and --run-dir named")
def test_a_read_only_folder(tiny_suite: Path, capsys: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        line = ["--suite", "mini", "--run-dir", str(folder), "--limit", "2"]
        os.seteuid(65534) if root else None  # root may write anywhere
        try:
            code = build_stimuli.main(line)
        finally:
            os.seteuid(0) if root else None
            folder.chmod(0o755)
    assert code == 1
    error = capsys.readouterr().err
    assert name in error
    assert "choose another folder with --run-dir" in error


# --- strangers' files -------------------------------------------------------------------------


def edit_suite(old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "tiny.toml"
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), "utf-8")

    return edit


def edit_text(text: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "probes.json"
        raw = json.loads(path.read_text("utf-8"))
        raw["concepts"][0]["languages"]["en"]["sentences"][0]["text"] = text
        path.write_text(json.dumps(raw), "utf-8")

    return edit


def edit_id(value: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "probes.json"
        raw = json.loads(path.read_text("utf-8"))
        raw["concepts"][0]["id"] = value
        path.write_text(json.dumps(raw), "utf-8")

    return edit


STRANGERS: list[tuple[str, Callable[[Path], object], str]] = [
    ("a variant named `../../elsewhere`", edit_suite("[variants.base]", '[variants."../../x"]'),
     "a variant's name must be letters, digits"),
    ("a concept id `../../elsewhere`", edit_id("../../x"), "field 'id' must be at most 100"),
    ("a sentence of 10 MB", edit_text("eye " + "a" * 10_000_000), "a sentence at most 10000"),
    ("control characters in a sentence", edit_text("The eye\x07 again."), "⟨U+0007⟩, a control"),
    ("a lone surrogate in a sentence", edit_text("The eye \ud800."), "holds a lone surrogate"),
    ("an empty sentence", edit_text(" "), "the text is empty"),
    ("a suite with an unknown key", edit_suite("pivot", 'shell = "rm"\npivot'),
     "unknown key 'shell'"),
    ("a suite with a number where a name should be", edit_suite('["en", "hi", "sw"]', "[1, 2]"),
     "languages must hold strings"),
    ("a suite with a hidden character in a name", edit_suite('"random Cohere2"', '"ran\\u202edom"'),
     "label holds hidden or control characters"),
    ("a repository name that is a URL", edit_suite('path = "base"', 'repo = "http://x/y"'),
     "is not a hub name"),
    ("probes that are not JSON", lambda f: (f / "probes.json").write_bytes(b"\x80{"), "not UTF-8"),
    ("probes nested 100,000 deep", lambda f: (f / "probes.json").write_text("[" * 100_000),
     "not valid JSON"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        pytest.param(edit, message, id=name, marks=pytest.mark.fault(name, f"refused: {message}"))
        for name, edit, message in STRANGERS
    ],
)
def test_files_from_strangers_are_refused(
    tmp_path: Path, capsys: Any, edit: Callable[[Path], object], message: str
) -> None:
    write_study(tmp_path, {"base": {"path": "base", "role": "base"}})
    edit(tmp_path)
    line = ["--suite", str(tmp_path / "tiny.toml"), "--run-dir", str(tmp_path / "run")]
    assert build_stimuli.main([*line, "--limit", "2"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert len(error) < 1000
    assert not (tmp_path / "run").exists()


@pytest.mark.fault(
    "zero-width and bidirectional characters in a sentence", "kept as they are; shown as ⟨U+202E⟩"
)
def test_hidden_characters_are_data_and_shown(tmp_path: Path, capsys: Any) -> None:
    text = "The \u202eeye\u202c \u200bagain."
    suite = write_study(tmp_path, {"base": {"path": "base", "role": "base"}})
    edit_text(text)(tmp_path)
    line = ["--suite", str(suite), "--run-dir", str(tmp_path / "run"), "--limit", "2"]
    assert build_stimuli.main(line) == 0
    manifest = stimuli.load_manifest(run_folder.RunPaths(tmp_path / "run").manifest)
    assert manifest.stimuli[0].text == text
    assert errors.escape_hidden(text) == "The ⟨U+202E⟩eye⟨U+202C⟩ ⟨U+200B⟩again."

    def stage() -> None:
        raise errors.StudyError(f"this text: {text}")

    assert command_line.run_stage("x.py", stage) == 1
    assert "The ⟨U+202E⟩eye⟨U+202C⟩ ⟨U+200B⟩again." in capsys.readouterr().err


def assert_not_loaded(folder: Path, message: str) -> None:
    """Loading a model's folder is refused with one message."""
    import torch

    variant = suites.Variant("base", "base", path=str(folder))
    source = loading.resolve_source(variant)
    with pytest.raises(errors.StudyError, match=message):
        loading.load_variant(variant, source, device=torch.device("cpu"), dtype=torch.float32)


HEADERS: dict[str, Callable[[bytes], bytes]] = {
    "longer than the file": lambda data: (2**40).to_bytes(8, "little") + data[8:],
    "of negative shapes": lambda data: data.replace(b'"shape":[', b'"shape":[-', 1),
    "of shapes that the data does not fill": lambda data: data.replace(b"[0,", b"[8,", 1),
    "that is not JSON": lambda data: data[:8] + b"\xff" + data[9:],
}


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(
            lie, id=name,
            marks=pytest.mark.fault(f"a safetensors header {name}", "shard and model both refused"),
        )
        for name, lie in HEADERS.items()
    ],
)  # fmt: skip
def test_a_safetensors_header_that_lies(lie: Callable[[bytes], bytes], tmp_path: Path) -> None:
    shard = tmp_path / "shard-00000.safetensors"
    save_file({"x": np.zeros((2, 3), np.float16)}, shard)
    data = lie(shard.read_bytes())
    assert data != shard.read_bytes()
    shard.write_bytes(data)
    with pytest.raises(errors.StudyError, match="truncated or not a safetensors file"):
        store.read_shard(shard, "0" * 64)
    folder = save_tiny(tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(lie(weights.read_bytes()))
    assert_not_loaded(folder, "cannot be loaded")


@pytest.mark.fault(
    "weights that lack a tensor of the model", "refused: the library would fill it at random"
)
def test_weights_that_lack_a_tensor(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert_not_loaded(folder, r"lack 1 tensors.*layers\.1\.mlp\.up_proj")


BROKEN: dict[str, Callable[[Path], object]] = {
    "tokenizer.json cut off": lambda f: (f / "tokenizer.json").write_bytes(
        (f / "tokenizer.json").read_bytes()[:200]
    ),
    "tokenizer.json of another form": lambda f: (f / "tokenizer.json").write_text("[1, 2]"),
    "config.json with text for a number": lambda f: edit_config(f, hidden_size="wide"),
    "config.json with zero heads": lambda f: edit_config(f, num_attention_heads=0),
    "config.json of no known model": lambda f: edit_config(f, model_type="stranger"),
    "config.json that is not JSON": lambda f: (f / "config.json").write_text("{"),
}


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(
            damage, id=name,
            marks=pytest.mark.fault(f"a model folder: {name}", "refused, the folder named"),
        )
        for name, damage in BROKEN.items()
    ],
)  # fmt: skip
def test_a_damaged_model_folder(damage: Callable[[Path], object], tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    damage(folder)
    assert_not_loaded(folder, f"the model in {folder} cannot be loaded")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vocab_size": 100}, "is not among the model's 100; the tokenizer belongs to another"),
        ({"max_position_embeddings": 20}, "tokens, the model takes 20; shorten its text"),
    ],
)
@pytest.mark.fault(
    "a model whose tables hold fewer tokens or positions than a text has",
    "refused, the stimulus named",
)
def test_texts_that_do_not_fit_the_model(
    values: dict[str, int], message: str, tmp_path: Path, capsys: Any
) -> None:
    suite = write_study(tmp_path, {"base": {"path": "base", "role": "untrained"}})
    save_tiny(tmp_path / "base", "gpt2")
    edit_config(tmp_path / "base", **values)
    run = tmp_path / "run"
    line = ["--suite", str(suite), "--run-dir", str(run), "--limit", "2"]
    assert build_stimuli.main(line) == 0
    assert batch_runner.main(flags(run)) == 1
    error = capsys.readouterr().err
    assert "stimulus C01-" in error
    assert message in error


@pytest.mark.fault(
    "local weights replaced in place after an extraction", "noticed; --overwrite named"
)
def test_replaced_weights_are_noticed(tmp_path: Path, capsys: Any) -> None:
    suite = write_study(tmp_path, {"base": {"path": "base", "role": "base"}})
    save_tiny(tmp_path / "base", seed=1)
    run = tmp_path / "run"
    line = ["--suite", str(suite), "--run-dir", str(run), "--limit", "2"]
    assert build_stimuli.main(line) == 0
    assert batch_runner.main(flags(run)) == 0
    save_tiny(tmp_path / "base", seed=2)
    assert batch_runner.main(flags(run)) == 1
    assert "source (sha256) changed since these activations were made" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "base")  # what is finished does not need its weights
    assert batch_runner.main(flags(run)) == 0
    assert "complete, skipped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[xx]\nname = "X"\nscript = "Latn"\n', r"\[xx\]: flores is missing"),
        ("xx = 3\n", r"\[xx\] must be a table"),
        ('[xx]\nname = "X"\nscripts = "Latn"\n', "unknown key 'scripts'"),
    ],
)
@pytest.mark.fault("a broken row in data/languages.toml", "refused, row and field named")
def test_a_broken_language_row(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "languages.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(errors.StudyError, match=message):
        suites.load_languages(path)
