"""Draw one variant's alignment curve in one language with its peak, rise, decline and shape label.

Default: the cell with the largest peak among the testable cells of trained variants, and the
figure says so. The label is the one that was tested on held-out halves of the concepts; the title
claims no more than it.

Reads:  results/alignment_curves.json
Writes: assets/annotated_rise_peak_collapse.png and .csv

    uv run viz/annotated_curve.py
    uv run viz/annotated_curve.py --variants fire --languages hi
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import artifacts
import study
from study import RunPaths, StudyError, UsageError
from viz import style
from viz.style import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLAIMS = {
    "RISE_PEAK_COLLAPSE": "rise and decline both hold in both halves of the concepts",
    "MONOTONE_RISE": "not rise-peak-collapse: it rises, no decline is shown",
    "MONOTONE_FALL": "not rise-peak-collapse: it declines, no rise is shown",
    "FLAT": "not rise-peak-collapse: neither rise nor decline is shown",
    "UNRESOLVED": "rise-peak-collapse is not established: no shape holds in both halves",
    "UNTESTABLE": "rise-peak-collapse cannot be tested: identical inputs",
    "NOT TESTED": "rise-peak-collapse was not tested: too few concepts",
}


@dataclass(frozen=True)
class Config:
    paths: RunPaths
    variants: tuple[str, ...] | None
    languages: tuple[str, ...] | None


@dataclass(frozen=True)
class Reading:
    """The numbers that the figure states about one curve."""

    label: str
    peak: int
    value: float
    rise: float
    retained: float
    norm_step: float


def pick_cell(
    curves: dict[tuple[str, str], Curve], data: dict[str, Any], source: Path, *, chosen: bool
) -> tuple[Curve, int]:
    """Return the curve with the largest peak and how many cells it was picked from.

    ``chosen`` (variant and language both named) also allows untestable and untrained cells.
    """
    usable = [curve for curve in curves.values() if curve.peak is not None]
    if not chosen:
        testable = [curve for curve in usable if not curve.untestable]
        trained = [c for c in testable if style.role(data, c.variant) != "untrained"]
        usable = trained or testable
    if not usable:
        raise StudyError(
            f"{source}: measures.span_mean.concept: no testable cell to draw (all identical "
            "inputs or undefined); name one with --variants NAME --languages CODE"
        )
    return max(usable, key=lambda c: float(c.mean[c.peak or 0])), len(usable)


def read_shape(curve: Curve, data: dict[str, Any]) -> Reading:
    """Return a curve's label and numbers; what the results lack is taken from the curve."""
    entry = data["shape"].get(curve.variant, {}).get(curve.language, {})
    label = str(entry.get("label") or "NOT TESTED")
    if curve.untestable:
        label = "UNTESTABLE"
    stored = entry.get("peak_row")
    peak = int(stored) if stored is not None else curve.peak or 0
    value, end = float(curve.mean[peak]), float(curve.mean[-1])
    return Reading(
        label,
        peak,
        value,
        value - float(curve.mean[0]),
        end / value if value > 0 else math.nan,
        curve.final_norm - end,
    )


def _interval(curve: Curve, row: int) -> str:
    if math.isnan(curve.lower[row]):
        return "no interval"
    return f"95% [{curve.lower[row]:.2f}, {curve.upper[row]:.2f}]"


def _notes(curve: Curve, baseline: Curve | None, reading: Reading) -> list[str]:
    """Return the paragraphs beside the curve, in the order of the letters drawn on it."""
    last = len(curve.mean) - 1
    peak = reading.peak
    kept = "undefined" if math.isnan(reading.retained) else f"{reading.retained:.0%} of the peak"
    notes = [
        f"peak: row {peak} of {last}\nA = {reading.value:.2f}, {_interval(curve, peak)}",
        f"a  rise, row 0 to {peak}: {reading.rise:+.2f}\n"
        f"A(0) = {curve.mean[0]:.2f}, {_interval(curve, 0)}",
        f"b  retained at row {last}: {kept}\n"
        f"A({last}) = {curve.mean[-1]:.2f}, {_interval(curve, last)}",
        f"c  norm step, row {last} to final norm: {reading.norm_step:+.2f}\n"
        "part of any drop seen after the norm",
    ]
    if baseline is not None:
        notes.append(
            f"baseline, random weights, row {peak}:\n"
            f"A = {baseline.mean[peak]:.2f}, {_interval(baseline, peak)}"
        )
    return [*notes, f"label: {reading.label}"]


