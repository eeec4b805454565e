"""Label a perturbed text with the failure categories that it shows (docs/failure_taxonomy.md).

The rules use only the texts, their language tags and their tokens, never vectors.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aya_probes import suites
from aya_probes.failures.spelling import skeleton
from aya_probes.stimuli import Manifest

CATEGORIES = (
    "UNICODE_EDGE",
    "TRANSLITERATION",
    "CODE_SWITCH",
    "FORMAL_REGISTER",
    "LOW_RESOURCE_VARIANT",
)
UNATTRIBUTED = "UNATTRIBUTED"
LATIN_SHARE = 0.70  # TRANSLITERATION: share of Latin letters
SCRIPT_SHARE = 0.15  # CODE_SWITCH: share of letters of each of two scripts
LEXICON_HITS = 2  # CODE_SWITCH: words of each of two languages
WORDS_PER_TERM = 10  # FORMAL_REGISTER: at least one formal term per this many words
FERTILITY_RATIO = 1.5  # LOW_RESOURCE_VARIANT: tokens per character, text divided by parent


@dataclass(frozen=True)
class Text:
    """What the rules use of a text."""

    text: str
    tag: str
    """Language of the text (BCP-47)."""
    fertility: float
    """Tokens per character."""


@dataclass(frozen=True)
class LanguageRules:
    """What the rules use of a language."""

    latin_script: bool
    """Whether the language is written in the Latin script."""
    languages: tuple[str, ...]
    """All languages of the suite."""
    terms: tuple[str, ...]
    """Formal terms of the language, folded."""
    lexicons: tuple[frozenset[str], ...]
    """Words of this language only, then words of the pivot only; the pivot has one set."""


def build_rules(manifest: Manifest, terms: Mapping[str, Sequence[str]]) -> dict[str, LanguageRules]:
    """Return the rules by language; ``terms`` holds the formal terms of each language."""
    suite, known, lexicons = manifest.suite, suites.load_languages(), build_lexicons(manifest)
    return {
        code: LanguageRules(
            known[code].script == "Latn",
            suite.languages,
            tuple(_fold(term) for term in terms.get(code, ()) if term.strip()),
            tuple(lexicons.get(name, frozenset()) for name in dict.fromkeys((code, suite.pivot))),
        )
        for code in suite.languages
    }


def build_lexicons(manifest: Manifest) -> dict[str, frozenset[str]]:
    """Return, by language, the words that only the probes of this language have."""
    words: dict[str, set[str]] = {}
    for stimulus in manifest.stimuli:
        if stimulus.kind == "probe":
            words.setdefault(stimulus.language, set()).update(split_words(stimulus.text))
    languages = Counter(word for own in words.values() for word in own)
    return {
        code: frozenset(word for word in own if languages[word] == 1) for code, own in words.items()
    }


def count_scripts(text: str) -> Counter[str]:
    """Return the number of letters by script (first word of the letter's Unicode name)."""
    return Counter(unicodedata.name(c, "?").split()[0] for c in text if c.isalpha())


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without the punctuation around them."""
    return [w for w in (re.sub(r"^\W+|\W+$", "", part) for part in text.lower().split()) if w]


def label(text: Text, parent: Text, rules: LanguageRules) -> list[str]:
    """Return every category whose rule holds for ``text``, in order of precedence."""
    mixed = _mixes_scripts(text.text)
    marks = _edge_marks(text.text) - _edge_marks(parent.text)
    respelled = text.text != parent.text and skeleton(text.text) == skeleton(parent.text) != ""
    if mixed:
        marks.discard("bidi mix")  # a second script is CODE_SWITCH, not UNICODE_EDGE
    listed = {_primary_subtag(code) for code in rules.languages}
    unlisted = _primary_subtag(text.tag) not in listed
    holds = {
        "UNICODE_EDGE": bool(marks) or respelled,
        "TRANSLITERATION": not rules.latin_script and _latin_share(text.text) >= LATIN_SHARE,
        "CODE_SWITCH": mixed or _mixes_words(text.text, rules),
        "FORMAL_REGISTER": _turns_formal(text.text, parent.text, rules.terms),
        "LOW_RESOURCE_VARIANT": unlisted or text.fertility >= FERTILITY_RATIO * parent.fertility,
    }
    return [category for category in CATEGORIES if holds[category]]


def _primary_subtag(tag: str) -> str:
    """Return the language of a BCP-47 tag, without script and region."""
    return tag.split("-")[0].lower()


def _edge_marks(text: str) -> set[str]:
    marks = {f"Cf {ord(c):04X}" for c in text if unicodedata.category(c) == "Cf"}
    marks |= {"native digit" for c in text if c.isdecimal() and not c.isascii()}
    kinds = {unicodedata.bidirectional(c) for c in text if c.isalpha()}
    if "L" in kinds and kinds & {"R", "AL"}:
        marks.add("bidi mix")
    if unicodedata.normalize("NFC", text) != text:
        marks.add("not NFC")
    return marks


def _latin_share(text: str) -> float:
    count = count_scripts(text)
    return count["LATIN"] / max(1, count.total())


def _mixes_scripts(text: str) -> bool:
    count = count_scripts(text)
    return sum(n / count.total() >= SCRIPT_SHARE for n in count.values()) >= 2


def _mixes_words(text: str, rules: LanguageRules) -> bool:
    """Return whether a Latin-script text mixes words of its language and of the pivot."""
    if not rules.latin_script or len(rules.lexicons) < 2:
        return False
    words = split_words(text)
    return all(sum(w in own for w in words) >= LEXICON_HITS for own in rules.lexicons)


def _turns_formal(text: str, parent: str, terms: Sequence[str]) -> bool:
    folded, before = _fold(text), _fold(parent)
    found = sum(term in folded for term in terms)
    enough = found > 0 and found * WORDS_PER_TERM >= len(split_words(text))
    return enough and not any(term in before for term in terms)


def _fold(text: str) -> str:
    """Return a text whose case and composition do not matter."""
    return unicodedata.normalize("NFC", text.casefold())
