"""Pieces of HTML that the page and the report share. All text in them is escaped."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aya_probes import errors
from aya_probes.charts.svg import escape
from aya_probes.findings.statement import Finding

BADGES = {
    "established": "✓",
    "not established": "○",
    "untestable": "⊘",
    "not measured": "…",
    "described": "≈",
}


def paragraph(text: str, class_: str = "") -> str:
    """Return a paragraph whose direction follows its text."""
    named = f' class="{class_}"' if class_ else ""
    return f'<p dir="auto"{named}>{escape(text)}</p>'


def direction(text: str) -> str:
    """Return rtl or ltr: the direction of the first character that has one."""
    for char in text:
        kind = unicodedata.bidirectional(char)
        if kind in ("L", "R", "AL"):
            return "ltr" if kind == "L" else "rtl"
    return "ltr"


def message(text: str) -> str:
    """Return a message that a screen reader announces, such as a mistake in the settings."""
    return f'<div class="message" role="alert"><p dir="auto">{escape(text)}</p></div>'


def cell_text(value: Any) -> str:
    """Return a value for people: nothing for None, four decimals at most, words for flags."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    return errors.escape_hidden(str(value))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str, id_: str = "") -> str:
    """Return a table that scrolls on its own, by the keyboard too."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = []
    for row in rows:
        cells = []
        for value in row:
            kind = ' class="number"' if isinstance(value, int | float) else ""
            cells.append(f'<td dir="auto"{kind}>{escape(cell_text(value))}</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    named = f' id="{id_}"' if id_ else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"{named}>'
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def rows_table(rows: Sequence[Mapping[str, Any]], caption: str) -> str:
    """Return a table of rows with the same columns; a note if there are none."""
    if not rows:
        return paragraph("No rows.")
    return table(
        [name.replace("_", " ") for name in rows[0]], (list(r.values()) for r in rows), caption
    )


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a header.

    A cell that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    out = io.StringIO()
    if rows:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow([_inert(value) for value in row.values()])
    return out.getvalue()


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "@", "\t") else value


def as_rows(records: Iterable[Any]) -> list[dict[str, Any]]:
    """Return dataclass records as rows."""
    return [dataclasses.asdict(record) for record in records]


# --- findings -----------------------------------------------------------------------------------


def badge(verdict: str) -> str:
    """Return a verdict with its sign, so that colour is not all that tells it."""
    name = verdict.replace(" ", "-")
    return f'<span class="badge {name}">{BADGES[verdict]} {escape(verdict)}</span>'


def finding(found: Finding, link: str = "") -> str:
    """Return a question with its statements; ``link`` is the address of its view."""
    items = []
    for statement in found.statements:
        n = f' <span class="n">n = {escape(statement.n)}</span>' if statement.n else ""
        words = f'<span dir="auto">{escape(statement.text)}</span>'
        items.append(f"<li>{badge(statement.verdict)} {words}{n}</li>")
    to = f'<p><a href="{escape(link)}">Show it: {escape(found.question)}</a></p>' if link else ""
    return (
        f'<article class="finding"><h3>{escape(found.question)}</h3>'
        f"<ul>{''.join(items)}</ul>{to}</article>"
    )


# --- texts --------------------------------------------------------------------------------------


def beside(parent: str, text: str) -> tuple[str, str]:
    """Return both texts as HTML, with the characters that differ marked.

    Hidden characters are shown as code points. Characters are compared, not words.
    """
    pairs = difflib.SequenceMatcher(None, parent, text, autojunk=False).get_opcodes()
    left, right = [], []
    for kind, a0, a1, b0, b1 in pairs:
        before, after = (_visible(s) for s in (parent[a0:a1], text[b0:b1]))
        if kind == "equal":
            left.append(before)
            right.append(after)
            continue
        if before:
            left.append(f"<del>{before}</del>")
        if after:
            right.append(f"<ins>{after}</ins>")
    return "".join(left), "".join(right)


def _visible(text: str) -> str:
    return escape(errors.escape_hidden(text))
