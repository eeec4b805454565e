"""Blocks, hooks and packing on four architectures, against the library's own hidden states."""

from __future__ import annotations

import contextlib
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from aya_probes import errors, project, suites
from aya_probes.extraction import encoding, packed_attention, packs, poolings
from aya_probes.models import describe, fingerprints, loading, residuals
from aya_probes.planted.tiny import TINY, byte_tokenizer, save_tiny, tiny_model, write_study
from aya_probes.stimuli import Stimulus

TEXTS = [
    "The eye.",
    "A much longer sentence about the bone, in English.",
    "वह आँख फिर दिखा।",
    "moyo",
]


def load(kind: str) -> residuals.LoadedModel:
    return loading.wrap(
        tiny_model(kind, seed=1), byte_tokenizer(), torch.device("cpu"), torch.float32
    )


def encode(loaded: residuals.LoadedModel, text: str) -> encoding.Encoded:
    return encoding.encode(loaded.tokenizer, Stimulus(text, "probe", "C01", 1, "en", text, None))


@pytest.mark.parametrize("kind", sorted(TINY))
def test_rows_are_the_residual_stream_before_the_final_norm(kind: str) -> None:
    loaded = load(kind)
    ids = torch.tensor([encode(loaded, TEXTS[1]).token_ids])
    with residuals.capture(loaded, lambda hidden: hidden.clone()) as rows:
        residuals.forward(loaded, ids)
    with torch.inference_mode():
        reference = loaded.causal_lm(ids, output_hidden_states=True, use_cache=False).hidden_states
    assert sorted(rows) == list(range(loaded.n_blocks + 2))
    for row in range(loaded.n_blocks):
        torch.testing.assert_close(rows[row], reference[row])
    # The library's last entry is after the norm; ours keeps both sides of it.
    torch.testing.assert_close(rows[loaded.n_blocks + 1], reference[-1])
    assert not torch.allclose(rows[loaded.n_blocks], reference[-1])
    torch.testing.assert_close(loaded.final_norm(rows[loaded.n_blocks]), reference[-1])


def deviation(loaded: Any, encoded: list[encoding.Encoded], *, packed: bool) -> float:
    alone = packs.one_by_one(loaded, encoded, "base")
    return packs.self_check(loaded, encoded, alone, "base", packed=packed)


@pytest.mark.parametrize("kind", sorted(TINY))
def test_packed_vectors_equal_one_by_one_with_a_window_shorter_than_the_text(
    kind: str, monkeypatch: Any
) -> None:
    loaded = load(kind)
    encoded = [encode(loaded, text) for text in TEXTS]
    window = getattr(loaded.decoder.config, "sliding_window", None)
    assert window is None or max(len(item.token_ids) for item in encoded) > window
    assert deviation(loaded, encoded, packed=True) < 1e-5
    assert deviation(loaded, encoded, packed=False) < 1e-5
    assert packs.choose_batching(loaded, encoded, "base") == "packed"
    # The check must see a window that is lost or off by one.
    for shift in (-1, 1, 1000):
        band = packed_attention._band
        with monkeypatch.context() as patch:
            patch.setattr(
                packed_attention, "_band", lambda n, w, d, s=shift, b=band: b(n, w + s, d)
            )
            found = deviation(loaded, encoded, packed=True)
            assert found > 1e-3 if window else found < 1e-5


@contextlib.contextmanager
def one_long_text(decoder: Any, lengths: list[int]) -> Any:
    """Stand in for an attention that does not keep packed texts apart."""
    with plain_packed(decoder, [sum(lengths)]):
        yield


plain_packed = packed_attention.packed


def test_self_check_notices_a_model_that_joins_packed_texts(monkeypatch: Any) -> None:
    loaded = load("llama")
    encoded = [encode(loaded, text) for text in TEXTS]
    monkeypatch.setattr(packed_attention, "packed", one_long_text)
    assert deviation(loaded, encoded, packed=True) > 1e-2
    assert packs.choose_batching(loaded, encoded, "base") == "padded"


