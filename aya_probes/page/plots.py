"""The interactive figures of the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from aya_probes import figures
from aya_probes.figures import Style
from aya_probes.results.alignment import Results
from aya_probes.results.curves import (
    CEILING,
    CONCEPT,
    COSINE,
    DISATTENUATED,
    HUB_SKEW,
    MISMATCHED,
    NO_LENGTH,
    PARALLEL_ALIGNMENT,
    PARALLEL_CKA,
    PARALLEL_CSLS,
    PARALLEL_RETRIEVAL,
    RAW,
    SENTENCE,
    WITHIN_CATEGORY,
    Curve,
    Values,
    home_pooling,
)
from aya_probes.results.tables import Layers

ALIGNED, COSINE_AXIS = "A (0 = chance)", "cosine"
RATIO, RATE = "A relative to the ceiling (1 = as within a language)", "share of items"


@dataclass(frozen=True)
class Measure:
    """A measure that a visitor can choose."""

    name: str
    axis: str
    pooling: str | None = None
    """None means the measure's primary pooling."""


MEASURES = {
    "concept alignment (primary)": Measure(CONCEPT, ALIGNED),
    "concept alignment relative to the noise ceiling": Measure(DISATTENUATED, RATIO),
    "concept alignment within the category": Measure(WITHIN_CATEGORY, ALIGNED),
    "concept alignment on raw vectors (sensitivity)": Measure(CONCEPT + RAW, ALIGNED),
    "concept alignment without text length": Measure(CONCEPT + NO_LENGTH, ALIGNED),
    "noise ceiling: different sentences of the language itself": Measure(CEILING, ALIGNED),
    "sentence alignment": Measure(SENTENCE, ALIGNED),
    "sentence alignment on raw vectors (sensitivity)": Measure(SENTENCE + RAW, ALIGNED),
    "sentence alignment without text length": Measure(SENTENCE + NO_LENGTH, ALIGNED),
    "corpus: alignment": Measure(PARALLEL_ALIGNMENT, ALIGNED),
    "corpus: alignment on raw vectors (sensitivity)": Measure(PARALLEL_ALIGNMENT + RAW, ALIGNED),
    "corpus: two-way retrieval": Measure(PARALLEL_RETRIEVAL, RATE),
    "corpus: two-way retrieval with CSLS": Measure(PARALLEL_CSLS, RATE),
    "corpus: two-way retrieval on raw vectors (sensitivity)": Measure(
        PARALLEL_RETRIEVAL + RAW, RATE
    ),
    "corpus: unbiased CKA": Measure(PARALLEL_CKA, "CKA"),
    "corpus: unbiased CKA on raw vectors (sensitivity)": Measure(PARALLEL_CKA + RAW, "CKA"),
    "corpus: skew of hubs": Measure(HUB_SKEW, "skewness (0 = no hubs)"),
    "raw cosine, with its mismatched control": Measure(COSINE, COSINE_AXIS),
    "raw cosine on the last token (as published)": Measure(COSINE, COSINE_AXIS, "last"),
}
ALL_CONCEPTS = "all concepts"
DASHES = {"-": "solid", "--": "dash", ":": "dot"}


def available(results: Results) -> list[str]:
    """Return the keys of ``MEASURES`` that the run has."""
    measured = {key.measure for key in results.curves}
    return [label for label, measure in MEASURES.items() if measure.name in measured]


def _translucent(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.12)"


def _add_line(figure: go.Figure, mean: Values, name: str, style: Style) -> None:
    figure.add_scatter(
        x=list(range(len(mean))),
        y=list(mean),
        name=name,
        mode="lines" if style.repeats else "lines+markers",
        marker={"size": 4},
        opacity=style.alpha,
        line={"color": style.colour, "dash": DASHES[style.dash], "width": style.width},
        hovertemplate="layer %{x}: %{y:.3f}<extra>" + name + "</extra>",
    )


def _add_band(figure: go.Figure, lower: Values, upper: Values, colour: str, name: str = "") -> None:
    layers = list(range(len(upper)))
    figure.add_scatter(
        x=layers + layers[::-1],
        y=[*upper, *lower[::-1]],
        fill="toself",
        fillcolor=colour,
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
        name=name,
        showlegend=bool(name),
    )


def _add_curve(figure: go.Figure, curve: Curve, style: Style) -> None:
    """Add a curve with its 95% band and its value at final_norm, or a thin one without them."""
    if curve.lower and curve.upper and not style.repeats:
        _add_band(figure, curve.lower, curve.upper, _translucent(style.colour))
    _add_line(figure, curve.mean, style.label, style)
    if curve.final_norm is not None and not style.repeats:
        figure.add_scatter(
            x=[len(curve.mean) + 0.5],
            y=[curve.final_norm],
            mode="markers",
            marker={"color": style.colour, "symbol": "diamond", "size": 8},
            name=f"{style.label}, final_norm",
            showlegend=False,
        )


def _add_note(figure: go.Figure, text: str, colour: str, x: float, y: float) -> None:
    figure.add_annotation(
        x=x,
        y=y,
        xref="paper",
        yref="paper",
        showarrow=False,
        xanchor="right" if x == 1 else "center",
        font={"size": 11, "color": colour},
        text=text,
    )


