"""What failure_classifier.py writes: perturbed texts, tests by category, and edge cases.

results/failure_cases.csv has one ``FailureCase`` per row, and results/failure_tests.csv one
``CategoryTest`` per row. p1_edge_cases.json is one ``EdgeCaseFile``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aya_probes import files, project, records
from aya_probes.errors import StudyError


@dataclass(frozen=True)
class FailureCase:
    """A row of results/failure_cases.csv: one perturbed text on one regional variant."""

    __pydantic_config__ = records.STRICT

    stimulus_id: str
    """Id of the perturbed text."""
    parent_id: str
    """Id of its parent, the probe sentence that it was made from."""
    language: str
    """Language of the parent (BCP-47)."""
    tag: str
    """BCP-47 of the perturbed text, such as hi-Latn or bho."""
    variant: str
    """Regional variant measured."""
    reference_variant: str
    """Variant that it is compared with: the control variant, or base if there is none."""
    category: str
    """Category that the text was made for."""
    subtype: str
    """Kind of change within the category."""
    mixed: str
    """Other languages in the text (BCP-47), joined by +."""
    anchor: str
    """Languages whose sentences with this meaning the effect is measured against, joined by +."""
    labels: str
    """All categories whose rule holds, in order of precedence, joined by `;`; or UNATTRIBUTED."""
    effect: float
    """Alignment of the text with the anchor minus that of its parent, on `variant`."""
    reference_effect: float
    """The same difference on `reference_variant`."""
    delta: float
    """effect − reference_effect."""
    lower: float
    """Lower end of the 95% interval of delta. Resampled are the negatives, which are the anchors
    of the other concepts."""
    upper: float
    """Upper end of that interval."""
    pivot_effect: float
    """effect against the pivot's sentence alone, from which a text can borrow words."""
    pivot_delta: float
    """delta against the pivot's sentence alone."""
    layers: str
    """First and last of the layers averaged, such as 9-13."""
    pooling: str
    """Pooling of the vectors: always content_mean."""
    verdict: str
    """regional_worse or regional_better (the interval excludes 0), no_difference, or no_op (the
    tokenizer gives the text and its parent the same tokens)."""
    input: str
    """The perturbed text."""
    parent: str
    """The text of the parent."""

    @property
    def detected(self) -> str:
        """The first of the labels: the category that the rules detect."""
        return self.labels.split(";")[0]


@dataclass(frozen=True)
class CategoryTest:
    """A row of results/failure_tests.csv: a category in one language on one regional variant.

    Texts with the verdict no_op are left out. The texts of one parent are averaged first: the test
    is over parents.
    """

    __pydantic_config__ = records.STRICT

    category: str
    """Category that the texts were made for."""
    subtype: str
    """Kind of change within the category; empty for all of them."""
    language: str
    """Language of the parents (BCP-47)."""
    variant: str
    """Regional variant measured."""
    reference_variant: str
    """Variant that it is compared with."""
    n: int
    """Number of texts."""
    parents: int
    """Number of parents."""
    mean_effect: float | None
    """Mean of effect over parents; empty if n is 0."""
    mean_delta: float | None
    """Mean of delta over parents; empty if n is 0."""
    lower: float | None
    """Lower end of the 95% bootstrap interval of mean_delta over parents; empty for fewer than
    3."""
    upper: float | None
    """Upper end of that interval."""
    mean_pivot_effect: float | None
    """Mean of pivot_effect over parents."""
    mean_pivot_delta: float | None
    """Mean of pivot_delta over parents."""
    p: float | None
    """Two-sided sign-flip p-value of mean_delta; empty for fewer than 20 parents."""
    p_holm: float | None
    """p, corrected over all rows with an empty subtype, or over all with one (Holm)."""


@dataclass(frozen=True)
class BorrowedWords:
    """A row of results/borrowed_words.csv: what the borrowed words of mixed texts bring alone.

    A is that of failures.effects. The anchor leaves out the languages that words are borrowed from.
    """

    __pydantic_config__ = records.STRICT

    variant: str
    """Variant measured."""
    language: str
    """Language of the parents (BCP-47)."""
    subtype: str
    """Kind of change: into which language."""
    mixed: str
    """Languages that the words are borrowed from, joined by +."""
    n: int
    """Number of texts."""
    anchor_parent: float
    """Mean A of the parents with the anchor."""
    anchor_text: float
    """Mean A of the perturbed texts with the anchor."""
    anchor_words: float
    """Mean A of the borrowed words alone with the anchor."""
    pivot_parent: float
    """Mean A of the parents with the pivot's sentence."""
    pivot_text: float
    """Mean A of the perturbed texts with it."""
    pivot_words: float
    """Mean A of the borrowed words alone with it."""


