"""How a variant looks in every chart: a colour, a dash and a shape, the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass

from aya_probes.charts.svg import escape, number, tag
from aya_probes.results.run_info import RunInfo

COLOURS = 6
SHAPES = ("circle", "square", "triangle", "diamond", "down", "cross")
DASHES = {"untrained": "5 4", "dose": "1.5 3", "seed": "7 2"}


@dataclass(frozen=True)
class Look:
    """The look of a variant."""

    label: str
    """What legends say: the name, and the role where the name does not tell it."""
    colour: str
    """CSS class that sets the colour: v0 to v5, or vu for random weights."""
    dash: str | None
    """Dash pattern of its lines; None for a solid one."""
    shape: str
    """One of ``SHAPES``."""


def looks(info: RunInfo) -> dict[str, Look]:
    """Return the look of each variant.

    Variants of random weights are grey. One that trains another variant again (role seed or dose)
    has the colour and shape of that variant and another dash.
    """
    own = [
        name
        for name in info.variants
        if info.roles[name] != "untrained" and info.repeats.get(name) not in info.variants
    ]
    place = {name: n for n, name in enumerate(own)}
    found = {}
    for name in info.variants:
        role = info.roles[name]
        number_ = place.get(info.repeats.get(name, name), place.get(name))
        notes = {"untrained": "random weights", "seed": "second seed", "dose": "other dose"}
        text = f"{name} ({notes[role]})" if role in notes else name
        if number_ is None:
            found[name] = Look(text, "vu", DASHES["untrained"], "cross")
        else:
            colour = f"v{number_ % COLOURS}"
            shape = SHAPES[number_ % (len(SHAPES) - 1)]
            found[name] = Look(text, colour, DASHES.get(role), shape)
    return found


def marker(shape: str, x: float, y: float, class_: str, size: float = 3.4) -> str:
    """Return a marker of one of ``SHAPES`` around a point."""
    if shape == "circle":
        return tag("circle", cx=number(x), cy=number(y), r=number(size), class_=class_)
    corners = {
        "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        "triangle": ((0, -1.2), (1.15, 0.9), (-1.15, 0.9)),
        "diamond": ((0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)),
        "down": ((0, 1.2), (1.15, -0.9), (-1.15, -0.9)),
    }
    if shape == "cross":
        d = size
        path = f"M{number(x - d)} {number(y - d)}L{number(x + d)} {number(y + d)}"
        path += f"M{number(x - d)} {number(y + d)}L{number(x + d)} {number(y - d)}"
        return tag("path", d=path, class_="line", stroke_width="1.6")
    points = " ".join(f"{number(x + size * a)},{number(y + size * b)}" for a, b in corners[shape])
    return tag("polygon", points=points, class_=class_)


def legend(chosen: dict[str, Look], extra: str = "") -> str:
    """Return the legend of the variants as HTML; ``extra`` is markup added at its end."""
    entries = []
    for look in chosen.values():
        line = tag(
            "line",
            x1=1,
            y1=8,
            x2=31,
            y2=8,
            class_="line",
            stroke_width=2,
            stroke_dasharray=look.dash,
        )
        drawing = tag(
            "svg",
            line + marker(look.shape, 16, 8, "point", 4),
            class_=f"swatch chart-colours {look.colour}",
            viewBox="0 0 32 16",
            width=32,
            height=16,
            aria_hidden="true",
        )
        entries.append(f"<li>{drawing} {escape(look.label)}</li>")
    return f'<ul class="legend">{"".join(entries)}{extra}</ul>'
