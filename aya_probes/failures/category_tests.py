"""Sign-flip tests by category, language and regional variant: the claims of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from aya_probes.alignment import inference
from aya_probes.failures.effects import RESAMPLES
from aya_probes.results.failures import CategoryTest, FailureCase

MIN_PARENTS = 20  # with fewer there is no p-value
SIGN_FLIPS = 9_999


def compare_categories(cases: Sequence[FailureCase], seed: int) -> list[CategoryTest]:
    """Return a sign-flip test for each category, language and variant, then for each subtype.

    Holm's correction is over all categories, and apart from them over all subtypes.
    """
    return [
        *_family(cases, lambda case: "", seed),
        *_family([c for c in cases if c.subtype], lambda case: case.subtype, seed),
    ]


def _family(
    cases: Sequence[FailureCase], subtype: Callable[[FailureCase], str], seed: int
) -> list[CategoryTest]:
    groups: dict[tuple[str, str, str, str], list[FailureCase]] = {}
    for case in cases:
        key = (case.category, subtype(case), case.language, case.variant)
        groups.setdefault(key, []).append(case)
    tests = [_compare(group, key[1], seed) for key, group in sorted(groups.items())]
    adjusted = inference.holm(np.array([test.p for test in tests], dtype=float))
    return [replace(test, p_holm=_known(p)) for test, p in zip(tests, adjusted, strict=True)]


def _compare(group: Sequence[FailureCase], subtype: str, seed: int) -> CategoryTest:
    first = group[0]
    by_parent: dict[str, list[FailureCase]] = {}
    changed = [case for case in group if case.verdict != "no_op"]
    for case in changed:
        by_parent.setdefault(case.parent_id, []).append(case)

    def means(value: Callable[[FailureCase], float]) -> np.ndarray:
        """Return the mean over the texts of each parent."""
        return np.array([np.mean([value(c) for c in texts]) for texts in by_parent.values()])

    delta = means(lambda case: case.delta)
    interval, p = np.full(2, np.nan), float("nan")
    if len(delta) > 2:
        weights = inference.resample_weights(len(delta), RESAMPLES, seed)
        interval = np.array(inference.expanded_interval(delta, weights))
    if len(delta) >= MIN_PARENTS:
        p = float(inference.sign_flip_p(delta, count=SIGN_FLIPS, seed=seed))
    return CategoryTest(
        category=first.category,
        subtype=subtype,
        language=first.language,
        variant=first.variant,
        reference_variant=first.reference_variant,
        n=len(changed),
        parents=len(delta),
        mean_effect=_mean(means(lambda case: case.effect)),
        mean_delta=_mean(delta),
        lower=_known(interval[0]),
        upper=_known(interval[1]),
        mean_pivot_effect=_mean(means(lambda case: case.pivot_effect)),
        mean_pivot_delta=_mean(means(lambda case: case.pivot_delta)),
        p=_known(p),
        p_holm=None,
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
