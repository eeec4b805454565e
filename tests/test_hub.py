"""Models and FLORES+ from a hub: the real clients against a hub on loopback, failures included.

Not covered here: the hub's Xet storage (``hf_xet``), which the loopback hub does not speak; with it
the bytes come another way, the commit, the file list and the sha256 are checked the same.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aya_probes import errors, project, run_folder, stimuli, suites
from aya_probes.models import hub as hub_module
from aya_probes.planted.tiny import LANGUAGES, save_tiny, write_study
from tests import loopback_hub

OWNER = "CohereLabs"
FLORES = "openlanguagedata/flores_plus"
CONFIGS = {c: suites.load_languages()[c].flores for c in suites.load_suite("tiny-aya").languages}
# One process runs many command lines: torch and the clients are imported once.
WORKER = """
import contextlib, io, json, os, sys
import batch_runner, build_stimuli
stages = {"build_stimuli": build_stimuli.main, "batch_runner": batch_runner.main}
for line in sys.stdin:
    stage, argv, token = json.loads(line)
    os.environ.update({"HF_TOKEN": token} if token else {})
    None if token else os.environ.pop("HF_TOKEN", None)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = stages[stage](argv)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


@dataclass
class Worker:
    """A process whose hub clients know the loopback hub only."""

    process: subprocess.Popen[str]

    def run(self, stage: str, *argv: str, token: str = "") -> tuple[int, str]:
        """Return the exit code and what was said on stderr."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([stage, argv, token]), file=self.process.stdin, flush=True)
        code, _, error = json.loads(self.process.stdout.readline())
        return code, error


@pytest.fixture(scope="module")
def hub() -> Iterator[loopback_hub.Hub]:
    with loopback_hub.serve() as running:
        yield running


@pytest.fixture(scope="module")
def home(hub: loopback_hub.Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite of hub variants; each test makes the repository that it needs."""
    folder = tmp_path_factory.mktemp("hub")
    save_tiny(folder / "model", seed=1)
    names = (
        "base",
        "gated",
        "broken",
        "altered",
        "short",
        "pickled",
        "coded",
        "gappy",
        "absent",
        "silent",
    )
    write_study(
        folder,
        {
            **{name: {"repo": f"{OWNER}/{name}", "role": "base"} for name in names},
            "tagged": {"repo": f"{OWNER}/base", "revision": "v9", "role": "base"},
        },
    )
    return folder


def environment(hub: loopback_hub.Hub, home: Path, **more: str) -> dict[str, str]:
    return loopback_hub.client_environment(hub.url, home / "hf", **more)


@pytest.fixture(scope="module")
def worker(hub: loopback_hub.Hub, home: Path) -> Iterator[Worker]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(hub, home),
        cwd=project.ROOT,
    )
    made = Worker(process)
    suite, run = str(home / "tiny.toml"), str(home / "run")
    code, error = made.run(
        "build_stimuli", "--suite", suite, "--run-dir", run, "--concepts", "C01,C02", "--limit", "2"
    )
    assert code == 0, error
    yield made
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def serve_copy(hub: loopback_hub.Hub, home: Path, name: str, *, gated: bool = False) -> Path:
    """Serve a copy of the tiny model as OWNER/name; returns its folder, to be damaged."""
    folder = home / "repos" / name
    folder.mkdir(parents=True, exist_ok=True)
    for path in (home / "model").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    hub.repos[f"{OWNER}/{name}"] = loopback_hub.Repo(folder, gated=gated)
    return folder


def extract(home: Path, worker: Worker, name: str, *flags: str, token: str = "") -> tuple[int, str]:
    line = ["--local", "--run-dir", str(home / "run"), "--device", "cpu", "--variants", name]
    return worker.run("batch_runner", *line, *flags, token=token)


def shards(home: Path, name: str) -> list[bytes]:
    return [p.read_bytes() for p in sorted((home / "run/activations" / name).glob("shard-*"))]


