"""All that concept_alignment.py measures: in memory by key, on disk as a tree of records.

results/alignment_curves.json is ``CurvesFile``; results/curves.csv has the same numbers as a
table (``tables``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aya_probes import files, project, records
from aya_probes.errors import StudyError
from aya_probes.files import finite
from aya_probes.results.curves import PRIMARY, Curve, CurveKey, Inputs, Shape, Tokens, Values
from aya_probes.results.run_info import RunInfo


@dataclass(frozen=True)
class Results:
    """All that concept_alignment.py measures of a run."""

    info: RunInfo
    curves: Mapping[CurveKey, Curve] = field(default_factory=dict)
    agnostic: Mapping[tuple[str, str, str], Curve] = field(default_factory=dict)
    """(measure, variant, with_pivot | without_pivot) -> mean over testable pairs."""
    inputs: Mapping[tuple[str, str, str, str], Inputs] = field(default_factory=dict)
    """(pooling, variant, left, right)."""
    tokens: Mapping[tuple[str, str], Tokens] = field(default_factory=dict)
    """(variant, language)."""
    shapes: Mapping[tuple[str, str], Shape] = field(default_factory=dict)
    """(variant, language)."""
    cosines: Mapping[tuple[str, str, str], Values] = field(default_factory=dict)
    """(variant, concept, language) -> raw cosine with the pivot on content_mean by layer."""

    def curve(
        self, measure: str, variant: str, language: str, pooling: str | None = None
    ) -> Curve | None:
        """Return a language's curve with the pivot, by default on the measure's own pooling."""
        pooling = pooling or PRIMARY.get(measure, "content_mean")
        return self.curves.get(CurveKey(pooling, measure, variant, self.info.pivot, language))

    def pair(self, measure: str, variant: str, left: str, right: str) -> Curve | None:
        """Return the curve of any pair of languages, in either order (primary measures only)."""
        pooling = PRIMARY[measure]
        found = self.curves.get(CurveKey(pooling, measure, variant, left, right))
        return found or self.curves.get(CurveKey(pooling, measure, variant, right, left))

    def input_share(self, variant: str, language: str, pooling: str = "span_mean") -> Inputs:
        """Return how far a language has the pivot's input vectors."""
        return self.inputs[pooling, variant, self.info.pivot, language]

    def is_untestable(self, variant: str, language: str, pooling: str = "span_mean") -> bool:
        """Return whether identical inputs void the cell."""
        return self.input_share(variant, language, pooling).untestable

    def merged(self, other: Results) -> Results:
        """Return both results as one; they must not overlap."""
        return Results(
            self.info,
            {**self.curves, **other.curves},
            {**self.agnostic, **other.agnostic},
            {**self.inputs, **other.inputs},
            {**self.tokens, **other.tokens},
            {**self.shapes, **other.shapes},
            {**self.cosines, **other.cosines},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the tree of results/alignment_curves.json."""
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
            "shape": _nest({key: records.to_json(shape) for key, shape in self.shapes.items()}),
        }


# --- the JSON ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Audit:
    __pydantic_config__ = records.STRICT

    identical_input: dict[str, dict[str, dict[str, dict[str, Inputs]]]]
    """pooling, variant, language, language."""
    tokens: dict[str, dict[str, Tokens]]
    """variant, language."""


@dataclass(frozen=True)
class CurvesFile:
    """results/alignment_curves.json."""

    __pydantic_config__ = records.STRICT

    metadata: RunInfo
    """What the run compares, and how."""
    curves: dict[str, dict[str, dict[str, Values]]]
    """variant, concept, language: raw cosine with the pivot on content_mean by layer. This is the
    layout of the published study."""
    measures: dict[str, dict[str, dict[str, dict[str, Curve]]]]
    """pooling, measure, variant, language: a Curve with the pivot."""
    pairs: dict[str, dict[str, dict[str, dict[str, Curve]]]]
    """measure, variant, language, language: a Curve of two languages without the pivot."""
    agnostic: dict[str, dict[str, dict[str, Curve]]]
    """measure, variant, with_pivot or without_pivot: the mean over testable pairs."""
    audit: _Audit
    """identical_input: pooling, variant, language, language; tokens: variant, language."""
    shape: dict[str, dict[str, Shape]]
    """variant, language."""


def _nest(flat: Mapping[Any, Any]) -> dict[str, Any]:
    """Turn ``{(a, b): value}`` into ``{a: {b: value}}``."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        branch = tree
        for part in key[:-1]:
            branch = branch.setdefault(part, {})
        branch[key[-1]] = value
    return tree


def _flatten(tree: Mapping[str, Any], depth: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Undo ``_nest`` for keys of ``depth`` parts."""
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
        CurveKey(PRIMARY[measure], measure, variant, left, right): curve
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
    )
