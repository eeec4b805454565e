"""Log-likelihoods of token sequences, many at a time, with the head computed in chunks.

A tree (``tree_attention``) is a prefix and its branches; scored are the tokens of the branches. A
text is a tree of one branch after the token that begins a text; the candidates for one prompt are
the branches of one tree. Trees are packed without padding where the model's attention can be cut,
which a self-check finds out by comparing with the model's own forward of each text alone.

The language-model head is run on few positions at a time: those that predict a scored token.
The model's own forward computes it, with the decoder's output put in, so that whatever a model does
to its logits (a scale, a soft cap) is done here too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from transformers.utils import ModelOutput

from aya_probes.behaviour import tree_attention
from aya_probes.behaviour.tree_attention import Shape
from aya_probes.errors import StudyError
from aya_probes.models import loading
from aya_probes.models.residuals import LoadedModel

Way = Literal["packed", "alone"]
LOGITS_IN_MEMORY = 2**24  # 64 MiB of float32; a few copies of it are made
SELF_CHECK_TREES = 4
# Largest deviation of a token's log-likelihood, in nats, from the model's own forward.
SELF_CHECK_TOLERANCE = {"float32": 2e-3, "bfloat16": 0.5}


@dataclass(frozen=True)
class Tree:
    """Token sequences that share a prefix."""

    name: str
    """What messages call it, such as a stimulus id."""
    prefix: tuple[int, ...]
    """At least one token, which is not scored."""
    branches: tuple[tuple[int, ...], ...]
    """The scored continuations, of at least one token each."""

    @property
    def shape(self) -> Shape:
        """The number of tokens of the prefix and of each branch."""
        return len(self.prefix), tuple(map(len, self.branches))

    @property
    def tokens(self) -> tuple[int, ...]:
        """All tokens: the prefix, then branch after branch."""
        return self.prefix + tuple(token for branch in self.branches for token in branch)

    def predictors(self) -> list[int]:
        """Return the place in ``tokens`` that predicts each scored token."""
        places, start = [], len(self.prefix)
        for branch in self.branches:
            places += [len(self.prefix) - 1, *range(start, start + len(branch) - 1)]
            start += len(branch)
        return places


Scores = list[np.ndarray]  # of a tree: nats ``[token]`` of each branch, float64, at most 0


def make_packs(trees: Sequence[Tree], budget: int) -> list[list[int]]:
    """Group trees (by their number) into packs of at most ``budget`` tokens, by shape."""
    packs: list[list[int]] = []
    tokens = 0
    order = sorted(range(len(trees)), key=lambda n: (len(trees[n].tokens), trees[n].shape, n))
    for number in order:
        length = len(trees[number].tokens)
        if not packs or tokens + length > budget:
            packs.append([])
            tokens = 0
        packs[-1].append(number)
        tokens += length
    return packs


def score(loaded: LoadedModel, pack: Sequence[Tree], way: Way) -> list[Scores]:
    """Return the log-likelihood in nats of every scored token, given the tokens before it.

    Raises StudyError naming the tree if one is not finite.
    """
    found = _score_packed(loaded, pack) if way == "packed" else _score_alone(loaded, pack)
    for tree, scores in zip(pack, found, strict=True):
        if not all(np.isfinite(branch).all() for branch in scores):
            if len(pack) > 1:  # the bad tree may have spoilt the others
                return [score(loaded, [tree], way)[0] for tree in pack]
            raise StudyError(
                f"{tree.name}: its likelihood is NaN or infinite; try --dtype float32, or check "
                "the model's weights"
            )
    return found


def _score_packed(loaded: LoadedModel, pack: Sequence[Tree]) -> list[Scores]:
    shapes = [tree.shape for tree in pack]
    ids = torch.tensor([[token for tree in pack for token in tree.tokens]], device=loaded.device)
    places = [place for shape in shapes for place in tree_attention.position_ids(shape)]
    positions = torch.tensor([places], device=loaded.device)
    with torch.inference_mode(), tree_attention.packed(loaded.decoder, shapes):
        output = loaded.decoder(
            input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False
        )
    starts = np.cumsum([0, *map(tree_attention.width, shapes)])
    rows = [int(s) + p for tree, s in zip(pack, starts, strict=False) for p in tree.predictors()]
    targets = [token for tree in pack for branch in tree.branches for token in branch]
    return _split(pack, _log_likelihoods(loaded, output, rows, targets))


def _score_alone(loaded: LoadedModel, pack: Sequence[Tree]) -> list[Scores]:
    """Score each branch through the model's own forward of prefix and branch."""
    found = []
    for tree in pack:
        values = []
        for branch in tree.branches:
            ids = torch.tensor([tree.prefix + branch], device=loaded.device)
            with torch.inference_mode():
                logits = loaded.causal_lm(input_ids=ids, use_cache=False).logits[0]
                logits = logits[len(tree.prefix) - 1 : -1].float()
                chosen = logits.gather(1, ids[0, len(tree.prefix) :, None])[:, 0]
                values.append((chosen - logits.logsumexp(1)).cpu().numpy().astype(np.float64))
        found.append(values)
    return found


