"""Colours, labels and saving of figures: one look, and the numbers beside every picture."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aya_probes import files, suites

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colour-blind safe palette; roles keep their colour over all figures.
PALETTE = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9")
UNTRAINED = "#8a8a8a"
ROW_LABEL = "row (0 = embeddings, i = output of block i)"


def colours(metadata: dict[str, Any]) -> dict[str, str]:
    """Return a colour per variant; untrained variants are grey."""
    trained = [v for v in metadata["variants"] if metadata["roles"][v] != "untrained"]
    table = {v: PALETTE[n % len(PALETTE)] for n, v in enumerate(trained)}
    return {v: table.get(v, UNTRAINED) for v in metadata["variants"]}


def language_name(code: str) -> str:
    """Return a language's English name."""
    return suites.load_languages()[code].name


def caption(metadata: dict[str, Any], what: str, width: int = 200) -> str:
    """Return, wrapped to ``width`` characters, the line under a figure."""
    text = (
        f"{metadata['label'] or metadata['suite']}; {metadata['n']} concepts x "
        f"{metadata['wordings']} wordings; {what}; bands: 95% bootstrap over concepts"
    )
    return "\n".join(textwrap.wrap(text, width))


def numbers(entry: dict[str, Any] | None, name: str) -> list[float]:
    """Return a curve of the JSON as floats, NaN for what is missing."""
    if entry is None or entry.get(name) is None:
        return []
    return [float("nan") if value is None else value for value in entry[name]]


def draw_curve(axes: Axes, entry: dict[str, Any], label: str, colour: str, dashed: bool) -> None:
    """Draw a curve with its band, and the final norm's value apart at the right."""
    from matplotlib.ticker import MaxNLocator

    mean = numbers(entry, "mean")
    axes.plot(mean, color=colour, label=label, ls="--" if dashed else "-", lw=1.8)
    lower, upper = numbers(entry, "lower"), numbers(entry, "upper")
    if lower and upper:
        axes.fill_between(range(len(mean)), lower, upper, color=colour, alpha=0.10, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if entry.get("final_norm") is not None:
        axes.plot(len(mean) + 0.8, entry["final_norm"], "o", color=colour, ms=4)


def commitment_text(record: dict[str, Any]) -> str:
    """Return ``commitment to release`` of a record of the matrix, or why there is none."""
    if record["status"] != "committed":
        return str(record["status"])
    release = str(record["release_layer"])
    return f"{record['commitment_layer']} to {'end' if release == '-1' else release}"


def audit_text(curves: dict[str, Any], language: str, pooling: str = "span_mean") -> str:
    """Return how much of a language's input is the pivot's: identical inputs, shared tokens."""
    first = curves["metadata"]["variants"][0]
    share = curves["audit"]["identical_input"][pooling][first][language]["share"]
    shared = curves["audit"]["shared_tokens"][first][language]
    return f"identical inputs {share:.0%}, shared tokens {shared:.0%}"


def mark_audit(axes: Axes, curves: dict[str, Any], language: str) -> None:
    """Write the audit into a panel of ``span_mean``, and hatch it where it is untestable."""
    first = curves["metadata"]["variants"][0]
    audit = curves["audit"]["identical_input"]["span_mean"][first][language]
    if audit["untestable"]:
        mark_untestable(axes, audit["share"])
    axes.text(
        0.99, 0.01, audit_text(curves, language), transform=axes.transAxes, ha="right",
        va="bottom", fontsize=7, color="#a00000" if audit["untestable"] else "#555555",
    )  # fmt: skip


def mark_untestable(axes: Axes, share: float) -> None:
    """Hatch a panel whose inputs are identical in both languages."""
    axes.set_facecolor("#f4f4f4")
    axes.patch.set_hatch("//")
    axes.patch.set_edgecolor("#cccccc")
    axes.text(
        0.5,
        0.96,
        f"untestable: {share:.0%} of the concepts have identical inputs",
        transform=axes.transAxes,
        ha="center",
        va="top",
        fontsize=7.5,
        color="#a00000",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )


def save(figure: Figure, table: pd.DataFrame, path: Path) -> Path:
    """Write the PNG (same data, same bytes) and, beside it, the numbers drawn as CSV."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    with files.atomic_write(path) as handle:
        handle.write(buffer.getvalue())
    files.save_csv(path.with_suffix(".csv"), table)
    return path


def curve_rows(entry: dict[str, Any], **keys: str) -> list[dict[str, Any]]:
    """Return a curve as long rows for the CSV beside a figure."""
    mean, lower, upper = (numbers(entry, name) for name in ("mean", "lower", "upper"))
    rows: list[dict[str, Any]] = [
        {
            **keys,
            "row": n,
            "mean": value,
            "lower": lower[n] if lower else None,
            "upper": upper[n] if upper else None,
        }
        for n, value in enumerate(mean)
    ]
    rows.append({**keys, "row": "final_norm", "mean": entry.get("final_norm")})
    return rows
