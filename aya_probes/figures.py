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
from aya_probes.results.curves import (
    CEILING,
    CONCEPT,
    PRIMARY,
    SENTENCE,
    Curve,
    home_pooling,
    values,
)
from aya_probes.results.run_info import RunInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette for colour-blind readers. A variant has the same colour in all figures.
PALETTE = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9")
UNTRAINED = "#8a8a8a"
CEILING_COLOUR, WARNING = "#f8f0d8", "#a00000"
LAYER_LABEL = "layer (0 = embeddings, i = output of block i)"
PAIR_CEILING = "pair_ceiling"
"""Name in the CSV files of the square root of the product of two languages' ceilings."""


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


# --- variants -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """How the curves of a variant are drawn."""

    colour: str
    label: str
    dash: str
    """A line style of matplotlib."""
    width: float
    alpha: float
    repeats: bool
    """Whether the variant trains another one again: its curves are thin, without bands."""


def colours(info: RunInfo) -> dict[str, str]:
    """Return the colour of each variant.

    Untrained variants are grey. A variant that repeats another one of the run has its colour.
    """
    own = [
        v
        for v in info.variants
        if info.roles[v] != "untrained" and info.repeats.get(v) not in info.variants
    ]
    table = {v: PALETTE[n % len(PALETTE)] for n, v in enumerate(own)}
    return {v: table.get(info.repeats.get(v, v), table.get(v, UNTRAINED)) for v in info.variants}


def styles(info: RunInfo) -> dict[str, Style]:
    """Return the style of each variant."""
    found = {}
    for name, colour in colours(info).items():
        role = info.roles[name]
        if role == "untrained":
            found[name] = Style(colour, f"{name} (random weights)", "--", 1.6, 1, False)
        elif name in info.repeats:
            dash = ":" if role == "dose" else "-"
            found[name] = Style(colour, f"{name} ({role})", dash, 0.8, 0.55, True)
        else:
            found[name] = Style(colour, name, "-", 1.8, 1, False)
    return found


def reference(info: RunInfo) -> str:
    """Return the base variant, or the first one if the run has none."""
    return info.first("base") or info.variants[0]


# --- text ---------------------------------------------------------------------------------------


def language_name(code: str) -> str:
    """Return a language's English name."""
    return suites.load_languages()[code].name


def size_text(info: RunInfo) -> str:
    """Return the number of concepts and wordings, or of corpus items in a run without concepts."""
    if info.concepts:
        return f"{info.n} concepts x {info.wordings} wordings"
    corpus = info.parallel_corpus
    return f"{corpus['items']} items of {corpus['corpus']}, no probes"


def caption(info: RunInfo, what: str, width: int = 200, marks: str = "bands") -> str:
    """Return a figure's caption, wrapped to ``width``; ``marks`` says what shows the intervals."""
    over = "bootstrap over concepts" if info.concepts else "intervals over documents of the corpus"
    text = f"{info.label or info.suite}; {size_text(info)}; {what}; {marks}: 95% {over}"
    return "\n".join(textwrap.wrap(text, width))


def audit_text(
    results: Results, language: str, pooling: str = "span_mean", measure: str = CONCEPT
) -> str:
    """Return what a language has in common with the pivot beside meaning.

    For the probes it is the share of inputs and of tokens, and the cues that would alone be called
    alignment; for the parallel corpus, the share of items with the same text.
    """
    info = results.info
    if not info.concepts or measure.startswith("parallel"):
        same = info.parallel_corpus.get("identical_to_pivot", {}).get(language, 0.0)
        return f"items with the same text as in {info.pivot}: {same:.0%}"
    share = results.input_share(info.variants[0], language, pooling).share
    shared = results.tokens[info.variants[0], language].shared_tokens or 0.0
    tested = CONCEPT if home_pooling(measure) == PRIMARY[CONCEPT] else SENTENCE
    passing = results.passing_cues(tested, language)
    cues = f"\ncues that pass: {', '.join(passing)}" if passing else ""
    return f"identical inputs {share:.0%}, shared tokens {shared:.0%}{cues}"


# --- drawing ------------------------------------------------------------------------------------


def blank(size: tuple[float, float]) -> Figure:
    """Return an empty figure of ``size``, width and height in inches."""
    from matplotlib.figure import Figure  # seconds, which --help and the page do without

    return Figure(figsize=size, layout="constrained")


def draw_curve(axes: Axes, curve: Curve, style: Style) -> None:
    """Draw a curve with its 95% band, and the value at final_norm as a dot at the right."""
    layers = np.arange(len(curve.mean))
    line: dict[str, Any] = {"ls": style.dash, "lw": style.width, "alpha": style.alpha}
    line |= {"color": style.colour, "zorder": 1 if style.repeats else 2}
    axes.plot(curve.array(), label=style.label, **line)
    axes.locator_params(axis="x", integer=True)
    if style.repeats:
        return
    lower, upper = curve.array("lower"), curve.array("upper")
    axes.fill_between(layers, lower, upper, color=style.colour, alpha=0.10, lw=0)
    if curve.final_norm is not None:
        axes.plot(len(layers) + 0.8, curve.final_norm, "o", color=style.colour, ms=4)


def pair_ceiling(results: Results, variant: str, language: str) -> Curve | None:
    """Return the square root of the product of the language's and the pivot's noise ceilings.

    It is the alignment that they would reach if they represented concepts in the same way. None
    without ceilings, and undefined where one of them is not above 0.
    """
    both = [results.curve(CEILING, variant, code) for code in (results.info.pivot, language)]
    if both[0] is None or both[1] is None:
        return None
    own, other = both[0].array(), both[1].array()
    known = (own > 0) & (other > 0)
    return Curve(values(np.where(known, np.sqrt(np.where(known, own * other, 1)), np.nan)), None)


def shade_ceiling(axes: Axes, results: Results, variant: str, language: str) -> list[DrawnPoint]:
    """Shade the range up to ``pair_ceiling``; returns the numbers drawn."""
    curve = pair_ceiling(results, variant, language)
    if curve is None:
        return []
    top = np.nan_to_num(curve.array())
    label = f"up to the noise ceiling ({variant})"
    axes.fill_between(np.arange(len(top)), 0, top, color=CEILING_COLOUR, lw=0, zorder=0)
    axes.fill_between([], [], [], color=CEILING_COLOUR, lw=0, label=label)
    return list(curve_points(curve, variant, language, PAIR_CEILING))


def mark_audit(axes: Axes, results: Results, language: str) -> None:
    """Write ``audit_text`` into a panel, and hatch the panel if the cell is untestable."""
    colour = "#555555"
    if results.info.concepts:
        inputs = results.input_share(results.info.variants[0], language)
        if inputs.untestable:
            colour = WARNING
            mark_untestable(axes, inputs.share)
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "bottom"}
    axes.text(0.99, 0.01, audit_text(results, language), fontsize=7, color=colour, **place)


def leave_room(axes: Axes, *, below: float = 0, above: float = 0) -> None:
    """Extend the vertical axis by shares of its height, as room for text."""
    low, high = axes.get_ylim()
    axes.set_ylim(low - below * (high - low), high + above * (high - low))


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
        color=WARNING,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )


def legend_below(figure: Figure, axes: Sequence[Axes], columns: int = 5) -> None:
    """Write one legend of all ``axes`` below the panels, each label once."""
    entries: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        place: dict[str, Any] = {"loc": "outside lower center", "ncols": columns}
        figure.legend(list(entries.values()), list(entries), fontsize=8, frameon=False, **place)


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
