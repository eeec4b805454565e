"""What runs on Modal, as far as that can be shown without an account.

Covered: the real client, driven by the script and by ``modal run``, against a Modal on loopback
(``loopback_modal``): what is uploaded, what the image is told to install, GPU, timeout, retries,
Volumes and secret of the function, its calls with the client's own serialisation, the download. The
function's body runs in a process that sees only the files which the client uploaded, and fetches
its weights from a hub on loopback. Not covered: the image's build, GPUs, scheduling, the service's
own retries and timeouts, its Volumes' consistency.
"""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import batch_runner
import build_stimuli
import modal_config
from aya_probes import errors, project, run_folder, stimuli, suites
from aya_probes.extraction import job_size, modal_job, runner, store
from aya_probes.extraction.plan import load_plan
from aya_probes.planted.tiny import save_tiny, write_study
from tests import loopback_hub, loopback_modal

MODAL = [str(Path(sys.executable).with_name("modal")), "run", "batch_runner.py"]
SCRIPT = [sys.executable, "batch_runner.py"]
FUNCTION = "fu-extract_remote"


@dataclass
class Service:
    """A Modal and a hub on loopback, and a run folder whose suite lives on the hub."""

    modal: loopback_modal.Workspace
    hub: loopback_hub.Hub
    home: Path

    @property
    def run_dir(self) -> Path:
        return self.home / "run"

    def start(self, command: list[str], *flags: str) -> subprocess.Popen[str]:
        """Start a command line as a user does."""
        return subprocess.Popen(
            [*command, "--run-dir", str(self.run_dir), *flags],
            cwd=project.ROOT,
            text=True,
            env=loopback_modal.client_environment(self.modal, self.home),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, command: list[str], *flags: str) -> tuple[int, str]:
        """Run a command line to its end; returns its exit code and all it said."""
        self.modal.rpcs.clear()
        with self.start(command, *flags) as process:
            said, _ = process.communicate()
        return process.returncode, " ".join(said.split())

    def job(self, name: str) -> runner.Job:
        """Return a variant's job in the run folder."""
        manifest = stimuli.load_manifest(run_folder.RunPaths(self.run_dir).manifest)
        folder = self.run_dir / "activations" / name
        return runner.Job(manifest, manifest.suite.variant(name), folder)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("service")
    names = ("base", "global", "gated", "other")
    suite = write_study(home, {name: {"repo": f"o/{name}", "role": "control"} for name in names})
    suite.write_text("allow_cpu = true\n" + suite.read_text("utf-8"), "utf-8")
    line = ["--suite", str(suite), "--run-dir", str(home / "run"), "--limit", "5"]
    assert build_stimuli.main(line) == 0
    (home / "modal").mkdir()
    with loopback_hub.serve() as hub, loopback_modal.serve(home / "modal") as modal:
        model = save_tiny(home / "model")
        hub.repos |= {
            f"o/{name}": loopback_hub.Repo(model, gated=name == "gated") for name in names
        }
        modal.environment = {"HF_ENDPOINT": hub.url}
        yield Service(modal, hub, home)


@pytest.mark.fault(
    "Modal: the script against a Modal on loopback, one variant without access to its weights",
    "the others' activations arrive, the refused one is named, exit 1; what is finished stays",
)
def test_the_script_extracts_on_modal(service: Service) -> None:
    code, said = service.run(SCRIPT, "--variants", "base,gated")
    assert code == 1, said
    assert "on Modal: variant gated: o/gated is gated: accept its licence" in said
    assert "Traceback" not in said
    assert runner.finished(service.job("base"))
    assert list((service.home / "modal/aya-probes-weights").rglob("model.safetensors"))
    here = service.job("base").folder
    there = next((service.home / "modal/aya-probes-activations").glob("*/base"))
    assert {p.name: p.read_bytes() for p in here.iterdir()} == {
        p.name: p.read_bytes() for p in there.iterdir()
    }


