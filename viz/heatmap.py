"""Draw the commitment layer and the peak alignment of every variant and language.

Reads:  results/alignment_curves.json, results/commitment_matrix.csv
Writes: assets/concept_alignment_heatmap.png (+ .csv)

    uv run viz/heatmap.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aya_probes import command_line, files, results
from aya_probes import figures as style
from aya_probes.run_folder import RunPaths


def table(curves: dict[str, Any], commitment: Any) -> list[dict[str, Any]]:
    """Return one record per variant and language: commitment, status, peak row and value."""
    records = []
    whole = commitment[commitment["concept_id"] == "ALL"]
    for record in whole.to_dict("records"):
        entry = curves["measures"]["span_mean"]["concept"][record["variant"]][record["language"]]
        known = [(v, n) for n, v in enumerate(entry["mean"]) if v is not None]
        peak, row = max(known) if known else (float("nan"), None)
        bounds = {
            name: (entry[name] or [None] * (row + 1))[row] if row is not None else None
            for name in ("lower", "upper")
        }
        records.append(
            {
                "variant": record["variant"],
                "language": record["language"],
                "commitment_layer": record["commitment_layer"],
                "release_layer": record["release_layer"],
                "status": record["status"],
                "peak_row": row,
                "peak_alignment": peak,
                **bounds,
                "identical_input": record["identical_input"],
                "shared_tokens": record["shared_tokens"],
            }
        )
    return records


def plot(records: list[dict[str, Any]], metadata: dict[str, Any]) -> Any:
    """Return the figure: commitment layers left, peak alignment right."""
    import numpy as np
    from matplotlib.figure import Figure

    variants = metadata["variants"]
    languages = [code for code in metadata["languages"] if code != metadata["pivot"]]
    cells = {(r["variant"], r["language"]): r for r in records}
    figure = Figure(figsize=(13, 1.9 + 0.62 * len(variants)), layout="constrained")
    left, right = figure.subplots(1, 2)
    layers = np.full((len(variants), len(languages)), np.nan)
    peaks = layers.copy()
    for i, variant in enumerate(variants):
        for j, code in enumerate(languages):
            record = cells[variant, code]
            peaks[i, j] = record["peak_alignment"]
            layer = record["commitment_layer"]
            if record["status"] == "committed":
                layers[i, j] = float(layer)
                text = style.commitment_text(record)
                left.text(j, i, text, ha="center", va="center", color="white", fontsize=8)
            else:
                words = {"never": "never", "untestable": "untest-\nable"}
                left.text(
                    j,
                    i,
                    words.get(record["status"], record["status"]),
                    ha="center",
                    va="center",
                    fontsize=6.5,
                )
            high = peaks[i, j] > 0.5 * np.nanmax([r["peak_alignment"] for r in records])
            low, up = record["lower"], record["upper"]
            band = f"\n[{low:.2f}, {up:.2f}]" if low is not None and up is not None else ""
            right.text(
                j,
                i,
                f"{peaks[i, j]:.2f}{band}",
                ha="center",
                va="center",
                fontsize=6,
                color="white" if high else "black",
            )
    depth = len(metadata["rows"]) - 2
    left.imshow(layers, cmap="viridis_r", vmin=1, vmax=depth, aspect="auto")
    right.imshow(peaks, cmap="Blues", vmin=0, aspect="auto")
    for axes in (left, right):
        audited = [cells[variants[0], code] for code in languages]
        labels = [
            f"{code}\n{float(r['identical_input']):.0%}\n{float(r['shared_tokens']):.0%}"
            for code, r in zip(languages, audited, strict=True)
        ]
        axes.set_xticks(range(len(languages)), labels, fontsize=7)
        axes.set_yticks(range(len(variants)), variants)
    for (variant, code), record in cells.items():
        if record["status"] == "untestable":
            i, j = variants.index(variant), languages.index(code)
            for axes in (left, right):
                axes.fill_between(
                    [j - 0.5, j + 0.5],
                    i - 0.5,
                    i + 0.5,
                    facecolor="none",
                    hatch="///",
                    edgecolor="#999999",
                    lw=0,
                )
    left.set_title(
        f"commitment - release layer (1..{depth}; max-T p <= 0.05, half of the peak, 3 rows)",
        fontsize=9,
    )
    right.set_title("largest concept alignment over rows [95% interval at that row]", fontsize=9)
    figure.suptitle(
        style.caption(
            metadata,
            "concept alignment, span_mean; under each language: identical inputs and "
            "shared tokens; hatched: untestable",
        ).replace("bands", "intervals"),
        fontsize=8,
    )
    return figure


def run(run_dir: Path) -> Path:
    """Draw and save the figure; returns its path."""
    import pandas as pd

    paths = RunPaths(run_dir)
    curves = results.load_curves(paths.curves)
    commitment = files.load_csv(paths.commitment, results.COMMITMENT_COLUMNS, files.MAKE_CURVES)
    records = table(curves, commitment)
    figure = plot(records, curves["metadata"])
    return style.save(figure, pd.DataFrame(records), paths.assets / "concept_alignment_heatmap.png")


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser("viz/heatmap.py", "Draw commitment and peak alignment.")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and draw; returns the exit code."""
    args = build_parser().parse_args(argv)
    return command_line.run_stage("viz/heatmap.py", lambda: print(run(args.run_dir)))


if __name__ == "__main__":
    raise SystemExit(main())
