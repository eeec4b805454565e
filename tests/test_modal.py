"""What runs on Modal, as far as that can be shown without an account.

Covered: the remote function's own body, in a process that can import only the modules which the
image ships, with only the data files which it ships, weights fetched from a (loopback) hub into the
Volume's folder; the download's hash check and resume; flags, dry run and the refusal without CUDA.
Not covered: the image's build, GPUs, scheduling, retries, timeouts and Volumes of the service.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import IO, Any

import pytest

import artifacts
import batch_flags
import batch_runner
import build_stimuli
import modal_config
import study
from extraction import job_size, runner, store
from tests import loopback_hub
from tests.conftest import save_tiny, write_study

# A container: the shipped files in one folder, the Volumes in two others.
CONTAINER = """
import json, sys
import batch_runner, modal_config
class Volume:
    def commit(self): print("committed", flush=True)
modal_config.weights_volume = modal_config.activations_volume = Volume()
modal_config.ACTIVATIONS_DIR = sys.argv[1]
body = batch_runner.extract_remote.local
manifest = open(sys.argv[2], encoding="utf-8").read()
options = {"device": "auto", "dtype": "float32", "token_budget": None, "overwrite": False}
print(json.dumps(body(manifest, "base", options)), flush=True)
"""


def ship(root: Path) -> Path:
    """Copy what the image and the entry file bring to the container; returns its root."""
    root.mkdir()
    for name in (*modal_config.MODULES, "batch_runner"):
        if (study.ROOT / name).is_dir():
            shutil.copytree(study.ROOT / name, root / name)
        else:
            shutil.copy(study.ROOT / f"{name}.py", root)
    for name in modal_config.DATA_FILES:
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(study.ROOT / name, root / name)
    return root


def run_container(
    root: Path, volume: Path, manifest: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the body with ``-S``: the project's own folder is then not on the import path."""
    packages = sysconfig.get_paths()["purelib"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PYTHON"))}
    return subprocess.run(
        [sys.executable, "-S", "-c", CONTAINER, str(volume), str(manifest)], cwd=root,
        env=clean | {"PYTHONPATH": f"{root}:{packages}", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a hub suite that may compute on a CPU."""
    folder = tmp_path_factory.mktemp("suite")
    suite = write_study(folder, {"base": {"repo": "o/base", "role": "base"}})
    suite.write_text("allow_cpu = true\n" + suite.read_text("utf-8"), "utf-8")
    line = ["--suite", str(suite), "--run-dir", str(folder / "run"), "--limit", "5"]
    assert build_stimuli.main(line) == 0
    return study.RunPaths(folder / "run").manifest


@pytest.fixture(scope="module")
def volume(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the remote body in a container; returns the Volume's folder and the remote path."""
    folder = tmp_path_factory.mktemp("modal")
    with loopback_hub.serve() as hub:
        hub.repos["o/base"] = loopback_hub.Repo(save_tiny(folder / "model"))
        done = run_container(
            ship(folder / "root"), folder / "activations", manifest, HF_ENDPOINT=hub.url,
            HF_HOME=str(folder / "weights"),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("committed") == 2
    assert list((folder / "weights").rglob("model.safetensors"))
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result) == {"folder"}, result
    return folder / "activations", result["folder"]


@pytest.mark.fault(
    "Modal: the remote body where only what the image ships can be imported",
    "runs; activations and weights on their Volumes",
)
def test_the_body_runs_with_what_the_image_ships(volume: tuple[Path, str], manifest: Path) -> None:
    folder, remote = volume
    loaded = artifacts.load_manifest(manifest)
    variant = loaded.suite.variant("base")
    assert runner.finished(runner.Job(loaded, variant, folder / remote))


@pytest.mark.fault("Modal: a container without CUDA", "the body fails at once, before any fetch")
def test_the_body_fails_at_once_without_cuda(manifest: Path, tmp_path: Path) -> None:
    raw = artifacts.load_manifest(manifest)
    strict = artifacts.Manifest(study.load_suite("tiny-aya"), raw.metadata, raw.stimuli)
    import torch

    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    with pytest.raises(study.StudyError, match=r"no CUDA device.*--gpu"):
        batch_runner.remote_device(strict, "auto")
    assert batch_runner.remote_device(raw, "auto") == "cpu"
    with pytest.raises(study.StudyError, match="no CUDA device"):
        batch_runner.remote_device(raw, "cuda")


def test_a_users_mistake_comes_back_as_a_message_not_as_a_retry(
    monkeypatch: Any, tmp_path: Path
) -> None:
    class Volume:
        def commit(self) -> None:
            """Stand for the service's."""

    monkeypatch.setattr(modal_config, "activations_volume", Volume())
    monkeypatch.setattr(modal_config, "weights_volume", Volume())
    monkeypatch.setattr(modal_config, "ACTIVATIONS_DIR", str(tmp_path))
    body = batch_runner.extract_remote.local
    assert "not valid JSON" in body("{", "base", {"device": "auto"})["error"]


class FolderVolume:
    """Reads a folder the way the client reads a Volume; can break off."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetched: list[str] = []
        self.broken = ""

    def read_file_into_fileobj(self, path: str, handle: IO[bytes]) -> None:
        data = (self.folder / path).read_bytes()
        self.fetched.append(Path(path).name)
        handle.write(data[:-9] if Path(path).name == self.broken else data)


@pytest.mark.fault(
    "Modal: a shard arrives cut off; then the download is started again",
    "refused by its hash; only what is missing is fetched",
)
def test_download_checks_and_resumes(
    volume: tuple[Path, str], manifest: Path, tmp_path: Path
) -> None:
    folder, remote = volume
    loaded = artifacts.load_manifest(manifest)
    source = FolderVolume(folder)
    source.broken = "shard-00000.safetensors"
    with pytest.raises(study.StudyError, match="truncated"):
        batch_runner.download(source, remote, tmp_path, loaded)
    source.broken = ""
    (tmp_path / "shard-00009.safetensors").write_bytes(b"of an older plan")
    batch_runner.download(source, remote, tmp_path, loaded)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        p.name: p.read_bytes() for p in (folder / remote).iterdir()
    }
    source.fetched.clear()
    batch_runner.download(source, remote, tmp_path, loaded)
    assert "shard-00000.safetensors" not in source.fetched
    assert runner.finished(runner.Job(loaded, loaded.suite.variant("base"), tmp_path))
    other = artifacts.Manifest(loaded.suite, loaded.metadata, loaded.stimuli[:-1])
    with pytest.raises(study.StudyError, match="for another manifest"):
        batch_runner.download(source, remote, tmp_path, other)


class Remote:
    """Stands for the deployed function: runs nothing, says what it was asked."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.gpu: str | None = None

    def with_options(self, *, gpu: str) -> Remote:
        self.gpu = gpu
        return self

    def remote(self, manifest: str, name: str, options: dict[str, Any]) -> dict[str, str]:
        self.calls.append((name, options))
        return {"error": f"no access to {name}"}

    def starmap(self, arguments: list[tuple[str, str, dict[str, Any]]]) -> list[dict[str, str]]:
        return [self.remote(*each) for each in arguments]


@pytest.mark.parametrize("flags", [[], ["--parallel"]])
def test_both_ways_share_flags_and_every_failed_variant_is_named(
    flags: list[str], manifest: Path, monkeypatch: Any, capsys: Any
) -> None:
    remote = Remote()
    monkeypatch.setattr(batch_runner, "extract_remote", remote)
    line = ["--run-dir", str(manifest.parents[1]), "--gpu", "h100", "--batch-size", "99", *flags]
    args = batch_flags.build_parser().parse_args(line)
    with pytest.raises(study.StudyError, match="no access to base"):
        batch_runner.run(batch_runner._config(args), inside_modal=True)
    assert remote.gpu == "H100"
    assert [name for name, _ in remote.calls] == ["base"]
    assert remote.calls[0][1]["token_budget"] == 99


def test_modal_run_passes_its_arguments_to_the_same_parser(
    manifest: Path, monkeypatch: Any
) -> None:
    seen = []
    monkeypatch.setattr(batch_runner, "run", lambda config, inside_modal: seen.append(config))
    batch_runner.modal_main.info.raw_f("--run-dir", str(manifest.parents[1]), "--variants", "base")
    assert seen[0].variants == ("base",)
    with pytest.raises(SystemExit) as stop:
        batch_runner.modal_main.info.raw_f("--gpu", "TPU", "--local")
    assert stop.value.code == study.EXIT_USAGE


def test_an_unknown_gpu_lists_the_known_ones(manifest: Path, capsys: Any) -> None:
    assert batch_runner.main(["--run-dir", str(manifest.parents[1]), "--gpu", "TPU"]) == 2
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

    from tests.conftest import TINY

    config = AutoConfig.for_model(
        "llama", vocab_size=259, tie_word_embeddings=tied, **TINY["llama"]
    )
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    found = job_size.describe_model(study.Variant("base", "base", path=str(tmp_path)), None)
    blocks = sum(p.numel() for p in model.get_decoder().layers.parameters())
    assert found.matrix_weights == pytest.approx(blocks, rel=0.1)  # header and norms are in it
    assert found.rows == 4 + 2


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
        "import sys, batch_runner, model_loader, pathlib\n"
        "root = pathlib.Path(batch_runner.__file__).parent\n"
        "files = [(n, getattr(m, '__file__', None)) for n, m in sys.modules.items()]\n"
        "print(*sorted({n.partition('.')[0] for n, file in files if file\n"
        "      and pathlib.Path(file).parent in (root, root / n.partition('.')[0])}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=study.ROOT
    )
    assert done.stdout.split() == sorted([*modal_config.MODULES, "batch_runner"])


def test_store_paths_are_the_same_on_both_sides(volume: tuple[Path, str]) -> None:
    folder, remote = volume
    assert store.plan_path(folder / remote).is_file()
    assert remote.endswith("/base")
