"""Contrasts between variants: how post-training and regional training change alignment (ADR-016).

A contrast is the difference of two variants, paired by concept or by item of the parallel corpus.
The families are planned: Holm's correction is over the rows of one family, measure and window, and
not over questions that have nothing to do with each other. With a second seed of an adapter (role
``seed``) the same difference is measured where no difference of languages exists; a variant of role
``dose`` separates the set of languages from the amount of text for each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aya_probes.alignment import inference
from aya_probes.alignment.inputs import MIN_SPLIT_CONCEPTS
from aya_probes.alignment.windows import WINDOWS, Windows
from aya_probes.results.tables import Contrast
from aya_probes.suites import Variant

SPECIFICITY, GAIN, ELSEWHERE = "specificity", "targets", "elsewhere"

Values = Mapping[tuple[str, str], np.ndarray]  # (variant, language) -> values [layer, n]


@dataclass(frozen=True)
class Planned:
    """A difference of two variants that was planned before any result was read."""

    family: str
    left: str
    right: str
    targets: tuple[str, ...] = ()
    """Languages that the difference is about; empty: every language has a contrast of its own."""

    @property
    def name(self) -> str:
        return f"{self.left} - {self.right}"


def plan(variants: Sequence[Variant]) -> list[Planned]:
    """Return the planned contrasts of a run.

    - specificity: regional - control, its targets against all other languages;
    - parts: the two halves of specificity, the gain on targets and the change elsewhere;
    - region: regional - control, by language;
    - adaptation: regional - base, by language;
    - post-training: control - base, by language;
    - seed: another seed of a variant - this variant, by language;
    - seed specificity: the same for the targets of the variant against all other languages; for a
      control variant, for the targets of each regional one;
    - dose: regional - control with as much text for each language, as specificity and parts;
    - trained: variant - untrained, by language.

    In a run without a control variant, base replaces it. A regional variant without targets has no
    specificity, parts or dose.
    """
    by_name = {v.name: v for v in variants}
    base = next((v.name for v in variants if v.role == "base"), None)
    control = next((v.name for v in variants if v.role == "control"), base)
    untrained = next((v.name for v in variants if v.role == "untrained"), None)
    regional = [v for v in variants if v.role == "regional"]
    found = []
    if control is not None:
        for v in regional:
            if v.targets:
                found.append(Planned("specificity", v.name, control, v.targets))
                found.append(Planned("parts", v.name, control, v.targets))
        found += [Planned("region", v.name, control) for v in regional]
    if base is not None and control != base:
        found += [Planned("adaptation", v.name, base) for v in regional]
        found.append(Planned("post-training", str(control), base))
    for v in variants:
        if v.role == "seed" and v.of in by_name:
            of = by_name[v.of]
            found.append(Planned("seed", v.name, of.name))
            sets = [r.targets for r in regional] if of.name == control else [of.targets]
            found += [Planned("seed specificity", v.name, of.name, t) for t in sets if t]
        if v.role == "dose" and v.of == control:
            found += [Planned("dose", r.name, v.name, r.targets) for r in regional if r.targets]
    if untrained is not None:
        found += [Planned("trained", v.name, untrained) for v in variants if v.role != "untrained"]
    return found


@dataclass(frozen=True)
class Table:
    """The values of one measure, by variant and language."""

    measure: str
    values: Values
    groups: np.ndarray
    """The group of each item, numbered from 0: items of one document are not independent."""


@dataclass(frozen=True)
class Draws:
    """The random draws of the tests."""

    weights: np.ndarray  # bootstrap weights over groups [B, G], the same for all intervals
    flips: int  # number of random sign vectors
    seed: int


@dataclass(frozen=True)
class Difference:
    """One difference between two variants, per item."""

    family: str
    name: str
    part: str
    """specificity, targets or elsewhere; empty for a single language."""
    targets: tuple[str, ...]
    others: tuple[str, ...]
    items: np.ndarray
    """``[n]``; NaN for an item that is left out of one of the languages."""
    by_language: np.ndarray | None = None
    """Specificity: the mean difference on each target, then on each other language."""


def differences(
    planned: Sequence[Planned], languages: Sequence[str], windows: Windows, window: str
) -> Iterator[Difference]:
    """Yield every planned difference over one window of layers."""
    for each in planned:
        change = {
            code: windows.read(each.left, code, window) - windows.read(each.right, code, window)
            for code in languages
        }
        if not each.targets:
            for code in languages:
                yield Difference(each.family, each.name, "", (code,), (), change[code])
            continue
        targets = tuple(code for code in languages if code in each.targets)
        others = tuple(code for code in languages if code not in each.targets)
        if not targets or not others:
            continue
        gain, elsewhere = (
            np.nanmean([change[code] for code in codes], axis=0) for codes in (targets, others)
        )
        by_language = np.array([np.nanmean(change[code]) for code in targets + others])
        whole = Difference(
            each.family, each.name, SPECIFICITY, targets, others, gain - elsewhere, by_language
        )
        if each.family != "parts":
            yield whole
        if each.family in ("parts", "dose"):
            yield replace(whole, part=GAIN, others=(), items=gain, by_language=None)
            yield replace(whole, part=ELSEWHERE, targets=(), items=elsewhere, by_language=None)


def contrast_table(
    variants: Sequence[Variant],
    languages: Sequence[str],
    table: Table,
    untestable: Collection[str],
    draws: Draws,
) -> list[Contrast]:
    """Return every contrast of one measure, over every window; none with fewer than 8 groups.

    A contrast has an expanded-t interval and a two-sided sign-flip p-value over groups, and the
    smallest effect that the test would find with 80% power. A specificity contrast also has a
    one-sided permutation p-value over language labels, and the smallest value that it can reach.
    Languages with an untestable or undefined cell are left out.
    """
    names = [v.name for v in variants]
    usable = [
        code
        for code in languages
        if code not in untestable
        and all((name, code) in table.values for name in names)
        and all(np.isfinite(table.values[name, code]).any(1).all() for name in names)
    ]
    planned = plan(variants)
    if len(draws.weights[0]) < MIN_SPLIT_CONCEPTS or not usable or not planned:
        return []
    control = next((v.name for v in variants if v.role == "control"), None)
    reference = control or next((v.name for v in variants if v.role == "base"), names[0])
    windows = Windows(table.values, reference, table.groups, draws.seed)
    found: list[Contrast] = []
    for window in WINDOWS:
        part = [
            _tested(each, table, window, windows.text(window, each.targets + each.others), draws)
            for each in differences(planned, usable, windows, window)
        ]
        found += _holm(part)
    return found


def _tested(each: Difference, table: Table, window: str, layers: str, draws: Draws) -> Contrast:
    """Return one contrast with its interval and tests; p_holm is p, for now."""
    known = np.isfinite(each.items)
    groups = np.unique(table.groups[known], return_inverse=True)[1]
    items, count = each.items[known], int(groups.max()) + 1
    weights = draws.weights
    if count != weights.shape[1]:
        weights = inference.resample_weights(count, len(weights), draws.seed)
    lower, upper = inference.group_interval(items, groups, weights)
    sums = inference.group_sums(items, groups)
    p = inference.sign_flip_p(sums, count=draws.flips, seed=draws.seed)
    residuals = inference.group_sums(items - items.mean(), groups) * (count / len(items))
    label: tuple[float, float] | tuple[None, None] = (None, None)
    if each.by_language is not None:
        chosen = np.arange(len(each.targets) + len(each.others)) < len(each.targets)
        label = inference.label_permutation_p(each.by_language, chosen, seed=draws.seed)
    return Contrast(
        measure=table.measure,
        family=each.family,
        contrast=each.name,
        part=each.part,
        targets="+".join(each.targets),
        others="+".join(each.others),
        window=window,
        layers=layers,
        estimate=float(items.mean()),
        lower=float(lower),
        upper=float(upper),
        p=float(p),
        p_holm=float(p),
        detectable=float(inference.detectable(residuals)),
        n=len(items),
        groups=count,
        p_language=label[0],
        p_language_floor=label[1],
    )


def _holm(rows: Sequence[Contrast]) -> list[Contrast]:
    """Return the rows with Holm's correction over each family."""
    families: dict[str, list[int]] = {}
    for position, row in enumerate(rows):
        families.setdefault(row.family, []).append(position)
    adjusted = list(rows)
    for members in families.values():
        p = inference.holm(np.array([rows[n].p for n in members]))
        for n, value in zip(members, p, strict=True):
            adjusted[n] = replace(rows[n], p_holm=float(value))
    return adjusted
