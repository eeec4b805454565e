"""The views of stages that write one table: behaviour, and lens and patching."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from aya_probes.charts.svg import escape
from aya_probes.errors import StudyError
from aya_probes.page import html
from aya_probes.page.data import PageData
from aya_probes.page.view import Content, Settings, View

SHOWN = 500  # rows of a table in the page; the CSV has all


@dataclass(frozen=True)
class StageTable:
    """A table of results that a stage writes."""

    title: str
    path: Path
    command: str


def behaviour(data: PageData) -> View:
    """Return the view of what the models do with the texts."""
    flag = data.paths.flag()
    table = StageTable("Behaviour", data.paths.behaviour, f"uv run behaviour.py{flag}")
    return _view(
        "behaviour",
        "Behaviour",
        "What a variant makes of the texts: surprisal and comprehension. It stands beside "
        "alignment and does not follow from it.",
        [table],
    )


def lens(data: PageData) -> View:
    """Return the view of the logit lens and of concept patching."""
    flag, paths = data.paths.flag(), data.paths
    tables = [
        StageTable("Logit lens", paths.logit_lens, f"uv run logit_lens.py{flag}"),
        StageTable("Concept patching", paths.concept_patching, f"uv run concept_patching.py{flag}"),
    ]
    return _view(
        "lens",
        "Lens and patching",
        "Which words a layer would write, and what moves when a concept's vector is replaced. "
        "Neither says what the model would do untouched.",
        tables,
    )


def _view(name: str, title: str, sentence: str, tables: list[StageTable]) -> View:
    def show(settings: Settings) -> Content:
        rows, parts = [], []
        for table in tables:
            parts.append(f"<h3>{escape(table.title)}</h3>")
            if not table.path.is_file():
                parts.append(
                    '<p class="missing">Not computed in this run. Make it with '
                    f"<code>{escape(table.command)}</code>, then start the page again.</p>"
                )
                continue
            found = _read(table)
            rows += [{"table": table.title, **row} for row in found]
            note = f"{len(found)} rows; the first {SHOWN} are shown" if len(found) > SHOWN else ""
            parts.append(html.rows_table(found[:SHOWN], f"{table.title} {note}".strip()))
        return Content(rows, below="".join(parts))

    return View(name, title, sentence, (), show)


def _read(table: StageTable) -> list[dict[str, object]]:
    """Return the rows of a stage's table; StudyError for a file that is no table."""
    try:
        found = pd.read_csv(table.path, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{table.path}: not a readable table ({type(error).__name__}); regenerate it with: "
            f"{table.command}"
        ) from None
    return [{str(k): v for k, v in row.items()} for row in found.to_dict("records")]
