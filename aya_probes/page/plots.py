"""The interactive figures of the page."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from aya_probes import figures
from aya_probes.results.alignment import Results
from aya_probes.results.curves import CONCEPT, COSINE, MISMATCHED, SENTENCE, Curve, Values
from aya_probes.results.tables import Layers

MEASURES = {
    "concept alignment (primary)": ("span_mean", CONCEPT),
    "sentence alignment": ("content_mean", SENTENCE),
    "raw cosine, with its mismatched control": ("content_mean", COSINE),
    "raw cosine on the last token (as published)": ("last", COSINE),
}
ALL_CONCEPTS = "all concepts"


def _translucent(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.12)"


def _add_line(figure: go.Figure, mean: Values, name: str, colour: str, dash: str) -> None:
    figure.add_scatter(
        x=list(range(len(mean))),
        y=list(mean),
        name=name,
        mode="lines+markers",
        marker={"size": 4},
        line={"color": colour, "dash": dash},
        hovertemplate="layer %{x}: %{y:.3f}<extra>" + name + "</extra>",
    )


def _add_curve(figure: go.Figure, curve: Curve, variant: str, colour: str, dash: str) -> None:
    """Add a curve with its 95% band, and its value at final_norm."""
    layers = list(range(len(curve.mean)))
    if curve.lower and curve.upper:
        figure.add_scatter(
            x=layers + layers[::-1],
            y=[*curve.upper, *curve.lower[::-1]],
            fill="toself",
            fillcolor=_translucent(colour),
            mode="lines",
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        )
    _add_line(figure, curve.mean, variant, colour, dash)
    figure.add_scatter(
        x=[len(layers) + 0.5],
        y=[curve.final_norm],
        mode="markers",
        marker={"color": colour, "symbol": "diamond", "size": 8},
        name=f"{variant}, final_norm",
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


def _add_audit(figure: go.Figure, results: Results, language: str, pooling: str) -> None:
    """Write the audit of the first variant's inputs, and whether they are untestable."""
    _add_note(figure, figures.audit_text(results, language, pooling), "#555555", 1, -0.17)
    inputs = results.input_share(results.info.variants[0], language, pooling)
    if inputs.untestable:
        text = (
            f"untestable: {inputs.share:.0%} of the concepts have identical inputs in both "
            "languages, so the curve is no evidence"
        )
        _add_note(figure, text, "#a00000", 0.5, 1.02)


def plot_curves(
    results: Results, language: str, variants: Sequence[str], measure: str, concept: str
) -> go.Figure:
    """Return the curves of one language, with 95% bands, controls and the audit of the inputs."""
    info, figure = results.info, go.Figure()
    pooling, name = MEASURES[measure]
    colours = figures.colours(info)
    for variant in variants:
        colour = colours[variant]
        dash = "dash" if info.roles[variant] == "untrained" else "solid"
        single = results.cosines.get((variant, concept, language))
        curve = results.curve(name, variant, language, pooling)
        if single is not None and (pooling, name) == ("content_mean", COSINE):
            _add_line(figure, single, f"{variant}, {concept}", colour, dash)
        elif curve is not None:
            _add_curve(figure, curve, variant, colour, dash)
        control = results.curve(MISMATCHED, variant, language, pooling)
        if name == COSINE and control is not None:
            _add_line(figure, control.mean, f"{variant}, mismatched (control)", colour, "dot")
    _add_audit(figure, results, language, pooling)
    figure.update_layout(
        title=f"{figures.language_name(language)}: {measure}",
        height=520,
        template="plotly_white",
        xaxis_title="layer (0 = embeddings, i = output of block i; diamond: final_norm)",
        yaxis_title="cosine" if name == COSINE else "A (0 = chance)",
    )
    return figure


def _committed(cell: Layers) -> int | None:
    return cell.commitment_layer if cell.status == "committed" else None


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
