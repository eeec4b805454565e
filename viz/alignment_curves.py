"""Draw alignment and raw cosine over layers: three languages side by side, and single ones.

Reads:  results/alignment_curves.json
Writes: assets/tweet_three_panel.png, assets/alignment_curve_avg_<language>.png (+ .csv beside each)

    uv run viz/alignment_curves.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aya_probes import command_line, figures
from aya_probes.figures import DrawnPoint
from aya_probes.results.alignment import Results, load_results
from aya_probes.results.curves import CONCEPT, COSINE, MISMATCHED, Curve
from aya_probes.run_folder import RunPaths

PANELS = ("sw", "hi", "am")
SINGLES = ("hi", "am")
CONTROLS = {COSINE: "-", MISMATCHED: ":"}


def _curves(
    results: Results, language: str, measures: Sequence[str]
) -> Iterator[tuple[str, str, Curve]]:
    """Yield (variant, measure, curve) for every curve of a panel."""
    for variant in results.info.variants:
        for measure in measures:
            curve = results.curve(measure, variant, language)
            if curve is not None:
                yield variant, measure, curve


def _draw_alignment(axes: Axes, results: Results, language: str) -> None:
    info, colours = results.info, figures.colours(results.info)
    for variant, _, curve in _curves(results, language, [CONCEPT]):
        untrained = info.roles[variant] == "untrained"
        label = f"{variant} (random weights)" if untrained else variant
        figures.draw_curve(axes, curve, label, colours[variant], untrained)
    axes.axhline(0, color="black", lw=0.6)
    figures.mark_audit(axes, results, language)


def _draw_controls(axes: Axes, results: Results, language: str) -> None:
    """Draw the raw cosine of every variant, and its mismatched control."""
    colours = figures.colours(results.info)
    for variant, measure, curve in _curves(results, language, list(CONTROLS)):
        axes.plot(curve.array(), color=colours[variant], ls=CONTROLS[measure], lw=1.2)
    axes.plot([], [], color="black", ls="-", lw=1.2, label="same concept")
    axes.plot([], [], color="black", ls=":", lw=1.2, label="mismatched (control)")
    axes.set_ylim(top=1.02)
    axes.set_ylabel("raw cosine")


def points(results: Results, language: str) -> list[DrawnPoint]:
    """Return the numbers drawn in one language's panels."""
    return [
        point
        for variant, measure, curve in _curves(results, language, [CONCEPT, *CONTROLS])
        for point in figures.curve_points(curve, variant, language, measure)
    ]


def plot_panels(results: Results, languages: Sequence[str]) -> Figure:
    """Return the figure: one column per language, alignment above and raw cosine below."""
    count = len(languages)
    figure = Figure(figsize=(4.2 * count, 6.4), layout="constrained")
    axes = figure.subplots(2, count, squeeze=False, sharex=True, sharey="row", height_ratios=[2, 1])
    pivot = figures.language_name(results.info.pivot)
    for upper, lower, language in zip(axes[0], axes[1], languages, strict=True):
        _draw_alignment(upper, results, language)
        upper.set_title(f"{pivot} - {figures.language_name(language)}")
        _draw_controls(lower, results, language)
        lower.set_xlabel(figures.LAYER_LABEL, fontsize=8)
        lower.set_ylabel("raw cosine" if language == languages[0] else "")
    first = axes[0][0]
    first.set_ylabel("concept alignment A (0 = chance)")
    low, high = first.get_ylim()
    first.set_ylim(low, high + 0.35 * (high - low))  # room for the legend
    if first.get_legend_handles_labels()[0]:
        first.legend(fontsize=8, loc="upper left")
    axes[1][0].legend(fontsize=8, loc="lower left")
    what = "A: different wordings, concept tokens, centred; dot: after the final norm"
    caption = figures.caption(results.info, what, width=54 * count)
    title = f"Concept alignment over layers, and why raw cosine misleads\n{caption}"
    figure.suptitle(title, fontsize=9)
    return figure


def run(run_dir: Path, asked: Sequence[str] | None) -> list[Path]:
    """Draw and save all figures; returns their paths."""
    paths = RunPaths(run_dir)
    results = load_results(paths.curves)
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
        drawn = [point for code in languages for point in points(results, code)]
        figure = plot_panels(results, languages)
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