@pytest.mark.parametrize("kind", ["bloom", "mamba", "mpt"])
def test_models_that_cannot_be_packed_are_padded(kind: str) -> None:
    sizes = {
        "bloom": {"hidden_size": 32, "n_layer": 4, "n_head": 4},
        "mamba": {"hidden_size": 32, "num_hidden_layers": 4, "state_size": 8},
        "mpt": {"d_model": 32, "n_layers": 4, "n_heads": 4},
    }
    config = AutoConfig.for_model(kind, vocab_size=259, pad_token_id=0, **sizes[kind])
    torch.manual_seed(0)
    loaded = loading.wrap(
        AutoModelForCausalLM.from_config(config),
        byte_tokenizer(),
        torch.device("cpu"),
        torch.float32,
    )
    encoded = [encode(loaded, text) for text in TEXTS]
    assert deviation(loaded, encoded, packed=True) > 1e-3
    assert packs.choose_batching(loaded, encoded, "base") == "padded"
    assert deviation(loaded, encoded, packed=False) < 1e-5


def test_a_model_that_cannot_even_be_padded_runs_text_by_text(monkeypatch: Any) -> None:
    loaded = load("llama")
    encoded = [encode(loaded, text) for text in TEXTS]
    plain = residuals.forward

    def first_text_only(loaded: Any, ids: torch.Tensor, **kwargs: Any) -> None:
        plain(loaded, ids[:1].expand_as(ids).contiguous(), **kwargs)

    monkeypatch.setattr(residuals, "forward", first_text_only)
    monkeypatch.setattr(packed_attention, "packed", one_long_text)
    assert packs.choose_batching(loaded, encoded, "base") == "alone"


def test_a_model_whose_vectors_change_from_run_to_run_is_refused(monkeypatch: Any) -> None:
    loaded = load("llama")
    encoded = [encode(loaded, text) for text in TEXTS]
    plain, runs = residuals.forward, itertools.count()

    def unsteady(loaded: Any, ids: torch.Tensor, **kwargs: Any) -> None:
        plain(loaded, (ids + next(runs)) % 256, **kwargs)

    monkeypatch.setattr(residuals, "forward", unsteady)
    with pytest.raises(errors.StudyError, match="variant base: self-check failed"):
        packs.choose_batching(loaded, encoded, "base")


def test_a_trial_that_fails_in_any_way_falls_back(monkeypatch: Any) -> None:
    loaded = load("llama")
    encoded = [encode(loaded, text) for text in TEXTS]

    def broken(*args: Any) -> Any:
        raise AttributeError("'NoneType' object has no attribute 'shape'")

    monkeypatch.setattr(packed_attention, "packed", broken)
    assert packs.choose_batching(loaded, encoded, "base") == "padded"


def test_hooks_are_removed_when_the_forward_fails() -> None:
    loaded = load("llama")
    with pytest.raises(RuntimeError), residuals.capture(loaded, lambda hidden: hidden):
        raise RuntimeError("stop")
    assert not loaded.final_norm._forward_hooks
    assert not any(block._forward_hooks for block in loaded.blocks)


# --- five silent traps: each is shown to change the vectors, and ours to be free of it ---------


def rows_of(loaded: residuals.LoadedModel, **inputs: Any) -> torch.Tensor:
    """Run the decoder as one does by hand; returns ``[row, batch, tokens, hidden]``."""
    with residuals.capture(loaded, lambda h: h.clone()) as rows, torch.inference_mode():
        loaded.decoder(**inputs)
    return torch.stack([rows[row] for row in sorted(rows)])


def alone(loaded: residuals.LoadedModel, item: encoding.Encoded) -> torch.Tensor:
    """Return the rows of one text by itself ``[row, tokens, hidden]``."""
    return rows_of(loaded, input_ids=torch.tensor([item.token_ids]), use_cache=False)[:, 0]