def test_the_function_is_what_modal_config_says(service: Service) -> None:
    if FUNCTION not in service.modal.functions:
        service.run(SCRIPT, "--variants", "base")
    function = service.modal.functions[FUNCTION]
    assert function.resources.gpu_config.gpu_type == modal_config.GPU
    assert function.resources.memory_mb == modal_config.MEMORY_MB  # weights pass through it
    assert function.resources.milli_cpu == modal_config.CPU_CORES * 1000
    assert function.timeout_secs == modal_config.TIMEOUT_S
    assert function.retry_policy.retries == modal_config.RETRIES
    mounted = {m.mount_path for m in function.volume_mounts}
    assert mounted == {modal_config.ACTIVATIONS_DIR, modal_config.WEIGHTS_DIR}
    assert len(function.secret_ids) == 1
    commands = service.modal.image_commands(function.image_id)
    installs = [line for line in commands if "uv sync" in line]
    assert len(installs) == 1
    assert "--no-default-groups" in installs[0]
    assert "--frozen" in installs[0]  # the versions of this machine's uv.lock
    assert f"ENV HF_HOME={modal_config.WEIGHTS_DIR}" in commands
    shipped = service.modal.shipped(FUNCTION)
    python = [name for name in shipped if name.endswith(".py")]
    top = {Path(name).relative_to("/root").parts[0].removesuffix(".py") for name in python}
    assert top == {*modal_config.MODULES, "batch_runner"}
    others = {str(Path(name).relative_to("/root")) for name in shipped if name not in python}
    assert others == set(modal_config.DATA_FILES)


@pytest.mark.fault(
    "Modal: `modal run --parallel --gpu h100`, gated weights, the token of `hf auth login` here",
    "every variant in a container of its own, which has the token",
)
def test_modal_run_takes_the_same_flags(service: Service) -> None:
    token = service.home / "hf" / "token"
    token.parent.mkdir(exist_ok=True)
    token.write_text(loopback_hub.GRANTED, "utf-8")  # what `hf auth login` writes
    code, said = service.run(
        MODAL, "--variants", "global,gated", "--parallel", "--gpu", "h100", "--batch-size", "99"
    )
    token.unlink()
    assert code == 0, said
    functions = service.modal.functions.items()
    bound = next(function for name, function in functions if name.startswith(f"{FUNCTION}-"))
    assert bound.resources.gpu_config.gpu_type == "H100"
    assert service.modal.rpcs.count("FunctionMap") == 1  # one call, two inputs
    for name in ("global", "gated"):
        assert runner.finished(service.job(name))
        assert load_plan(service.job(name).folder).token_budget == 99
    code, said = service.run(MODAL, "--variants", "global,gated")
    assert code == 0, said
    assert said.count("complete, skipped") == 2
    assert "FunctionMap" not in service.modal.rpcs


@pytest.mark.fault(
    "Modal: a shard arrives altered; then the download is started again",
    "refused by its hash, exit 1; the container computes nothing, only what is missing is fetched",
)
def test_a_download_is_checked_and_resumed(service: Service) -> None:
    service.run(SCRIPT, "--variants", "base")
    job = service.job("base")
    shard = store.shard_path(job.folder, 0)
    good = shard.read_bytes()
    shard.unlink()
    (job.folder / "shard-00009.safetensors").write_bytes(b"of an older plan")
    service.modal.cut.add(shard.name)
    asked = len(service.hub.log)
    code, said = service.run(SCRIPT, "--variants", "base")
    assert code == 1
    assert "content does not match its hash" in said
    shard.unlink()
    code, said = service.run(SCRIPT, "--variants", "base")
    assert code == 0, said
    assert shard.read_bytes() == good
    assert len(service.hub.log) == asked  # no weights: the container found its work done
    assert len(list(job.folder.iterdir())) == 3
    assert service.modal.rpcs.count("VolumeGetFile2") == 3  # plan, tokens, the missing shard


