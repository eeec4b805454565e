"""Likelihoods against the library's own, packing, frames, candidates and planted comprehension."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aya_probes.behaviour import scoring, tree_attention
from aya_probes.behaviour.scoring import Tree
from aya_probes.models import loading
from aya_probes.models.residuals import LoadedModel
from aya_probes.planted import tiny


def load_tiny(kind: str, seed: int = 0) -> LoadedModel:
    model = tiny.tiny_model(kind, seed)
    return loading.wrap(model, tiny.byte_tokenizer(), torch.device("cpu"), torch.float32)


def random_trees(seed: int) -> list[Tree]:
    """Trees of one to four branches, some of equal shape."""
    rng = np.random.default_rng(seed)
    lengths = [(1, (9,)), (1, (9,)), (5, (3, 7, 3)), (12, (1, 20, 2, 6)), (30, (4,)), (1, (1,))]

    def draw(count: int) -> tuple[int, ...]:
        return tuple(int(token) for token in rng.integers(3, tiny.VOCABULARY, count))

    return [
        Tree(f"tree-{n}", draw(prefix), tuple(map(draw, branches)))
        for n, (prefix, branches) in enumerate(lengths)
    ]


@pytest.mark.parametrize("kind", tiny.TINY)
def test_likelihood_is_the_librarys_own_loss(kind: str) -> None:
    loaded = load_tiny(kind)
    trees = random_trees(1)
    assert scoring.choose_way(loaded, trees) == "packed"
    for tree, scores in zip(trees, scoring.score(loaded, trees, "packed"), strict=True):
        for branch, values in zip(tree.branches, scores, strict=True):
            ids = torch.tensor([tree.prefix + branch])
            labels = ids.clone()
            labels[:, : len(tree.prefix)] = -100
            with torch.no_grad():
                loss = loaded.causal_lm(input_ids=ids, labels=labels).loss
            assert -values.mean() == pytest.approx(float(loss), abs=1e-5)


def test_head_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, trees = load_tiny("gemma3_text"), random_trees(2)
    whole = scoring.score(loaded, trees, "packed")
    monkeypatch.setattr(scoring, "LOGITS_IN_MEMORY", tiny.VOCABULARY * 3)
    for left, right in zip(whole, scoring.score(loaded, trees, "packed"), strict=True):
        np.testing.assert_allclose(np.concatenate(left), np.concatenate(right), atol=1e-6)


def test_a_tree_does_not_notice_its_neighbours() -> None:
    loaded, trees = load_tiny("cohere2"), random_trees(3)
    together = scoring.score(loaded, trees, "packed")
    for tree, scores in zip(trees, together, strict=True):
        (alone,) = scoring.score(loaded, [tree], "packed")
        np.testing.assert_allclose(np.concatenate(alone), np.concatenate(scores), atol=1e-5)


def test_the_model_is_as_before() -> None:
    loaded, trees = load_tiny("llama"), random_trees(4)
    ids = torch.tensor([[2, 5, 6, 7]])
    with torch.no_grad():
        before = loaded.causal_lm(input_ids=ids).logits
        scoring.score(loaded, trees, "packed")
        after = loaded.causal_lm(input_ids=ids).logits
    assert torch.equal(before, after)
    assert "forward" not in vars(loaded.decoder)


def test_a_window_is_counted_in_positions_of_the_text() -> None:
    seen = tree_attention.allowed((3, (2, 2)), 3)
    assert seen[5].tolist() == [False, True, True, False, False, True, False]
    assert seen[6].tolist() == [False, False, True, False, False, True, True]
    assert not seen[4, 5:].any()


def test_an_attention_that_cannot_be_cut_runs_alone() -> None:
    loaded = load_tiny("llama")
    loaded.causal_lm.set_attn_implementation("eager")
    assert scoring.choose_way(loaded, random_trees(5)) == "alone"


def test_what_is_not_finite_is_named() -> None:
    loaded, trees = load_tiny("llama"), random_trees(6)
    with torch.no_grad():
        loaded.decoder.get_input_embeddings().weight[trees[2].prefix[0]] = float("nan")
    with pytest.raises(Exception, match="tree-2: its likelihood is NaN"):
        scoring.score(loaded, trees, "packed")
