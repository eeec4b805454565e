"""What is not meaning: a planted length cue passes and a shuffled one does not; length goes out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from aya_probes import suites
from aya_probes.alignment import cues, inference, measures
from aya_probes.alignment.inputs import AlignmentInputs
from aya_probes.results.curves import CONCEPT, SENTENCE, Cue
from tests import planted_stage

N, K, L, H = 12, 2, 3, 24
SUITE = suites.Suite("planted", "en", ("en", "hi"), "cldr", (suites.Variant("base", "base"),))
LETTERS = {"en": "abcdefghijklmnopqrstuvwxyz", "hi": "कखगघचछजझटठडढणतथदधनपफबभमयरलव"}


def texts(seed: int, lengths: dict[str, np.ndarray], *, draws: int = 199) -> AlignmentInputs:
    """Return a study whose texts are random letters of ``lengths [concept, wording]``."""
    rng = np.random.default_rng(seed)

    def text(language: str, concept: int, wording: int) -> str:
        size = int(lengths[language][concept - 1, wording - 1])
        return "".join(rng.choice(list(LETTERS[language]), size=size))

    made = planted_stage.manifest(SUITE, concepts=N, wordings=K, text=text)
    return planted_stage.inputs(made, draws=draws, seed=seed)


def tokens(task: AlignmentInputs, **of: dict[str, Any]) -> Any:
    """Return activations with a token of its own for each text, or those of ``of``."""
    records = {
        s.stimulus_id: {"token_ids": [n], "span_tokens": [0]}
        for n, s in enumerate(task.manifest.stimuli)
    }
    for code, table in of.items():
        records |= {s: table[s] for s in task.probe_ids(code)}
    return SimpleNamespace(tokens=records)


def by_concept(seed: int) -> np.ndarray:
    """Return lengths that differ by concept, and little by wording."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.permutation(np.arange(N) + 3)[:, None] + rng.integers(0, 2, (N, K)))


def measured(task: AlignmentInputs, loaded: Any = None) -> dict[tuple[str, str], Cue]:
    found = cues.measure(task, loaded or tokens(task))
    return {(measure, cue): value for (measure, _, cue), value in found.items()}


def test_concepts_that_are_long_in_both_languages_are_a_cue() -> None:
    long = by_concept(0)
    found = measured(texts(0, {"en": long, "hi": 2 * long}))
    for measure in (CONCEPT, SENTENCE):
        assert found[measure, "length"].passes
        assert found[measure, "length"].alignment > 0.5  # SD of log length
        for other in ("trigrams", "shared tokens"):  # other scripts and other tokens
            assert not found[measure, other].passes
    assert found[CONCEPT, "span position"].passes  # the span is at the start: of long texts, nearer


def test_shuffled_lengths_pass_at_the_nominal_rate() -> None:
    names = ("length", "span position")
    passed = dict.fromkeys(names, 0)
    for seed in range(40):
        found = measured(texts(seed, {"en": by_concept(seed), "hi": by_concept(1_000 + seed)}))
        for name in names:
            passed[name] += found[CONCEPT, name].passes
    assert max(passed.values()) <= stats.binom.ppf(0.999, 40, 0.05)


def test_a_cue_is_the_alignment_of_its_similarity_term_by_term() -> None:
    lengths = {"en": by_concept(1), "hi": by_concept(2)}
    task = texts(1, lengths)
    z = {
        code: stats.zscore(np.log(table.astype(int)), axis=None) for code, table in lengths.items()
    }
    matrix = np.zeros((N, N))
    for i in range(N):
        for j in range(N):
            matrix[i, j] = -np.mean([abs(z["en"][i, k] - z["hi"][j, 1 - k]) for k in range(K)])
    found = measured(task)[CONCEPT, "length"]
    assert found.alignment == pytest.approx(measures.alignment(matrix).mean())
    p = inference.permutation_p(matrix[None], task.orders)[0]
    assert found.p == pytest.approx(p)


