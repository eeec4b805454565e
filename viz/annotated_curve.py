"""Draw one curve with its peak, rise, decline and shape label written on it.

Reads:  results/alignment_curves.json
Writes: assets/annotated_rise_peak_collapse.png (+ .csv)

    uv run viz/annotated_curve.py --variants base --languages hi
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aya_probes import command_line, results
from aya_probes import figures as style
from aya_probes.errors import StudyError
from aya_probes.run_folder import RunPaths


def strongest_cell(
    curves: dict[str, Any], variants: Sequence[str], languages: Sequence[str]
) -> tuple[str, str]:
    """Return the (variant, language) with the highest peak among testable, trained cells."""
    concept = curves["measures"]["span_mean"]["concept"]
    audit = curves["audit"]["identical_input"]["span_mean"]
    cells = [
        (max(v for v in concept[variant][code]["mean"] if v is not None), variant, code)
        for variant in variants
        for code in languages
        if not audit[variant][code]["untestable"]
        and any(v is not None for v in concept[variant][code]["mean"])
    ]
    if not cells:
        raise StudyError(
            "results/alignment_curves.json: no testable cell to draw; choose others "
            "with --variants and --languages"
        )
    return max(cells)[1:]


def plot(curves: dict[str, Any], variant: str, language: str) -> tuple[Any, list[dict[str, Any]]]:
    """Return the annotated figure and the numbers in it."""
    from matplotlib.figure import Figure

    metadata = curves["metadata"]
    entry = curves["measures"]["span_mean"]["concept"][variant][language]
    shape = curves["shape"].get(variant, {}).get(language, {"label": "NOT TESTED"})
    mean = style.numbers(entry, "mean")
    peak = max(range(len(mean)), key=lambda n: mean[n] if mean[n] == mean[n] else -1.0)
    last = len(mean) - 1
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    rows = style.curve_rows(entry, variant=variant, language=language, measure="concept")
    style.draw_curve(axes, entry, variant, style.colours(metadata)[variant], False)
    for baseline in (v for v in metadata["variants"] if metadata["roles"][v] == "untrained"):
        control = curves["measures"]["span_mean"]["concept"][baseline][language]
        style.draw_curve(axes, control, f"{baseline} (random weights)", style.UNTRAINED, True)
        rows += style.curve_rows(control, variant=baseline, language=language, measure="concept")
    axes.axhline(0, color="black", lw=0.6)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.25 * (high - low))  # room for the box
    axes.axvline(peak, color="black", lw=0.8, ls=":")
    lower, upper = style.numbers(entry, "lower"), style.numbers(entry, "upper")
    interval = f" [{lower[peak]:.2f}, {upper[peak]:.2f}]" if lower and upper else ""
    lines = [
        f"peak: row {peak}, A = {mean[peak]:.2f}{interval}",
        f"rise: A(peak) - A(0) = {mean[peak] - mean[0]:+.2f}",
        f"decline: A(peak) - A({last}) = {mean[peak] - mean[last]:+.2f}",
    ]
    if shape.get("norm_step") is not None:
        lines.append(f"final norm: {shape['norm_step']:+.2f} (dot)")
    lines.append(style.audit_text(curves, language))
    if curves["audit"]["identical_input"]["span_mean"][variant][language]["untestable"]:
        share = curves["audit"]["identical_input"]["span_mean"][variant][language]["share"]
        style.mark_untestable(axes, share)
    axes.text(
        0.98,
        0.97,
        "\n".join(lines),
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "#cccccc"},
    )
    label = shape["label"]
    verdict = {
        "RISE_PEAK_COLLAPSE": "rise, peak and decline hold in both halves of the concepts",
        "UNTESTABLE": "untestable, the inputs are identical in both languages",
        "NOT TESTED": "shape not tested (too few concepts)",
        "UNRESOLVED": "shape UNRESOLVED: rise and decline do not both hold in both halves",
    }.get(label, f"shape {label}: this is not rise-peak-collapse")
    axes.set_title(
        f"{variant}, {style.language_name(metadata['pivot'])} - "
        f"{style.language_name(language)}: {verdict}",
        fontsize=10,
    )
    axes.set_ylabel("concept alignment A (0 = chance)")
    axes.legend(fontsize=8, loc="upper left")
    axes.set_xlabel(
        style.ROW_LABEL + "\n" + style.caption(metadata, "A: span_mean, different wordings", 110),
        fontsize=8,
    )
    return figure, rows


def run(run_dir: Path, variants: Sequence[str] | None, languages: Sequence[str] | None) -> Path:
    """Draw and save the figure; returns its path."""
    import pandas as pd

    paths = RunPaths(run_dir)
    curves = results.load_curves(paths.curves)
    metadata = curves["metadata"]
    trained = [v for v in metadata["variants"] if metadata["roles"][v] != "untrained"]
    others = [c for c in metadata["languages"] if c != metadata["pivot"]]
    variant, language = strongest_cell(
        curves,
        command_line.choose("variant", variants, metadata["variants"]) if variants else trained,
        command_line.choose("language", languages, others),
    )
    figure, rows = plot(curves, variant, language)
    return style.save(figure, pd.DataFrame(rows), paths.assets / "annotated_rise_peak_collapse.png")


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser(
        "viz/annotated_curve.py", "Draw one curve, annotated.", "variants", "languages"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and draw; returns the exit code."""
    args = build_parser().parse_args(argv)
    return command_line.run_stage(
        "viz/annotated_curve.py", lambda: print(run(args.run_dir, args.variants, args.languages))
    )


if __name__ == "__main__":
    raise SystemExit(main())
