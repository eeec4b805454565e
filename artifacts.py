"""One load and one save per file on disk: validated, written whole or not at all.

Every ``load_*`` names the file, the field and the command that makes it when something is wrong
(StudyError). JSON is UTF-8 with sorted keys and a final newline; the same data gives the same
bytes. No torch here. Activations have their own module, ``activation_store.py``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import study
from study import StudyError, Suite

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MAKE_MANIFEST = "uv run build_stimuli.py"
MAKE_ACTIVATIONS = "uv run batch_runner.py --local"
MAKE_CURVES = "uv run concept_alignment.py"
MAKE_FAILURES = "uv run failure_classifier.py"
KINDS = ("probe", "parallel", "perturbation")
VALIDATION = study.ROOT / "docs" / "validation.json"  # benchmarks/validation.py


# --- bytes on disk ----------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary sibling; on success fsync it and put it in place of ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).chmod(0o644)
        os.replace(name, path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def canonical_json(data: Any, *, indent: int | None = 1) -> str:
    """Return ``data`` as deterministic JSON text; NaN and infinities are refused."""
    return (
        json.dumps(data, ensure_ascii=False, sort_keys=True, indent=indent, allow_nan=False) + "\n"
    )


def digest(data: Any) -> str:
    """Return the sha256 of the canonical JSON of ``data``."""
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()


def save_json(path: Path, data: Any, *, indent: int | None = 1) -> None:
    """Write ``data`` as canonical JSON, atomically."""
    with atomic_write(path) as handle:
        handle.write(canonical_json(data, indent=indent).encode())


def load_json(path: Path, make: str) -> Any:
    """Read JSON; StudyError names ``path`` and the command ``make`` that writes it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path}: missing; make it with: {make}") from None
    except IsADirectoryError:
        raise StudyError(f"{path}: is a folder, not a file; move it away, then: {make}") from None
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{path}: not valid JSON ({error}); make it anew with: {make}") from None


