"""The questions of the study, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aya_probes.findings import concepts, variants
from aya_probes.findings.statement import Finding
from aya_probes.results.failures import CategoryTest
from aya_probes.results.whole_run import Run

QUESTIONS: tuple[Callable[[Run], Finding | None], ...] = (
    concepts.shared,
    concepts.itself,
    variants.untrained,
    concepts.place,
    concepts.shape,
    concepts.corpus,
    variants.region,
    variants.dose,
    variants.adaptation,
    variants.robust,
    variants.artefact,
)


def find(run: Run, tests: Sequence[CategoryTest] | None) -> list[Finding]:
    """Return the findings of a run; ``tests`` is None if failures are not measured yet."""
    found = [finding for ask in QUESTIONS if (finding := ask(run)) is not None]
    return [*found, variants.failures(tests)]
