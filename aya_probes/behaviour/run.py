"""Write the results of the behaviour stage from the files of the measured variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aya_probes import errors, stage_files
from aya_probes.behaviour import candidates, summary
from aya_probes.errors import StudyError
from aya_probes.records import parse
from aya_probes.results import behaviour
from aya_probes.results.behaviour import MAKE_BEHAVIOUR, Behaviour, BehaviourSummary
from aya_probes.run_folder import RunPaths
from aya_probes.stimuli import Manifest
from aya_probes.suites import Suite

STAGE = "behaviour"
RESAMPLES = 10_000  # of bootstraps and permutations


@dataclass(frozen=True)
class BehaviourResults:
    """Everything that the stage writes."""

    rows: tuple[Behaviour, ...]
    """Every text on every variant."""
    summary: tuple[BehaviourSummary, ...]
    """Every language on every variant."""
    reference: str | None
    """The variant that decides which languages are untestable."""


def find_reference(suite: Suite, variants: list[str]) -> str | None:
    """Return the control variant, else base; None if neither was measured."""
    for role in ("control", "base"):
        for name in variants:
            if suite.variant(name).role == role:
                return name
    return None


def summarise_run(
    paths: RunPaths, manifest: Manifest, settings: Mapping[str, Any], seed: int
) -> BehaviourResults:
    """Write results/behaviour.csv and behaviour_summary.csv, and return their rows.

    All measured variants are read. Those that were measured with other ``settings`` are left out,
    with a warning that names them. Raises StudyError for files of another manifest.
    """
    names = stage_files.measured_variants(paths, manifest.suite.names(), STAGE)
    rows: list[Behaviour] = []
    kept = []
    for name in names:
        content = stage_files.load_measured(paths, name, STAGE, manifest.sha256, MAKE_BEHAVIOUR)
        if content.inputs.settings != dict(settings):
            errors.warn(
                f"{name}: measured with another sample, seed or frames, and left out; measure it "
                f"again with: {MAKE_BEHAVIOUR} --variants {name} --overwrite"
            )
            continue
        kept.append(name)
        where = str(stage_files.stage_path(paths, name, STAGE))
        rows += [
            parse(Behaviour, row, where, f"{MAKE_BEHAVIOUR} --overwrite") for row in content.rows
        ]
    if not rows:
        raise StudyError(f"{paths.activations}: nothing measured; run: {MAKE_BEHAVIOUR}")
    reference = find_reference(manifest.suite, kept)
    found = BehaviourResults(
        tuple(rows), tuple(summarise(rows, manifest, reference, seed)), reference
    )
    behaviour.save_behaviour(paths.behaviour, found.rows)
    behaviour.save_summary(paths.behaviour_summary, found.summary)
    return found


def summarise(
    rows: list[Behaviour], manifest: Manifest, reference: str | None, seed: int
) -> list[BehaviourSummary]:
    """Return the summary of all variants' rows."""
    items = list(dict.fromkeys(s.item_id for s in manifest.stimuli if s.kind == "parallel"))
    numbers = manifest.metadata.get("documents") or range(len(items))
    documents = dict(zip(items, numbers, strict=False))
    targets = sorted({row.target for row in rows if row.target})
    groups = {}
    for target in targets:
        lengths = candidates.mean_lengths(candidates.pivot_sentences(manifest, target))
        groups[target] = candidates.group_concepts(lengths, seed)
    found = summary.summarise_parity(
        rows, documents, manifest.suite.pivot, count=RESAMPLES, seed=seed
    )
    found += summary.summarise_comprehension(rows, groups, count=RESAMPLES, seed=seed)
    return summary.mark_untestable(found, reference)
