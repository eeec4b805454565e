"""Draw alignment over rows: three languages side by side, and single languages with controls.

Reads:  results/alignment_curves.json
Writes: assets/tweet_three_panel.png, assets/alignment_curve_avg_<language>.png (+ .csv beside each)

    uv run viz/alignment_curves.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aya_probes import command_line, results
from aya_probes import figures as style
from aya_probes.run_folder import RunPaths

PANELS = ("sw", "hi", "am")
SINGLES = ("hi", "am")


def concept_entry(curves: dict[str, Any], variant: str, language: str) -> dict[str, Any]:
    """Return the primary curve: ``concept`` on the concept's tokens."""
    return dict(curves["measures"]["span_mean"]["concept"][variant][language])


def _controls(axes: Any, curves: dict[str, Any], language: str, rows: list[dict[str, Any]]) -> None:
    """Draw raw cosine and its mismatched control of every variant into one panel."""
    metadata = curves["metadata"]
    colours = style.colours(metadata)
    raw = curves["measures"]["content_mean"]
    for variant in metadata["variants"]:
        for measure, line in (("cosine", "-"), ("mismatched", ":")):
            entry = raw[measure][variant][language]
            axes.plot(style.numbers(entry, "mean"), color=colours[variant], ls=line, lw=1.2)
            rows += style.curve_rows(entry, variant=variant, language=language, measure=measure)
    axes.plot([], [], color="black", ls="-", lw=1.2, label="same concept")
    axes.plot([], [], color="black", ls=":", lw=1.2, label="mismatched (control)")
    axes.set_ylim(top=1.02)
    axes.set_ylabel("raw cosine")


def _alignment(
    axes: Any, curves: dict[str, Any], language: str, rows: list[dict[str, Any]]
) -> None:
    metadata = curves["metadata"]
    colours = style.colours(metadata)
    for variant in metadata["variants"]:
        entry = concept_entry(curves, variant, language)
        untrained = metadata["roles"][variant] == "untrained"
        label = f"{variant} (random weights)" if untrained else variant
        style.draw_curve(axes, entry, label, colours[variant], untrained)
        rows += style.curve_rows(entry, variant=variant, language=language, measure="concept")
    axes.axhline(0, color="black", lw=0.6)
    style.mark_audit(axes, curves, language)


def plot_panels(
    curves: dict[str, Any], languages: Sequence[str]
) -> tuple[Any, list[dict[str, Any]]]:
    """Return the figure of several languages and the numbers in it."""
    from matplotlib.figure import Figure

    metadata, rows = curves["metadata"], list[dict[str, Any]]()
    figure = Figure(figsize=(4.2 * len(languages), 6.4), layout="constrained")
    axes = figure.subplots(
        2, len(languages), squeeze=False, sharex=True, sharey="row", height_ratios=[2, 1]
    )
    for column, language in enumerate(languages):
        _alignment(axes[0][column], curves, language, rows)
        axes[0][column].set_title(
            f"{style.language_name(metadata['pivot'])} - {style.language_name(language)}"
        )
        _controls(axes[1][column], curves, language, rows)
        axes[1][column].set_xlabel(style.ROW_LABEL, fontsize=8)
        if column:
            axes[1][column].set_ylabel("")
    axes[0][0].set_ylabel("concept alignment A (0 = chance)")
    low, high = axes[0][0].get_ylim()
    axes[0][0].set_ylim(low, high + 0.35 * (high - low))  # room for the legend
    axes[0][0].legend(fontsize=8, loc="upper left")
    axes[1][0].legend(fontsize=8, loc="lower left")
    figure.suptitle(
        "Concept alignment over rows, and why raw cosine misleads\n"
        + style.caption(
            metadata,
            "A: different wordings, concept tokens, centred; dot: after the final norm",
            width=54 * len(languages),
        ),
        fontsize=9,
    )
    return figure, rows


def run(run_dir: Path, asked: Sequence[str] | None) -> list[Path]:
    """Draw and save all figures; returns their paths."""
    import pandas as pd

    paths = RunPaths(run_dir)
    curves = results.load_curves(paths.curves)
    metadata = curves["metadata"]
    valid = [code for code in metadata["languages"] if code != metadata["pivot"]]
    wanted = asked or [c for c in PANELS if c in valid] or valid[:3]
    chosen = [code for code in wanted if code in command_line.choose("language", asked, valid)]
    for code in PANELS:
        if asked is None and code not in valid:
            print(f"{code} is not in this run: left out")
    written = []
    for name, languages in [("tweet_three_panel", chosen)] + [
        (f"alignment_curve_avg_{code}", [code])
        for code in (chosen if asked else [c for c in SINGLES if c in valid] or valid[:1])
    ]:
        figure, rows = plot_panels(curves, languages)
        written.append(style.save(figure, pd.DataFrame(rows), paths.assets / f"{name}.png"))
    return written


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser(
        "viz/alignment_curves.py", "Draw alignment over rows.", "languages"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and draw; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        for path in run(args.run_dir, args.languages):
            print(path)

    return command_line.run_stage("viz/alignment_curves.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
