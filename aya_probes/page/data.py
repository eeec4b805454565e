"""The data of the page, read once when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aya_probes import files, records
from aya_probes.published import MAKE_PUBLISHED, Reanalysis
from aya_probes.results.alignment import Results, load_results
from aya_probes.results.failures import FailureCase, load_failure_cases
from aya_probes.results.tables import Contrast, Layers
from aya_probes.run_folder import RunPaths


@dataclass(frozen=True)
class PageData:
    """The results of a run."""

    results: Results
    layers: list[Layers]
    contrasts: list[Contrast]
    failures: list[FailureCase] | None
    """None means that they are not computed yet."""
    tokens: dict[str, Any]
    """The content of results/token_audit.json: the tokens of the probes."""
    published: Reanalysis | None
    """The re-analysis that ships with the project; it is the same for every run."""


def load_data(paths: RunPaths) -> PageData:
    """Read the results; StudyError names the command that makes missing or stale ones."""
    published = RunPaths().published
    has_failures = paths.failure_cases.is_file()
    return PageData(
        load_results(paths.curves),
        records.load_table(Layers, paths.commitment, files.MAKE_CURVES),
        records.load_table(Contrast, paths.contrasts, files.MAKE_CURVES),
        list(load_failure_cases(paths.failure_cases)) if has_failures else None,
        files.load_json(paths.token_audit, files.MAKE_CURVES),
        records.load(Reanalysis, published, MAKE_PUBLISHED) if published.is_file() else None,
    )
