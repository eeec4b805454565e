"""Write the UNICODE_EDGE pairs: the same sentences in the code points that real text has.

Every rule changes how a text is encoded or spelled, and nothing of what it says. It is applied to
the parents that data/perturbations.json lists, and where it changes too few of them, to other
probes of the same wording, so that all three wordings have equal shares. docs/stimuli.md explains
the rules.

Reads:  data/concept_probes.json, data/perturbations.json
Writes: data/perturbations.json

    uv run tools/unicode_edges.py
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aya_probes import command_line, files, project
from aya_probes.probes import ProbeSentence, load_probes

PROG = "tools/unicode_edges.py"
PROBES = project.ROOT / "data" / "concept_probes.json"
PAIRS = project.ROOT / "data" / "perturbations.json"
CATEGORY = "UNICODE_EDGE"
PER_WORDING = 8
ZWNJ, ZWJ, LRM, RLM = "\u200c", "\u200d", "\u200e", "\u200f"
TONES = ("\u0300", "\u0301", "\u0304")  # grave, acute, macron
DIGITS = {"hi": "\u0967", "bn": "\u09e7", "ar": "\u0661"}  # the digit one
PRECOMPOSED_NUKTA = {  # composition exclusions: NFC writes the letter and the nukta apart
    unicodedata.normalize("NFD", char): char
    for char in map(chr, (*range(0x0958, 0x0960), 0x09DC, 0x09DD, 0x09DF))
}
HOMOPHONES = {"\u1200": "\u1210", "\u1230": "\u1220", "\u12a0": "\u12d0", "\u1338": "\u1340"}


@dataclass(frozen=True)
class Rule:
    """A change of encoding or spelling."""

    subtype: str
    languages: tuple[str, ...]
    change: str
    """Description of the change."""
    apply: Callable[[str, str], str]
    """Return the changed text of a text and its language."""


def _join(text: str, mark: str) -> str:
    """Put ``mark`` behind the first virama that a consonant follows."""
    return re.sub(
        "([\u094d\u09cd\u0bcd])(?=[\u0915-\u0939\u0995-\u09b9\u0b95-\u0bb9])",
        rf"\1{mark}",
        text,
        count=1,
    )


def _without(text: str, marks: Sequence[str]) -> str:
    kept = (char for char in unicodedata.normalize("NFD", text) if char not in marks)
    return unicodedata.normalize("NFC", "".join(kept))


def _precomposed(text: str, _: str) -> str:
    text = unicodedata.normalize("NFC", text)
    for apart, char in PRECOMPOSED_NUKTA.items():
        text = text.replace(apart, char)
    return text


def _homophones(text: str, _: str) -> str:
    """Write the other letter of the same sound: each row of Ethiopic has eight code points."""
    table = {
        ord(here) + order: ord(there) + order
        for here, there in HOMOPHONES.items()
        for order in range(7)
    }
    return text.translate(table)


def _alef_ya(text: str, _: str) -> str:
    """Leave the hamza of alef out, and write a final ya and ta marbuta as alef maqsura and ha."""
    text = text.translate({0x0623: 0x0627, 0x0625: 0x0627, 0x0622: 0x0627})
    return re.sub("\u0629\\b", "\u0647", re.sub("\u064a\\b", "\u0649", text))


def _tatweel(text: str, _: str) -> str:
    """Stretch the first word of at least four letters behind a letter that joins to the next."""
    joins = "\u0628\u062a\u062b\u062c-\u062e\u0633-\u063a\u0641-\u0647\u064a"
    return re.sub(rf"(\w[{joins}])(?=\w\w)", "\\1\u0640\u0640", text, count=1)


def _shadda(text: str, _: str) -> str:
    """Double the sun letter behind the article, as a careful writer marks it.

    Ta and dhal are left alone: behind an initial "ال" they may belong to the word itself.
    """
    sun = "\u062b\u062f\u0631-\u0638\u0644\u0646"
    return re.sub(rf"\b([وف]?[بك]?ال[{sun}])(?=\w)", "\\1\u0651", text)


RULES = (
    Rule("zwj", ("hi", "bn"), "zero-width joiner behind a virama", lambda t, _: _join(t, ZWJ)),
    Rule("zwnj", ("ta",), "zero-width non-joiner behind a pulli", lambda t, _: _join(t, ZWNJ)),
    Rule("nukta", ("hi", "bn"), "precomposed nukta letters", _precomposed),
    Rule(
        "nfd",
        ("yo", "fr", "es", "ta"),
        "canonical decomposition (NFD)",
        lambda t, _: unicodedata.normalize("NFD", t),
    ),
    Rule(
        "native_digits",
        ("hi", "bn", "ar"),
        "numbered as in a list, with a native digit",
        lambda t, language: f"{DIGITS[language]}. {t}",
    ),
    Rule(
        "ascii_digits",
        ("hi", "bn", "ar"),
        "numbered as in a list, with an ASCII digit",
        lambda t, _: f"1. {t}",
    ),
    Rule("no_tones", ("yo",), "without tone marks", lambda t, _: _without(t, TONES)),
    Rule(
        "no_marks",
        ("yo",),
        "without tone marks and underdots",
        lambda t, _: _without(t, (*TONES, "\u0323")),
    ),
    Rule("homophones", ("am",), "the other letters of the same sounds", _homophones),
    Rule(
        "ascii_colon",
        ("am",),
        "two ASCII colons for the full stop",
        lambda t, _: t.replace("።", "::"),
    ),
    Rule("alef_ya", ("ar",), "alef without hamza, final ya and ta marbuta undotted", _alef_ya),
    Rule("tatweel", ("ar",), "a word stretched with tatweel", _tatweel),
    Rule(
        "bidi_marks",
        ("ar",),
        "right-to-left marks around the full stop, as from a word processor",
        lambda t, _: t.replace(".", f"{RLM}.{RLM}"),
    ),
    Rule(
        "bidi_mix",
        ("ar",),
        "lettered as on a form: a Latin letter and a left-to-right mark",
        lambda t, _: f"A){LRM} {t}",
    ),
    Rule("shadda", ("ar",), "shadda on the sun letter behind the article", _shadda),
    Rule(
        "smart_apostrophe",
        ("fr",),
        "typographic for straight apostrophes",
        lambda t, _: t.replace("'", "\u2019"),
    ),
)


def choose_parents(
    rule: Rule, language: str, probes: Mapping[str, ProbeSentence], listed: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield the id (such as C01-2) and changed text of up to 8 parents of each wording."""
    for wording in dict.fromkeys(probe.wording for probe in probes.values()):
        own = [name for name, probe in probes.items() if probe.wording == wording]
        ordered = [n for n in own if n in listed] + [n for n in own if n not in listed]
        changed = ((name, rule.apply(probes[name].text, language)) for name in ordered)
        different = [(name, text) for name, text in changed if text != probes[name].text]
        yield from different[:PER_WORDING]


