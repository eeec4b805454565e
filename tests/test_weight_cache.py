"""The cache of converted weights: altered files and missing packages are named, with the fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aya_probes import errors
from aya_probes.models import embedded, fingerprints

PACKAGE, SHA = "some-model-gguf", "ab" * 32


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.setenv("AYA_PROBES_CACHE", str(tmp_path))
    embedded.converted_weights.cache_clear()
    folder = tmp_path / f"{PACKAGE}-{SHA[:12]}-float32"
    folder.mkdir()
    names = ("model.safetensors", "config.json", "tokenizer.json")
    for name in names:
        (folder / name).write_bytes(name.encode())
    hashes = {name: fingerprints.file_sha256(folder / name) for name in names}
    (folder / "CACHE.json").write_text(json.dumps({"files": hashes}))
    return folder


def test_a_good_cache_is_used_without_the_package(cached: Path) -> None:
    assert embedded.converted_weights(PACKAGE, SHA, None) == cached


@pytest.mark.parametrize(
    "damage", ["alter", "remove", "{}", "[]", '{"files": []}', '{"files": {}}', '{"files": 3}', "x"]
)
def test_a_damaged_cache_is_refused(cached: Path, damage: str) -> None:
    if damage == "alter":
        (cached / "model.safetensors").write_bytes(b"weighty")
    elif damage == "remove":
        (cached / "model.safetensors").unlink()
    else:
        (cached / "CACHE.json").write_text(damage)
    with pytest.raises(errors.StudyError, match=f"delete the folder {cached}"):
        embedded.converted_weights(PACKAGE, SHA, None)


def test_missing_wheels_say_how_to_use_the_hub(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("AYA_PROBES_CACHE", str(tmp_path / "empty"))
    with pytest.raises(errors.StudyError, match=r"uv sync.*repo = 'owner/model'"):
        embedded.converted_weights("no-such-package-gguf", SHA, "owner/model")
    assert not (tmp_path / "empty").exists()


def test_what_a_killed_conversion_left_is_removed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("AYA_PROBES_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "package_parts", lambda package: [])
    left = tmp_path / f".{PACKAGE}-{SHA[:12]}-float32-abcd"
    left.mkdir()
    made: list[Path] = []
    monkeypatch.setattr(embedded, "_make", lambda folder, *rest: made.append(folder))
    folder = embedded.converted_weights(PACKAGE, SHA, None)
    assert made == [folder]
    assert not left.exists()
    assert list(tmp_path.iterdir()) == []  # the lock is gone too
