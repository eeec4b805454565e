"""Draw sentence alignment of every two languages, ordered by region and script.

The first row has the base variant at three layers. The second row has, at the middle one, what each
regional variant changes against the control variant; its targets are marked.

Reads:  results/alignment_curves.json, results/language_map.csv
Writes: assets/language_map.png (+ .csv)

    uv run viz/language_map.py
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aya_probes import command_line, figures, files, records, suites
from aya_probes.results.alignment import load_results
from aya_probes.results.run_info import RunInfo
from aya_probes.results.tables import LanguagePair
from aya_probes.run_folder import RunPaths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 20  # with more languages, their codes are smaller
Values = Mapping[tuple[str, str], float | None]  # by pair of languages


@dataclass(frozen=True)
class Panel:
    """One square: a variant at a layer, or its difference to another one."""

    variant: str
    reference: str
    """Variant that is subtracted; empty if none is."""
    layer: int
    values: Values


@dataclass(frozen=True)
class DrawnPair:
    """A row of the CSV beside the figure: two languages in one panel."""

    variant: str
    """Name of the variant."""
    reference: str
    """Variant that is subtracted; empty if none is."""
    layer: int
    """Layer, as in language_map.csv."""
    language_a: str
    """First language (BCP-47)."""
    language_b: str
    """Second language."""
    value: float | None
    """Mean A on the parallel corpus, or the difference between the two variants."""
    n: int
    """Number of sentences."""


def place(code: str) -> tuple[str, str, str]:
    """Return region, script and code of a language, by which the languages are ordered."""
    language = suites.load_languages()[code]
    return language.region, language.script, code


def make_panels(info: RunInfo, rows: Sequence[LanguagePair]) -> tuple[list[Panel], list[Panel]]:
    """Return the panels of the base variant by layer, and those of the regional variants."""
    found: dict[tuple[str, int], dict[tuple[str, str], float | None]] = {}
    for row in rows:
        pair = (row.language_a, row.language_b)
        found.setdefault((row.variant, row.layer), {})[pair] = row.alignment
    base = figures.reference(info)
    control = info.first("control") or base
    layers = sorted({row.layer for row in rows})
    middle = layers[len(layers) // 2]

    def difference(variant: str) -> Values:
        mine, other = found[variant, middle], found[control, middle]
        return {
            pair: None if a is None or b is None else a - b
            for pair, a in mine.items()
            for b in [other[pair]]
        }

    return (
        [Panel(base, "", layer, found[base, layer]) for layer in layers],
        [Panel(v, control, middle, difference(v)) for v in info.by_role("regional")],
    )


def largest(panels: Sequence[Panel]) -> float:
    """Return the largest absolute value, and at least 0.001."""
    every = (value for panel in panels for value in panel.values.values())
    return max([0.001, *(abs(value) for value in every if value is not None)])


def draw_panel(axes: Axes, info: RunInfo, panel: Panel, limit: float) -> None:
    """Draw one square with colours up to ``limit``, and from −``limit`` on for a difference."""
    codes = sorted(info.languages, key=place)
    table = np.full((len(codes), len(codes)), np.nan)
    for (a, b), value in panel.values.items():
        i, j = codes.index(a), codes.index(b)
        table[i, j] = table[j, i] = np.nan if value is None else value
    if panel.reference:
        image = axes.imshow(table, cmap="RdBu", vmin=-limit, vmax=limit)
    else:
        image = axes.imshow(table, cmap="Blues", vmin=0, vmax=limit)
    axes.figure.colorbar(image, ax=axes, shrink=0.7)
    size = 7 if len(codes) <= FEW else 4
    axes.set_xticks(range(len(codes)), codes, fontsize=size, rotation=90)
    axes.set_yticks(range(len(codes)), codes, fontsize=size)
    for position, (before, after) in enumerate(itertools.pairwise(map(place, codes))):
        if before[:2] != after[:2]:
            width = 0.3 if before[0] == after[0] else 1.0
            axes.axhline(position + 0.5, color="black", lw=width)
            axes.axvline(position + 0.5, color="black", lw=width)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        if panel.reference and label.get_text() in info.targets[panel.variant]:
            label.set(color=figures.WARNING, fontweight="bold")
    axes.set_title(f"{panel.variant}{' - ' * bool(panel.reference)}{panel.reference}", fontsize=10)
    axes.set_xlabel(f"layer {panel.layer}", fontsize=8)


def plot(info: RunInfo, rows: Sequence[LanguagePair]) -> tuple[Figure, list[DrawnPair]]:
    """Return the figure, and the numbers drawn."""
    lines = [panels for panels in make_panels(info, rows) if panels]
    columns = max(map(len, lines))
    figure = figures.blank((5.4 * columns, 5.2 * len(lines) + 0.8))
    grid = figure.subplots(len(lines), columns, squeeze=False)
    for line, panels in zip(grid, lines, strict=True):
        for axes, panel in itertools.zip_longest(line, panels):
            if panel is None:
                axes.remove()
            else:
                draw_panel(axes, info, panel, largest(panels))
    n = rows[0].n
    figure.suptitle(
        f"{info.label or info.suite}: alignment A of {n} corpus items, standardised vectors; thick "
        "lines: regions, thin lines: scripts; red: targets of the variant",
        fontsize=9,
    )
    drawn = [
        DrawnPair(panel.variant, panel.reference, panel.layer, a, b, value, n)
        for panels in lines
        for panel in panels
        for (a, b), value in panel.values.items()
    ]
    return figure, drawn


def run(run_dir: Path) -> Path | None:
    """Draw and save the figure; returns its path, or None if the run has no map."""
    paths = RunPaths(run_dir)
    info = load_results(paths.curves).info
    rows = records.load_table(LanguagePair, paths.language_map, files.MAKE_CURVES)
    if not rows:
        print(
            f"{paths.language_map}: nothing to draw: the map needs 5 corpus items, and more than "
            "10 languages in a run with probes"
        )
        return None
    figure, drawn = plot(info, rows)
    return figures.save(figure, DrawnPair, drawn, paths.assets / "language_map.png")


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser("viz/language_map.py", "Draw the map of languages.")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and draw; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        if path := run(args.run_dir):
            print(path)

    return command_line.run_stage("viz/language_map.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
