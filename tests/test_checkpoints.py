"""Checkpoints as people have them: read rightly, or refused with the file and the fix named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from aya_probes import project
from aya_probes.errors import StudyError
from aya_probes.extraction import job_size, vectors
from aya_probes.models import checkpoints, fingerprints, loading
from aya_probes.models.residuals import LoadedModel
from aya_probes.planted.tiny import save_tiny, write_study
from aya_probes.suites import Variant
from tests import loopback_hub

CPU = torch.device("cpu")
TEXTS = ["The eye was seen again.", "वह आँख फिर दिखा।"]


def variant_of(folder: Path) -> Variant:
    return Variant("mine", "base", path=str(folder))


def load(folder: Path, dtype: torch.dtype = torch.float32) -> LoadedModel:
    """Load a folder as a run does."""
    variant = variant_of(folder)
    source = loading.resolve_source(variant)
    return loading.load_variant(variant, source, device=CPU, dtype=dtype)


def vectors_of(folder: Path, dtype: torch.dtype = torch.float32) -> np.ndarray:
    return vectors.residual_vectors(load(folder, dtype), TEXTS)


def shard(folder: Path, *, keep: bool = False) -> list[str]:
    """Split a folder's weights into two shards and an index; returns the shards' names."""
    single = folder / checkpoints.SINGLE
    weights = load_file(single)
    names = [f"model-{n:05d}-of-00002.safetensors" for n in (1, 2)]
    placed = {key: names[n % 2] for n, key in enumerate(sorted(weights))}
    for name in names:
        part = {key: weight for key, weight in weights.items() if placed[key] == name}
        save_file(part, folder / name, metadata={"format": "pt"})
    text = json.dumps({"metadata": {"total_size": 0}, "weight_map": placed})
    (folder / checkpoints.INDEX).write_text(text, "utf-8")
    if not keep:
        single.unlink()
    return names


def change_config(folder: Path, **more: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | more), "utf-8")


def loader(suite: Path, *flags: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run model_loader.py as a user does; returns the exit code and what it printed."""
    line = [sys.executable, "model_loader.py", "--suite", str(suite), "--device", "cpu", *flags]
    done = subprocess.run(
        line, cwd=project.ROOT, capture_output=True, text=True, check=False, env=env
    )
    return done.returncode, done.stdout, done.stderr


# --- other formats ----------------------------------------------------------------------------


@pytest.mark.fault("only `pytorch_model.bin`", "refused; says how to convert it")
def test_pickled_weights_are_refused_with_the_way_to_convert_them(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    (folder / checkpoints.SINGLE).rename(folder / "pytorch_model.bin")
    code, _, error = loader(write_study(tmp_path, {"mine": {"path": "model", "role": "base"}}))
    assert code == 1
    assert len(error.splitlines()) == 1
    assert f"variant mine: {folder} has no safetensors weights but pytorch_model.bin" in error
    assert "save it with save_pretrained" in error
    with pytest.raises(StudyError, match=r"pytorch_model\.bin.*save_pretrained"):
        loading.load_model(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model-00001-of-00001.safetensors", r"no model\.safetensors\.index\.json.*save_pretr"),
        ("notes.txt", "no safetensors weights.*fetch or save the model again"),
        ("model-Q8_0.gguf", r'give gguf = "model-Q8_0\.gguf" in the suite file'),
    ],
)
def test_what_is_there_instead_of_weights_is_named(tmp_path: Path, name: str, message: str) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    (folder / checkpoints.SINGLE).rename(folder / name)
    with pytest.raises(StudyError, match=message):
        loading.resolve_source(variant_of(folder))


@pytest.mark.fault("a folder that is an adapter, given as a model", "refused; `adapter` named")
def test_a_folder_that_is_an_adapter_is_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "other"}', "utf-8")
    with pytest.raises(StudyError, match=r"adapter_config\.json .*give it with `adapter`"):
        load(folder)


# --- one copy of the weights ------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "plain", "llama", seed=1)


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """The model of ``plain`` in shards, beside other copies and an old single file."""
    folder = save_tiny(tmp_path / "crowded", "llama", seed=1)
    shard(folder)
    old = load_file(save_tiny(tmp_path / "old", "llama", seed=2) / checkpoints.SINGLE)
    (folder / "original").mkdir()
    for name in ("consolidated.safetensors", checkpoints.SINGLE, "original/model.safetensors"):
        save_file(old, folder / name, metadata={"format": "pt"})
    return folder


def test_hashes_of_a_single_file_and_of_plain_shards_stay_as_they_were(plain: Path) -> None:
    """Version 0.1 hashed config.json and every *.safetensors, in the order of their names."""
    before = fingerprints.folder_sha256(plain, ["config.json", checkpoints.SINGLE])
    assert fingerprints.model_sha256(plain, variant_of(plain)) == before
    names = shard(plain)
    before = fingerprints.folder_sha256(plain, ["config.json", *names])
    assert fingerprints.model_sha256(plain, variant_of(plain)) == before


