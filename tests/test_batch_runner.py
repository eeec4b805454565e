"""Local extraction: which device and why, and a suite of one's own from a folder and from a hub."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import batch_runner
import build_stimuli
from aya_probes import project, run_folder, stimuli, suites
from aya_probes.extraction import packs, runner
from aya_probes.models import loading, residuals
from aya_probes.planted.tiny import TERMS, save_tiny, write_study
from tests import loopback_hub


@pytest.fixture
def run(tiny_suite: Path, tmp_path: Path) -> Path:
    line = ["--suite", str(tiny_suite), "--run-dir", str(tmp_path), "--limit", "3"]
    assert build_stimuli.main(line) == 0
    return tmp_path


def extract(run: Path, *flags: str) -> int:
    return batch_runner.main(["--local", "--run-dir", str(run), "--variants", "base", *flags])


@pytest.mark.parametrize(
    ("cuda", "mps", "device", "why"),
    [
        (True, True, "cuda", "CUDA is available (Some GPU)"),
        (False, True, "mps", "no CUDA; Apple MPS is available"),
        (False, False, "cpu", "no CUDA and no MPS"),
    ],
)
def test_auto_takes_the_best_device_and_says_why(
    monkeypatch: Any, cuda: bool, mps: bool, device: str, why: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "Some GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert loading.choose_device("auto") == (torch.device(device), why)


def test_the_reason_is_printed(run: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert extract(run) == 0
    assert "base: on cpu (no CUDA and no MPS), float32" in capsys.readouterr().out


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(run: Path, capsys: Any, device: str) -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("a GPU is here")
    assert extract(run, "--device", device) == 1
    assert f"--device {device}: no" in capsys.readouterr().err


def test_precision_is_float32_except_on_cuda() -> None:
    assert loading.choose_dtype("auto", torch.device("cuda")) is torch.bfloat16
    assert loading.choose_dtype("auto", torch.device("mps")) is torch.float32
    assert loading.choose_dtype("bf16", torch.device("cpu")) is torch.bfloat16


def test_an_unproven_device_is_compared_with_the_cpu(
    run: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(packs, "UNPROVEN_DEVICES", ("cpu",))  # stands for MPS
    assert extract(run, "--device", "cpu") == 0
    assert "same as the CPU (cosine 1.0000" in capsys.readouterr().out


@pytest.mark.fault(
    "a device whose results differ from the CPU's (MPS check, the CPU standing for it)",
    "refused before anything is written",
)
def test_a_device_that_computes_something_else_is_refused(
    run: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(packs, "UNPROVEN_DEVICES", ("cpu",))
    plain = residuals.on_device

    def altered(loaded: Any, device: torch.device) -> Any:
        loaded.blocks[1].mlp.down_proj.weight.mul_(1.5)
        return plain(loaded, device)

    monkeypatch.setattr(residuals, "on_device", altered)
    assert extract(run, "--device", "cpu") == 1
    assert "its vectors differ from the CPU's (smallest cosine 0." in capsys.readouterr().err
    assert not list((run / "activations").rglob("plan.json"))


def test_moving_a_model_is_undone_when_the_work_fails() -> None:
    from aya_probes.planted.tiny import byte_tokenizer, tiny_model

    loaded = loading.wrap(
        tiny_model("llama", 0), byte_tokenizer(), torch.device("cpu"), torch.float32
    )
    with pytest.raises(ValueError, match="stop"), residuals.on_device(loaded, torch.device("cpu")):
        raise ValueError("stop")
    assert loaded.device == torch.device("cpu")


# --- bring your own ---------------------------------------------------------------------------


def readme_suite() -> str:
    """Return the TOML that README shows under "Your own model and language"."""
    text = (project.ROOT / "README.md").read_text("utf-8")
    section = text.split("## Your own model and language")[1].split("\n## ")[0]
    return section.split("```toml\n")[1].split("```")[0]


def test_readmes_own_suite_runs_on_a_folder_and_a_hub_repository(tmp_path: Path) -> None:
    """README's TOML as it stands: 3 languages, 5 concepts, one local model, one of a hub."""
    write_study(tmp_path, {"base": {"path": "x", "role": "base"}})
    (tmp_path / "probes.json").rename(tmp_path / "my_probes.json")
    (tmp_path / "pairs.json").rename(tmp_path / "my_pairs.json")
    suite = tmp_path / "mine.toml"
    suite.write_text(readme_suite(), "utf-8")
    loaded = suites.load_suite(str(suite))
    local, tuned = loaded.variant("base"), loaded.variant("tuned")
    assert local.path is not None
    assert tuned.repo is not None
    save_tiny(suites.resolve_path(local.path), "llama", seed=1)
    script = (
        "import sys, build_stimuli, batch_runner\n"
        "suite, run = sys.argv[1:]\n"
        "line = ['--run-dir', run]\n"
        "code = build_stimuli.main(['--suite', suite, *line, '--limit', '10'])\n"
        "raise SystemExit(code or batch_runner.main(['--local', '--device', 'cpu', *line]))"
    )
    with loopback_hub.serve() as hub:
        hub.repos[tuned.repo] = loopback_hub.Repo(save_tiny(tmp_path / "tuned", "llama", seed=2))
        commit = hub.repos[tuned.repo].commit
        done = subprocess.run(
            [sys.executable, "-c", script, str(suite), str(tmp_path / "run")],
            cwd=project.ROOT,
            env=loopback_hub.client_environment(hub.url, tmp_path / "hf"),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    manifest = stimuli.load_manifest(run_folder.RunPaths(tmp_path / "run").manifest)
    assert len(manifest.suite.languages) == 3
    assert len(manifest.metadata["concepts"]) == len(TERMS) == 5
    for variant in ("base", "tuned"):
        folder = tmp_path / "run" / "activations" / variant
        job = runner.Job(manifest, manifest.suite.variant(variant), folder)
        assert runner.finished(job)
    plan = json.loads((folder / "plan.json").read_text("utf-8"))
    assert plan["inputs"]["source"] == {"role": "regional", "repo": tuned.repo, "revision": commit}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 3 bytes"),
    ],
)
@pytest.mark.fault("the device's memory does not hold a pack", "exit 1, smaller packs named")
def test_too_little_memory_says_what_to_do(
    run: Path, capsys: Any, monkeypatch: Any, error: RuntimeError
) -> None:
    plain = packs.pool_pack

    def full(loaded: Any, pack: Any, *, packed: bool = False) -> Any:
        if len(pack) > packs.SELF_CHECK_TEXTS:
            raise error
        return plain(loaded, pack, packed=packed)

    monkeypatch.setattr(packs, "pool_pack", full)
    assert extract(run, "--device", "cpu") == 1
    assert "run with --batch-size 128 --overwrite, or with --dtype bf16" in capsys.readouterr().err
    monkeypatch.setattr(packs, "pool_pack", plain)
    assert extract(run, "--device", "cpu", "--batch-size", "128", "--overwrite") == 0
