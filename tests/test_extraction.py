"""Token positions, packs and shards: what is pooled, and that a rerun gives the same bytes."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays

import batch_runner
import build_stimuli
from aya_probes import errors, run_folder, stimuli
from aya_probes.extraction import encoding, packs, poolings, runner, shard_writer, store
from aya_probes.planted.tiny import byte_tokenizer, save_tiny, write_study
from aya_probes.stimuli import Stimulus


@given(arrays.arrays(np.float32, (3, 8), elements=some.floats(-(2**100), 2**100, width=32)))
def test_float16_storage_keeps_every_vector(vectors: np.ndarray) -> None:
    stored, exponents = store.to_float16(vectors)
    back = store.from_float16(stored, exponents)
    largest = np.abs(vectors).max(-1, keepdims=True)
    assert np.isfinite(stored).all()
    assert (np.abs(back - vectors) <= largest * 2.0**-11 + 1e-38).all()


def test_float16_storage_refuses_nan() -> None:
    with pytest.raises(ValueError, match="NaN"):
        store.to_float16(np.array([[1.0, np.nan]], dtype=np.float32))


@given(some.lists(some.integers(1, 40), min_size=1, max_size=80), some.booleans())
def test_packs_hold_every_text_once_and_fit_the_budget(lengths: list[int], packable: bool) -> None:
    made = packs.make_packs(lengths, 64, packable=packable)
    assert sorted(p for pack in made for p in pack) == list(range(len(lengths)))
    for pack in made:
        width = sum if packable else (lambda sizes: max(sizes) * len(sizes))
        assert width([lengths[p] for p in pack]) <= 64
    in_order = [lengths[p] for pack in made for p in pack]
    assert in_order == sorted(lengths)  # padding stays small and equal lengths share a call
    if packable:  # no pack could have taken the next one's first text
        for pack, after in itertools.pairwise(made):
            assert sum(lengths[p] for p in pack) + lengths[after[0]] > 64


def test_span_tokens_cover_every_byte_of_the_surface_form() -> None:
    text = "उसकी आँख लाल है।"
    span = (5, 8)
    item = encoding.encode(byte_tokenizer(), Stimulus("s", "probe", "C", 1, "hi", text, span))
    first = 1 + len(text[:5].encode())  # BOS, then one byte a token
    inside = set(range(first, first + len(text[5:8].encode())))
    assert set(item.span) == inside
    assert 0 not in item.content  # BOS
    danda = range(len(item.token_ids) - 3, len(item.token_ids))
    assert not set(danda) & set(item.content)
    assert item.last == len(item.token_ids) - 1


@pytest.mark.parametrize(
    ("text", "end"), [("Stop.", 4), ("रुको।", 4), ("ጤና ነው።", 5), ("What?! ", 4), ("...", 3)]
)
def test_sentence_end(text: str, end: int) -> None:
    assert encoding.sentence_end(text) == end


def build(folder: Path, suite: Path) -> Path:
    run = folder / "run"
    assert build_stimuli.main(["--suite", str(suite), "--run-dir", str(run), "--limit", "20"]) == 0
    return run


def extract(run: Path, *flags: str) -> int:
    return batch_runner.main(["--local", "--run-dir", str(run), "--device", "cpu", *flags])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_rerun_skips_and_repairs_to_the_same_bytes(
    tmp_path: Path, tiny_suite: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(runner, "SHARD_STIMULI", 16)
    run = build(tmp_path, tiny_suite)
    assert extract(run, "--variants", "base") == 0
    folder = run / "activations" / "base"
    before = files(folder)
    assert len(before) > 4
    assert extract(run, "--variants", "base") == 0
    assert "complete, skipped" in capsys.readouterr().out
    store.shard_path(folder, 1).unlink()
    truncated = store.shard_path(folder, 2)
    truncated.write_bytes(before[truncated.name][:-7])
    flipped = store.shard_path(folder, 0)
    flipped.write_bytes(before[flipped.name][:-3] + b"\x01\x02\x03")
    assert extract(run, "--variants", "base") == 0
    assert files(folder) == before


def test_a_changed_plan_is_refused_until_overwrite(
    tmp_path: Path, tiny_suite: Path, capsys: Any
) -> None:
    run = build(tmp_path, tiny_suite)
    assert extract(run, "--variants", "base") == 0
    suite = ["--suite", str(tiny_suite), "--run-dir", str(run), "--limit", "10"]
    assert build_stimuli.main(suite) == 0
    assert extract(run, "--variants", "base") == 1
    message = capsys.readouterr().err
    assert "plan.json" in message
    assert "--overwrite" in message
    assert extract(run, "--variants", "base", "--overwrite") == 0


def test_loading_checks_plan_manifest_and_content(tmp_path: Path, tiny_suite: Path) -> None:
    run = build(tmp_path, tiny_suite)
    assert extract(run, "--variants", "base") == 0
    manifest = stimuli.load_manifest(run_folder.RunPaths(run).manifest)
    folder = run / "activations" / "base"
    loaded = store.open_activations(folder, manifest.sha256)
    names = [s.stimulus_id for s in manifest.stimuli]
    taken = loaded.take("content_mean", names)
    assert taken.shape == (len(names), 6, 32)
    np.testing.assert_array_equal(loaded.take("content_mean", names[::-1]), taken[::-1])
    without = next(s.stimulus_id for s in manifest.stimuli if s.span is None)
    with pytest.raises(errors.StudyError, match=f"{without} has no span_mean vector"):
        loaded.take("span_mean", [without])
    with pytest.raises(errors.StudyError, match="another data/stimulus_manifest"):
        store.open_activations(folder, "0" * 64)
    shard = store.shard_path(folder, 0)
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(errors.StudyError, match="altered on disk"):
        store.open_activations(folder, manifest.sha256)


def spoil(folder: Path, tensor: str, index: int, value: float) -> None:
    """Put a bad value into a saved model's weights."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights[tensor][index] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_weights_stop_the_self_check_and_name_the_place(
    tmp_path: Path, capsys: Any, value: float
) -> None:
    spoil(save_tiny(tmp_path / "model"), "model.layers.2.mlp.down_proj.weight", 0, value)
    run = build(tmp_path, write_study(tmp_path, {"base": {"path": "model", "role": "base"}}))
    assert extract(run) == 1
    message = capsys.readouterr().err
    texts = stimuli.load_manifest(run_folder.RunPaths(run).manifest).stimuli
    shortest = min(texts, key=lambda s: (len(s.text.encode()), s.stimulus_id))
    place = f"variant base: stimulus {shortest.stimulus_id}: layer 3 holds NaN or infinity"
    assert place in message
    assert "--device" not in message
    assert not (run / "activations" / "base").exists()