@pytest.mark.fault(
    "other copies of the weights beside new shards",
    "the files of the index are loaded, hashed and counted",
)
def test_the_index_decides_what_is_loaded_hashed_and_counted(plain: Path, crowded: Path) -> None:
    np.testing.assert_array_equal(vectors_of(plain), vectors_of(crowded))
    found = fingerprints.model_sha256(crowded, variant_of(crowded))
    for name in ("consolidated.safetensors", checkpoints.SINGLE):
        (crowded / name).unlink()
    assert fingerprints.model_sha256(crowded, variant_of(crowded)) == found
    size = sum(path.stat().st_size for path in crowded.glob("model-*.safetensors"))
    assert job_size.describe_model(variant_of(crowded), None).weight_bytes == size


def test_a_single_file_is_read_although_others_lie_beside_it(plain: Path) -> None:
    before, expected = fingerprints.model_sha256(plain, variant_of(plain)), vectors_of(plain)
    (plain / "consolidated.safetensors").write_bytes(b"other")
    assert fingerprints.model_sha256(plain, variant_of(plain)) == before
    np.testing.assert_array_equal(vectors_of(plain), expected)


def test_a_configuration_that_names_its_weights_is_followed(plain: Path) -> None:
    expected = vectors_of(plain)
    (plain / checkpoints.SINGLE).rename(plain / "own.safetensors")
    change_config(plain, transformers_weights="own.safetensors")
    np.testing.assert_array_equal(vectors_of(plain), expected)
    change_config(plain, transformers_weights="../own.safetensors")
    with pytest.raises(StudyError, match="names no file of this folder"):
        load(plain)


@pytest.mark.fault("a shard of the weights is missing", "refused, the file named")
def test_an_index_that_names_a_missing_file_is_refused(plain: Path) -> None:
    _, second = shard(plain)
    (plain / second).unlink()
    named = rf"variant mine: .*index\.json names {second}, which is not there \(1 of 2 files"
    with pytest.raises(StudyError, match=named):
        load(plain)


@pytest.mark.fault("a broken index of the weights", "refused, the index named")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not an index of weights"),
        ("[]", "is not an index of weights"),
        ('{"weight_map": {}}', "names no file"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "not a safetensors file beside it"),
        ('{"weight_map": {"a": 3}}', "not a safetensors file beside it"),
        ('{"weight_map": {"a": 3, "b": "x.bin"}}', "is not an index of weights"),
        ('{"weight_map": {"a": "x.bin"}}', "not a safetensors file beside it"),
    ],
)
def test_a_broken_index_is_refused(plain: Path, text: str, message: str) -> None:
    (plain / checkpoints.INDEX).write_text(text, "utf-8")
    with pytest.raises(StudyError, match=rf"variant mine: .*index\.json .*{message}"):
        load(plain)


@pytest.fixture
def hub() -> Iterator[loopback_hub.Hub]:
    with loopback_hub.serve() as running:
        yield running


def hub_loader(hub: loopback_hub.Hub, home: Path, **table: object) -> tuple[int, str, str]:
    """Run model_loader.py on variant ``mine`` of the loopback hub's o/m."""
    suite = write_study(home, {"mine": {"repo": "o/m", "role": "base", **table}})
    hub.log.clear()
    return loader(suite, env=loopback_hub.client_environment(hub.url, home / "hf"))


@pytest.mark.fault("a repository that holds its weights twice", "one copy fetched")
def test_a_repository_s_weights_are_fetched_once(
    hub: loopback_hub.Hub, crowded: Path, tmp_path: Path
) -> None:
    hub.repos["o/m"] = loopback_hub.Repo(crowded)
    code, _, error = hub_loader(hub, tmp_path)
    assert code == 0, error
    fetched = sorted(line.split()[1].rpartition("/")[2] for line in hub.log if "GET cdn/" in line)
    assert fetched == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize("missing", ["a shard", "all"])
def test_a_repository_without_its_weights_is_refused(
    hub: loopback_hub.Hub, plain: Path, tmp_path: Path, missing: str
) -> None:
    if missing == "all":
        (plain / checkpoints.SINGLE).rename(plain / "pytorch_model.bin")
        message = "has no safetensors weights but pytorch_model.bin"
    else:
        (plain / shard(plain)[1]).unlink()
        message = "names model-00002-of-00002.safetensors, which is not there"
    hub.repos["o/m"] = loopback_hub.Repo(plain)
    code, _, error = hub_loader(hub, tmp_path)
    assert code == 1
    assert "variant mine: " in error
    assert message in error
    assert len(error.splitlines()) == 1


# --- files beside the weights -----------------------------------------------------------------


@pytest.mark.fault("an invalid generation_config.json", "read without it")
@pytest.mark.parametrize("text", ["{", "[]", '{"do_sample": false, "num_beams": "x"}', "", "\xff"])
def test_an_invalid_generation_config_plays_no_part(plain: Path, text: str) -> None:
    expected = vectors_of(plain)
    (plain / "generation_config.json").write_bytes(text.encode("latin-1"))
    np.testing.assert_array_equal(vectors_of(plain), expected)
