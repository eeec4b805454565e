"""The report as one HTML document that needs no other file and no network."""

from __future__ import annotations

import itertools
from pathlib import Path

from aya_probes import figures, files
from aya_probes.charts import svg
from aya_probes.charts.svg import escape
from aya_probes.findings import cautions
from aya_probes.findings.questions import find
from aya_probes.findings.statement import VERDICTS
from aya_probes.html_report import methods, sections
from aya_probes.page import about, html
from aya_probes.page.data import PageData, load_data
from aya_probes.run_folder import RunPaths

SECTIONS = ("Findings", "Cautions", "Figures", "Tables", "Methods", "Provenance")


def save(paths: RunPaths) -> Path:
    """Write results/report.html of a run and return its path.

    Raises StudyError, with the command that makes them, if results are missing or out of date.
    """
    text = write(load_data(paths))
    with files.atomic_write(paths.report) as handle:
        handle.write(text.encode("utf-8"))
    return paths.report


def write(data: PageData) -> str:
    """Return the report of a run; the same results give the same bytes."""
    info = data.results.info
    title = f"Cross-lingual concept alignment: {info.label or info.suite}"
    parts = {
        "Findings": _findings(data),
        "Cautions": _cautions(data),
        "Figures": _figures(data),
        "Tables": "".join(sections.tables(data)) or html.paragraph("No tables."),
        "Methods": methods.write(data.run),
        "Provenance": _provenance(data),
    }
    contents = "".join(f'<li><a href="#{name.lower()}">{name}</a></li>' for name in SECTIONS)
    body = "".join(
        f'<section id="{name.lower()}" aria-labelledby="h-{name.lower()}">'
        f'<h2 id="h-{name.lower()}">{name}</h2>{parts[name]}</section>'
        for name in SECTIONS
    )
    style = svg.stylesheet() + (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">"
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f'<header><h1 dir="auto">{escape(title)}</h1><p>Suite {escape(info.suite)}. '
        f'{escape(figures.size_text(info))}.</p></header><nav aria-label="Contents"><ol>'
        f"{contents}</ol></nav><main>{body}</main></body></html>\n"
    )


def _findings(data: PageData) -> str:
    means = "".join(f"<li>{html.badge(v)} {escape(text)}</li>" for v, text in VERDICTS.items())
    found = "".join(html.finding(f) for f in find(data.run, data.tests))
    return f'<ul class="verdicts">{means}</ul>{found}'


def _cautions(data: PageData) -> str:
    items = [f'<li dir="auto">{escape(text)}</li>' for text in cautions.find(data.run, data.paths)]
    items += [f"<li>{escape(text)}</li>" for text in data.results.disagreements]
    missing = sections.missing(data)
    table = html.rows_table(missing, "Results that this run does not have") if missing else ""
    return f"<ul>{''.join(items)}</ul>{table}"


def _figures(data: PageData) -> str:
    parts, number = [], itertools.count(1)
    heading = ""
    for section, title, content in sections.charts(data):
        if section != heading:
            parts.append(f"<h3>{escape(section)}</h3>")
            heading = section
        parts.append(sections.figure(next(number), title, content))
    return "".join(parts) or html.paragraph("Nothing was measured in this run.")


def _provenance(data: PageData) -> str:
    info = data.results.info
    command = f"uv run report.py{data.paths.flag()}"
    return (
        html.table(["", "this run"], about.facts(info), "What the run compares")
        + html.rows_table(about.sources(info), "How each variant's vectors were computed")
        + f"<p>This file was made with <code>{escape(command)}</code>.</p>"
    )
