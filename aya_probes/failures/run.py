"""Run the failures stage: measure, label and test every perturbed text, and save the results.

Results are computed again only if their inputs or ``FAILURES_VERSION`` changed.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from aya_probes import command_line, files, project, stimuli, suites
from aya_probes.errors import StudyError
from aya_probes.extraction import plan, store
from aya_probes.failures import category_tests, edge_cases, effects
from aya_probes.failures.edge_cases import Candidate
from aya_probes.failures.labels import CATEGORIES, UNATTRIBUTED
from aya_probes.failures.measure import Inputs, measure_borrowed, measure_candidates
from aya_probes.perturbations import Pairs, load_perturbations
from aya_probes.results import failures
from aya_probes.results.failures import (
    BorrowedWords,
    CategoryTest,
    EdgeCaseFile,
    EdgeCaseInfo,
    FailureCase,
)
from aya_probes.run_folder import RunPaths
from aya_probes.stimuli import Manifest, Stimulus

FAILURES_VERSION = 2  # raise this number when the same activations would give other results
_NOTE = (
    "Cases are the largest differences of many, and their intervals cover the choice of "
    "negatives only: no claim about a category follows (see failure_tests.csv)."
)
_OTHER_MODEL = " Measured on another model: tests the harness, not a Tiny Aya router."


@dataclass(frozen=True)
class Config:
    """The settings of the stage."""

    paths: RunPaths
    """The run folder."""
    variants: tuple[str, ...] | None
    """Variants to measure; None means all that were extracted."""
    seed: int
    """Seed of all random draws."""
    overwrite: bool = False
    """Whether to compute even if nothing changed."""


@dataclass(frozen=True)
class FailureResults:
    """Everything that the stage writes."""

    texts: int
    """Number of perturbed texts that can be measured."""
    cases: tuple[FailureCase, ...]
    """Every perturbed text on every regional variant."""
    tests: tuple[CategoryTest, ...]
    """One test for each category, language and regional variant, then for each subtype."""
    borrowed: tuple[BorrowedWords, ...]
    """What the borrowed words of mixed texts bring alone."""
    edge_cases: EdgeCaseFile
    """The chosen test cases for a router."""

    @property
    def mislabelled(self) -> int:
        """Number of texts whose first label is not the category they were made for."""
        return len({case.stimulus_id for case in self.cases if case.category != case.detected})


def run(config: Config) -> FailureResults | None:
    """Measure, label, test and save; returns None if nothing changed since the last run.

    Without perturbed texts there is nothing to measure, and the tables are empty. Raises StudyError
    for perturbed texts with fewer than 3 concepts, and for missing or stale activations.
    """
    inputs = _load_inputs(config)
    digest = _digest(inputs, config.seed)
    if not config.overwrite and _is_up_to_date(config.paths, digest):
        return None
    candidates = measure_candidates(inputs, config.seed)
    cases = tuple(candidate.case for candidate in candidates)
    found = FailureResults(
        len(inputs.cases),
        cases,
        tuple(category_tests.compare_categories(cases, config.seed)),
        tuple(measure_borrowed(inputs, config.seed)),
        _make_edge_file(inputs, candidates, digest, config.seed),
    )
    failures.save_failure_cases(config.paths.failure_cases, found.cases)
    failures.save_category_tests(config.paths.failure_tests, found.tests)
    failures.save_borrowed_words(config.paths.borrowed_words, found.borrowed)
    failures.save_edge_cases(config.paths.edge_cases, found.edge_cases)
    return found


def _digest(inputs: Inputs, seed: int) -> str:
    """Return the hash of everything that affects the results."""
    known = suites.load_languages()
    return files.digest(
        {
            "failures_version": FAILURES_VERSION,
            "manifest": inputs.manifest.sha256,
            "changes": inputs.changes,
            "terms": inputs.terms,
            "scripts": {code: known[code].script for code in inputs.manifest.suite.languages},
            "activations": {n: found.content_sha256 for n, found in inputs.activations.items()},
            "reference": inputs.reference,
            "seed": seed,
        }
    )


def _is_up_to_date(paths: RunPaths, digest: str) -> bool:
    written = (paths.failure_cases, paths.failure_tests, paths.borrowed_words, paths.edge_cases)
    if not all(files.matches_sum(path) for path in written):
        return False
    try:
        return failures.load_edge_cases(paths.edge_cases).metadata.inputs_sha256 == digest
    except StudyError:  # written by another version
        return False


def _load_inputs(config: Config) -> Inputs:
    manifest = stimuli.load_manifest(config.paths.manifest)
    suite = manifest.suite
    variants = _choose_variants(config, manifest)
    cases, controls = _list_cases(manifest)
    reference = effects.choose_reference(suite, variants) if cases else ""
    if cases and len(manifest.metadata["concepts"]) < 3:
        raise StudyError(
            f"{config.paths.manifest}: this stage needs at least 3 concepts; regenerate it with: "
            f"{files.MAKE_MANIFEST}"
        )
    pairs = Pairs()
    if suite.perturbations:
        pairs = load_perturbations(suites.resolve_path(suite.perturbations))
    activations = {
        name: store.open_activations(store.variant_dir(config.paths, name), manifest.sha256)
        for name in variants
        if suite.variant(name).role not in ("untrained", *suites.REPEATS)
    }
    changes = {pair.id: pair.change for pair in pairs.pairs}
    terms = dict(pairs.lexicons or {})
    return Inputs(manifest, cases, controls, changes, terms, reference, activations)


def _list_cases(manifest: Manifest) -> tuple[tuple[Stimulus, ...], tuple[Stimulus, ...]]:
    """Return the perturbed texts and the controls that have an anchor; a note counts the others."""
    found = [s for s in manifest.stimuli if s.kind in ("perturbation", "control")]
    anchored = [s for s in found if effects.anchor_languages(s, manifest.suite.languages)]
    cases, controls = (
        tuple(s for s in anchored if s.kind == kind) for kind in ("perturbation", "control")
    )
    left_out = sum(s.kind == "perturbation" for s in found) - len(cases)
    if left_out:
        print(
            f"note: {left_out} perturbed texts are not measured: no language is left to measure "
            "them against, beside their own and those mixed into them; give more with --languages "
            f"to: {files.MAKE_MANIFEST}",
            file=sys.stderr,
        )
    return cases, controls


def _choose_variants(config: Config, manifest: Manifest) -> list[str]:
    """Return the extracted variants that the flags ask for, including the untrained one."""
    folders = {name: store.variant_dir(config.paths, name) for name in manifest.suite.names()}
    extracted = [name for name, folder in folders.items() if plan.plan_path(folder).is_file()]
    chosen = (
        command_line.choose("variant", config.variants, extracted) if config.variants else extracted
    )
    if not chosen:
        raise StudyError(
            f"{config.paths.activations}: no activations; make them with: {files.MAKE_ACTIVATIONS}"
        )
    return chosen


def _make_edge_file(
    inputs: Inputs, candidates: Sequence[Candidate], digest: str, seed: int
) -> EdgeCaseFile:
    """Return the chosen edge cases, with what they were measured on."""
    manifest = inputs.manifest
    suite = manifest.suite
    name = f"{suite.name} {manifest.sha256[:12]}"
    chosen = edge_cases.choose_cases(candidates)
    cases = [edge_cases.make_edge_case(n, found, name) for n, found in enumerate(chosen, start=1)]
    rates = edge_cases.rate_routers(cases, inputs.variants)
    other_model = suite.label != "Tiny Aya" or any(v.package for v in suite.variants)
    return EdgeCaseFile(
        version=project.SCHEMA_VERSION,
        source=f"failure_classifier.py, suite {suite.name}",
        categories=(*CATEGORIES, UNATTRIBUTED),
        metadata=EdgeCaseInfo(
            suite=suite.name,
            label=suite.label,
            note=_NOTE + _OTHER_MODEL if other_model else _NOTE,
            inputs_sha256=digest,
            manifest_sha256=manifest.sha256,
            seed=seed,
            variants=tuple(inputs.variants),
            router_best_pass_rate=rates,
            discriminating=bool(cases) and all(rate < 1 for rate in rates.values()),
            status_counts=dict(Counter(case.status for case in cases)),
            code_sha256=project.source_hash(),
        ),
        cases=tuple(cases),
    )