@pytest.mark.fault("Modal: a container dies", "exit 1, the reason and the way on named")
def test_a_container_that_dies(service: Service) -> None:
    service.modal.dies = "the worker was lost"
    code, said = service.run(SCRIPT, "--variants", "other")
    service.modal.dies = ""
    assert code == 1
    assert "the worker was lost; run again without --overwrite (finished work is kept)" in said
    assert "Traceback" not in said


@pytest.mark.fault(
    "Modal: the body raises (a broken model; a full Volume)",
    "exit 1, said to be on Modal, the Volume named",
)
def test_what_a_body_raises_is_not_taken_for_a_fault_of_this_machine(
    service: Service, monkeypatch: Any
) -> None:
    broken = "from aya_probes import stimuli; stimuli.parse_manifest = lambda *anything: 1 / 0\n"
    monkeypatch.setattr(loopback_modal, "BEFORE_THE_BODY", broken)
    code, said = service.run(SCRIPT, "--variants", "other")
    assert code == 1
    assert "on Modal: ZeroDivisionError: division by zero" in said
    assert "Traceback" not in said
    full = OSError(errno.ENOSPC, "No space left on device", f"{modal_config.WEIGHTS_DIR}/hub/x")
    monkeypatch.setattr(stimuli, "parse_manifest", raises(full))
    for name in ("weights_volume", "activations_volume"):
        monkeypatch.setattr(modal_config, name, NoVolume())
    found = batch_runner.extract_remote.local("{}", "base", {"device": "auto"})["error"]
    assert "No space left on device (/weights is Volume aya-probes-weights" in found


class NoVolume:
    def commit(self) -> None:
        """Stand for a Volume outside of a container."""


def raises(error: Exception) -> Any:
    def call(*anything: Any) -> Any:
        raise error

    return call


@pytest.mark.fault(
    "Modal: Ctrl-C and SIGTERM while a container computes",
    "exit 130 and 143; the app is stopped, so that it costs nothing more",
)
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, errors.EXIT_INTERRUPTED), (signal.SIGTERM, errors.EXIT_TERMINATED)],
)
def test_an_interrupt_stops_the_app(service: Service, number: int, code: int) -> None:
    service.modal.rpcs.clear()
    service.modal.started.clear()
    service.modal.disconnected.clear()
    service.modal.waits = True
    with service.start(SCRIPT, "--variants", "other") as process:
        service.modal.started.wait()
        process.send_signal(number)
        said, _ = process.communicate()
    service.modal.waits = False
    service.modal.disconnected.set()
    assert process.returncode == code, said
    assert "AppClientDisconnect" in service.modal.rpcs
    assert "interrupted; what was finished is kept" in said
    assert "Traceback" not in said


def test_a_device_of_this_machine_is_refused_before_a_container_starts(service: Service) -> None:
    code, said = service.run(SCRIPT, "--device", "mps")
    assert code == errors.EXIT_USAGE
    assert "--device mps: Modal computes on a GPU; add --local" in said
    assert service.modal.rpcs == []


@pytest.mark.fault("Modal: no token", "exit 1; `modal setup` named")
def test_without_a_token(service: Service, monkeypatch: Any) -> None:
    monkeypatch.setattr(loopback_modal, "TOKEN", {})
    code, said = service.run(SCRIPT, "--variants", "other")
    assert code == 1
    assert "sign in with `uv run modal setup`, or extract here with --local" in said
    assert "Traceback" not in said


