"""The tabs of the page."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import gradio as gr
import pandas as pd

from aya_probes import errors, figures, files, records, suites
from aya_probes.errors import StudyError
from aya_probes.page.data import PageData
from aya_probes.page.plots import (
    ALL_CONCEPTS,
    available,
    plot_commitment,
    plot_curves,
    plot_pair,
)
from aya_probes.published import MAKE_PUBLISHED, ratio_table
from aya_probes.results.failures import FailureCase

if TYPE_CHECKING:
    from aya_probes.page.pair import PairModel

ANY = "all"
HIDDEN_COLUMNS = ("stimulus_id", "parent_id", "tag", "reference_variant", "labels", "pooling")


def build_page(data: PageData, pair_model: PairModel | None) -> gr.Blocks:
    """Return the Gradio page; without ``pair_model`` it has no tab for a typed pair."""
    info = data.results.info
    own = "" if info.suite.startswith("tiny-aya") else " **These are not Tiny Aya results.**"
    with gr.Blocks(title="aya-cross-lingual-probes", analytics_enabled=False) as page:
        gr.Markdown(
            f"# Cross-lingual concept alignment\nSuite **{info.suite}**: "
            f"{info.label or info.suite}.{own} {info.note} {figures.size_text(info)}. "
            f"{_explained(data)}"
        )
        with gr.Tab("Curves"):
            _curves_tab(data)
        with gr.Tab("Commitment"):
            _commitment_tab(data)
        with gr.Tab("Contrasts"):
            _contrasts_tab(data)
        with gr.Tab("Failures"):
            _failures_tab(data)
        with gr.Tab("Tokens"):
            _tokens_tab(data)
        if pair_model is not None:
            with gr.Tab("Your own pair"):
                _pair_tab(data, pair_model)
        with gr.Tab("Published curves, re-analysed"):
            _published_tab(data)
        with gr.Tab("Provenance"):
            gr.JSON(records.to_json(info))
    return page


def _explained(data: PageData) -> str:
    """Return what the bands are, and what the run lacks."""
    if not data.results.info.concepts:
        return (
            "The suite has no probes: only measures of the parallel corpus are shown. Bands are "
            "95% intervals over its documents."
        )
    return (
        "Bands are 95% bootstrap intervals over concepts. Vectors are standardised: each dimension "
        "is divided by its SD within the language. Measures on raw vectors are only mean-centred."
    )


def _table(rows: list[Any]) -> pd.DataFrame:
    return pd.DataFrame([dataclasses.asdict(row) for row in rows])


def matching(table: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """Return the rows whose columns have the wanted values; ``ANY`` allows every value."""
    keep = pd.Series(True, index=table.index)
    for name, value in wanted.items():
        if value != ANY:
            keep &= table[name] == value
    return table[keep]


def _curves_tab(data: PageData) -> None:
    info, names = data.results.info, suites.load_languages()
    measures = available(data.results)
    if not measures:
        gr.Markdown("Nothing was measured: no probes, and too few items in the parallel corpus.")
        return
    with gr.Row():
        language = gr.Dropdown(
            [(f"{names[c].name} ({c})", c) for c in info.others],
            value=info.others[0],
            label="Language",
        )
        measure = gr.Dropdown(measures, value=measures[0], label="Measure")
        concept = gr.Dropdown(
            [ALL_CONCEPTS] + [(f"{n} ({c})", c) for c, n in info.concept_names.items()],
            value=ALL_CONCEPTS,
            label="Concept (raw cosine only)",
            visible=bool(info.concepts),
        )
    every = list(info.variants)
    variants = gr.CheckboxGroup(every, value=every, label="Variants")

    def draw(language: str, variants: list[str], measure: str, concept: str) -> Any:
        chosen = [v for v in every if v in variants]
        return plot_curves(data.results, language, chosen, measure, concept)

    plot = gr.Plot(draw(info.others[0], every, measures[0], ALL_CONCEPTS))
    for control in (language, variants, measure, concept):
        control.change(draw, [language, variants, measure, concept], plot)


def _commitment_tab(data: PageData) -> None:
    if not data.layers:
        gr.Markdown("No commitment layers: the suite has no probes.")
    else:
        gr.Plot(plot_commitment(data.results, data.layers))
        gr.Markdown(
            "identical: share of concepts with the same input as in the pivot language; they are "
            "left out. shared: share of tokens in common with it. never: no layer qualifies. "
            "untestable: fewer than 4 concepts, or less than half of them, have different inputs "
            "in both languages. A commitment layer says that the concept or its category is "
            "shared; only the measure within the category is about the concept alone."
        )
    if data.results.disagreements:
        lines = "\n".join(f"- {text}" for text in data.results.disagreements)
        gr.Markdown(f"Where standardised and raw vectors disagree:\n\n{lines}")


def _contrasts_tab(data: PageData) -> None:
    if not data.contrasts:
        gr.Markdown("No contrasts: they need two variants, and 8 concepts or corpus documents.")
        return
    table = _table(data.contrasts)
    choices = {name: [ANY, *dict.fromkeys(table[name])] for name in ("family", "measure", "window")}
    first = {"family": choices["family"][1], "measure": ANY, "window": choices["window"][1]}

    def choose(family: str, measure: str, window: str) -> Any:
        return matching(table, family=family, measure=measure, window=window)

    with gr.Row():
        controls = [
            gr.Dropdown(found, value=first[name], label=name.capitalize())
            for name, found in choices.items()
        ]
    frame = gr.Dataframe(
        choose(**first), wrap=True, label="Differences between variants, paired by item"
    )
    gr.Markdown(
        "p_holm is corrected over the rows of one family, measure and window. detectable is the "
        "smallest effect that the test would find with 80% power. A contrast between regions must "
        "exceed the same difference between two training seeds (families seed and seed "
        "specificity)."
    )
    for control in controls:
        control.change(choose, controls, frame)


def _failures_tab(data: PageData) -> None:
    if data.failures is None:
        gr.Markdown(f"Not computed yet: run `{files.MAKE_FAILURES}`.")
        return
    if not data.failures:
        gr.Markdown("Nothing was measured: this run has no perturbed text or no regional variant.")
        return
    shown = [_visible(case) for case in data.failures]
    table = _table(shown).drop(columns=list(HIDDEN_COLUMNS))
    with gr.Row():
        category = gr.Dropdown([ANY, *sorted(set(table["category"]))], value=ANY, label="Category")
        variant = gr.Dropdown([ANY, *sorted(set(table["variant"]))], value=ANY, label="Variant")

    def choose(category: str, variant: str) -> Any:
        return matching(table, category=category, variant=variant)

    frame = gr.Dataframe(table, wrap=True)
    for control in (category, variant):
        control.change(choose, [category, variant], frame)


def _visible(case: FailureCase) -> FailureCase:
    """Return the case with hidden characters replaced by their code points."""
    text, parent = errors.escape_hidden(case.input), errors.escape_hidden(case.parent)
    return dataclasses.replace(case, input=text, parent=parent)


def _tokens_tab(data: PageData) -> None:
    if not data.tokens["probes"]:
        gr.Markdown("No tokens of probes: the suite has no probes.")
        return
    rows = [
        {
            "stimulus": name,
            "text": errors.escape_hidden(probe["text"]),
            "surface form": probe["surface"],
            "tokens": len(probe["token_ids"]),
            "concept tokens": len(probe["span_tokens"]),
            "tokens per character": probe["tokens_per_character"],
            "final token id": probe["final_token"],
        }
        for name, probe in data.tokens["probes"].items()
    ]
    label = f"Tokenizer of variant {data.tokens['variant']}"
    gr.Dataframe(pd.DataFrame(rows), wrap=True, label=label)


def _pair_tab(data: PageData, model: PairModel) -> None:
    names, others = suites.load_languages(), data.results.info.others
    with gr.Row():
        variant = gr.Dropdown(model.suite.names(), value=model.suite.names()[0], label="Variant")
        language = gr.Dropdown(
            [(names[c].name, c) for c in others],
            value=others[0],
            label="Language of the second sentence",
        )
    left = gr.Textbox(label=f"{names[model.suite.pivot].name} sentence")
    right = gr.Textbox(label="The other sentence")
    button = gr.Button("Compute", variant="primary")
    plot = gr.Plot()

    def compute(variant: str, language: str, left: str, right: str) -> Any:
        try:
            return plot_pair(data.results, variant, language, model.cosine(variant, left, right))
        except StudyError as error:
            raise gr.Error(str(error), print_exception=False) from None

    button.click(compute, [variant, language, left, right], plot)


def _published_tab(data: PageData) -> None:
    if data.published is None:
        gr.Markdown(f"Not computed yet: run `{MAKE_PUBLISHED}`.")
        return
    layer = data.published.matched_layer
    region = data.published.difference_in_differences["matched_layer"]
    gr.Markdown(
        "These are the **original study's** raw last-token cosines of Tiny Aya, re-analysed; **not "
        f"a run of this project**. Source: {data.published.source}. The table has ratios of mean "
        "cosine to base, minus 1, with 95% intervals over 20 concepts. The study published no "
        "mismatched control, so these numbers cannot show alignment itself."
    )
    header, rows = ratio_table(data.published)
    gr.Dataframe(rows, headers=header, wrap=True)
    gr.Markdown(
        f"fire - earth at layer {layer}, South Asia minus Africa and West Asia: "
        f"{region.estimate:+.3f} [{region.lower:.3f}, {region.upper:.3f}]. Exact p over "
        f"language labels: {region.p_language:.3f} (smallest possible value: "
        f"{region.p_language_floor:.3f})."
    )
