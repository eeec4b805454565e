"""Several panels as one SVG file that needs nothing else: for download and for print."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from aya_probes.charts import svg
from aya_probes.charts.svg import label, number, tag

GAP, MARGIN, LINE = 16, 14, 16
_SIZE = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')


def join(panels: Sequence[str], title: str, lines: Sequence[str], columns: int = 3) -> str:
    """Return the panels in a grid below a title, with lines of text below them.

    ``panels`` are charts as ``svg.panel`` returns them. The result has its own style sheet and a
    white ground.
    """
    columns = max(1, min(columns, len(panels)))
    sizes = [tuple(map(float, _SIZE.search(panel).groups())) for panel in panels]  # type: ignore[union-attr]
    wide = MARGIN * 2 + columns * svg.WIDTH + (columns - 1) * GAP
    parts, y = [label(MARGIN, 24, title, "title")], 38.0
    for start in range(0, len(panels), columns):
        row = range(start, min(start + columns, len(panels)))
        for n in row:
            x = MARGIN + (n - start) * (svg.WIDTH + GAP)
            place = f'<svg x="{number(x)}" y="{number(y)}" width="{number(sizes[n][0])}" '
            parts.append(panels[n].replace("<svg ", f'{place}height="{number(sizes[n][1])}" ', 1))
        y += max(sizes[n][1] for n in row) + GAP
    for text in lines:
        for line in textwrap.wrap(text, int(wide / 6)):
            parts.append(label(MARGIN, y + 6, line, "faint"))
            y += LINE
    style = tag("style", svg.stylesheet().replace("<", ""))
    ground = tag("rect", width="100%", height="100%", fill="#ffffff")
    return tag(
        "svg",
        style + ground + "".join(parts),
        xmlns="http://www.w3.org/2000/svg",
        class_="chart chart-colours sheet",
        viewBox=f"0 0 {number(wide)} {number(y + MARGIN)}",
        width=number(wide),
        height=number(y + MARGIN),
        role="img",
        aria_label=title,
    )
