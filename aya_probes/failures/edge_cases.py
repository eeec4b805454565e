"""Choose edge cases: a small set of texts that tells good routers from bad ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from aya_probes.failures.labels import CATEGORIES, count_scripts
from aya_probes.files import finite
from aya_probes.results.failures import EdgeCase, Evidence, FailureCase

N_CASES, N_PER_CATEGORY, N_CONTROLS = 32, 4, 8


@dataclass(frozen=True)
class Candidate:
    """A perturbed text on one regional variant, with what the choice depends on."""

    case: FailureCase
    """Its measurement."""
    change: str
    """Description of the change."""
    targeted: bool
    """Whether the regional variant was tuned for the text's language."""
    best: tuple[str, ...]
    """The variant with the largest effect, then those not measurably below it."""
    effects: Mapping[str, float]
    """Effect of the change, by variant."""
    control: bool = False
    """Whether it is chosen as a control."""

    @property
    def is_good(self) -> bool:
        """Whether a targeted variant is at least as good as the reference, and among the best."""
        changed = self.case.verdict != "no_op"
        among_best = self.case.variant in self.best
        return self.targeted and changed and among_best and self.case.delta >= 0


def choose_cases(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return up to 32 candidates with distinct texts: 8 controls, 4 per category, then by |delta|.

    Controls are taken from the good candidates, those that are measurably better first.
    """
    ordered = sorted(
        candidates, key=lambda c: (-abs(c.case.delta), c.case.stimulus_id, c.case.variant)
    )
    good = [replace(candidate, control=True) for candidate in ordered if candidate.is_good]
    better = [candidate for candidate in good if candidate.case.verdict == "regional_better"]
    chosen = _add({}, [*better, *good], N_CONTROLS)
    for category in CATEGORIES:
        of_category = [c for c in ordered if c.case.category == category]
        have = sum(c.case.category == category and not c.control for c in chosen.values())
        chosen = _add(chosen, of_category, N_PER_CATEGORY - have)
    return list(_add(chosen, ordered, N_CASES - len(chosen)).values())


def _add(
    chosen: Mapping[str, Candidate], candidates: Iterable[Candidate], count: int
) -> dict[str, Candidate]:
    """Return ``chosen`` (by stimulus id) and the first ``count`` candidates with other texts."""
    found = dict(chosen)
    for candidate in candidates:
        if len(found) >= len(chosen) + count:
            break
        found.setdefault(candidate.case.stimulus_id, candidate)
    return found


def make_edge_case(number: int, candidate: Candidate, run: str) -> EdgeCase:
    """Return case ``number`` of p1_edge_cases.json; ``run`` names the suite and the manifest."""
    case = candidate.case
    acceptable = sorted(candidate.best)
    decided = case.verdict in ("regional_worse", "regional_better")
    status = "control" if candidate.control else "confirmed" if decided else "tie"
    expected = case.variant if candidate.control else candidate.best[0]
    finding = "no measured difference" if status == "tie" else f"measured best on {expected}"
    return EdgeCase(
        test_id=f"P1-{number:02d}",
        input=case.input,
        language_ground_truth=case.tag,
        expected_variant=expected,
        acceptable_variants=tuple(acceptable),
        failure_category=case.category,
        status=status,
        routing_recommendation=f"{case.category} in {case.tag}: {finding}",
        p1_test_assertion=f"route(input) in {acceptable}",
        evidence=Evidence(
            parent_id=case.parent_id,
            perturbation=candidate.change,
            stimulus_id=case.stimulus_id,
            regional_variant=case.variant,
            reference_variant=case.reference_variant,
            effect={name: finite(value, 4) for name, value in candidate.effects.items()},
            delta=finite(case.delta, 4),
            ci95=(finite(case.lower, 4), finite(case.upper, 4)),
            layers=case.layers,
            pooling=case.pooling,
            run=run,
        ),
    )


def _main_script(case: EdgeCase) -> str:
    return (count_scripts(case.input).most_common(1) or [("", 0)])[0][0]


_ROUTERS: dict[str, Callable[[EdgeCase], str]] = {
    "constant": lambda case: "all",
    "script_only": _main_script,
    "language_only": lambda case: case.language_ground_truth,
}


def _most_accepted(cases: Sequence[EdgeCase], variants: Sequence[str]) -> str:
    """Return the variant that is acceptable in most cases, the first of several."""
    return max(variants, key=lambda name: sum(name in c.acceptable_variants for c in cases))


def answer_baselines(cases: Sequence[EdgeCase], variants: Sequence[str]) -> dict[str, list[str]]:
    """Return the answers of the best constant, script-only and language-only router, by case.

    For each group of cases that it cannot tell apart, a router gives the answer that passes most of
    them. It is fitted to the cases, so no router with that information alone passes more.
    """
    answers = {}
    for router, group_of in _ROUTERS.items():
        groups: dict[str, list[EdgeCase]] = {}
        for case in cases:
            groups.setdefault(group_of(case), []).append(case)
        best = {name: _most_accepted(group, variants) for name, group in groups.items()}
        answers[router] = [best[group_of(case)] for case in cases]
    return answers


def rate_routers(cases: Sequence[EdgeCase], variants: Sequence[str]) -> dict[str, float]:
    """Return the pass rate of each router of ``answer_baselines``: an upper bound of its kind."""
    rates = {}
    for router, answers in answer_baselines(cases, variants).items():
        passed = [a in c.acceptable_variants for a, c in zip(answers, cases, strict=True)]
        rates[router] = round(sum(passed) / max(1, len(cases)), 4)
    return rates