def _need(record: Any, name: str, kind: type | tuple[type, ...], where: str, make: str) -> Any:
    if not isinstance(record, dict) or name not in record:
        raise StudyError(
            f"{where}: field {name!r} is missing; mend it or make it anew with: {make}"
        )
    value = record[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise StudyError(
            f"{where}: field {name!r} has the wrong type ({type(value).__name__}); "
            f"mend it or make it anew with: {make}"
        )
    return value


def save_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a long table: floats with 6 significant digits, missing values empty."""
    with atomic_write(path) as handle:
        handle.write(table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())


def load_csv(path: Path, columns: tuple[str, ...], make: str) -> pd.DataFrame:
    """Read a table and check its columns; text cells stay text, empty ones become ''."""
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise StudyError(f"{path}: missing; make it with: {make}") from None
    except (ValueError, IsADirectoryError) as error:
        raise StudyError(f"{path}: not a readable table ({error}); make it anew: {make}") from None
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise StudyError(f"{path}: column {missing[0]!r} is missing; make it anew with: {make}")
    return table


# --- data/concept_probes.json -----------------------------------------------------------------


@dataclass(frozen=True)
class ProbeSentence:
    """A carrier sentence and the concept's surface form in it."""

    wording: int
    text: str
    surface: str

    @property
    def span(self) -> tuple[int, int]:
        """Return the character span of the surface form."""
        start = self.text.index(self.surface)
        return start, start + len(self.surface)


@dataclass(frozen=True)
class Concept:
    """A concept: id, English name, and per language its term, sources and sentences."""

    id: str
    concept: str
    category: str
    terms: dict[str, str]
    sources: dict[str, list[str]]
    sentences: dict[str, list[ProbeSentence]]
    notes: dict[str, str] = field(default_factory=dict)


def load_probes(path: Path) -> list[Concept]:
    """Load the concept probes; every surface form must occur exactly once in its sentence."""
    make = "git checkout data/concept_probes.json (or mend the file)"
    raw = load_json(path, make)
    concepts = []
    for row in _need(raw, "concepts", list, str(path), make):
        cid = _need(row, "id", str, f"{path}: concepts", make)
        where = f"{path}: {cid}"
        terms, sources, sentences = {}, {}, {}
        for code, entry in _need(row, "languages", dict, where, make).items():
            here = f"{where}: {code}"
            terms[code] = _need(entry, "term", str, here, make)
            sources[code] = _need(entry, "sources", list, here, make)
            sentences[code] = [
                _probe_sentence(s, here, make) for s in _need(entry, "sentences", list, here, make)
            ]
            wordings = [sentence.wording for sentence in sentences[code]]
            if sorted(set(wordings)) != wordings or not wordings:
                raise StudyError(f"{here}: wordings must be distinct and in order, are {wordings}")
        concepts.append(
            Concept(
                cid,
                _need(row, "concept", str, where, make),
                _need(row, "category", str, where, make),
                terms,
                sources,
                sentences,
                row.get("notes", {}),
            )
        )
    if len({concept.id for concept in concepts}) != len(concepts):
        raise StudyError(f"{path}: concepts: an id occurs twice")
    return concepts


def _probe_sentence(raw: Any, where: str, make: str) -> ProbeSentence:
    sentence = ProbeSentence(
        _need(raw, "wording", int, where, make),
        _need(raw, "text", str, where, make),
        _need(raw, "surface", str, where, make),
    )
    count = sentence.text.count(sentence.surface) if sentence.surface else 0
    if count != 1:
        raise StudyError(
            f"{where}: wording {sentence.wording}: surface {sentence.surface!r} occurs "
            f"{count} times in its sentence, must occur once; mend `surface`"
        )
    return sentence


# --- data/perturbations.json ------------------------------------------------------------------


@dataclass(frozen=True)
class Perturbation:
    """A changed form of a probe sentence, its failure category known by construction."""

    id: str
    category: str
    language: str  # of the parent
    tag: str  # BCP-47 of the perturbed text
    concept_id: str
    wording: int
    text: str
    change: str  # what was done


def load_perturbations(path: Path) -> tuple[list[Perturbation], dict[str, list[str]]]:
    """Load the perturbation pairs and the per-language lexicons of formal terms."""
    make = "git checkout data/perturbations.json (or mend the file)"
    raw = load_json(path, make)
    pairs = []
    for number, row in enumerate(_need(raw, "pairs", list, str(path), make)):
        where = f"{path}: pairs[{number}]"
        text = {
            name: _need(row, name, str, where, make)
            for name in ("id", "category", "language", "tag", "concept_id", "text", "change")
        }
        pairs.append(Perturbation(wording=_need(row, "wording", int, where, make), **text))
    if len({pair.id for pair in pairs}) != len(pairs):
        raise StudyError(f"{path}: pairs: an id occurs twice")
    return pairs, _need(raw, "lexicons", dict, str(path), make)


# --- data/stimulus_manifest.json --------------------------------------------------------------


@dataclass(frozen=True)
class Stimulus:
    """One text that the models read."""

    stimulus_id: str
    kind: str  # probe | parallel | perturbation
    item_id: str  # concept id, or id of the parallel item
    wording: int | None
    language: str
    text: str
    span: tuple[int, int] | None  # characters of the concept's surface form
    parent_id: str | None = None
    category: str | None = None  # perturbation: its failure category
    tag: str | None = None  # perturbation: BCP-47 of the text


@dataclass(frozen=True)
class Manifest:
    """All stimuli of a run and the suite that they are for."""

    suite: Suite
    metadata: dict[str, Any]
    stimuli: tuple[Stimulus, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as it stands on disk."""
        rows = [
            {k: v for k, v in asdict(s).items() if v is not None or k in ("wording", "span")}
            for s in self.stimuli
        ]
        return {"metadata": {**self.metadata, "suite": self.suite.to_dict()}, "stimuli": rows}

    @property
    def sha256(self) -> str:
        """Return the hash that plans and results carry."""
        return digest(self.to_dict())


def save_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest, atomically."""
    save_json(path, manifest.to_dict())


def load_manifest(path: Path) -> Manifest:
    """Load and check the manifest: unique ids, known kinds, spans inside their texts."""
    raw = load_json(path, MAKE_MANIFEST)
    metadata = dict(_need(raw, "metadata", dict, str(path), MAKE_MANIFEST))
    suite = Suite.from_dict(
        _need(metadata, "suite", dict, f"{path}: metadata", MAKE_MANIFEST),
        f"{path}: metadata.suite",
    )
    del metadata["suite"]
    if metadata.get("schema_version") != study.SCHEMA_VERSION:
        raise StudyError(
            f"{path}: metadata.schema_version is {metadata.get('schema_version')!r}, "
            f"this version reads {study.SCHEMA_VERSION}; make it anew: {MAKE_MANIFEST}"
        )
    rows = _need(raw, "stimuli", list, str(path), MAKE_MANIFEST)
    stimuli = tuple(_stimulus(row, f"{path}: stimuli[{n}]") for n, row in enumerate(rows))
    if len({s.stimulus_id for s in stimuli}) != len(stimuli):
        raise StudyError(
            f"{path}: stimuli: a stimulus_id occurs twice; make it anew: {MAKE_MANIFEST}"
        )
    return Manifest(suite, metadata, stimuli)


def _stimulus(row: Any, where: str) -> Stimulus:
    make = MAKE_MANIFEST
    text = _need(row, "text", str, where, make)
    kind = _need(row, "kind", str, where, make)
    if kind not in KINDS:
        raise StudyError(
            f"{where}: kind: {study.unknown('kind', kind, KINDS)}; make it anew: {make}"
        )
    span = _need(row, "span", (list, type(None)), where, make)
    whole = isinstance(span, list) and len(span) == 2 and all(type(v) is int for v in span)
    if span is not None and not (whole and 0 <= span[0] < span[1] <= len(text)):
        raise StudyError(f"{where}: span {span} lies outside its text; make it anew: {make}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise StudyError(f"{where}: text holds a lone surrogate; make it anew: {make}") from None
    optional = {
        name: _need(row, name, str, where, make)
        for name in ("parent_id", "category", "tag")
        if name in row
    }
    return Stimulus(
        _need(row, "stimulus_id", str, where, make),
        kind,
        _need(row, "item_id", str, where, make),
        _need(row, "wording", (int, type(None)), where, make),
        _need(row, "language", str, where, make),
        text,
        (span[0], span[1]) if span else None,
        **optional,
    )


# --- results ----------------------------------------------------------------------------------


def finite(value: float, digits: int = 6) -> float | None:
    """Round a number for JSON; NaN becomes None."""
    return None if not math.isfinite(value) else float(f"{value:.{digits}g}")


def finite_list(values: np.ndarray, digits: int = 5) -> list[float | None]:
    """Round a vector for JSON; NaN becomes None."""
    return [finite(float(value), digits) for value in values]


CURVE_FIELDS = ("metadata", "curves", "measures", "pairs", "agnostic", "audit", "shape")
COMMITMENT_COLUMNS = (
    "variant",
    "language",
    "concept_id",
    "concept",
    "commitment_layer",
    "release_layer",
    "status",
    "identical_input",
    "shared_tokens",
    "legacy_layer",
    "legacy_status",
)
CONTRAST_COLUMNS = (
    "contrast",
    "language",
    "window",
    "estimate",
    "lower",
    "upper",
    "p",
    "p_holm",
    "n",
    "p_language",
    "p_language_floor",
)
FAILURE_COLUMNS = (
    "stimulus_id",
    "parent_id",
    "language",
    "tag",
    "variant",
    "reference_variant",
    "category",
    "labels",
    "effect",
    "reference_effect",
    "delta",
    "lower",
    "upper",
    "rows",
    "pooling",
    "verdict",
    "input",
    "parent",
)
CASE_FIELDS = (
    "test_id",
    "input",
    "language_ground_truth",
    "expected_variant",
    "acceptable_variants",
    "failure_category",
    "routing_recommendation",
    "p1_test_assertion",
    "evidence",
    "status",
)


def save_curves(path: Path, data: dict[str, Any]) -> None:
    """Write results/alignment_curves.json."""
    save_json(path, data, indent=None)


def load_curves(path: Path) -> dict[str, Any]:
    """Load results/alignment_curves.json and check its parts."""
    raw = load_json(path, MAKE_CURVES)
    for name in CURVE_FIELDS:
        _need(raw, name, dict, str(path), MAKE_CURVES)
    for name in ("suite", "variants", "languages", "pivot", "concepts", "rows"):
        _need(raw["metadata"], name, (str, list), f"{path}: metadata", MAKE_CURVES)
    return dict(raw)


def load_edge_cases(path: Path) -> dict[str, Any]:
    """Load p1_edge_cases.json and check every case's fields."""
    raw = load_json(path, MAKE_FAILURES)
    for number, case in enumerate(_need(raw, "cases", list, str(path), MAKE_FAILURES)):
        for name in CASE_FIELDS:
            if name not in case:
                raise StudyError(
                    f"{path}: cases[{number}]: field {name!r} is missing; "
                    f"make it anew with: {MAKE_FAILURES}"
                )
    return dict(raw)
