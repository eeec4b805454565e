"""Likelihoods against the library's own, packing, frames, candidates and planted comprehension."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import behaviour
import build_stimuli
from aya_probes import stimuli
from aya_probes.behaviour import (
    candidates,
    frames,
    measure,
    sampling,
    scoring,
    summary,
    tree_attention,
)
from aya_probes.behaviour.sampling import Question
from aya_probes.behaviour.scoring import Tree
from aya_probes.errors import StudyError
from aya_probes.models import loading
from aya_probes.models.residuals import LoadedModel
from aya_probes.planted import tiny
from aya_probes.results import behaviour as results
from aya_probes.results.behaviour import Behaviour
from aya_probes.run_folder import RunPaths
from aya_probes.stimuli import Stimulus


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
    with pytest.raises(StudyError, match="tree-2: its likelihood is NaN"):
        scoring.score(loaded, trees, "packed")


# --- frames -----------------------------------------------------------------------------------


def write_frames(folder: Path, **changed: str) -> Path:
    lines = {name: f"{name} {{source}} {{text}} {{target}}:" for name in ("one", "two", "three")}
    path = folder / "frames.toml"
    table = [f"[{name}]\nlines = {json.dumps([line])}" for name, line in (lines | changed).items()]
    path.write_text("\n".join(table), encoding="utf-8")
    return path


def test_shipped_frames_have_every_slot() -> None:
    shipped = frames.load_frames()
    assert len(shipped) >= frames.MIN_FRAMES
    filled = shipped[0].fill("a {target} 'text'", "Hindi", "English")
    assert filled == "Hindi: a {target} 'text'\nEnglish:"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{source}: {target}:", r"\[two\]: the slot \{text\} occurs 0 times"),
        ("{source} {text} {text} {target}:", r"slot \{text\} occurs 2 times"),
        ("{source} {text} {target} {tone}:", r"unknown slot \{tone\}; valid: source, target, text"),
        ("{source} {text} {target} }:", "a brace that is not part of a slot"),
        ("{source} {text} {target}: ", "white space at the end"),
        ("", r"the slot \{source\} occurs 0 times"),
        ("one {source} {text} {target}:", "two frames are the same"),
    ],
)
def test_a_frame_without_its_slots_is_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        frames.load_frames(write_frames(tmp_path, two=line))


def test_two_frames_are_too_few(tmp_path: Path) -> None:
    path = tmp_path / "frames.toml"
    path.write_text('[one]\nlines = ["{source} {text} {target}"]', encoding="utf-8")
    with pytest.raises(StudyError, match="1 frames, at least 3"):
        frames.load_frames(path)
    path.write_text('[one]\nline = ["{source} {text} {target}"]', encoding="utf-8")
    with pytest.raises(StudyError, match="unknown key 'line'"):
        frames.load_frames(path)


# --- texts ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama() -> LoadedModel:
    return load_tiny("llama")


@pytest.mark.parametrize("text", ["🙂🙃", "é", "\u200fمرحبا"])
def test_every_byte_of_a_text_is_scored(llama: LoadedModel, text: str) -> None:
    tree = measure.text_tree(llama, text, "t")
    assert tree.prefix == (2,)
    assert len(tree.branches[0]) == len(text.encode())  # the tokenizer has one token per byte
    (scores,) = measure.score_all(llama, [tree], lambda *_: None, lambda *_: None)
    row = measure.surprisal_row(stimulus("t", text), scores[0], "base")
    assert row.nats == pytest.approx(-scores[0].sum(), rel=1e-6)
    assert row.nats_per_byte == row.nats_per_token
    assert row.bytes == len(text.encode())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t: the text is empty"),
        ("   ", "t: the text is empty"),
        ("a\ud800b", "lone surrogate"),
        ("x" * 10_001, "10001 characters"),
    ],
)
def test_a_text_that_cannot_be_scored_is_named(llama: LoadedModel, text: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        measure.text_tree(llama, text, "t")


def test_a_text_longer_than_the_model_takes_is_named(llama: LoadedModel) -> None:
    tree = measure.text_tree(llama, "x" * 10_000, "long")
    with pytest.raises(StudyError, match=r"long: 10001 tokens with its prompt, the model takes"):
        measure.score_all(llama, [tree], lambda *_: None, lambda *_: None)


def stimulus(name: str, text: str, concept: str = "C01", language: str = "hi") -> Stimulus:
    return Stimulus(name, "probe", concept, 1, language, text, None)


def make_question(texts: Sequence[str] = ("a b", "a c", "d", "e f g", "h")) -> Question:
    choices = [stimulus(f"C0{n}-en-1", t, f"C0{n}", "en") for n, t in enumerate(texts, 1)]
    frame = frames.load_frames()[0]
    return Question(stimulus("C01-hi-1", "वह"), frame, "en", tuple(choices))


def test_a_question_is_the_conditional_likelihood_of_each_candidate(llama: LoadedModel) -> None:
    question = make_question()
    tree = measure.question_tree(llama, question)
    prompt = question.frame.fill("वह", "Hindi", "English")
    assert llama.tokenizer.decode(tree.prefix[1:]) == prompt
    (scores,) = measure.score_all(llama, [tree], lambda *_: None, lambda *_: None)
    for candidate, values in zip(question.candidates, scores, strict=True):
        both = llama.tokenizer(f"{prompt} {candidate.text}", return_tensors="pt").input_ids
        with torch.no_grad():
            joint, prior = (
                -float(llama.causal_lm(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
                for ids in (both, both[:, : len(tree.prefix)])
            )
        assert values.sum() == pytest.approx(joint - prior, abs=1e-3)


def test_the_largest_pmi_is_chosen_and_ties_share_the_credit() -> None:
    question = make_question()
    given = [np.array([-2.0, -1.0]), *(np.array([-n]) for n in (4.0, 5.0, 6.0, 7.0))]
    pmi = measure.pmi_of(given, [-8.0, -9.0, -6.0, -7.0, -8.0])
    row = measure.comprehension_row(question, given[0], pmi, "base")
    assert (row.pmi, row.lead) == (5.0, 0.0)
    assert row.margin == pytest.approx(5 - (5 + 1 + 1 + 1) / 4)
    assert (row.correct, row.choice, row.chance) == (0.5, "C01+C02", 0.2)
    assert row.nats == 3.0


# --- candidates and summaries -----------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 9, 10, 20, 23])
def test_groups_hold_every_concept_once_and_are_close_in_length(count: int) -> None:
    lengths = {f"C{n:02d}": float(n * 7 % count) for n in range(count)}
    groups = candidates.group_concepts(lengths, 1)
    assert sorted(c for group in groups for c in group) == sorted(lengths)
    assert {len(group) >= candidates.GROUP for group in groups} == {True}
    for group in groups:
        spread = [lengths[c] for c in group]
        assert max(spread) - min(spread) < 2 * max(map(len, groups))
    assert groups == candidates.group_concepts(lengths, 1)
    if count >= 20:
        assert groups != candidates.group_concepts(lengths, 2)


def test_fewer_than_five_concepts_are_not_asked() -> None:
    assert candidates.group_concepts(dict.fromkeys("abcd", 1.0), 0) == []


def plant(
    rng: np.random.Generator, signal: float, variant: str = "base", language: str = "hi"
) -> tuple[list[Behaviour], dict[str, list[candidates.Group]]]:
    """Rows of 20 concepts in three frames: the right sentence gains ``signal``.

    What a model likes for other reasons is the same for every text, whose share of it is large.
    """
    names = [f"C{n:02d}" for n in range(20)]
    groups = candidates.group_concepts({name: float(n) for n, name in enumerate(names)}, 3)
    liked = dict(zip(names, rng.normal(0, 5, 20), strict=True))
    rows = []
    for frame in frames.load_frames():
        for group in groups:
            for concept in group:
                order = [concept, *(c for c in group if c != concept)]
                choice = [stimulus(f"{c}-en-1", c, c, "en") for c in order]
                text = stimulus(f"{concept}-{language}-1", concept, concept, language)
                given = [np.array([liked[c] + rng.normal(0, 0.1)]) for c in order]
                given[0] = given[0] + signal
                question = Question(text, frame, "en", tuple(choice))
                pmi = measure.pmi_of(given, [0.0] * 5)
                rows.append(measure.comprehension_row(question, given[0], pmi, variant))
    return rows, {"en": groups}


def test_planted_comprehension_is_certain() -> None:
    rows, groups = plant(np.random.default_rng(0), 100)
    (row,) = summary.summarise_comprehension(rows, groups, count=999, seed=0)
    assert (row.value, row.chance, row.n, row.groups, row.frames) == (1.0, 0.2, 20, 20, 3)
    assert row.lower is not None
    assert row.lower > 0.8
    assert (row.status, row.lowest_frame, row.p) == (summary.ABOVE, 1.0, 1 / 1000)


def test_a_model_that_ignores_the_text_is_exactly_at_chance() -> None:
    """Its p-value is uniform or conservative: at 5%, at most what 200 nulls allow (binomial)."""
    found = []
    for seed in range(200):
        rows, groups = plant(np.random.default_rng(seed), 0)
        (row,) = summary.summarise_comprehension(rows[:20], groups, count=199, seed=seed)
        found.append(row)
    assert {round(row.value, 6) for row in found} <= {0.15, 0.2, 0.25}  # near ties may differ
    assert np.mean([row.value for row in found]) == pytest.approx(0.2, abs=0.005)
    assert {row.status for row in found} == {summary.NOT_ABOVE}
    assert sum((row.p or 0) <= 0.05 for row in found) <= 18


def test_a_permutation_test_calls_random_choices_at_its_level() -> None:
    rng = np.random.default_rng(5)
    blocks, concepts = np.repeat(np.arange(4), 5), np.tile(np.arange(20), 3)
    called = 0
    for seed in range(300):
        choices = np.zeros((60, 20))
        picked = blocks[concepts] * 5 + rng.integers(0, 5, 60)
        choices[np.arange(60), picked] = 1
        called += summary.choice_p(choices, concepts, blocks, count=199, seed=seed) <= 0.05
    assert called <= 24  # the 99.5% point of a binomial of 300 at 5%


def test_a_language_that_the_reference_does_not_comprehend_is_untestable() -> None:
    rng = np.random.default_rng(1)
    rows, groups = plant(rng, 100, "fire", "sw")
    for variant, signal, language in (
        ("global", 0, "sw"),
        ("global", 100, "hi"),
        ("fire", 0, "hi"),
    ):
        rows += plant(rng, signal, variant, language)[0]
    found = summary.mark_untestable(
        summary.summarise_comprehension(rows, groups, count=99, seed=0), "global"
    )
    status = {(row.variant, row.language): row.status for row in found}
    assert (
        status["fire", "sw"] == status["global", "sw"] == "untestable (accuracy 0.20, chance 0.20)"
    )
    assert status["global", "hi"] == summary.ABOVE
    assert status["fire", "hi"] == summary.NOT_ABOVE
    assert [summary.is_testable(row) for row in found] == [row.language == "hi" for row in found]
    alone = summary.mark_untestable(found, None)
    assert not any(map(summary.is_testable, alone))


def test_wilson_is_the_textbook_interval() -> None:
    """Newcombe 1998, table I: 81 of 263 gives .2553 to .3662; 0 of 20 gives 0 to .1611."""
    assert summary.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert summary.wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


def surprisal_rows(nats: dict[str, np.ndarray]) -> list[Behaviour]:
    return [
        measure.surprisal_row(
            Stimulus(f"line-{n}-{code}", "parallel", f"line-{n}", None, code, "text", None),
            np.array([-value]),
            "base",
        )
        for code, values in nats.items()
        for n, value in enumerate(values)
    ]


def test_information_parity_is_a_ratio_of_sums_with_an_interval_over_documents() -> None:
    rng = np.random.default_rng(2)
    english = rng.uniform(20, 60, 60)
    hindi = english * 1.5 + rng.normal(0, 1, 60)
    rows = surprisal_rows({"en": english, "hi": hindi, "fr": english})
    documents = {f"line-{n}": n // 3 for n in range(60)}
    found = {
        row.language: row
        for row in summary.summarise_parity(rows, documents, "en", count=2000, seed=0)
    }
    assert set(found) == {"hi", "fr"}
    assert (found["fr"].value, found["fr"].lower, found["fr"].upper) == pytest.approx((1, 1, 1))
    row = found["hi"]
    assert row.value == pytest.approx(english.sum() / hindi.sum(), rel=1e-5)
    assert (row.n, row.groups) == (60, 20)
    # A second derivation: the delta method on sums over documents.
    a, b = (v.reshape(20, 3).sum(1) for v in (english, hindi))
    error = np.std(a - row.value * b, ddof=1) / b.mean() / np.sqrt(20)
    assert row.upper is not None
    assert row.lower is not None
    assert (row.upper - row.lower) / 2 == pytest.approx(2.09 * error, rel=0.2)


# --- the stage --------------------------------------------------------------------------------


def test_the_door_measures_resumes_and_names_what_changed(
    tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--run-dir", str(tmp_path)]
    assert build_stimuli.main(["--suite", str(tiny_suite), *run, "--limit", "12"]) == 0
    line = [*run, "--device", "cpu", "--limit", "6", "--variants", "base,global"]
    assert behaviour.main(line) == 0
    paths = RunPaths(tmp_path)
    rows = results.load_behaviour(paths.behaviour)
    kept = [r for r in rows if r.variant == "base" and r.measure == results.SURPRISAL]
    assert Counter((r.kind, r.language) for r in kept) == {
        (kind, code): count
        for kind, count in (("probe", 10), ("parallel", 6))
        for code in ("en", "hi", "sw")
    }
    asked = [r for r in rows if r.variant == "base" and r.measure == results.COMPREHENSION]
    assert Counter(r.language for r in asked) == {"hi": 5, "sw": 5}
    table = results.load_summary(paths.behaviour_summary)
    assert {r.status for r in table if r.measure == results.COMPREHENSION} == {
        f"untestable (accuracy {r.value:.2f}, chance 0.20)"
        for r in table
        if r.variant == "global" and r.measure == results.COMPREHENSION
    }
    before = paths.behaviour.read_bytes(), paths.behaviour_summary.read_bytes()
    capsys.readouterr()
    assert behaviour.main(line) == 0
    assert "base: behaviour complete, skipped" in capsys.readouterr().out
    assert before == (paths.behaviour.read_bytes(), paths.behaviour_summary.read_bytes())
    assert behaviour.main([*line, "--seed", "7"]) == 1
    assert "settings (seed) changed" in capsys.readouterr().err
    broken = write_frames(tmp_path, two="{source} {target}:")
    assert behaviour.main([*line, "--frames", str(broken)]) == 1
    assert "the slot {text} occurs 0 times" in capsys.readouterr().err


def test_the_whole_sample_asks_every_text_in_every_frame(tiny_suite: Path, tmp_path: Path) -> None:
    run = ["--run-dir", str(tmp_path)]
    assert build_stimuli.main(["--suite", str(tiny_suite), *run, "--limit", "12"]) == 0
    manifest = stimuli.load_manifest(RunPaths(tmp_path).manifest)
    sample = sampling.Sample("whole", seed=1)
    assert sampling.choose_texts(manifest, sample) == list(manifest.stimuli)
    asked = sampling.choose_questions(manifest, frames.load_frames(), sample)
    texts = [
        s for s in manifest.stimuli if s.kind in ("probe", "perturbation") and s.language != "en"
    ]
    assert len(asked) == 3 * len(texts)
    for question in asked:
        right, *others = question.candidates
        assert right.item_id == question.text.item_id
        assert right.wording == question.text.wording
        assert right.language == "en"
        assert len({right.item_id, *(o.item_id for o in others)}) == 5
