"""Draw the curve of one cell, annotated with its peak, rise, decline and shape.

The upper panel has `concept_alignment` with the noise ceiling, the lower one alignment relative to
the ceiling, on which rise and decline are claimed. Without probes, the panels have alignment and
retrieval of the parallel corpus.

Reads:  results/alignment_curves.json
Writes: assets/annotated_rise_peak_collapse.png (+ .csv)

By default the cell is the base variant's strongest language, and without a passing cue if there is
one.

    uv run viz/annotated_curve.py --variants base --languages hi
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aya_probes import command_line, figures
from aya_probes.errors import StudyError
from aya_probes.figures import DrawnPoint
from aya_probes.results.alignment import Results, load_results
from aya_probes.results.curves import (
    CONCEPT,
    DISATTENUATED,
    PARALLEL_ALIGNMENT,
    PARALLEL_RETRIEVAL,
    RAW,
    Curve,
    Shape,
)
from aya_probes.run_folder import RunPaths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOX = {"facecolor": "white", "edgecolor": "#cccccc"}
PEAK_COLOUR = "#dddddd"
VERDICTS = {
    "RISE_PEAK_DECLINE": "it rises, peaks and declines",
    "RISE": "it rises, and no decline is established",
    "FALL": "it declines, and no rise is established",
    "FLAT": "neither rise nor decline is established",
    "UNRESOLVED": "not both of rise and decline are established",
    "UNDEFINED": "shape undefined: a noise ceiling is not above 0 at some layer",
}
LABELS = {
    CONCEPT: "concept alignment A\n(standardised; 0 = chance)",
    DISATTENUATED: "A relative to\nthe noise ceiling",
    PARALLEL_ALIGNMENT: "alignment A of corpus items\n(standardised; 0 = chance)",
    PARALLEL_RETRIEVAL: "two-way retrieval\n(standardised)",
}


def panels_of(results: Results) -> tuple[str, str]:
    """Return the measures of the upper and of the lower panel."""
    if results.info.concepts:
        return CONCEPT, DISATTENUATED
    return PARALLEL_ALIGNMENT, PARALLEL_RETRIEVAL


def strongest_cell(
    results: Results, variants: Sequence[str], languages: Sequence[str]
) -> tuple[str, str] | None:
    """Return the (variant, language) of the testable cell with the highest peak, or None.

    Languages in which a cue that is not meaning passes the test come last.
    """
    heights = []
    measure, _ = panels_of(results)
    for variant in variants:
        for code in languages:
            curve = results.curve(measure, variant, code)
            if curve is None or curve.peak is None:
                continue
            if measure == CONCEPT and results.is_untestable(variant, code):
                continue
            clean = not results.passing_cues(measure, code)
            heights.append((clean, float(curve.array()[curve.peak]), variant, code))
    return max(heights)[2:] if heights else None


def _nothing(results: Results) -> str:
    """Return the reason why there is no cell to draw, and the fix."""
    if not results.info.concepts:
        return "nothing to draw: no probes, and too few items in the parallel corpus"
    if results.info.wordings == 1:
        return (
            "nothing to draw: concept alignment compares different wordings, and each concept has "
            "one; add a second wording to the probes file"
        )
    return "no testable cell to draw; choose others with --variants and --languages"


def describe_curve(results: Results, curve: Curve) -> list[str]:
    """Return the peak of a curve, and how much lower it is at the first and at the last layer."""
    mean, last = curve.array(), results.info.last_layer
    assert curve.peak is not None
    interval = ""
    if curve.lower is not None:
        lower, upper = curve.array("lower")[curve.peak], curve.array("upper")[curve.peak]
        interval = f" [{lower:.2f}, {upper:.2f}]"
    top = mean[curve.peak]
    return [
        f"largest at layer {curve.peak}: {top:.2f}{interval}",
        f"{top - mean[0]:+.2f} against layer 0, {top - mean[last]:+.2f} against layer {last}",
    ]


def describe_shape(shape: Shape, last: int) -> list[str]:
    """Return peak, rise, decline and final norm of a curve relative to the ceiling."""
    lines = []
    if shape.peak_layer is not None:
        between = "" if shape.peak_interval is None else " [{}, {}]".format(*shape.peak_interval)
        lines.append(f"peak: layer {shape.peak_layer}{between}")
    for name, layer, change in (("rise", 0, shape.rise), ("decline", last, shape.decline)):
        if change is not None:
            lines.append(
                f"{name} (largest - layer {layer}): {{:+.2f}} [{{:.2f}}, {{:.2f}}]".format(*change)
            )
    if shape.retained is not None:
        lines.append(f"kept at layer {last}: {shape.retained:.0%} of the largest value")
    if shape.norm_step is not None:
        lines.append(f"final norm: {shape.norm_step:+.2f} (dot)")
    return lines


def draw_panel(
    axes: Axes, results: Results, cell: tuple[str, str], measure: str
) -> list[DrawnPoint]:
    """Draw a cell's curve and raw curve, and the untrained control; returns the numbers drawn."""
    (variant, language), drawn = cell, list[DrawnPoint]()
    styles = figures.styles(results.info)
    if measure == CONCEPT:
        drawn += figures.shade_ceiling(axes, results, variant, language)
    untrained = [] if measure == DISATTENUATED else results.info.by_role("untrained")
    for name in dict.fromkeys([*untrained, variant]):
        curve = results.curve(measure, name, language)
        if curve is not None:
            figures.draw_curve(axes, curve, styles[name])
            drawn += figures.curve_points(curve, name, language, measure)
    raw = results.curve(measure + RAW, variant, language)
    if raw is not None:
        label = f"{variant}, on raw vectors (sensitivity)"
        axes.plot(raw.array(), color=styles[variant].colour, ls=":", lw=1, label=label)
        drawn += figures.curve_points(raw, variant, language, measure + RAW)
    axes.axhline(0, color="black", lw=0.6)
    axes.set_ylabel(LABELS[measure], fontsize=9)
    return drawn


