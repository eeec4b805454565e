"""The results of concept_patching.py: its table, and the record beside it."""

from __future__ import annotations

from dataclasses import dataclass

from aya_probes import files, records
from aya_probes.run_folder import RunPaths

MAKE_PATCHING = "uv run concept_patching.py"


@dataclass(frozen=True)
class PatchRow:
    """A row of results/concept_patching.csv: a patch at one layer, or a cell without one."""

    __pydantic_config__ = records.STRICT

    variant: str
    """Name of the variant."""
    test: str
    """word (a vector at the concept's word of a translation), turned (a sentence whose language is
    changed) or moved (another sentence put into one of the pivot)."""
    target: str
    """Language of the answer; for sentences the pivot."""
    given: str
    """Language of the word that the patched prompt gives; for sentences that of the sentence."""
    condition: str
    """What is put in: source, mean_sources, centred, random, mean_concepts, wrong_concept,
    same_language or mismatched_layer; for sentences language_vector, random_direction, whole or
    mean_centred; none for the unpatched prompts."""
    source: str
    """Language of the vectors; mean: the mean over several."""
    patched: str
    """onward (this layer and all above) or single (this layer only); empty without a patch."""
    layer: int | None
    """0 (input of block 0) to L − 1; empty without a patch."""
    status: str
    """tested, or `untestable (accuracy x of n)`: accuracy is not above chance; or `untestable (n
    usable concepts)`."""
    p_moved: float | None
    """Mean probability that the answer begins as the word of the concept put in, in `target`."""
    p_asked: float | None
    """The same of the concept asked for, in `target`."""
    p_source: float | None
    """The same of the concept put in, in the language of the vectors."""
    effect: float | None
    """Rise of log P of that concept's word in `target`, beyond the other words', in nats."""
    effect_lower: float | None
    """Lower end of its 95% interval over concepts."""
    effect_upper: float | None
    """Upper end."""
    p_effect: float | None
    """One-sided p-value, permutation of concepts, max-T over layers from 1 on."""
    beyond: float | None
    """`effect` minus the same in the language of the vectors."""
    p_beyond: float | None
    """One-sided p-value of a positive `beyond`, sign flips by concept, max-T over layers."""
    n: int
    """Number of concepts whose words in both languages begin with tokens of their own."""


@dataclass(frozen=True)
class PatchCell:
    """Whether a task of a variant can be tested."""

    __pydantic_config__ = records.STRICT

    variant: str
    """Name of the variant."""
    task: str
    """translation or cloze."""
    target: str
    """Language of the answer."""
    given: str
    """Language of what is given."""
    correct: int
    """Number of unpatched prompts that are answered with the exact word."""
    n: int
    """Number of prompts, one a concept."""
    lower: float
    """Lower end of the 95% Wilson interval of the accuracy."""
    upper: float
    """Upper end."""
    status: str
    """tested or untestable, as in the table."""


@dataclass(frozen=True)
class PatchWindow:
    """The layers that carry the concept but not the language."""

    __pydantic_config__ = records.STRICT

    variant: str
    """Name of the variant."""
    target: str
    """Language of the answer."""
    condition: str
    """What is put in."""
    source: str
    """Language of the vectors; mean: the mean over several."""
    patched: str
    """onward or single."""
    first: int | None
    """First layer of the window; null: none."""
    last: int | None
    """Last layer of the window."""
    first_interval: tuple[int, int] | None
    """Central 95% of the first layer over resampled concepts."""
    last_interval: tuple[int, int] | None
    """The same of the last layer."""
    found_share: float
    """Share of the resamples that have a window."""
    n: int
    """Number of concepts."""
    left_out: tuple[str, ...]
    """Concepts whose words begin with no token of their own in one of the languages."""


@dataclass(frozen=True)
class ExactWords:
    """How often a whole word is written after a patch of the mean over source languages."""

    __pydantic_config__ = records.STRICT

    variant: str
    """Name of the variant."""
    target: str
    """Language of the answer."""
    layer: int
    """Layer from which on is patched."""
    moved: int
    """Number of answers that are exactly the word of the concept put in."""
    asked: int
    """Number of answers that are exactly the word of the concept asked for."""
    n: int
    """Number of prompts."""


@dataclass(frozen=True)
class PatchingResults:
    """results/concept_patching.json: accuracy, windows, and how they were computed."""

    __pydantic_config__ = records.STRICT

    schema_version: int
    """Version of the file format."""
    suite: str
    """Name of the suite."""
    pivot: str
    """Language into and out of which is translated."""
    manifest_sha256: str
    """Hash of the stimulus manifest."""
    settings: dict[str, str]
    """Permutations, resamples and seed of the tests, version of the analysis, hash of the code."""
    ways: dict[str, str]
    """Variant -> how its prompts were run: cached, whole or alone."""
    cells: tuple[PatchCell, ...]
    """Accuracy, and what can be tested."""
    windows: tuple[PatchWindow, ...]
    """Layers that carry the concept but not the language."""
    exact: tuple[ExactWords, ...]
    """Whole words."""


def save(paths: RunPaths, results: PatchingResults, rows: list[PatchRow]) -> None:
    """Write the table and the record."""
    records.save_table(paths.results / "concept_patching.csv", PatchRow, rows)
    files.save_json(paths.results / "concept_patching.json", records.to_json(results))


def load(paths: RunPaths) -> PatchingResults:
    """Load the record; raises StudyError with the file, the field and the command."""
    path = paths.results / "concept_patching.json"
    return records.load(PatchingResults, path, MAKE_PATCHING + paths.flag())
