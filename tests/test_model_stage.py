"""The runner of stages that measure a loaded model: resume, refusal, one load for all stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import build_stimuli
from aya_probes import model_stage, run_folder, stage_files, stimuli
from aya_probes.errors import StudyError
from aya_probes.model_stage import Inputs, Options
from aya_probes.models import loading
from aya_probes.models.residuals import LoadedModel
from aya_probes.stage_files import Measured


@dataclass(frozen=True)
class Norms:
    """A stage that measures the sum of the embeddings."""

    name: str = "norms"
    version: int = 1
    settings: Mapping[str, Any] = field(default_factory=lambda: {"power": 2})

    def measure(self, loaded: LoadedModel, inputs: Inputs) -> Measured:
        inputs.announce(1, "text")
        weight = loaded.decoder.get_input_embeddings().weight
        inputs.progress(1)
        assert torch.is_inference_mode_enabled()
        row = {"variant": inputs.variant.name, "sum": float(weight.double().sum())}
        return Measured([row], {"first": weight[0].numpy()} if self.name == "norms" else {})


@pytest.fixture(scope="module")
def run(tiny_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> run_folder.RunPaths:
    folder = tmp_path_factory.mktemp("stages")
    line = ["--suite", str(tiny_suite), "--run-dir", str(folder), "--limit", "4"]
    assert build_stimuli.main(line) == 0
    return run_folder.RunPaths(folder)


def test_stages_share_a_load_and_finished_files_are_skipped(
    run: run_folder.RunPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = stimuli.load_manifest(run.manifest)
    variants = [manifest.suite.variant(name) for name in ("base", "fire")]
    loads: list[str] = []
    load = loading.load_variant

    def counted(variant: Any, *rest: Any, **settings: Any) -> LoadedModel:
        loads.append(variant.name)
        return load(variant, *rest, **settings)

    monkeypatch.setattr(loading, "load_variant", counted)
    cpu = Options(device="cpu")
    stages = [Norms(), Norms(name="other")]
    assert model_stage.run_stages(run, manifest, variants[:1], stages[1:], cpu) == 1
    assert model_stage.run_stages(run, manifest, variants, stages, cpu) == 3
    assert loads == ["base", "base", "fire"]
    assert "base: other complete, skipped" in capsys.readouterr().out
    assert model_stage.run_stages(run, manifest, variants, stages, cpu) == 0
    assert len(loads) == 3
    path = stage_files.stage_path(run, "fire", "norms")
    content = stage_files.load_measured(run, "fire", "norms", manifest.sha256, "x.py")
    first = stage_files.load_arrays(path, content, "x.py")["first"]
    source = loading.resolve_source(variants[1])
    loaded = load(variants[1], source, device=torch.device("cpu"), dtype=torch.float32)
    weight = loaded.decoder.get_input_embeddings().weight
    np.testing.assert_array_equal(first, weight[0].numpy())
    assert content.rows == [{"variant": "fire", "sum": float(weight.double().sum())}]
    assert content.inputs.source == source.identity


def test_other_inputs_are_refused_and_lost_arrays_are_measured_again(
    run: run_folder.RunPaths,
) -> None:
    manifest = stimuli.load_manifest(run.manifest)
    variants = [manifest.suite.variant("global")]
    cpu = Options(device="cpu")
    assert model_stage.run_stages(run, manifest, variants, [Norms()], cpu) == 1
    changed = [Norms(settings={"power": 3})]
    with pytest.raises(StudyError, match=r"settings \(power\) changed.*--overwrite"):
        model_stage.run_stages(run, manifest, variants, changed, cpu)
    again = Options(device="cpu", overwrite=True)
    assert model_stage.run_stages(run, manifest, variants, changed, again) == 1
    path = stage_files.stage_path(run, "global", "norms")
    arrays = stage_files.arrays_path(path)
    arrays.write_bytes(arrays.read_bytes()[:-1])
    content = stage_files.load_stage(path, "x.py")
    with pytest.raises(StudyError, match=r"norms.safetensors: .* regenerate it with: x.py"):
        stage_files.load_arrays(path, content, "x.py")
    assert model_stage.run_stages(run, manifest, variants, changed, cpu) == 1
    other = stimuli.Manifest(manifest.suite, {**manifest.metadata, "extra": 1}, manifest.stimuli)
    with pytest.raises(StudyError, match="manifest_sha256 changed"):
        model_stage.run_stages(run, other, variants, changed, cpu)
    with pytest.raises(StudyError, match="measured on another manifest"):
        stage_files.load_measured(run, "global", "norms", other.sha256, "x.py")
