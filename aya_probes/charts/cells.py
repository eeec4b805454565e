"""A panel of coloured cells: languages by layers, or languages by languages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aya_probes.charts import svg
from aya_probes.charts.svg import label, number, tag

TOP, BOTTOM = 30, 46
SEQUENTIAL = ("#f7fbff", "#c6dbef", "#6baed6", "#2171b5", "#08306b")
DIVERGING = ("#8c3a04", "#e08a3c", "#fbead2", "#f7f7f7", "#dcdcee", "#8478b4", "#3b1a6e")
"""Orange (less) over white to purple (more): ColorBrewer's PuOr, safe for colour blindness."""


@dataclass(frozen=True)
class Cell:
    """One cell."""

    value: float | None
    """None is drawn as a gap."""
    text: str
    """What hovering tells."""
    dot: bool = False
    """Whether a dot marks the cell: its test is passed."""
    hatched: bool = False
    """Whether the cell is untestable."""


@dataclass(frozen=True)
class CellPanel:
    """What one panel shows."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[Cell]]
    """By row, then by column."""
    what: str
    """What the columns are, below the panel."""


def limit(panels: Sequence[CellPanel]) -> float:
    """Return the largest absolute value of the panels, and at least 0.001."""
    every = (c.value for p in panels for row in p.cells for c in row if c.value is not None)
    return max([0.001, *map(abs, every)])


def colour(value: float, top: float, signed: bool) -> str:
    """Return the colour of a value on the scale 0..``top``, or −``top``..``top`` if signed."""
    steps = DIVERGING if signed else SEQUENTIAL
    share = (value / top + 1) / 2 if signed else value / top
    place = min(max(share, 0.0), 1.0) * (len(steps) - 1)
    first = min(int(place), len(steps) - 2)
    part = place - first
    pair = [[int(steps[n][i : i + 2], 16) for i in (1, 3, 5)] for n in (first, first + 1)]
    mixed = (round(a + part * (b - a)) for a, b in zip(*pair, strict=True))
    return "#" + "".join(f"{c:02x}" for c in mixed)


def draw(panel: CellPanel, top: float, signed: bool = False) -> str:
    """Return the panel as SVG, coloured up to ``top``."""
    left = 10 + 6.5 * max([2, *map(len, panel.rows)])
    wide = (svg.WIDTH - left - 6) / max(1, len(panel.columns))
    high = min(26.0, max(12.0, wide)) if len(panel.rows) <= 20 else max(8.0, min(14.0, wide))
    parts = []
    for n, (name, row) in enumerate(zip(panel.rows, panel.cells, strict=True)):
        y = TOP + n * high
        parts.append(label(left - 5, y + high / 2 + 4, name, "faint", "end"))
        for m, cell in enumerate(row):
            parts.append(_cell(cell, (left + m * wide, y, wide, high), top, signed))
    height = TOP + len(panel.rows) * high
    parts.append(_columns(panel, left, wide, height))
    parts.append(_key(left, height + 33, top, signed))
    words = f"{len(panel.rows)} rows, {panel.what}; colours to {top:.3g}"
    return svg.panel(height + BOTTOM, panel.title, words, "".join(parts))


def _cell(cell: Cell, box: tuple[float, float, float, float], top: float, signed: bool) -> str:
    x, y, wide, high = box
    fill = "none" if cell.value is None else colour(cell.value, top, signed)
    if cell.hatched:
        fill = "url(#hatch)"
    size = {"width": number(max(wide - 0.8, 0.8)), "height": number(high - 0.8)}
    title = tag("title", svg.escape(cell.text))
    found = tag("rect", title, x=number(x), y=number(y), fill=fill, **size)
    if cell.dot and cell.value is not None:
        dark = not signed and cell.value / top > 0.5
        centre = {"cx": number(x + wide / 2), "cy": number(y + high / 2), "r": 1.7}
        found += tag(
            "circle", fill="#ffffff" if dark else "#1c1c1c", pointer_events="none", **centre
        )
    return found


def _columns(panel: CellPanel, left: float, wide: float, height: float) -> str:
    last = len(panel.columns) - 1
    numbered = all(name.isdigit() for name in panel.columns)
    every = max(1, -(-14 // max(1, int(wide))))
    if numbered:
        shown = svg.layer_ticks(last, 9) if last else [0]
    else:
        shown = [n for n in range(last + 1) if n % every == 0]
    parts = [
        label(left + (n + 0.5) * wide, height + 12, panel.columns[n], "faint", "middle")
        for n in shown
    ]
    return "".join(parts) + label(svg.WIDTH - 6, height + 27, panel.what, "faint", "end")


def _key(left: float, y: float, top: float, signed: bool) -> str:
    steps = 24
    low = -top if signed else 0.0
    parts = []
    for n in range(steps):
        value = low + (top - low) * (n + 0.5) / steps
        fill = colour(value, top, signed)
        place = {"x": number(left + 40 + n * 4), "y": number(y), "width": 4.2, "height": 8}
        parts.append(tag("rect", fill=fill, **place))
    ends = (left + 36, low, "end"), (left + 44 + steps * 4, top, "start")
    return "".join(parts) + "".join(
        label(x, y + 8, f"{value:.2g}".replace("-", "−"), "faint", side) for x, value, side in ends
    )
