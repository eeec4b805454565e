"""What a run compares, and what its numbers were computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aya_probes import records


@dataclass(frozen=True)
class VariantProvenance:
    """How one variant's vectors were computed."""

    __pydantic_config__ = records.STRICT

    content_sha256: str
    """Hash of the vectors and tokens."""
    source: dict[str, str | int | None]
    """Where the weights came from; the same as in plan.json."""
    dtype: str
    """Compute precision."""
    device: str
    """cpu, cuda or mps."""
    threads: int | None
    """Number of CPU threads; null on a GPU."""
    packed: bool
    """Whether texts were packed without padding."""
    versions: dict[str, str]
    """Library versions."""
    tokenizer_sha256: str
    """Hash of the tokenizer."""


@dataclass(frozen=True)
class Provenance:
    """What the numbers were computed from, and by which code."""

    __pydantic_config__ = records.STRICT

    inputs_sha256: str
    """Hash of everything that affects the numbers; they are recomputed only if it changes."""
    manifest_sha256: str
    """Hash of the stimulus manifest."""
    analysis_version: int
    """`ANALYSIS_VERSION` of the code that computed the numbers."""
    code_sha256: str
    """Hash of the package's source code; it is recorded and never compared."""
    variants: dict[str, VariantProvenance]
    """How each variant's vectors were computed."""


@dataclass(frozen=True)
class RunInfo:
    """What a run compares, and with which settings."""

    __pydantic_config__ = records.STRICT

    schema_version: int
    """Version of the file format."""
    suite: str
    """Name of the suite."""
    label: str
    """Name of the model in figures and reports."""
    note: str
    """Caution for readers of the results."""
    pivot: str
    """Language that all others are compared with (BCP-47)."""
    languages: tuple[str, ...]
    """All languages, including the pivot."""
    variants: tuple[str, ...]
    """Variants analysed."""
    roles: dict[str, str]
    """Role of each variant: base, control, regional, untrained, seed or dose."""
    repeats: dict[str, str]
    """Variants of the roles seed and dose: the variant that each one trains again."""
    targets: dict[str, tuple[str, ...]]
    """Languages that each variant was tuned for."""
    concepts: tuple[str, ...]
    """Ids of the concepts."""
    concept_names: dict[str, str]
    """English name of each concept."""
    layers: tuple[str, ...]
    """Labels of the layer axis: 0 .. L, then `final_norm`."""
    n: int
    """Number of concepts."""
    wordings: int
    """Number of wordings per concept."""
    n_bootstrap: int
    """Number of bootstrap resamples over concepts."""
    n_permutations: int
    """Number of permutations of the concepts."""
    seed: int
    """Seed of all random draws."""
    parallel_corpus: dict[str, Any]
    """Corpus, revision, licence, hash, and share of strings identical to the pivot's."""
    provenance: Provenance
    """What the numbers were computed from."""

    @property
    def others(self) -> list[str]:
        """All languages except the pivot."""
        return [code for code in self.languages if code != self.pivot]

    @property
    def last_layer(self) -> int:
        """L, the number of blocks."""
        return len(self.layers) - 2

    def by_role(self, role: str) -> list[str]:
        """Return the variants with this role."""
        return [name for name in self.variants if self.roles[name] == role]

    def first(self, role: str) -> str | None:
        """Return the first variant with this role, or None."""
        return next(iter(self.by_role(role)), None)