def pack_of_two(loaded: residuals.LoadedModel) -> tuple[list[encoding.Encoded], dict[str, Any]]:
    """Return two texts and the inputs of their pack: one row, position ids that restart."""
    pair = [encode(loaded, TEXTS[0]), encode(loaded, TEXTS[1])]
    ids = torch.tensor([pair[0].token_ids + pair[1].token_ids])
    positions = torch.cat([torch.arange(len(item.token_ids)) for item in pair])[None]
    return pair, {"input_ids": ids, "position_ids": positions}


def assert_ours_is_free(loaded: residuals.LoadedModel, items: list[encoding.Encoded]) -> None:
    for packed in (True, False):
        pooled, _ = packs.pool_pack(loaded, items, packed=packed)
        for text, item in enumerate(items):
            rows = alone(loaded, item).numpy()
            content, last = rows[:, item.content].mean(1), rows[:, item.last]
            np.testing.assert_allclose(pooled[:, text, CONTENT], content, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(pooled[:, text, LAST], last, rtol=1e-4, atol=1e-5)


CONTENT, LAST = poolings.POOLINGS.index("content_mean"), poolings.POOLINGS.index("last")


@pytest.mark.parametrize(
    "trap",
    [{"use_cache": True}, {"use_cache": False, "attention_mask": "ones"}],
    ids=["cache on", "all-ones mask"],
)
def test_trap_packed_texts_are_joined(trap: dict[str, Any]) -> None:
    loaded = load("llama")
    pair, inputs = pack_of_two(loaded)
    if "attention_mask" in trap:
        trap = {**trap, "attention_mask": torch.ones_like(inputs["input_ids"])}
    second = alone(loaded, pair[1])
    start = len(pair[0].token_ids)
    apart = rows_of(loaded, **inputs, use_cache=False)[:, 0, start:]
    torch.testing.assert_close(apart, second, rtol=1e-4, atol=1e-5)
    joined = rows_of(loaded, **inputs, **trap)[:, 0, start:]
    assert (joined - second).norm() / second.norm() > 1e-2
    loaded.decoder.config.use_cache = True  # a model's default must not reach us
    assert_ours_is_free(loaded, pair)


def test_packed_texts_take_no_mask() -> None:
    loaded = load("llama")
    ids = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="no attention mask"):
        residuals.forward(loaded, ids, position_ids=ids, attention_mask=ids)


def padded(loaded: residuals.LoadedModel, side: str) -> tuple[list[encoding.Encoded], Any]:
    """Return a short and a long text and the tokenizer's own padded batch of them."""
    items = [encode(loaded, TEXTS[3]), encode(loaded, TEXTS[1])]
    loaded.tokenizer.padding_side = side
    return items, loaded.tokenizer([TEXTS[3], TEXTS[1]], padding=True, return_tensors="pt")


def test_trap_left_padding_without_a_mask() -> None:
    loaded = load("llama")
    items, batch = padded(loaded, "left")
    short = alone(loaded, items[0])
    rows = rows_of(loaded, input_ids=batch["input_ids"], use_cache=False)
    seen = rows[:, 0, -len(items[0].token_ids) :]
    assert (seen - short).norm() / short.norm() > 1e-2  # it attends to the padding before it
    assert_ours_is_free(loaded, items)


def test_trap_mean_over_padding() -> None:
    loaded = load("llama")
    items, batch = padded(loaded, "right")
    rows = rows_of(loaded, **batch, use_cache=False)
    short = alone(loaded, items[0])[:, items[0].content].mean(1)
    over_all = rows[:, 0, 1:].mean(1)
    assert (over_all - short).norm() / short.norm() > 1e-2
    assert_ours_is_free(loaded, items)