def test_one_bad_text_is_named_and_not_its_neighbours_in_the_pack(
    tmp_path: Path, capsys: Any
) -> None:
    folder = save_tiny(tmp_path / "model")
    run = build(tmp_path, write_study(tmp_path, {"base": {"path": "model", "role": "base"}}))
    texts = stimuli.load_manifest(run_folder.RunPaths(run).manifest).stimuli
    encoded = [encoding.encode(byte_tokenizer(), stimulus) for stimulus in texts]
    checked = {token for item in packs._mixed_lengths(encoded) for token in item.token_ids}
    users: dict[int, list[str]] = {}  # texts by token, of the tokens that the self-check misses
    for item in encoded:
        for token in sorted(set(item.token_ids) - checked):
            users.setdefault(token, []).append(item.stimulus_id)
    token, names = min(users.items(), key=lambda pair: (len(pair[1]), pair[0]))
    spoil(folder, "model.embed_tokens.weight", token, np.nan)
    assert extract(run) == 1
    message = capsys.readouterr().err
    assert any(f"stimulus {name}: layer 0 holds NaN" in message for name in names), message


def test_a_failed_write_stops_the_run_and_the_rerun_completes_it(
    tmp_path: Path, tiny_suite: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(runner, "SHARD_STIMULI", 16)
    run = build(tmp_path, tiny_suite)
    plain = store.save_shard
    failed: list[Path] = []

    def full_disk(path: Path, *rest: Any) -> None:
        if path.name == "shard-00001.safetensors" and not failed:
            failed.append(path)
            raise ValueError("no room")
        plain(path, *rest)

    monkeypatch.setattr(store, "save_shard", full_disk)
    with pytest.raises(ValueError, match="no room"):
        extract(run, "--variants", "base")
    folder = run / "activations" / "base"
    # Written in order, and nothing after the one that failed.
    assert sorted(folder.glob("shard-*")) == [store.shard_path(folder, 0)]
    assert extract(run, "--variants", "base") == 0
    completed = files(folder)
    assert extract(run, "--variants", "base", "--overwrite") == 0
    assert files(folder) == completed


def test_a_shard_is_written_while_the_next_is_computed(tmp_path: Path, monkeypatch: Any) -> None:
    begun, release = threading.Event(), threading.Event()

    def slow_write(*_: Any) -> None:
        begun.set()
        assert release.wait(10)

    monkeypatch.setattr(store, "save_shard", slow_write)
    pack = [encoding.encode(byte_tokenizer(), Stimulus("s", "probe", "C", 1, "en", "eye", (0, 3)))]
    vectors = (np.ones((3, 1, len(poolings.POOLINGS), 8)), np.ones((3, 1)))
    with shard_writer.ShardWriter(tmp_path, "sha") as writer:
        writer.add(pack, *vectors)
        writer.save(0)  # returns although the write has not ended
        assert begun.wait(10)
        release.set()
        writer.add(pack, *vectors)


def test_unknown_names_exit_2_and_list_the_valid_ones(
    tmp_path: Path, tiny_suite: Path, capsys: Any
) -> None:
    run = build(tmp_path, tiny_suite)
    assert extract(run, "--variants", "water") == 2
    assert "base, global, fire, untrained" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        extract(run, "--device", "tpu")
    assert stop.value.code == 2


def test_dry_run_loads_nothing(tmp_path: Path, tiny_suite: Path, capsys: Any) -> None:
    run = build(tmp_path, tiny_suite)
    assert batch_runner.main(["--run-dir", str(run), "--dry-run"]) == 0
    assert "tokens" in capsys.readouterr().out
    assert not (run / "activations").exists()


def test_manifest_missing_names_the_command(tmp_path: Path, capsys: Any) -> None:
    assert extract(tmp_path) == 1
    assert "uv run build_stimuli.py" in capsys.readouterr().err


def test_local_weights_are_not_sent_to_modal(tmp_path: Path, tiny_suite: Path, capsys: Any) -> None:
    run = build(tmp_path, tiny_suite)
    assert batch_runner.main(["--run-dir", str(run)]) == 1
    assert "--local" in capsys.readouterr().err


def test_tokens_file_is_json_by_stimulus(tmp_path: Path, tiny_suite: Path) -> None:
    run = build(tmp_path, tiny_suite)
    assert extract(run, "--variants", "base") == 0
    tokens = json.loads((run / "activations" / "base" / "tokens.json").read_text("utf-8"))
    record = tokens["C01-en-1"]
    assert record["bos"] is True
    assert record["final_token"] == record["token_ids"][-1]


@pytest.mark.gpu
def test_cuda_gives_the_vectors_of_the_cpu(tmp_path: Path, tiny_suite: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device is here")
    vectors = {}
    for device in ("cpu", "cuda"):
        run = build(tmp_path / device, tiny_suite)
        line = ["--local", "--run-dir", str(run), "--variants", "base", "--dtype", "float32"]
        assert batch_runner.main([*line, "--device", device]) == 0
        manifest = stimuli.load_manifest(run_folder.RunPaths(run).manifest)
        folder = store.variant_dir(run_folder.RunPaths(run), "base")
        names = [stimulus.stimulus_id for stimulus in manifest.stimuli]
        loaded = store.open_activations(folder, manifest.sha256)
        vectors[device] = loaded.take("content_mean", names).astype(np.float64)
    here, there = vectors["cpu"], vectors["cuda"]
    norms = np.linalg.norm(here, axis=-1) * np.linalg.norm(there, axis=-1)
    assert ((here * there).sum(-1) / norms).min() > 0.9999
