"""Which variant understands a text, and whether that is more than chance could show.

The expected variant is the one with the highest level of comprehension of the text itself, not the
one that its change hurts least. Another variant is proven worse only if all of this holds:

- the best variant prefers the right sentence to every mismatched one in most frames;
- the difference has the same sign in every frame and against every mismatched sentence;
- it exceeds the null gap: what two models that should not differ show on these texts;
- it has the same sign on the other texts of the same concept, category and language.

Every other variant stays acceptable. A text is confirmed if a variant is proven worse.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aya_probes.behaviour.contrasts import Contrasts, level
from aya_probes.results.behaviour import CaseDecision
from aya_probes.stimuli import Stimulus

CONFIRMED, CONTROL, TIE, UNCONFIRMED = "confirmed", "control", "tie", "unconfirmed"
NULL_QUANTILE = 0.95
N_CASES, N_PER_CATEGORY, N_CONTROLS = 32, 4, 8


@dataclass(frozen=True)
class CaseInputs:
    """What the decisions rest on."""

    texts: tuple[Stimulus, ...]
    """The perturbed texts."""
    contrasts: Mapping[str, Contrasts]
    """Contrasts by variant, of those that a router can choose from."""
    targets: Mapping[str, Sequence[str]]
    """Languages that each variant was tuned for."""
    untestable: Mapping[str, str]
    """Status of the languages that the reference does not comprehend."""
    null_gap: float
    """``seed_gap``, or else ``untrained_gap``; infinite without either."""


def seed_gap(left: Contrasts, right: Contrasts) -> float:
    """Return the 95% quantile of the difference in level between two trainings of one model."""
    names = [name for name in left if name in right]
    gaps = [abs(level(left[name]) - level(right[name])) for name in names]
    return float(np.quantile(gaps, NULL_QUANTILE)) if gaps else math.inf


def untrained_gap(untrained: Contrasts) -> float:
    """Return what two models without knowledge would differ by: √2 times the level of one."""
    levels = [abs(level(contrast)) for contrast in untrained.values()]
    return math.sqrt(2) * float(np.quantile(levels, NULL_QUANTILE)) if levels else math.inf


@dataclass(frozen=True)
class _Comparison:
    """The best variant of a text, and what is known of the others."""

    best: str
    worse: list[str]  # proven
    seen: dict[str, str]  # apparently worse: why that is not proven


def decide_cases(inputs: CaseInputs) -> list[CaseDecision]:
    """Return the decision on every perturbed text that was asked."""
    asked = next(iter(inputs.contrasts.values()), {})
    texts = [text for text in inputs.texts if text.stimulus_id in asked]
    kin: dict[tuple[str, str | None, str], list[Stimulus]] = {}
    for text in texts:
        kin.setdefault((text.item_id, text.category, text.language), []).append(text)
    return [
        _decide(inputs, text, kin[text.item_id, text.category, text.language]) for text in texts
    ]


def _decide(inputs: CaseInputs, text: Stimulus, kin: Sequence[Stimulus]) -> CaseDecision:
    names = list(inputs.contrasts)
    levels = {name: level(inputs.contrasts[name][text.stimulus_id]) for name in names}
    best = max(names, key=lambda name: levels[name])
    proven: list[str] = []
    status, reason = UNCONFIRMED, inputs.untestable.get(text.language, "")
    if not reason and not _understands(inputs.contrasts[best][text.stimulus_id]):
        reason = "no variant prefers the right sentence in most frames"
    if not reason:
        found = _compare(inputs, text, [k for k in kin if k.wording != text.wording], best)
        proven, status, reason = found.worse, TIE, "no variant is worse in every frame"
        if found.worse:
            tuned = text.language in inputs.targets.get(best, ())
            status, reason = (CONTROL if tuned else CONFIRMED), ""
        elif found.seen:
            status = UNCONFIRMED
            reason = "; ".join(f"{name} {why}" for name, why in found.seen.items())
    return CaseDecision(
        stimulus_id=text.stimulus_id,
        item_id=text.item_id,
        language=text.language,
        category=str(text.category),
        expected_variant=best,
        acceptable_variants="+".join(name for name in names if name not in proven),
        level=levels[best],
        status=status,
        reason=reason,
    )


def _understands(contrast: np.ndarray) -> bool:
    """Return whether the right sentence beats every mismatched one in most frames."""
    return bool((contrast.min(1) > 0).mean() > 0.5)


def _compare(inputs: CaseInputs, text: Stimulus, kin: Sequence[Stimulus], best: str) -> _Comparison:
    found = _Comparison(best, [], {})
    first = inputs.contrasts[best]
    for name, other in inputs.contrasts.items():
        gap = first[text.stimulus_id] - other[text.stimulus_id]
        if name == best or not ((gap.mean(1) > 0).all() and (gap.mean(0) > 0).all()):
            continue
        elsewhere = [level(first[k.stimulus_id]) - level(other[k.stimulus_id]) for k in kin]
        if not gap.mean() > inputs.null_gap:
            found.seen[name] = "is not further off than models that should not differ"
        elif not elsewhere:
            found.seen[name] = "cannot be compared on another wording"
        elif min(elsewhere) <= 0:
            found.seen[name] = "is not worse on the other wordings"
        else:
            found.worse.append(name)
    return found


def choose_cases(decisions: Sequence[CaseDecision]) -> tuple[list[CaseDecision], list[str]]:
    """Return up to 32 confirmed cases and controls, and what is short of the quotas.

    8 controls, then 4 of each category, then the rest, those of the highest level first.
    """
    ordered = sorted(decisions, key=lambda d: (-d.level, d.stimulus_id))
    controls = [d for d in ordered if d.status == CONTROL]
    confirmed = [d for d in ordered if d.status == CONFIRMED]
    chosen = controls[:N_CONTROLS]
    for category in sorted({d.category for d in decisions}):
        chosen += [d for d in confirmed if d.category == category][:N_PER_CATEGORY]
    rest = [d for d in (*confirmed, *controls) if d not in chosen]
    chosen = (chosen + rest)[:N_CASES]
    return chosen, _shortfalls(decisions, chosen)


def _shortfalls(decisions: Sequence[CaseDecision], chosen: Sequence[CaseDecision]) -> list[str]:
    """Return a sentence for each quota that is not filled, with the reasons of the others."""
    short = []
    have = Counter(d.category for d in chosen if d.status == CONFIRMED)
    controls = sum(d.status == CONTROL for d in chosen)
    if controls < N_CONTROLS:
        short.append(f"{controls} of {N_CONTROLS} controls in which a regional variant is right")
    for category in sorted({d.category for d in decisions}):
        if have[category] < N_PER_CATEGORY:
            others = Counter(d.status for d in decisions if d.category == category)
            counts = ", ".join(f"{others[s]} {s}" for s in (TIE, UNCONFIRMED))
            short.append(
                f"{have[category]} of {N_PER_CATEGORY} confirmed cases of {category} ({counts})"
            )
    return short
