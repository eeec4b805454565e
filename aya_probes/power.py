"""What a run could find: the smallest effect of its contrasts, told before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass

from aya_probes.alignment import inference
from aya_probes.alignment.inputs import MIN_SPLIT_CONCEPTS
from aya_probes.stimuli import Manifest


@dataclass(frozen=True)
class Spread:
    """How much a paired difference between two variants varies over items."""

    measure: str
    """Name of the measure."""
    kind: str
    """What the items are."""
    deviation: float
    """Standard deviation over items of the difference in A, in one language."""


SPREADS = (
    Spread("concept alignment", "concepts", 0.010),
    Spread("sentence alignment", "sentences", 0.03),
)
"""Measured on suite mini: regional − control variant, standardised vectors, mean over layers 1..L.

The concepts are those of data/concept_probes.json, the sentences those of FLORES devtest, where 281
articles resemble each other within: sentences count as independent here, so the second is a lower
limit. Another model, other stimuli or more training give other values.
"""


def describe(manifest: Manifest) -> list[str]:
    """Return what the contrasts of a run could detect, in at most two lines.

    Empty for a suite with one variant, which has no contrast.
    """
    concepts = len(manifest.metadata["concepts"])
    corpus = manifest.metadata["corpus"]
    items = 0 if corpus["corpus"] == "cldr" else corpus["items"]  # names: not measured
    if len(manifest.suite.variants) < 2:
        return []
    found = []
    for spread, n in zip(SPREADS, (concepts, items), strict=True):
        if n >= MIN_SPLIT_CONCEPTS:
            effect = inference.detectable_from(spread.deviation, n)
            found.append(f"{effect:.4f} of {spread.measure} ({n} {spread.kind})")
    if not found:
        return []
    return [
        f"smallest difference between two variants, in one language, that a test finds with 80% "
        f"power: {', '.join(found)}",
        "(uncorrected, at the spread of suite mini's differences; aya_probes/power.py)",
    ]