@pytest.mark.fault(
    "hub: cold download, then a warm cache, then `HF_HUB_OFFLINE=1`",
    "same bytes; weights fetched once; offline asks nothing, names what is missing",
)
def test_cold_then_warm_then_offline(hub: loopback_hub.Hub, home: Path, worker: Worker) -> None:
    serve_copy(hub, home, "base")
    hub.log.clear()
    code, error = extract(home, worker, "base")
    assert code == 0, error
    weights = [line for line in hub.log if line.startswith("GET cdn/")]
    assert len(weights) == 1
    plan = json.loads((home / "run/activations/base/plan.json").read_text("utf-8"))
    assert plan["inputs"]["source"]["revision"] == hub.repos[f"{OWNER}/base"].commit
    cold = shards(home, "base")
    hub.log.clear()
    code, error = extract(home, worker, "base", "--overwrite")
    assert code == 0, error
    assert not any(line.startswith("GET cdn/") for line in hub.log)
    assert shards(home, "base") == cold
    hub.log.clear()
    line = [
        str(project.ROOT / "batch_runner.py"),
        "--local",
        "--run-dir",
        str(home / "run"),
        "--variants",
        "base,absent",
        "--overwrite",
        "--device",
        "cpu",
    ]
    done = subprocess.run(
        [sys.executable, *line],
        env=environment(hub, home, HF_HUB_OFFLINE="1"),
        check=False,
        capture_output=True,
        text=True,
    )
    assert shards(home, "base") == cold
    assert done.returncode == 1  # the other variant is not in the cache
    assert f"HF_HUB_OFFLINE is set and {OWNER}/absent" in done.stderr
    assert hub.log == []


@pytest.mark.fault(
    "hub: gated without token; token without access; invalid token",
    "exit 1; the licence page and `hf auth login` named",
)
@pytest.mark.parametrize(
    ("token", "message"),
    [
        (
            "",
            r"is gated: accept its licence at https://huggingface.co/CohereLabs/gated and sign in",
        ),
        (
            loopback_hub.NOT_GRANTED,
            r"no access to CohereLabs/gated: accept its licence at https://",
        ),
        ("hf_forged", r"refused CohereLabs/gated \(401 Invalid credentials.*hf auth login"),
    ],
)
def test_a_gate_says_how_to_open_it(
    hub: loopback_hub.Hub, home: Path, worker: Worker, token: str, message: str
) -> None:
    serve_copy(hub, home, "gated", gated=True)
    code, error = extract(home, worker, "gated", token=token)
    assert code == 1
    assert re.search(message, error), error
    assert "build_stimuli.py --suite mini" in error
    assert "Traceback" not in error
    assert not shards(home, "gated")


@pytest.mark.fault("hub: gated, with a granted token", "loads")
def test_a_granted_token_opens_the_gate(hub: loopback_hub.Hub, home: Path, worker: Worker) -> None:
    serve_copy(hub, home, "gated", gated=True)
    code, error = extract(home, worker, "gated", token=loopback_hub.GRANTED)
    assert code == 0, error


@pytest.mark.fault("hub: a repository or revision that does not exist", "exit 1, named")
@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "CohereLabs/absent does not exist"), ("tagged", "no such revision; fix")],
)
def test_what_does_not_exist_is_named(
    hub: loopback_hub.Hub, home: Path, worker: Worker, name: str, message: str
) -> None:
    serve_copy(hub, home, "base")
    code, error = extract(home, worker, name, token=loopback_hub.GRANTED)
    assert code == 1
    assert message in error, error


@pytest.mark.fault(
    "hub: the connection breaks in the middle of the weights",
    "resumed from the bytes that are there",
)
def test_a_download_that_breaks_off_is_resumed(
    hub: loopback_hub.Hub, home: Path, worker: Worker
) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    path = serve_copy(hub, home, "broken") / "model.safetensors"
    padding = np.zeros(16 * 1024 * 1024, dtype=np.uint8)  # the client keeps blocks of 10 MiB
    save_file({**load_file(path), "padding": padding}, path, metadata={"format": "pt"})
    hub.break_after["model.safetensors"] = 12 * 1024 * 1024
    hub.log.clear()
    code, error = extract(home, worker, "broken")
    assert code == 0, error
    gets = [line for line in hub.log if line.startswith("GET cdn/")]
    assert len(gets) == 2
    assert gets[1].endswith(f"bytes={10 * 1024 * 1024}-")


@pytest.mark.slow  # the client retries five times
@pytest.mark.fault(
    "hub: stops answering when the weights are asked for", "ends after the client's retries"
)
def test_a_hub_that_goes_silent_in_the_weights(
    hub: loopback_hub.Hub, home: Path, worker: Worker
) -> None:
    serve_copy(hub, home, "silent")
    hub.silent.add(f"cdn/{OWNER}/silent")
    code, error = extract(home, worker, "silent")
    hub.silent.clear()
    assert code == 1
    assert "stopped answering" in error, error
    assert "run again, the files fetched are kept" in error
    code, error = extract(home, worker, "silent")
    assert code == 0, error


@pytest.mark.fault(
    "hub: the Xet client fails in a transfer (its exception, raised by hand)", "exit 1, run again"
)
def test_a_failing_xet_transfer_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fails(*arguments: object, **options: object) -> None:
        raise RuntimeError("Data processing error: connection reset")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    repository = hub_module.Repository("o/m", "variant base", "")
    with pytest.raises(errors.StudyError, match="connection reset; run again, the files fetched"):
        hub_module.fetch_model(repository, None, weights=True)


