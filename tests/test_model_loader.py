"""Blocks, hooks and packing on four architectures, against the library's own hidden states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import extraction
import model_loader
import study
from artifacts import Stimulus
from tests.conftest import TINY, byte_tokenizer, tiny_model

TEXTS = [
    "The eye.",
    "A much longer sentence about the bone, in English.",
    "वह आँख फिर दिखा।",
    "moyo",
]


def load(kind: str) -> model_loader.LoadedModel:
    return model_loader.wrap(
        tiny_model(kind, seed=1), byte_tokenizer(), torch.device("cpu"), torch.float32
    )


def encode(loaded: model_loader.LoadedModel, text: str) -> extraction.Encoded:
    return extraction.encode(loaded.tokenizer, Stimulus(text, "probe", "C01", 1, "en", text, None))


@pytest.mark.parametrize("kind", sorted(TINY))
def test_rows_are_the_residual_stream_before_the_final_norm(kind: str) -> None:
    loaded = load(kind)
    ids = torch.tensor([encode(loaded, TEXTS[1]).token_ids])
    with model_loader.capture(loaded, lambda hidden: hidden.clone()) as rows:
        model_loader.forward(loaded, ids)
    with torch.inference_mode():
        reference = loaded.causal_lm(ids, output_hidden_states=True, use_cache=False).hidden_states
    assert sorted(rows) == list(range(loaded.n_blocks + 2))
    for row in range(loaded.n_blocks):
        torch.testing.assert_close(rows[row], reference[row])
    # The library's last entry is after the norm; ours keeps both sides of it.
    torch.testing.assert_close(rows[loaded.n_blocks + 1], reference[-1])
    assert not torch.allclose(rows[loaded.n_blocks], reference[-1])
    torch.testing.assert_close(loaded.final_norm(rows[loaded.n_blocks]), reference[-1])


@pytest.mark.parametrize("kind", sorted(TINY))
def test_packed_vectors_equal_one_by_one_with_a_window_shorter_than_the_text(kind: str) -> None:
    loaded = load(kind)
    encoded = [encode(loaded, text) for text in TEXTS]
    assert max(len(item.token_ids) for item in encoded) > 8  # the sliding window of the fixtures
    assert extraction.self_check(loaded, encoded) < 1e-5


def test_self_check_notices_a_model_that_joins_packed_texts(monkeypatch: Any) -> None:
    loaded = load("llama")
    encoded = [encode(loaded, text) for text in TEXTS]
    plain = model_loader.forward

    def joined(loaded: Any, ids: torch.Tensor, **kwargs: Any) -> None:
        plain(loaded, ids)  # positions dropped: one long text

    monkeypatch.setattr(model_loader, "forward", joined)
    assert extraction.self_check(loaded, encoded) > 1e-2
    assert not extraction.can_pack(loaded, encoded)


def test_hooks_are_removed_when_the_forward_fails() -> None:
    loaded = load("llama")
    with pytest.raises(RuntimeError), model_loader.capture(loaded, lambda hidden: hidden):
        raise RuntimeError("stop")
    assert not loaded.final_norm._forward_hooks
    assert not any(block._forward_hooks for block in loaded.blocks)


def test_packed_texts_take_no_mask() -> None:
    loaded = load("llama")
    ids = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="no attention mask"):
        model_loader.forward(loaded, ids, position_ids=ids, attention_mask=ids)


def test_pooling_equals_means_over_the_named_tokens() -> None:
    loaded = load("cohere2")
    text = "Close one eye now."
    stimulus = Stimulus("s", "probe", "C01", 1, "en", text, (10, 13))
    item = extraction.encode(loaded.tokenizer, stimulus)
    pooled, absmax = extraction.pool_pack(loaded, [item])
    with torch.inference_mode():
        states = loaded.causal_lm(
            torch.tensor([item.token_ids]), output_hidden_states=True, use_cache=False
        ).hidden_states
    row2 = states[2][0].numpy()  # one byte per token, BOS first
    expected = {
        "span_mean": row2[11:14].mean(0), "content_mean": row2[1:18].mean(0),
        "last_content": row2[17], "last": row2[18],
    }  # fmt: skip
    for kind, pooling in enumerate(study.POOLINGS):
        np.testing.assert_allclose(pooled[2, 0, kind], expected[pooling], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(absmax[2, 0], np.abs(row2).max(), rtol=1e-6)


def test_untrained_weights_follow_the_seed(tiny_suite: Any) -> None:
    suite = study.load_suite(str(tiny_suite))
    variant = suite.variant("untrained")
    source = model_loader.resolve_source(variant)

    def weights() -> torch.Tensor:
        loaded = model_loader.load_variant(
            variant, source, device=torch.device("cpu"), dtype=torch.float32
        )
        return loaded.decoder.embed_tokens.weight

    trained = model_loader.load_variant(
        suite.variant("base"), source, device=torch.device("cpu"), dtype=torch.float32
    )
    assert torch.equal(weights(), weights())
    assert not torch.equal(weights(), trained.decoder.embed_tokens.weight)


def test_a_folder_without_a_model_is_named(tmp_path: Any) -> None:
    variant = study.Variant("base", "base", path=str(tmp_path / "nothing"))
    with pytest.raises(study.StudyError, match=r"nothing.*config\.json"):
        model_loader.resolve_source(variant)
