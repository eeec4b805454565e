"""What a cue that is not meaning would give: the same A, with the same test (ADR-015).

For a scalar cue, such as the length of a sentence, the similarity of two texts is −|z − z'|, with z
standardised over the language's texts. For character trigrams it is the cosine of their counts, and
for tokens the Jaccard overlap. A model's alignment is no evidence of shared meaning beyond such a
cue where the cue's own test passes.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from aya_probes.alignment import inference, measures
from aya_probes.alignment.inputs import AlignmentInputs
from aya_probes.extraction.store import Activations
from aya_probes.results.curves import CONCEPT, PRIMARY, SENTENCE, Cue
from aya_probes.stimuli import Stimulus

CueKey = tuple[str, str, str]  # measure, language, cue


@dataclass(frozen=True)
class _Texts:
    """The probes of one language, and how the tokenizer splits them."""

    stimuli: list[Stimulus]
    tokens: list[dict[str, list[int]]]

    def scalar(self, of: Callable[[Stimulus, dict[str, list[int]]], float]) -> np.ndarray:
        """Return a number per text, standardised."""
        found = np.array([of(s, t) for s, t in zip(self.stimuli, self.tokens, strict=True)])
        spread = found.std()
        return (found - found.mean()) / (spread if spread > 0 else 1)

    def trigrams(self, measure: str) -> list[Counter[str]]:
        """Return the character trigrams of the spans (concept) or of the texts (sentence)."""
        found = []
        for stimulus in self.stimuli:
            start, end = stimulus.span or (0, len(stimulus.text))
            text = stimulus.text[start:end] if measure == CONCEPT else stimulus.text
            padded = f"  {text.lower()}  "
            found.append(Counter(padded[n : n + 3] for n in range(len(padded) - 2)))
        return found

    def token_sets(self, measure: str) -> list[set[int]]:
        """Return the token ids of the spans (concept) or of the texts (sentence)."""
        if measure == SENTENCE:
            return [set(record["token_ids"]) for record in self.tokens]
        return [{t["token_ids"][n] for n in t["span_tokens"]} for t in self.tokens]


def _length(stimulus: Stimulus, _: dict[str, list[int]]) -> float:
    return float(np.log(len(stimulus.text)))


def _span_tokens(_: Stimulus, record: dict[str, list[int]]) -> float:
    return float(np.log(len(record["span_tokens"])))


def _position(stimulus: Stimulus, _: dict[str, list[int]]) -> float:
    start, end = stimulus.span or (0, 0)
    return (start + end) / 2 / len(stimulus.text)


SCALARS = {"length": _length, "span tokens": _span_tokens, "span position": _position}


def _similarities(left: _Texts, right: _Texts, measure: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each cue's similarity of all texts ``[text, text]``."""
    for name, of in SCALARS.items():
        a, b = left.scalar(of), right.scalar(of)
        yield name, -np.abs(a[:, None] - b[None])
    yield "trigrams", _cosines(left.trigrams(measure), right.trigrams(measure))
    sets = [texts.token_sets(measure) for texts in (left, right)]
    yield "shared tokens", np.array([[len(a & b) / len(a | b) for b in sets[1]] for a in sets[0]])


def _cosines(left: list[Counter[str]], right: list[Counter[str]]) -> np.ndarray:
    """Return the cosines of all counts of ``left`` with those of ``right`` ``[text, text]``."""
    places = {gram: n for n, gram in enumerate(dict.fromkeys(itertools.chain(*left, *right)))}
    tables = [np.zeros((len(texts), len(places))) for texts in (left, right)]
    for table, texts in zip(tables, (left, right), strict=True):
        for row, counts in zip(table, texts, strict=True):
            row[[places[gram] for gram in counts]] = list(counts.values())
    a, b = map(measures.unit, tables)
    return a @ b.T


def measure(task: AlignmentInputs, loaded: Activations) -> dict[CueKey, Cue]:
    """Return A and its permutation p-value of every cue, for every language with the pivot."""
    if not task.infers:
        return {}
    by_id = {s.stimulus_id: s for s in task.manifest.stimuli}
    texts = {
        code: _Texts(
            [by_id[i] for i in task.probe_ids(code)],
            [loaded.tokens[i] for i in task.probe_ids(code)],
        )
        for code in task.order
    }
    n, k = len(task.concepts), len(task.wordings)
    found = {}
    for name in PRIMARY:
        if name == CONCEPT and k < 2:
            continue
        for code in task.others:
            for cue, table in _similarities(texts[task.suite.pivot], texts[code], name):
                cosine = table.reshape(n, k, n, k).transpose(1, 3, 0, 2)
                matrix = measures.wording_mean(cosine, same_wording=name == SENTENCE)
                null = inference.permutation_null(matrix[None, None], task.orders)
                mean = float(measures.alignment(matrix).mean())
                p = float(null.p()[0, 0])
                found[name, code, cue] = Cue(mean, None if np.isnan(p) else p)
    return found


def length_removed(vectors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return ``vectors [n, k, l, h]`` without what is linear in the log ``lengths [n, k]``."""
    z = np.log(lengths)
    z = (z - z.mean()) / (z.std() or 1)
    centred = vectors - vectors.mean((0, 1), keepdims=True)
    slope = np.einsum("nklh,nk->lh", centred, z) / z.size
    return np.asarray(centred - z[:, :, None, None] * slope, dtype=np.float32)
