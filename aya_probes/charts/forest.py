"""A forest plot: estimates with their intervals, one under the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aya_probes.charts import svg
from aya_probes.charts.svg import Scale, label, number, tag
from aya_probes.charts.variants import marker

ROW, TOP, BOTTOM, LEFT, RIGHT = 20, 26, 34, 92, 118


@dataclass(frozen=True)
class Effect:
    """One row of a forest plot."""

    name: str
    estimate: float
    lower: float
    upper: float
    established: bool
    """Whether the corrected test is passed: the marker is filled."""
    strong: bool = False
    """Whether the row is marked, as a language that the variant was tuned for."""
    seeds: float | None = None
    """The same difference between two training seeds, shaded around 0; None without one."""
    text: str = ""
    """What hovering tells."""


@dataclass(frozen=True)
class ForestPanel:
    """What one panel shows."""

    title: str
    effects: Sequence[Effect]
    colour: str = "v0"


def value_range(panels: Sequence[ForestPanel]) -> tuple[float, float]:
    """Return the lowest and highest end of all intervals, with 0 in it."""
    ends = [e for p in panels for row in p.effects for e in (row.lower, row.upper)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    room = 0.04 * (high - low or 1.0)
    return low - room, high + room


def draw(panel: ForestPanel, between: tuple[float, float]) -> str:
    """Return the panel as SVG with values ``between`` two numbers."""
    x = Scale(*between, LEFT, svg.WIDTH - RIGHT)
    bottom = TOP + ROW * len(panel.effects)
    parts = []
    for value in svg.ticks(*between, 4):
        at = number(x(value))
        parts.append(tag("line", x1=at, x2=at, y1=TOP, y2=bottom, class_="grid"))
        parts.append(label(x(value), bottom + 14, svg.tick_text(value), "faint", "middle"))
    zero = number(x(0))
    parts.append(tag("line", x1=zero, x2=zero, y1=TOP, y2=bottom, class_="zero"))
    for n, effect in enumerate(panel.effects):
        parts.append(_row(effect, x, TOP + ROW * (n + 0.5), panel.colour))
    parts.append(label((x.start + x.end) / 2, bottom + 29, "difference", "faint", "middle"))
    found = sum(effect.established for effect in panel.effects)
    words = f"{found} of {len(panel.effects)} differences are established"
    return svg.panel(bottom + BOTTOM, panel.title, words, "".join(parts))


def _row(effect: Effect, x: Scale, y: float, colour: str) -> str:
    parts = []
    if effect.strong:
        box = {"x": 0, "y": number(y - ROW / 2), "width": svg.WIDTH, "height": ROW}
        parts.append(tag("rect", class_="stripe", **box))
    if effect.seeds:
        low, high = (max(x.low, -effect.seeds), min(x.high, effect.seeds))
        box = {"x": number(x(low)), "y": number(y - 7), "width": number(x(high) - x(low))}
        parts.append(tag("rect", class_="seed", height=14, **box))
    parts.append(label(4, y + 4, effect.name))
    ends = {"x1": number(x(effect.lower)), "x2": number(x(effect.upper))}
    parts.append(tag("line", y1=number(y), y2=number(y), class_="line", stroke_width=1.8, **ends))
    shape = "point" if effect.established else "hollow"
    parts.append(marker("circle", x(effect.estimate), y, shape, 3.8))
    star = "*" if effect.established else ""
    shown = f"{effect.estimate:+.3f} [{effect.lower:.3f}, {effect.upper:.3f}]{star}"
    numbers = tag(
        "text",
        svg.escape(shown.replace("-", "−")),
        x=svg.WIDTH - RIGHT + 8,
        y=number(y + 4),
        class_="end",
        style="font-size:9.5px",
    )
    title = tag("title", svg.escape(effect.text or shown))
    return tag("g", title + "".join(parts), class_=colour) + numbers
