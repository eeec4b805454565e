"""Draw one curve, annotated with its peak, rise, decline and shape.

Reads:  results/alignment_curves.json
Writes: assets/annotated_rise_peak_collapse.png (+ .csv)

    uv run viz/annotated_curve.py --variants base --languages hi
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aya_probes import command_line, figures
from aya_probes.errors import StudyError
from aya_probes.figures import DrawnPoint
from aya_probes.results.alignment import Results, load_results
from aya_probes.results.curves import CONCEPT, Curve
from aya_probes.run_folder import RunPaths

BOX = {"facecolor": "white", "edgecolor": "#cccccc"}
VERDICTS = {
    "RISE_PEAK_COLLAPSE": "rise, peak and decline hold in both halves of the concepts",
    "UNTESTABLE": "untestable, the inputs are identical in both languages",
    "NOT TESTED": "shape not tested (too few concepts)",
    "UNRESOLVED": "shape UNRESOLVED: rise and decline do not both hold in both halves",
}


def strongest_cell(
    results: Results, variants: Sequence[str], languages: Sequence[str]
) -> tuple[str, str] | None:
    """Return the (variant, language) of the testable cell with the highest peak, or None."""
    heights = []
    for variant in variants:
        for code in languages:
            curve = results.curve(CONCEPT, variant, code)
            if curve is None or curve.peak is None or results.is_untestable(variant, code):
                continue
            heights.append((float(curve.array()[curve.peak]), variant, code))
    return max(heights)[1:] if heights else None


def _nothing(results: Results) -> str:
    """Return the reason why there is no cell to draw, and the fix."""
    if results.info.wordings == 1:
        return (
            "nothing to draw: concept alignment compares different wordings, and each concept has "
            "one; add a second wording to the probes file"
        )
    return "no testable cell to draw; choose others with --variants and --languages"


def describe(results: Results, curve: Curve, variant: str, language: str) -> list[str]:
    """Return the lines of the box: peak, rise, decline, final norm, audit."""
    mean, last = curve.array(), results.info.last_layer
    assert curve.peak is not None
    lower, upper = curve.array("lower")[curve.peak], curve.array("upper")[curve.peak]
    interval = "" if curve.lower is None else f" [{lower:.2f}, {upper:.2f}]"
    top = mean[curve.peak]
    lines = [
        f"peak: layer {curve.peak}, A = {top:.2f}{interval}",
        f"rise: A(peak) - A(0) = {top - mean[0]:+.2f}",
        f"decline: A(peak) - A({last}) = {top - mean[last]:+.2f}",
    ]
    shape = results.shapes.get((variant, language))
    if shape is not None and shape.norm_step is not None:
        lines.append(f"final norm: {shape.norm_step:+.2f} (dot)")
    return [*lines, figures.audit_text(results, language)]


def draw_curves(axes: Axes, results: Results, variant: str, language: str) -> list[DrawnPoint]:
    """Draw the curve and the untrained control; returns the numbers drawn."""
    colours = figures.colours(results.info)
    drawn: list[DrawnPoint] = []
    for name in dict.fromkeys([variant, *results.info.by_role("untrained")]):
        curve = results.curve(CONCEPT, name, language)
        if curve is None:
            continue
        control = results.info.roles[name] == "untrained"
        label = f"{name} (random weights)" if control else name
        figures.draw_curve(axes, curve, label, colours[name], control)
        drawn += figures.curve_points(curve, name, language, CONCEPT)
    axes.axhline(0, color="black", lw=0.6)
    return drawn


def plot(results: Results, variant: str, language: str) -> tuple[Figure, list[DrawnPoint]]:
    """Return the annotated figure, and the numbers drawn in it."""
    info, curve = results.info, results.curve(CONCEPT, variant, language)
    assert curve is not None
    assert curve.peak is not None
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    drawn = draw_curves(axes, results, variant, language)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.25 * (high - low))  # room for the box
    axes.axvline(curve.peak, color="black", lw=0.8, ls=":")
    inputs = results.input_share(variant, language)
    if inputs.untestable:
        figures.mark_untestable(axes, inputs.share)
    text = "\n".join(describe(results, curve, variant, language))
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "top"}
    axes.text(0.98, 0.97, text, fontsize=9, bbox=BOX, **place)
    shape = results.shapes.get((variant, language))
    label = shape.label if shape else "NOT TESTED"
    verdict = VERDICTS.get(label, f"shape {label}: this is not rise-peak-collapse")
    pair = f"{figures.language_name(info.pivot)} - {figures.language_name(language)}"
    axes.set_title(f"{variant}, {pair}: {verdict}", fontsize=10)
    axes.set_ylabel("concept alignment A (0 = chance)")
    axes.legend(fontsize=8, loc="upper left")
    caption = figures.caption(info, "A: span_mean, different wordings", 110)
    axes.set_xlabel(f"{figures.LAYER_LABEL}\n{caption}", fontsize=8)
    return figure, drawn


def run(
    run_dir: Path, variants: Sequence[str] | None, languages: Sequence[str] | None
) -> Path | None:
    """Draw and save the figure; returns its path, or None if the run has no cell to draw."""
    paths = RunPaths(run_dir)
    results = load_results(paths.curves)
    info = results.info
    trained = [v for v in info.variants if info.roles[v] != "untrained"]
    cell = strongest_cell(
        results,
        command_line.choose("variant", variants, info.variants) if variants else trained,
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
