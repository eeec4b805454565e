"""Draw the main finding: a language that is shared, one not established, and one untestable.

A rule chooses the languages, by their status on the base variant: the committed language with the
highest peak, the "never" language with the lowest, and the untestable language with the highest.

Reads:  results/alignment_curves.json, results/commitment_matrix.csv
Writes: assets/hero.png (+ .csv)

    uv run viz/hero.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aya_probes import command_line, figures, files, records
from aya_probes.figures import DrawnPoint
from aya_probes.results.alignment import Results, load_results
from aya_probes.results.curves import CONCEPT, Curve
from aya_probes.results.tables import Layers
from aya_probes.run_folder import RunPaths

TITLES = {"committed": "shared", "never": "not established", "untestable": "untestable"}
DASHES = ((5, 2), (1, 1), (5, 1, 1, 1))  # of control and regional variants; distinct in greyscale
BASE_COLOUR, CONTROL_COLOUR = figures.PALETTE[0], figures.UNTRAINED


def choose_languages(results: Results, cells: Sequence[Layers]) -> list[Layers]:
    """Return the cells to draw, at most one for each status in ``TITLES``."""

    def height(cell: Layers) -> float:
        curve = results.curve(CONCEPT, cell.variant, cell.language)
        return 0.0 if curve is None or curve.peak is None else float(curve.array()[curve.peak])

    chosen = []
    for status, pick in (("committed", max), ("never", min), ("untestable", max)):
        here = [cell for cell in cells if cell.status == status]
        if here:
            chosen.append(pick(here, key=height))
    return chosen or list(cells[:1])  # too few concepts for any of the statuses


def _draw_band(axes: Axes, curve: Curve, colour: str, alpha: float) -> None:
    layers = np.arange(len(curve.mean))
    axes.fill_between(
        layers, curve.array("lower"), curve.array("upper"), color=colour, alpha=alpha, lw=0
    )


def draw_panel(axes: Axes, results: Results, cell: Layers) -> list[DrawnPoint]:
    """Draw all variants of one language; returns the numbers drawn."""
    info, drawn = results.info, list[DrawnPoint]()
    dashes = iter(DASHES * len(info.variants))
    for variant in sorted(info.variants, key=lambda name: name == cell.variant):
        curve = results.curve(CONCEPT, variant, cell.language)
        if curve is None:
            continue
        drawn += figures.curve_points(curve, variant, cell.language, CONCEPT)
        if variant == cell.variant:
            _draw_band(axes, curve, BASE_COLOUR, 0.22)
            axes.plot(curve.array(), color=BASE_COLOUR, lw=2.6, label=variant)
        elif info.roles[variant] == "untrained":
            _draw_band(axes, curve, CONTROL_COLOUR, 0.25)
            axes.plot(
                curve.array(), color=CONTROL_COLOUR, lw=1.6, label=f"{variant} (random weights)"
            )
        else:
            label = f"{variant} ({info.roles[variant]})"
            axes.plot(curve.array(), color="black", lw=1.1, dashes=next(dashes), label=label)
    axes.axhline(0, color="black", lw=0.8)
    if cell.commitment_layer is not None and cell.commitment_layer >= 0:
        end = cell.release_layer if (cell.release_layer or -1) >= 0 else info.last_layer
        axes.axvspan(cell.commitment_layer, end or info.last_layer, color="#f2e3b3", zorder=0)
    if cell.status == "untestable":
        figures.mark_untestable(axes, cell.identical_input, fontsize=9.5)
    return drawn


def plot(results: Results, cells: Sequence[Layers]) -> tuple[Figure, list[DrawnPoint]]:
    """Return the figure, and the numbers drawn in it."""
    figure = Figure(figsize=(3.7 * len(cells), 4.2), layout="constrained")
    grid = figure.subplots(1, len(cells), squeeze=False, sharex=True, sharey=True)[0]
    drawn: list[DrawnPoint] = []
    pivot = figures.language_name(results.info.pivot)
    for axes, cell in zip(grid, cells, strict=True):
        drawn += draw_panel(axes, results, cell)
        name = figures.language_name(cell.language)
        axes.set_title(f"{pivot} – {name}: {TITLES.get(cell.status, cell.status)}", fontsize=11)
        axes.set_xlabel("layer", fontsize=10)
        axes.locator_params(axis="x", integer=True)
        axes.margins(x=0)
    low, high = grid[0].get_ylim()
    grid[0].set_ylim(low, high + 0.15 * (high - low))  # room for the text of an untestable panel
    grid[0].set_ylabel("concept alignment A\n(0 = mismatched concepts)", fontsize=10)
    handles, labels = grid[0].get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda n: labels[n] != cells[0].variant)
    figure.legend(
        [handles[n] for n in order],
        [labels[n] for n in order],
        loc="outside lower center",
        ncols=3,
        fontsize=9.5,
        frameon=False,
    )
    return figure, drawn


def run(run_dir: Path) -> Path:
    """Draw and save the figure; returns its path."""
    paths = RunPaths(run_dir)
    results = load_results(paths.curves)
    base = results.info.first("base") or results.info.variants[0]
    layers = records.load_table(Layers, paths.commitment, files.MAKE_CURVES)
    whole = [cell for cell in layers if cell.concept_id == "ALL" and cell.variant == base]
    cells = choose_languages(results, whole)
    figure, drawn = plot(results, cells)
    return figures.save(figure, DrawnPoint, drawn, paths.assets / "hero.png")


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser("viz/hero.py", "Draw the main finding.")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and draw; returns the exit code."""
    args = build_parser().parse_args(argv)
    return command_line.run_stage("viz/hero.py", lambda: print(run(args.run_dir)))


if __name__ == "__main__":
    raise SystemExit(main())
