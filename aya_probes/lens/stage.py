"""The half of the lens stage that runs a model: accuracy, then both lenses where it is testable.

One row a cell (a task from a language into a language), and arrays for each testable one:

``<cell>/plain`` and ``<cell>/fitted``  ``[concept asked, layer, language, concept]``: log of the
    summed exponentials of the logits of a concept's first tokens; the log probability up to a
    constant of the prompt and layer, which every comparison within a prompt removes. NaN where a
    concept's word has no token of its own. Mean over the prompts of the concept asked.
``<cell>/probability``  ``[prompt, layer, language]``: of the word of the concept asked.
``<cell>/control``  ``[prompt, layer, 2]``: of another concept's word in the pivot language, matched
    in length and frequency, and the mean over all other concepts' words there.
``<cell>/spread``  ``[prompt, layer, 3]``: entropy in nats, rank of the best token of the target's
    word (1 is first), and Jensen-Shannon divergence from the model's own output in nats.

Layers are 0..L. The last three need the whole vocabulary, and a few prompts a cell give them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from aya_probes import prompts
from aya_probes.errors import StudyError
from aya_probes.lens import accuracy, fitted, words
from aya_probes.lens.reading import Reader, Reading
from aya_probes.lens.words import FirstTokens
from aya_probes.model_stage import Inputs
from aya_probes.models import unembedding
from aya_probes.models.residuals import LoadedModel
from aya_probes.probes import Concept
from aya_probes.prompts import Cell, Prompts, Query
from aya_probes.stage_files import Measured

LENS_VERSION = 1  # raise it when the same inputs would give other rows
WHOLE_VOCABULARY = 8  # prompts of a cell whose whole distribution is computed at each layer
SAMPLE = 3  # prompts on which the cache is checked


@dataclass(frozen=True)
class LensStage:
    """The lens stage, as ``model_stage.run_stages`` runs it."""

    prompts: Prompts
    """The frames, for the run's languages."""
    concepts: Sequence[Concept]
    """The concepts asked for."""
    cells: Sequence[Cell]
    """What is asked."""
    pivot: str
    """The language whose words the controls come from, and the hypothesis is about."""
    shots: int
    """Shots of a prompt."""
    seed: int
    """Seed of the shots."""
    name: str = field(default="lens", init=False)
    version: int = field(default=LENS_VERSION, init=False)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages whose words are looked for."""
        return tuple(self.prompts.frames)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides the rows beside the manifest and the weights."""
        return {
            **prompts.asked_settings(self.prompts, self.concepts, self.shots, self.seed),
            "cells": [f"{c.task}-{c.source}-{c.target}" for c in self.cells],
            "pivot": self.pivot,
        }

    def measure(self, loaded: LoadedModel, inputs: Inputs) -> Measured:
        """Ask every cell, and read the layers of those that the model can answer.

        Raises StudyError for a model without an unembedding, and if fewer than 8 words of the
        pivot begin unambiguously.
        """
        forms = prompts.word_forms(self.concepts, self.languages)
        firsts = words.first_tokens(loaded.tokenizer, forms, self.languages)
        words.check_enough(firsts, self.pivot)
        return _Measurement(self, loaded, inputs, firsts).run()


@dataclass(frozen=True)
class _Asked:
    """The prompts of a cell, and what the model did with them."""

    queries: list[Query]
    readings: list[Reading]

    def rates(self) -> dict[str, float]:
        """Return the share of right answers by concept."""
        right: dict[str, list[bool]] = {}
        for query, reading in zip(self.queries, self.readings, strict=True):
            right.setdefault(query.concept_id, []).append(reading.correct)
        return {name: sum(some) / len(some) for name, some in sorted(right.items())}