def make_pairs(listed: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield every UNICODE_EDGE pair."""
    concepts = load_probes(PROBES)
    for rule in RULES:
        for language in rule.languages:
            probes = {
                f"{concept.id}-{sentence.wording}": sentence
                for concept in concepts
                for sentence in concept.sentences[language]
            }
            for name, text in choose_parents(rule, language, probes, listed):
                concept, wording = name.split("-")
                yield {
                    "id": f"{CATEGORY}-{rule.subtype}-{concept}-{language}-{wording}",
                    "category": CATEGORY,
                    "subtype": rule.subtype,
                    "language": language,
                    "tag": language,
                    "concept_id": concept,
                    "wording": int(wording),
                    "parent": probes[name].text,
                    "text": text,
                    "change": rule.change,
                }


def main() -> int:
    """Write the pairs; returns the exit code."""

    def stage() -> None:
        raw = files.load_json(PAIRS, "git checkout data/perturbations.json")
        made = list(make_pairs(raw["metadata"]["parents"]))
        others = [pair for pair in raw["pairs"] if pair["category"] != CATEGORY]
        files.save_json(PAIRS, {**raw, "pairs": sorted(others + made, key=lambda p: str(p["id"]))})
        print(f"{len(made)} pairs of {CATEGORY} in {PAIRS}")

    return command_line.run_stage(PROG, stage)


if __name__ == "__main__":
    raise SystemExit(main())
