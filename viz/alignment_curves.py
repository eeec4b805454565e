"""Draw alignment over layers: three languages side by side, and single ones.

With probes, the rows are `concept_alignment` with the noise ceiling, alignment relative to the
ceiling, the same measure on raw vectors, and raw cosine with its mismatched control. With one
wording for each concept, `sentence_alignment` replaces the first two. Without probes, the rows are
the measures of the parallel corpus.

Reads:  results/alignment_curves.json
Writes: assets/tweet_three_panel.png, assets/alignment_curve_avg_<language>.png (+ .csv beside each)

    uv run viz/alignment_curves.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aya_probes import command_line, figures
from aya_probes.figures import DrawnPoint
from aya_probes.results.alignment import Results, load_results
from aya_probes.results.curves import (
    CONCEPT,
    COSINE,
    DISATTENUATED,
    MISMATCHED,
    PARALLEL_ALIGNMENT,
    PARALLEL_CKA,
    PARALLEL_CSLS,
    PARALLEL_RETRIEVAL,
    RAW,
    SENTENCE,
)
from aya_probes.run_folder import RunPaths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = ("sw", "hi", "am")
SINGLES = ("hi", "am")
RELATIVE_RANGE = (-0.5, 1.5)  # of the axis: the ratio is wild where a ceiling is near 0


@dataclass(frozen=True)
class Row:
    """A row of panels: one measure of every variant."""

    measure: str
    label: str
    height: float
    """Relative to the other rows."""
    beside: tuple[tuple[str, str], ...] = ()
    """Measures of the base variant that are drawn thin, and what they are called."""


COSINE_ROW = Row(
    COSINE, "raw cosine\nof whole texts", 1, ((MISMATCHED, "mismatched cosine (base)"),)
)
CONCEPT_ROWS = (
    Row(CONCEPT, "concept alignment A\n(standardised; 0 = chance)", 2.2),
    Row(DISATTENUATED, "A relative to\nthe noise ceiling", 1.4),
    Row(CONCEPT + RAW, "sensitivity: A on\nraw vectors", 1.2),
    COSINE_ROW,
)
SENTENCE_ROWS = (
    Row(SENTENCE, "sentence alignment A\n(standardised; 0 = chance)", 2.2),
    Row(SENTENCE + RAW, "sensitivity: A on\nraw vectors", 1.2),
    COSINE_ROW,
)
_RAW_LABEL = "on raw vectors (base)"
PARALLEL_ROWS = (
    Row(
        PARALLEL_ALIGNMENT,
        "alignment A of corpus items\n(standardised; 0 = chance)",
        1.6,
        ((PARALLEL_ALIGNMENT + RAW, _RAW_LABEL),),
    ),
    Row(
        PARALLEL_RETRIEVAL,
        "two-way retrieval\n(standardised)",
        1.2,
        ((PARALLEL_RETRIEVAL + RAW, _RAW_LABEL), (PARALLEL_CSLS, "with CSLS (base)")),
    ),
    Row(
        PARALLEL_CKA,
        "unbiased CKA\n(standardised)",
        1.2,
        ((PARALLEL_CKA + RAW, _RAW_LABEL),),
    ),
)
THIN = (":", "-.")


def choose_rows(results: Results) -> tuple[Row, ...]:
    """Return the rows of the measures that the run has."""
    measured = {key.measure for key in results.curves}
    for rows in (CONCEPT_ROWS, SENTENCE_ROWS, PARALLEL_ROWS):
        if rows[0].measure in measured:
            return rows
    return ()


def _draw(axes: Axes, results: Results, language: str, row: Row) -> list[DrawnPoint]:
    """Draw one panel; returns the numbers drawn."""
    info, drawn = results.info, list[DrawnPoint]()
    base = figures.reference(info)
    if row.measure == CONCEPT:
        drawn += figures.shade_ceiling(axes, results, base, language)
    for variant, style in figures.styles(info).items():
        curve = results.curve(row.measure, variant, language)
        if curve is not None:
            figures.draw_curve(axes, curve, style)
            drawn += figures.curve_points(curve, variant, language, row.measure)
    for (measure, label), dash in zip(row.beside, THIN, strict=False):
        curve = results.curve(measure, base, language)
        if curve is not None:
            axes.plot(curve.array(), color="black", ls=dash, lw=0.9, label=label)
            drawn += figures.curve_points(curve, base, language, measure)
    axes.axhline(0, color="black", lw=0.6)
    if row.measure == DISATTENUATED:
        axes.axhline(1, color="black", lw=0.6, ls=":")
        axes.set_ylim(*RELATIVE_RANGE)
    return drawn


def plot_panels(results: Results, languages: Sequence[str]) -> tuple[Figure, list[DrawnPoint]]:
    """Return the figure, one column per language and one row per measure, and what it draws."""
    rows, count = choose_rows(results), len(languages)
    heights = [row.height for row in rows]
    size = (max(5.6, 4.2 * count), 1.8 + 1.55 * sum(heights))
    figure = figures.blank(size)
    grid = figure.subplots(
        len(rows), count, squeeze=False, sharex=True, sharey="row", height_ratios=heights
    )
    drawn: list[DrawnPoint] = []
    pivot = figures.language_name(results.info.pivot)
    for row, panels in zip(rows, grid, strict=True):
        for axes, language in zip(panels, languages, strict=True):
            drawn += _draw(axes, results, language, row)
        panels[0].set_ylabel(row.label, fontsize=8)
    figures.leave_room(grid[0][0], below=0.12)
    for column, language in enumerate(languages):
        figures.mark_audit(grid[0][column], results, language)
        grid[0][column].set_title(f"{pivot} - {figures.language_name(language)}")
        grid[-1][column].set_xlabel(figures.LAYER_LABEL, fontsize=8)
    figures.legend_below(figure, list(grid[:, 0]), columns=2 if count == 1 else 5)
    figure.suptitle(_title(results, count), fontsize=9)
    return figure, drawn


def _title(results: Results, columns: int) -> str:
    """Return what the figure shows, and its caption."""
    if results.info.concepts:
        what = (
            "A: different wordings, concept tokens, each dimension divided by its SD within the "
            "language; raw: only mean-centred; thin: a second training seed; dot: after the final "
            "norm"
        )
        title = "Concept alignment over layers, and why raw cosine misleads"
    else:
        what = (
            "sentences of the parallel corpus, each dimension divided by its SD within the "
            "language; thin: a second training seed; dot: after the final norm; no probes, so no "
            "concept alignment"
        )
        title = "Alignment of the parallel corpus over layers"
    return f"{title}\n{figures.caption(results.info, what, width=58 * max(columns, 1) + 12)}"


def run(run_dir: Path, asked: Sequence[str] | None) -> list[Path]:
    """Draw and save all figures; returns their paths."""
    paths = RunPaths(run_dir)
    results = load_results(paths.curves)
    if not choose_rows(results):
        print(f"{paths.curves}: nothing to draw: no probes, and too few items in the corpus")
        return []
    valid = results.info.others
    wanted = asked or [c for c in PANELS if c in valid] or valid[:3]
    chosen = [code for code in wanted if code in command_line.choose("language", asked, valid)]
    for code in PANELS:
        if asked is None and code not in valid:
            print(f"{code} is left out: it is not in this run")
    singles = chosen if asked else [c for c in SINGLES if c in valid] or valid[:1]
    panels = {"tweet_three_panel": chosen}
    panels |= {f"alignment_curve_avg_{code}": [code] for code in singles}
    written = []
    for name, languages in panels.items():
        figure, drawn = plot_panels(results, languages)
        written.append(figures.save(figure, DrawnPoint, drawn, paths.assets / f"{name}.png"))
    return written


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser(
        "viz/alignment_curves.py", "Draw alignment over layers.", "languages"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and draw; returns the exit code."""
    args = build_parser().parse_args(argv)
    return command_line.run_stage(
        "viz/alignment_curves.py", lambda: print(*run(args.run_dir, args.languages), sep="\n")
    )


if __name__ == "__main__":
    raise SystemExit(main())
