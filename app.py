"""Browse the results in a page: curves, commitment, failures, tokens, provenance.

``--demo`` only reads committed results (no torch, no outbound request). Without it, one more tab
computes the curve of a sentence pair that the user types, with the suite's model.

Reads:  results/, p1_edge_cases.json (and data/stimulus_manifest.json without --demo)
Writes: nothing

    uv run app.py --demo
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aya_probes import command_line, errors, files, published, results, stimuli, suites
from aya_probes import figures as style
from aya_probes.errors import StudyError
from aya_probes.extraction import poolings
from aya_probes.run_folder import RunPaths

MEASURES = {
    "concept alignment (primary)": ("span_mean", "concept"),
    "sentence alignment": ("content_mean", "sentence"),
    "raw cosine, with its mismatched control": ("content_mean", "cosine"),
    "raw cosine on the last token (the published study's)": ("last", "cosine"),
}
ALL_CONCEPTS = "all concepts"
FAILURE_VIEW = (
    "category",
    "variant",
    "language",
    "input",
    "parent",
    "effect",
    "reference_effect",
    "delta",
    "lower",
    "upper",
    "rows",
    "verdict",
)
MAX_CHARACTERS = 2_000


@dataclass
class Results:
    """What the page shows, read once at start."""

    paths: RunPaths
    curves: dict[str, Any]
    commitment: Any
    contrasts: Any
    failures: Any | None
    tokens: dict[str, Any]
    published: dict[str, Any] | None

    @property
    def metadata(self) -> dict[str, Any]:
        return dict(self.curves["metadata"])

    @property
    def languages(self) -> list[str]:
        return [c for c in self.metadata["languages"] if c != self.metadata["pivot"]]


def load_results(paths: RunPaths) -> Results:
    """Read the results; only the failures may be missing. Raises StudyError naming the command."""
    failures = None
    if paths.failure_cases.is_file():
        failures = files.load_csv(paths.failure_cases, results.FAILURE_COLUMNS, files.MAKE_FAILURES)
    return Results(
        paths,
        results.load_curves(paths.curves),
        files.load_csv(paths.commitment, results.COMMITMENT_COLUMNS, files.MAKE_CURVES),
        files.load_csv(paths.contrasts, results.CONTRAST_COLUMNS, files.MAKE_CURVES),
        failures,
        files.load_json(paths.token_audit, files.MAKE_CURVES),
        _published(),
    )


def _published() -> dict[str, Any] | None:
    """Return the re-analysis that ships with the project: it is the same beside every run."""
    path = RunPaths().published
    return dict(files.load_json(path, published.MAKE_PUBLISHED)) if path.is_file() else None


# --- figures ----------------------------------------------------------------------------------


def _translucent(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.12)"


def curve_figure(
    curves: dict[str, Any], language: str, variants: Sequence[str], measure: str, concept: str
) -> Any:
    """Return the curves of one language: bands, final norm, controls, and untestable marks."""
    import plotly.graph_objects as go

    metadata = curves["metadata"]
    pooling, name = MEASURES[measure]
    colours, figure = style.colours(metadata), go.Figure()
    last = len(metadata["rows"]) - 2
    for variant in variants:
        colour = colours[variant]
        dash = "dash" if metadata["roles"][variant] == "untrained" else "solid"
        entry = curves["measures"][pooling][name][variant][language]
        rows = list(range(len(entry["mean"])))
        if concept != ALL_CONCEPTS and (pooling, name) == ("content_mean", "cosine"):
            single = curves["curves"][variant][concept][language]
            figure.add_scatter(
                x=rows,
                y=single,
                name=f"{variant}, {concept}",
                mode="lines",
                line={"color": colour, "dash": dash},
            )
        else:
            if entry["lower"] and entry["upper"]:
                figure.add_scatter(
                    x=rows + rows[::-1],
                    y=entry["upper"] + entry["lower"][::-1],
                    fill="toself",
                    fillcolor=_translucent(colour),
                    mode="lines",
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                )
            figure.add_scatter(
                x=rows,
                y=entry["mean"],
                name=variant,
                mode="lines+markers",
                marker={"size": 4},
                line={"color": colour, "dash": dash},
                hovertemplate="row %{x}: %{y:.3f}<extra>" + variant + "</extra>",
            )
            figure.add_scatter(
                x=[last + 1.5],
                y=[entry["final_norm"]],
                mode="markers",
                marker={"color": colour, "symbol": "diamond", "size": 8},
                name=f"{variant} after the final norm",
                showlegend=False,
            )
        if name == "cosine":
            control = curves["measures"][pooling]["mismatched"][variant][language]
            figure.add_scatter(
                x=rows,
                y=control["mean"],
                name=f"{variant}, mismatched (control)",
                mode="lines",
                line={"color": colour, "dash": "dot", "width": 1.5},
            )
        audit = curves["audit"]["identical_input"][pooling][variant][language]
        if variant == variants[0]:
            figure.add_annotation(
                x=1,
                y=-0.17,
                xref="paper",
                yref="paper",
                showarrow=False,
                xanchor="right",
                font={"size": 11},
                text=style.audit_text(curves, language, pooling),
            )
        if audit["untestable"] and variant == variants[0]:
            figure.add_annotation(
                x=0.5,
                y=1.02,
                xref="paper",
                yref="paper",
                showarrow=False,
                font={"color": "#a00000"},
                text=f"untestable: {audit['share']:.0%} of the concepts have identical inputs in "
                "both languages; this curve is no evidence",
            )
    title = suites.load_languages()[language].name
    figure.update_layout(
        title=f"{title}: {measure}",
        height=520,
        template="plotly_white",
        xaxis_title="row (0 = embeddings, i = output of block i; diamond: after the final norm)",
        yaxis_title="cosine" if name == "cosine" else "A (0 = chance)",
    )
    return figure


def commitment_figure(results: Results) -> Any:
    """Return the heatmap of commitment layers, variants x languages."""
    import plotly.graph_objects as go

    metadata = results.metadata
    whole = results.commitment[results.commitment["concept_id"] == "ALL"]
    cells = {(r["variant"], r["language"]): r for r in whole.to_dict("records")}
    variants, languages = metadata["variants"], results.languages
    layers, words = [], []
    for variant in variants:
        records = [cells[variant, code] for code in languages]
        layers.append(
            [float(r["commitment_layer"]) if r["status"] == "committed" else None for r in records]
        )
        words.append([style.commitment_text(record) for record in records])
    figure = go.Figure(
        go.Heatmap(
            z=layers,
            x=[
                f"{r['language']}<br>identical {float(r['identical_input']):.0%}"
                f"<br>shared {float(r['shared_tokens']):.0%}"
                for r in (cells[variants[0], code] for code in languages)
            ],
            y=variants,
            text=words,
            zmin=1,
            texttemplate="%{text}",
            colorscale="Viridis",
            reversescale=True,
            zmax=len(metadata["rows"]) - 2,
            hoverongaps=False,
        )
    )
    figure.update_layout(
        template="plotly_white",
        height=420,
        title="Commitment to release layer (max-T p ≤ 0.05 and half of the peak, 3 rows)",
    )
    return figure


def pair_figure(results: Results, variant: str, language: str, cosine: Sequence[float]) -> Any:
    """Return the curve of a typed pair next to the matched and mismatched controls."""
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.add_scatter(y=list(cosine), name="your pair", line={"color": "#D55E00", "width": 3})
    for name, label, dash in (
        ("cosine", "probes, same concept", "solid"),
        ("mismatched", "probes, mismatched (control)", "dot"),
    ):
        entry = results.curves["measures"]["content_mean"][name].get(variant, {}).get(language)
        if entry:
            figure.add_scatter(
                y=entry["mean"], name=label, line={"color": style.UNTRAINED, "dash": dash}
            )
    figure.update_layout(
        template="plotly_white",
        height=480,
        title=f"{variant}: raw cosine, "
        "content_mean. High for unrelated sentences too: read it against the control",
        xaxis_title="row (0 = embeddings, i = output of block i)",
    )
    return figure


# --- a typed pair -----------------------------------------------------------------------------


class PairModel:
    """Computes the curve of a typed sentence pair; keeps one variant in memory."""

    def __init__(self, paths: RunPaths, device: str) -> None:
        self.suite = stimuli.load_manifest(paths.manifest).suite
        self.device = device
        self.loaded: tuple[str, Any] | None = None

    def cosine(self, variant: str, left: str, right: str) -> list[float]:
        """Return the raw cosine per row 0..L of two sentences; StudyError on unusable text."""
        import numpy as np

        from aya_probes.extraction import encoding, packs

        for text in (left, right):
            if not text.strip():
                raise StudyError("type a sentence in both boxes")
            if len(text) > MAX_CHARACTERS:
                raise StudyError(f"a sentence has at most {MAX_CHARACTERS} characters")
        if self.loaded is None or self.loaded[0] != variant:
            self.loaded = None
            chosen = self.suite.variant(variant)
            from aya_probes.models import loading

            device, _ = loading.choose_device(self.device)
            dtype = loading.choose_dtype("auto", device)
            source = loading.resolve_source(chosen)
            self.loaded = (
                variant,
                loading.load_variant(chosen, source, device=device, dtype=dtype),
            )
        model = self.loaded[1]
        pooling = poolings.POOLINGS.index("content_mean")
        vectors = []
        for text in (left, right):
            stimulus = stimuli.Stimulus("typed", "probe", "typed", None, "und", text, None)
            pooled, _ = packs.pool_pack(model, [encoding.encode(model.tokenizer, stimulus)])
            vectors.append(pooled[:-1, 0, pooling])
        norms = [np.linalg.norm(v, axis=-1) for v in vectors]
        return [float(c) for c in (vectors[0] * vectors[1]).sum(-1) / (norms[0] * norms[1])]


# --- the page ---------------------------------------------------------------------------------


def build_page(results: Results, pair_model: PairModel | None) -> Any:
    """Return the Gradio page."""
    import gradio as gr

    metadata = results.metadata
    label = metadata["label"] or metadata["suite"]
    warning = (
        "" if metadata["suite"].startswith("tiny-aya") else " **These are not Tiny Aya results.**"
    )
    with gr.Blocks(title="aya-cross-lingual-probes", analytics_enabled=False) as page:
        gr.Markdown(
            f"# Cross-lingual concept alignment\nSuite **{metadata['suite']}**: {label}."
            f"{warning} {metadata['note']} {metadata['n']} concepts x {metadata['wordings']} "
            "wordings; bands are 95% bootstrap intervals over concepts."
        )
        with gr.Tab("Curves"):
            _curves_tab(gr, results)
        with gr.Tab("Commitment"):
            gr.Plot(commitment_figure(results))
            gr.Markdown(
                "identical: concepts with the same input as in English; shared: shared tokens. "
                "never: no row qualifies. untestable: at least 10% of the concepts have "
                "identical inputs in both languages, so any alignment there is a given."
            )
            gr.Dataframe(results.contrasts, label="Contrasts between variants (paired, Holm)")
        with gr.Tab("Failures"):
            _failures_tab(gr, results)
        with gr.Tab("Tokens"):
            _tokens_tab(gr, results)
        if pair_model is not None:
            with gr.Tab("Your own pair"):
                _pair_tab(gr, results, pair_model)
        with gr.Tab("Published curves, re-analysed"):
            _published_tab(gr, results)
        with gr.Tab("Provenance"):
            gr.JSON({k: v for k, v in metadata.items() if k != "concept_names"})
    return page


def _curves_tab(gr: Any, results: Results) -> None:
    metadata = results.metadata
    names = suites.load_languages()
    with gr.Row():
        language = gr.Dropdown(
            [(f"{names[c].name} ({c})", c) for c in results.languages],
            value=results.languages[0],
            label="Language",
        )
        measure = gr.Dropdown(list(MEASURES), value=next(iter(MEASURES)), label="Measure")
        concept = gr.Dropdown(
            [ALL_CONCEPTS] + [(f"{n} ({c})", c) for c, n in metadata["concept_names"].items()],
            value=ALL_CONCEPTS,
            label="Concept (raw cosine only)",
        )
    variants = gr.CheckboxGroup(metadata["variants"], value=metadata["variants"], label="Variants")

    def draw(language: str, variants: list[str], measure: str, concept: str) -> Any:
        chosen = [v for v in metadata["variants"] if v in variants]
        return curve_figure(results.curves, language, chosen, measure, concept)

    plot = gr.Plot(
        draw(results.languages[0], metadata["variants"], next(iter(MEASURES)), ALL_CONCEPTS)
    )
    for control in (language, variants, measure, concept):
        control.change(draw, [language, variants, measure, concept], plot)


def _failures_tab(gr: Any, results: Results) -> None:
    if results.failures is None:
        gr.Markdown(f"Not computed yet: run `{files.MAKE_FAILURES}`.")
        return
    table = results.failures[list(FAILURE_VIEW)].copy()
    for column in ("input", "parent"):
        table[column] = [errors.escape_hidden(text) for text in table[column]]
    any_value = "all"
    with gr.Row():
        category = gr.Dropdown(
            [any_value, *sorted(set(table["category"]))], value=any_value, label="Category"
        )
        variant = gr.Dropdown(
            [any_value, *sorted(set(table["variant"]))], value=any_value, label="Variant"
        )

    def rows(category: str, variant: str) -> Any:
        keep = [
            (category in (any_value, c)) and (variant in (any_value, v))
            for c, v in zip(table["category"], table["variant"], strict=True)
        ]
        return table[keep]

    shown = gr.Dataframe(table, wrap=True)
    for control in (category, variant):
        control.change(rows, [category, variant], shown)


def _published_tab(gr: Any, results: Results) -> None:
    if results.published is None:
        gr.Markdown(f"Not computed yet: run `{published.MAKE_PUBLISHED}`.")
        return
    layer = results.published["matched_layer"]
    region = results.published["difference_in_differences"]["matched_layer"]
    gr.Markdown(
        "The **original study's** raw last-token cosines of Tiny Aya, read again; **not a run of "
        f"this project**. Source: {results.published['source']}. Ratios of mean cosine to base, "
        "with 95% intervals over 20 concepts. No mismatched control was published, so that "
        "alignment itself cannot be decided from them."
    )
    header, rows = published.ratio_table(results.published)
    gr.Dataframe(rows, headers=header, wrap=True)
    gr.Markdown(
        f"fire - earth at layer {layer}, South Asia minus Africa and West Asia: "
        f"{region['estimate']:+.3f} [{region['lower']:.3f}, {region['upper']:.3f}]; exact p over "
        f"language labels {region['p_language']:.3f}, smallest reachable "
        f"{region['p_language_floor']:.3f}."
    )


def _tokens_tab(gr: Any, results: Results) -> None:
    import pandas as pd

    probes = results.tokens["probes"]
    gr.Dataframe(
        pd.DataFrame(
            [
                {
                    "stimulus": name,
                    "text": errors.escape_hidden(p["text"]),
                    "surface form": p["surface"],
                    "tokens": len(p["token_ids"]),
                    "concept tokens": len(p["span_tokens"]),
                    "tokens per character": p["tokens_per_character"],
                    "final token id": p["final_token"],
                }
                for name, p in probes.items()
            ]
        ),
        wrap=True,
        label=f"Tokenizer of variant {results.tokens['variant']}",
    )


def _pair_tab(gr: Any, results: Results, model: PairModel) -> None:
    names = suites.load_languages()
    with gr.Row():
        variant = gr.Dropdown(model.suite.names(), value=model.suite.names()[0], label="Variant")
        language = gr.Dropdown(
            [(names[c].name, c) for c in results.languages],
            value=results.languages[0],
            label="Language of the second sentence",
        )
    left = gr.Textbox(label=f"{names[model.suite.pivot].name} sentence")
    right = gr.Textbox(label="The other sentence")
    button = gr.Button("Compute", variant="primary")
    plot = gr.Plot()

    def compute(variant: str, language: str, left: str, right: str) -> Any:
        try:
            return pair_figure(results, variant, language, model.cosine(variant, left, right))
        except StudyError as error:
            raise gr.Error(str(error)) from None

    button.click(compute, [variant, language, left, right], plot)


def run(paths: RunPaths, *, demo: bool, host: str, port: int | None, device: str) -> None:
    """Serve the page until interrupted."""
    results = load_results(paths)
    model = None if demo else PairModel(paths, device)
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
    if demo:
        os.environ["HF_HUB_OFFLINE"] = "1"
    import gradio as gr

    page = build_page(results, model)
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    page.launch(server_name=host, server_port=port, theme=theme, quiet=False, footer_links=[])


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    parser = command_line.common_parser("app.py", "Browse the results in a page.", "device")
    parser.add_argument("--demo", action="store_true", help="committed results only, no model")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on")
    parser.add_argument("--port", type=command_line.positive_int, help="port (default: a free one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and serve; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        run(
            RunPaths(Path(args.run_dir)),
            demo=args.demo,
            host=args.host,
            port=args.port,
            device=args.device,
        )

    return command_line.run_stage("app.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
