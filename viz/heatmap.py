"""Draw the commitment layer and the peak alignment of every variant and language.

Reads:  results/alignment_curves.json, results/commitment_matrix.csv
Writes: assets/concept_alignment_heatmap.png (+ .csv)

    uv run viz/heatmap.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aya_probes import command_line, figures, files, records
from aya_probes.results.alignment import Results, load_results
from aya_probes.results.curves import CONCEPT, number
from aya_probes.results.run_info import RunInfo
from aya_probes.results.tables import Layers
from aya_probes.run_folder import RunPaths

STATUS_WORDS = {"untestable": "untest-\nable"}


@dataclass(frozen=True)
class Cell:
    """A row of the CSV beside the figure: one variant and language."""

    variant: str
    """Name of the variant."""
    language: str
    """Language compared with the pivot."""
    commitment_layer: int | None
    """As in commitment_matrix.csv."""
    release_layer: int | None
    """As in commitment_matrix.csv."""
    status: str
    """As in commitment_matrix.csv."""
    peak_layer: int | None
    """Layer with the largest mean alignment."""
    peak_alignment: float | None
    """The mean alignment at that layer."""
    lower: float | None
    """Lower end of its 95% interval."""
    upper: float | None
    """Upper end of its 95% interval."""
    identical_input: float
    """Share of concepts with identical layer-0 vectors in both languages."""
    shared_tokens: float
    """Mean Jaccard overlap of the concepts' span tokens with the pivot's."""
    span: str
    """Commitment and release layer, such as `4 to 9`, or why there are none."""


def make_cell(results: Results, layers: Layers) -> Cell:
    """Return the cell of one variant and language: its commitment layer and peak."""
    curve = results.curve(CONCEPT, layers.variant, layers.language)
    peak = None if curve is None else curve.peak
    mean = lower = upper = None
    if curve is not None and peak is not None:
        mean, lower, upper = (
            number(curve.array(name)[peak]) for name in ("mean", "lower", "upper")
        )
    return Cell(
        variant=layers.variant,
        language=layers.language,
        commitment_layer=layers.commitment_layer,
        release_layer=layers.release_layer,
        status=layers.status,
        peak_layer=peak,
        peak_alignment=mean,
        lower=lower,
        upper=upper,
        identical_input=layers.identical_input,
        shared_tokens=layers.shared_tokens,
        span=layers.span,
    )


@dataclass(frozen=True)
class Grid:
    """The cells on a grid: variants down, languages across."""

    info: RunInfo
    cells: Sequence[Cell]

    def place(self, cell: Cell) -> tuple[int, int]:
        """Return row and column of a cell."""
        return self.info.variants.index(cell.variant), self.info.others.index(cell.language)

    def values(self, name: str) -> np.ndarray:
        """Return a field as an array ``[variant, language]``; missing values are NaN."""
        table = np.full((len(self.info.variants), len(self.info.others)), np.nan)
        for cell in self.cells:
            value = getattr(cell, name)
            table[self.place(cell)] = np.nan if value is None else value
        return table


def _draw_commitment(axes: Axes, grid: Grid) -> None:
    depth, layers = grid.info.last_layer, grid.values("commitment_layer")
    layers[layers < 0] = np.nan
    axes.imshow(layers, cmap="viridis_r", vmin=1, vmax=depth, aspect="auto")
    for cell in grid.cells:
        i, j = grid.place(cell)
        committed = cell.status == "committed"
        text = STATUS_WORDS.get(cell.span, cell.span)
        # The lower half of viridis_r is light and needs dark text.
        dark = not committed or layers[i, j] < depth / 2
        colour, size = "black" if dark else "white", 8 if committed else 6.5
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=size)
    axes.set_title(
        f"commitment - release layer (1..{depth}; max-T p <= 0.05, half of the peak, 3 layers)",
        fontsize=9,
    )


def _draw_peaks(axes: Axes, grid: Grid) -> None:
    peaks = grid.values("peak_alignment")
    axes.imshow(peaks, cmap="Blues", vmin=0, aspect="auto")
    for cell in grid.cells:
        if cell.peak_alignment is None:
            continue
        i, j = grid.place(cell)
        has_band = cell.lower is not None and cell.upper is not None
        band = f"\n[{cell.lower:.2f}, {cell.upper:.2f}]" if has_band else ""
        colour = "white" if cell.peak_alignment > 0.6 * np.nanmax(peaks) else "black"
        text = f"{cell.peak_alignment:.2f}{band}"
        axes.text(j, i, text, ha="center", va="center", fontsize=6, color=colour)
    axes.set_title("largest concept alignment over layers [95% interval there]", fontsize=9)


def _label(axes: Axes, grid: Grid) -> None:
    """Label the rows and columns, write the audit below, and hatch untestable cells."""
    first = [c for c in grid.cells if c.variant == grid.info.variants[0]]
    labels = [f"{c.language}\n{c.identical_input:.0%}\n{c.shared_tokens:.0%}" for c in first]
    axes.set_xticks(range(len(labels)), labels, fontsize=7)
    axes.set_yticks(range(len(grid.info.variants)), grid.info.variants)
    for cell in grid.cells:
        if cell.status == "untestable":
            i, j = grid.place(cell)
            across = [j - 0.5, j + 0.5]
            axes.fill_between(
                across, i - 0.5, i + 0.5, facecolor="none", hatch="///", edgecolor="#999999", lw=0
            )


def plot(grid: Grid) -> Figure:
    """Return the figure: commitment layers on the left, peak alignment on the right."""
    figure = Figure(figsize=(13, 1.9 + 0.62 * len(grid.info.variants)), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_commitment(left, grid)
    _draw_peaks(right, grid)
    for axes in (left, right):
        _label(axes, grid)
    what = (
        "concept alignment, span_mean; under each language: identical inputs and shared tokens; "
        "hatched: untestable"
    )
    figure.suptitle(figures.caption(grid.info, what, marks="intervals"), fontsize=8)
    return figure


def run(run_dir: Path) -> Path:
    """Draw and save the figure; returns its path."""
    paths = RunPaths(run_dir)
    results = load_results(paths.curves)
    layers = records.load_table(Layers, paths.commitment, files.MAKE_CURVES)
    cells = [make_cell(results, record) for record in layers if record.concept_id == "ALL"]
    figure = plot(Grid(results.info, cells))
    return figures.save(figure, Cell, cells, paths.assets / "concept_alignment_heatmap.png")


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser("viz/heatmap.py", "Draw commitment and peak alignment.")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and draw; returns the exit code."""
    args = build_parser().parse_args(argv)
    return command_line.run_stage("viz/heatmap.py", lambda: print(run(args.run_dir)))


if __name__ == "__main__":
    raise SystemExit(main())
