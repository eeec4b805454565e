"""Contrasts between variants: how post-training and region change concept alignment.

All contrasts are paired by concept. Alignment is averaged over the window of layers ℓ* ± 2, where
ℓ* is the peak of the control variant. Each half of the concepts uses the peak of the other half,
so that choosing the window is independent of measuring in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aya_probes.alignment import inference
from aya_probes.alignment.inputs import MIN_SPLIT_CONCEPTS
from aya_probes.results.tables import Contrast
from aya_probes.suites import Variant

HALF_WINDOW = 2

Curves = Mapping[tuple[str, str], np.ndarray]  # (variant, language) -> A_i [layer, n]


@dataclass(frozen=True)
class Difference:
    """One difference between two variants, per concept."""

    name: str
    language: str  # a code; "targets vs untargeted" for a specificity contrast
    window: str
    differences: np.ndarray  # [n]
    by_language: np.ndarray | None = None  # specificity: mean difference [language]
    targeted: np.ndarray | None = None  # specificity: whether it is a target [language]


@dataclass(frozen=True)
class Windows:
    """The window of layers for each half of the concepts, by language."""

    curves: Curves
    control: str
    seed: int

    def peaks(self, code: str) -> list[tuple[np.ndarray, int]]:
        """Return each half of the concepts (indices) with the peak ℓ* of the other half."""
        curve = self.curves[self.control, code][:-1]
        first, second = inference.halves(curve.shape[1], self.seed)
        return [
            (mine, 1 + int(curve[1:, theirs].mean(1).argmax()))
            for mine, theirs in ((first, second), (second, first))
        ]

    def read(self, variant: str, code: str) -> np.ndarray:
        """Return each concept's mean A over its window, ``[n]``."""
        curve = self.curves[variant, code][:-1]
        result = np.empty(curve.shape[1])
        for mine, peak in self.peaks(code):
            low, high = max(1, peak - HALF_WINDOW), peak + HALF_WINDOW + 1
            result[mine] = curve[low:high, mine].mean(0)
        return result

    def text(self, code: str) -> str:
        """Return the two windows as text, such as ``4-8 / 6-10``."""
        last = len(self.curves[self.control, code]) - 2
        return " / ".join(
            f"{max(1, peak - HALF_WINDOW)}-{min(last, peak + HALF_WINDOW)}"
            for _, peak in self.peaks(code)
        )


def variant_pairs(variants: Sequence[Variant]) -> tuple[str | None, list[tuple[str, str, str]]]:
    """Return the control variant and the (kind, left, right) pairs to compare.

    post-training = control - base, region = regional - control, trained = variant - untrained.
    In a run without a control variant, base replaces it.
    """
    base = next((v.name for v in variants if v.role == "base"), None)
    control = next((v.name for v in variants if v.role == "control"), base)
    untrained = next((v.name for v in variants if v.role == "untrained"), None)
    if control is None:
        return None, []
    pairs = [("post-training", control, base)] if base and base != control else []
    pairs += [("region", v.name, control) for v in variants if v.role == "regional"]
    if untrained:
        pairs += [("trained", v.name, untrained) for v in variants if v.name != untrained]
    return control, pairs


def compute(
    variants: Sequence[Variant], languages: Sequence[str], curves: Curves, seed: int
) -> list[Difference]:
    """Return every contrast by language, and the specificity contrasts of regional variants."""
    control, pairs = variant_pairs(variants)
    if control is None or not languages:
        return []
    windows = Windows(curves, control, seed)
    targets = {v.name: [c for c in v.targets if c in languages] for v in variants}
    aimed = {code for v in variants if v.role == "regional" for code in v.targets}
    untargeted = [code for code in languages if code not in aimed]
    found = []
    for kind, left, right in pairs:
        name = f"{kind}: {left} - {right}"
        change = {code: windows.read(left, code) - windows.read(right, code) for code in languages}
        found += [Difference(name, code, windows.text(code), change[code]) for code in languages]
        if kind == "region" and targets[left] and untargeted:
            found.append(_specificity(left, right, targets[left], untargeted, change))
    return found


def _specificity(
    left: str, right: str, targets: list[str], untargeted: list[str], change: dict[str, np.ndarray]
) -> Difference:
    """Return the mean change on the targets minus that on languages no variant targets."""
    codes = [*targets, *untargeted]
    gap = np.mean([change[c] for c in targets], 0) - np.mean([change[c] for c in untargeted], 0)
    return Difference(
        f"specificity: {left} - {right}",
        f"{'+'.join(targets)} vs {'+'.join(untargeted)}",
        "per language",
        gap,
        np.array([change[c].mean() for c in codes]),
        np.array([c in targets for c in codes]),
    )


@dataclass(frozen=True)
class Draws:
    """The random draws of the tests."""

    weights: np.ndarray  # bootstrap weights over concepts [B, n], the same for all intervals
    flips: int  # number of random sign vectors
    seed: int


def contrast_table(
    variants: Sequence[Variant],
    languages: Sequence[str],
    curves: Curves,
    untestable: Collection[str],
    draws: Draws,
) -> list[Contrast]:
    """Return every contrast with its tests; none with fewer than 8 concepts.

    A contrast has an expanded-t interval and a two-sided sign-flip p-value over concepts, with
    Holm's correction over all contrasts and languages. A specificity contrast also has the exact
    one-sided permutation p-value over language labels, and the smallest value that it can reach.
    Languages with an untestable or undefined cell are left out.
    """
    if not curves or next(iter(curves.values())).shape[1] < MIN_SPLIT_CONCEPTS:
        return []
    names = [v.name for v in variants]
    usable = [
        code
        for code in languages
        if code not in untestable and all(np.isfinite(curves[n, code]).all() for n in names)
    ]
    found = compute(variants, usable, curves, draws.seed)
    if not found:
        return []
    differences = np.stack([each.differences for each in found])
    p = inference.sign_flip_p(differences, count=draws.flips, seed=draws.seed)
    lower, upper = inference.expanded_interval(differences, draws.weights)
    table = []
    for each, low, high, own, adjusted in zip(
        found, lower, upper, p, inference.holm(p), strict=True
    ):
        label: tuple[float, float] | tuple[None, None] = (None, None)
        if each.by_language is not None and each.targeted is not None:
            label = inference.label_permutation_p(each.by_language, each.targeted)
        table.append(
            Contrast(
                contrast=each.name,
                language=each.language,
                window=each.window,
                estimate=float(each.differences.mean()),
                lower=float(low),
                upper=float(high),
                p=float(own),
                p_holm=float(adjusted),
                n=len(each.differences),
                p_language=label[0],
                p_language_floor=label[1],
            )
        )
    return table
