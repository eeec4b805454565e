"""Reading a model: its own logits at the last layer, answers, the cache, and the fitted lens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from aya_probes.errors import StudyError
from aya_probes.lens import accuracy, fitted, reading, words
from aya_probes.models import loading, residuals, unembedding
from aya_probes.models.residuals import LoadedModel
from aya_probes.planted import tiny
from aya_probes.prompts import Query

CPU = torch.device("cpu")


def _tiny(kind: str, **settings: Any) -> LoadedModel:
    special = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    table = {**tiny.TINY.get(kind, tiny.TINY["gemma3_text"]), **settings}
    config = AutoConfig.for_model(kind, vocab_size=tiny.VOCABULARY, **special, **table)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # large enough that scale and cap change the distribution
        for weight in model.parameters():
            weight.mul_(4)
    return loading.wrap(model, tiny.byte_tokenizer(), CPU, torch.float32)


MODELS = [
    ("cohere2", {"logit_scale": 0.125}),
    ("gemma2", {"final_logit_softcapping": 3.0}),
    ("gemma3_text", {}),
    ("gpt2", {}),
    ("llama", {}),
]


@pytest.mark.parametrize(("kind", "settings"), MODELS, ids=[kind for kind, _ in MODELS])
def test_the_last_layer_of_the_lens_is_the_models_own_output(
    kind: str, settings: dict[str, Any]
) -> None:
    loaded = _tiny(kind, **settings)
    ids = torch.tensor([[2, 70, 90, 110, 65, 40, 33, 201, 17, 90]])
    with torch.inference_mode():
        wanted = loaded.causal_lm(input_ids=ids).logits[0].log_softmax(-1)
    with residuals.capture(loaded, lambda hidden: hidden[0]) as layers:
        residuals.forward(loaded, ids)
    last = unembedding.normed(loaded, layers[loaded.n_blocks])
    whole_head = loaded.causal_lm.get_output_embeddings()
    with unembedding.head(loaded) as head:
        torch.testing.assert_close(head(last).log_softmax(-1), wanted)
        whole = head(last)
    some = [5, 200, 90]
    with unembedding.head(loaded, some) as head:
        torch.testing.assert_close(head(last), whole[:, some])
    unembedding.check(loaded)
    assert loaded.causal_lm.get_output_embeddings() is whole_head
    with torch.inference_mode():
        torch.testing.assert_close(
            loaded.causal_lm(input_ids=ids).logits[0].log_softmax(-1), wanted
        )


def test_the_head_is_restored_after_an_error_and_other_decoders_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = _tiny("llama")
    ids = torch.tensor([[2, 70, 90]])
    with torch.inference_mode():
        wanted = loaded.causal_lm(input_ids=ids).logits

    def fail() -> None:
        with unembedding.head(loaded, [1, 2]) as head:
            head(torch.zeros(1, 7))

    with pytest.raises(RuntimeError):
        fail()
    with torch.inference_mode():
        torch.testing.assert_close(loaded.causal_lm(input_ids=ids).logits, wanted)
    whole = type(loaded.decoder).forward

    def doubled(*args: Any, **kwargs: Any) -> Any:
        out = whole(*args, **kwargs)
        out.last_hidden_state = 2 * out.last_hidden_state
        return out

    with monkeypatch.context() as patch:  # a step after the final norm
        patch.setattr(type(loaded.decoder), "forward", doubled)
        with pytest.raises(StudyError, match="not those of its final norm and unembedding"):
            unembedding.check(loaded)
    loaded.causal_lm.set_output_embeddings(torch.nn.Identity())
    with pytest.raises(StudyError, match="LlamaForCausalLM has no unembedding"):
        unembedding.check(loaded)


def _query(shots: str, asked: str, answers: tuple[str, ...] = ("x",)) -> Query:
    text = shots + asked
    return Query("repetition", "f", "en", "en", asked, shots, text, (0, 1), "\n", answers)


@pytest.mark.parametrize("kind", ["cohere2", "gemma3_text", "gpt2", "llama"])
def test_the_cache_gives_the_vectors_of_whole_prompts(kind: str) -> None:
    loaded = _tiny(kind)
    shots = "one = two\nthree = four\n"  # longer than the sliding window of eight
    queries = [_query(shots, text) for text in ("eye =", "nose =", "heart =", "bone =")]
    queries += [_query("other\n", "bone =")]
    reader = reading.Reader(loaded, queries[:3])
    assert reader.cached
    counted: list[int] = []
    found = reader.read(queries, counted.append)
    assert sum(counted) == len(queries)
    for query, made in zip(queries, found, strict=True):
        ids = torch.tensor([reading.prompt_tokens(loaded, query.text, "")])
        with residuals.capture(loaded, lambda hidden: hidden[0, -1]) as layers:
            residuals.forward(loaded, ids)
        wanted = torch.stack([layers[n] for n in range(loaded.n_blocks + 2)])
        torch.testing.assert_close(torch.cat([made.states, made.final[None]]), wanted)
    assert not any(module._forward_hooks for module in loaded.causal_lm.modules())


@pytest.mark.parametrize("cached", [True, False])
def test_an_answer_is_what_greedy_decoding_writes(cached: bool) -> None:
    loaded = _tiny("llama")
    query = _query("one = two\n", "eye =")
    ids = torch.tensor([reading.prompt_tokens(loaded, query.text, "")])
    for _ in range(6):
        with torch.inference_mode():
            following = loaded.causal_lm(input_ids=ids).logits[0, -1].argmax()
        ids = torch.cat([ids, following.reshape(1, 1)], dim=1)
    greedy = loaded.tokenizer.decode(ids[0, -6:])
    queries = [
        _query("one = two\n", "eye =", (greedy,)),
        _query("one = two\n", "eye =", (f"{greedy[:2]}~~~~~~",)),
    ]
    reader = reading.Reader(loaded, queries)
    reader.cached = cached
    right, wrong = reader.read(queries, lambda _: None)
    assert right.answer.startswith(greedy)
    assert not wrong.correct
    assert len(wrong.answer) <= 4


@pytest.mark.parametrize(
    ("text", "closer", "verdict"),
    [
        ("", '"', None),
        ("hea", '"', None),
        ("heart", '"', None),
        ('heart"', '"', True),
        (' Heart"\n', '"', True),
        ("heart\n", '"', True),
        ("heart.", '"', True),
        ("hearts", '"', None),  # another valid form
        ("heartless", '"', False),
        ("heart attack", '"', False),
        ('hea"', '"', False),
        ("liver", '"', False),
        ("hear\ufffd", '"', None),
        ("cœur", "\n", False),
    ],
)
def test_an_answer_is_a_whole_word(text: str, closer: str, verdict: bool | None) -> None:
    assert reading.judge(text, ("heart", "hearts"), closer) is verdict


def test_wilson_solves_its_own_equation() -> None:
    for k, n in ((0, 20), (3, 20), (8, 10), (20, 20), (2.5, 9)):
        for p in accuracy.wilson(k, n):
            assert (k / n - p) ** 2 == pytest.approx(accuracy.Z95**2 * p * (1 - p) / n, abs=1e-12)
    assert accuracy.wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert accuracy.above_chance([1.0] * 4 + [0.0] * 16)
    assert not accuracy.above_chance([1.0] * 2 + [0.0] * 18)
    with pytest.raises(ValueError, match="3 successes of 2"):
        accuracy.wilson(3, 2)


class _Words:
    """A tokenizer whose first token is up to three letters, with the space before them."""

    unk_token_id, all_special_ids = 0, [0]

    def __init__(self) -> None:
        self.pieces: list[str] = ["<unk>"]

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        found = []
        for text in texts:
            piece = text[:4].replace(" ", "▁") if text[0] == " " else text[:3]
            if piece not in self.pieces:
                self.pieces.append(piece)
            found.append([self.pieces.index(piece), 0])
        return {"input_ids": found}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.pieces[token] for token in ids]


def test_first_tokens_that_languages_or_concepts_share_are_left_out() -> None:
    tokenizer = _Words()
    forms: dict[str, dict[str, tuple[str, ...]]] = {
        "virus": {"en": ("virus",), "fr": ("virus",), "hi": ("वायरस",)},
        "eye": {"en": ("eye", "eyes"), "fr": ("œil",), "hi": ("आँख",)},
        "heart": {"en": ("heart",), "fr": ("cœur",), "hi": ("दिल",)},
        "heap": {"en": ("heap",), "fr": ("tas",), "hi": ("ढेर",)},
        "x": {"en": ("x",), "fr": ("os",), "hi": ()},
    }
    found = words.first_tokens(tokenizer, forms, ("en", "fr", "hi"))
    pieces = {
        key: set(tokenizer.convert_ids_to_tokens(list(some))) for key, some in found.tokens.items()
    }
    assert pieces["virus", "en"] == pieces["virus", "fr"] == set()
    assert pieces["virus", "hi"] == {"वाय", "▁वाय"}
    assert pieces["eye", "en"] == {"eye", "▁eye", "Eye", "▁Eye"}
    assert pieces["heart", "en"] == pieces["heap", "en"] == set()  # both begin with "hea"
    assert pieces["x", "en"] == set()  # one letter
    assert pieces["x", "hi"] == set()
    assert found.shared_language == {"en": 4, "fr": 4, "hi": 0}
    assert found.shared_concept == {"en": 8, "fr": 0, "hi": 0}
    assert found.usable("hi") == ["virus", "eye", "heart", "heap"]
    with pytest.raises(StudyError, match=r"language en: only 1 concepts .*without: virus, heart"):
        words.check_enough(found, "en")


def test_a_group_of_tokens_is_pooled_as_its_total_probability() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4)) + 800  # overflows a plain exponential
    pooled = words.pool(logits, [7, 9, 11, 13], [(9, 13), (), (7,)])
    np.testing.assert_allclose(pooled[:, 0], 800 + np.log(np.exp(logits[:, [1, 3]] - 800).sum(-1)))
    assert np.isnan(pooled[:, 1]).all()
    np.testing.assert_allclose(pooled[:, 2], logits[:, 0])


def test_the_fitted_lens_recovers_an_affine_map_and_leaves_the_last_layer() -> None:
    torch.manual_seed(0)
    first = torch.randn(2000, 12) * torch.logspace(0, 2, 12)  # dimensions of unequal size
    change = torch.eye(12) + 0.3 * torch.randn(12, 12)
    last = first @ change + 5
    states = torch.stack([first, torch.randn(2000, 12), last], dim=1)
    owners = torch.arange(2000) // 20
    lens = fitted.fit(states, owners)
    assert lens.r2[0] > 0.999 > lens.r2_plain[0]
    assert abs(lens.r2[1]) < 0.05
    assert lens.r2_plain[1] < lens.r2[1]
    torch.testing.assert_close(lens.apply(states)[:, -1], last)
    error = (lens.apply(states)[:, 0] - last).norm() / last.norm()
    assert error < 0.02
