"""The behaviour stage on one loaded model: surprisal of texts, comprehension of questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aya_probes import suites
from aya_probes.behaviour import contrasts, run, scoring
from aya_probes.behaviour.frames import Frame, frames_digest
from aya_probes.behaviour.sampling import Question, Sample, choose_questions, choose_texts
from aya_probes.behaviour.scoring import Scores, Tree
from aya_probes.errors import StudyError
from aya_probes.extraction.encoding import max_tokens
from aya_probes.model_stage import Inputs
from aya_probes.models.residuals import LoadedModel
from aya_probes.probes import check_text
from aya_probes.results.behaviour import COMPREHENSION, SURPRISAL, Behaviour
from aya_probes.stage_files import Measured
from aya_probes.stimuli import Stimulus

BEHAVIOUR_VERSION = 1  # raise it when the same inputs would give other rows
TOKEN_BUDGET = {"cpu": 512, "mps": 2048, "cuda": 8192}  # tokens a pack


@dataclass(frozen=True)
class BehaviourStage:
    """Surprisal and comprehension of a sample of the manifest's texts."""

    frames: tuple[Frame, ...]
    """The prompts of comprehension."""
    sample: Sample
    """Which texts are measured."""

    @property
    def name(self) -> str:
        """Name of the stage and of its files."""
        return run.STAGE

    @property
    def version(self) -> int:
        """Version of its method."""
        return BEHAVIOUR_VERSION

    @property
    def settings(self) -> Mapping[str, Any]:
        """What else decides the rows."""
        return {**vars(self.sample), "frames": frames_digest(self.frames)}

    def measure(self, loaded: LoadedModel, inputs: Inputs) -> Measured:
        """Measure one variant; raises StudyError naming a text that cannot be scored."""
        manifest, variant = inputs.manifest, inputs.variant.name
        questions = choose_questions(manifest, self.frames, self.sample)
        texts = choose_texts(manifest, self.sample)
        asked = {s.stimulus_id: s for question in questions for s in question.candidates}
        alone = {s.stimulus_id: s for s in texts} | asked
        try:
            trees = [text_tree(loaded, s.text, s.stimulus_id) for s in alone.values()]
            prompts = [question_tree(loaded, question) for question in questions]
            scores = score_all(loaded, [*trees, *prompts], inputs.announce, inputs.progress)
        except StudyError as error:
            raise StudyError(f"variant {variant}: stimulus {error}") from None
        found = dict(zip(alone, scores, strict=False))
        rows = [surprisal_row(s, found[s.stimulus_id][0], variant) for s in texts]
        prior = {name: float(values[0].sum()) for name, values in found.items()}
        pmi = []
        for question, branches in zip(questions, scores[len(trees) :], strict=True):
            pmi.append(pmi_of(branches, [prior[c.stimulus_id] for c in question.candidates]))
            rows.append(comprehension_row(question, branches[0], pmi[-1], variant))
        return Measured([vars(row) for row in rows], contrasts.pack_pmi(pmi))


def score_all(
    loaded: LoadedModel,
    trees: Sequence[Tree],
    announce: Callable[[int, str], object],
    progress: Callable[[int], object],
) -> list[Scores]:
    """Return the scores of all trees, in their order, many at a time."""
    if not trees:
        return []
    limit = max_tokens(loaded)
    for tree in trees:
        longest = len(tree.prefix) + max(map(len, tree.branches))
        if longest > limit:
            raise StudyError(
                f"{tree.name}: {longest} tokens with its prompt, the model takes {limit}; shorten "
                "its text"
            )
    way = scoring.choose_way(loaded, trees)
    announce(sum(len(tree.tokens) for tree in trees), "token")
    scores: list[Scores | None] = [None] * len(trees)
    for pack in scoring.make_packs(trees, TOKEN_BUDGET[loaded.device.type]):
        for number, found in zip(
            pack, scoring.score(loaded, [trees[n] for n in pack], way), strict=True
        ):
            scores[number] = found
        progress(sum(len(trees[n].tokens) for n in pack))
    return [found for found in scores if found is not None]


def _first_token(loaded: LoadedModel) -> tuple[int, ...]:
    """Return the token that begins a text: BOS, or else the end-of-text token; or none."""
    tokenizer = loaded.tokenizer
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return (int(token),)
    return ()


