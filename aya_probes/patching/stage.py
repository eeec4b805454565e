"""The half of the patching stage that runs a model: accuracy, then patches where it is testable.

Arrays of a target language, ``[..., language, concept]`` being log P of the first tokens of each
concept's word in each language, NaN where a word has no token of its own:

``<target>/onward``  ``[condition, layer, concept put in, language, concept]``, layers 0..L − 1:
    each patch is at layer l and all above; conditions as in the row's ``conditions``;
``<target>/single``  the same for the mean over source languages, at layer l only;
``<target>/before``  ``[concept put in, language, concept]``: the same prompts as they are;
``sentence-<language>/turned`` and ``/moved``  the second test, at the last token of cloze prompts:
    a sentence turned into the pivot, and a sentence of the pivot into which another was put.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from aya_probes import prompts
from aya_probes.lens import accuracy, words
from aya_probes.lens.reading import Reader, judge
from aya_probes.lens.words import FirstTokens
from aya_probes.model_stage import Inputs
from aya_probes.models.residuals import LoadedModel
from aya_probes.patching import design, donors, engine, generation, self_check, vectors
from aya_probes.patching.design import Asked
from aya_probes.patching.engine import Setup
from aya_probes.probes import Concept
from aya_probes.prompts import LEAST_CONCEPTS, Cell, Prompts, Query
from aya_probes.stage_files import Measured

PATCHING_VERSION = 1  # raise it when the same inputs would give other rows
EXACT_STEPS = 12  # tokens of an answer that are written after a patch
EXACT_LAYERS = 4  # layers at which whole answers are written


@dataclass(frozen=True)
class PatchingStage:
    """The patching stage, as ``model_stage.run_stages`` runs it."""

    prompts: Prompts
    """The frames, for the run's languages."""
    concepts: Sequence[Concept]
    """The concepts asked for."""
    pivot: str
    """Language into which every other one is translated, and from which it is."""
    targets: Sequence[str]
    """Languages of the answers that are tried."""
    sources: Sequence[str]
    """Languages whose vectors are put in."""
    shots: int
    """Shots of a prompt."""
    seed: int
    """Seed of the shots, the pairs of concepts and the random vectors."""
    name: str = field(default="patching", init=False)
    version: int = field(default=PATCHING_VERSION, init=False)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages whose words are looked for."""
        return tuple(self.prompts.frames)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides the rows beside the manifest and the weights."""
        return {
            **prompts.asked_settings(self.prompts, self.concepts, self.shots, self.seed),
            "pivot": self.pivot,
            "targets": list(self.targets),
            "sources": list(self.sources),
        }

    def measure(self, loaded: LoadedModel, inputs: Inputs) -> Measured:
        """Ask for every target, and patch the prompts of those that the model can answer."""
        forms = prompts.word_forms(self.concepts, self.languages)
        firsts = words.first_tokens(loaded.tokenizer, forms, self.languages)
        with self_check.unchanged(loaded, inputs.variant.name):
            return _Measurement(self, loaded, inputs, firsts).run()


@dataclass(frozen=True)
class _Answered:
    """The queries of a cell, one a concept, and what the model did with them."""

    cell: Cell
    queries: list[Query]
    half: np.ndarray
    correct: list[bool]
    states: torch.Tensor
    """Residual stream at the last token, ``[concept, layer, hidden]``."""

    @property
    def ids(self) -> list[str]:
        return [query.concept_id for query in self.queries]

    @property
    def testable(self) -> bool:
        return accuracy.above_chance([float(c) for c in self.correct])


