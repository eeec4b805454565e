"""The tab for typed sentences: their tokens, and where the pair falls among the run's pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from aya_probes import figures
from aya_probes.charts import lines
from aya_probes.charts.lines import Line, LinePanel
from aya_probes.charts.svg import escape
from aya_probes.charts.variants import Look, legend, looks
from aya_probes.errors import StudyError
from aya_probes.page import html, tokens
from aya_probes.page.data import PageData
from aya_probes.page.pair import COLUMNS, PairModel, PairResult, TypedPair, read_pairs
from aya_probes.results.curves import Curve, values

SENTENCE = (
    "Your own sentences among the suite's: the cosine of standardised vectors beside translations "
    "and beside sentences with other meanings. One pair has no interval and shows no alignment."
)
BAND = (5, 50, 95)  # percentiles of the suite's pairs that are drawn
MATCHED = Look("translations of the suite: median and 5 to 95%", "v1", None, "square")
MISMATCHED = Look("other meanings: median and 5 to 95%", "vu", "5 4", "cross")


def _band(pairs: np.ndarray) -> Curve:
    """Return median and 5th to 95th percentile of ``[pair, layer]`` as a curve."""
    low, middle, high = np.nanpercentile(pairs, BAND, axis=0)
    return Curve(values(middle), None, lower=values(low), upper=values(high))


def draw(data: PageData, pair: TypedPair, found: Sequence[PairResult]) -> str:
    """Return the pieces, a panel per variant, and the percentiles as HTML."""
    seen = looks(data.results.info)
    panels = []
    for result in found:
        own = Look("your pair", seen[result.variant].colour, None, "diamond")
        drawn = [
            Line(MATCHED.label, MATCHED, _band(result.among.matched), strong=True),
            Line(MISMATCHED.label, MISMATCHED, _band(result.among.mismatched), strong=True),
            Line("your pair", own, Curve(values(result.placed.cosine), None)),
        ]
        panels.append(LinePanel(result.variant, "cosine, standardised", drawn))
    between = lines.value_range(panels)
    last = data.results.info.last_layer
    charts = "".join(f"<figure>{lines.draw(p, last, between)}</figure>" for p in panels)
    own = Look("your pair", seen[found[0].variant].colour, None, "diamond")
    key = legend({"own": own, "matched": MATCHED, "mismatched": MISMATCHED})
    return (
        f'<section class="view" aria-label="Your sentences">{_pieces(pair, found[0])}{key}'
        f'<div class="charts">{charts}</div>{_table(found)}</section>'
    )


def _pieces(pair: TypedPair, result: PairResult) -> str:
    parts = []
    texts = ((pair.language_a, pair.text_a), (pair.language_b, pair.text_b))
    for (code, text), pieces in zip(texts, result.pieces, strict=True):
        ids = list(range(len(pieces)))
        probe = {"token_ids": ids, "span_tokens": [], "final_token": ids[-1]}
        named = {str(n): piece for n, piece in enumerate(pieces)}
        boxes = tokens.draw(tokens.merge(probe, named), text)
        parts.append(f"<h3>{escape(figures.language_name(code))}: {len(ids)} tokens</h3>{boxes}")
    return "".join(parts)


def _table(found: Sequence[PairResult]) -> str:
    """Return cosine, alignment and percentile by layer and variant."""
    header = ["layer"]
    for result in found:
        header += [f"{result.variant}: cosine", "minus other meanings", "percentile among them"]
    rows = []
    for layer in range(len(found[0].placed.cosine)):
        row: list[Any] = [str(layer)]
        for result in found:
            placed = result.placed
            row += [float(placed.cosine[layer]), float(placed.alignment[layer])]
            row.append(f"{placed.percentile[layer]:.0f}%")
        rows.append(row)
    return html.table(header, rows, "Your pair among sentences with other meanings, by layer")


def build_pair_tab(data: PageData, model: PairModel) -> None:
    """Add the tab to the page that is being built."""
    named = [(figures.language_name(code), code) for code in model.suite.languages]
    untrained = data.results.info.first("untrained")
    trained = [v for v in data.results.info.variants if v != untrained]

    def compute(variant: str, *texts: str) -> Iterator[str]:
        yield from _answers(data, model, variant, [TypedPair(*texts)])

    def compute_file(variant: str, path: str | None) -> Iterator[str]:
        if path is None:
            yield html.message("choose a CSV file first")
            return
        try:
            pairs = read_pairs(Path(path).read_bytes())
        except StudyError as error:
            yield html.message(str(error))
            return
        yield from _answers(data, model, variant, pairs)

    with gr.Tab("Your sentences", id="sentences"):
        gr.HTML(f'<p class="sentence">{escape(SENTENCE)}</p>', js_on_load=None)
        variant = gr.Dropdown(trained, value=trained[0], label="Variant")
        boxes: list[Any] = []
        for n, which in enumerate(("First", "Second")):
            with gr.Row():
                boxes.append(
                    gr.Dropdown(named, value=named[n][1], label=f"{which} language", scale=1)
                )
                boxes.append(gr.Textbox(label=f"{which} sentence", lines=2, scale=4, rtl=False))
        with gr.Row():
            button = gr.Button("Compute", variant="primary")
            stop = gr.Button("Stop")
        with gr.Accordion("Several pairs from a CSV file", open=False):
            file = gr.File(label=f"CSV with the columns {', '.join(COLUMNS)}", file_types=[".csv"])
            send = gr.Button("Compute the file")
        output = gr.HTML("", js_on_load=None, elem_classes="content")
        run = button.click(compute, [variant, *boxes], output, api_name="sentences")
        more = send.click(compute_file, [variant, file], output, api_visibility="private")
        stop.click(None, cancels=[run, more])


def _answers(
    data: PageData, model: PairModel, variant: str, pairs: Sequence[TypedPair]
) -> Iterator[str]:
    """Yield the page's answer while it grows, pair by pair and variant by variant."""
    untrained = data.results.info.first("untrained")
    chosen = [variant, *([untrained] if untrained else [])]
    done = ""
    for number, pair in enumerate(pairs, start=1):
        title = f"<h2>Pair {number} of {len(pairs)}</h2>" if len(pairs) > 1 else ""
        found: list[PairResult] = []
        try:
            for result in model.compute(pair, chosen):
                found.append(result)
                yield f"{done}{title}{draw(data, pair, found)}"
        except StudyError as error:
            done += f"{title}{html.message(str(error))}"
            yield done
            continue
        done += f"{title}{draw(data, pair, found)}"
