"""A view of the page: its settings, its content, and what every view has beside them.

Every view has a link that restores it, its numbers as CSV, and its charts as SVG and PNG. The
address of all of these has the same query: ``view=NAME`` and one ``setting=value`` per value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode

from aya_probes import errors
from aya_probes.charts.svg import escape
from aya_probes.errors import UsageError
from aya_probes.page.data import PageData

Settings = Mapping[str, Sequence[str]]
MANY, ONE, SLIDER = "many", "one", "slider"
MAX_VALUES = 300  # of one setting in an address


@dataclass(frozen=True)
class Control:
    """A setting of a view."""

    name: str
    """Its name in links and in the API."""
    label: str
    choices: Sequence[tuple[str, str]]
    """Label and value of each choice; for a slider, the whole numbers from first to last."""
    value: Sequence[str]
    """The values at the start."""
    kind: str = ONE
    """many, one or slider."""


@dataclass(frozen=True)
class Content:
    """What a view shows for its settings."""

    rows: Sequence[Mapping[str, Any]]
    """The numbers shown, as rows with the same keys."""
    charts: Sequence[str] = ()
    """SVG panels."""
    legend: str = ""
    """HTML above the charts."""
    below: str = ""
    """HTML below the charts."""
    caption: str = ""
    """What the charts' marks mean."""


@dataclass(frozen=True)
class View:
    """One tab of the page."""

    name: str
    """Its name in links and in the API."""
    title: str
    sentence: str
    """What the view shows and what it does not."""
    controls: Sequence[Control]
    show: Callable[[Settings], Content]
    """Returns the content; raises StudyError for settings that go together badly."""


Make = Callable[[PageData], View]


def options(values: Sequence[str]) -> list[tuple[str, str]]:
    """Return choices whose labels are their values."""
    return [(value, value) for value in values]


def complete(view: View, given: Settings) -> dict[str, list[str]]:
    """Return the settings with defaults for those not given.

    Raises UsageError for a setting or a value that the view does not have.
    """
    known = {control.name: control for control in view.controls}
    for name in given:
        if name not in known:
            raise UsageError(errors.unknown("setting", name, known))
    found = {}
    for name, control in known.items():
        values = list(given.get(name, control.value))
        valid = [value for _, value in control.choices]
        for value in values:
            if value not in valid:
                shown = valid if len(valid) <= 40 else [*valid[:40], "..."]
                raise UsageError(errors.unknown(control.label.lower(), value, shown))
        if control.kind != MANY and len(values) != 1:
            raise UsageError(f"{control.label.lower()}: give one value, not {len(values)}")
        found[name] = [value for value in valid if value in values]
    return found


def query(view: View, settings: Settings) -> str:
    """Return the query of an address that restores the view; defaults are left out."""
    pairs = [("view", view.name)]
    for control in view.controls:
        chosen = list(settings[control.name])
        if chosen != list(control.value):
            pairs += [(control.name, value) for value in chosen or [""]]
    return urlencode(pairs)


def read_query(text: str) -> dict[str, list[str]]:
    """Return the settings of a query, without ``view``; an empty value means none chosen."""
    found = parse_qs(text, keep_blank_values=True, max_num_fields=MAX_VALUES)
    return {k: [v for v in vs if v] for k, vs in found.items() if k not in ("view", "__theme")}


def render(view: View, given: Settings) -> str:
    """Return the HTML of a view below its controls."""
    settings = complete(view, given)
    content = view.show(settings)
    link = query(view, settings)
    charts = "".join(f"<figure>{chart}</figure>" for chart in content.charts)
    grid = f'<div class="charts">{charts}</div>' if charts else ""
    caption = f'<p class="caption">{escape(content.caption)}</p>' if content.caption else ""
    return (
        f'<section class="view" data-link="?{escape(link)}" aria-label="{escape(view.title)}">'
        f"{_toolbar(view, content, link)}{content.legend}{grid}{caption}{content.below}</section>"
    )


def _toolbar(view: View, content: Content, link: str) -> str:
    """Return the links of a view: to itself, and to its numbers and charts as files."""
    name, to = escape(view.title), escape(link)
    parts = [f'<a href="?{to}">Link to this view</a>']
    if content.rows:
        label = f'aria-label="Numbers of {name} as CSV"'
        parts.append(f'<a href="files/view.csv?{to}" download="{view.name}.csv" {label}>CSV</a>')
    if content.charts:
        label = f'aria-label="Charts of {name} as SVG"'
        parts.append(f'<a href="files/view.svg?{to}" download="{view.name}.svg" {label}>SVG</a>')
        label = f'aria-label="Charts of {name} as PNG"'
        parts.append(
            f'<button type="button" class="png" data-svg="files/view.svg?{to}" '
            f'data-name="{view.name}.png" {label}>PNG</button>'
        )
    return f'<nav class="tools" aria-label="Files of {name}">{"".join(parts)}</nav>'
