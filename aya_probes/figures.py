"""Colours, labels and saving of figures; every figure has its numbers in a CSV beside it."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aya_probes import files, records, suites
from aya_probes.results.alignment import Results
from aya_probes.results.curves import Curve
from aya_probes.results.run_info import RunInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette for colour-blind readers. A variant has the same colour in all figures.
PALETTE = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9")
UNTRAINED = "#8a8a8a"
LAYER_LABEL = "layer (0 = embeddings, i = output of block i)"


@dataclass(frozen=True)
class DrawnPoint:
    """A row of the CSV beside a figure of curves."""

    variant: str
    """Name of the variant."""
    language: str
    """Language compared with the pivot."""
    measure: str
    """Name of the measure."""
    capture: str
    """residual (the residual stream at `layer`) or final_norm."""
    layer: int | None
    """Layer; empty for final_norm."""
    mean: float | None
    """Estimate."""
    lower: float | None
    """Lower end of the 95% interval."""
    upper: float | None
    """Upper end of the 95% interval."""


def curve_points(curve: Curve, variant: str, language: str, measure: str) -> Iterator[DrawnPoint]:
    """Yield a curve as rows for the CSV beside a figure."""
    missing = [None] * len(curve.mean)
    columns = zip(curve.mean, curve.lower or missing, curve.upper or missing, strict=True)
    for layer, (mean, lower, upper) in enumerate(columns):
        yield DrawnPoint(variant, language, measure, "residual", layer, mean, lower, upper)
    low, high = curve.final_norm_interval or (None, None)
    yield DrawnPoint(variant, language, measure, "final_norm", None, curve.final_norm, low, high)


def colours(info: RunInfo) -> dict[str, str]:
    """Return the colour of each variant; untrained variants are grey."""
    trained = [v for v in info.variants if info.roles[v] != "untrained"]
    table = {v: PALETTE[n % len(PALETTE)] for n, v in enumerate(trained)}
    return {v: table.get(v, UNTRAINED) for v in info.variants}


def language_name(code: str) -> str:
    """Return a language's English name."""
    return suites.load_languages()[code].name


def caption(info: RunInfo, what: str, width: int = 200, marks: str = "bands") -> str:
    """Return a figure's caption, wrapped to ``width``; ``marks`` says what shows the intervals."""
    text = (
        f"{info.label or info.suite}; {info.n} concepts x {info.wordings} wordings; {what}; "
        f"{marks}: 95% bootstrap over concepts"
    )
    return "\n".join(textwrap.wrap(text, width))


def draw_curve(axes: Axes, curve: Curve, label: str, colour: str, dashed: bool) -> None:
    """Draw a curve with its 95% band, and the value at final_norm as a dot at the right."""
    layers = np.arange(len(curve.mean))
    axes.plot(curve.array(), color=colour, label=label, ls="--" if dashed else "-", lw=1.8)
    lower, upper = curve.array("lower"), curve.array("upper")
    axes.fill_between(layers, lower, upper, color=colour, alpha=0.10, lw=0)
    axes.locator_params(axis="x", integer=True)
    if curve.final_norm is not None:
        axes.plot(len(layers) + 0.8, curve.final_norm, "o", color=colour, ms=4)


def audit_text(results: Results, language: str, pooling: str = "span_mean") -> str:
    """Return the share of inputs and of tokens that a language has in common with the pivot."""
    first = results.info.variants[0]
    share = results.input_share(first, language, pooling).share
    shared = results.tokens[first, language].shared_tokens or 0.0
    return f"identical inputs {share:.0%}, shared tokens {shared:.0%}"


def mark_audit(axes: Axes, results: Results, language: str) -> None:
    """Write the audit of ``span_mean`` into a panel, and hatch the panel if it is untestable."""
    inputs = results.input_share(results.info.variants[0], language)
    colour = "#a00000" if inputs.untestable else "#555555"
    if inputs.untestable:
        mark_untestable(axes, inputs.share)
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "bottom"}
    axes.text(0.99, 0.01, audit_text(results, language), fontsize=7, color=colour, **place)


def mark_untestable(axes: Axes, share: float, fontsize: float = 7.5) -> None:
    """Hatch a panel, and write into it that a share of its inputs is identical."""
    axes.set_facecolor("#f4f4f4")
    axes.patch.set_hatch("//")
    axes.patch.set_edgecolor("#cccccc")
    axes.text(
        0.5,
        0.96,
        f"untestable: {share:.0%} of the concepts\nhave identical inputs",
        transform=axes.transAxes,
        ha="center",
        va="top",
        fontsize=fontsize,
        color="#a00000",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )


def save(figure: Figure, kind: type, rows: Sequence[object], path: Path) -> Path:
    """Write a reproducible PNG, and the records that it shows as CSV beside it."""
    from aya_probes import fonts  # imports matplotlib, which the page does without

    buffer = io.BytesIO()
    with fonts.drawable(figure):
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    with files.atomic_write(path) as handle:
        handle.write(buffer.getvalue())
    records.save_table(path.with_suffix(".csv"), kind, rows)
    return path
