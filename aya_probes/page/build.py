"""The page: its views as tabs, links that restore them, and an API endpoint for each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from aya_probes import figures
from aya_probes.charts import svg
from aya_probes.charts.svg import escape
from aya_probes.errors import StudyError
from aya_probes.page import (
    about,
    compare,
    curves,
    differences,
    failures,
    findings_view,
    html,
    map_view,
    published_view,
    stage_table,
    tokens,
)
from aya_probes.page.data import PageData
from aya_probes.page.view import MANY, SLIDER, Control, View, complete, read_query, render

if TYPE_CHECKING:
    from aya_probes.page.pair import PairModel

VIEWS = (
    findings_view.make,
    curves.make,
    map_view.make,
    differences.make,
    stage_table.behaviour,
    stage_table.lens,
    tokens.make,
    failures.make,
    published_view.make,
    compare.make,
    about.make,
)
FOLDER = Path(__file__).parent
SEEN = 3  # controls that are shown at once
MANY_CHOICES = 12  # more are chosen from a list instead of boxes


def stylesheet() -> str:
    """Return the CSS of the page and of its charts."""
    return svg.stylesheet() + (FOLDER / "page.css").read_text(encoding="utf-8")


def head() -> str:
    """Return what the page adds to the HTML head: its script."""
    return f"<script>{(FOLDER / 'page.js').read_text(encoding='utf-8')}</script>"


def make_views(data: PageData) -> list[View]:
    """Return the views of a run, in the order of their tabs."""
    return [make(data) for make in VIEWS]


def build_page(data: PageData, model: PairModel | None) -> gr.Blocks:
    """Return the Gradio page; without ``model`` it has no tab for typed sentences."""
    views = make_views(data)
    with gr.Blocks(title="aya-cross-lingual-probes", analytics_enabled=False) as page:
        gr.HTML(_heading(data), js_on_load=None)
        with gr.Tabs(selected=views[0].name, overflow_behavior="wrap") as tabs:
            built = [_Tab(view) for view in views]
            if model is not None:
                from aya_probes.page.pair_tab import build_pair_tab

                build_pair_tab(data, model)
        _restore(page, tabs, built)
        for view in views:
            _endpoint(view)
    return page


def _heading(data: PageData) -> str:
    info = data.results.info
    own = "" if info.suite.startswith("tiny-aya") else " These are not Tiny Aya results."
    text = f"{info.label or info.suite}.{own} {info.note} {figures.size_text(info)}."
    return (
        f"<header><h1>Cross-lingual concept alignment</h1>"
        f'<p dir="auto">Suite <strong>{escape(info.suite)}</strong>: {escape(text)}</p></header>'
    )


class _Tab:
    """A view as a tab of the page."""

    def __init__(self, view: View) -> None:
        self.view = view
        with gr.Tab(view.title, id=view.name) as self.tab:
            gr.HTML(f'<p class="sentence">{escape(view.sentence)}</p>', js_on_load=None)
            self.controls = _components(view.controls)
            first = (
                self.draw(*(_value(c, c.value) for c in view.controls)) if not view.controls else ""
            )
            self.content = gr.HTML(first, js_on_load=None, elem_classes="content")
        given: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 4}
        given |= {"show_progress": "hidden", "trigger_mode": "always_last"}
        if view.controls:
            triggers = [c.change for c in self.controls]
            gr.on([self.tab.select, *triggers], self.draw, self.controls, self.content, **given)

    def draw(self, *values: Any) -> str:
        """Return the HTML of the view for the values of its controls."""
        controls = self.view.controls
        given = {c.name: _texts(v) for c, v in zip(controls, values, strict=True)}
        return draw(self.view, given)


def draw(view: View, given: dict[str, list[str]]) -> str:
    """Return the HTML of a view, or of a message about the settings."""
    try:
        return render(view, given)
    except StudyError as error:
        return html.message(str(error))


def _components(controls: Sequence[Control]) -> list[Any]:
    """Return the components of a view's controls; those beyond ``SEEN`` can be unfolded."""
    first, more = controls[:SEEN], controls[SEEN:]
    found = []
    if first:
        with gr.Row():
            found += [_component(control) for control in first]
    if more:
        with gr.Accordion("More settings", open=False), gr.Row():
            found += [_component(control) for control in more]
    return found