class _Measurement:
    """The measurement of one model."""

    def __init__(
        self, stage: LensStage, loaded: LoadedModel, inputs: Inputs, firsts: FirstTokens
    ) -> None:
        self._stage, self._loaded, self._inputs, self._firsts = stage, loaded, inputs, firsts
        sample = self._queries(stage.cells[0], [0])[:SAMPLE]
        self._reader = Reader(loaded, sample)
        self._lens: fitted.FittedLens | None = None
        self._rows: list[dict[str, Any]] = []
        self._arrays: dict[str, np.ndarray] = {}

    def run(self) -> Measured:
        """Measure every cell; the lens is fitted when the first one is testable."""
        self._rows.append(
            {
                "kind": "tokens",
                "languages": list(self._firsts.languages),
                "concepts": list(self._firsts.concepts),
                "usable": {a: self._firsts.usable(a) for a in self._firsts.languages},
                "shared_language": dict(self._firsts.shared_language),
                "shared_concept": dict(self._firsts.shared_concept),
                "layers": self._loaded.n_blocks + 1,
                "cached": self._reader.cached,
            }
        )
        first = [self._queries(cell, [0]) for cell in self._stage.cells]
        self._inputs.announce(2 * sum(map(len, first)), "prompt")
        for cell, queries in zip(self._stage.cells, first, strict=True):
            self._measure(cell, queries)
        return Measured(self._rows, self._arrays)

    def _queries(self, cell: Cell, frames: Sequence[int]) -> list[Query]:
        return prompts.make_queries(
            self._stage.prompts,
            self._stage.concepts,
            cell,
            frames=frames,
            shots=self._stage.shots,
            seed=self._stage.seed,
        )

    def _measure(self, cell: Cell, queries: list[Query]) -> None:
        asked = _Asked(queries, self._reader.read(queries, self._inputs.progress))
        if any(reading.correct for reading in asked.readings):
            more = self._other_frames(cell, queries)
            readings = self._reader.read(more, self._inputs.progress)
            asked = _Asked(queries + more, asked.readings + readings)
        else:  # no answer is right in the first frame: the others are not asked
            self._inputs.progress(len(queries))
        rates = asked.rates()
        usable = [name for name in self._firsts.usable(cell.target) if name in rates]
        enough = len(usable) >= prompts.LEAST_CONCEPTS
        testable = enough and accuracy.above_chance(list(rates.values()))
        name = f"{cell.task}-{cell.source}-{cell.target}"
        self._rows.append(
            {
                "kind": "cell",
                "cell": name,
                "task": cell.task,
                "source": cell.source,
                "target": cell.target,
                "prompts": len(asked.queries),
                "rates": rates,
                "testable": testable,
                "words": len(usable),
                "answers": {
                    query.concept_id: reading.answer
                    for query, reading in zip(queries, asked.readings, strict=False)
                },
            }
        )
        if testable:
            self._read_layers(name, cell, asked)

    def _other_frames(self, cell: Cell, queries: Sequence[Query]) -> list[Query]:
        """Return each concept in one further frame: the halves take the other frames in turn.

        So every frame is used, and the shots of a frame run for one half only.
        """
        half = [q.concept_id for q in queries if q.shots == queries[0].shots]
        count = len(self._stage.prompts.frames[cell.target][cell.task])
        mine, others = (1 % count, 2 % count)
        chosen = [q for q in self._queries(cell, [mine]) if q.concept_id in half]
        return chosen + [q for q in self._queries(cell, [others]) if q.concept_id not in half]

    def _read_layers(self, name: str, cell: Cell, asked: _Asked) -> None:
        """Add the arrays of a testable cell."""
        concepts = sorted({query.concept_id for query in asked.queries})
        states = torch.stack([reading.states for reading in asked.readings])
        owner = np.array([concepts.index(query.concept_id) for query in asked.queries])
        lens = self._fit()
        for kind, vectors in (("plain", states), ("fitted", lens.apply(states))):
            table = self._log_odds(vectors)  # [prompt, layer, language, concept]
            mean = np.stack([table[owner == n].mean(0) for n in range(len(concepts))])
            self._arrays[f"{name}/{kind}"] = mean.astype(np.float32)
        chosen = np.linspace(0, len(asked.queries) - 1, min(WHOLE_VOCABULARY, len(asked.queries)))
        self._whole(name, cell, asked, [round(n) for n in chosen])

    def _fit(self) -> fitted.FittedLens:
        if self._lens is None:
            states, owners = fitted.corpus_states(self._loaded, self._inputs.manifest)
            self._lens = fitted.fit(states, owners)
            far = fitted.divergence(self._loaded, self._lens, states, owners)
            self._rows.append(
                {
                    "kind": "fit",
                    "tokens": len(states),
                    "penalty": list(self._lens.penalty),
                    "r2_plain": list(self._lens.r2_plain),
                    "r2_fitted": list(self._lens.r2),
                    "kl_plain": list(far.plain),
                    "kl_fitted": list(far.fitted),
                }
            )
        return self._lens

    def _log_odds(self, states: torch.Tensor) -> np.ndarray:
        """Return ``[prompt, layer, language, concept]`` of ``states [prompt, layer, hidden]``."""
        vocabulary = self._firsts.vocabulary
        flat = unembedding.normed(self._loaded, states.flatten(0, 1).to(self._loaded.device))
        with unembedding.head(self._loaded, vocabulary) as head:
            logits = head(flat).cpu().numpy()
        groups = [
            self._firsts.tokens[concept, language]
            for language in self._firsts.languages
            for concept in self._firsts.concepts
        ]
        pooled = words.pool(logits, vocabulary, groups)
        shape = (len(self._firsts.languages), len(self._firsts.concepts))
        return pooled.reshape(*states.shape[:2], *shape)

    def _whole(self, name: str, cell: Cell, asked: _Asked, chosen: Sequence[int]) -> None:
        """Add what needs the whole vocabulary, for the ``chosen`` prompts of a cell."""
        controls = words.matched_controls(self._firsts, self._stage.concepts, self._stage.pivot)
        found: dict[str, list[np.ndarray]] = {"probability": [], "control": [], "spread": []}
        with unembedding.head(self._loaded) as head:
            for number in chosen:
                states = asked.readings[number].states.to(self._loaded.device)
                logs = torch.log_softmax(head(unembedding.normed(self._loaded, states)), -1)
                concept = asked.queries[number].concept_id
                mine = [self._firsts.tokens[concept, a] for a in self._firsts.languages]
                found["probability"].append(_summed(logs, mine))
                others = [
                    self._firsts.tokens[c, self._stage.pivot]
                    for c in self._firsts.concepts
                    if c != concept
                ]
                everyone = np.nanmean(_summed(logs, others), axis=-1)
                matched = _summed(logs, [self._firsts.tokens[controls[concept], self._stage.pivot]])
                found["control"].append(np.stack([matched[:, 0], everyone], axis=-1))
                target = self._firsts.tokens[concept, cell.target]
                found["spread"].append(_spread(logs, target))
        for kind, values in found.items():
            self._arrays[f"{name}/{kind}"] = np.stack(values).astype(np.float32)


