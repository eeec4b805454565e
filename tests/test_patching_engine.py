"""Patching computes only what a patch can change, and gives what whole prompts alone give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from aya_probes.errors import StudyError
from aya_probes.models import loading
from aya_probes.models.residuals import LoadedModel
from aya_probes.patching import engine, generation, self_check
from aya_probes.patching.engine import Prompt, Setup, Way
from aya_probes.planted import tiny

SHAPES = [(12, 9), (12, 9), (14, 13), (20, 5), (12, 9), (6, 0)]  # tokens and position of a prompt
LAYERS = range(4)
CLOSE = 5e-6  # nats; float32 rounding of a model of four blocks


def load(kind: str, seed: int = 3) -> LoadedModel:
    return loading.wrap(
        tiny.tiny_model(kind, seed), tiny.byte_tokenizer(), torch.device("cpu"), torch.float32
    )


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    draw = torch.Generator().manual_seed(1)
    return [
        Prompt(tuple(torch.randint(3, 259, (length,), generator=draw).tolist()), position)
        for length, position in SHAPES
    ]


def log_p(logits: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(logits, dim=-1)


def by_output_hooks(
    loaded: LoadedModel, prompt: Prompt, vectors: torch.Tensor, layer: int, onward: bool
) -> torch.Tensor:
    """The same patch, derived from its definition: change what blocks return, one prompt a run."""

    def change(number: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            hidden = hidden.clone()
            hidden[0, prompt.position] = vectors[number]
            return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])

        return hook

    handles = [
        loaded.blocks[number - 1].register_forward_hook(change(number))
        for number in range(1, loaded.n_blocks)
        if number == layer or (onward and number > layer)
    ]
    with torch.inference_mode():
        out = loaded.causal_lm(torch.tensor([prompt.token_ids])).logits[0, -1]
    for handle in handles:
        handle.remove()
    return log_p(out)


@pytest.mark.parametrize("kind", sorted(tiny.TINY))
@pytest.mark.parametrize("onward", [False, True])
def test_every_way_gives_what_hooks_on_one_whole_prompt_give(
    kind: str, onward: bool, prompts: list[Prompt]
) -> None:
    loaded = load(kind)
    own = engine.capture(Setup(loaded, "alone"), prompts)
    vectors = torch.stack([own.roll(1, 0), own.flip(0)], dim=1)
    wanted = torch.stack(
        [
            torch.stack(
                [by_output_hooks(loaded, p, vectors[n, c], layer, onward) for layer in LAYERS[1:]]
            )
            for n, p in enumerate(prompts)
            for c in range(2)
        ]
    ).reshape(len(prompts), 2, len(LAYERS) - 1, -1)
    for way in engine.WAYS:
        for budget in (20, None):  # rows that are cut into several runs, and rows that are not
            found = engine.patched(
                Setup(loaded, way, budget),
                prompts,
                vectors,
                log_p,
                layers=LAYERS[1:],
                onward=onward,
            )
            assert (found - wanted).abs().max() < CLOSE, way
    assert (wanted[:, 0] - wanted[:, 1]).abs().max() > 0.1  # the patches do something


@pytest.mark.parametrize("kind", sorted(tiny.TINY))
def test_shared_tokens_are_run_once_and_change_nothing(
    kind: str, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(kind)
    heads = [prompts[3].token_ids[:6], prompts[2].token_ids[:6]]
    some = [
        Prompt((*heads[n % 2], *p.token_ids[6:]), p.position, 6)
        for n, p in enumerate(prompts)
        if p.position > 6
    ]
    plain = [Prompt(p.token_ids, p.position) for p in some]
    runs: list[tuple[int, ...]] = []
    forward = engine.run_on

    def counted(model: nn.Module, ids: torch.Tensor, past: Any, **arguments: Any) -> Any:
        runs.append(tuple(ids.shape))
        return forward(model, ids, past, **arguments)

    monkeypatch.setattr(engine, "run_on", counted)
    setup, whole = Setup(loaded), Setup(loaded, "alone")
    own = engine.capture(setup, some)
    assert (own - engine.capture(whole, plain)).abs().max() < CLOSE
    vectors = own.roll(1, 0)[:, None]
    found = engine.patched(setup, some, vectors, log_p, layers=[0, 2], onward=False)
    assert runs.count((1, 6)) == 2  # one for each head
    wanted = engine.patched(whole, plain, vectors, log_p, layers=[0, 2], onward=False)
    assert (found - wanted).abs().max() < CLOSE
    free = engine.unpatched(setup, some, log_p) - engine.unpatched(whole, plain, log_p)
    assert free.abs().max() < CLOSE
    start = generation.Start(vectors[:, 0], 2, onward=False)
    assert generation.continue_greedily(setup, some, 2, start) == generation.continue_greedily(
        whole, plain, 2, start
    )


@pytest.mark.parametrize("way", engine.WAYS)
@pytest.mark.parametrize("onward", [False, True])
def test_a_vector_put_where_it_came_from_changes_nothing(
    way: Way, onward: bool, prompts: list[Prompt]
) -> None:
    setup = Setup(load("gemma3_text"), way)
    own = engine.capture(setup, prompts)[:, None]
    found = engine.patched(setup, prompts, own, log_p, layers=LAYERS, onward=onward)
    before = engine.unpatched(setup, prompts, log_p)
    assert (found - before[:, None, None]).abs().max() < CLOSE


def test_the_input_of_block_0_decides_as_the_token_does(prompts: list[Prompt]) -> None:
    loaded = load("llama")
    other = Prompt((*prompts[0].token_ids[:9], 77, *prompts[0].token_ids[10:]), 9)
    vectors = engine.capture(Setup(loaded), [other])[:, None]
    found = engine.patched(Setup(loaded), prompts[:1], vectors, log_p, layers=[0], onward=False)
    assert (found[0, 0, 0] - engine.unpatched(Setup(loaded), [other], log_p)[0]).abs().max() < CLOSE


@pytest.mark.parametrize("way", engine.WAYS)
def test_hooks_and_blocks_are_as_they_were_after_an_exception(
    way: Way, prompts: list[Prompt]
) -> None:
    loaded = load("cohere2")
    vectors = engine.capture(Setup(loaded), prompts)[:, None]
    calls: list[int] = []

    def fail(logits: torch.Tensor) -> torch.Tensor:
        calls.append(len(logits))
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        engine.patched(Setup(loaded, way), prompts, vectors, fail, layers=[2], onward=True)
    assert calls
    assert all(
        not m._forward_hooks and not m._forward_pre_hooks for m in loaded.causal_lm.modules()
    )
    assert all("forward" not in block.__dict__ for block in loaded.blocks)


def test_a_forward_of_a_blocks_own_is_kept() -> None:
    loaded = load("llama")
    own = loaded.blocks[0].forward
    loaded.blocks[0].__dict__["forward"] = own
    with engine.skipped(loaded, [torch.Tensor, tuple]):
        given = torch.ones(1, 2, 32)
        assert loaded.blocks[0](given) is given
        assert loaded.blocks[1](given)[0] is given
    assert loaded.blocks[0].__dict__["forward"] is own
    assert "forward" not in loaded.blocks[1].__dict__


@pytest.mark.parametrize("kind", sorted(tiny.TINY))
def test_the_fast_way_is_chosen_for_models_of_attention(kind: str, prompts: list[Prompt]) -> None:
    assert self_check.choose_way(load(kind), prompts, "base") == "cached"


def recurrent() -> LoadedModel:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=tiny.VOCABULARY, hidden_size=32, state_size=4, num_hidden_layers=4
    )
    return loading.wrap(
        MambaForCausalLM(config), tiny.byte_tokenizer(), torch.device("cpu"), torch.float32
    )


def test_a_recurrent_state_is_patched_in_whole_prompts(prompts: list[Prompt]) -> None:
    loaded = recurrent()
    way = self_check.choose_way(loaded, prompts, "base")
    assert way in ("whole", "alone")
    vectors = engine.capture(Setup(loaded, way), prompts).roll(1, 0)[:, None]
    found = engine.patched(Setup(loaded, way), prompts, vectors, log_p, layers=[2], onward=False)
    wanted = by_output_hooks(loaded, prompts[3], vectors[3, 0], 2, False)
    assert (found[3, 0, 0] - wanted).abs().max() < CLOSE


def test_a_model_that_its_own_vectors_change_is_refused_by_name(prompts: list[Prompt]) -> None:
    loaded = load("llama")
    calls = iter(range(1000))
    norm = loaded.final_norm.forward
    # Every run differs from the one before, as with noise that is left on.
    loaded.final_norm.forward = lambda hidden: (
        norm(hidden)
        + torch.randn(hidden.shape, generator=torch.Generator().manual_seed(next(calls)))
    )
    with pytest.raises(StudyError, match=r"variant fire: LlamaForCausalLM cannot be patched"):
        self_check.choose_way(loaded, prompts, "fire")


def test_a_changed_parameter_and_a_hook_left_behind_are_found() -> None:
    loaded = load("llama")
    with self_check.unchanged(loaded, "base"):
        pass
    with (
        pytest.raises(StudyError, match="variant base: the model's parameters changed"),
        self_check.unchanged(loaded, "base"),
    ):
        loaded.final_norm.weight.add_(1e-3)
    with (
        pytest.raises(StudyError, match="variant base: a hook"),
        self_check.unchanged(loaded, "base"),
    ):
        loaded.blocks[1].register_forward_hook(lambda *anything: None)


@pytest.mark.parametrize("way", engine.WAYS)
def test_greedy_answers_are_those_of_single_steps(way: Way, prompts: list[Prompt]) -> None:
    loaded = load("cohere2", seed=5)
    vectors = engine.capture(Setup(loaded), prompts).roll(1, 0)
    start = generation.Start(vectors, 1, onward=True)
    with self_check.unchanged(loaded, "base"):
        found = generation.continue_greedily(Setup(loaded, way), prompts, 3, start)
        plain = generation.continue_greedily(Setup(loaded, way), prompts, 3)
    for number, prompt in enumerate(prompts):
        ids, free = list(prompt.token_ids), list(prompt.token_ids)
        for _ in range(3):
            longer = Prompt(tuple(ids), prompt.position)
            ids.append(int(by_output_hooks(loaded, longer, vectors[number], 1, True).argmax()))
            free.append(int(loaded.causal_lm(torch.tensor([free])).logits[0, -1].argmax()))
        assert found[number] == ids[-3:]
        assert plain[number] == free[-3:]


def test_positions_shapes_and_layers_that_do_not_fit_are_named(prompts: list[Prompt]) -> None:
    with pytest.raises(ValueError, match="position 4 is outside of a prompt of 4 tokens"):
        Prompt((1, 2, 3, 4), 4)
    setup = Setup(load("llama"))
    vectors = torch.zeros(len(prompts), 1, 5, 32)
    with pytest.raises(ValueError, match=r"layer 4 is not one of 0\.\.3"):
        engine.patched(setup, prompts, vectors, log_p, layers=[4], onward=False)
    with pytest.raises(ValueError, match="do not fit 2 prompts"):
        engine.patched(setup, prompts[:2], vectors, log_p, layers=[0], onward=False)
    with pytest.raises(ValueError, match="needs a prompt"):
        self_check.choose_way(setup.loaded, [], "base")