def _add_audit(figure: go.Figure, results: Results, language: str, measure: Measure) -> None:
    """Write the audit of the first variant's inputs, and whether they are untestable."""
    pooling = measure.pooling or home_pooling(measure.name)
    text = figures.audit_text(results, language, pooling, measure.name)
    _add_note(figure, text.replace("\n", "; "), "#555555", 1, -0.17)
    if not results.info.concepts or measure.name.startswith("parallel"):
        return
    inputs = results.input_share(results.info.variants[0], language, pooling)
    if inputs.untestable:
        text = (
            f"untestable: {inputs.share:.0%} of the concepts have identical inputs in both "
            "languages, so the curve is no evidence"
        )
        _add_note(figure, text, figures.WARNING, 0.5, 1.02)


def plot_curves(
    results: Results, language: str, variants: Sequence[str], label: str, concept: str
) -> go.Figure:
    """Return the curves of one language, with 95% bands, controls and the audit of the inputs.

    ``label`` is a key of ``MEASURES``.
    """
    measure, figure = MEASURES[label], go.Figure()
    styles, base = figures.styles(results.info), figures.reference(results.info)
    ceiling = figures.pair_ceiling(results, base, language) if measure.name == CONCEPT else None
    if ceiling is not None:
        name = f"up to the noise ceiling ({base})"
        top = [value or 0.0 for value in ceiling.mean]
        _add_band(figure, (0.0,) * len(top), tuple(top), figures.CEILING_COLOUR, name)
    chance = None
    for variant in variants:
        style = styles[variant]
        single = results.cosines.get((variant, concept, language))
        curve = results.curve(measure.name, variant, language, measure.pooling)
        if single is not None and measure.name == COSINE and measure.pooling is None:
            _add_line(figure, single, f"{variant}, {concept}", style)
        elif curve is not None:
            _add_curve(figure, curve, style)
            chance = curve.chance
        control = results.curve(MISMATCHED, variant, language, measure.pooling)
        if measure.name == COSINE and control is not None:
            dotted = dataclasses.replace(style, dash=":")
            _add_line(figure, control.mean, f"{variant}, mismatched (control)", dotted)
    if chance is not None:
        figure.add_hline(chance, line={"dash": "dot", "width": 1}, annotation_text="chance")
    _add_audit(figure, results, language, measure)
    figure.update_layout(
        title=f"{figures.language_name(language)}: {label}",
        height=520,
        template="plotly_white",
        xaxis_title="layer (0 = embeddings, i = output of block i; diamond: final_norm)",
        yaxis_title=measure.axis,
    )
    return figure


def _cell_text(cell: Layers) -> str:
    """Return what a visitor reads over a cell of the commitment heatmap."""
    between = f"95% [{cell.commitment_lower}, {cell.commitment_upper}]"
    raw = "never" if cell.commitment_raw == -1 else f"layer {cell.commitment_raw}"
    lines = [cell.span]
    if cell.commitment_lower is not None:
        lines.append(between)
    if cell.commitment_raw is not None:
        lines.append(f"on raw vectors: {raw}")
    return "<br>".join(lines)


def plot_commitment(results: Results, layers: Sequence[Layers]) -> go.Figure:
    """Return the heatmap of commitment layers: variants down, languages across."""
    info = results.info
    cells = {(r.variant, r.language): r for r in layers if r.concept_id == "ALL"}
    rows = [[cells[variant, code] for code in info.others] for variant in info.variants]
    figure = go.Figure(
        go.Heatmap(
            z=[
                [r.commitment_layer if r.status == "committed" else None for r in row]
                for row in rows
            ],
            x=[
                f"{r.language}<br>identical {r.identical_input:.0%}<br>shared {r.shared_tokens:.0%}"
                for r in rows[0]
            ],
            y=list(info.variants),
            text=[[r.span for r in row] for row in rows],
            hovertext=[[_cell_text(r) for r in row] for row in rows],
            hoverinfo="text",
            zmin=1,
            zmax=info.last_layer,
            texttemplate="%{text}",
            colorscale="Viridis",
            reversescale=True,
            hoverongaps=False,
        )
    )
    figure.update_layout(
        template="plotly_white",
        height=420,
        title="Commitment to release layer (max-T p ≤ 0.05 and half of the peak, 3 layers)",
    )
    return figure


def plot_pair(results: Results, variant: str, language: str, cosine: Sequence[float]) -> go.Figure:
    """Return the curve of a typed pair, with the probes' matched and mismatched curves."""
    figure = go.Figure()
    figure.add_scatter(y=list(cosine), name="your pair", line={"color": "#D55E00", "width": 3})
    for name, label, dash in (
        (COSINE, "probes, same concept", "solid"),
        (MISMATCHED, "probes, mismatched (control)", "dot"),
    ):
        curve = results.curve(name, variant, language, "content_mean")
        if curve is not None:
            line = {"color": figures.UNTRAINED, "dash": dash}
            figure.add_scatter(y=list(curve.mean), name=label, line=line)
    figure.update_layout(
        template="plotly_white",
        height=480,
        title=f"{variant}: raw cosine on content_mean. "
        "It is high for unrelated sentences too: compare it with the control",
        xaxis_title=figures.LAYER_LABEL,
    )
    return figure
