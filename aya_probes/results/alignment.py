"""Everything that concept_alignment.py measures: by key in memory, as nested records on disk.

results/alignment_curves.json is a ``CurvesFile``. results/curves.csv has the same numbers as a
table (see ``tables``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aya_probes import files, project, records
from aya_probes.errors import StudyError
from aya_probes.files import finite
from aya_probes.results.curves import (
    PRIMARY,
    Cue,
    Curve,
    CurveKey,
    Inputs,
    Shape,
    Tokens,
    Values,
    home_pooling,
)
from aya_probes.results.run_info import RunInfo


@dataclass(frozen=True)
class Results:
    """Everything that concept_alignment.py measures in a run."""

    info: RunInfo
    curves: Mapping[CurveKey, Curve] = field(default_factory=dict)
    agnostic: Mapping[tuple[str, str, str], Curve] = field(default_factory=dict)
    """(measure, variant, with_pivot or without_pivot) -> mean over the testable pairs."""
    inputs: Mapping[tuple[str, str, str, str], Inputs] = field(default_factory=dict)
    """(pooling, variant, left, right) -> share of identical inputs."""
    tokens: Mapping[tuple[str, str], Tokens] = field(default_factory=dict)
    """(variant, language) -> facts about the tokens of the probes."""
    shapes: Mapping[tuple[str, str], Shape] = field(default_factory=dict)
    """(variant, language) -> shape of the `concept_alignment` curve."""
    cosines: Mapping[tuple[str, str, str], Values] = field(default_factory=dict)
    """(variant, concept, language) -> raw cosine with the pivot on content_mean, by layer."""
    cues: Mapping[tuple[str, str, str], Cue] = field(default_factory=dict)
    """(measure, language, cue) -> what a cue that is not meaning would give."""
    disagreements: tuple[str, ...] = ()
    """Where the standardised and the raw measure disagree about alignment, in words."""

    def curve(
        self, measure: str, variant: str, language: str, pooling: str | None = None
    ) -> Curve | None:
        """Return a language's curve with the pivot, by default on the measure's primary pooling."""
        pooling = pooling or home_pooling(measure)
        return self.curves.get(CurveKey(pooling, measure, variant, self.info.pivot, language))

    def pair(self, measure: str, variant: str, left: str, right: str) -> Curve | None:
        """Return the curve of two languages in either order; ``measure`` must be in ``PRIMARY``."""
        pooling = PRIMARY[measure]
        found = self.curves.get(CurveKey(pooling, measure, variant, left, right))
        return found or self.curves.get(CurveKey(pooling, measure, variant, right, left))

    def input_share(self, variant: str, language: str, pooling: str = "span_mean") -> Inputs:
        """Return how many concepts have the same input vector in ``language`` and the pivot."""
        return self.inputs[pooling, variant, self.info.pivot, language]

    def is_untestable(self, variant: str, language: str, pooling: str = "span_mean") -> bool:
        """Return whether identical inputs make the cell untestable."""
        return self.input_share(variant, language, pooling).untestable

    def passing_cues(self, measure: str, language: str) -> list[str]:
        """Return the cues that alone would be called alignment of ``language`` with the pivot."""
        found = self.cues.items()
        return [cue for (m, code, cue), c in found if (m, code) == (measure, language) and c.passes]

    def merged(self, other: Results) -> Results:
        """Return the union of both results, which must not share keys."""
        return Results(
            self.info,
            {**self.curves, **other.curves},
            {**self.agnostic, **other.agnostic},
            {**self.inputs, **other.inputs},
            {**self.tokens, **other.tokens},
            {**self.shapes, **other.shapes},
            {**self.cosines, **other.cosines},
            {**self.cues, **other.cues},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of results/alignment_curves.json."""
        pivot = self.info.pivot
        with_pivot = {key: c.rounded() for key, c in self.curves.items() if key.left == pivot}
        others = {
            (key.measure, key.variant, key.left, key.right): c.rounded()
            for key, c in self.curves.items()
            if key.left != pivot
        }
        audit = {
            "identical_input": _nest({k: records.to_json(v) for k, v in self.inputs.items()}),
            "tokens": _nest({k: records.to_json(v) for k, v in self.tokens.items()}),
            "cues": _nest({k: records.to_json(v) for k, v in self.cues.items()}),
        }
        return {
            "metadata": records.to_json(self.info),
            "curves": _nest(
                {
                    (v, c, code): [finite(x, 5) if x is not None else None for x in curve]
                    for (v, c, code), curve in self.cosines.items()
                }
            ),
            "measures": _nest({(*key[:3], key.right): c for key, c in with_pivot.items()}),
            "pairs": _nest(others),
            "agnostic": _nest({key: c.rounded() for key, c in self.agnostic.items()}),
            "audit": audit,
            "disagreements": list(self.disagreements),
            "shape": _nest({key: records.to_json(shape) for key, shape in self.shapes.items()}),
        }


