"""Sign-flip tests by category, language and regional variant: the claims of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aya_probes.alignment import inference
from aya_probes.failures.effects import RESAMPLES
from aya_probes.results.failures import CategoryTest, FailureCase

MIN_PARENTS = 20  # with fewer there is no p-value
SIGN_FLIPS = 9_999


def compare_categories(cases: Sequence[FailureCase], seed: int) -> list[CategoryTest]:
    """Return a sign-flip test for each category, language and variant, with Holm's correction."""
    groups: dict[tuple[str, str, str], list[FailureCase]] = {}
    for case in cases:
        groups.setdefault((case.category, case.language, case.variant), []).append(case)
    tests = [_compare(group, seed) for _, group in sorted(groups.items())]
    adjusted = inference.holm(np.array([test.p for test in tests], dtype=float))
    return [replace(test, p_holm=_known(p)) for test, p in zip(tests, adjusted, strict=True)]


def _compare(group: Sequence[FailureCase], seed: int) -> CategoryTest:
    first = group[0]
    changed = [case for case in group if case.verdict != "no_op"]
    delta = np.array([case.delta for case in changed])
    interval, p = np.full(2, np.nan), float("nan")
    if len(delta) > 2:
        weights = inference.resample_weights(len(delta), RESAMPLES, seed)
        interval = np.array(inference.expanded_interval(delta, weights))
    if len({case.parent_id for case in changed}) >= MIN_PARENTS:
        p = float(inference.sign_flip_p(delta, count=SIGN_FLIPS, seed=seed))
    return CategoryTest(
        category=first.category,
        language=first.language,
        variant=first.variant,
        reference_variant=first.reference_variant,
        n=len(delta),
        mean_effect=float(np.mean([case.effect for case in changed])) if changed else None,
        mean_delta=float(delta.mean()) if changed else None,
        lower=_known(interval[0]),
        upper=_known(interval[1]),
        p=_known(p),
        p_holm=None,
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