def _draw_marks(axes: Axes, curve: Curve, reading: Reading) -> None:
    """Draw the arrows a (rise), b (decline) and c (norm step) and the peak."""
    last, apart = len(curve.mean) - 1, style.norm_position(len(curve.mean) - 1)
    start, end = float(curve.mean[0]), float(curve.mean[-1])
    peak, value = reading.peak, reading.value
    guide = {"color": "#555555", "linewidth": 0.8, "linestyle": ":"}
    axes.plot([0, peak], [start, start], **guide)
    axes.plot([peak, last], [value, value], **guide)
    axes.plot([last, apart], [end, end], **guide)
    axes.plot([peak], [value], marker="*", markersize=15, color="#E69F00", markeredgecolor="black")
    offset = 0.015 * (last + 1)
    for letter, x, low, high in (
        ("a", peak, start, value),
        ("b", last, end, value),
        ("c", apart, end, curve.final_norm),
    ):
        if math.isnan(low) or math.isnan(high) or low == high:
            continue
        arrow = {"arrowstyle": "->", "color": "#555555", "shrinkA": 0, "shrinkB": 3}
        towards = (low, high) if letter != "b" else (high, low)
        axes.annotate("", (x, towards[1]), (x, towards[0]), arrowprops=arrow)
        axes.text(x + offset, (low + high) / 2, letter, fontweight="bold", va="center", zorder=6)


def plot_curve(
    data: dict[str, Any], curve: Curve, baseline: Curve | None, reading: Reading, picked: str
) -> Figure:
    """Return the annotated figure."""
    figure = style.new_figure(10.5, 5.6)
    axes, side = figure.subplots(1, 2, width_ratios=[2.6, 1])
    styles = style.looks(data)
    axes.axhline(0, color="#999999", linewidth=0.8, zorder=1)
    for one in (baseline, curve):
        if one is not None:
            style.draw_curve(axes, one, styles[one.variant])
    _draw_marks(axes, curve, reading)
    if curve.untestable:
        style.hatch_axes(axes, style.UNTESTABLE)
    style.finish_row_axis(axes, len(curve.mean) - 1)
    axes.set_ylabel("concept alignment A (span_mean)")
    side.set_axis_off()
    side.text(
        0, 0.97, "\n\n".join(_notes(curve, baseline, reading)), transform=side.transAxes,
        va="top", fontsize=9, linespacing=1.4,
    )  # fmt: skip
    drawn = [curve.variant, *([baseline.variant] if baseline is not None else [])]
    name = f"{data['metadata']['suite']} {curve.variant}, {style.language_name(curve.language)}"
    claim = CLAIMS.get(reading.label, "rise-peak-collapse is not established")
    title = f"{name}: {reading.label}\n{claim}"
    style.add_legend(figure, style.variant_handles(data, drawn), title, len(drawn))
    style.add_caption(
        figure,
        style.caption(
            data,
            "A (concept, span_mean): centred cosine of one concept in two different sentences, "
            "English and the other language, minus that of mismatched concepts (the control is "
            "inside the measure); 0 = no alignment. Band: 95% bootstrap interval over concepts.",
            picked + " Sizes a, b, c are of all concepts; only the label was tested, on held-out "
            "halves of the concepts.",
            width=175,
        ),
    )
    return figure


def _only(flag: str, names: Sequence[str] | None) -> None:
    if names is not None and len(names) != 1:
        raise UsageError(f"--{flag}: this figure draws one cell: give one name, not {len(names)}")


def run(config: Config) -> tuple[Path, str]:
    """Draw and save the figure; returns its path and what it shows."""
    _only("variants", config.variants)
    _only("languages", config.languages)
    source = config.paths.curves
    data = artifacts.load_curves(source)
    variants = study.choose("variant", config.variants, data["metadata"]["variants"])
    languages = study.choose("language", config.languages, style.other_languages(data))
    curves = style.primary_curves(data, source, variants, languages)
    named = config.variants is not None and config.languages is not None
    curve, count = pick_cell(curves, data, source, chosen=named)
    untrained = [v for v in data["metadata"]["variants"] if style.role(data, v) == "untrained"]
    baseline = (
        style.read_curve(data, source, style.PRIMARY, untrained[0], curve.language)
        if untrained and untrained[0] != curve.variant
        else None
    )
    reading = read_shape(curve, data)
    picked = (
        "Cell named by the user."
        if named
        else f"Cell with the largest peak of {count} testable cells of trained variants: picked "
        "after looking, so its height flatters."
    )
    drawn = [curve, *([baseline] if baseline is not None else [])]
    with style.drawing():
        figure = plot_curve(data, curve, baseline, reading, picked)
        path = style.save(
            figure,
            config.paths.assets / "annotated_rise_peak_collapse.png",
            style.curve_table(data, drawn),
        )
    return path, f"{curve.variant}/{curve.language}: {reading.label}. {picked}"


def build_parser() -> argparse.ArgumentParser:
    """Return the figure's parser."""
    return study.common_parser(
        "annotated_curve.py",
        "Draw one annotated alignment curve (one name each with --variants and --languages).",
        "variants",
        "languages",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and draw; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        path, what = run(Config(RunPaths(args.run_dir), args.variants, args.languages))
        print(f"1 figure in {path}: {what}")

    return study.run_stage("annotated_curve.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