def _summed(logs: torch.Tensor, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the summed probability of each group of tokens, ``[layer, group]``; NaN for none."""
    out = np.full((len(logs), len(groups)), np.nan)
    for number, group in enumerate(groups):
        if group:
            out[:, number] = logs[:, list(group)].exp().sum(-1).cpu().numpy()
    return out


def _spread(logs: torch.Tensor, target: Sequence[int]) -> np.ndarray:
    """Return entropy, rank of the best target token and JSD to the last layer, ``[layer, 3]``."""
    probabilities = logs.exp()
    entropy = -(probabilities * logs).sum(-1)
    if target:
        best = logs[:, list(target)].amax(-1, keepdim=True)
        rank = (logs > best).sum(-1).float() + 1
    else:
        rank = torch.full_like(entropy, math.nan)
    middle = torch.logaddexp(logs, logs[-1:]) - math.log(2)
    own = (probabilities * (logs - middle)).sum(-1)
    output = (probabilities[-1:] * (logs[-1:] - middle)).sum(-1)
    return torch.stack([entropy, rank, (own + output) / 2], dim=-1).cpu().numpy()


def default_cells(languages: Sequence[str], pivot: str, sources: Sequence[str]) -> list[Cell]:
    """Return the cells of a run.

    Translation from each source language into every other one, translation into the pivot from
    every language, then repetition and cloze in every language.
    """
    pairs = [(a, b) for a in sources for b in languages if b not in (a, pivot) and a != pivot]
    pairs += [(a, pivot) for a in languages if a != pivot]
    cells = [Cell("translation", a, b) for a, b in pairs]
    cells += [Cell("repetition", a, a) for a in languages]
    return cells + [Cell("cloze", a, a) for a in languages]


def choose_sources(languages: Sequence[str], pivot: str, asked: Sequence[str] | None) -> list[str]:
    """Return the source languages of translations: those asked for, or fr and es, or the first two.

    Raises StudyError for a language that the run has not.
    """
    others = [code for code in languages if code != pivot]
    for code in asked or ():
        if code not in others:
            raise StudyError(f"--sources: {code} is none of {', '.join(others)}")
    preferred: list[str] = [code for code in others if code in ("fr", "es")]
    return list(asked) if asked else (preferred or others[:2])
