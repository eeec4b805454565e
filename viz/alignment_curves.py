"""Draw alignment by row, one line per variant, with bands, baseline and control.

Reads:  results/alignment_curves.json
Writes: assets/tweet_three_panel.png, assets/alignment_curve_avg_<language>.png, a CSV beside each

    uv run viz/alignment_curves.py
    uv run viz/alignment_curves.py --languages fr,ta
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import artifacts
import study
from study import RunPaths
from viz import style
from viz.style import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

PANELS = ("sw", "hi", "am")
AVERAGES = ("hi", "am")
HOW_TO_READ = (
    "A (concept, span_mean): centred cosine of one concept in two different sentences, English and "
    "the other language, minus that of mismatched concepts; 0 = no alignment. "
    "Band: 95% bootstrap interval over concepts."
)
CONTROL_NOTE = (
    "Raw cosine (content_mean) is never read alone: mismatched concepts (dotted, hollow) are its "
    "control. Markers at the right: after the final norm, not a row."
)


@dataclass(frozen=True)
class Config:
    paths: RunPaths
    variants: tuple[str, ...] | None
    languages: tuple[str, ...] | None


def pick_languages(
    asked: Sequence[str] | None, default: Sequence[str], valid: Sequence[str]
) -> list[str]:
    """Return the languages to draw; a default one that the run lacks is left out with a note.

    Raises UsageError for one that was asked for and is not in the run.
    """
    if asked is not None:
        study.choose("language", asked, valid)
        return list(asked)
    present = [code for code in default if code in valid]
    left_out = [code for code in default if code not in valid]
    if left_out:
        print(f"note: not in this run, left out: {', '.join(left_out)}")
    return present


def draw_alignment(
    axes: Axes, data: dict[str, Any], curves: Sequence[Curve], variants: Sequence[str]
) -> None:
    """Draw concept alignment of one language, a line per variant, baseline first."""
    styles = style.looks(data)
    order = sorted(curves, key=lambda c: style.role(data, c.variant) != "untrained")
    axes.axhline(0, color="#999999", linewidth=0.8, zorder=1)
    for curve in order:
        shift = _shift(curve, variants)
        style.draw_curve(axes, curve, styles[curve.variant], shift=shift)
    _mark_untestable(axes, curves)
    _mark_missing(axes, curves)


def draw_control(
    axes: Axes,
    data: dict[str, Any],
    matched: Sequence[Curve],
    mismatched: Sequence[Curve],
    variants: Sequence[str],
) -> None:
    """Draw raw cosine of matched and mismatched concepts of one language."""
    styles = style.looks(data)
    for curve in matched:
        style.draw_curve(axes, curve, styles[curve.variant], shift=_shift(curve, variants))
    for curve in mismatched:
        style.draw_curve(
            axes, curve, styles[curve.variant], shift=_shift(curve, variants), linestyle=":"
        )
    _mark_untestable(axes, [*matched, *mismatched])
    _mark_missing(axes, matched)


def _shift(curve: Curve, variants: Sequence[str]) -> float:
    """Return how far aside a variant's final-norm marker stands, so that none hides another."""
    middle = (len(variants) - 1) / 2
    return (variants.index(curve.variant) - middle) * 0.012 * len(curve.mean)


def _mark_untestable(axes: Axes, curves: Sequence[Curve]) -> None:
    names = sorted({curve.variant for curve in curves if curve.untestable})
    if names:
        everything = len(names) == len({curve.variant for curve in curves})
        style.hatch_axes(axes, style.UNTESTABLE + ("" if everything else f"\n({', '.join(names)})"))


def _mark_missing(axes: Axes, curves: Sequence[Curve]) -> None:
    if not curves:
        axes.text(0.5, 0.5, "not in the results", transform=axes.transAxes, ha="center")


def _control_handles() -> list[Line2D]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color="#444444", linestyle="-", label="raw cosine: same concept"),
        Line2D([], [], color="#444444", linestyle=":", label="raw cosine: mismatched (control)"),
    ]


def read_panels(
    data: dict[str, Any], source: Path, variants: Sequence[str], languages: Sequence[str]
) -> dict[tuple[str, str], list[Curve]]:
    """Return the curves to draw by (measure, language)."""
    style.primary_curves(data, source, variants, languages)
    return {
        (key[1], code): [
            curve
            for variant in variants
            if (curve := style.read_curve(data, source, key, variant, code)) is not None
        ]
        for key in (style.PRIMARY, style.RAW, style.CONTROL)
        for code in languages
    }


