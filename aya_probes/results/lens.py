"""What logit_lens.py writes: a row per layer and language, a row per cell, and a record.

results/logit_lens.csv has one ``LensRow`` per row, results/logit_lens_cells.csv one ``LensCell``
per row, and results/logit_lens.json is one ``LensResults``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aya_probes import files, project, records
from aya_probes.errors import StudyError

MAKE_LENS = "uv run logit_lens.py"


@dataclass(frozen=True)
class LensCell:
    """A row of results/logit_lens_cells.csv: one task between two languages on one variant."""

    __pydantic_config__ = records.STRICT

    variant: str
    """Variant measured."""
    task: str
    """translation, repetition or cloze."""
    source: str
    """Language of the word or sentence given."""
    target: str
    """Language of the answer."""
    concepts: int
    """Number of concepts asked for."""
    prompts: int
    """Number of prompts."""
    accuracy: float
    """Mean over concepts of the share of prompts whose greedy continuation is exactly a valid
    word."""
    lower: float
    """Lower end of its 95% Wilson interval over concepts."""
    upper: float
    """Upper end of that interval."""
    chance: float
    """1 / concepts: the word of one of them at random."""
    status: str
    """testable, `untestable (accuracy x of n)` where the interval does not exceed chance, or
    `untestable (words x of n)` where fewer than 8 target words begin unambiguously. The columns
    below are then empty."""
    verdict: str
    """pivot, shared, none, disagree or untested (lens.claims.Claim); empty where the pivot is
    source or target."""
    lead_layers: str
    """First and last layer at which the pivot leads the target in both lenses, such as 5-9."""
    lead: float | None
    """Mean over those layers of the pivot's advantage minus the target's, in nats (plain lens).
    The layers were chosen by it, so it is too large."""
    lead_lower: float | None
    """Lower end of its 95% bootstrap interval over concepts."""
    lead_upper: float | None
    """Upper end of that interval."""
    detectable: float | None
    """Median over layers of the smallest lead that a two-sided test finds with power 0.8, in
    nats."""
    onset_pivot: int | None
    """First layer from which on the pivot's word is present in both lenses; empty for none."""
    onset_source: int | None
    """The same for the source's word."""
    onset_target: int | None
    """The same for the target's word."""
    other_leads: str
    """Other languages that lead the target at some layer in both lenses, joined by +."""


@dataclass(frozen=True)
class LensRow:
    """A row of results/logit_lens.csv: a language at a layer in a testable cell.

    An advantage is log P of the word of the concept asked against the words of the other concepts
    in the same language, in nats (lens.claims.specific); chance is 0.
    """

    __pydantic_config__ = records.STRICT

    variant: str
    """Variant measured."""
    task: str
    """translation, repetition or cloze."""
    source: str
    """Language of the word or sentence given."""
    target: str
    """Language of the answer."""
    language: str
    """Language whose word is looked for."""
    role: str
    """target, pivot, source or other: what the language is in this cell, the first that fits."""
    layer: int
    """Layer, 0..L."""
    n: int
    """Number of concepts whose word begins unambiguously."""
    advantage: float
    """Mean advantage through the plain lens."""
    lower: float
    """Lower end of its 95% bootstrap interval over concepts."""
    upper: float
    """Upper end of that interval."""
    p: float
    """One-sided permutation p-value, max-T over layers 1..L; layer 0 alone."""
    advantage_fitted: float
    """Mean advantage through the fitted lens."""
    p_fitted: float
    """Its p-value."""
    lead_p: float | None
    """p-value that the advantage exceeds the target's (plain lens), max-T over layers; empty for
    the target."""
    lead_p_fitted: float | None
    """The same through the fitted lens."""
    probability: float | None
    """Mean probability of the word (plain lens), over a few prompts."""
    control: float | None
    """Mean probability of another concept's word in the pivot language, matched in length and
    frequency; on rows of the pivot."""
    control_mean: float | None
    """Mean probability of all other concepts' words in the pivot language; on rows of the pivot."""
    entropy: float | None
    """Mean entropy of the layer's distribution in nats; on rows of the target."""
    rank: float | None
    """Median rank of the best first token of the target's word; on rows of the target."""
    jsd: float | None
    """Mean Jensen-Shannon divergence from the model's output in nats; on rows of the target."""


@dataclass(frozen=True)
class LensQuality:
    """How well the layers of a variant predict its last layer on held-out corpus text."""

    __pydantic_config__ = records.STRICT

    tokens: int
    """Tokens that the fitted lens was fitted and checked on."""
    penalty: tuple[float, ...]
    """Ridge penalty by layer."""
    r2_plain: tuple[float | None, ...]
    """Share of the variance of the last layer explained by the layer as it is."""
    r2_fitted: tuple[float | None, ...]
    """Share explained by the fitted map."""
    kl_plain: tuple[float | None, ...]
    """Mean KL divergence of the plain lens from the output, in nats."""
    kl_fitted: tuple[float | None, ...]
    """The same for the fitted lens."""


@dataclass(frozen=True)
class LensResults:
    """results/logit_lens.json: what the tables were made from, and how far to trust the lenses."""

    __pydantic_config__ = records.STRICT

    schema_version: int
    """Version of the file's fields."""
    suite: str
    """Name of the suite."""
    label: str
    """Name of the model in figures and reports."""
    pivot: str
    """The pivot language."""
    inputs_sha256: str
    """Hash of everything that affects the numbers."""
    manifest_sha256: str
    """Hash of the stimulus manifest."""
    seed: int
    """Seed of all random draws."""
    variants: tuple[str, ...]
    """Variants measured."""
    concepts_with_words: dict[str, dict[str, int]]
    """Variant -> language -> concepts whose word begins with a token of its own."""
    shared_with_language: dict[str, dict[str, int]]
    """Variant -> language -> first tokens left out because another language shares them."""
    shared_with_concept: dict[str, dict[str, int]]
    """Variant -> language -> first tokens left out because another concept shares them."""
    quality: dict[str, LensQuality]
    """Variant -> quality of its lenses; without variants that have no testable cell."""
    code_sha256: str
    """Hash of the package's source code; it is recorded and never compared."""


def save_lens(
    folder: Path, results: LensResults, cells: Sequence[LensCell], rows: Sequence[LensRow]
) -> None:
    """Write the three files into the results folder, the record last."""
    records.save_table(folder / "logit_lens.csv", LensRow, rows)
    records.save_table(folder / "logit_lens_cells.csv", LensCell, cells)
    files.save_json(folder / "logit_lens.json", records.to_json(results))


def load_lens(path: Path) -> LensResults:
    """Load results/logit_lens.json; raises StudyError naming the file and the field."""
    results = records.load(LensResults, path, MAKE_LENS)
    if results.schema_version != project.SCHEMA_VERSION:
        raise StudyError(
            f"{path}: schema_version {results.schema_version} is of another version; regenerate "
            f"it with: {MAKE_LENS}"
        )
    return results


def load_lens_cells(path: Path) -> list[LensCell]:
    """Load results/logit_lens_cells.csv; raises StudyError naming file, line and column."""
    return records.load_table(LensCell, path, MAKE_LENS)


def load_lens_rows(path: Path) -> list[LensRow]:
    """Load results/logit_lens.csv; raises StudyError naming file, line and column."""
    return records.load_table(LensRow, path, MAKE_LENS)
