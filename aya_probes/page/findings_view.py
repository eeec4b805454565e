"""The first view: what the run shows, question by question."""

from __future__ import annotations

from urllib.parse import urlencode

from aya_probes.charts.svg import escape
from aya_probes.findings.questions import find
from aya_probes.findings.statement import VERDICTS
from aya_probes.page import html
from aya_probes.page.data import PageData
from aya_probes.page.view import Content, Settings, View


def make(data: PageData) -> View:
    """Return the view."""

    def show(settings: Settings) -> Content:
        found = find(data.run, data.tests)
        rows = [
            {"question": f.question, "verdict": s.verdict, "finding": s.text, "n": s.n}
            for f in found
            for s in f.statements
        ]
        cards = []
        for f in found:
            link = urlencode(
                [("view", f.view), *((k, v) for k, vs in f.settings.items() for v in vs)]
            )
            cards.append(html.finding(f, f"?{link}"))
        means = "".join(
            f"<li>{html.badge(name)} {escape(text)}</li>" for name, text in VERDICTS.items()
        )
        key = f'<ul class="verdicts" aria-label="What the verdicts mean">{means}</ul>'
        return Content(rows, below=f'{key}<div class="cards">{"".join(cards)}</div>')

    return View(
        "findings",
        "Findings",
        "Each question of the study with its answer from this run. A finding holds for this model "
        "and these texts; it says nothing about other models.",
        (),
        show,
    )
