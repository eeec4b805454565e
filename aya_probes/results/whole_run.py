"""All alignment results of a run, and what they say of its base variant."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aya_probes import files, records
from aya_probes.results.alignment import Results, load_results
from aya_probes.results.curves import Curve
from aya_probes.results.tables import Contrast, Layers
from aya_probes.run_folder import RunPaths

ALPHA = 0.05


@dataclass(frozen=True)
class Run:
    """What a run's alignment files hold."""

    results: Results
    layers: Mapping[tuple[str, str], Layers]  # of ALL concepts, by variant and language
    contrasts: Sequence[Contrast]

    @property
    def base(self) -> str:
        """The base variant, else the first one."""
        return self.results.info.first("base") or self.results.info.variants[0]

    @property
    def shown(self) -> list[str]:
        """The variants without those that train another one again."""
        info = self.results.info
        return [v for v in info.variants if v not in info.repeats]

    @property
    def testable(self) -> list[str]:
        """The languages that are testable on the base variant; none without probes."""
        results = self.results
        if not results.info.concepts:
            return []
        return [c for c in results.info.others if not results.is_untestable(self.base, c)]

    def curve(self, measure: str, variant: str, language: str) -> Curve:
        """Return a curve that the run must have."""
        found = self.results.curve(measure, variant, language)
        assert found is not None, (measure, variant, language)
        return found

    def smallest_p(self, measure: str, variant: str, language: str, field: str = "p") -> float:
        """Return the smallest max-T p-value over layers 1..L; NaN if there is none."""
        curve = self.results.curve(measure, variant, language)
        p = np.array([np.nan]) if curve is None else curve.array(field)[1:]
        return float("nan") if np.isnan(p).all() else float(np.nanmin(p))

    def passes(self, measure: str, variant: str, language: str) -> bool:
        """Return whether the test of a measure is passed at some layer from 1 to L."""
        return self.smallest_p(measure, variant, language) <= ALPHA


@functools.cache
def load_run(paths: RunPaths) -> Run:
    """Read a run's alignment results; StudyError names the command that makes missing ones."""
    table = records.load_table(Layers, paths.commitment, files.MAKE_CURVES)
    whole = {(r.variant, r.language): r for r in table if r.concept_id == "ALL"}
    contrasts = records.load_table(Contrast, paths.contrasts, files.MAKE_CURVES)
    return Run(load_results(paths.curves), whole, contrasts)
