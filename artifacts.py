"""One load and one save per file on disk: validated, written whole or not at all.

Every ``load_*`` names the file, the field and the command that makes it when something is wrong
(StudyError). JSON is UTF-8 with sorted keys and a final newline; the same data gives the same
bytes. No torch here. Activations have their own module, ``extraction/store.py``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
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
MAX_CHARACTERS = 10_000  # of a text: a sentence, not a document
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # Unicode's Cc and Cs
_TEMPORARY = ".writing-"
KINDS = ("probe", "parallel", "perturbation")
VALIDATION = study.ROOT / "docs" / "validation.json"  # benchmarks/validation.py


# --- bytes on disk ----------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary sibling; on success fsync it and put it in place of ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f"{_TEMPORARY}{path.name}-", dir=path.parent)
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


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed run left beside its artefacts in ``folder``.

    Only for the holder of the run folder's lock: no one else may be writing there.
    """
    for path in folder.glob(f"{_TEMPORARY}*"):
        path.unlink(missing_ok=True)


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
    _write(path, canonical_json(data, indent=indent).encode())


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as handle:
        handle.write(content)
    _record_sum(path, content)


# --- hashes of the results --------------------------------------------------------------------


def _sums(path: Path) -> tuple[Path, str] | None:
    """Return the SHA256SUMS that covers ``path`` and its name there (read by ``sha256sum -c``)."""
    if path.parent.name == "results":
        return path.parent / "SHA256SUMS", path.name
    if path.name == "p1_edge_cases.json":
        return path.parent / "results" / "SHA256SUMS", f"../{path.name}"
    return None


