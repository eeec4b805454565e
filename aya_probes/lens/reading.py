"""Read prompts: the residual stream where the answer is predicted, and the answer itself.

Prompts that share their shots run as a batch: the shots once, with a cache of keys and values, then
the queries, grouped by length, so that nothing is padded. Where a model does not give the same
vectors with its cache, which a self-check finds out, every prompt runs whole.
"""

from __future__ import annotations

import copy
import itertools
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from aya_probes.errors import StudyError
from aya_probes.extraction.encoding import max_tokens
from aya_probes.extraction.packs import SELF_CHECK_TOLERANCE
from aya_probes.models import loading, residuals, unembedding
from aya_probes.models.residuals import LoadedModel
from aya_probes.prompts import Query, normalise

EXTRA_STEPS = 2  # tokens of an answer beyond those of its longest valid form
_HALF = "\ufffd"  # what a decoder writes for a character whose bytes are not all there yet


@dataclass(frozen=True)
class Reading:
    """What a model did with one prompt."""

    states: torch.Tensor
    """Residual stream at the last token of the prompt, ``[layer, hidden]`` float32, layers 0..L."""
    final: torch.Tensor
    """The same after the final norm, ``[hidden]``, which the model's own output is read from."""
    correct: bool
    """Whether the greedy continuation is a valid answer and nothing more."""
    answer: str
    """The continuation, as far as it was followed."""


def prompt_tokens(loaded: LoadedModel, text: str, where: str) -> list[int]:
    """Return a prompt's tokens, without special tokens at its end.

    Raises StudyError, with ``where``, for a prompt that is longer than the model can read.
    """
    encoded = loaded.tokenizer(text, return_special_tokens_mask=True)
    ids, special = list(encoded["input_ids"]), list(encoded["special_tokens_mask"])
    while special and special[-1]:
        del ids[-1], special[-1]
    if not 0 < len(ids) <= max_tokens(loaded):
        raise StudyError(
            f"{where}: the prompt has {len(ids)} tokens, the model takes 1 to "
            f"{max_tokens(loaded)}; use fewer shots with --shots"
        )
    return ids


def judge(text: str, answers: Sequence[str], closer: str) -> bool | None:
    """Tell whether the beginning ``text`` of a continuation is a valid answer; None: not yet known.

    An answer ends with ``closer``, a line's end or punctuation. Letters are compared as
    ``prompts.normalise`` says.
    """
    valid = [normalise(answer) for answer in answers]
    ends = [place for mark in (closer, "\n") if (place := text.find(mark)) >= 0]
    if ends:
        return normalise(text[: min(ends)]) in valid
    begun = normalise(text.rstrip(_HALF))
    if any(answer.startswith(begun) for answer in valid):
        return None
    return any(
        begun.startswith(answer) and unicodedata.category(begun[len(answer)])[0] == "P"
        for answer in valid
    )


