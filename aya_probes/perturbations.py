"""Load the perturbation pairs: probe sentences changed in one known way (ADR-015)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import langcodes

from aya_probes import files
from aya_probes.errors import StudyError
from aya_probes.probes import check_text

FIX = "git checkout data/perturbations.json (or fix the file)"


@dataclass(frozen=True)
class Perturbation:
    """A changed probe sentence whose failure category is known by construction."""

    id: str
    """Id, such as CODE_SWITCH-english-C01-hi-1."""
    category: str
    """Failure category that the text was made for."""
    subtype: str
    """Kind of change within the category, such as english, regional or native_digits."""
    language: str
    """Language of the parent (BCP-47)."""
    tag: str
    """Language tag of the perturbed text (BCP-47)."""
    concept_id: str
    """Concept of the parent."""
    wording: int
    """Wording of the parent."""
    parent: str
    """Text of the parent when the pair was written; a changed parent is refused."""
    text: str
    """The perturbed text."""
    change: str
    """Description of the change."""
    mixed: tuple[str, ...] = ()
    """Other languages in the text (BCP-47): an effect must not be measured against these."""
    borrowed: tuple[str, ...] = ()
    """The words of these languages, as they stand in the text."""
    note: str = ""
    """Remark for readers."""

    @property
    def parent_id(self) -> str:
        """Id of the probe that the text was made from."""
        return f"{self.concept_id}-{self.language}-{self.wording}"


@dataclass(frozen=True)
class Pairs:
    """The content of a perturbation file."""

    pairs: tuple[Perturbation, ...] = ()
    """The perturbed texts."""
    lexicons: Mapping[str, list[str]] | None = None
    """Formal terms by language, which the label FORMAL_REGISTER looks for."""


def load_perturbations(path: Path) -> Pairs:
    """Load the perturbation pairs and the formal terms; StudyError with the pair, field and fix."""
    raw = files.load_json(path, FIX)
    pairs = tuple(
        _perturbation(row, f"{path}: pairs[{number}]")
        for number, row in enumerate(files.need(raw, "pairs", list, str(path), FIX))
    )
    counts = Counter(pair.id for pair in pairs)
    if counts and max(counts.values()) > 1:
        twice, _ = counts.most_common(1)[0]
        raise StudyError(f"{path}: pairs: {twice} occurs twice; rename or remove one")
    lexicons = files.need(raw, "lexicons", dict, str(path), FIX)
    for code, terms in lexicons.items():
        if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
            raise StudyError(f"{path}: lexicons: {code!r} must be a list of terms; fix it")
    return Pairs(pairs, lexicons)


def _perturbation(row: Any, where: str) -> Perturbation:
    name = files.need_name(row, "id", where, FIX)
    where = f"{where}: {name}"

    def text(field: str) -> str:
        return str(files.need(row, field, str, where, FIX))

    def strings(field: str) -> tuple[str, ...]:
        found = files.need(row, field, list, where, FIX) if field in row else []
        if not all(isinstance(item, str) for item in found):
            raise StudyError(f"{where}: {field} must hold strings; fix it")
        return tuple(found)

    pair = Perturbation(
        id=name,
        category=text("category"),
        subtype=text("subtype") if "subtype" in row else "",
        language=text("language"),
        tag=check_tag(text("tag"), f"{where}: tag"),
        concept_id=files.need_name(row, "concept_id", where, FIX),
        wording=files.need(row, "wording", int, where, FIX),
        parent=check_text(text("parent"), f"{where}: parent", "fix `parent`"),
        text=check_text(text("text"), f"{where}: text", "fix `text`"),
        change=text("change"),
        mixed=tuple(check_tag(tag, f"{where}: mixed") for tag in strings("mixed")),
        borrowed=strings("borrowed"),
        note=text("note") if "note" in row else "",
    )
    for word in pair.borrowed:
        if not word or word not in pair.text:
            raise StudyError(
                f"{where}: borrowed: {word!r} is not in the text; write it as it stands in `text`"
            )
    if pair.borrowed and not pair.mixed:
        raise StudyError(
            f"{where}: borrowed words need their languages; name them in `mixed`, such as ['en']"
        )
    return pair


def check_tag(tag: object, where: str) -> str:
    """Return ``tag`` if it is a valid BCP-47 language tag; raises StudyError otherwise."""
    if not isinstance(tag, str) or "_" in tag or not langcodes.tag_is_valid(tag):
        raise StudyError(
            f"{where}: {tag!r} is not a BCP-47 language tag, such as hi, hi-Latn or bho; fix it"
        )
    return tag