class _Measurement:
    """The measurement of one model."""

    def __init__(
        self, stage: PatchingStage, loaded: LoadedModel, inputs: Inputs, firsts: FirstTokens
    ) -> None:
        self._stage, self._loaded, self._inputs, self._firsts = stage, loaded, inputs, firsts
        first = next(code for code in stage.languages if code != stage.pivot)
        sample, _ = self._queries(Cell("translation", first, stage.pivot))
        self._reader = Reader(loaded, sample[:3])
        prompts_ = design.tokenise(loaded, sample).prompts
        way = self_check.choose_way(loaded, prompts_, inputs.variant.name)
        self._setup = Setup(loaded, way)
        self._rows: list[dict[str, Any]] = []
        self._arrays: dict[str, np.ndarray] = {}

    def run(self) -> Measured:
        """Measure every target, then sentences."""
        stage = self._stage
        into = [Cell("translation", a, stage.pivot) for a in stage.languages if a != stage.pivot]
        out = [Cell("translation", stage.pivot, b) for b in stage.targets if b != stage.pivot]
        cells = (into if stage.pivot in stage.targets else []) + out
        cells += [Cell("cloze", code, code) for code in (stage.pivot, *self._others())]
        self._inputs.announce(len(cells) * len(stage.concepts), "prompt")
        answered = [self._ask(cell) for cell in cells]
        self._rows.append(
            {
                "kind": "tokens",
                "way": self._setup.way,
                "languages": list(self._firsts.languages),
                "concepts": list(self._firsts.concepts),
                "usable": {a: self._firsts.usable(a) for a in self._firsts.languages},
                "layers": self._loaded.n_blocks,
            }
        )
        chosen = [self._choose(code, answered) for code in stage.targets]
        cloze = {a.cell.target: a for a in answered if a.cell.task == "cloze"}
        ready = [a for a in chosen if self._record(a)]
        turning = [a for a in cloze.values() if self._record(a) and a.cell.target != stage.pivot]
        if stage.pivot not in cloze or not cloze[stage.pivot].testable:
            turning = []
        work = len(ready) + len(turning)
        self._inputs.announce(work * self._loaded.n_blocks, "layer")
        streams = self._streams() if ready else {}
        for one in ready:
            self._patch(one, streams)
        for one in turning:
            self._turn(one, cloze[stage.pivot])
        return Measured(self._rows, self._arrays)

    def _others(self) -> list[str]:
        return [code for code in self._stage.sources if code != self._stage.pivot]

    def _queries(self, cell: Cell) -> tuple[list[Query], np.ndarray]:
        stage = self._stage
        return design.one_a_concept(
            stage.prompts, stage.concepts, cell, shots=stage.shots, seed=stage.seed
        )

    def _ask(self, cell: Cell) -> _Answered:
        queries, half = self._queries(cell)
        readings = self._reader.read(queries, self._inputs.progress)
        states = torch.stack([reading.states for reading in readings])
        return _Answered(cell, queries, half, [r.correct for r in readings], states)

    def _choose(self, target: str, answered: Sequence[_Answered]) -> _Answered:
        """Return the translations into ``target`` that are answered best, the first of equals."""
        found = [a for a in answered if a.cell.task == "translation" and a.cell.target == target]
        return max(found, key=lambda a: sum(a.correct) / len(a.correct))

    def _record(self, one: _Answered) -> bool:
        """Add the accuracy of a cell, and return whether it can be tested."""
        usable = self._firsts.usable(one.cell.target)
        tested = one.testable and len(set(usable) & set(one.ids)) >= LEAST_CONCEPTS
        self._rows.append(
            {
                "kind": "cell",
                "task": one.cell.task,
                "target": one.cell.target,
                "given": one.cell.source,
                "correct": sum(one.correct),
                "asked": len(one.correct),
                "usable": len(set(usable) & set(one.ids)),
                "testable": tested,
            }
        )
        return tested

    def _streams(self) -> dict[str, tuple[list[str], torch.Tensor]]:
        """Return concept ids and the stream at the word of repetitions, by source language.

        A repetition asks for the answer in its own language: if the vectors carried that, the
        patched prompt would answer in it.
        """
        found = {}
        for code in self._stage.sources:
            queries, _ = self._queries(Cell("repetition", code, code))
            asked = design.tokenise(self._loaded, queries)
            ids = [query.concept_id for query in queries]
            found[code] = (ids, engine.capture(self._setup, asked.prompts))
        return found

    def _patch(self, one: _Answered, streams: Mapping[str, tuple[list[str], torch.Tensor]]) -> None:
        """Patch the prompts of one target."""
        stage, target = self._stage, one.cell.target
        mine = {c: s for c, s in streams.items() if c not in (target, one.cell.source)}
        kept = [n for n, c in enumerate(one.ids) if all(c in ids for ids, _ in mine.values())]
        ids = [one.ids[n] for n in kept]
        asked = design.tokenise(self._loaded, [one.queries[n] for n in kept])
        donor = torch.from_numpy(donors.donors(one.half[kept], stage.seed))
        given = {c: s[[known.index(i) for i in ids]] for c, (known, s) in mine.items()}
        own = engine.capture(self._setup, asked.prompts)
        named = vectors.sources(given, own, donor)
        named |= vectors.controls(given, own, donor, stage.seed)
        names, stacked = vectors.stack(named)
        place = names.index(f"{vectors.MEAN}:{vectors.ALL_SOURCES}")
        layers = range(self._loaded.n_blocks)
        run = functools.partial(engine.patched, self._setup, asked.prompts, read=self._read)
        onward = self._pool(run(stacked, layers=layers, onward=True))
        single = self._pool(run(stacked[:, [place]], layers=layers, onward=False))
        before = self._pool(engine.unpatched(self._setup, asked.prompts, self._read))
        order = donor.argsort().numpy()  # the prompt into which each concept was put
        self._keep(target, "onward", onward[order].transpose(1, 2, 0, 3, 4))
        self._keep(target, "single", single[order].transpose(1, 2, 0, 3, 4))
        self._keep(target, "before", before[order])
        self._rows.append(
            {
                "kind": "patch",
                "target": target,
                "given": one.cell.source,
                "sources": list(mine),
                "conditions": names,
                "concepts": ids,
                "asked": [ids[n] for n in order],
                "exact": self._exact(asked, stacked[:, place], donor.tolist()),
            }
        )
        self._inputs.progress(len(layers))

    def _keep(self, target: str, name: str, table: np.ndarray) -> None:
        self._arrays[f"{target}/{name}"] = np.ascontiguousarray(table, dtype=np.float32)

    def _read(self, logits: torch.Tensor) -> torch.Tensor:
        chosen = torch.tensor(self._firsts.vocabulary, device=logits.device)
        return logits[:, chosen] - logits.logsumexp(-1, keepdim=True)

    def _pool(self, log_p: torch.Tensor) -> np.ndarray:
        """Return ``[..., language, concept]`` of ``[..., token]``."""
        firsts = self._firsts
        groups = [firsts.tokens[c, code] for code in firsts.languages for c in firsts.concepts]
        pooled = words.pool(log_p.numpy(), firsts.vocabulary, groups)
        return pooled.reshape(*log_p.shape[:-1], len(firsts.languages), len(firsts.concepts))

    def _exact(
        self, asked: Asked, patch: torch.Tensor, donor: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Return how often the whole word of the concept put in, or asked for, is written."""
        depth = self._loaded.n_blocks
        found = []
        for layer in sorted({depth * part // EXACT_LAYERS for part in range(EXACT_LAYERS)}):
            start = generation.Start(patch, layer, onward=True)
            answers = generation.continue_greedily(self._setup, asked.prompts, EXACT_STEPS, start)
            texts = [self._loaded.tokenizer.decode(answer) for answer in answers]
            count = {"layer": layer, "moved": 0, "kept": 0, "n": len(texts)}
            for n, text in enumerate(texts):
                closer = asked.queries[n].closer
                moved = judge(f"{text}\n", asked.queries[donor[n]].answers, closer)
                count["moved"] += bool(moved)
                count["kept"] += bool(judge(f"{text}\n", asked.queries[n].answers, closer))
            found.append(count)
        return found

    def _turn(self, one: _Answered, pivot: _Answered) -> None:
        """Turn sentences of a language into the pivot, and put them into the pivot's sentences."""
        ids = [c for c in pivot.ids if c in one.ids]
        here, there = ([a.ids.index(c) for c in ids] for a in (one, pivot))
        mine, other = one.states[here], pivot.states[there]
        donor = torch.from_numpy(donors.donors(pivot.half[there], self._stage.seed))
        order = donor.argsort().numpy()
        turned = vectors.turned(mine, other, donor, self._stage.seed)
        moved = vectors.sentence(mine, other, donor)
        layers = range(self._loaded.n_blocks)
        key = f"sentence-{one.cell.target}"
        row: dict[str, Any] = {"kind": "sentence", "language": one.cell.target, "concepts": ids}
        row["pivot"] = self._stage.pivot
        for name, queries, made, rows in (
            ("turned", [one.queries[n] for n in here], turned, np.arange(len(ids))),
            ("moved", [pivot.queries[n] for n in there], moved, order),
        ):
            asked = design.tokenise(self._loaded, queries, "last")
            names, stacked = vectors.stack(made)
            after = self._pool(
                engine.patched(
                    self._setup, asked.prompts, stacked, self._read, layers=layers, onward=False
                )
            )
            before = self._pool(engine.unpatched(self._setup, asked.prompts, self._read))
            self._keep(key, name, after[rows].transpose(1, 2, 0, 3, 4))
            self._keep(key, f"{name}-before", before[rows])
            row[name] = list(names)
        self._rows.append(row | {"asked": [ids[n] for n in order]})
        self._inputs.progress(len(layers))
