"""Find out how a model's prompts can be patched: a vector put where it came from changes nothing.

The other check is a vector of another prompt: the fast ways must give what a whole prompt alone
gives. A model that fails is refused by name (ADR-018).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence

import torch

from aya_probes.errors import StudyError
from aya_probes.models import loading
from aya_probes.models.residuals import LoadedModel
from aya_probes.patching import engine
from aya_probes.patching.engine import Prompt, Setup, Way

CHECKED_PROMPTS = 3
CHECKED_TOKENS = 20
# Largest difference of log-probability, in nats, of the most probable tokens.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5, "float64": 1e-6}


def choose_way(loaded: LoadedModel, prompts: Sequence[Prompt], variant: str) -> Way:
    """Return the fastest way of ``engine`` that gives what a prompt alone gives.

    Checked on a few prompts, at the first, the middle and the last layer: each prompt's own vectors
    must leave its next-token distribution as it is, and the vectors of another prompt must change
    it as they do when one whole prompt runs at a time. The difference is at most ``TOLERANCE``.
    Raises StudyError, naming the model, if even one whole prompt at a time changes by its own
    vectors; ValueError without prompts.
    """
    if not prompts:
        raise ValueError("the self-check needs a prompt")
    some = _spread(prompts)
    tolerance = TOLERANCE[loaded.dtype_name]
    alone = Setup(loaded, "alone")
    unpatched = engine.unpatched(alone, some, _log_probabilities)
    own = engine.capture(alone, some)
    vectors = torch.stack([own, own.roll(1, 0)], dim=1)
    wanted = _run(alone, some, vectors)
    if not (deviation := _deviation(wanted[:, 0], unpatched[:, None])) <= tolerance:
        raise StudyError(
            f"variant {variant}: {type(loaded.causal_lm).__name__} cannot be patched: a prompt's "
            f"own residual stream, put back at its position, changes the next token's "
            f"log-probability by {deviation:.2g} (at most {tolerance:g}); leave this stage out "
            "for this model (docs/adr/018-patching.md)"
        )
    for way in engine.WAYS[:-1]:
        try:
            found = _run(Setup(loaded, way), some, vectors)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # a cache of another kind may refuse anything
            if loading.is_out_of_memory(error):
                raise
            continue
        if _deviation(found, wanted) <= tolerance:
            return way
    return "alone"


def _spread(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return a few prompts of different length, and a pair of equal length where there is one."""
    largest = max(engine.groups(prompts), key=len)
    ordered = sorted(range(len(prompts)), key=lambda n: len(prompts[n].token_ids))
    chosen = dict.fromkeys([*largest[:2], ordered[0], ordered[-1]])
    return [prompts[n] for n in list(chosen)[: CHECKED_PROMPTS + 1]]


def _run(setup: Setup, prompts: Sequence[Prompt], vectors: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities ``[prompt, condition, patch, token]``, single and onward."""
    last = setup.loaded.n_blocks - 1
    layers = sorted({0, last // 2, last})
    runs = [
        engine.patched(setup, prompts, vectors, _log_probabilities, layers=layers, onward=onward)
        for onward in (False, True)
    ]
    return torch.cat(runs, dim=2)


def _log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(logits, dim=-1)


def _deviation(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the largest difference over the most probable tokens of ``wanted``; NaN if any is."""
    wanted = wanted.expand_as(found)
    top = wanted.topk(min(CHECKED_TOKENS, wanted.shape[-1]), dim=-1).indices
    return float((found.gather(-1, top) - wanted.gather(-1, top)).abs().max())


@contextlib.contextmanager
def unchanged(loaded: LoadedModel, variant: str) -> Iterator[None]:
    """Raise StudyError, naming the variant, if the model's parameters changed inside the context.

    Nor may a hook or a replaced forward stay on a block.
    """
    before = parameter_sha256(loaded)
    hooks = _attached(loaded)
    yield
    if parameter_sha256(loaded) != before:
        raise StudyError(
            f"variant {variant}: the model's parameters changed while it was patched: this model "
            "writes into its weights as it runs, so its results are not kept"
        )
    if _attached(loaded) != hooks:
        raise StudyError(f"variant {variant}: a hook of the patching is still on the model")


def _attached(loaded: LoadedModel) -> list[tuple[int, int, bool]]:
    return [
        (len(b._forward_hooks), len(b._forward_pre_hooks), "forward" in b.__dict__)
        for b in loaded.blocks
    ]


def parameter_sha256(loaded: LoadedModel) -> str:
    """Return a hash of all parameters and buffers of a model, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(loaded.causal_lm.state_dict().items()):
        digest.update(name.encode())
        raw = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()