def plot_panels(
    data: dict[str, Any],
    panels: dict[tuple[str, str], list[Curve]],
    variants: Sequence[str],
    languages: Sequence[str],
) -> Figure:
    """Return the figure: a column per language, alignment above, the raw-cosine control below."""
    width = max(7.6, 4.0 * len(languages))
    figure = style.new_figure(width, 6.6)
    grid = figure.subplots(
        2, len(languages), squeeze=False, sharey="row", height_ratios=[2.4, 1], sharex=True
    )
    last = len(data["metadata"]["rows"]) - 2
    for column, code in enumerate(languages):
        top, bottom = grid[0, column], grid[1, column]
        draw_alignment(top, data, panels["concept", code], variants)
        draw_control(bottom, data, panels["cosine", code], panels["mismatched", code], variants)
        top.set_title(f"English - {style.language_name(code)}")
        for axes in (top, bottom):
            style.finish_row_axis(axes, last, label=axes is bottom)
    grid[0, 0].set_ylabel("concept alignment A\n(span_mean)")
    grid[1, 0].set_ylabel("raw cosine\n(content_mean)")
    handles = [*style.variant_handles(data, variants), *_control_handles()]
    style.add_legend(
        figure,
        handles,
        f"Concept alignment with English by row ({data['metadata']['suite']})",
        min(len(handles), max(2, int(width // 2.9))),
    )
    text = style.caption(data, HOW_TO_READ, CONTROL_NOTE, width=int(width * 17))
    style.add_caption(figure, text)
    return figure


def plot_average(
    data: dict[str, Any],
    panels: dict[tuple[str, str], list[Curve]],
    variants: Sequence[str],
    code: str,
) -> Figure:
    """Return one language's figure: concept alignment and raw cosine side by side."""
    figure = style.new_figure(10, 5.2)
    left, right = figure.subplots(1, 2)
    last = len(data["metadata"]["rows"]) - 2
    draw_alignment(left, data, panels["concept", code], variants)
    draw_control(right, data, panels["cosine", code], panels["mismatched", code], variants)
    left.set_title("concept alignment A (span_mean)")
    right.set_title("raw cosine (content_mean) and its control")
    left.set_ylabel("mean over concepts")
    for axes in (left, right):
        style.finish_row_axis(axes, last)
    handles = [*style.variant_handles(data, variants), *_control_handles()]
    title = f"English - {style.language_name(code)}, mean over concepts"
    style.add_legend(figure, handles, f"{title} ({data['metadata']['suite']})", 4)
    style.add_caption(figure, style.caption(data, HOW_TO_READ, CONTROL_NOTE, width=170))
    return figure


def run(config: Config) -> list[Path]:
    """Draw and save every figure; returns their paths."""
    source = config.paths.curves
    data = artifacts.load_curves(source)
    variants = study.choose("variant", config.variants, data["metadata"]["variants"])
    others = style.other_languages(data)
    languages = pick_languages(config.languages, PANELS, others)
    if not languages:
        languages = others[:3]
        print(f"note: drawn instead: {', '.join(languages)}")
    averages = config.languages or tuple(code for code in AVERAGES if code in others)
    panels = read_panels(data, source, variants, list(dict.fromkeys([*languages, *averages])))
    written = []
    with style.drawing():
        path = config.paths.assets / "tweet_three_panel.png"
        drawn = [c for (_, code), curves in panels.items() if code in languages for c in curves]
        figure = plot_panels(data, panels, variants, languages)
        written.append(style.save(figure, path, style.curve_table(data, drawn)))
        for code in averages:
            path = config.paths.assets / f"alignment_curve_avg_{code}.png"
            drawn = [c for (_, one), curves in panels.items() if one == code for c in curves]
            figure = plot_average(data, panels, variants, code)
            written.append(style.save(figure, path, style.curve_table(data, drawn)))
    return written


def build_parser() -> argparse.ArgumentParser:
    """Return the figure's parser."""
    return study.common_parser(
        "alignment_curves.py",
        "Draw alignment by row per variant and language (default panels: sw, hi, am).",
        "variants",
        "languages",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and draw; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        written = run(Config(RunPaths(args.run_dir), args.variants, args.languages))
        names = ", ".join(path.name for path in written)
        print(f"{len(written)} figures in {written[0].parent}: {names}")

    return study.run_stage("alignment_curves.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
