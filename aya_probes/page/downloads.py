"""The files of a view, made when they are asked for: its numbers as CSV, its charts as SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from aya_probes.charts.sheet import join
from aya_probes.errors import StudyError
from aya_probes.page.html import csv_text
from aya_probes.page.view import View, complete, read_query


def routes(views: Sequence[View], label: str) -> list[Any]:
    """Return the routes ``/files/view.csv`` and ``/files/view.svg``; ``label`` names the run."""
    known = {view.name: view for view in views}

    def answer(make: Callable[[View, str], Response]) -> Callable[[Request], Response]:
        def respond(request: Request) -> Response:
            view = known.get(request.query_params.get("view", ""))
            if view is None:
                return PlainTextResponse(f"no such view; valid: {', '.join(known)}\n", 404)
            try:
                return make(view, str(request.query_params))
            except (StudyError, ValueError) as error:
                return PlainTextResponse(f"{error}\n", 400)

        return respond

    def table(view: View, query: str) -> Response:
        content = view.show(complete(view, read_query(query)))
        text = csv_text(content.rows)
        return Response(text.encode("utf-8-sig"), media_type="text/csv")

    def drawing(view: View, query: str) -> Response:
        return Response(chart_file(view, query, label), media_type="image/svg+xml")

    return [
        Route("/files/view.csv", answer(table)),
        Route("/files/view.svg", answer(drawing)),
    ]


def chart_file(view: View, query: str, label: str) -> str:
    """Return all charts of a view as one SVG; raises StudyError if it has none."""
    settings = complete(view, read_query(query))
    content = view.show(settings)
    if not content.charts:
        raise StudyError(f"the view {view.name} has no charts for these settings")
    chosen = "; ".join(f"{name}: {', '.join(values)}" for name, values in settings.items())
    lines = [view.sentence, content.caption, f"{label}; {chosen}"]
    return join(content.charts, f"{view.title}: {label}", [text for text in lines if text])
