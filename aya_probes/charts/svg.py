"""SVG elements, axis ticks, and the frame that every panel has."""

from __future__ import annotations

import html
import math
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

WIDTH = 380  # nominal width of a panel; it is scaled to the column that it stands in
HATCH = (
    '<pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" class="hatch-ground"/>'
    '<line x1="0" y1="0" x2="0" y2="6" class="hatch-line"/></pattern>'
)


@cache
def stylesheet() -> str:
    """Return the CSS of all charts, with the colours of the light and of the dark theme."""
    return (Path(__file__).parent / "charts.css").read_text(encoding="utf-8")


def escape(text: object) -> str:
    """Return text for an element or a quoted attribute; no markup of it stays active."""
    return html.escape(str(text), quote=True)


def tag(name: str, content: str = "", /, **attributes: object) -> str:
    """Return an element; ``content`` is markup, attribute values are escaped.

    An underscore at the end of an attribute's name is dropped, and others become hyphens.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{content}</{name}>"


def number(value: float) -> str:
    """Return a coordinate with at most one decimal."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def label(x: float, y: float, words: object, class_: str = "", anchor: str = "start") -> str:
    """Return a line of text at a point."""
    return tag(
        "text",
        escape(words),
        x=number(x),
        y=number(y),
        class_=class_ or None,
        text_anchor=None if anchor == "start" else anchor,
    )


@dataclass(frozen=True)
class Scale:
    """A linear map from values to coordinates."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value."""
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about ``count`` round values from ``low`` to ``high``."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(n * step, 10) for n in range(first, last + 1)]


def layer_ticks(last: int, count: int = 6) -> list[int]:
    """Return layers for an axis 0..``last``: the first, the last, and round steps between."""
    step = next(s for s in (1, 2, 3, 5, 10, 20, 50, 100) if last / s <= count)
    inner = [n for n in range(0, last, step) if last - n > step / 2]
    return [*inner, last]


def tick_text(value: float) -> str:
    """Return a tick's label without trailing zeros."""
    return f"{value:.4f}".rstrip("0").rstrip(".").replace("-", "−") or "0"


def panel(height: float, title: str, description: str, content: str, width: float = WIDTH) -> str:
    """Return a chart: its ``title`` is drawn, and a screen reader reads title and description."""
    content = label(4, 15, title, "title") + content
    if "url(#hatch)" in content:  # a pattern must not lie in another, hidden chart
        name = f"hatch-{zlib.crc32(content.encode()):08x}"
        hatch = tag("defs", HATCH.format(name=name))
        content = hatch + content.replace("url(#hatch)", f"url(#{name})")
    return tag(
        "svg",
        content,
        xmlns="http://www.w3.org/2000/svg",
        class_="chart chart-colours",
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_label=f"{title}. {description}",
    )