def test_trap_last_index_under_right_padding() -> None:
    loaded = load("llama")
    items, batch = padded(loaded, "right")
    rows = rows_of(loaded, **batch, use_cache=False)
    last = alone(loaded, items[0])[:, -1]
    assert (rows[:, 0, -1] - last).norm() / last.norm() > 1e-2  # a pad's vector
    assert_ours_is_free(loaded, items)


def test_pooling_equals_means_over_the_named_tokens() -> None:
    loaded = load("cohere2")
    text = "Close one eye now."
    stimulus = Stimulus("s", "probe", "C01", 1, "en", text, (10, 13))
    item = encoding.encode(loaded.tokenizer, stimulus)
    pooled, absmax = packs.pool_pack(loaded, [item])
    with torch.inference_mode():
        states = loaded.causal_lm(
            torch.tensor([item.token_ids]), output_hidden_states=True, use_cache=False
        ).hidden_states
    row2 = states[2][0].numpy()  # one byte per token, BOS first
    expected = {
        "span_mean": row2[11:14].mean(0),
        "content_mean": row2[1:18].mean(0),
        "last_content": row2[17],
        "last": row2[18],
    }
    for kind, pooling in enumerate(poolings.POOLINGS):
        np.testing.assert_allclose(pooled[2, 0, kind], expected[pooling], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(absmax[2, 0], np.abs(row2).max(), rtol=1e-6)


def test_untrained_weights_follow_the_seed(tiny_suite: Any) -> None:
    suite = suites.load_suite(str(tiny_suite))
    variant = suite.variant("untrained")
    source = loading.resolve_source(variant)

    def weights() -> torch.Tensor:
        loaded = loading.load_variant(
            variant, source, device=torch.device("cpu"), dtype=torch.float32
        )
        return loaded.decoder.embed_tokens.weight

    trained = loading.load_variant(
        suite.variant("base"), source, device=torch.device("cpu"), dtype=torch.float32
    )
    assert torch.equal(weights(), weights())
    assert not torch.equal(weights(), trained.decoder.embed_tokens.weight)


def test_a_folder_without_a_model_is_named(tmp_path: Any) -> None:
    variant = suites.Variant("base", "base", path=str(tmp_path / "nothing"))
    with pytest.raises(errors.StudyError, match=r"nothing.*config\.json"):
        loading.resolve_source(variant)


# --- what model_loader.py prints --------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(TINY))
def test_a_description_names_the_modules_that_are_read(kind: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, kind, seed=1)
    variant = suites.Variant("mine", "base", path=str(folder))
    source = loading.resolve_source(variant)
    loaded = loading.load_variant(variant, source, device=torch.device("cpu"), dtype=torch.float32)
    found = describe.describe_model(variant, source, loaded)
    assert (found.layers, found.hidden_size, found.dtype) == (4, 32, "float32")
    assert found.identity["sha256"] == fingerprints.model_sha256(folder, variant)
    stored = load_file(folder / "model.safetensors").values()
    assert found.weight_bytes == sum(array.nbytes for array in stored)
    assert [hook.layer for hook in found.hooks] == ["0", "1", "2", "3", "4", "final_norm"]
    # What passes through the named modules is what the vectors are made of.
    seen: dict[str, torch.Tensor] = {}
    modules = dict(loaded.causal_lm.named_modules())
    for hook in found.hooks:

        def keep(module: Any, inputs: Any, output: Any, hook: describe.Hook = hook) -> None:
            value = inputs[0] if hook.side == "input" else output
            seen[hook.layer] = value if isinstance(value, torch.Tensor) else value[0]

        modules[hook.module].register_forward_hook(keep)
    item = encode(loaded, TEXTS[2])
    text = describe.describe_text(loaded, TEXTS[2])
    assert [piece.token_id for piece in text.pieces] == item.token_ids
    for hook in found.hooks:
        norms = seen[hook.layer][0, 1:].norm(dim=-1)  # BOS is special, everything else is not
        assert text.norms[hook.layer] == pytest.approx(float(norms.mean()), rel=1e-5)


def test_tokenizer_facts_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    from tokenizers import normalizers

    plain = byte_tokenizer()
    facts = describe._tokenizer_facts(plain)
    assert (facts.size, facts.bos, facts.adds_bos) == (259, "<bos>", True)
    assert (facts.eos, facts.adds_eos) == ("<eos>", False)
    assert (facts.normaliser, facts.padding_side, facts.offsets) == (None, "left", True)
    plain.backend_tokenizer.normalizer = normalizers.NFKC()
    plain.backend_tokenizer.post_processor = None
    facts = describe._tokenizer_facts(plain)
    assert "NFKC" in str(facts.normaliser)
    assert not facts.adds_bos


def loader(*flags: str) -> subprocess.CompletedProcess[str]:
    """Run model_loader.py as a user does."""
    return subprocess.run(
        [sys.executable, "model_loader.py", *flags],
        cwd=project.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_door_prints_a_variant_and_a_text(tiny_suite: Path) -> None:
    text = "a\u200b आँ."
    line = ["--suite", str(tiny_suite), "--variant", "fire", "--device", "cpu", "--text", text]
    done = loader(*line, "--dtype", "bf16")
    assert done.returncode == 0, done.stderr
    shown = {line[:15].strip(): line[15:] for line in done.stdout.split("\n\n")[0].splitlines()}
    assert shown["variant"] == "fire"
    assert f"path {tiny_suite.parent / 'fire'}, sha256 " in shown["source"]
    assert shown["class"] == "Cohere2ForCausalLM"
    assert shown["precision"] == "bfloat16"
    assert shown["device"] == "cpu (asked for)"
    assert shown["layer 0"] == "input of model.layers.0"
    assert shown["layers 1..4"] == "outputs of model.layers.0 .. model.layers.3"
    assert shown["final_norm"] == "output of model.norm"
    assert shown["packs"].startswith("yes")
    assert shown["BOS"] == "<bos>, added"
    assert "'\\u200b'" in done.stdout
    assert "\u200b" not in done.stdout
    assert len(re.findall(r"^ +\d+  \S+ +'", done.stdout, re.MULTILINE)) == 1 + len(text.encode())
    norms = done.stdout.rpartition("not special\n")[2].split()
    assert norms[::2] == ["0", "1", "2", "3", "4", "final_norm"]


def test_the_door_says_that_a_model_cannot_be_packed(tmp_path: Path) -> None:
    config = AutoConfig.for_model("bloom", vocab_size=259, hidden_size=32, n_layer=4, n_head=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "bloom")
    byte_tokenizer().save_pretrained(tmp_path / "bloom")
    suite = write_study(tmp_path, {"bloom": {"path": "bloom", "role": "base"}})
    done = loader("--suite", str(suite), "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "packs          no: its attention cannot be limited" in done.stdout


def test_the_door_explains_what_is_wrong(tmp_path: Path, tiny_suite: Path) -> None:
    done = loader("--suite", str(tiny_suite), "--variant", "water")
    assert done.returncode == errors.EXIT_USAGE
    assert "unknown variant 'water'; valid: base, global, fire, untrained" in done.stderr
    assert loader("--suite", str(tiny_suite), "--text", " ").returncode == errors.EXIT_USAGE
    weights = save_tiny(tmp_path / "broken") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    suite = write_study(tmp_path, {"broken": {"path": "broken", "role": "base"}})
    done = loader("--suite", str(suite), "--variant", "broken")
    assert done.returncode == errors.EXIT_DATA
    assert f"variant broken: the model in {tmp_path / 'broken'} cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_answers_without_loading_torch() -> None:
    code = (
        "import sys, model_loader\n"
        "try: model_loader.main(['--help'])\n"
        "except SystemExit: print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False False"
