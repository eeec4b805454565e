"""Draw variants x languages: the commitment layer and the concept alignment at the peak row.

Reads:  results/alignment_curves.json, results/commitment_matrix.csv
Writes: assets/concept_alignment_heatmap.png and .csv

    uv run viz/heatmap.py
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import artifacts
import study
from study import RunPaths, StudyError
from viz import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEVER = -1
COLOURS = "cividis"  # readable with every colour vision, and in grey


@dataclass(frozen=True)
class Config:
    paths: RunPaths
    variants: tuple[str, ...] | None
    languages: tuple[str, ...] | None


@dataclass(frozen=True)
class Cell:
    """What one square of the two maps shows."""

    variant: str
    language: str
    commitment_layer: int | None
    status: str  # committed | never | untestable | missing
    peak_row: int | None
    mean: float
    lower: float
    upper: float
    untestable: bool
    shape: str
    target: bool


def read_commitment(path: Path) -> dict[tuple[str, str], tuple[int | None, str]]:
    """Return layer and status of ALL concepts by (variant, language)."""
    table = artifacts.load_csv(path, artifacts.COMMITMENT_COLUMNS, artifacts.MAKE_CURVES)
    found = {}
    for record in table[table["concept_id"] == "ALL"].to_dict("records"):
        text, status = str(record["commitment_layer"]), str(record["status"])
        try:
            layer = int(text) if text else None
        except ValueError:
            raise StudyError(
                f"{path}: commitment_layer {text!r} is not a whole number; "
                f"make it anew with: {artifacts.MAKE_CURVES}"
            ) from None
        found[str(record["variant"]), str(record["language"])] = (layer, status)
    return found


def build_cells(
    data: dict[str, Any],
    source: Path,
    commitment: dict[tuple[str, str], tuple[int | None, str]],
    variants: Sequence[str],
    languages: Sequence[str],
) -> dict[tuple[str, str], Cell]:
    """Return every square by (variant, language)."""
    curves = style.primary_curves(data, source, variants, languages)
    targets = data["metadata"].get("targets", {})
    cells = {}
    for variant in variants:
        for code in languages:
            layer, status = commitment.get((variant, code), (None, "missing"))
            curve = curves.get((variant, code))
            shape = data["shape"].get(variant, {}).get(code, {})
            peak = None if curve is None else curve.peak
            if curve is None or peak is None:
                mean = lower = upper = math.nan
            else:
                mean, lower, upper = (
                    float(v[peak]) for v in (curve.mean, curve.lower, curve.upper)
                )
            cells[variant, code] = Cell(
                variant,
                code,
                layer,
                status,
                peak,
                mean,
                lower,
                upper,
                style.is_untestable(data, style.PRIMARY[0], variant, code),
                str(shape.get("label", "")),
                code in targets.get(variant, []),
            )
    return cells


def _draw_map(
    axes: Axes,
    values: np.ndarray,
    texts: Sequence[Sequence[str]],
    void: np.ndarray,
    limits: tuple[float, float],
    bar_label: str,
) -> None:
    """Draw one map ``[variant, language]``: NaN grey, ``void`` hatched, text in every square."""
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    colours = mpl.colormaps[COLOURS].with_extremes(bad="#E6E6E6")
    image = axes.imshow(
        np.ma.masked_invalid(np.where(void, np.nan, values)),
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        aspect="auto",
    )
    for i, j in np.ndindex(values.shape):
        plain = void[i, j] or math.isnan(values[i, j])
        share = 0.0 if plain else (values[i, j] - limits[0]) / (limits[1] - limits[0])
        ink = "black" if plain or share > 0.5 else "white"
        if void[i, j]:
            axes.add_patch(
                Rectangle(
                    (j - 0.5, i - 0.5),
                    1,
                    1,
                    facecolor="white",
                    hatch=style.HATCH,
                    edgecolor="#AAAAAA",
                    linewidth=0,
                )  # fmt: skip
            )
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1} if void[i, j] else None
        axes.text(j, i, texts[i][j], ha="center", va="center", fontsize=7.5, color=ink, bbox=box)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.04, pad=0.01)
    bar.set_label(bar_label, fontsize=8)


def _commitment_text(cell: Cell) -> str:
    if cell.status == "untestable":
        return "untestable"
    if cell.commitment_layer is None:
        return "no value"
    return "never" if cell.commitment_layer == NEVER else str(cell.commitment_layer)


def _peak_text(cell: Cell) -> str:
    if math.isnan(cell.mean):
        return "undefined"
    interval = "" if math.isnan(cell.lower) else f"\n[{cell.lower:.2f}, {cell.upper:.2f}]"
    end = "\nuntestable" if cell.untestable else f"\nrow {cell.peak_row}"
    return f"{cell.mean:.2f}{interval}{end}"


def plot_heatmap(
    data: dict[str, Any],
    cells: dict[tuple[str, str], Cell],
    variants: Sequence[str],
    languages: Sequence[str],
) -> Figure:
    """Return the figure: commitment layer above, alignment at the peak row below."""
    from matplotlib.patches import Rectangle

    width = max(8.5, 3.2 + 1.0 * len(languages))
    figure = style.new_figure(width, 3.0 + 1.15 * len(variants))
    top, bottom = figure.subplots(2, 1, height_ratios=[1, 1.3])
    grid = [[cells[variant, code] for code in languages] for variant in variants]
    layers = np.array(
        [[math.nan if (c.commitment_layer or NEVER) < 0 else float(c.commitment_layer or 0)
          for c in row] for row in grid]
    )  # fmt: skip
    void = np.array([[cell.status == "untestable" for cell in row] for row in grid])
    last = len(data["metadata"]["rows"]) - 2
    texts = [[_commitment_text(cell) for cell in row] for row in grid]
    _draw_map(top, layers, texts, void, (1, max(2, last)), "row")
    peaks = np.array([[cell.mean for cell in row] for row in grid])
    void = np.array([[cell.untestable for cell in row] for row in grid])
    shown = peaks[~void & np.isfinite(peaks)]
    limits = (min(0.0, shown.min(initial=0.0)), max(0.1, shown.max(initial=0.0)))
    texts = [[_peak_text(cell) for cell in row] for row in grid]
    _draw_map(bottom, peaks, texts, void, limits, "concept alignment A")
    for axes in (top, bottom):
        axes.set_yticks(range(len(variants)), [style.variant_label(data, v) for v in variants])
        axes.set_xticks(range(len(languages)), [style.language_name(code) for code in languages])
        for i, j in np.ndindex(peaks.shape):
            if grid[i][j].target:
                axes.add_patch(
                    Rectangle(
                        (j - 0.47, i - 0.46),
                        0.94,
                        0.92,
                        fill=False,
                        edgecolor="#D55E00",
                        linewidth=2,
                    )  # fmt: skip
                )
    top.set_title("Commitment layer of all concepts: " + style.ROW_LABEL, loc="left")
    bottom.set_title("Concept alignment with English at its largest row, 95% interval", loc="left")
    outlined = any(cell.target for cell in cells.values())
    _add_words(figure, data, int(width * 16), outlined=outlined)
    return figure


def _add_words(figure: Figure, data: dict[str, Any], width: int, *, outlined: bool) -> None:
    figure.suptitle(
        f"Where concepts align with English, by variant and language "
        f"({data['metadata']['suite']})",
        fontsize=12, fontweight="bold", x=0.01, ha="left",
    )  # fmt: skip
    note = (
        "Commitment layer (ADR-004): first row of three in which A is significant (max-T "
        "permutation p <= 0.05) and at least half its largest value; never = no such row. "
        "Hatched = untestable: identical inputs in the two languages, or too few concepts."
    )
    below = (
        "A (concept, span_mean): same concept in different sentences minus mismatched concepts, 0 "
        "= no alignment; interval: bootstrap over concepts. The row was picked as the largest, so "
        "its height flatters: compare with the random-weights row."
    )
    edge = "Orange outline: a language that the regional variant was tuned for."
    style.add_caption(
        figure, style.caption(data, note, below, *([edge] if outlined else []), width=width)
    )


def run(config: Config) -> tuple[Path, int]:
    """Draw and save the figure; returns its path and the number of squares."""
    source = config.paths.curves
    data = artifacts.load_curves(source)
    variants = study.choose("variant", config.variants, data["metadata"]["variants"])
    languages = study.choose("language", config.languages, style.other_languages(data))
    commitment = read_commitment(config.paths.commitment)
    cells = build_cells(data, source, commitment, variants, languages)
    records = [
        {
            "variant": cell.variant,
            "role": style.role(data, cell.variant),
            "language": cell.language,
            "commitment_layer": "" if cell.commitment_layer is None else cell.commitment_layer,
            "status": cell.status,
            "peak_row": "" if cell.peak_row is None else cell.peak_row,
            "mean": cell.mean,
            "lower": cell.lower,
            "upper": cell.upper,
            "untestable": cell.untestable,
            "shape": cell.shape,
            "target": cell.target,
        }
        for cell in cells.values()
    ]
    with style.drawing():
        figure = plot_heatmap(data, cells, variants, languages)
        path = config.paths.assets / "concept_alignment_heatmap.png"
        return style.save(figure, path, records), len(cells)


def build_parser() -> argparse.ArgumentParser:
    """Return the figure's parser."""
    return study.common_parser(
        "heatmap.py",
        "Draw commitment layer and peak alignment by variant and language.",
        "variants",
        "languages",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and draw; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        path, count = run(Config(RunPaths(args.run_dir), args.variants, args.languages))
        print(f"1 figure of {count} cells in {path}")

    return study.run_stage("heatmap.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