def _split(pack: Sequence[Tree], values: np.ndarray) -> list[Scores]:
    """Return ``values [scored token]`` of a pack, by tree and branch."""
    ends = np.cumsum([len(branch) for tree in pack for branch in tree.branches])
    branches = iter(np.split(values, ends[:-1]))
    return [[next(branches) for _ in tree.branches] for tree in pack]


def _log_likelihoods(
    loaded: LoadedModel, output: ModelOutput, rows: Sequence[int], targets: Sequence[int]
) -> np.ndarray:
    """Return log P of ``targets`` at the places ``rows`` of the decoder's output, ``[target]``.

    The head runs once for each row, in chunks of at most ``LOGITS_IN_MEMORY`` logits.
    """
    places, owner = np.unique(np.array(rows), return_inverse=True)
    wanted = torch.tensor(targets, device=loaded.device)
    hidden = output.last_hidden_state[0]
    values = np.empty(len(targets))
    vocabulary = loaded.causal_lm.get_output_embeddings().weight.shape[0]
    step = max(1, LOGITS_IN_MEMORY // vocabulary)
    for start in range(0, len(places), step):
        chunk = places[start : start + step]
        chosen_hidden = hidden[torch.tensor(chunk, device=loaded.device)]
        logits = head(loaded, type(output)(last_hidden_state=chosen_hidden[None])).float()
        mine = np.flatnonzero((owner >= start) & (owner < start + len(chunk)))
        line = torch.tensor(owner[mine] - start, device=loaded.device)
        chosen = logits[line, wanted[torch.tensor(mine, device=loaded.device)]]
        values[mine] = (chosen - logits.logsumexp(1)[line]).cpu().numpy()
    return values


def head(loaded: LoadedModel, output: ModelOutput) -> torch.Tensor:
    """Return the model's logits ``[n, vocabulary]`` for a decoder output of n tokens.

    The output is of the class that the decoder returns; the causal model may read its other fields.
    """
    ids = torch.zeros(output.last_hidden_state.shape[:2], dtype=torch.long, device=loaded.device)
    with torch.inference_mode(), _decoder_returns(loaded, output):
        return torch.as_tensor(loaded.causal_lm(input_ids=ids, use_cache=False).logits[0])


@contextlib.contextmanager
def _decoder_returns(loaded: LoadedModel, output: ModelOutput) -> Iterator[None]:
    """While the context lasts, the decoder computes nothing and returns ``output``."""

    def forward(*args: object, **kwargs: object) -> ModelOutput:
        return output

    vars(loaded.decoder)["forward"] = forward  # an attribute of the object hides the method
    try:
        yield
    finally:
        del vars(loaded.decoder)["forward"]


def choose_way(loaded: LoadedModel, trees: Sequence[Tree]) -> Way:
    """Return ``packed`` if that gives the likelihoods of the model's own forward, else ``alone``.

    Compared are a few trees that differ in length. Raises StudyError if a text alone gives NaN.
    """
    ordered = sorted(trees, key=lambda tree: (len(tree.tokens), tree.name))
    numbers = np.linspace(0, len(ordered) - 1, min(SELF_CHECK_TREES, len(ordered)))
    chosen = [ordered[round(number)] for number in numbers]
    alone = score(loaded, chosen, "alone")
    try:
        together = score(loaded, chosen, "packed")
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # a model may take no position ids, or cannot be cut
        if loading.is_out_of_memory(error):
            raise
        return "alone"
    deviation = max(
        np.abs(left - right).max()
        for one, other in zip(alone, together, strict=True)
        for left, right in zip(one, other, strict=True)
    )
    return "packed" if deviation <= SELF_CHECK_TOLERANCE[loaded.dtype_name] else "alone"
