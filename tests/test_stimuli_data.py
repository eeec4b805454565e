"""The committed stimuli keep the rules that docs/stimuli.md states."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections import Counter
from pathlib import Path

import langcodes
import pytest
from scipy import stats

from aya_probes import build_manifest, probes, project, suites
from aya_probes.failures.labels import CATEGORIES
from aya_probes.perturbations import load_perturbations
from tools import unicode_edges

DATA = project.ROOT / "data"
MINI = suites.load_suite("mini")
CONCEPTS = probes.load_probes(DATA / "concept_probes.json")
PAIRS = load_perturbations(DATA / "perturbations.json")


def lengths(language: str) -> list[int]:
    """Return the number of characters of every sentence, by concept and wording."""
    return [len(sentence.text) for c in CONCEPTS for sentence in c.sentences[language]]


def test_probes_are_20_concepts_in_10_languages_and_3_wordings() -> None:
    assert [c.id for c in CONCEPTS] == [f"C{n:02d}" for n in range(1, 21)]
    for concept in CONCEPTS:
        assert set(concept.sentences) == set(MINI.languages)
        for sentences in concept.sentences.values():
            assert [s.wording for s in sentences] == [1, 2, 3]
            assert len({s.text for s in sentences}) == 3


def test_every_term_has_a_named_source() -> None:
    with (DATA / "concept_sources.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    terms = {(c.id, code): c.terms[code] for c in CONCEPTS for code in c.terms}
    sources = {(c.id, code): "; ".join(c.sources[code]) for c in CONCEPTS for code in c.terms}
    assert {(r["concept_id"], r["language"]): r["term"] for r in rows} == terms
    assert {(r["concept_id"], r["language"]): r["sources"] for r in rows} == sources
    assert all(row["sources"] for row in rows)


def test_sentences_have_no_digit_and_surfaces_seldom_begin_them() -> None:
    for language in MINI.languages:
        own = [s for c in CONCEPTS for s in c.sentences[language]]
        assert not [s.text for s in own if any(char.isdigit() for char in s.text)]
        assert sum(s.span[0] == 0 for s in own) <= 6, language


@pytest.mark.parametrize("language", [code for code in MINI.languages if code != MINI.pivot])
def test_a_sentence_is_not_long_because_its_english_is(language: str) -> None:
    rank = stats.spearmanr(lengths(MINI.pivot), lengths(language)).statistic
    print(f"{language}: rank correlation of length with English {rank:.2f}")
    assert rank < 0.45


def test_every_subtype_has_20_parents_and_wordings_in_equal_shares() -> None:
    groups: dict[tuple[str, str, str], list[tuple[str, int]]] = {}
    for pair in PAIRS.pairs:
        key = (pair.category, pair.language, pair.subtype)
        groups.setdefault(key, []).append((pair.parent_id, pair.wording))
    assert {category for category, _, _ in groups} == set(CATEGORIES)
    for key, members in groups.items():
        assert all(key), key
        assert len({parent for parent, _ in members}) == len(members) >= 20, key
        wordings = Counter(wording for _, wording in members)
        assert set(wordings) == {1, 2, 3}, key
        assert len(set(wordings.values())) == 1, key


def test_written_categories_have_the_same_parents() -> None:
    """Categories can be compared, because each changes the same sentences."""
    groups: dict[tuple[str, str, str], set[str]] = {}
    for pair in PAIRS.pairs:
        if pair.category != "UNICODE_EDGE":
            key = (pair.category, pair.language, pair.subtype)
            groups.setdefault(key, set()).add(f"{pair.concept_id}-{pair.wording}")
    assert len(set(map(frozenset, groups.values()))) == 1


def test_every_pair_follows_its_parent_and_differs_from_it() -> None:
    texts = build_manifest.probe_stimuli(CONCEPTS, MINI.languages, DATA)
    known = {stimulus.stimulus_id: stimulus.text for stimulus in texts}
    for pair in PAIRS.pairs:
        assert pair.parent == known[pair.parent_id], pair.id
        assert pair.text != pair.parent, pair.id
        assert pair.id == "-".join(
            (pair.category, pair.subtype, pair.concept_id, pair.language, str(pair.wording))
        )


def test_tags_are_bcp_47_and_fit_their_category() -> None:
    for pair in PAIRS.pairs:
        for tag in (pair.tag, *pair.mixed):
            assert langcodes.tag_is_valid(tag), pair.id
        assert pair.tag.endswith("-Latn") == (pair.category == "TRANSLITERATION"), pair.id
        if pair.category == "LOW_RESOURCE_VARIANT":
            assert pair.tag == pair.subtype, pair.id
        elif pair.category != "TRANSLITERATION":
            assert pair.tag == pair.language, pair.id


def test_half_of_the_mixed_texts_do_not_mix_the_pivot_in() -> None:
    switched = [pair for pair in PAIRS.pairs if pair.category == "CODE_SWITCH"]
    for language in {pair.language for pair in switched}:
        own = [pair for pair in switched if pair.language == language]
        assert sum(MINI.pivot in pair.mixed for pair in own) * 2 == len(own)
        assert all(pair.mixed and pair.borrowed for pair in own)
    assert not [p.id for p in PAIRS.pairs if p.language in p.mixed]


def test_a_mixed_text_is_not_only_borrowed_words() -> None:
    for pair in PAIRS.pairs:
        letters = sum(map(str.isalpha, pair.text))
        borrowed = sum(char.isalpha() for word in pair.borrowed for char in word)
        assert borrowed < letters, pair.id


def test_formal_texts_are_about_as_long_as_their_parents() -> None:
    for pair in PAIRS.pairs:
        if pair.category == "FORMAL_REGISTER":
            ratio = len(pair.text.split()) / len(pair.parent.split())
            assert 0.8 <= ratio <= 1.3, pair.id


def test_every_formal_language_has_a_lexicon() -> None:
    assert PAIRS.lexicons is not None
    for code in {p.language for p in PAIRS.pairs if p.category == "FORMAL_REGISTER"}:
        terms = PAIRS.lexicons[code]
        assert len(terms) >= 120
        assert len({unicodedata.normalize("NFC", term).casefold() for term in terms}) == len(terms)


def test_unicode_pairs_are_what_the_rules_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = DATA / "perturbations.json"
    written = tmp_path / "perturbations.json"
    raw = json.loads(committed.read_text("utf-8"))
    raw["pairs"] = [pair for pair in raw["pairs"] if pair["category"] != unicode_edges.CATEGORY]
    written.write_text(json.dumps(raw), "utf-8")
    monkeypatch.setattr(unicode_edges, "PAIRS", written)
    assert unicode_edges.main() == 0
    assert written.read_bytes() == committed.read_bytes()


def test_the_review_has_an_outcome_for_every_finding() -> None:
    with (DATA / "stimuli_review.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["outcome"] for row in rows} == {"repaired", "answered"}
    assert {row["reading"] for row in rows} == {"first", "second"}
    assert {row["language"] for row in rows} == set(MINI.languages)
    assert all(row["id"] and row["how"] for row in rows)