@pytest.mark.fault(
    "hub: weights arrive altered",
    "refused by their sha256; fetched again after the file named is deleted",
)
def test_weights_that_are_not_what_the_hub_lists_are_refused_then_fetched_again(
    hub: loopback_hub.Hub, home: Path, worker: Worker
) -> None:
    original = (serve_copy(hub, home, "altered") / "model.safetensors").read_bytes()
    hub.replaced["model.safetensors"] = original[:-1] + bytes([original[-1] ^ 1])
    code, error = extract(home, worker, "altered")
    hub.replaced.clear()
    assert code == 1
    found = re.search(r"the hub says \w+; delete (\S+) and run again", error)
    assert found, error
    Path(found[1]).unlink()
    code, error = extract(home, worker, "altered")
    assert code == 0, error


@pytest.mark.fault("hub: weights arrive truncated", "refused, exit 1")
def test_a_truncated_file_is_refused(hub: loopback_hub.Hub, home: Path, worker: Worker) -> None:
    data = (serve_copy(hub, home, "short") / "model.safetensors").read_bytes()
    hub.replaced["model.safetensors"] = data[:-50]
    code, error = extract(home, worker, "short")
    hub.replaced.clear()
    assert code == 1
    assert "should be of size" in error
    assert "run again" in error
    assert not shards(home, "short")


@pytest.mark.fault(
    "hub: stops answering; answers 503",
    "ends after the client's timeout; says to run again",
)
def test_a_hub_that_stops_answering_or_is_down(
    hub: loopback_hub.Hub, home: Path, worker: Worker
) -> None:
    serve_copy(hub, home, "absent")
    try:
        hub.silent.add("absent")
        code, error = extract(home, worker, "absent")
        assert code == 1
        assert "stopped answering (HF_HUB_ETAG_TIMEOUT 1 s" in error, error
        hub.silent.clear()
        hub.down = 503
        code, error = extract(home, worker, "absent")
        assert code == 1
        assert "503 the hub is down" in error, error
    finally:
        hub.silent.clear()
        hub.down = None
        del hub.repos[f"{OWNER}/absent"]


@pytest.mark.fault(
    "hub: a repository with pickled weights; with code of its own",
    "both refused, the code is not run",
)
def test_only_safetensors_and_no_code_of_the_repository(
    hub: loopback_hub.Hub, home: Path, worker: Worker
) -> None:
    folder = serve_copy(hub, home, "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    code, error = extract(home, worker, "pickled")
    assert code == 1
    assert "no safetensors weights" in error
    folder = serve_copy(hub, home, "coded")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {
        "model_type": "stranger",
        "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"},
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "code.py").write_text(f"open({str(home / 'ran')!r}, 'w')", "utf-8")
    code, error = extract(home, worker, "coded")
    assert code == 1
    assert "custom code" in error
    assert not (home / "ran").exists()


@pytest.mark.fault("hub: weights that lack a tensor", "refused, the tensor named")
def test_missing_tensors_are_never_filled_with_random_ones(
    hub: loopback_hub.Hub, home: Path, worker: Worker
) -> None:
    from safetensors.numpy import load_file, save_file

    path = serve_copy(hub, home, "gappy") / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.2.mlp.down_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    code, error = extract(home, worker, "gappy")
    assert code == 1
    assert "lack 1 tensors" in error, error
    assert "layers.2.mlp.down_proj" in error


# --- FLORES+ ----------------------------------------------------------------------------------


@pytest.fixture
def flores(hub: loopback_hub.Hub, tmp_path: Path) -> Iterator[Path]:
    """A dataset in the published layout: one config per language, parquet, column text."""
    import pandas as pd

    lines = ["---", "configs:"]
    for code, config in CONFIGS.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split in ("dev", "devtest"):
            lines += [f"  - split: {split}", f"    path: {split}/{config}.parquet"]
            texts = [f"{split} {n} {code}" for n in range(7)]
            path = tmp_path / "flores" / split / f"{config}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame({"id": range(7), "text": texts}).to_parquet(path)
    (tmp_path / "flores" / "README.md").write_text("\n".join([*lines, "---", ""]), "utf-8")
    hub.repos[FLORES] = loopback_hub.Repo(tmp_path / "flores", kind="dataset", gated=True)
    yield tmp_path / "flores"
    del hub.repos[FLORES]


def build(home: Path, worker: Worker, run: Path, token: str = "") -> tuple[int, str]:
    line = ["--suite", str(home / "tiny.toml"), "--corpus", "flores", "--run-dir", str(run)]
    return worker.run("build_stimuli", *line, token=token)


