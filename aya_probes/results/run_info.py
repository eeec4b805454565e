"""What a run compares, and what its numbers were made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aya_probes import records


@dataclass(frozen=True)
class VariantProvenance:
    """How one variant's vectors were made."""

    __pydantic_config__ = records.STRICT

    content_sha256: str
    """Hash of the vectors and tokens."""
    source: dict[str, str | int | None]
    """Where the weights came from."""
    dtype: str
    """Compute precision."""
    device: str
    """cpu, cuda or mps."""
    threads: int | None
    """CPU threads; null on a GPU."""
    packed: bool
    """Whether texts were packed without padding."""
    versions: dict[str, str]
    """Library versions."""
    tokenizer_sha256: str
    """Hash of the tokenizer."""


@dataclass(frozen=True)
class Provenance:
    """What the numbers were made from and by."""

    __pydantic_config__ = records.STRICT

    inputs_sha256: str
    """Hash over everything that decides the numbers: if it is the same, nothing is recomputed."""
    manifest_sha256: str
    """Hash of the stimulus manifest."""
    analysis_version: int
    """`ANALYSIS_VERSION` of the code."""
    code_sha256: str
    """Hash of the package's source: provenance only."""
    variants: dict[str, VariantProvenance]
    """How each variant's vectors were made."""


@dataclass(frozen=True)
class RunInfo:
    """What a run compares, and how."""

    __pydantic_config__ = records.STRICT

    schema_version: int
    """Version of the files' fields."""
    suite: str
    """Name of the suite."""
    label: str
    """What figures call the model."""
    note: str
    """What a reader must know of the suite."""
    pivot: str
    """Language that all others are compared with (BCP-47)."""
    languages: tuple[str, ...]
    """All languages, the pivot among them."""
    variants: tuple[str, ...]
    """Variants analysed."""
    roles: dict[str, str]
    """Role of each variant: base, control, regional, untrained."""
    targets: dict[str, tuple[str, ...]]
    """Languages that each variant was tuned for."""
    concepts: tuple[str, ...]
    """Concept ids."""
    concept_names: dict[str, str]
    """English name of each concept."""
    layers: tuple[str, ...]
    """Labels along the depth: 0 .. L, then `final_norm`."""
    n: int
    """Concepts."""
    wordings: int
    """Wordings per concept."""
    n_bootstrap: int
    """Bootstrap resamples over concepts."""
    n_permutations: int
    """Permutations of concepts."""
    seed: int
    """Seed of all draws."""
    parallel_corpus: dict[str, Any]
    """Corpus, revision, licence, hash and string overlap with the pivot."""
    provenance: Provenance
    """What the numbers were made from."""

    @property
    def others(self) -> list[str]:
        """The languages without the pivot."""
        return [code for code in self.languages if code != self.pivot]

    @property
    def last_layer(self) -> int:
        """L."""
        return len(self.layers) - 2

    def by_role(self, role: str) -> list[str]:
        """Return the variants that play ``role``."""
        return [name for name in self.variants if self.roles[name] == role]

    def first(self, role: str) -> str | None:
        """Return the first variant that plays ``role``, or None."""
        return next(iter(self.by_role(role)), None)