def _write_box(axes: Axes, lines: Sequence[str]) -> None:
    """Write lines into the upper right corner, above the curves."""
    figures.leave_room(axes, above=0.12 + 0.07 * len(lines))
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "top"}
    axes.text(0.98, 0.96, "\n".join(lines), fontsize=8, bbox=BOX, **place)


def plot(results: Results, variant: str, language: str) -> tuple[Figure, list[DrawnPoint]]:
    """Return the annotated figure, and the numbers drawn in it."""
    info, measures = results.info, panels_of(results)
    figure = figures.blank((8, 7.2))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    drawn = []
    for axes, measure in zip((upper, lower), measures, strict=True):
        drawn += draw_panel(axes, results, (variant, language), measure)
    curve = results.curve(measures[0], variant, language)
    assert curve is not None
    lines = describe_curve(results, curve)
    _write_box(upper, [*lines, *figures.audit_text(results, language).splitlines()])
    shape = results.shapes.get((variant, language))
    verdict = "shape not tested"
    if shape is not None:
        verdict = VERDICTS.get(shape.label, shape.label)
        if box := describe_shape(shape, info.last_layer):
            _write_box(lower, box)
        if shape.peak_interval is not None:
            lower.axvspan(*shape.peak_interval, color=PEAK_COLOUR, zorder=0, lw=0)
    elif not info.concepts:
        verdict += " (no probes)"
    pair = f"{figures.language_name(info.pivot)} - {figures.language_name(language)}"
    figures.legend_below(figure, [upper], columns=4)
    lower.set_xlabel(figures.LAYER_LABEL, fontsize=8)
    what = "standardised vectors; grey span: 95% of the peak layer over resampled concepts"
    caption = figures.caption(info, what if info.concepts else "standardised vectors", 112)
    figure.suptitle(f"{variant}, {pair}: {verdict}\n{caption}", fontsize=9)
    return figure, drawn


def run(
    run_dir: Path, variants: Sequence[str] | None, languages: Sequence[str] | None
) -> Path | None:
    """Draw and save the figure; returns its path, or None if the run has no cell to draw."""
    paths = RunPaths(run_dir)
    results = load_results(paths.curves)
    info = results.info
    cell = strongest_cell(
        results,
        command_line.choose("variant", variants or [figures.reference(info)], info.variants),
        command_line.choose("language", languages, info.others),
    )
    if cell is None:
        if variants or languages:
            raise StudyError(f"{paths.curves}: {_nothing(results)}")
        print(f"{paths.curves}: {_nothing(results)}")
        return None
    figure, drawn = plot(results, *cell)
    return figures.save(
        figure, DrawnPoint, drawn, paths.assets / "annotated_rise_peak_collapse.png"
    )


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser(
        "viz/annotated_curve.py", "Draw one annotated curve.", "variants", "languages"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and draw; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        if path := run(args.run_dir, args.variants, args.languages):
            print(path)

    return command_line.run_stage("viz/annotated_curve.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