@pytest.mark.fault(
    "FLORES+ from the hub (gated, parquet), then offline",
    "commit and hash recorded; the same manifest offline",
)
def test_flores_plus_from_the_hub(
    hub: loopback_hub.Hub, home: Path, worker: Worker, flores: Path, tmp_path: Path
) -> None:
    code, error = build(home, worker, tmp_path / "run", loopback_hub.GRANTED)
    assert code == 0, error
    manifest = stimuli.load_manifest(run_folder.RunPaths(tmp_path / "run").manifest)
    third = {s.language: s.text for s in manifest.stimuli if s.item_id == "devtest-0003"}
    assert third == {code: f"devtest 2 {code}" for code in LANGUAGES}
    corpus = manifest.metadata["corpus"]
    assert corpus["revision"] == hub.repos[FLORES].commit
    assert corpus["items"] == 7
    assert len(corpus["sha256"]) == 64
    line = [
        str(project.ROOT / "build_stimuli.py"),
        "--suite",
        str(home / "tiny.toml"),
        "--corpus",
        "flores",
        "--run-dir",
        str(tmp_path / "offline"),
    ]
    done = subprocess.run(
        [sys.executable, *line],
        env=environment(hub, home, HF_HUB_OFFLINE="1"),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    again = run_folder.RunPaths(tmp_path / "offline").manifest.read_bytes()
    assert again == run_folder.RunPaths(tmp_path / "run").manifest.read_bytes()


@pytest.mark.fault(
    "FLORES+: gated; other ids; other column; broken parquet; gone",
    "each refused, how to go on without it named",
)
def test_flores_plus_refusals(
    hub: loopback_hub.Hub, home: Path, worker: Worker, flores: Path, tmp_path: Path
) -> None:
    import pandas as pd

    run = tmp_path / "run"
    path = flores / "devtest" / "hin_Deva.parquet"
    texts = [f"devtest {n} changed" for n in range(7)]  # another content: nothing is cached
    pd.DataFrame({"id": range(7), "text": texts}).to_parquet(path)
    code, error = build(home, worker, run)
    assert code == 1
    assert "accept its licence at https://huggingface.co/datasets/openlanguagedata" in error
    assert "--flores-dir PATH, or use --corpus cldr" in error
    pd.DataFrame({"id": range(1, 8), "text": texts}).to_parquet(path)
    code, error = build(home, worker, run, loopback_hub.GRANTED)
    assert code == 1
    assert "the ids of hin_Deva and eng_Latn differ" in error
    for split in ("dev", "devtest"):
        pd.DataFrame({"id": range(7), "sentence": texts}).to_parquet(
            flores / split / "hin_Deva.parquet"
        )
    code, error = build(home, worker, run, loopback_hub.GRANTED)
    assert code == 1
    assert "no column 'text'" in error
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
    code, error = build(home, worker, run, loopback_hub.GRANTED)
    assert code == 1
    assert "Traceback" not in error
    del hub.repos[FLORES]
    code, error = build(home, worker, run, loopback_hub.GRANTED)
    hub.repos[FLORES] = loopback_hub.Repo(flores, kind="dataset", gated=True)
    assert code == 1
    assert "does not exist" in error
    assert not run.exists()


@pytest.mark.fault(
    "`--suite tiny-aya` from the loopback hub: FLORES+ in ten languages, four Cohere2 variants",
    "runs with the two commands of README; every commit recorded",
)
def test_the_commands_of_readme_run_the_shipped_suite(
    hub: loopback_hub.Hub, home: Path, worker: Worker, flores: Path, tmp_path: Path
) -> None:
    names = ("base", "global", "fire", "earth")
    for seed, name in enumerate(names):
        folder = save_tiny(tmp_path / name, seed=seed)
        hub.repos[f"{OWNER}/tiny-aya-{name}"] = loopback_hub.Repo(folder, gated=True)
    token, line = loopback_hub.GRANTED, ["--run-dir", str(tmp_path / "run")]
    few = ["--limit", "2", "--concepts", "C01,C02"]
    code, error = worker.run("build_stimuli", "--suite", "tiny-aya", *line, *few, token=token)
    assert code == 0, error
    code, error = worker.run("batch_runner", "--local", "--device", "cpu", *line, token=token)
    assert code == 0, error
    for name in names:
        plan = json.loads((tmp_path / f"run/activations/{name}/plan.json").read_text("utf-8"))
        assert plan["inputs"]["source"]["revision"] == hub.repos[f"{OWNER}/tiny-aya-{name}"].commit
    tokens = json.loads((tmp_path / "run/activations/fire/tokens.json").read_text("utf-8"))
    assert all(entry["bos"] for entry in tokens.values())
