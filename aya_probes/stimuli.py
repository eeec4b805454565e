"""Stimuli and the manifest: every text that the models of a run read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aya_probes import errors, files, probes, project
from aya_probes.errors import StudyError
from aya_probes.suites import Suite

if TYPE_CHECKING:
    pass

KINDS = ("probe", "parallel", "perturbation")


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
        return files.digest(self.to_dict())


def save_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest and its own hash, atomically."""
    files.save_json(path, {**manifest.to_dict(), "sha256": manifest.sha256})


def load_manifest(path: Path) -> Manifest:
    """Load and check the manifest: unique ids, known kinds, spans inside their texts, its hash."""
    return _manifest(files.load_json(path, files.MAKE_MANIFEST), path)


def parse_manifest(text: str, source: str) -> Manifest:
    """Check a manifest that came as JSON text; ``source`` names it in errors."""
    return _manifest(files.parse_json(text, source, files.MAKE_MANIFEST), Path(source))


def _manifest(raw: Any, path: Path) -> Manifest:
    metadata = dict(files.need(raw, "metadata", dict, str(path), files.MAKE_MANIFEST))
    suite = Suite.from_dict(
        files.need(metadata, "suite", dict, f"{path}: metadata", files.MAKE_MANIFEST),
        f"{path}: metadata.suite",
    )
    del metadata["suite"]
    if metadata.get("schema_version") != project.SCHEMA_VERSION:
        raise StudyError(
            f"{path}: metadata.schema_version is {metadata.get('schema_version')!r}, "
            f"this version reads {project.SCHEMA_VERSION}; make it anew: {files.MAKE_MANIFEST}"
        )
    rows = files.need(raw, "stimuli", list, str(path), files.MAKE_MANIFEST)
    stimuli = tuple(_stimulus(row, f"{path}: stimuli[{n}]") for n, row in enumerate(rows))
    if len({s.stimulus_id for s in stimuli}) != len(stimuli):
        raise StudyError(
            f"{path}: stimuli: a stimulus_id occurs twice; make it anew: {files.MAKE_MANIFEST}"
        )
    manifest = Manifest(suite, metadata, stimuli)
    if "sha256" in raw and raw["sha256"] != manifest.sha256:
        raise StudyError(
            f"{path}: content does not match its hash (altered on disk, or written by another "
            f"version); make it anew with: {files.MAKE_MANIFEST}"
        )
    return manifest


def _stimulus(row: Any, where: str) -> Stimulus:
    make = files.MAKE_MANIFEST
    text = files.need(row, "text", str, where, make)
    kind = files.need(row, "kind", str, where, make)
    if kind not in KINDS:
        raise StudyError(
            f"{where}: kind: {errors.unknown('kind', kind, KINDS)}; make it anew: {make}"
        )
    span = files.need(row, "span", (list, type(None)), where, make)
    whole = isinstance(span, list) and len(span) == 2 and all(type(v) is int for v in span)
    if span is not None and not (whole and 0 <= span[0] < span[1] <= len(text)):
        raise StudyError(f"{where}: span {span} lies outside its text; make it anew: {make}")
    probes.check_text(text, where, f"make it anew: {make}")
    optional = {
        name: files.need(row, name, str, where, make)
        for name in ("parent_id", "category", "tag")
        if name in row
    }
    return Stimulus(
        files.need_name(row, "stimulus_id", where, make),
        kind,
        files.need_name(row, "item_id", where, make),
        None if row.get("wording") is None else files.need(row, "wording", int, where, make),
        files.need(row, "language", str, where, make),
        text,
        (span[0], span[1]) if span else None,
        **optional,
    )