def _common(rows: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all rows share, leaving each row one token at least."""
    columns = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return min(len(list(columns)), *(len(row) - 1 for row in rows))


class Reader:
    """Reads prompts with one model."""

    def __init__(self, loaded: LoadedModel, sample: Sequence[Query]) -> None:
        """Check the model's head, and on a few prompts whether its cache can be used."""
        unembedding.check(loaded)
        self._loaded = loaded
        self._shots: tuple[list[int], Any] = ([], None)  # the last shots, and the cache after them
        self.cached = self._cache_is_exact(sample)

    def read(self, queries: Sequence[Query], progress: Callable[[int], object]) -> list[Reading]:
        """Return the reading of every query, in order."""
        found: dict[int, Reading] = {}
        for batch, tokens, start in self._batches(queries):
            states, cache = self._forward(tokens, start)
            answered = self._answer([queries[n] for n in batch], tokens, states[:, -1], cache)
            for place, (number, (correct, answer)) in enumerate(zip(batch, answered, strict=True)):
                layers = states[place].float().cpu()
                found[number] = Reading(layers[:-1], layers[-1], correct, answer)
            progress(len(batch))
        return [found[number] for number in range(len(queries))]

    def _batches(
        self, queries: Sequence[Query]
    ) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor | None]]:
        """Yield prompts that run together: numbers, tokens after the start, tokens of the start.

        Without a cache the start is None, and the tokens are those of the whole prompt.
        """
        tokens = [prompt_tokens(self._loaded, q.text, f"{q.frame} {q.concept_id}") for q in queries]
        by_shots: dict[str, list[int]] = {}
        for number, query in enumerate(queries):
            by_shots.setdefault(query.shots if self.cached else "", []).append(number)
        for members in by_shots.values():
            cut = _common([tokens[n] for n in members]) if self.cached else 0
            start = self._tensor([tokens[members[0]][:cut]]) if cut else None
            lengths = sorted({len(tokens[n]) for n in members})
            for length in lengths:
                batch = [n for n in members if len(tokens[n]) == length]
                yield batch, self._tensor([tokens[n][cut:] for n in batch]), start

    def _tensor(self, rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor(rows, device=self._loaded.device)

    def _forward(
        self, tokens: torch.Tensor, start: torch.Tensor | None
    ) -> tuple[torch.Tensor, Any]:
        """Run a batch; returns the last token's vectors ``[prompt, layer, hidden]`` and the cache.

        The layers are 0..L, then the final norm.
        """
        cache: Any = None
        if self.cached:
            cache = DynamicCache(config=self._loaded.decoder.config)
            if start is not None:
                cache = copy.deepcopy(self._started(start))
                cache.batch_repeat_interleave(len(tokens))
        return self._step(tokens, cache), cache

    def _started(self, start: torch.Tensor) -> Any:
        """Return the cache after the shots."""
        ids = start[0].tolist()
        if self._shots[0] != ids:
            cache = DynamicCache(config=self._loaded.decoder.config)
            with torch.inference_mode():
                self._loaded.decoder(input_ids=start, past_key_values=cache, use_cache=True)
            self._shots = (ids, cache)
        return self._shots[1]

    def _step(self, tokens: torch.Tensor, cache: Any) -> torch.Tensor:
        last = residuals.capture(self._loaded, lambda hidden: hidden[:, -1])
        with last as layers, torch.inference_mode():
            self._loaded.decoder(
                input_ids=tokens, past_key_values=cache, use_cache=cache is not None
            )
        return torch.stack([layers[layer] for layer in sorted(layers)], dim=1)

    def _answer(
        self, queries: Sequence[Query], tokens: torch.Tensor, final: torch.Tensor, cache: Any
    ) -> list[tuple[bool, str]]:
        """Follow the greedy continuation of each prompt while it can still be a valid answer."""
        written: list[list[int]] = [[] for _ in queries]
        verdicts: list[bool | None] = [None] * len(queries)
        limit = EXTRA_STEPS + max(self._length(form) for q in queries for form in q.answers)
        alive = list(range(len(queries)))
        for _ in range(limit):
            with unembedding.head(self._loaded) as head:
                chosen = head(final).argmax(-1)
            going = []
            for place, number in enumerate(alive):
                token = int(chosen[place])
                ended = token == self._loaded.tokenizer.eos_token_id
                written[number] += [] if ended else [token]
                verdict = self._judge(queries[number], written[number], ended=ended)
                verdicts[number] = verdict
                going += [place] if verdict is None else []
            if not going:
                break
            kept = torch.tensor(going, device=tokens.device)
            alive, following = [alive[place] for place in going], chosen[kept][:, None]
            if cache is not None:
                cache.batch_select_indices(kept)
                final = self._step(following, cache)[:, -1]
            else:
                tokens = torch.cat([tokens[kept], following], dim=1)
                final = self._step(tokens, None)[:, -1]
        return [
            (bool(verdict), self._loaded.tokenizer.decode(ids))
            for verdict, ids in zip(verdicts, written, strict=True)
        ]

    def _judge(self, query: Query, ids: list[int], *, ended: bool) -> bool | None:
        text = self._loaded.tokenizer.decode(ids)
        return judge(f"{text}\n" if ended else text, query.answers, query.closer)

    def _length(self, form: str) -> int:
        return len(self._loaded.tokenizer(form, add_special_tokens=False)["input_ids"])

    def _cache_is_exact(self, sample: Sequence[Query]) -> bool:
        """Tell whether the cache gives the vectors that whole prompts give."""
        found = []
        for cached in (False, True):
            self.cached = cached
            try:
                parts = {
                    number: states
                    for batch, tokens, start in self._batches(sample)
                    for number, states in zip(batch, self._forward(tokens, start)[0], strict=True)
                }
            except Exception as error:  # a model may refuse the cache in any way
                if not cached or loading.is_out_of_memory(error):
                    raise
                return False
            found.append(torch.stack([parts[n] for n in range(len(sample))]).float())
        whole, quick = found
        deviation = (whole - quick).norm(dim=-1) / (whole.norm(dim=-1) + 1e-12)
        return float(deviation.max()) <= SELF_CHECK_TOLERANCE[self._loaded.dtype_name]