def _read_sums(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {name: sha for sha, _, name in (line.partition("  ") for line in lines) if name}


def _record_sum(path: Path, content: bytes) -> None:
    where = _sums(path)
    if where is not None:
        sums = _read_sums(where[0]) | {where[1]: hashlib.sha256(content).hexdigest()}
        with atomic_write(where[0]) as handle:
            handle.write("".join(f"{sums[n]}  {n}\n" for n in sorted(sums)).encode())


def _check_sum(path: Path, content: bytes, make: str) -> None:
    """Refuse a result that is not what was written; one that no SHA256SUMS lists passes."""
    where = _sums(path)
    expected = _read_sums(where[0]).get(where[1]) if where else None
    if where and expected and hashlib.sha256(content).hexdigest() != expected:
        raise StudyError(
            f"{path}: altered since it was written ({where[0]}); make it anew with: {make}"
        )


# --- reading ----------------------------------------------------------------------------------


def load_json(path: Path, make: str) -> Any:
    """Read JSON; StudyError names ``path`` and the command ``make`` that writes it."""
    try:
        content = path.read_bytes()
        _check_sum(path, content, make)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise StudyError(f"{path}: missing; make it with: {make}") from None
    except IsADirectoryError:
        raise StudyError(f"{path}: is a folder, not a file; move it away, then: {make}") from None
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 ({error}); make it anew with: {make}") from None
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read ({error})") from None
    return _parse_json(text, str(path), make)


def _parse_json(text: str, source: str, make: str) -> Any:
    """Parse strict JSON: finite numbers, no lone surrogates, so that it can be written again."""
    try:
        data = json.loads(text, parse_float=_finite_float, parse_constant=_finite_float)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise StudyError(
            f"{source}: holds a lone surrogate; mend it or make it anew with: {make}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{source}: not valid JSON ({error}); make it anew with: {make}") from None
    return data


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


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


def _need_name(record: Any, name: str, where: str, make: str) -> str:
    """Return an identifier: it becomes part of ids and messages, never of a path outside."""
    value = str(_need(record, name, str, where, make))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise StudyError(
            f"{where}: field {name!r} must be at most 100 letters, digits, . _ -, is "
            f"{value[:60]!r}; mend it or make it anew with: {make}"
        )
    return value


def check_text(text: str, where: str, mend: str) -> str:
    """Return ``text`` if a model can be asked to read it.

    Zero-width and bidirectional characters are data and stay. Raises StudyError for an empty or
    over-long text, control characters and lone surrogates.
    """
    if not text.strip():
        raise StudyError(f"{where}: the text is empty; {mend}")
    if len(text) > MAX_CHARACTERS:
        raise StudyError(
            f"{where}: the text has {len(text)} characters, a sentence at most {MAX_CHARACTERS}; "
            f"{mend}"
        )
    hidden = _CONTROL.search(text)
    if hidden:
        raise StudyError(
            f"{where}: the text holds {study.visible(hidden[0])}, a control character or lone "
            f"surrogate, at position {hidden.start()}; {mend}"
        )
    return text


def save_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a long table: floats with 6 significant digits, missing values empty."""
    _write(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())


def load_csv(path: Path, columns: tuple[str, ...], make: str) -> pd.DataFrame:
    """Read a table and check its columns; text cells stay text, empty ones become ''."""
    import pandas as pd

    try:
        content = path.read_bytes()
        _check_sum(path, content, make)
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise StudyError(f"{path}: missing; make it with: {make}") from None
    except (ValueError, OSError, OverflowError) as error:
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
        cid = _need_name(row, "id", f"{path}: concepts", make)
        where = f"{path}: {cid}"
        terms, sources, sentences = {}, {}, {}
        for code, entry in _need(row, "languages", dict, where, make).items():
            here = f"{where}: {code}"
            terms[code] = _need(entry, "term", str, here, make)
            sources[code] = _need(entry, "sources", list, here, make)
            if not all(isinstance(source, str) for source in sources[code]):
                raise StudyError(f"{here}: sources must be strings; mend them")
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
                _need(row, "notes", dict, where, make) if "notes" in row else {},
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
    check_text(sentence.text, f"{where}: wording {sentence.wording}", "mend the sentence")
    count = sentence.text.count(sentence.surface) if sentence.surface else 0
    if count != 1:
        raise StudyError(
            f"{where}: wording {sentence.wording}: surface {sentence.surface[:60]!r} occurs "
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
            for name in ("category", "language", "tag", "text", "change")
        } | {name: _need_name(row, name, where, make) for name in ("id", "concept_id")}
        check_text(text["text"], where, "mend `text`")
        pairs.append(Perturbation(wording=_need(row, "wording", int, where, make), **text))
    if len({pair.id for pair in pairs}) != len(pairs):
        raise StudyError(f"{path}: pairs: an id occurs twice")
    lexicons = _need(raw, "lexicons", dict, str(path), make)
    for code, terms in lexicons.items():
        if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
            raise StudyError(f"{path}: lexicons: {code!r} must be a list of terms; mend it")
    return pairs, lexicons


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
    """Write the manifest and its own hash, atomically."""
    save_json(path, {**manifest.to_dict(), "sha256": manifest.sha256})


def load_manifest(path: Path) -> Manifest:
    """Load and check the manifest: unique ids, known kinds, spans inside their texts, its hash."""
    return _manifest(load_json(path, MAKE_MANIFEST), path)


def parse_manifest(text: str, source: str) -> Manifest:
    """Check a manifest that came as JSON text; ``source`` names it in errors."""
    return _manifest(_parse_json(text, source, MAKE_MANIFEST), Path(source))


def _manifest(raw: Any, path: Path) -> Manifest:
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
    manifest = Manifest(suite, metadata, stimuli)
    if "sha256" in raw and raw["sha256"] != manifest.sha256:
        raise StudyError(
            f"{path}: content does not match its hash (altered on disk, or written by another "
            f"version); make it anew with: {MAKE_MANIFEST}"
        )
    return manifest


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
    check_text(text, where, f"make it anew: {make}")
    optional = {
        name: _need(row, name, str, where, make)
        for name in ("parent_id", "category", "tag")
        if name in row
    }
    return Stimulus(
        _need_name(row, "stimulus_id", where, make),
        kind,
        _need_name(row, "item_id", where, make),
        None if row.get("wording") is None else _need(row, "wording", int, where, make),
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
            _need(case, name, object, f"{path}: cases[{number}]", MAKE_FAILURES)
    return dict(raw)