def _component(control: Control) -> Any:
    choices, label = list(control.choices), control.label
    value = _value(control, control.value)
    if control.kind == SLIDER:
        last = max(1, len(choices) - 1)
        return gr.Slider(0, last, value=value, step=1, label=label, min_width=220)
    if control.kind == MANY and len(choices) <= MANY_CHOICES:
        return gr.CheckboxGroup(choices, value=value, label=label, min_width=300)
    if control.kind == MANY:
        return gr.Dropdown(choices, value=value, label=label, multiselect=True, min_width=300)
    return gr.Dropdown(choices, value=value, label=label, min_width=220)


def _value(control: Control, values: Sequence[str]) -> Any:
    """Return what a control's component holds for these values."""
    if control.kind == MANY:
        return list(values)
    if control.kind == SLIDER:
        return int(values[0]) if values else 0
    return values[0] if values else None


def _texts(value: Any) -> list[str]:
    """Return the values of a component as texts."""
    if value is None:
        return []
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


# --- links --------------------------------------------------------------------------------------


def _restore(page: gr.Blocks, tabs: gr.Tabs, built: Sequence[_Tab]) -> None:
    """Let the address of the page choose the view and its settings."""
    parts = [part for tab in built for part in (*tab.controls, tab.content)]

    def restore(request: gr.Request) -> list[Any]:
        text = str(request.query_params)
        name = dict(request.query_params).get("view", "")
        found: list[Any] = [gr.skip()]
        for tab in built:
            mine = tab.view.name == name
            if mine:
                found[0] = gr.Tabs(selected=name)
            found += _restored(tab, text) if mine else [gr.skip()] * (len(tab.controls) + 1)
        return found

    page.load(restore, None, [tabs, *parts], api_visibility="private", show_progress="hidden")


def _restored(tab: _Tab, text: str) -> list[Any]:
    """Return the values of a tab's controls, and its content, for the query of an address."""
    view = tab.view
    try:
        settings = complete(view, read_query(text))
    except (StudyError, ValueError) as error:
        note = html.message(f"This link does not fit this run: {error}")
        return [*[gr.skip()] * len(tab.controls), note]
    values = [_value(c, settings[c.name]) for c in view.controls]
    return [*values, draw(view, settings)]


# --- API ----------------------------------------------------------------------------------------


def _endpoint(view: View) -> None:
    """Add an endpoint with the view's name: it takes the settings and returns rows."""

    def rows(*args: Any, **named: Any) -> list[dict[str, Any]]:
        given = inspect.Signature(parameters).bind(*args, **named).arguments
        settings = {name: list(v) if isinstance(v, list) else [v] for name, v in given.items()}
        try:
            return [dict(row) for row in view.show(complete(view, settings)).rows]
        except StudyError as error:
            raise gr.Error(str(error), print_exception=False) from None

    parameters = [_parameter(control) for control in view.controls]
    _declare(rows, parameters)
    gr.api(rows, api_name=view.name, api_description=view.sentence, concurrency_limit=4)


def _parameter(control: Control) -> inspect.Parameter:
    many = control.kind == MANY
    default: Any = list(control.value) if many else (control.value or [""])[0]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    hint: Any = list[str] if many else str
    return inspect.Parameter(control.name, kind, default=default, annotation=hint)


def _declare(function: Callable[..., Any], parameters: Sequence[inspect.Parameter]) -> None:
    """Give a function the parameters that Gradio reads from its signature."""
    hint = list[dict[str, Any]]
    function.__signature__ = inspect.Signature(parameters, return_annotation=hint)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": hint}