def text_tree(loaded: LoadedModel, text: str, name: str) -> Tree:
    """Return a text as a tree: the token that begins a text, then its tokens as one branch.

    All its tokens are scored where the tokenizer has a BOS or end-of-text token; otherwise all but
    the first. Raises StudyError for a text that is empty, not valid UTF-8, or without tokens.
    """
    check_text(text, name, "give a text that can be scored")
    out = loaded.tokenizer(text, return_special_tokens_mask=True)
    pairs = zip(out["input_ids"], out["special_tokens_mask"], strict=True)
    tokens = tuple(token for token, special in pairs if not special)
    prefix = _first_token(loaded)
    if not prefix:
        prefix, tokens = tokens[:1], tokens[1:]
    if not tokens:
        raise StudyError(f"{name}: the tokenizer leaves no token to score of {text[:60]!r}")
    return Tree(name, prefix, (tokens,))


def question_tree(loaded: LoadedModel, question: Question) -> Tree:
    """Return a question as a tree: the prompt, then each candidate as a branch.

    Prompt and candidate are tokenised together. A token that crosses from one to the other belongs
    to the candidate.
    """
    known = suites.load_languages()
    text = question.text
    prompt = question.frame.fill(text.text, known[text.language].name, known[question.target].name)
    whole, before = [], []
    for candidate in question.candidates:
        out = loaded.tokenizer(
            f"{prompt} {candidate.text}",
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        kept = [
            (token, end)
            for token, (_, end), special in zip(
                out["input_ids"], out["offset_mapping"], out["special_tokens_mask"], strict=True
            )
            if not special
        ]
        whole.append([token for token, _ in kept])
        before.append(sum(end <= len(prompt) for _, end in kept))
    shared = min(before)
    while any(ids[:shared] != whole[0][:shared] for ids in whole):
        shared -= 1
    first = _first_token(loaded)
    name = f"{text.stimulus_id} in frame {question.frame.name}"
    return Tree(name, first + tuple(whole[0][:shared]), tuple(tuple(ids[shared:]) for ids in whole))


def surprisal_row(text: Stimulus, values: np.ndarray, variant: str) -> Behaviour:
    """Return the row of a text whose tokens have the log-likelihoods ``values [token]``."""
    return _row(text, SURPRISAL, -float(values.sum()), len(values), text, variant=variant)


def pmi_of(branches: Scores, unconditional: Sequence[float]) -> np.ndarray:
    """Return log P(candidate | prompt) − log P(candidate), ``[candidate]``.

    ``branches`` holds the log-likelihoods of each candidate's tokens after the prompt, and
    ``unconditional`` the log-likelihood of each as a text of its own.
    """
    return np.array([branch.sum() for branch in branches]) - np.array(unconditional)


def comprehension_row(
    question: Question, right: np.ndarray, pmi: np.ndarray, variant: str
) -> Behaviour:
    """Return the row of a question.

    ``right`` holds the log-likelihoods of the right sentence's tokens after the prompt, and
    ``pmi [candidate]`` that of all candidates, the right one first.
    """
    best = np.isclose(pmi, pmi.max(), rtol=0, atol=1e-9)
    return _row(
        question.text,
        COMPREHENSION,
        -float(right.sum()),
        len(right),
        question.candidates[0],
        variant=variant,
        target=question.target,
        frame=question.frame.name,
        pmi=_round(pmi[0]),
        margin=_round(pmi[0] - pmi[1:].mean()),
        lead=_round(pmi[0] - pmi[1:].max()),
        correct=_round(best[0] / best.sum()),
        choice="+".join(c.item_id for c, won in zip(question.candidates, best, strict=True) if won),
        chance=_round(1 / len(pmi)),
    )


def _row(
    text: Stimulus, measure: str, nats: float, tokens: int, predicted: Stimulus, **other: Any
) -> Behaviour:
    size = len(predicted.text.encode())
    empty: dict[str, Any] = dict.fromkeys(("pmi", "margin", "lead", "correct", "chance"))
    values: dict[str, Any] = {"target": "", "frame": "", "choice": "", **empty, **other}
    return Behaviour(
        stimulus_id=text.stimulus_id,
        kind=text.kind,
        item_id=text.item_id,
        language=text.language,
        measure=measure,
        nats=_round(nats),
        tokens=tokens,
        bytes=size,
        nats_per_token=_round(nats / tokens),
        nats_per_byte=_round(nats / size),
        **values,
    )


def _round(value: float) -> float:
    """Return a number with 7 significant digits: more would be rounding error of float32."""
    assert math.isfinite(value)
    return float(f"{float(value):.7g}")
