"""What a run could find: the smallest effect of its contrasts, told before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass

from aya_probes.alignment import inference
from aya_probes.alignment.inputs import MIN_SPLIT_CONCEPTS
from aya_probes.stimuli import Manifest


@dataclass(frozen=True)
class Spread:
    """How much the difference in A between two variants varies over items, in one language."""

    measure: str
    """Measure of results/contrasts.csv."""
    items: str
    """What the items are."""
    control: float
    """Standard deviation of regional − control."""
    base: float
    """Standard deviation of regional − base."""


CONCEPTS = Spread("concept_alignment", "concepts", 0.0053, 0.0097)
NAMES = Spread("parallel_alignment", "names", 0.0187, 0.0244)
SENTENCES = Spread("parallel_alignment", "sentences", 0.0080, 0.0196)
"""Medians over the languages and the regional variants of suite mini (results/contrasts.csv) and,
for sentences, of mini-flores: standardised vectors, mean over layers 1..L, families region and
adaptation. The spread of sentences is that of independent ones with the same error: sentences of
one article resemble each other, and the articles of FLORES have 3 to 4. Another model, other
stimuli or more training give other values.
"""


def describe(manifest: Manifest) -> list[str]:
    """Return what the contrasts of a run could detect, in two lines.

    Empty for a suite with one variant, and for fewer than 8 items, which have no contrasts.
    """
    corpus = manifest.metadata["corpus"]
    parallel = NAMES if corpus["corpus"] == "cldr" else SENTENCES
    sizes = ((CONCEPTS, len(manifest.metadata["concepts"])), (parallel, int(corpus["items"])))
    found = [_effect(spread, n) for spread, n in sizes if n >= MIN_SPLIT_CONCEPTS]
    if len(manifest.suite.variants) < 2 or not found:
        return []
    return [
        "smallest difference between a regional variant and control (base) that a test finds in "
        "one language with 80% power:",
        f"  {'; '.join(found)}, uncorrected, if differences vary as those of suite mini",
    ]


def _effect(spread: Spread, n: int) -> str:
    control, base = (inference.detectable_from(s, n) for s in (spread.control, spread.base))
    return f"{spread.measure} {control:.4f} ({base:.4f}), {n} {spread.items}"
