"""Choose contrasts of results/contrasts.csv, and find the seed difference that each must exceed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aya_probes.results.tables import Contrast

PRIMARY_WINDOW = "all"
SEED, SEED_SPECIFICITY = "seed", "seed specificity"


@dataclass(frozen=True)
class SeedNull:
    """The same difference as a contrast, between two training seeds of one of its variants."""

    estimate: float
    """Largest absolute difference over the pairs of seeds."""
    reach: float | None
    """Largest absolute end of the 95% intervals; None if none of the differences has one."""

    def exceeded_by(self, row: Contrast) -> bool:
        """Return whether ``row`` is larger than the difference between seeds.

        Its interval must lie beyond the estimate of that difference, and its estimate beyond the
        intervals.
        """
        outside = row.lower > self.estimate or row.upper < -self.estimate
        return outside and (self.reach is None or abs(row.estimate) > self.reach)


def languages(joined: str) -> list[str]:
    """Return the languages of a ``targets`` or ``others`` field."""
    return joined.split("+") if joined else []


def choose(
    rows: Sequence[Contrast], measure: str, *families: str, window: str = PRIMARY_WINDOW
) -> list[Contrast]:
    """Return the contrasts of a measure, of these families and one window, in file order."""
    return [r for r in rows if r.measure == measure and r.family in families and r.window == window]


def same(rows: Sequence[Contrast], row: Contrast, **changed: str) -> Contrast | None:
    """Return the row that differs from ``row`` only in the named fields, or None."""
    fields = ("measure", "family", "contrast", "part", "targets", "others", "window")
    wanted = {name: getattr(row, name) for name in fields} | changed
    for other in rows:
        if all(getattr(other, name) == value for name, value in wanted.items()):
            return other
    return None


def seed_null(
    rows: Sequence[Contrast], row: Contrast, repeats: Mapping[str, str]
) -> SeedNull | None:
    """Return the seed difference of a contrast, or None without a second seed of its variants.

    ``repeats`` is that of the run (``RunInfo.repeats``). The difference between seeds has no
    direction, so absolute values are compared. For a part or a specificity it is the mean over its
    languages; an interval is known for a single language, and for a specificity.
    """
    sides = row.contrast.split(" - ")
    pairs = [f"{again} - {of}" for again, of in repeats.items() if of in sides]
    found = [r for r in rows if r.measure == row.measure and r.window == row.window]
    whole = [
        r
        for r in found
        if r.contrast in pairs
        and (r.family, r.part, r.targets, r.others)
        == (SEED if not row.part else SEED_SPECIFICITY, row.part, row.targets, row.others)
    ]
    estimates = [abs(r.estimate) for r in whole]
    for pair in pairs:
        single = {r.targets: r.estimate for r in found if r.family == SEED and r.contrast == pair}
        wanted = [languages(row.targets), languages(row.others)]
        if single and all(code in single for codes in wanted for code in codes):
            gains = [np.mean([single[code] for code in codes]) for codes in wanted if codes]
            estimates.append(abs(float(gains[0] - gains[1] if len(gains) > 1 else gains[0])))
    if not estimates:
        return None
    ends = [max(abs(r.lower), abs(r.upper)) for r in whole]
    return SeedNull(max(estimates), max(ends, default=None))
