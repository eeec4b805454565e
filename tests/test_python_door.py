"""From Python: the block of docs/python.md runs, vectors are the library's, alignment is A."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import aya_probes
from aya_probes import errors, project
from aya_probes.alignment import by_layer
from aya_probes.extraction import poolings
from aya_probes.models import loading
from aya_probes.planted import vectors as planted
from aya_probes.planted.tiny import TINY, byte_tokenizer, save_tiny, tiny_model
from tests import loopback_hub

PAGE = project.ROOT / "docs" / "python.md"
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}
TEXTS = ["The eye was seen again.", "वह आँख फिर दिखा।"]


def run(code: str, folder: Path, environment: dict[str, str] = ENVIRONMENT) -> str:
    """Run code in a new process outside of the checkout; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_documented_block_runs_as_it_stands(tmp_path: Path) -> None:
    [block] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    assert block.count("path-or-repo") == 1
    assert block in (project.ROOT / "README.md").read_text("utf-8")
    save_tiny(tmp_path / "model")
    arrays = np.random.default_rng(0).normal(size=(2, 5, 2, 4, 8))
    np.save(tmp_path / "english.npy", arrays[0])
    np.save(tmp_path / "french.npy", arrays[1])
    printed = run(block.replace("path-or-repo", str(tmp_path / "model")), tmp_path)
    assert printed.startswith("(2, 5, 32)\n")
    assert len(re.findall(r"\[[^\]]+\]", printed)) == 4


def test_importing_costs_nothing_and_alignment_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, json, aya_probes\n"
        "plain = sorted({'numpy', 'torch', 'pandas'} & set(sys.modules))\n"
        "from aya_probes import alignment_by_layer\n"
        "print(json.dumps([plain, 'torch' in sys.modules]))"
    )
    assert json.loads(run(code, tmp_path)) == [[], False]


def test_every_public_name_is_there_and_no_other() -> None:
    assert all(getattr(aya_probes, name).__name__ == name for name in aya_probes.__all__)
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        _ = aya_probes.load_modle  # type: ignore[attr-defined]


def load(kind: str) -> aya_probes.LoadedModel:
    return loading.wrap(
        tiny_model(kind, seed=1), byte_tokenizer(), torch.device("cpu"), torch.float32
    )


@pytest.mark.parametrize("kind", sorted(TINY))
def test_vectors_are_the_librarys_hidden_states(kind: str) -> None:
    model = load(kind)
    # One byte a token, BOS first: the word "eye" and the three characters of आँख.
    spans = [(4, 7), (3, 6)]
    hindi = TEXTS[1].encode()
    start, end = len(TEXTS[1][:3].encode()), len(TEXTS[1][:6].encode())
    tokens: dict[str, list[Sequence[int]]] = {
        "content_mean": [range(1, 23), range(1, len(hindi) - 2)],  # no full stop, no danda
        "span_mean": [range(5, 8), range(1 + start, 1 + end)],
        "last_content": [[22], [len(hindi) - 3]],
        "last": [[23], [len(hindi)]],
    }
    assert set(tokens) == set(poolings.POOLINGS)
    for pooling, positions in tokens.items():
        found = aya_probes.residual_vectors(model, TEXTS, pooling=pooling, spans=spans)
        assert found.shape == (2, 5, 32)
        assert found.dtype == np.float32
        for text, chosen, vectors in zip(TEXTS, positions, found, strict=True):
            ids = torch.tensor([model.tokenizer(text)["input_ids"]])
            with torch.inference_mode():
                states = model.causal_lm(
                    ids, output_hidden_states=True, use_cache=False
                ).hidden_states
            for layer in range(4):  # the library norms the last
                want = states[layer][0, list(chosen)].mean(0)
                np.testing.assert_allclose(vectors[layer], want, rtol=1e-4, atol=1e-6)
            normed = model.final_norm(torch.tensor(vectors[4]))
            if len(chosen) == 1:  # the norm of a mean is not the mean of norms
                np.testing.assert_allclose(normed, states[4][0, chosen[0]], rtol=1e-4, atol=1e-5)


def test_a_call_that_makes_no_sense_says_why() -> None:
    model = load("llama")
    with pytest.raises(ValueError, match=r"unknown pooling 'mean'; valid: span_mean, content_mean"):
        aya_probes.residual_vectors(model, TEXTS, pooling="mean")
    with pytest.raises(ValueError, match="span_mean needs spans"):
        aya_probes.residual_vectors(model, TEXTS, pooling="span_mean")
    with pytest.raises(ValueError, match="want a list of at least one text"):
        aya_probes.residual_vectors(model, "The eye.")
    with pytest.raises(errors.StudyError, match="text 1: no token covers its span"):
        aya_probes.residual_vectors(model, TEXTS, pooling="span_mean", spans=[(4, 7), (90, 95)])
    with pytest.raises(errors.StudyError, match="text 1: the tokenizer leaves no content token"):
        aya_probes.residual_vectors(model, ["The eye.", ""])


def test_a_model_comes_from_a_folder_or_is_missed_by_name(tmp_path: Path) -> None:
    model = aya_probes.load_model(save_tiny(tmp_path / "model"), device="cpu", dtype="bf16")
    assert model.dtype is torch.bfloat16
    for missing in ("./nothing", str(tmp_path / "nothing"), tmp_path / "nothing"):
        with pytest.raises(errors.StudyError, match="no such folder; give a model's folder"):
            aya_probes.load_model(missing)
    with pytest.raises(ValueError, match="unknown device 'tpu'; valid: auto, cuda, mps, cpu"):
        aya_probes.load_model(tmp_path / "model", device="tpu")
    with pytest.raises(ValueError, match="unknown dtype 'float16'; valid: auto, float32, bf16"):
        aya_probes.load_model(tmp_path / "model", dtype="float16")


