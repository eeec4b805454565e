"""A panel of curves by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aya_probes.charts import svg
from aya_probes.charts.svg import Scale, label, number, tag
from aya_probes.charts.variants import Look, marker
from aya_probes.results.curves import Curve, Values

HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 236, 38, 26, 40, 34


@dataclass(frozen=True)
class Line:
    """A curve in a panel."""

    label: str
    look: Look
    curve: Curve
    strong: bool = False
    """Whether the curve is drawn thick, with its 95% band and with markers."""
    dotted: bool = False
    """Whether the curve is a control, drawn as dots."""


@dataclass(frozen=True)
class Marks:
    """Layers to mark on the horizontal axis."""

    peak: int | None = None
    commitment: int | None = None
    release: int | None = None


@dataclass(frozen=True)
class LinePanel:
    """What one panel shows."""

    title: str
    axis: str
    """What the vertical axis measures."""
    lines: Sequence[Line]
    note: str = ""
    """A caution in the colour of warnings, above the curves."""
    untestable: bool = False
    """Whether the ground is hatched: the curves are no evidence."""
    chance: float | None = None
    ceiling: Values = ()
    """Upper end of the shaded range that starts at 0; empty for none."""
    marks: Marks = field(default_factory=Marks)


def value_range(panels: Sequence[LinePanel]) -> tuple[float, float]:
    """Return the lowest and highest value of the panels, with 0 in it, for a common axis."""
    found = [0.0]
    for panel in panels:
        for line in panel.lines:
            found += [v for v in line.curve.mean if v is not None]
            if line.curve.final_norm is not None:
                found.append(line.curve.final_norm)
            if line.strong:
                for bound in (line.curve.lower, line.curve.upper):
                    found += [v for v in bound or () if v is not None]
    low, high = min(found), max(found)
    room = 0.05 * (high - low or 1.0)
    return low - (room if low < 0 else 0), high + room


def draw(panel: LinePanel, last: int, between: tuple[float, float]) -> str:
    """Return the panel as SVG; layers 0..``last``, values ``between`` two numbers."""
    x = Scale(0, last, LEFT, svg.WIDTH - RIGHT)
    y = Scale(*between, HEIGHT - BOTTOM, TOP)
    parts = [_ground(panel, x, y), _axes(panel, x, y, last)]
    for line in sorted(panel.lines, key=lambda line: line.strong):
        parts.append(_line(line, x, y))
    parts += [_marks(panel.marks, x, y), _hover(panel, x, last)]
    if panel.note:
        parts.append(label(svg.WIDTH / 2, TOP + 12, panel.note, "warn", "middle"))
    return svg.panel(HEIGHT, panel.title, describe(panel), "".join(parts))


def describe(panel: LinePanel) -> str:
    """Return the largest value of each curve in words, which a screen reader reads."""
    words = [panel.note] if panel.note else []
    for line in panel.lines:
        peak = line.curve.peak
        if peak is not None:
            words.append(f"{line.label}: largest {value_text(line.curve, peak)} at layer {peak}")
    return "; ".join(words) or "no values"


def value_text(curve: Curve, layer: int) -> str:
    """Return ``mean [lower, upper]`` of a curve at a layer."""
    mean, lower, upper = (curve.array(name)[layer] for name in ("mean", "lower", "upper"))
    if mean != mean:
        return "undefined"
    return f"{mean:.3f}" + ("" if lower != lower else f" [{lower:.3f}, {upper:.3f}]")


def _ground(panel: LinePanel, x: Scale, y: Scale) -> str:
    parts = []
    if panel.untestable:
        box = {"x": x.start, "y": TOP, "width": x.end - x.start, "height": y.start - TOP}
        parts.append(tag("rect", fill="url(#hatch)", **box))
    if panel.ceiling:
        points = [(n, min(v or 0.0, y.high)) for n, v in enumerate(panel.ceiling)]
        edge = [*points, (points[-1][0], 0.0), (0, 0.0)]
        path = " ".join(f"{number(x(a))},{number(y(b))}" for a, b in edge)
        parts.append(tag("polygon", points=path, class_="ceiling"))
    return "".join(parts)


def _axes(panel: LinePanel, x: Scale, y: Scale, last: int) -> str:
    parts = [label(4, 31, panel.axis, "faint")]
    for value in svg.ticks(y.low, y.high):
        at = number(y(value))
        parts.append(tag("line", x1=x.start, x2=number(x.end + 16), y1=at, y2=at, class_="grid"))
        parts.append(label(x.start - 5, y(value) + 4, svg.tick_text(value), "faint", "end"))
    for layer in svg.layer_ticks(last):
        parts.append(label(x(layer), HEIGHT - BOTTOM + 15, layer, "faint", "middle"))
    parts.append(label((x.start + x.end) / 2, HEIGHT - 4, "layer", "faint", "middle"))
    parts.append(label(x.end + 16, HEIGHT - BOTTOM + 15, "N", "faint", "middle"))
    for level in (0.0, panel.chance):
        if level is not None and y.low <= level <= y.high:
            at = number(y(level))
            parts.append(
                tag("line", x1=x.start, x2=number(x.end + 16), y1=at, y2=at, class_="zero")
            )
    return "".join(parts)


def _runs(curve: Sequence[float | None], x: Scale, y: Scale) -> list[list[str]]:
    """Return the points of a curve, split where values are undefined."""
    runs: list[list[str]] = [[]]
    for layer, value in enumerate(curve):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(f"{number(x(layer))},{number(y(value))}")
    return [run for run in runs if run]


def _line(line: Line, x: Scale, y: Scale) -> str:
    curve, parts = line.curve, []
    if line.strong and curve.lower and curve.upper:
        known = [n for n, v in enumerate(curve.lower) if v is not None]
        upper = [f"{number(x(n))},{number(y(curve.upper[n] or 0))}" for n in known]
        lower = [f"{number(x(n))},{number(y(curve.lower[n] or 0))}" for n in reversed(known)]
        parts.append(tag("polygon", points=" ".join(upper + lower), class_="band"))
    width = 2.4 if line.strong else 1.2
    dash = "1.5 3" if line.dotted else line.look.dash
    for run in _runs(curve.mean, x, y):
        style = {"stroke_width": width, "stroke_dasharray": dash, "class_": "line"}
        parts.append(tag("polyline", points=" ".join(run), **style))
    if not line.dotted:
        every = 1 if line.strong else 3
        for layer, value in enumerate(curve.mean):
            if value is not None and layer % every == 0:
                size = 2.6 if line.strong else 2.2
                parts.append(marker(line.look.shape, x(layer), y(value), "point", size))
        if curve.final_norm is not None:
            at = x.end + 16, y(curve.final_norm)
            parts.append(marker(line.look.shape, *at, "hollow", 3.4))
    return tag("g", "".join(parts), class_=line.look.colour)


def _marks(marks: Marks, x: Scale, y: Scale) -> str:
    parts = []
    named = ((marks.commitment, "C"), (marks.peak, "P"), (marks.release, "R"))
    for layer, name in named:
        if layer is None or layer < 0:
            continue
        at = number(x(layer))
        parts.append(
            tag(
                "line",
                x1=at,
                x2=at,
                y1=TOP,
                y2=number(y.start),
                class_="mark",
                stroke_dasharray="1 3",
            )
        )
        parts.append(label(x(layer) + 2, TOP + 9, name))
    return "".join(parts)


def _hover(panel: LinePanel, x: Scale, last: int) -> str:
    """Return one strip per layer that tells all values there."""
    half, parts = (x(1) - x(0)) / 2 if last else 4, []
    for layer in range(last + 1):
        words = [f"layer {layer}"]
        there = [line for line in panel.lines if layer < len(line.curve.mean)]  # of two depths
        words += [f"{line.label}: {value_text(line.curve, layer)}" for line in there]
        strip = {"x": number(x(layer) - half), "width": number(2 * half), "y": TOP}
        title = tag("title", svg.escape("\n".join(words)))
        parts.append(tag("rect", title, height=HEIGHT - BOTTOM - TOP, class_="hover", **strip))
    return "".join(parts)
