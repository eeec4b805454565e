"""The data of the page, read once when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aya_probes import files, project, records
from aya_probes.published import MAKE_PUBLISHED, Reanalysis
from aya_probes.results.alignment import Results
from aya_probes.results.failures import (
    CategoryTest,
    FailureCase,
    load_category_tests,
    load_failure_cases,
)
from aya_probes.results.tables import Contrast, LanguagePair
from aya_probes.results.whole_run import Run, load_run
from aya_probes.run_folder import RunPaths


@dataclass(frozen=True)
class PageData:
    """The results of a run."""

    paths: RunPaths
    run: Run
    language_map: list[LanguagePair]
    failures: list[FailureCase] | None
    """None means that they are not computed yet."""
    tests: list[CategoryTest] | None
    """The tests by category; None likewise."""
    tokens: dict[str, Any]
    """The content of results/token_audit.json: the tokens of the probes."""
    pieces: dict[str, str]
    """Text of each token by its id, as the tokenizer writes it; empty if it is not saved."""
    published: Reanalysis | None
    """The re-analysis that ships with the project; it is the same for every run."""
    others: dict[str, Path] = field(default_factory=dict)
    """Other run folders that this one can be compared with, by name."""

    @property
    def results(self) -> Results:
        """The alignment results."""
        return self.run.results

    @property
    def contrasts(self) -> list[Contrast]:
        """The differences between variants."""
        return list(self.run.contrasts)


def load_data(paths: RunPaths) -> PageData:
    """Read the results; StudyError names the command that makes missing or stale ones."""
    published = RunPaths().published
    has_failures = paths.failure_cases.is_file()
    has_tests = paths.failure_tests.is_file()
    has_map = paths.language_map.is_file()
    return PageData(
        paths,
        load_run(paths),
        records.load_table(LanguagePair, paths.language_map, files.MAKE_CURVES) if has_map else [],
        load_failure_cases(paths.failure_cases) if has_failures else None,
        load_category_tests(paths.failure_tests) if has_tests else None,
        files.load_json(paths.token_audit, files.MAKE_CURVES),
        files.load_json(paths.token_pieces, "") if paths.token_pieces.is_file() else {},
        records.load(Reanalysis, published, MAKE_PUBLISHED) if published.is_file() else None,
        other_runs(paths),
    )


def other_runs(paths: RunPaths) -> dict[str, Path]:
    """Return the runs of the repository and beside ``paths`` that have alignment results."""
    here = paths.run_dir.resolve()
    candidates = [project.ROOT, *sorted((project.ROOT / "runs").glob("*")), *sorted(_beside(here))]
    found = {}
    for folder in dict.fromkeys(path.resolve() for path in candidates):
        if folder != here and RunPaths(folder).curves.is_file():
            found["the repository's run" if folder == project.ROOT else folder.name] = folder
    return found


def _beside(folder: Path) -> list[Path]:
    """Return the folders beside a run, if they lie in a folder of runs."""
    return list(folder.parent.glob("*")) if folder.parent.name == "runs" else []
