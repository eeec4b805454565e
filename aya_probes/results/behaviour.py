"""What behaviour.py writes: how well each variant predicts and understands texts (ADR-019).

results/behaviour.csv has one ``Behaviour`` per row, and results/behaviour_summary.csv one
``BehaviourSummary`` per row. After the sample ``whole`` there are results/behaviour_tests.csv, of
``LossTest``, and results/behaviour_cases.csv, of ``CaseDecision``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aya_probes import records

MAKE_BEHAVIOUR = "uv run behaviour.py"
SURPRISAL, COMPREHENSION = "surprisal", "comprehension"
PARITY = "information_parity"


@dataclass(frozen=True)
class Behaviour:
    """A row of results/behaviour.csv: one text on one variant.

    Surprisal has one row per text. Comprehension has one per text, target and frame.
    """

    __pydantic_config__ = records.STRICT

    variant: str
    """Variant measured."""
    stimulus_id: str
    """Id of the text."""
    kind: str
    """probe, parallel, perturbation or control."""
    item_id: str
    """Id of the concept, or of the item of the parallel corpus."""
    language: str
    """Language of the text (BCP-47); for a perturbed text, that of its parent."""
    measure: str
    """surprisal (of the text) or comprehension (of the text, by the target's sentence)."""
    target: str
    """Comprehension: language of the candidates; empty for surprisal."""
    frame: str
    """Comprehension: the frame of data/behaviour_frames.toml; empty for surprisal."""
    nats: float
    """Surprisal: −log P(text). Comprehension: −log P(right sentence | text in the frame)."""
    tokens: int
    """Tokens that nats is the sum of."""
    bytes: int
    """UTF-8 bytes of what is predicted: the text, or the right sentence."""
    nats_per_token: float
    """nats / tokens."""
    nats_per_byte: float
    """nats / bytes."""
    pmi: float | None
    """Comprehension: log P(right | text) − log P(right), in nats."""
    margin: float | None
    """Comprehension: pmi minus the mean pmi of the mismatched sentences, in nats."""
    lead: float | None
    """Comprehension: pmi minus the largest pmi of a mismatched sentence, in nats."""
    correct: float | None
    """Comprehension: 1 if the right sentence has the largest pmi, 1/k if k sentences have it,
    else 0."""
    choice: str
    """Comprehension: concept of the sentence with the largest pmi; several are joined by +."""
    chance: float | None
    """Comprehension: 1 / number of candidates."""


@dataclass(frozen=True)
class BehaviourSummary:
    """A row of results/behaviour_summary.csv: a language on a variant."""

    __pydantic_config__ = records.STRICT

    variant: str
    """Variant measured."""
    language: str
    """Language of the texts (BCP-47)."""
    measure: str
    """information_parity: surprisal of the pivot's texts / surprisal of the same texts in this
    language (Tsvetkov & Kipnis 2024). comprehension: accuracy of choosing the right sentence."""
    target: str
    """The pivot; for comprehension, the language of the candidates."""
    kind: str
    """Texts: probe or parallel."""
    n: int
    """Number of texts in the language."""
    groups: int
    """Independent units: concepts, or documents of the parallel corpus."""
    frames: int | None
    """Comprehension: number of frames."""
    value: float
    """The ratio, or the accuracy (mean over the frames of a text, then over texts)."""
    lower: float | None
    """Lower end of the 95% interval: expanded bootstrap over groups for a ratio, empty for fewer
    than 4; Wilson's over concepts for an accuracy."""
    upper: float | None
    """Upper end of that interval."""
    chance: float | None
    """Comprehension: accuracy of a model that ignores the text."""
    p: float | None
    """Comprehension: one-sided p-value of the accuracy, permuting the concepts of each group."""
    margin: float | None
    """Comprehension: mean margin in nats."""
    lowest_frame: float | None
    """Comprehension: the lowest accuracy in a single frame."""
    status: str
    """Comprehension: above_chance or not_above_chance (the interval of this variant), or
    `untestable (accuracy x, chance y)` where the reference variant is not above chance. Parity:
    empty."""


@dataclass(frozen=True)
class LossTest:
    """A row of results/behaviour_tests.csv: a category in one language on one variant.

    The loss of a text is the margin of its parent minus its own, in nats. excess is the loss on the
    variant minus the loss on the reference.
    """

    __pydantic_config__ = records.STRICT

    category: str
    """Category that the texts were made for."""
    language: str
    """Language of the parents (BCP-47)."""
    variant: str
    """Variant measured."""
    reference_variant: str
    """Variant that it is compared with: the control variant, or base."""
    target: str
    """Language of the candidates."""
    n: int
    """Number of texts."""
    parents: int
    """Number of parents, over which the test is made."""
    mean_loss: float | None
    """Mean loss on the variant; empty where the language is untestable."""
    mean_excess: float | None
    """Mean excess: positive where the change costs the variant more than the reference."""
    lower: float | None
    """Lower end of the 95% bootstrap interval of mean_excess over parents."""
    upper: float | None
    """Upper end of that interval."""
    lowest_frame: float | None
    """Smallest mean excess in a single frame."""
    highest_frame: float | None
    """Largest mean excess in a single frame."""
    p: float | None
    """Two-sided sign-flip p-value of mean_excess; empty for fewer than 20 parents."""
    p_holm: float | None
    """p, corrected over all rows (Holm)."""
    status: str
    """Empty, or `untestable (accuracy x, chance y)`."""


@dataclass(frozen=True)
class CaseDecision:
    """A row of results/behaviour_cases.csv: which variant understands a perturbed text."""

    __pydantic_config__ = records.STRICT

    stimulus_id: str
    """Id of the perturbed text."""
    item_id: str
    """Id of the concept."""
    language: str
    """Language of its parent (BCP-47)."""
    category: str
    """Category that it was made for."""
    expected_variant: str
    """Variant with the highest level."""
    acceptable_variants: str
    """All variants that are not proven worse, joined by +."""
    level: float
    """Mean margin of the expected variant over frames, in nats."""
    status: str
    """confirmed, control (confirmed, and the expected variant was tuned for the language), tie (no
    variant is worse in every frame), or unconfirmed."""
    reason: str
    """Why the text is a tie or unconfirmed; empty otherwise."""


def save_behaviour(path: Path, rows: Sequence[Behaviour]) -> None:
    """Write results/behaviour.csv."""
    records.save_table(path, Behaviour, rows)


def load_behaviour(path: Path) -> list[Behaviour]:
    """Load results/behaviour.csv; raises StudyError naming file, line and column."""
    return records.load_table(Behaviour, path, MAKE_BEHAVIOUR)


def save_summary(path: Path, rows: Sequence[BehaviourSummary]) -> None:
    """Write results/behaviour_summary.csv."""
    records.save_table(path, BehaviourSummary, rows)


def load_summary(path: Path) -> list[BehaviourSummary]:
    """Load results/behaviour_summary.csv; raises StudyError naming file, line and column."""
    return records.load_table(BehaviourSummary, path, MAKE_BEHAVIOUR)


def save_tests(path: Path, rows: Sequence[LossTest]) -> None:
    """Write results/behaviour_tests.csv."""
    records.save_table(path, LossTest, rows)


def load_tests(path: Path) -> list[LossTest]:
    """Load results/behaviour_tests.csv; raises StudyError naming file, line and column."""
    return records.load_table(LossTest, path, MAKE_BEHAVIOUR)


def save_cases(path: Path, rows: Sequence[CaseDecision]) -> None:
    """Write results/behaviour_cases.csv."""
    records.save_table(path, CaseDecision, rows)


def load_cases(path: Path) -> list[CaseDecision]:
    """Load results/behaviour_cases.csv; raises StudyError naming file, line and column."""
    return records.load_table(CaseDecision, path, MAKE_BEHAVIOUR)
