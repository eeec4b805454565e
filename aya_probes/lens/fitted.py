"""A lens fitted per layer: an affine map from a layer's vectors to those of the last layer.

The plain logit lens reads a middle layer as if it were the last, which is biased where the basis
or the mean of the residual stream changes with depth. A tuned lens (Belrose et al. 2023,
arXiv:2303.08112) learns the change. Here it is fitted in closed form, by ridge regression of
h_L − h_l on h_l, so that a strong penalty gives back the plain lens with the mean corrected. The
text is that of the run's parallel corpus, which the prompts do not use.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from aya_probes import files
from aya_probes.errors import StudyError
from aya_probes.extraction.vectors import encode_texts
from aya_probes.models import residuals, unembedding
from aya_probes.models.residuals import LoadedModel
from aya_probes.stimuli import Manifest

TOKENS_PER_DIMENSION = 3  # of fitting text
LEAST_TOKENS, MOST_TOKENS = 1000, 8_000
HELD_OUT = 5  # one text in so many is kept from the fit
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # per token, of standardised vectors
BATCH_TOKENS = 512
CHECKED_TOKENS = 8  # tokens of held-out text at which lens and output are compared


@dataclass(frozen=True)
class FittedLens:
    """The maps of all layers: ĥ_L = h + (h − mean) W + shift."""

    mean: torch.Tensor
    """``[layer, hidden]``."""
    weight: torch.Tensor
    """``[layer, hidden, hidden]``."""
    shift: torch.Tensor
    """``[layer, hidden]``."""
    penalty: tuple[float, ...]
    """Ridge penalty by layer, chosen on held-out text."""
    r2: tuple[float, ...]
    """Share of the variance of h_L on held-out text that the fitted vectors explain, by layer."""
    r2_plain: tuple[float, ...]
    """The same for h_l as it is."""

    def apply(self, states: torch.Tensor) -> torch.Tensor:
        """Return the estimates of h_L, ``[..., layer, hidden]`` of ``states`` of that shape."""
        moved = torch.einsum("...lh,lhk->...lk", states - self.mean, self.weight)
        return states + moved + self.shift


def corpus_states(loaded: LoadedModel, manifest: Manifest) -> tuple[torch.Tensor, torch.Tensor]:
    """Return vectors of corpus tokens ``[token, layer, hidden]`` and the number of each one's item.

    Items of the corpus are taken in every language, until there are enough tokens. Special tokens
    and closing punctuation are left out. Raises StudyError for a run without enough text.
    """
    wanted = min(MOST_TOKENS, max(LEAST_TOKENS, TOKENS_PER_DIMENSION * loaded.hidden_size))
    items: dict[str, list[str]] = {}
    for stimulus in manifest.stimuli:
        if stimulus.kind == "parallel":
            items.setdefault(stimulus.item_id, []).append(stimulus.text)
    chosen: list[tuple[int, list[int], list[int]]] = []
    count = 0
    for number, texts in enumerate(items.values()):
        if count >= wanted:
            break
        for encoded in encode_texts(loaded, texts):
            chosen.append((number, encoded.token_ids, encoded.content))
            count += len(encoded.content)
    if len({number for number, *_ in chosen}) < HELD_OUT:
        raise StudyError(
            f"the run's parallel corpus has {len(items)} items, and a fitted lens needs "
            f"{HELD_OUT} at least; make the manifest with more: {files.MAKE_MANIFEST} --limit N"
        )
    states, owners = [], []
    for batch in _equal_lengths(chosen):
        ids = torch.tensor([tokens for _, tokens, _ in batch], device=loaded.device)
        with residuals.capture(loaded, lambda hidden: hidden.float().cpu()) as layers:
            residuals.forward(loaded, ids)
        found = torch.stack([layers[n] for n in range(loaded.n_blocks + 1)], dim=2)
        for row, (number, _, content) in enumerate(batch):
            states.append(found[row, content])
            owners += [number] * len(content)
    return torch.cat(states), torch.tensor(owners)


def _equal_lengths(
    chosen: list[tuple[int, list[int], list[int]]],
) -> Iterator[list[tuple[int, list[int], list[int]]]]:
    """Yield texts of equal length together, so that nothing is padded."""
    ordered = sorted(chosen, key=lambda item: len(item[1]))
    for length, group in itertools.groupby(ordered, key=lambda item: len(item[1])):
        members, size = list(group), max(1, BATCH_TOKENS // length)
        yield from (members[start : start + size] for start in range(0, len(members), size))


def fit(states: torch.Tensor, owners: torch.Tensor) -> FittedLens:
    """Fit the maps on ``states [token, layer, hidden]``; every fifth item is held out.

    The penalty of each layer is the one with the smallest error on the held-out items. Vectors are
    standardised for the fit, since a few dimensions are far larger than the others.
    """
    held = owners % HELD_OUT == 0
    last = states[:, -1]
    parts = [_fit_layer(states[:, n], last, held) for n in range(states.shape[1])]
    mean, weight, shift, penalty, r2, r2_plain = zip(*parts, strict=True)
    return FittedLens(
        torch.stack(mean), torch.stack(weight), torch.stack(shift), penalty, r2, r2_plain
    )


def _fit_layer(
    given: torch.Tensor, last: torch.Tensor, held: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float, float, float]:
    """Return mean, weight, shift, penalty, R² of the fit and R² of the layer as it is."""
    x, y = given[~held].double(), (last - given)[~held].double()
    mean, shift = x.mean(0), y.mean(0)
    spread = x.std(0).clamp_min(1e-6 * float(x.std(0).max()) + 1e-12)
    z = (x - mean) / spread
    gram, cross = z.T @ z, z.T @ (y - shift)
    test, truth = given[held].double(), last[held].double()
    total = float(((truth - truth.mean(0)) ** 2).sum().clamp_min(1e-12))
    best: tuple[float, float, torch.Tensor] | None = None
    for penalty in PENALTIES:
        ridge = gram + penalty * len(z) * torch.eye(len(gram), dtype=gram.dtype)
        weight = torch.linalg.solve(ridge, cross) / spread[:, None]
        estimate = test + (test - mean) @ weight + shift
        r2 = 1 - float(((truth - estimate) ** 2).sum()) / total
        if best is None or r2 > best[0]:
            best = (r2, penalty, weight)
    assert best is not None
    plain = 1 - float(((truth - test) ** 2).sum()) / total
    return mean.float(), best[2].float(), shift.float(), best[1], best[0], plain


@dataclass(frozen=True)
class Divergence:
    """How far each lens is from the model's own output on held-out text, in nats, by layer."""

    plain: tuple[float, ...]
    """Mean KL divergence of the plain lens from the output."""
    fitted: tuple[float, ...]
    """The same for the fitted lens."""


def divergence(
    loaded: LoadedModel, lens: FittedLens, states: torch.Tensor, owners: torch.Tensor
) -> Divergence:
    """Return KL(output ‖ lens) over tokens of held-out text, spread evenly over them."""
    held = torch.nonzero(owners % HELD_OUT == 0)[:, 0]
    places = torch.linspace(0, len(held) - 1, min(CHECKED_TOKENS, len(held))).long()
    chosen = states[held[places]]
    sums = torch.zeros(2, states.shape[1], dtype=torch.float64)
    with unembedding.head(loaded) as head:
        for token in chosen:
            both = torch.cat([token, lens.apply(token)]).to(loaded.device)
            logits = torch.log_softmax(head(unembedding.normed(loaded, both)), -1)
            plain, fitted = logits.chunk(2)
            output = plain[-1]
            for row, values in enumerate((plain, fitted)):
                sums[row] += (output.exp() * (output - values)).sum(-1).double().cpu()
    plain_kl, fitted_kl = (sums / len(chosen)).tolist()
    return Divergence(tuple(plain_kl), tuple(fitted_kl))
