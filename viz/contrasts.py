"""Draw the contrasts between variants as intervals, beside the difference between two seeds.

A column is a measure: of the concepts, and of the parallel corpus. A row is a specificity, one of
its two parts, or a region contrast of one language. The grey band of a row is the same difference
between two training seeds, where no difference of languages exists.

Reads:  results/alignment_curves.json, results/contrasts.csv
Writes: assets/contrasts.png (+ .csv)

    uv run viz/contrasts.py
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aya_probes import command_line, figures, files, records
from aya_probes.results import contrasts
from aya_probes.results.alignment import load_results
from aya_probes.results.curves import CONCEPT, ITEM_MEASURES, RAW
from aya_probes.results.run_info import RunInfo
from aya_probes.results.tables import Contrast
from aya_probes.run_folder import RunPaths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAMILIES = ("specificity", "parts", "region")
MEASURES = (CONCEPT, *ITEM_MEASURES)
TITLES = {
    CONCEPT: "concepts:\nalignment A",
    "parallel_alignment": "corpus:\nalignment A",
    "parallel_retrieval": "corpus:\ntwo-way retrieval",
    "parallel_cka": "corpus:\nunbiased CKA",
}
MANY_ROWS = 60  # with more, only region contrasts of targeted languages are drawn
BAND, BAND_REACH = "#c4c4c4", "#ececec"


@dataclass(frozen=True)
class DrawnContrast:
    """A row of the CSV beside the figure: an interval, and the seed difference behind it."""

    row: str
    """Label of the row."""
    measure: str
    """As in contrasts.csv."""
    family: str
    """As in contrasts.csv."""
    contrast: str
    """The two variants."""
    targets: str
    """As in contrasts.csv."""
    others: str
    """As in contrasts.csv."""
    estimate: float
    """Mean difference."""
    lower: float
    """Lower end of the 95% interval."""
    upper: float
    """Upper end of that interval."""
    p_holm: float
    """p, corrected over the family."""
    seed_estimate: float | None
    """Largest absolute difference between seeds: the dark band. Empty without a second seed."""
    seed_reach: float | None
    """Largest absolute end of its 95% intervals: the light band; empty if there is none."""


def row_label(row: Contrast) -> str:
    """Return what stands beside a row."""
    if row.family == "specificity":
        return f"{row.contrast}: targets - others"
    if row.family == "parts":
        return f"{row.contrast}: {row.part}"
    return f"{row.contrast}: {row.targets}"


def choose_rows(rows: Sequence[Contrast], info: RunInfo) -> list[str]:
    """Return the labels of the rows of the figure, by family, variant and language."""
    found = {
        row_label(row): row
        for measure in MEASURES
        for row in contrasts.choose(rows, measure, *FAMILIES)
    }
    if len(found) > MANY_ROWS:
        found = {
            label: row
            for label, row in found.items()
            if row.family != "region" or row.targets in info.targets[row.contrast.split(" - ")[0]]
        }

    def order(label: str) -> tuple[int, int, int]:
        row = found[label]
        language = info.others.index(row.targets) if row.family == "region" else 0
        variant = info.variants.index(row.contrast.split(" - ")[0])
        return FAMILIES.index(row.family), variant, language

    return sorted(found, key=order)  # a part keeps the order of the file: targets, elsewhere


def draw_column(
    axes: Axes, rows: Sequence[Contrast], labels: Sequence[str], info: RunInfo, measure: str
) -> Iterator[DrawnContrast]:
    """Draw one measure, standardised and raw; yields the numbers drawn."""
    colours = figures.colours(info)
    for suffix, shift in (("", -0.16), (RAW, 0.2)):
        for row in contrasts.choose(rows, measure + suffix, *FAMILIES):
            if row_label(row) not in labels:
                continue
            place = labels.index(row_label(row))
            colour = colours[row.contrast.split(" - ")[0]]
            null = contrasts.seed_null(rows, row, info.repeats)
            if not suffix:
                _draw_band(axes, place, null)
            axes.errorbar(
                row.estimate,
                place + shift,
                xerr=[[row.estimate - row.lower], [row.upper - row.estimate]],
                fmt="o",
                color=colour,
                mfc="white" if suffix else colour,
                ms=3.2 if suffix else 4.2,
                lw=0.8 if suffix else 1.4,
            )
            if row.established and not suffix:
                axes.annotate(
                    "*",
                    (row.upper, place + shift),
                    (3, -5),
                    textcoords="offset points",
                    color=colour,
                )
            yield DrawnContrast(
                row_label(row),
                row.measure,
                row.family,
                row.contrast,
                row.targets,
                row.others,
                row.estimate,
                row.lower,
                row.upper,
                row.p_holm,
                None if null is None else null.estimate,
                None if null is None else null.reach,
            )
    axes.axvline(0, color="black", lw=0.6)
    axes.set_title(TITLES[measure], fontsize=9)
    axes.tick_params(axis="x", labelsize=7)
    axes.locator_params(axis="x", nbins=5)


def _draw_band(axes: Axes, place: int, null: contrasts.SeedNull | None) -> None:
    """Draw the seed difference of a row, mirrored about 0."""
    if null is None:
        return
    for width, colour in ((null.reach, BAND_REACH), (null.estimate, BAND)):
        if width is not None:
            axes.fill_between([-width, width], place - 0.5, place + 0.5, color=colour, lw=0)


def plot(rows: Sequence[Contrast], info: RunInfo) -> tuple[Figure, list[DrawnContrast]]:
    """Return the figure, and the numbers drawn."""
    labels = choose_rows(rows, info)
    measured = [m for m in MEASURES if contrasts.choose(rows, m, *FAMILIES)]
    height = 1.9 + 0.27 * len(labels)
    figure = figures.blank((3.2 + 2.7 * len(measured), height))
    grid = figure.subplots(1, len(measured), squeeze=False, sharey=True)[0]
    drawn: list[DrawnContrast] = []
    for axes, measure in zip(grid, measured, strict=True):
        drawn += draw_column(axes, rows, labels, info, measure)
        sizes = contrasts.choose(rows, measure, *FAMILIES)[0]
        unit = "concepts" if measure == CONCEPT else f"items, {sizes.groups} documents"
        axes.set_xlabel(f"difference, layers {sizes.layers}\n(n = {sizes.n} {unit})", fontsize=7)
    grid[0].set_yticks(np.arange(len(labels)), labels, fontsize=7.5)
    grid[0].set_ylim(len(labels) - 0.5, -0.5)
    for axes in grid:
        for place in range(1, len(labels)):
            if labels[place].split(":")[0] != labels[place - 1].split(":")[0]:
                axes.axhline(place - 0.5, color="#888888", lw=0.5)
    text = (
        f"{info.label or info.suite}: contrasts between variants, all layers. Filled: standardised "
        "vectors; hollow: raw vectors; bars: 95% intervals; *: Holm p <= 0.05 within the family "
        "(standardised). Grey: the same difference between two training seeds, mirrored about 0 "
        "(dark: estimate, light: its 95% interval)"
    )
    width = 30 + 38 * len(measured)
    figure.suptitle("\n".join(textwrap.wrap(text, width)), fontsize=8)
    return figure, drawn


def run(run_dir: Path) -> Path | None:
    """Draw and save the figure; returns its path, or None if the run has no such contrasts."""
    paths = RunPaths(run_dir)
    info = load_results(paths.curves).info
    rows = records.load_table(Contrast, paths.contrasts, files.MAKE_CURVES)
    if not choose_rows(rows, info):
        print(
            f"{paths.contrasts}: nothing to draw: contrasts need a regional variant, and 8 "
            "concepts or documents"
        )
        return None
    figure, drawn = plot(rows, info)
    return figures.save(figure, DrawnContrast, drawn, paths.assets / "contrasts.png")


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser("viz/contrasts.py", "Draw contrasts between variants.")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and draw; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        if path := run(args.run_dir):
            print(path)

    return command_line.run_stage("viz/contrasts.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