@pytest.mark.fault("Modal: a container without CUDA", "the body fails at once, before any fetch")
def test_the_body_fails_at_once_without_cuda(service: Service, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    run = tmp_path / "run"
    suite = write_study(tmp_path, {"base": {"repo": "o/base", "role": "base"}})
    line = ["--suite", str(suite), "--run-dir", str(run), "--limit", "2"]
    assert build_stimuli.main(line) == 0
    asked = len(service.hub.log)
    strict = Service(service.modal, service.hub, tmp_path)
    code, said = strict.run(SCRIPT)
    assert code == 1
    assert "no CUDA device in the container for --device auto: check --gpu" in said
    assert len(service.hub.log) == asked
    manifest = stimuli.load_manifest(run_folder.RunPaths(service.run_dir).manifest)
    assert modal_job.remote_device(manifest, "auto") == "cpu"  # its suite allows it
    with pytest.raises(errors.StudyError, match="no CUDA device"):
        modal_job.remote_device(manifest, "cuda")


def test_an_unknown_gpu_lists_the_known_ones(service: Service, capsys: Any) -> None:
    assert batch_runner.main(["--run-dir", str(service.run_dir), "--gpu", "TPU"]) == 2
    assert "A10, L40S" in capsys.readouterr().err


def test_dry_run_gives_every_size_and_the_cost(tmp_path: Path, capsys: Any) -> None:
    save_tiny(tmp_path / "base")
    suite = write_study(tmp_path, {"base": {"path": "base", "role": "base"}})
    line = ["--run-dir", str(tmp_path / "run")]
    assert build_stimuli.main(["--suite", str(suite), *line, "--limit", "5"]) == 0
    capsys.readouterr()
    assert batch_runner.main([*line, "--dry-run", "--local"]) == 0
    out = capsys.readouterr().out
    weights = (tmp_path / "base" / "model.safetensors").stat().st_size
    assert f"weights {weights / 1000:.1f} kB" in out
    assert "$" not in out
    assert "time in float32 on this CPU" in out
    assert batch_runner.main([*line, "--local", "--device", "cpu"]) == 0
    shards = (tmp_path / "run/activations/base").glob("shard-*")
    disk = sum(path.stat().st_size for path in shards)
    said = float(out.partition("activations ")[2].split(" ")[0]) * 1000
    assert said == pytest.approx(disk, rel=0.02)
    capsys.readouterr()
    assert batch_runner.main([*line, "--dry-run", "--gpu", "H100"]) == 0
    out = capsys.readouterr().out
    assert "on H100" in out
    assert "together about $0.0" in out


@pytest.mark.parametrize("tied", [True, False])
def test_a_token_is_multiplied_by_the_matrices_of_the_blocks(tied: bool, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from aya_probes.planted.tiny import TINY

    config = AutoConfig.for_model(
        "llama", vocab_size=259, tie_word_embeddings=tied, **TINY["llama"]
    )
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    found = job_size.describe_model(suites.Variant("base", "base", path=str(tmp_path)), None)
    blocks = sum(p.numel() for p in model.get_decoder().layers.parameters())
    assert found.matrix_weights == pytest.approx(blocks, rel=0.1)  # header and norms are in it
    assert found.layers == 4 + 2


def test_dry_run_says_what_is_unknown(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("AYA_PROBES_CACHE", str(tmp_path / "empty"))
    line = ["--run-dir", str(tmp_path), "--limit", "2"]
    assert build_stimuli.main(["--suite", "mini", *line]) == 0
    assert batch_runner.main(["--run-dir", str(tmp_path), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "weights unknown" in out
    assert "time and cost unknown" in out


def test_every_imported_module_of_the_project_is_shipped() -> None:
    code = (
        "import sys, batch_runner, pathlib\n"
        "from aya_probes.extraction import dry_run, local, modal_job\n"
        "root = pathlib.Path(batch_runner.__file__).parent\n"
        "files = [(n, getattr(m, '__file__', None)) for n, m in sys.modules.items()]\n"
        "print(*sorted({n.partition('.')[0] for n, file in files if file\n"
        "      and pathlib.Path(file).parent in (root, root / n.partition('.')[0])}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=project.ROOT
    )
    assert done.stdout.split() == sorted([*modal_config.MODULES, "batch_runner"])
