"""Concept alignment as Markdown tables: peaks, tests, ceilings, shapes, commitment layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aya_probes import project
from aya_probes.results.curves import (
    CEILING,
    CONCEPT,
    DISATTENUATED,
    DOMINANCE,
    PARALLEL_RETRIEVAL,
    PRIMARY,
    RAW,
    SENTENCE,
    WITHIN_CATEGORY,
    Curve,
    Shape,
)
from aya_probes.results.tables import Layers
from aya_probes.results.whole_run import ALPHA, Run, load_run
from aya_probes.run_folder import RunPaths

FLORES_RUN = RunPaths(project.ROOT / "runs" / "mini-flores")
SHORT = {CONCEPT: "concept", SENTENCE: "sentence"}


# --- words ------------------------------------------------------------------------------------


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with ``digits`` decimals, nothing for a missing one."""
    return "" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def interval(curve: Curve, layer: int, digits: int = 2) -> str:
    """Return ``mean [lower, upper]`` of a curve at a layer, or that it is undefined there."""
    mean, lower, upper = (curve.array(name)[layer] for name in ("mean", "lower", "upper"))
    if np.isnan(mean):
        return "undefined"
    bounds = "" if np.isnan(lower) else f" [{lower:.{digits}f}, {upper:.{digits}f}]"
    return f"{mean:.{digits}f}{bounds}"


def at_peak(curve: Curve | None) -> str:
    """Return the interval at the layer of the largest mean, and that layer."""
    if curve is None or curve.peak is None:
        return "undefined"
    return f"{interval(curve, curve.peak)} at {curve.peak}"


def change(values: tuple[float, float, float] | None) -> str:
    """Return an estimate with its interval, signed."""
    return "" if values is None else "{:+.2f} [{:.2f}, {:.2f}]".format(*values)


# --- is there alignment? ------------------------------------------------------------------------


def peaks(paths: RunPaths) -> str:
    """Largest concept alignment per language and variant, raw below; the audit of inputs."""
    run = load_run(paths)
    results, shown = run.results, run.shown
    rows = []
    for code in results.info.others:
        line = [code]
        for v in shown:
            raw = results.curve(CONCEPT + RAW, v, code)
            line.append(f"{at_peak(results.curve(CONCEPT, v, code))}<br>raw {at_peak(raw)}")
        inputs = results.input_share(shown[0], code)
        line.append(f"{inputs.share:.0%}" + (" untestable" if inputs.untestable else ""))
        line.append(f"{run.layers[shown[0], code].shared_tokens:.0%}")
        rows.append(line)
    return markdown(["language", *shown, "identical inputs", "shared tokens"], rows)


def detection(paths: RunPaths) -> str:
    """Smallest max-T p over layers 1..L: standardised / raw, and over all languages too."""
    run = load_run(paths)
    columns = [(variant, measure) for variant in run.shown for measure in PRIMARY]
    rows = []
    for code in run.results.info.others:
        line = [code]
        for variant, measure in columns:
            pair = (run.smallest_p(measure + suffix, variant, code) for suffix in ("", RAW))
            line.append(" / ".join(number(p, 4) for p in pair))
        joint = (run.smallest_p(measure, run.base, code, "p_joint") for measure in PRIMARY)
        rows.append([*line, *(number(p, 4) for p in joint)])
    header = [f"{v}, {SHORT[m]}: standardised / raw" for v, m in columns]
    header += [f"{run.base}, {SHORT[m]}: over all languages too" for m in PRIMARY]
    return markdown(["language", *header], rows)


def within_category(paths: RunPaths) -> str:
    """Alignment against all concepts (the concept or its category) and within the category."""
    run = load_run(paths)
    others = [v for v in run.shown if v != run.base]

    def cell(measure: str, variant: str, code: str) -> str:
        p = number(run.smallest_p(measure, variant, code), 4)
        return f"{at_peak(run.results.curve(measure, variant, code))}, p {p or 'none'}"

    rows = []
    for code in run.results.info.others:
        within = run.results.curve(WITHIN_CATEGORY, run.base, code)
        n = "" if within is None or within.n is None else str(within.n)
        both = (cell(m, run.base, code) for m in (CONCEPT, WITHIN_CATEGORY))
        rows.append([code, n, *both, *(cell(WITHIN_CATEGORY, v, code) for v in others)])
    header = [
        "language",
        "n within",
        f"{run.base}, all concepts: concept or category",
        f"{run.base}, within the category: the concept",
        *(f"{v}, within" for v in others),
    ]
    return markdown(header, rows)