@dataclass(frozen=True)
class Evidence:
    """The measurement behind an edge case; numbers have 4 significant digits."""

    __pydantic_config__ = records.STRICT

    parent_id: str
    """Id of the probe sentence that the text was made from."""
    perturbation: str
    """Description of the change."""
    stimulus_id: str
    """Id of the perturbed text."""
    regional_variant: str
    """Regional variant measured."""
    reference_variant: str
    """Variant that it is compared with."""
    effect: dict[str, float | None]
    """Effect of the change, by variant."""
    delta: float | None
    """Effect on the regional variant minus effect on the reference."""
    ci95: tuple[float | None, float | None]
    """95% interval of delta, from resampled negatives."""
    layers: str
    """First and last of the layers averaged."""
    pooling: str
    """Pooling of the vectors."""
    run: str
    """Suite and the first 12 digits of the manifest's sha256."""


@dataclass(frozen=True)
class EdgeCase:
    """One test case for a router."""

    __pydantic_config__ = records.STRICT

    test_id: str
    """P1-01, P1-02, and so on."""
    input: str
    """Text to give to the router."""
    language_ground_truth: str
    """Language of the text (BCP-47)."""
    expected_variant: str
    """Variant with the largest effect; for a control, the regional variant of the language."""
    acceptable_variants: tuple[str, ...]
    """The best variant, and all that are not measurably worse."""
    failure_category: str
    """Category that the text was made for."""
    status: str
    """confirmed (the regional variant differs measurably from the reference), tie (it does not), or
    control (the regional variant of the language is among the best)."""
    routing_recommendation: str
    """The finding in one sentence."""
    p1_test_assertion: str
    """What a test of the router should assert."""
    evidence: Evidence
    """The measurement behind it."""


@dataclass(frozen=True)
class EdgeCaseInfo:
    """What the edge cases were measured on, and whether they can tell routers apart."""

    __pydantic_config__ = records.STRICT

    suite: str
    """Name of the suite."""
    label: str
    """Name of the model in figures and reports."""
    note: str
    """Conclusions that the cases do not support."""
    inputs_sha256: str
    """Hash of everything that affects the numbers; they are recomputed only if it changes."""
    manifest_sha256: str
    """Hash of the stimulus manifest."""
    seed: int
    """Seed of all random draws."""
    variants: tuple[str, ...]
    """Variants that a router can choose from."""
    router_best_pass_rate: dict[str, float]
    """Largest share of cases that a router can pass if it always gives the same answer
    (`constant`), or knows only the script (`script_only`) or the language (`language_only`)."""
    discriminating: bool
    """Whether none of these routers passes every case."""
    status_counts: dict[str, int]
    """Number of cases by status."""
    code_sha256: str
    """Hash of the package's source code; it is recorded and never compared."""


@dataclass(frozen=True)
class EdgeCaseFile:
    """p1_edge_cases.json: the priority-1 test cases for a language router ("P1").

    A router reads a text and chooses the variant that should answer it. Each case gives a text and
    the variants that were measured best on it.
    """

    __pydantic_config__ = records.STRICT

    version: int
    """Version of the file format."""
    source: str
    """Program that wrote the file, and its suite."""
    categories: tuple[str, ...]
    """All possible values of failure_category."""
    metadata: EdgeCaseInfo
    """What the cases were measured on."""
    cases: tuple[EdgeCase, ...]
    """At most 32 cases."""


def save_failure_cases(path: Path, cases: Sequence[FailureCase]) -> None:
    """Write results/failure_cases.csv."""
    records.save_table(path, FailureCase, cases)


def load_failure_cases(path: Path) -> list[FailureCase]:
    """Load results/failure_cases.csv; raises StudyError naming file, line and column."""
    return records.load_table(FailureCase, path, files.MAKE_FAILURES)


def save_borrowed_words(path: Path, rows: Sequence[BorrowedWords]) -> None:
    """Write results/borrowed_words.csv."""
    records.save_table(path, BorrowedWords, rows)


def load_borrowed_words(path: Path) -> list[BorrowedWords]:
    """Load results/borrowed_words.csv; raises StudyError naming file, line and column."""
    return records.load_table(BorrowedWords, path, files.MAKE_FAILURES)


def save_category_tests(path: Path, tests: Sequence[CategoryTest]) -> None:
    """Write results/failure_tests.csv."""
    records.save_table(path, CategoryTest, tests)


def load_category_tests(path: Path) -> list[CategoryTest]:
    """Load results/failure_tests.csv; raises StudyError naming file, line and column."""
    return records.load_table(CategoryTest, path, files.MAKE_FAILURES)


def save_edge_cases(path: Path, content: EdgeCaseFile) -> None:
    """Write p1_edge_cases.json."""
    files.save_json(path, records.to_json(content))


def load_edge_cases(path: Path) -> EdgeCaseFile:
    """Load and check p1_edge_cases.json; raises StudyError naming file and field."""
    raw = files.load_json(path, files.MAKE_FAILURES)
    version = files.need(raw, "version", int, str(path), files.MAKE_FAILURES)
    if version != project.SCHEMA_VERSION:
        raise StudyError(
            f"{path}: version is {version}, this program reads {project.SCHEMA_VERSION}; "
            f"regenerate it with: {files.MAKE_FAILURES}"
        )
    return records.parse(EdgeCaseFile, raw, str(path), files.MAKE_FAILURES)
