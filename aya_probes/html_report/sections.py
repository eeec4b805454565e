"""The parts of the report that show numbers: charts, and tables beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from aya_probes import figures
from aya_probes.charts.svg import escape
from aya_probes.page import curves, differences, html, map_view
from aya_probes.page.data import PageData
from aya_probes.page.measures import MEASURES, available
from aya_probes.page.view import Content, View, complete
from aya_probes.results.curves import (
    CONCEPT,
    DISATTENUATED,
    PARALLEL_ALIGNMENT,
    PARALLEL_RETRIEVAL,
    RAW,
    WITHIN_CATEGORY,
)

DRAWN = (CONCEPT, DISATTENUATED, WITHIN_CATEGORY, PARALLEL_ALIGNMENT, PARALLEL_RETRIEVAL)
"""Measures whose curves are drawn, where the run has them."""
COMPARED = (CONCEPT, PARALLEL_ALIGNMENT)
"""Measures whose differences are drawn."""
FAMILIES = ("specificity", "region", "adaptation", "post-training", "seed", "trained")


def figure(number: int, title: str, content: Content) -> str:
    """Return charts as one numbered figure with its caption."""
    charts = "".join(content.charts)
    caption = f"Figure {number}. {title}. {content.caption}"
    return (
        f'<figure class="whole">{content.legend}<div class="charts">{charts}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _show(view: View, **settings: Sequence[str]) -> Content:
    return view.show(complete(view, settings))


def charts(data: PageData) -> Iterator[tuple[str, str, Content]]:
    """Yield the section, title and content of every figure that the run has."""
    curve_view, has = curves.make(data), available(data.results)
    everything = list(data.results.info.others)
    for measure in (m for m in DRAWN if m in has):
        shown = _show(curve_view, measure=[measure], languages=everything)
        yield "Curves by layer", _capital(MEASURES[measure].label), shown
    if has:
        map_ = map_view.make(data)
        measure = next((m for m in COMPARED if m in has), has[0])
        label = MEASURES[measure].label
        yield "Map", f"{_capital(label)}, languages by layers", _show(map_, measure=[measure])
        if measure in COMPARED and (data.language_map or measure == CONCEPT):
            title = f"{_capital(label)} of every two languages"
            yield "Map", title, _show(map_, measure=[measure], show=[map_view.MATRIX])
    yield from _differences(data)


def _differences(data: PageData) -> Iterator[tuple[str, str, Content]]:
    view = differences.make(data)
    for measure in COMPARED:
        here = {r.family for r in data.contrasts if r.measure == measure and r.window == "all"}
        for family in (f for f in FAMILIES if f in here):
            title = f"{_capital(MEASURES[measure].label)}: {differences.FAMILIES[family]}"
            shown = _show(view, measure=[measure], family=[family], window=["all"])
            yield "Differences between variants", title, shown


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- tables -------------------------------------------------------------------------------------


def tables(data: PageData) -> Iterator[str]:
    """Yield the tables of the report that the run has numbers for."""
    run = data.run
    if run.results.info.concepts:
        yield _concepts(data)
    if any(m in available(run.results) for m in (PARALLEL_ALIGNMENT, PARALLEL_RETRIEVAL)):
        yield _corpus(data)
    rows = [r for r in run.contrasts if r.family == "specificity" and r.window == "all"]
    if rows:
        names = ("contrast", "measure", "targets", "others", "estimate", "lower", "upper")
        more = ("p", "p_holm", "detectable", "n", "groups", "p_language")
        cells = [[getattr(row, name) for name in (*names, *more)] for row in rows]
        header = [name.replace("_", " ") for name in (*names, *more)]
        yield html.table(header, cells, "Gain on own languages minus gain on others, all layers")
    tests = [t for t in data.tests or () if not t.subtype]
    if tests:
        fields = ("category", "language", "variant", "parents", "mean_delta", "lower", "upper")
        cells = [[getattr(t, name) for name in (*fields, "p", "p_holm")] for t in tests]
        header = [*(name.replace("_", " ") for name in fields), "p", "p (Holm)"]
        yield html.table(header, cells, "Changed texts: loss beyond the reference variant")


def _peak(data: PageData, measure: str, variant: str, code: str) -> str:
    curve = data.results.curve(measure, variant, code)
    if curve is None or curve.peak is None:
        return ""
    mean, lower, upper = (curve.array(f)[curve.peak] for f in ("mean", "lower", "upper"))
    bounds = "" if lower != lower else f" [{lower:.2f}, {upper:.2f}]"
    return f"{mean:.2f}{bounds} at {curve.peak}".replace("-", "−")


def _concepts(data: PageData) -> str:
    run, base = data.run, data.run.base
    untrained = run.results.info.by_role("untrained")
    rows = []
    for code in run.results.info.others:
        record = run.layers[base, code]
        inputs = run.results.input_share(base, code)
        p = run.smallest_p(CONCEPT, base, code)
        rows.append(
            [
                figures.language_name(code),
                _peak(data, CONCEPT, base, code),
                "" if p != p else f"{p:.4f}",
                _peak(data, CONCEPT + RAW, base, code),
                _peak(data, WITHIN_CATEGORY, base, code),
                record.span,
                *(_peak(data, CONCEPT, v, code) for v in untrained),
                f"{inputs.share:.0%}" + (" untestable" if inputs.untestable else ""),
                ", ".join(run.results.passing_cues(CONCEPT, code)),
            ]
        )
    header = ["language", "A", "max-T p", "A, raw", "A within category", "shared at layers"]
    header += [f"A, {v}" for v in untrained] + ["identical inputs", "cues that pass"]
    return html.table(header, rows, f"Concepts in {base}: largest value, interval and layer")


def _corpus(data: PageData) -> str:
    run = data.run
    rows = []
    for code in run.results.info.others:
        row = [figures.language_name(code)]
        row += [
            _peak(data, measure, variant, code)
            for measure in (PARALLEL_ALIGNMENT, PARALLEL_RETRIEVAL)
            for variant in run.shown
        ]
        rows.append(row)
    header = ["language"]
    header += [f"{what}, {v}" for what in ("A", "retrieval") for v in run.shown]
    corpus = run.results.info.parallel_corpus
    caption = f"{corpus['items']} items of {corpus['corpus']}: largest value, interval and layer"
    return html.table(header, rows, caption)


def missing(data: PageData) -> list[Mapping[str, str]]:
    """Return the results that the run does not have, and the commands that make them."""
    flag, paths = data.paths.flag(), data.paths
    named = (
        ("changed texts", paths.failure_cases, "uv run failure_classifier.py"),
        ("behaviour", paths.behaviour, "uv run behaviour.py"),
        ("logit lens", paths.logit_lens, "uv run logit_lens.py"),
        ("concept patching", paths.concept_patching, "uv run concept_patching.py"),
    )
    return [
        {"not in this report": what, "make it with": f"{command}{flag}"}
        for what, path, command in named
        if not path.is_file()
    ]
