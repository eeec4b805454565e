"""Run the edge cases against a router, and count what it gets right beside simple baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aya_probes import errors
from aya_probes.failures import edge_cases
from aya_probes.results.failures import EdgeCase, EdgeCaseFile
from aya_probes.routers.calls import Router

COUNTED = ("confirmed", "control")  # a tie, or a case that is not confirmed, fails no router
ALL = "all"


@dataclass(frozen=True)
class CaseResult:
    """What a router did with one case."""

    test_id: str
    """The case."""
    category: str
    """Its failure category."""
    language: str
    """Language of its text (BCP-47)."""
    status: str
    """confirmed, control or another; only these two count."""
    acceptable: tuple[str, ...]
    """Variants that pass."""
    answer: str | None
    """What the router named; None if it named nothing."""
    passed: bool
    """Whether the answer is acceptable."""
    reason: str
    """Why it failed; empty if it passed."""
    seconds: float
    """How long the router took."""

    @property
    def counted(self) -> bool:
        """Whether the case counts."""
        return self.status in COUNTED


@dataclass(frozen=True)
class Tally:
    """How many of a group of cases a router and the baselines pass."""

    by: str
    """category, language or all."""
    name: str
    """The category or language."""
    cases: int
    """Number of cases that count."""
    passed: Mapping[str, int]
    """Cases passed by `router` and by each baseline."""


@dataclass(frozen=True)
class Report:
    """The outcome of a check."""

    results: tuple[CaseResult, ...]
    """Every case, in the order of the file."""
    tallies: tuple[Tally, ...]
    """Counts by category, by language, and of all cases."""

    @property
    def total(self) -> Tally:
        """The counts of all cases."""
        return self.tallies[-1]

    @property
    def passes(self) -> bool:
        """Whether every case that counts passed, and there is one."""
        return 0 < self.total.cases == self.total.passed["router"]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON types."""
        return {
            "passes": self.passes,
            "cases": [
                {**asdict(r), "counted": r.counted, "seconds": round(r.seconds, 3)}
                for r in self.results
            ],
            "tallies": [asdict(tally) for tally in self.tallies],
        }


def check_router(
    router: Router, content: EdgeCaseFile, progress: Callable[[], object] = lambda: None
) -> Report:
    """Give every case's text to the router, exactly as it is in the file; returns the report."""
    variants = content.metadata.variants
    results = []
    for case in content.cases:
        results.append(_check_case(router, case, variants))
        progress()
    return Report(tuple(results), tuple(_tally(content.cases, results, variants)))


def _check_case(router: Router, case: EdgeCase, variants: Sequence[str]) -> CaseResult:
    outcome = router(case.input)
    answer, reason = outcome.answer, outcome.reason
    if answer is not None:
        if answer not in variants:
            shown = errors.escape_hidden(answer[:60])
            reason = errors.unknown("variant", shown, variants)
        elif answer not in case.acceptable_variants:
            reason = f"named {answer}; acceptable: {', '.join(case.acceptable_variants)}"
    return CaseResult(
        test_id=case.test_id,
        category=case.failure_category,
        language=case.language_ground_truth,
        status=case.status,
        acceptable=case.acceptable_variants,
        answer=answer,
        passed=not reason,
        reason=reason,
        seconds=outcome.seconds,
    )


def _tally(
    cases: Sequence[EdgeCase], results: Sequence[CaseResult], variants: Sequence[str]
) -> list[Tally]:
    """Count the cases by category, by language and all together."""
    counted = [n for n, result in enumerate(results) if result.counted]
    kept = [cases[n] for n in counted]
    won = {"router": [results[n].passed for n in counted]}
    for name, answers in edge_cases.answer_baselines(kept, variants).items():
        won[name] = [a in c.acceptable_variants for a, c in zip(answers, kept, strict=True)]
    groups: dict[tuple[str, str], list[int]] = {}
    for by in ("category", "language"):
        for n, number in enumerate(counted):
            groups.setdefault((by, getattr(results[number], by)), []).append(n)
    groups = dict(sorted(groups.items())) | {(ALL, ALL): list(range(len(counted)))}
    return [
        Tally(by, name, len(members), {who: sum(w[n] for n in members) for who, w in won.items()})
        for (by, name), members in groups.items()
    ]


def format_table(report: Report) -> str:
    """Return the counts as a table, and below it every case that failed with its reason."""
    names = list(report.total.passed)
    header = f"{'':24}{'cases':>7}" + "".join(f"{name:>15}" for name in names)
    lines = [header]
    for by in ("category", "language", ALL):
        lines.append("" if by == ALL else f"by {by}")
        for tally in report.tallies:
            if tally.by == by:
                cells = "".join(f"{tally.passed[name]:>15}" for name in names)
                lines.append(f"{tally.name:24}{tally.cases:>7}{cells}")
    failed = [r for r in report.results if r.counted and not r.passed]
    lines += ["", *(f"{r.test_id} {r.category} {r.language}: {r.reason}" for r in failed)]
    skipped = sum(not r.counted for r in report.results)
    if skipped:
        lines.append(f"{skipped} cases are ties or unconfirmed and do not count")
    return "\n".join(lines).rstrip()
