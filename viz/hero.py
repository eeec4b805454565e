"""Draw the main finding: languages with established alignment, one without, and one untestable.

A rule chooses the languages, by their status on the base variant: the committed language with the
highest peak, of those in which no cue that is not meaning passes the test, and of the others; the
"never" language with the lowest peak; and the untestable language with the highest. Without probes,
they are the languages with the highest and the lowest peak on the parallel corpus.

Reads:  results/alignment_curves.json, results/commitment_matrix.csv
Writes: assets/hero.png (+ .csv)

    uv run viz/hero.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aya_probes import command_line, figures, files, records
from aya_probes.figures import DrawnPoint
from aya_probes.results.alignment import Results, load_results
from aya_probes.results.curves import CONCEPT, PARALLEL_ALIGNMENT, RAW, WITHIN_CATEGORY
from aya_probes.results.tables import Layers
from aya_probes.run_folder import RunPaths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STATUSES = (  # status, whether a cue passes (None: either), title, which language
    ("committed", False, "established", max),
    ("committed", True, "established, as is a cue", max),
    ("never", None, "not established", min),
    ("untestable", None, "untestable", max),
)
LABELS = {
    CONCEPT: "concept alignment A, standardised\n(0 = mismatched concepts)",
    PARALLEL_ALIGNMENT: "alignment A of corpus items, standardised\n(0 = mismatched items)",
}


@dataclass(frozen=True)
class Panel:
    """A language, and what is said of it."""

    language: str
    title: str


def _height(results: Results, measure: str, variant: str, code: str) -> float:
    curve = results.curve(measure, variant, code)
    return 0.0 if curve is None or curve.peak is None else float(curve.array()[curve.peak])


def choose_panels(results: Results, cells: Sequence[Layers]) -> list[Panel]:
    """Return at most one panel for each of ``STATUSES``, from one variant's ``cells``."""
    chosen = []
    for status, cued, title, pick in STATUSES:
        here = [
            cell
            for cell in cells
            if cell.status == status
            and cued in (None, bool(results.passing_cues(CONCEPT, cell.language)))
        ]
        if here:
            cell = pick(here, key=lambda c: _height(results, CONCEPT, c.variant, c.language))
            chosen.append(Panel(cell.language, title))
    # Too few concepts or wordings for any of these statuses:
    return chosen or [Panel(cell.language, cell.status) for cell in cells[:1]]


def choose_corpus_panels(results: Results, base: str) -> list[Panel]:
    """Return the languages with the highest and the lowest peak on the parallel corpus."""
    measured = [c for c in results.info.others if results.curve(PARALLEL_ALIGNMENT, base, c)]
    ordered = sorted(measured, key=lambda c: _height(results, PARALLEL_ALIGNMENT, base, c))
    highest = [Panel(code, "highest") for code in ordered[-1:]]
    return highest + [Panel(code, "lowest") for code in ordered[:1] if len(ordered) > 1]


def draw_panel(axes: Axes, results: Results, measure: str, panel: Panel) -> list[DrawnPoint]:
    """Draw all variants of one language; returns the numbers drawn."""
    info, drawn = results.info, list[DrawnPoint]()
    base, language = figures.reference(info), panel.language
    if measure == CONCEPT:
        drawn += figures.shade_ceiling(axes, results, base, language)
    styles = figures.styles(info)
    for variant in sorted(info.variants, key=lambda name: name == base):
        curve = results.curve(measure, variant, language)
        if curve is not None:
            figures.draw_curve(axes, curve, styles[variant])
            drawn += figures.curve_points(curve, variant, language, measure)
    beside = [(measure + RAW, f"{base}, on raw vectors", ":")]
    if measure == CONCEPT:
        beside.append((WITHIN_CATEGORY, f"{base}, against its own category", "-."))
    for name, label, dash in beside:
        curve = results.curve(name, base, language)
        if curve is not None:
            axes.plot(curve.array(), color="black", ls=dash, lw=1, label=label)
            drawn += figures.curve_points(curve, base, language, name)
    axes.axhline(0, color="black", lw=0.8)
    return drawn


def plot(results: Results, panels: Sequence[Panel]) -> tuple[Figure, list[DrawnPoint]]:
    """Return the figure, and the numbers drawn."""
    measure = CONCEPT if results.info.concepts else PARALLEL_ALIGNMENT
    figure = figures.blank((max(5, 3.9 * len(panels)), 4.8))
    grid = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    drawn: list[DrawnPoint] = []
    pivot = figures.language_name(results.info.pivot)
    for axes, panel in zip(grid, panels, strict=True):
        drawn += draw_panel(axes, results, measure, panel)
        name = figures.language_name(panel.language)
        axes.set_title(f"{pivot} – {name}: {panel.title}", fontsize=11)
        axes.set_xlabel("layer (dot: after the final norm)", fontsize=9)
    figures.leave_room(grid[0], below=0.12, above=0.1)
    for axes, panel in zip(grid, panels, strict=True):
        figures.mark_audit(axes, results, panel.language)
    grid[0].set_ylabel(LABELS[measure], fontsize=9.5)
    figures.legend_below(figure, list(grid), columns=4 if len(panels) > 1 else 2)
    return figure, drawn


def run(run_dir: Path) -> Path | None:
    """Draw and save the figure; returns its path, or None if there is nothing to draw."""
    paths = RunPaths(run_dir)
    results = load_results(paths.curves)
    base = figures.reference(results.info)
    if results.info.concepts:
        layers = records.load_table(Layers, paths.commitment, files.MAKE_CURVES)
        whole = [cell for cell in layers if cell.concept_id == "ALL" and cell.variant == base]
        panels = choose_panels(results, whole)
    else:
        panels = choose_corpus_panels(results, base)
    if not panels:
        print(f"{paths.curves}: nothing to draw: no probes, and too few items in the corpus")
        return None
    figure, drawn = plot(results, panels)
    return figures.save(figure, DrawnPoint, drawn, paths.assets / "hero.png")


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser("viz/hero.py", "Draw the main finding.")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and draw; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        if path := run(args.run_dir):
            print(path)

    return command_line.run_stage("viz/hero.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
