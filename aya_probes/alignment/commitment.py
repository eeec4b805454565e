"""The commitment matrix and the shapes: where a concept becomes shared, and where it is let go.

One variant at a time, from the curves of ``cells`` (ADR-004, ADR-008).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from aya_probes.alignment import layers
from aya_probes.alignment.cells import LEGACY_POOLING, Study, VariantCells
from aya_probes.files import finite

LEGACY_COSINE = 0.85  # the published study's rule: raw cosine on ``last``, held for 3 rows
MIN_SHAPE_CONCEPTS = 8  # two halves of 4
UNASKED = ("untestable", "too_few_concepts", "too_few_wordings", "undefined")


def _status(task: Study, aligned: np.ndarray | None, void: bool) -> str:
    """Return why a cell has no commitment layer, or ``tested``."""
    if void:
        return "untestable"
    if not task.infers:
        return "too_few_concepts"
    if aligned is None:
        return "too_few_wordings"
    return "tested" if np.isfinite(aligned).any() else "undefined"


def rows(
    task: Study, variant: str, cells: VariantCells, out: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return commitment and legacy layers, ALL and per concept, and fill ``out['shape']``."""
    records: list[dict[str, Any]] = []
    audit = out["audit"]["identical_input"]
    for code in task.others:
        aligned = cells.aligned.get(code)
        here, old = audit["span_mean"][variant][code], audit[LEGACY_POOLING][variant][code]
        status = _status(task, aligned, here["untestable"])
        shared: dict[str, Any] = {
            "variant": variant,
            "language": code,
            "identical_input": here["share"],
            "shared_tokens": out["audit"]["shared_tokens"][variant][code],
            "legacy_status": "identical_input" if old["untestable"] else "as_published",
        }
        layer = release = None
        if status == "tested" and aligned is not None:
            p = out["measures"]["span_mean"]["concept"][variant][code]["p"]
            curve, p = aligned[:-1].mean(1), np.array([np.nan if v is None else v for v in p])
            layer = layers.commitment_layer(curve, p)
            release = None if layer is None else layers.release_layer(curve, p, layer)
            status = "never" if layer is None else "committed"
        if aligned is not None and len(task.concepts) >= MIN_SHAPE_CONCEPTS:
            shapes = out["shape"].setdefault(variant, {})
            shapes[code] = shape(task, aligned, void=here["untestable"])
        records.append(
            shared
            | {
                "concept_id": "ALL",
                "concept": "ALL",
                "status": status,
                "commitment_layer": _layer(layer, status),
                "release_layer": _layer(release, status) if layer is not None else "",
                "legacy_layer": _layer(_legacy(cells.legacy[code].mean(1)), ""),
            }
        )
        single = layers.concept_commitment(cells.wins[code][:-1]) if code in cells.wins else None
        for position, concept in enumerate(task.concepts):
            void = single is None or concept in here["concepts"]
            one = "untestable" if void else "descriptive"
            records.append(
                shared
                | {
                    "concept_id": concept,
                    "concept": task.manifest.metadata["concepts"][concept],
                    "status": one,
                    "commitment_layer": _layer(single[position] if single else None, one),
                    "release_layer": "",
                    "legacy_layer": _layer(_legacy(cells.legacy[code][:, position]), ""),
                }
            )
    return records


def _layer(layer: int | None, status: str) -> int | str:
    """Return a layer for the CSV: −1 = never, empty = it could not be asked."""
    if status in UNASKED:
        return ""
    return -1 if layer is None else layer


def _legacy(cosine: np.ndarray) -> int | None:
    return layers.first_run(cosine[:-1] >= LEGACY_COSINE, start=0)


def shape(task: Study, aligned: np.ndarray, *, void: bool) -> dict[str, Any]:
    """Return the shape of a curve ``[row, n]`` (final norm last) as it stands in the JSON."""
    if not np.isfinite(aligned[:-1]).all():
        return {"label": "UNDEFINED", "peak_row": None, "norm_step": None, "retained": None}
    label, peak = layers.shape_label(aligned[:-1], seed=task.seed)
    means = aligned.mean(1)
    top = float(means[:-1].max())
    return {
        "label": "UNTESTABLE" if void else label,
        "peak_row": None if void else peak,
        "norm_step": finite(float(means[-1] - means[-2])),
        # Of a flat curve, the ratio of two noises says nothing.
        "retained": finite(float(means[-2]) / top) if label != "FLAT" and top > 0 else None,
    }
