"""Stimuli and the manifest: all texts that the models of a run read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aya_probes import errors, files, probes, project
from aya_probes.errors import StudyError
from aya_probes.suites import Suite

KINDS = ("probe", "parallel", "perturbation", "control")


@dataclass(frozen=True)
class Stimulus:
    """One text that the models read."""

    stimulus_id: str
    """Id, unique in the manifest."""
    kind: str
    """probe, parallel, perturbation, or control (the borrowed words of a perturbation alone)."""
    item_id: str
    """Id of the concept, or of the item of the parallel corpus."""
    wording: int | None
    """Number of the sentence frame; None for parallel items."""
    language: str
    """Language (BCP-47); for a perturbation, that of its parent."""
    text: str
    """The text."""
    span: tuple[int, int] | None
    """Start and end (exclusive) of the concept's surface form, in characters; probes only."""
    parent_id: str | None = None
    """Id of the probe that a perturbation was made from."""
    category: str | None = None
    """Failure category that a perturbation was made for."""
    tag: str | None = None
    """Language tag of a perturbation's text (BCP-47)."""
    subtype: str | None = None
    """Kind of change within the category."""
    mixed: tuple[str, ...] | None = None
    """Other languages in a perturbation's text (BCP-47)."""


@dataclass(frozen=True)
class Manifest:
    """All stimuli of a run, and its suite."""

    suite: Suite
    """The suite, with the languages and corpus chosen when the manifest was built."""
    metadata: dict[str, Any]
    """Versions, corpus, concept names by id, and counts by kind."""
    stimuli: tuple[Stimulus, ...]
    """The stimuli, in order."""

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as plain JSON types, without its hash."""
        rows = [
            {k: v for k, v in asdict(s).items() if v is not None or k in ("wording", "span")}
            for s in self.stimuli
        ]
        return {"metadata": {**self.metadata, "suite": self.suite.to_dict()}, "stimuli": rows}

    @property
    def sha256(self) -> str:
        """Hash of the manifest; plans and results record it."""
        return files.digest(self.to_dict())


def save_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest with its own hash."""
    files.save_json(path, {**manifest.to_dict(), "sha256": manifest.sha256})


def load_manifest(path: Path) -> Manifest:
    """Load and check a manifest; raises StudyError with the file, the field and the fix.

    It checks the hash, the types, that ids are unique, the kinds, and that spans fit their texts.
    """
    return _manifest(files.load_json(path, files.MAKE_MANIFEST), path)


def parse_manifest(text: str, source: str) -> Manifest:
    """Return a manifest given as JSON text, checked as in ``load_manifest``."""
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
            f"this version reads {project.SCHEMA_VERSION}; regenerate it with: "
            f"{files.MAKE_MANIFEST}"
        )
    rows = files.need(raw, "stimuli", list, str(path), files.MAKE_MANIFEST)
    stimuli = tuple(_stimulus(row, f"{path}: stimuli[{n}]") for n, row in enumerate(rows))
    if len({s.stimulus_id for s in stimuli}) != len(stimuli):
        raise StudyError(
            f"{path}: stimuli: a stimulus_id occurs twice; regenerate it with: "
            f"{files.MAKE_MANIFEST}"
        )
    manifest = Manifest(suite, metadata, stimuli)
    if "sha256" in raw and raw["sha256"] != manifest.sha256:
        raise StudyError(
            f"{path}: content does not match its hash (altered on disk, or written by another "
            f"version); regenerate it with: {files.MAKE_MANIFEST}"
        )
    return manifest


def _stimulus(row: Any, where: str) -> Stimulus:
    make = files.MAKE_MANIFEST
    text = files.need(row, "text", str, where, make)
    kind = files.need(row, "kind", str, where, make)
    if kind not in KINDS:
        raise StudyError(
            f"{where}: kind: {errors.unknown('kind', kind, KINDS)}; regenerate it with: {make}"
        )
    span = files.need(row, "span", (list, type(None)), where, make)
    whole = isinstance(span, list) and len(span) == 2 and all(type(v) is int for v in span)
    if span is not None and not (whole and 0 <= span[0] < span[1] <= len(text)):
        raise StudyError(f"{where}: span {span} is not inside its text; regenerate it with: {make}")
    probes.check_text(text, where, f"regenerate it with: {make}")
    optional = {
        name: files.need(row, name, str, where, make)
        for name in ("parent_id", "category", "tag", "subtype")
        if name in row
    }
    mixed = tuple(files.need(row, "mixed", list, where, make)) if "mixed" in row else None
    if not all(isinstance(tag, str) for tag in mixed or ()):
        raise StudyError(f"{where}: mixed must hold language tags; regenerate it with: {make}")
    return Stimulus(
        files.need_name(row, "stimulus_id", where, make),
        kind,
        files.need_name(row, "item_id", where, make),
        None if row.get("wording") is None else files.need(row, "wording", int, where, make),
        files.need(row, "language", str, where, make),
        text,
        (span[0], span[1]) if span else None,
        mixed=mixed,
        **optional,
    )