def dominance(paths: RunPaths) -> str:
    """Share of squared length in the largest 1, 3 and 10 dimensions of base's raw vectors."""
    run = load_run(paths)
    info = run.results.info
    layers = (1, (1 + info.last_layer) // 2, info.last_layer)

    def cell(variant: str, code: str, layer: int) -> str:
        curves = (run.curve(name, variant, code) for name in DOMINANCE)
        return " / ".join(f"{curve.array()[layer]:.0%}" for curve in curves)

    rows = [[c, *(cell(run.base, c, n) for n in layers)] for c in info.languages]
    header = [f"layer {n}: 1 / 3 / 10 dimensions" for n in layers]
    for name in info.by_role("untrained"):
        rows.append([f"{info.pivot}, {name}", *(cell(name, info.pivot, n) for n in layers)])
    return markdown(["language", *header], rows)


# --- where in the network? ----------------------------------------------------------------------


def commitment(paths: RunPaths) -> str:
    """Commitment and release layer with interval and raw, and the published rule's layer."""
    run = load_run(paths)

    def cell(record: Layers) -> str:
        text = record.span
        if record.commitment_lower is not None:
            text += f" [{record.commitment_lower}, {record.commitment_upper}]"
        if record.commitment_raw is not None:
            raw = "never" if record.commitment_raw == -1 else record.commitment_raw
            text += f"; raw {raw}"
        return text

    rows = []
    for code in run.results.info.others:
        line = [code, *(cell(run.layers[v, code]) for v in run.shown)]
        rows.append([*line, _published_rule(run, code)])
    return markdown(["language", *run.shown, f"published rule, {run.base}"], rows)


def _published_rule(run: Run, code: str) -> str:
    """Return the layer of the published rule on the base variant."""
    record = run.layers[run.base, code]
    artefact = " (identical inputs)" if record.legacy_status == "identical_input" else ""
    return ("never" if record.legacy_layer == -1 else f"{record.legacy_layer}") + artefact


def ceilings(paths: RunPaths) -> str:
    """Noise ceiling of base, and alignment relative to it: first, largest and last layer."""
    run = load_run(paths)
    last, rows = run.results.info.last_layer, []
    for code in run.results.info.others:
        curve = run.results.curve(DISATTENUATED, run.base, code)
        shape = run.results.shapes.get((run.base, code))
        ceiling = run.curve(CEILING, run.base, code).array()
        peak = None if curve is None else curve.peak
        if curve is None or peak is None:
            rows.append([code, *[""] * 4, "undefined", *[""] * 3])
            continue
        between = "" if shape is None or not shape.peak_interval else _layers(shape.peak_interval)
        shown = (0, peak, last)
        rows.append(
            [
                code,
                " / ".join(number(float(ceiling[n]), 2) for n in shown),
                interval(curve, 0),
                f"{interval(curve, peak)} at {peak}{between}",
                interval(curve, last),
                "" if shape is None else change(shape.rise),
                "" if shape is None else change(shape.decline),
                "" if shape is None or shape.retained is None else f"{shape.retained:.0%}",
            ]
        )
    header = (
        f"language, ceiling at layer 0 / the peak / {last}, relative at 0, relative at the peak, "
        f"relative at {last}, rise, decline, kept at {last}"
    )
    pivot = run.curve(CEILING, run.base, run.results.info.pivot)
    return markdown(header.split(", "), rows) + (
        f"\n\nCeiling of {run.results.info.pivot}: {interval(pivot, 0)} at layer 0, "
        f"{at_peak(pivot)}, {interval(pivot, last)} at {last}. Rise and decline: the largest value "
        "minus that at the first and at the last layer; its layer is chosen on the same data, and "
        "only the label of the shape is a test."
    )


def _layers(between: tuple[int, int]) -> str:
    return " (95%: {}-{})".format(*between)


def shapes(paths: RunPaths) -> str:
    """Shape label per language and variant, with the peak's interval and what is kept at L."""
    run = load_run(paths)

    def cell(shape: Shape | None) -> str:
        if shape is None:
            return "not tested"
        parts = [shape.label]
        if shape.peak_layer is not None:
            between = _layers(shape.peak_interval) if shape.peak_interval else ""
            parts.append(f"peak {shape.peak_layer}{between}")
            if shape.retained is not None:
                parts.append(f"keeps {shape.retained:.0%}")
        return "<br>".join(parts)

    rows = [
        [code, *(cell(run.results.shapes.get((v, code))) for v in run.shown)]
        for code in run.results.info.others
    ]
    return markdown(["language", *run.shown], rows)


def agnostic(paths: RunPaths) -> str:
    """Mean alignment over testable pairs with the pivot and without it, at the best layer."""
    run = load_run(paths)
    rows = []
    for measure in PRIMARY:
        for variant in run.shown:
            cells = []
            for family in ("with_pivot", "without_pivot"):
                curve = run.results.agnostic.get((measure, variant, family))
                cells.append("" if curve is None else f"{at_peak(curve)} ({curve.pairs} pairs)")
            rows.append([f"`{measure}`", variant, *cells])
    return markdown(["measure", "variant", "pairs with English", "pairs without English"], rows)


# --- the usual measure --------------------------------------------------------------------------


def usual_measure(paths: RunPaths) -> str:
    """What raw vectors would have said of base, beside what standardised vectors say."""
    run, flores = load_run(paths), load_run(FLORES_RUN)
    rows = []
    for code in run.results.info.others:
        record = run.layers[run.base, code]
        line = [code]
        for suffix, layer in ((RAW, record.commitment_raw), ("", record.commitment_layer)):
            line.append(at_peak(run.results.curve(CONCEPT + suffix, run.base, code)))
            line.append(number(run.smallest_p(CONCEPT + suffix, run.base, code), 4))
            line.append(record.status if layer is None else "never" if layer < 0 else str(layer))
        for suffix in (RAW, ""):
            line.append(at_peak(flores.results.curve(PARALLEL_RETRIEVAL + suffix, run.base, code)))
        rows.append([*line, _published_rule(run, code)])
    each = ("A", "p", "commitment layer")
    header = [
        "language",
        *(f"raw: {what}" for what in each),
        *(f"standardised: {what}" for what in each),
        "FLORES retrieval: raw",
        "FLORES retrieval: standardised",
        "published rule: commitment layer",
    ]
    heads = [f", {variant}:" for variant in run.shown]
    differ = "\n".join(
        f"- {text}." for text in run.results.disagreements if any(head in text for head in heads)
    )
    words = f"Where the two disagree (max-T p ≤ {ALPHA}):\n\n{differ}" if differ else ""
    return "\n\n".join(part for part in (markdown(header, rows), words) if part)


TABLES: tuple[Callable[[RunPaths], str], ...] = (
    peaks,
    detection,
    within_category,
    dominance,
    commitment,
    ceilings,
    shapes,
    agnostic,
    usual_measure,
)
