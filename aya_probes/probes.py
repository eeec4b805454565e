"""Load the concept probes, the sentences that were written for this project."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aya_probes import errors, files
from aya_probes.errors import StudyError

MAX_CHARACTERS = 10_000  # a text is a sentence, not a document
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # Unicode's Cc and Cs


def check_text(text: str, where: str, fix: str) -> str:
    """Return ``text`` unchanged if it can be a stimulus.

    Raises StudyError for an empty or too long text, control characters and lone surrogates; the
    message ends with ``fix``. Zero-width and bidirectional characters are allowed.
    """
    if not text.strip():
        raise StudyError(f"{where}: the text is empty; {fix}")
    if len(text) > MAX_CHARACTERS:
        raise StudyError(
            f"{where}: the text has {len(text)} characters, a sentence at most {MAX_CHARACTERS}; "
            f"{fix}"
        )
    hidden = _CONTROL.search(text)
    if hidden:
        raise StudyError(
            f"{where}: the text has {errors.escape_hidden(hidden[0])}, a control character or "
            f"lone surrogate, at position {hidden.start()}; {fix}"
        )
    return text


@dataclass(frozen=True)
class ProbeSentence:
    """A carrier sentence and the concept's surface form in it."""

    wording: int
    """Number of the sentence frame, the same in every language."""
    text: str
    """The sentence."""
    surface: str
    """The form of the concept in the sentence, or the part of a word that is the concept."""
    occurrence: int = 1
    """Which of the places where the surface occurs in the sentence, counted from 1."""

    @property
    def span(self) -> tuple[int, int]:
        """Start and end (exclusive) of the surface form, in characters."""
        start = list(_places(self.surface, self.text))[self.occurrence - 1]
        return start, start + len(self.surface)


def _places(surface: str, text: str) -> Iterator[int]:
    """Yield every position at which ``surface`` occurs in ``text``, overlapping ones too."""
    start = text.find(surface)
    while start >= 0:
        yield start
        start = text.find(surface, start + 1)


@dataclass(frozen=True)
class Concept:
    """A concept, with a term and carrier sentences in every language."""

    id: str
    """Id, such as C01."""
    name: str
    """English name."""
    category: str
    """Semantic field."""
    terms: dict[str, str]
    """The concept's term by language."""
    sources: dict[str, list[str]]
    """Sources of each term, by language."""
    sentences: dict[str, list[ProbeSentence]]
    """Carrier sentences by language, in the order of their wordings."""
    notes: dict[str, str] = field(default_factory=dict)
    """Remarks by language."""


def load_probes(path: Path) -> list[Concept]:
    """Load the concept probes; raises StudyError with the concept, language and sentence."""
    make = "git checkout data/concept_probes.json (or fix the file)"
    raw = files.load_json(path, make)
    concepts = []
    for row in files.need(raw, "concepts", list, str(path), make):
        cid = files.need_name(row, "id", f"{path}: concepts", make)
        where = f"{path}: {cid}"
        terms, sources, sentences = {}, {}, {}
        for code, entry in files.need(row, "languages", dict, where, make).items():
            here = f"{where}: {code}"
            terms[code] = files.need(entry, "term", str, here, make)
            sources[code] = files.need(entry, "sources", list, here, make)
            if not all(isinstance(source, str) for source in sources[code]):
                raise StudyError(f"{here}: sources must be strings; fix them")
            sentences[code] = [
                _probe_sentence(s, here, make)
                for s in files.need(entry, "sentences", list, here, make)
            ]
            wordings = [sentence.wording for sentence in sentences[code]]
            if sorted(set(wordings)) != wordings or not wordings:
                raise StudyError(f"{here}: wordings must be distinct and in order; fix {wordings}")
        concepts.append(
            Concept(
                cid,
                files.need(row, "concept", str, where, make),
                files.need(row, "category", str, where, make),
                terms,
                sources,
                sentences,
                files.need(row, "notes", dict, where, make) if "notes" in row else {},
            )
        )
    if len({concept.id for concept in concepts}) != len(concepts):
        raise StudyError(f"{path}: concepts: an id occurs twice; fix it")
    return concepts


def _probe_sentence(raw: Any, where: str, make: str) -> ProbeSentence:
    sentence = ProbeSentence(
        files.need(raw, "wording", int, where, make),
        files.need(raw, "text", str, where, make),
        files.need(raw, "surface", str, where, make),
    )
    check_text(sentence.text, f"{where}: wording {sentence.wording}", "fix the sentence")
    if raw.get("occurrence") is not None:
        number = files.need(raw, "occurrence", int, where, make)
        sentence = replace(sentence, occurrence=number)
    here = f"{where}: wording {sentence.wording}: surface {sentence.surface[:60]!r}"
    count = len(list(_places(sentence.surface, sentence.text))) if sentence.surface else 0
    if count == 0 and (same := _equivalent(sentence.surface, sentence.text)):
        return replace(sentence, surface=same)
    if count == 0:
        raise StudyError(f"{here} does not occur in its sentence; fix `surface`")
    if count > 1 and "occurrence" not in raw:
        raise StudyError(
            f"{here} occurs {count} times in its sentence; "
            f"say which with `occurrence` (1 to {count})"
        )
    if not 1 <= sentence.occurrence <= count:
        raise StudyError(
            f"{here} occurs {count} times; `occurrence` {sentence.occurrence} is none of them"
        )
    return sentence


def _equivalent(surface: str, text: str) -> str | None:
    """Return the only part of ``text`` that is canonically equivalent to ``surface``, or None.

    Unicode can write é as one character or as two; NFC normalisation makes both equal. None means
    that there is no such part, or more than one.
    """
    wanted = unicodedata.normalize("NFC", surface)
    decomposed = len(unicodedata.normalize("NFD", surface))
    found = {
        (start, end)
        for start in range(len(text))
        if not unicodedata.combining(text[start])
        for end in range(start + 1, min(start + decomposed, len(text)) + 1)
        if (end == len(text) or not unicodedata.combining(text[end]))
        and unicodedata.normalize("NFC", text[start:end]) == wanted
    }
    if len(found) != 1:
        return None
    ((start, end),) = found
    return text[start:end] if text.count(text[start:end]) == 1 else None