def test_a_model_comes_from_the_hub_by_its_name(tmp_path: Path) -> None:
    code = (
        "from aya_probes import errors, load_model, residual_vectors\n"
        "model = load_model('o/tiny', device='cpu')\n"
        "print(residual_vectors(model, ['The eye.']).shape)\n"
        "try: load_model('o/absent')\n"
        "except errors.StudyError as error: print(error)"
    )
    with loopback_hub.serve() as hub:
        hub.repos["o/tiny"] = loopback_hub.Repo(save_tiny(tmp_path / "model"))
        environment = loopback_hub.client_environment(hub.url, tmp_path / "hf")
        shape, message = run(code, tmp_path, environment).splitlines()
    assert shape == "(1, 5, 32)"
    assert message.startswith("load_model: o/absent does not exist")
    assert message.endswith("or give the folder of a model on this machine")


# --- alignment of two arrays ------------------------------------------------------------------


def signal(seed: int, *, wordings: int = 2, shared: tuple[int, ...] = (2, 3)) -> np.ndarray:
    """Return two languages ``[2, 12 concepts, wording, 5 layers, 16]`` alike at some layers."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(2, 12, wordings, 5, 16)) + 5 * rng.normal(size=(2, 1, 1, 5, 16))
    for layer in shared:
        vectors[..., layer, :] += rng.normal(size=(12, 1, 16))
    return vectors


def by_hand(left: np.ndarray, right: np.ndarray, layer: int, *, raw: bool) -> float:
    """Return mean A at one layer by the definition, one cosine at a time."""
    n, wordings = left.shape[:2]
    centred = [v[:, :, layer] - v[:, :, layer].mean((0, 1)) for v in (left, right)]
    if not raw:
        centred = [v / v.std((0, 1)) for v in centred]
    matrix = np.zeros((n, n))
    pairs = [(k, m) for k in range(wordings) for m in range(wordings) if k != m or wordings == 1]
    for i in range(n):
        for j in range(n):
            for k, m in pairs:
                a, b = centred[0][i, k], centred[1][j, m]
                matrix[i, j] += a @ b / np.linalg.norm(a) / np.linalg.norm(b) / len(pairs)
    values = []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        control = (matrix[i, others].mean() + matrix[others, i].mean()) / 2
        values.append((matrix[i, i] - control) * (n - 1) / n)
    return float(np.mean(values))


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("wordings", [1, 2, 3])
def test_alignment_is_a_by_its_definition(wordings: int, raw: bool) -> None:
    left, right = signal(1, wordings=wordings)
    found = aya_probes.alignment_by_layer(left, right, raw=raw)
    want = [by_hand(left, right, layer, raw=raw) for layer in range(5)]
    np.testing.assert_allclose(found.mean, want, atol=1e-5)
    assert (found.lower < found.mean).all()
    assert (found.mean < found.upper).all()


def test_alignment_is_found_where_it_is_and_nowhere_else() -> None:
    found = aya_probes.alignment_by_layer(*signal(2))
    assert (found.p[2:4] < 0.001).all()
    assert (found.lower[2:4] > 0.1).all()
    assert (found.p[[0, 1, 4]] > 0.05).all()
    again = aya_probes.alignment_by_layer(*signal(2))
    np.testing.assert_array_equal(again.p, found.p)  # one seed, one answer
    left, right = signal(2)
    scaled = aya_probes.alignment_by_layer(3 * left, right + 7)
    np.testing.assert_allclose(scaled.mean, found.mean, atol=1e-5)


def test_one_rogue_dimension_hides_alignment_only_from_the_raw_measure() -> None:
    left, right = signal(2)
    rng = np.random.default_rng(5)
    left[..., 3] += 500 * rng.normal(size=left.shape[:-1])
    right[..., 3] += 500 * rng.normal(size=right.shape[:-1])
    assert (aya_probes.alignment_by_layer(left, right).p[2:4] < 0.001).all()
    assert (aya_probes.alignment_by_layer(left, right, raw=True).p[1:] > 0.05).all()


def test_p_values_are_corrected_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 pairs of noise, about 5 reach 0.05 at some layer, not 5 at each."""
    monkeypatch.setattr(by_layer, "DRAWS", 499)
    smallest = [
        aya_probes.alignment_by_layer(*signal(seed, shared=())).p[1:].min() for seed in range(100)
    ]
    assert sum(p <= 0.05 for p in smallest) <= 12  # binomial: 99.8%; uncorrected gives about 18


def test_the_studys_own_vectors_give_the_studys_answer() -> None:
    plant = planted.Plant(
        concept=np.where(np.arange(planted.LAYERS) >= 9, planted.strength(0.4), 0)
    )
    english, hindi = planted.draw(plant, seed=3)[0]
    found = aya_probes.alignment_by_layer(english, hindi)
    assert np.abs(found.mean[12:].mean() - 0.4) < 0.1
    assert (found.p[12:] <= 0.05).all()
    assert np.abs(found.mean[1:7]).max() < 0.2


@pytest.mark.parametrize("shape", [(3, 2, 4, 8), (5, 4, 8), (5, 2, 4, 9)])
def test_arrays_of_another_form_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"two \[concept, wording, layer, hidden\] arrays"):
        aya_probes.alignment_by_layer(np.zeros(shape), np.zeros((5, 2, 4, 8)))


def test_constant_vectors_are_not_a_number() -> None:
    left, right = signal(4)
    left[..., 1, :] = 1.0
    found = aya_probes.alignment_by_layer(left, right)
    assert np.isnan([found.mean[1], found.p[1]]).all()
    assert np.isfinite(found.mean[[0, 2, 3, 4]]).all()
