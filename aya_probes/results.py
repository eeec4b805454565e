"""The results of a run: the one module that knows their schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aya_probes import files, project

if TYPE_CHECKING:
    pass

VALIDATION = project.ROOT / "docs" / "validation.json"  # benchmarks/validation.py
CURVE_FIELDS = ("metadata", "curves", "measures", "pairs", "agnostic", "audit", "shape")
COMMITMENT_COLUMNS = (
    "variant",
    "language",
    "concept_id",
    "concept",
    "commitment_layer",
    "release_layer",
    "status",
    "identical_input",
    "shared_tokens",
    "legacy_layer",
    "legacy_status",
)
CONTRAST_COLUMNS = (
    "contrast",
    "language",
    "window",
    "estimate",
    "lower",
    "upper",
    "p",
    "p_holm",
    "n",
    "p_language",
    "p_language_floor",
)
FAILURE_COLUMNS = (
    "stimulus_id",
    "parent_id",
    "language",
    "tag",
    "variant",
    "reference_variant",
    "category",
    "labels",
    "effect",
    "reference_effect",
    "delta",
    "lower",
    "upper",
    "rows",
    "pooling",
    "verdict",
    "input",
    "parent",
)
CASE_FIELDS = (
    "test_id",
    "input",
    "language_ground_truth",
    "expected_variant",
    "acceptable_variants",
    "failure_category",
    "routing_recommendation",
    "p1_test_assertion",
    "evidence",
    "status",
)


def save_curves(path: Path, data: dict[str, Any]) -> None:
    """Write results/alignment_curves.json."""
    files.save_json(path, data, indent=None)


def load_curves(path: Path) -> dict[str, Any]:
    """Load results/alignment_curves.json and check its parts."""
    raw = files.load_json(path, files.MAKE_CURVES)
    for name in CURVE_FIELDS:
        files.need(raw, name, dict, str(path), files.MAKE_CURVES)
    for name in ("suite", "variants", "languages", "pivot", "concepts", "rows"):
        files.need(raw["metadata"], name, (str, list), f"{path}: metadata", files.MAKE_CURVES)
    return dict(raw)


def load_edge_cases(path: Path) -> dict[str, Any]:
    """Load p1_edge_cases.json and check every case's fields."""
    raw = files.load_json(path, files.MAKE_FAILURES)
    for number, case in enumerate(files.need(raw, "cases", list, str(path), files.MAKE_FAILURES)):
        for name in CASE_FIELDS:
            files.need(case, name, object, f"{path}: cases[{number}]", files.MAKE_FAILURES)
    return dict(raw)
