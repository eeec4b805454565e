"""The view of tokens: one probe sentence in every language, cut as the model reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aya_probes import errors, figures
from aya_probes.charts.svg import escape
from aya_probes.page import html
from aya_probes.page.data import PageData
from aya_probes.page.view import Content, Control, Settings, View, options

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "▁"  # how SentencePiece writes a space
COLOURS = 4


@dataclass(frozen=True)
class Piece:
    """One or more tokens that are shown as one box."""

    text: str
    ids: Sequence[int]
    in_span: bool
    """Whether one of them belongs to the concept."""
    final: bool
    """Whether the last of them is the final token, on which the published study compares texts."""


def merge(probe: Mapping[str, Any], pieces: Mapping[str, str]) -> list[Piece]:
    """Return the tokens of a probe as boxes; bytes of one character are merged into one box.

    ``pieces`` is the text of each token by its id; an unknown token is shown as its id.
    """
    ids, span = probe["token_ids"], set(probe["span_tokens"])
    boxes: list[tuple[str, list[int]]] = []
    waiting: list[int] = []  # positions of bytes that do not make a character yet

    def flush(final: bool = False) -> None:
        raw = bytes(int(_BYTE.fullmatch(pieces[str(ids[n])])[1], 16) for n in waiting)  # type: ignore[index]
        text = raw.decode("utf-8", "replace" if final else "strict")
        boxes.append((text, list(waiting)))
        waiting.clear()

    for n, token in enumerate(ids):
        text = pieces.get(str(token), f"#{token}")
        if _BYTE.fullmatch(text):
            waiting.append(n)
            try:
                flush()
            except UnicodeDecodeError:
                continue
        else:
            if waiting:
                flush(final=True)
            boxes.append((text, [n]))
    if waiting:
        flush(final=True)
    last = len(ids) - 1 - ids[::-1].index(probe["final_token"])
    return [
        Piece(text, [ids[n] for n in places], bool(span & set(places)), last in places)
        for text, places in boxes
    ]


def draw(found: Sequence[Piece], text: str) -> str:
    """Return boxes as HTML, in the direction of the whole ``text``."""
    parts = []
    for n, piece in enumerate(found):
        classes = ["piece", f"p{n % COLOURS}"]
        classes += ["span"] * piece.in_span + ["final"] * piece.final
        shown = errors.escape_hidden(piece.text.replace(SPACE, "·"))
        numbers = ", ".join(map(str, piece.ids))
        what = "tokens" if len(piece.ids) > 1 else "token"
        count = f"<sub>{len(piece.ids)}</sub>" if len(piece.ids) > 1 else ""
        parts.append(
            f'<span class="{" ".join(classes)}" title="{what} {numbers}">'
            f"{escape(shown)}{count}</span>"
        )
    return f'<p class="pieces" dir="{html.direction(text)}">{"".join(parts)}</p>'


def make(data: PageData) -> View:
    """Return the view."""
    info, probes = data.results.info, data.tokens.get("probes", {})
    concepts = [(f"{name} ({c})", c) for c, name in info.concept_names.items()]
    wordings = [str(n + 1) for n in range(info.wordings)]
    controls = (
        Control("concept", "Concept", concepts, [info.concepts[0]] if concepts else []),
        Control("wording", "Sentence", options(wordings), wordings[:1]),
    )

    def show(settings: Settings) -> Content:
        if not probes:
            return Content([], below=html.paragraph("The suite has no probes, so no tokens."))
        return _content(data, settings["concept"][0], settings["wording"][0])

    return View(
        "tokens",
        "Tokens",
        "One probe sentence in every language, cut into the tokens that the model reads. Where "
        "languages share the final token, comparing last tokens compares no meaning.",
        controls if probes else (),
        show,
    )


def _content(data: PageData, concept: str, wording: str) -> Content:
    info, probes = data.results.info, data.tokens["probes"]
    pivot = probes[f"{concept}-{info.pivot}-{wording}"]
    rows, parts = [], []
    for code in info.languages:
        probe = probes.get(f"{concept}-{code}-{wording}")
        if probe is None:
            continue
        found = merge(probe, data.pieces)
        same = code != info.pivot and probe["final_token"] == pivot["final_token"]
        final = data.pieces.get(str(probe["final_token"]), f"#{probe['final_token']}")
        inputs = None if code == info.pivot else data.results.input_share(info.variants[0], code)
        identical = inputs is not None and concept in inputs.concepts
        flags = []
        if same:
            flags.append(f"final token {final} as in {info.pivot}: last-token vectors start equal")
        if identical:
            flags.append(f"the concept's input is identical to that of {info.pivot}: left out")
        rows.append(
            {
                "language": code,
                "text": probe["text"],
                "surface": probe["surface"],
                "tokens": len(probe["token_ids"]),
                "concept_tokens": len(probe["span_tokens"]),
                "tokens_per_character": probe["tokens_per_character"],
                "final_token": final,
                "same_final_token": same,
                "identical_input": identical,
            }
        )
        parts.append(_language(code, probe, found, flags))
    table = html.rows_table(rows, "Counts of tokens")
    key = (
        '<p class="caption">A box is a token; a small number counts tokens that make one '
        "character. A dot is a space. Underlined: the concept. Framed: the final token.</p>"
    )
    if not data.pieces:
        command = f"uv run tools/token_pieces.py{data.paths.flag()}"
        key += (
            '<p class="missing">The text of the tokens is not saved for this run, so their '
            f"numbers are shown. Save it with <code>{escape(command)}</code>.</p>"
        )
    shown = f"Tokenizer of variant {data.tokens['variant']}"
    return Content(rows, below=f"{html.paragraph(shown, 'caption')}{key}{''.join(parts)}{table}")


def _language(code: str, probe: Mapping[str, Any], found: list[Piece], flags: list[str]) -> str:
    notes = "".join(f'<li class="flag">⚠ {escape(flag)}</li>' for flag in flags)
    count = f"{len(probe['token_ids'])} tokens, {len(probe['span_tokens'])} of the concept"
    return (
        f'<article class="probe"><h3>{escape(figures.language_name(code))} '
        f'<span class="n">{count}</span></h3>{draw(found, probe["text"])}'
        f"{f'<ul>{notes}</ul>' if notes else ''}</article>"
    )
