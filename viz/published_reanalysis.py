"""Re-analyse the curves that the original study published, and draw what they can and cannot show.

The curves are the original study's on Tiny Aya, not a run of this project.

Reads:  data/published/tiny_aya_alignment_curves.json
Writes: results/published_reanalysis.json, assets/published_reanalysis.png (+ .csv)

    uv run viz/published_reanalysis.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aya_probes import command_line, figures, files, records
from aya_probes.published import (
    AFRICA_WEST_ASIA,
    MATCHED_LAYER,
    PUBLISHED,
    SOUTH_ASIA,
    UNTARGETED,
    Reanalysis,
    Start,
    analyse,
    load,
)
from aya_probes.run_folder import RunPaths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LANGUAGES = ("hi", "am", "fr", "sw")  # whose curves are drawn


@dataclass(frozen=True)
class DrawnValue:
    """A row of the CSV beside the figure."""

    panel: str
    """Language of the panel's curves, or difference."""
    variant: str
    """Variant of Tiny Aya."""
    language: str
    """Language."""
    layer: int
    """Layer; the last one of a curve is final_norm."""
    value: float
    """Mean over concepts of raw cosine, or of its difference to base."""
    lower: float | None
    """Lower end of the 95% interval."""
    upper: float | None
    """Upper end of the 95% interval."""


def _draw_curves(
    axes: Axes, code: str, cosines: dict[str, np.ndarray], start: Start
) -> list[DrawnValue]:
    """Draw the mean curves of one language, ``{variant: [concept, layer]}``; mark layer 0."""
    drawn = []
    for (variant, values), colour in zip(cosines.items(), figures.PALETTE, strict=False):
        mean = values.mean(0)
        axes.plot(mean[:-1], color=colour, lw=1.6, label=variant)
        axes.plot(len(mean) + 0.5, mean[-1], "o", color=colour, ms=4)
        drawn += [
            DrawnValue(code, variant, code, layer, float(value), None, None)
            for layer, value in enumerate(mean)
        ]
    axes.axvline(MATCHED_LAYER, color="black", lw=0.6, ls=":")
    what = "one value for all concepts" if start.constant else "varies over concepts"
    axes.plot(0, start.cosine, "x", color="#a00000", ms=9, mew=2)
    axes.annotate(
        f"layer 0: {start.cosine:.2f}, {what}",
        (0, start.cosine),
        (1.2, 0.03),
        textcoords=("data", "axes fraction"),
        color="#a00000",
        fontsize=8,
    )
    axes.set_title(f"English - {figures.language_name(code)}", fontsize=10)
    axes.set_ylim(-0.1, 1.05)
    return drawn


def _draw_differences(axes: Axes, found: Reanalysis) -> list[DrawnValue]:
    """Draw fire − base and earth − base for every language."""
    order = [*SOUTH_ASIA, *AFRICA_WEST_ASIA, *UNTARGETED]
    drawn = []
    for shift, variant, colour in (
        (-0.15, "fire", figures.PALETTE[1]),
        (0.15, "earth", figures.PALETTE[2]),
    ):
        entries = [found.difference[variant][code] for code in order]
        mean, lower, upper = (
            np.array([getattr(entry, name) for entry in entries])
            for name in ("estimate", "lower", "upper")
        )
        places = np.arange(len(order)) + shift
        error = [mean - lower, upper - mean]
        axes.errorbar(places, mean, yerr=error, fmt="o", color=colour, ms=4, label=variant)
        drawn += [
            DrawnValue("difference", variant, code, MATCHED_LAYER, *map(float, values))
            for code, *values in zip(order, mean, lower, upper, strict=True)
        ]
    axes.axvspan(len(order) - len(UNTARGETED) - 0.5, len(order) - 0.5, color="#eeeeee", zorder=0)
    axes.set_xticks(range(len(order)), order)
    axes.set_ylim(bottom=0)
    axes.set_title(f"variant - base at layer {MATCHED_LAYER}; grey: nobody's target", fontsize=10)
    axes.legend(fontsize=8)
    return drawn


def plot(
    languages: Sequence[str], cosines: dict[str, np.ndarray], found: Reanalysis
) -> tuple[Figure, list[DrawnValue]]:
    """Return the figure (curves of four languages, differences to base), and the numbers drawn."""
    figure = figures.blank((13, 7))
    grid = figure.subplots(2, 3)
    drawn: list[DrawnValue] = []
    for axes, code in zip(grid.flat[:4], LANGUAGES, strict=True):
        here = {name: values[:, languages.index(code)] for name, values in cosines.items()}
        drawn += _draw_curves(axes, code, here, found.layer_0["base"][code])
    grid[0][0].legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 0.08))
    grid[0][0].set_ylabel("raw cosine, last token")
    drawn += _draw_differences(grid[1][1], found)
    _words(grid[1][2], found)
    figure.suptitle(
        "Published curves, re-analysed: the original study's figures on Tiny Aya, "
        "not a run of this project\nraw cosine of the last token, no mismatched control; "
        f"dot: after the final norm; dotted line: layer {MATCHED_LAYER}",
        fontsize=9,
    )
    return figure, drawn


def _words(axes: Axes, found: Reanalysis) -> None:
    """Write the panel of text: what the published curves can and cannot show."""
    did = found.difference_in_differences["matched_layer"]
    hindi, amharic = found.claims["fire"]["hi"], found.claims["earth"]["am"]
    french = found.claims["fire"]["fr"]
    lines = [
        f"fire over base, Hindi, own peaks (layers {hindi.layers_compared[0]} and "
        f"{hindi.layers_compared[1]}): {hindi.own_peaks.estimate:+.0%}",
        f"  at layer {MATCHED_LAYER} of both: {hindi.at_matched_layer.estimate:+.0%}",
        f"earth over base, Amharic, layer {MATCHED_LAYER}: "
        f"{amharic.at_matched_layer.estimate:+.0%}",
        f"fire over base, French (nobody's target): {french.at_matched_layer.estimate:+.0%}",
        "",
        f"(fire - earth): South Asia minus Africa/W. Asia: {did.estimate:+.3f}",
        f"  [{did.lower:.3f}, {did.upper:.3f}] over concepts;",
        f"  p = {did.p_language:.3f} over languages (floor {did.p_language_floor:.3f})",
        "",
        "Not decidable from these files: alignment above",
        "mismatched sentences; concept apart from sentence;",
        "region apart from post-training (no global variant);",
        "architecture alone (no untrained variant).",
    ]
    axes.axis("off")
    axes.text(0, 1, "\n".join(lines), va="top", fontsize=9, transform=axes.transAxes)


def run(run_dir: Path, seed: int, curves: Path = PUBLISHED) -> list[Path]:
    """Analyse, draw and save; returns the paths written."""
    paths = RunPaths(run_dir)
    _, languages, cosines = load(curves)
    found = analyse(seed, curves)
    files.save_json(paths.published, records.to_json(found))
    figure, drawn = plot(languages, cosines, found)
    return [
        paths.published,
        figures.save(figure, DrawnValue, drawn, paths.assets / "published_reanalysis.png"),
    ]


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    parser = command_line.common_parser(
        "viz/published_reanalysis.py", "Re-analyse the original study's curves.", "seed"
    )
    parser.add_argument(
        "--curves", type=Path, default=PUBLISHED, metavar="FILE", help="default: in data/published"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and re-analyse; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        for path in run(args.run_dir, args.seed, args.curves):
            print(path)

    return command_line.run_stage("viz/published_reanalysis.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
