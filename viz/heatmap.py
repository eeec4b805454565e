"""Draw where and how strongly every variant and language align, as grids of cells.

With probes: commitment and release layer, the largest `concept_alignment`, the largest alignment
relative to the noise ceiling, and the largest alignment on raw vectors. Without probes: the largest
alignment and retrieval of the parallel corpus, on standardised and on raw vectors.

Reads:  results/alignment_curves.json, results/commitment_matrix.csv
Writes: assets/concept_alignment_heatmap.png (+ .csv)

    uv run viz/heatmap.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aya_probes import command_line, figures, files, records
from aya_probes.results.alignment import Results, load_results
from aya_probes.results.curves import (
    CONCEPT,
    DISATTENUATED,
    PARALLEL_ALIGNMENT,
    PARALLEL_RETRIEVAL,
    RAW,
    number,
)
from aya_probes.results.run_info import RunInfo
from aya_probes.results.tables import Layers
from aya_probes.run_folder import RunPaths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMMITMENT = "commitment_layer"
STATUS_WORDS = {"untestable": "untest-\nable"}
TITLES = {
    CONCEPT: "largest concept alignment A, standardised vectors",
    DISATTENUATED: "largest A relative to the noise ceiling",
    CONCEPT + RAW: "sensitivity: largest A on raw vectors",
    PARALLEL_ALIGNMENT: "largest alignment A of corpus items, standardised vectors",
    PARALLEL_ALIGNMENT + RAW: "sensitivity: largest alignment A of corpus items, raw vectors",
    PARALLEL_RETRIEVAL: "largest two-way retrieval, standardised vectors",
    PARALLEL_RETRIEVAL + RAW: "sensitivity: largest two-way retrieval, raw vectors",
}
CONCEPT_PANELS = (CONCEPT, DISATTENUATED, CONCEPT + RAW)
PARALLEL_PANELS = tuple(
    name + suffix for name in (PARALLEL_ALIGNMENT, PARALLEL_RETRIEVAL) for suffix in ("", RAW)
)
MANY_LANGUAGES = 12  # with more, grids lie below each other, and cells have no text

TEXT: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6}
BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}


@dataclass(frozen=True)
class Cell:
    """A row of the CSV beside the figure: one variant and language in one grid."""

    panel: str
    """commitment_layer, or the measure whose largest value over layers is drawn."""
    variant: str
    """Name of the variant."""
    language: str
    """Language compared with the pivot."""
    status: str
    """As in commitment_matrix.csv; empty in a run without probes."""
    layer: int | None
    """The commitment layer (−1: never), or the layer of the largest value."""
    value: float | None
    """The largest value; empty for commitment_layer."""
    lower: float | None
    """Lower end of the 95% interval of the value, or of the commitment layer."""
    upper: float | None
    """Upper end of that interval."""
    text: str
    """What is written into the cell."""


def commitment_cell(layers: Layers) -> Cell:
    """Return the cell of a commitment layer."""
    low, high = layers.commitment_lower, layers.commitment_upper
    text = STATUS_WORDS.get(layers.span, layers.span)
    if low is not None and high is not None:
        text += f"\n[{low}, {high}]"
    head = (COMMITMENT, layers.variant, layers.language, layers.status)
    return Cell(*head, layers.commitment_layer, None, low, high, text)


def peak_cell(results: Results, measure: str, variant: str, code: str, status: str) -> Cell:
    """Return the cell of the largest value of a curve over layers."""
    curve = results.curve(measure, variant, code)
    head = (measure, variant, code, status)
    if curve is None or curve.peak is None:
        return Cell(*head, None, None, None, None, "")
    mean, lower, upper = (number(curve.array(n)[curve.peak]) for n in ("mean", "lower", "upper"))
    text = f"{mean:.2f}" + (f"\n[{lower:.2f}, {upper:.2f}]" if None not in (lower, upper) else "")
    return Cell(*head, curve.peak, mean, lower, upper, f"{text}\nat {curve.peak}")


@dataclass(frozen=True)
class Grid:
    """The cells of one panel on a grid: variants down, languages across."""

    info: RunInfo
    cells: Sequence[Cell]

    @property
    def panel(self) -> str:
        return self.cells[0].panel

    @property
    def is_crowded(self) -> bool:
        """Whether there are too many languages for text in the cells."""
        return len(self.info.others) > MANY_LANGUAGES

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


def make_grids(results: Results, layers: Sequence[Layers]) -> list[Grid]:
    """Return the grids of a run; ``layers`` are those of ALL concepts."""
    info = results.info
    status = {(r.variant, r.language): r.status for r in layers}
    measured = {key.measure for key in results.curves}
    wanted = CONCEPT_PANELS if info.concepts else PARALLEL_PANELS
    grids = [Grid(info, [commitment_cell(r) for r in layers])] if layers else []
    for measure in wanted:
        if measure in measured:
            cells = [
                peak_cell(results, measure, v, code, status.get((v, code), ""))
                for v in info.variants
                for code in info.others
            ]
            grids.append(Grid(info, cells))
    return grids


def _draw(axes: Axes, grid: Grid) -> None:
    """Draw a grid with the text of its cells, or with a colour bar if it is crowded."""
    if grid.panel == COMMITMENT:
        depth, table = grid.info.last_layer, grid.values("layer")
        table[table < 0] = np.nan
        image = axes.imshow(table, cmap="viridis_r", vmin=1, vmax=depth, aspect="auto")
        light = table < depth / 2
        title = (
            f"commitment - release layer of {depth} (max-T p <= 0.05, half of the peak, 3 layers)"
        )
    else:
        table, title = grid.values("value"), TITLES[grid.panel]
        top = max(0.01, np.nanmax(table)) if np.isfinite(table).any() else 1
        image = axes.imshow(table, cmap="Blues", vmin=0, vmax=top, aspect="auto")
        light = table < 0.6 * top
    axes.set_title(title, fontsize=9)
    if grid.is_crowded:
        axes.figure.colorbar(image, ax=axes, pad=0.01)
    for cell in grid.cells:
        i, j = grid.place(cell)
        void = cell.status == "untestable"
        if void:
            _hatch(axes, i, j)
        if not grid.is_crowded:
            dark = void or bool(light[i, j]) or np.isnan(table[i, j])
            axes.text(
                j,
                i,
                cell.text,
                color="black" if dark else "white",
                **TEXT,
                bbox=BOX if void else None,
            )


def _hatch(axes: Axes, i: int, j: int) -> None:
    """Hatch the cell in row i and column j."""
    look: dict[str, Any] = {"facecolor": "none", "hatch": "///", "edgecolor": "#999999", "lw": 0}
    axes.fill_between([j - 0.5, j + 0.5], i - 0.5, i + 0.5, **look)


def _label(axes: Axes, grid: Grid, results: Results) -> None:
    """Label the rows and columns; write the audit below the languages."""
    info, labels = grid.info, []
    for code in info.others:
        labels.append(code)
        if info.concepts and not grid.is_crowded:
            share = results.input_share(info.variants[0], code).share
            shared = results.tokens[info.variants[0], code].shared_tokens or 0.0
            labels[-1] += f"\n{share:.0%}\n{shared:.0%}"
            labels[-1] += "\ncue" if results.passing_cues(CONCEPT, code) else ""
    size, turn = (6, 90) if grid.is_crowded else (7, 0)
    axes.set_xticks(range(len(labels)), labels, fontsize=size, rotation=turn)
    axes.set_yticks(range(len(info.variants)), info.variants, fontsize=7)


def plot(results: Results, grids: Sequence[Grid]) -> Figure:
    """Return the figure of all grids."""
    info = results.info
    crowded = grids[0].is_crowded
    columns = 1 if crowded else 2
    rows = -(-len(grids) // columns)
    width = max(13, 3 + 0.18 * len(info.others)) if crowded else 14
    each = 0.8 + (0.25 if crowded else 0.42) * len(info.variants)
    figure = figures.blank((width, 0.9 + rows * (each + 0.4)))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, grid in zip(panels, grids, strict=False):
        _draw(axes, grid)
        _label(axes, grid, results)
    for axes in panels[len(grids) :]:
        axes.remove()
    what = "standardised: each dimension divided by its SD within the language; raw: mean-centred"
    if info.concepts and not crowded:
        what += (
            "; under each language: identical inputs, shared tokens, and `cue` if a cue that is "
            "not meaning passes the test; hatched: untestable"
        )
    figure.suptitle(figures.caption(info, what, 190, marks="intervals"), fontsize=8)
    return figure


def run(run_dir: Path) -> Path | None:
    """Draw and save the figure; returns its path, or None if there is nothing to draw."""
    paths = RunPaths(run_dir)
    results = load_results(paths.curves)
    layers = records.load_table(Layers, paths.commitment, files.MAKE_CURVES)
    grids = make_grids(results, [record for record in layers if record.concept_id == "ALL"])
    if not grids:
        print(f"{paths.curves}: nothing to draw: no probes, and too few items in the corpus")
        return None
    cells = [cell for grid in grids for cell in grid.cells]
    figure = plot(results, grids)
    return figures.save(figure, Cell, cells, paths.assets / "concept_alignment_heatmap.png")


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser("viz/heatmap.py", "Draw commitment and peak alignment.")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and draw; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        if path := run(args.run_dir):
            print(path)

    return command_line.run_stage("viz/heatmap.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
