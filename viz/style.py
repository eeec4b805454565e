"""What every figure shares: reading curves, colours, labels, captions and saving.

Matplotlib is imported inside the functions, so that ``--help`` of a figure answers at once. The
palette is Okabe and Ito's (safe for colour-blind readers); markers differ as well.
"""

from __future__ import annotations

import contextlib
import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import artifacts
import study
from study import StudyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

ROW_LABEL = "row (0 = embeddings, i = output of block i)"
PRIMARY = ("span_mean", "concept")  # pooling, measure
RAW, CONTROL = ("content_mean", "cosine"), ("content_mean", "mismatched")
MEASURE_LABELS = {
    "concept": "concept alignment A",
    "cosine": "raw cosine",
    "mismatched": "raw cosine, mismatched concepts",
}
UNTESTABLE = "untestable: identical inputs"
HATCH = "///"
DPI = 160
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("s", "^", "D", "v", "P", "X")
_GREY = "#7A7A7A"
_RC = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs on every machine
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "hatch.linewidth": 0.5,
    "savefig.dpi": DPI,
}
CURVE_COLUMNS = (
    "variant", "role", "language", "pooling", "measure", "row", "mean", "lower", "upper",
    "untestable",
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """One cell's curve over rows 0..L (NaN where undefined or without interval)."""

    variant: str
    language: str
    pooling: str
    measure: str
    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    final_norm: float
    untestable: bool

    @property
    def peak(self) -> int | None:
        """Return the row of the largest mean, None where nothing is defined."""
        return int(np.nanargmax(self.mean)) if np.isfinite(self.mean).any() else None


@dataclass(frozen=True)
class Look:
    """How a variant is drawn."""

    colour: str
    linestyle: str
    marker: str


# --- reading ----------------------------------------------------------------------------------


def other_languages(data: dict[str, Any]) -> list[str]:
    """Return the run's languages without the pivot."""
    metadata = data["metadata"]
    return [code for code in metadata["languages"] if code != metadata["pivot"]]


def role(data: dict[str, Any], variant: str) -> str:
    """Return the part that a variant plays, '' where the results do not say."""
    return str(data["metadata"].get("roles", {}).get(variant, ""))


def is_untestable(data: dict[str, Any], pooling: str, variant: str, language: str) -> bool:
    """Return the audit's verdict on a cell: too many concepts with identical inputs."""
    cells = data["audit"].get("identical_input", {}).get(pooling, {})
    return bool(cells.get(variant, {}).get(language, {}).get("untestable", False))


def read_curve(
    data: dict[str, Any], source: Path, key: tuple[str, str], variant: str, language: str
) -> Curve | None:
    """Return the curve of ``key`` = (pooling, measure) in a cell, None where the run has none."""
    pooling, measure = key
    entry = data["measures"].get(pooling, {}).get(measure, {}).get(variant, {}).get(language)
    if entry is None:
        return None
    where = f"{source}: measures.{pooling}.{measure}.{variant}.{language}"
    length = len(data["metadata"]["rows"]) - 1  # the last row is final_norm

    def numbers(name: str) -> np.ndarray:
        values = entry.get(name)
        if values is None and name != "mean":
            return np.full(length, np.nan)
        try:
            array = np.array([np.nan if v is None else v for v in values], dtype=float)
        except (TypeError, ValueError):
            array = np.empty(0)
        if len(array) != length:
            raise StudyError(
                f"{where}: field {name!r} must hold {length} numbers, one per row; "
                f"make it anew with: {artifacts.MAKE_CURVES}"
            )
        return array

    final = entry.get("final_norm")
    return Curve(
        variant,
        language,
        pooling,
        measure,
        numbers("mean"),
        numbers("lower"),
        numbers("upper"),
        math.nan if final is None else float(final),
        is_untestable(data, pooling, variant, language),
    )


def primary_curves(
    data: dict[str, Any], source: Path, variants: Sequence[str], languages: Sequence[str]
) -> dict[tuple[str, str], Curve]:
    """Return the concept alignment of every (variant, language) that has it; at least one must."""
    found = {
        (variant, code): curve
        for variant in variants
        for code in languages
        if (curve := read_curve(data, source, PRIMARY, variant, code)) is not None
    }
    if not found:
        raise StudyError(
            f"{source}: measures.span_mean.concept: nothing to draw (it needs 2 wordings per "
            f"concept); make it anew with: {artifacts.MAKE_MANIFEST} && {artifacts.MAKE_CURVES}"
        )
    return found


def curve_table(data: dict[str, Any], curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Return the drawn numbers, one record per curve and row, final norm included."""
    records = []
    for curve in curves:
        columns = zip(
            data["metadata"]["rows"],
            [*curve.mean, curve.final_norm],
            [*curve.lower, math.nan],
            [*curve.upper, math.nan],
            strict=True,
        )
        for row, mean, lower, upper in columns:
            cell = (curve.variant, role(data, curve.variant), curve.language, curve.pooling,
                    curve.measure, row, mean, lower, upper, curve.untestable)  # fmt: skip
            records.append(dict(zip(CURVE_COLUMNS, cell, strict=True)))
    return records


# --- words ------------------------------------------------------------------------------------


def language_name(code: str) -> str:
    """Return a language's English name with its code."""
    known = study.load_languages()
    return f"{known[code].name} ({code})" if code in known else code


def variant_label(data: dict[str, Any], variant: str) -> str:
    """Return ``<suite> <variant>`` with its role: a mini variant never passes for another's."""
    part = role(data, variant)
    words = {"untrained": "random weights, baseline", "base": ""}.get(part, part)
    name = f"{data['metadata']['suite']} {variant}"
    return f"{name} ({words})" if words and words != variant else name


def caption(data: dict[str, Any], *sentences: str, width: int = 150) -> str:
    """Return the small print under a figure: what was run on what, and how to read it."""
    metadata = data["metadata"]
    n = metadata.get("n", len(metadata["concepts"]))
    wordings = metadata.get("wordings")
    size = f"n = {n} concepts" + (f" x {wordings} wordings" if wordings else "")
    first = f"{metadata.get('label') or metadata['suite']}; suite {metadata['suite']}; {size}."
    note = str(metadata.get("note", ""))
    text = [first, *sentences, *([note] if note else [])]
    return "\n".join(textwrap.fill(line, width) for line in text)


# --- drawing ----------------------------------------------------------------------------------


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Use this project's matplotlib settings only, whatever the user's own are."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure in inches, without a window and without pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def looks(data: dict[str, Any]) -> dict[str, Look]:
    """Return each variant's look: base black, untrained dashed grey, the rest by order."""
    found = {}
    number = 0
    for variant in data["metadata"]["variants"]:
        part = role(data, variant)
        if part == "untrained":
            found[variant] = Look(_GREY, "--", "x")
        elif part == "base":
            found[variant] = Look("#000000", "-", "o")
        else:
            found[variant] = Look(
                _COLOURS[number % len(_COLOURS)], "-", _MARKERS[number % len(_MARKERS)]
            )
            number += 1
    return found


def norm_position(last: int) -> float:
    """Return where on the row axis the detached ``final_norm`` marker stands."""
    return last + max(1.5, 0.12 * last)


def draw_curve(
    axes: Axes, curve: Curve, look: Look, *, shift: float = 0.0, linestyle: str | None = None
) -> None:
    """Draw a curve with its 95% band and the final norm as a detached marker."""
    last = len(curve.mean) - 1
    hollow = linestyle is not None
    face = "none" if hollow or curve.untestable else look.colour
    axes.plot(
        range(last + 1),
        curve.mean,
        color=look.colour,
        linestyle=linestyle or look.linestyle,
        linewidth=0.8 if curve.untestable else 1.6,
        marker=None if hollow else look.marker,
        markersize=4,
        markevery=max(1, last // 6),
        markerfacecolor=face,
    )
    if np.isfinite(curve.lower).any() and not curve.untestable:
        axes.fill_between(
            range(last + 1),
            curve.lower,
            curve.upper,
            color=look.colour,
            alpha=0.13,
            linewidth=0,
        )
    style = {"marker": look.marker, "markersize": 5, "color": look.colour, "linestyle": "none"}
    axes.plot([norm_position(last) + shift], [curve.final_norm], markerfacecolor=face, **style)


def finish_row_axis(axes: Axes, last: int, *, label: bool = True) -> None:
    """Set the ticks of the row axis and set the final norm apart."""
    step = max(1, math.ceil(last / 6))
    ticks = list(range(0, last + 1, step))
    apart = norm_position(last)
    axes.axvline((last + apart) / 2, color="#BBBBBB", linewidth=0.8, linestyle=":")
    axes.set_xticks([*ticks, apart], [*map(str, ticks), "final\nnorm"])
    axes.set_xlim(-0.03 * (last + 1), apart + 0.06 * (last + 1))
    if label:
        axes.set_xlabel(ROW_LABEL)


def hatch_axes(axes: Axes, text: str) -> None:
    """Mark a whole panel as not to be interpreted."""
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (0, 0),
            1,
            1,
            transform=axes.transAxes,
            fill=False,
            hatch=HATCH,
            edgecolor="#C8C8C8",
            linewidth=0,
            zorder=0,
        )  # fmt: skip
    )
    box = {"facecolor": "white", "edgecolor": "#888888", "linewidth": 0.6, "pad": 3}
    axes.text(0.5, 0.96, text, transform=axes.transAxes, ha="center", va="top", fontsize=7.5,
              bbox=box, zorder=6)  # fmt: skip


def variant_handles(data: dict[str, Any], variants: Sequence[str]) -> list[Line2D]:
    """Return one legend line per variant."""
    from matplotlib.lines import Line2D

    styles = looks(data)
    return [
        Line2D(
            [], [], color=styles[v].colour, linestyle=styles[v].linestyle, marker=styles[v].marker,
            markersize=4, label=variant_label(data, v),
        )
        for v in variants
    ]  # fmt: skip


def add_legend(figure: Figure, handles: Sequence[Line2D], title: str, columns: int) -> None:
    """Put the figure's title and its legend above all panels."""
    figure.legend(
        handles=list(handles), loc="outside upper left", ncols=columns, frameon=False, title=title,
        title_fontproperties={"size": 12, "weight": "bold"}, alignment="left", fontsize=8.5,
    )  # fmt: skip


def add_caption(figure: Figure, text: str) -> None:
    """Put the small print under all panels."""
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7, color="#333333", linespacing=1.35)


def save(figure: Figure, path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """Write the figure and, beside it, the numbers drawn as CSV; same input, same bytes."""
    import pandas as pd

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    with artifacts.atomic_write(path) as handle:
        handle.write(buffer.getvalue())
    artifacts.save_csv(path.with_suffix(".csv"), pd.DataFrame(list(records)))
    return path
