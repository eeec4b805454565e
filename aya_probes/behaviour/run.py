"""Write the results of the behaviour stage from the files of the measured variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aya_probes import errors, stage_files
from aya_probes.behaviour import candidates, cases, contrasts, losses, summary
from aya_probes.errors import StudyError
from aya_probes.records import parse
from aya_probes.results import behaviour
from aya_probes.results.behaviour import (
    COMPREHENSION,
    MAKE_BEHAVIOUR,
    Behaviour,
    BehaviourSummary,
    CaseDecision,
    LossTest,
)
from aya_probes.run_folder import RunPaths
from aya_probes.stimuli import Manifest
from aya_probes.suites import REPEATS, Suite

STAGE = "behaviour"
RESAMPLES = 10_000  # of bootstraps and permutations


@dataclass(frozen=True)
class MeasuredVariant:
    """What the stage measured on one variant."""

    rows: tuple[Behaviour, ...]
    """Its rows."""
    pmi: np.ndarray
    """The pmi of each question's candidates, ``[question, candidate]``."""


@dataclass(frozen=True)
class BehaviourResults:
    """Everything that the stage writes."""

    rows: tuple[Behaviour, ...]
    """Every text on every variant."""
    summary: tuple[BehaviourSummary, ...]
    """Every language on every variant."""
    tests: tuple[LossTest, ...]
    """Loss of comprehension by category, language and variant."""
    cases: tuple[CaseDecision, ...]
    """Which variant understands each perturbed text."""
    reference: str | None
    """The variant that decides which languages are untestable."""


def find_reference(suite: Suite, variants: list[str]) -> str | None:
    """Return the control variant, else base; None if neither was measured."""
    for role in ("control", "base"):
        for name in variants:
            if suite.variant(name).role == role:
                return name
    return None


def load_variants(
    paths: RunPaths, manifest: Manifest, settings: Mapping[str, Any]
) -> dict[str, MeasuredVariant]:
    """Return what was measured on each variant with these ``settings``.

    Those that were measured with other settings are left out, with a warning that names them.
    Raises StudyError for files of another manifest, and if there is none.
    """
    found = {}
    for name in stage_files.measured_variants(paths, manifest.suite.names(), STAGE):
        again = f"{MAKE_BEHAVIOUR} --variants {name} --overwrite"
        content = stage_files.load_measured(paths, name, STAGE, manifest.sha256, MAKE_BEHAVIOUR)
        if content.inputs.settings != dict(settings):
            errors.warn(
                f"{name}: measured with another sample, seed or frames, and left out; measure it "
                f"again with: {again}"
            )
            continue
        path = stage_files.stage_path(paths, name, STAGE)
        rows = tuple(parse(Behaviour, row, str(path), again) for row in content.rows)
        arrays = stage_files.load_arrays(path, content, again)
        found[name] = MeasuredVariant(rows, arrays.get(contrasts.PMI, np.empty((0, 0))))
    if not found:
        raise StudyError(f"{paths.activations}: nothing measured; run: {MAKE_BEHAVIOUR}")
    return found


def summarise_run(
    paths: RunPaths, manifest: Manifest, settings: Mapping[str, Any], seed: int
) -> BehaviourResults:
    """Write the results of all measured variants, and return them.

    Losses and cases need perturbed texts, which the sample ``small`` does not ask.
    """
    measured = load_variants(paths, manifest, settings)
    rows = [row for found in measured.values() for row in found.rows]
    reference = find_reference(manifest.suite, list(measured))
    table = summarise(rows, manifest, reference, seed)
    tests, decisions = judge_perturbed(manifest, measured, table, reference, seed)
    behaviour.save_behaviour(paths.behaviour, rows)
    behaviour.save_summary(paths.behaviour_summary, table)
    if tests:
        behaviour.save_tests(paths.behaviour_tests, tests)
        behaviour.save_cases(paths.behaviour_cases, decisions)
    return BehaviourResults(tuple(rows), tuple(table), tuple(tests), tuple(decisions), reference)


def judge_perturbed(
    manifest: Manifest,
    measured: Mapping[str, MeasuredVariant],
    table: Sequence[BehaviourSummary],
    reference: str | None,
    seed: int,
) -> tuple[list[LossTest], list[CaseDecision]]:
    """Return the tests of losses, and the decision on every perturbed text, with the pivot.

    Both are empty without perturbed texts that were asked, or without a reference variant.
    """
    suite, pivot = manifest.suite, manifest.suite.pivot
    if reference is None:
        return [], []
    every = {n: contrasts.collect(m.rows, m.pmi, pivot) for n, m in measured.items()}
    texts = tuple(
        s
        for s in manifest.stimuli
        if s.kind == "perturbation" and all(s.stimulus_id in found for found in every.values())
    )
    if not texts:
        return [], []
    untestable = {
        row.language: row.status
        for row in table
        if row.measure == COMPREHENSION and row.target == pivot and not summary.is_testable(row)
    }
    chosen = [n for n in every if suite.variant(n).role not in ("untrained", *REPEATS)]
    tests = losses.compare_losses(
        losses.LossInputs(texts, every, reference, pivot, untestable),
        [name for name in chosen if name != reference],
        seed,
    )
    inputs = cases.CaseInputs(
        texts=texts,
        contrasts={name: every[name] for name in chosen},
        targets={name: suite.variant(name).targets for name in chosen},
        untestable=untestable,
        null_gap=find_null_gap(suite, every),
    )
    return tests, cases.decide_cases(inputs)


def find_null_gap(suite: Suite, every: Mapping[str, contrasts.Contrasts]) -> float:
    """Return the difference in level that means nothing: of two seeds, or else of no training.

    Infinite if the run has neither; the largest of several pairs of seeds.
    """
    pairs = [(v.name, str(v.of)) for v in suite.by_role("seed")]
    gaps = [cases.seed_gap(every[a], every[b]) for a, b in pairs if a in every and b in every]
    if not gaps:
        names = [v.name for v in suite.by_role("untrained") if v.name in every]
        gaps = [cases.untrained_gap(every[name]) for name in names]
    return max(gaps, default=float("inf"))


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