def test_words_and_tokens_that_both_languages_write_alike_are_cues() -> None:
    lengths = {"en": by_concept(3), "hi": by_concept(4)}
    names = ["radio", "pizza", "yoga", "taxi", "hotel", "bank", "coffee", "video", "euro", "judo"]
    names += ["samba", "opera"]

    def text(language: str, concept: int, wording: int) -> str:
        size = int(lengths[language][concept - 1, wording - 1])
        return LETTERS[language][0] * size + names[concept - 1]

    task = planted_stage.inputs(
        planted_stage.manifest(SUITE, concepts=N, wordings=K, text=text), draws=199
    )
    pieces = {
        code: {
            f"C{c + 1:02d}-{code}-{k + 1}": {
                "token_ids": [1_000 + n, 100 + c, 200 + c],
                "span_tokens": [1] if code == "en" else [1, 2],
            }
            for c in range(N)
            for k in range(K)
        }
        for n, code in enumerate(("en", "hi"))
    }
    found = measured(task, tokens(task, **pieces))
    assert found[SENTENCE, "trigrams"].passes
    assert not found[CONCEPT, "trigrams"].passes  # the span is the first letter alone
    assert found[CONCEPT, "shared tokens"].alignment == pytest.approx(0.5 * 11 / 12)  # 1 of 2
    assert found[SENTENCE, "shared tokens"].alignment == pytest.approx(0.5 * 11 / 12)  # 2 of 4
    assert found[CONCEPT, "shared tokens"].passes
    assert found[CONCEPT, "span tokens"].p is None  # every concept has as many
    assert not found[CONCEPT, "span tokens"].passes


def test_cues_need_four_concepts_and_for_concepts_two_wordings() -> None:
    few = planted_stage.manifest(SUITE, concepts=3, wordings=2)
    assert measured(planted_stage.inputs(few), SimpleNamespace(tokens={})) == {}
    one = planted_stage.inputs(planted_stage.manifest(SUITE, concepts=N, wordings=1))
    assert {measure for measure, _ in measured(one)} == {SENTENCE}
    assert {cue.p for (_, name), cue in measured(one).items() if name in cues.SCALARS} == {None}


# --- length, regressed out --------------------------------------------------------------------


def long_vectors(seed: int, signal: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return vectors of two languages that share length, and concepts with ``signal``."""
    rng = np.random.default_rng(seed)
    direction, concept = rng.normal(size=H), signal * rng.normal(size=(N, 1, 1, H))
    lengths = [by_concept(seed).astype(int) for _ in "ab"]
    vectors = [
        concept + 2 * stats.zscore(np.log(size), axis=None)[:, :, None, None] * direction + noise
        for size, noise in zip(lengths, rng.normal(size=(2, N, K, L, H)), strict=True)
    ]
    return vectors, lengths


def test_without_length_is_the_residual_of_least_squares() -> None:
    [vectors, _], [lengths, _] = long_vectors(5, 1.0)
    design = np.stack([np.ones(N * K), np.log(lengths).ravel()], axis=1)
    flat = vectors.reshape(N * K, L * H)
    residual = flat - design @ np.linalg.lstsq(design, flat, rcond=None)[0]
    found = cues.length_removed(vectors, lengths)
    np.testing.assert_allclose(found, residual.reshape(vectors.shape), atol=1e-5)
    same = cues.length_removed(vectors, np.full((N, K), 7))
    np.testing.assert_allclose(same, vectors - vectors.mean((0, 1)), atol=1e-5)


def test_a_length_cue_goes_and_a_concept_stays() -> None:
    def p(signal: float, *, removed: bool) -> float:
        vectors, lengths = long_vectors(6, signal)
        if removed:
            vectors = [cues.length_removed(*each) for each in zip(vectors, lengths, strict=True)]
        left, right = map(measures.standardise, vectors)
        matrix = measures.wording_mean(measures.cosines(left, right), same_wording=False)
        return float(inference.permutation_p(matrix, inference.permutations(N, 999, 0))[1:].min())

    assert p(0.0, removed=False) == 0.001
    assert p(0.0, removed=True) > 0.05
    assert p(0.7, removed=True) == 0.001