# --- the JSON ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Audit:
    __pydantic_config__ = records.STRICT

    identical_input: dict[str, dict[str, dict[str, dict[str, Inputs]]]]
    """Keys: pooling, variant, language, language. Value: Inputs."""
    tokens: dict[str, dict[str, Tokens]]
    """Keys: variant, language. Value: Tokens."""
    cues: dict[str, dict[str, dict[str, Cue]]]
    """Keys: measure, language, cue. Value: Cue."""


@dataclass(frozen=True)
class CurvesFile:
    """The content of results/alignment_curves.json."""

    __pydantic_config__ = records.STRICT

    metadata: RunInfo
    """What the run compares, and with which settings."""
    curves: dict[str, dict[str, dict[str, Values]]]
    """Keys: variant, concept, language. Value: raw cosine with the pivot on content_mean, by layer.
    The published study has the same layout."""
    measures: dict[str, dict[str, dict[str, dict[str, Curve]]]]
    """Keys: pooling, measure, variant, language. Value: the Curve with the pivot."""
    pairs: dict[str, dict[str, dict[str, dict[str, Curve]]]]
    """Keys: measure, variant, language, language (no pivot). Value: the Curve of the two."""
    agnostic: dict[str, dict[str, dict[str, Curve]]]
    """Keys: measure, variant, with_pivot or without_pivot. Value: the mean over testable pairs."""
    audit: _Audit
    """identical_input by pooling, variant and two languages; tokens by variant and language; cues
    by measure, language and cue."""
    disagreements: tuple[str, ...]
    """Where the standardised and the raw measure disagree about alignment, in words."""
    shape: dict[str, dict[str, Shape]]
    """Keys: variant, language. Value: Shape."""


def _nest(flat: Mapping[Any, Any]) -> dict[str, Any]:
    """Return ``{(a, b): value}`` as ``{a: {b: value}}``."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        branch = tree
        for part in key[:-1]:
            branch = branch.setdefault(part, {})
        branch[key[-1]] = value
    return tree


def _flatten(tree: Mapping[str, Any], depth: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the keys (of ``depth`` parts) and values that ``_nest`` was given."""
    for part, branch in tree.items():
        if depth == 1:
            yield (part,), branch
        else:
            yield from (((part, *rest), leaf) for rest, leaf in _flatten(branch, depth - 1))


def save_results(path: Path, results: Results) -> None:
    """Write results/alignment_curves.json."""
    files.save_json(path, results.to_json(), indent=None)


def load_results(path: Path) -> Results:
    """Load and check results/alignment_curves.json; raises StudyError naming file and field."""
    raw = files.load_json(path, files.MAKE_CURVES)
    version = raw.get("metadata", {}).get("schema_version") if isinstance(raw, dict) else None
    if version != project.SCHEMA_VERSION:
        raise StudyError(
            f"{path}: metadata.schema_version is {version!r}, this version reads "
            f"{project.SCHEMA_VERSION}; regenerate it with: {files.MAKE_CURVES}"
        )
    found = records.parse(CurvesFile, raw, str(path), files.MAKE_CURVES)
    info, pivot = found.metadata, found.metadata.pivot
    curves = {
        CurveKey(pooling, measure, variant, pivot, code): curve
        for (pooling, measure, variant, code), curve in _flatten(found.measures, 4)
    } | {
        CurveKey(home_pooling(measure), measure, variant, left, right): curve
        for (measure, variant, left, right), curve in _flatten(found.pairs, 4)
    }
    for key, curve in curves.items():
        if len(curve.mean) != info.last_layer + 1:
            raise StudyError(
                f"{path}: {'.'.join(key)}: {len(curve.mean)} layers, metadata.layers has "
                f"{info.last_layer + 1}; regenerate it with: {files.MAKE_CURVES}"
            )
    return Results(
        info,
        curves,
        dict(_flatten(found.agnostic, 3)),  # type: ignore[arg-type]
        dict(_flatten(found.audit.identical_input, 4)),  # type: ignore[arg-type]
        dict(_flatten(found.audit.tokens, 2)),  # type: ignore[arg-type]
        dict(_flatten(found.shape, 2)),  # type: ignore[arg-type]
        dict(_flatten(found.curves, 3)),  # type: ignore[arg-type]
        dict(_flatten(found.audit.cues, 3)),  # type: ignore[arg-type]
        found.disagreements,
    )
