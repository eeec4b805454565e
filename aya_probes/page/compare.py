"""The view of two runs side by side."""

from __future__ import annotations

from aya_probes import figures
from aya_probes.charts import lines
from aya_probes.charts.lines import Line, LinePanel
from aya_probes.charts.svg import escape
from aya_probes.charts.variants import Look, legend
from aya_probes.findings.questions import find
from aya_probes.page import html
from aya_probes.page.data import PageData
from aya_probes.page.measures import MEASURES, available
from aya_probes.page.view import Content, Control, Settings, View, options
from aya_probes.results.failures import load_category_tests
from aya_probes.results.whole_run import Run, load_run
from aya_probes.run_folder import RunPaths

FACTS = ("suite", "label", "pivot", "n", "wordings", "n_bootstrap", "n_permutations", "seed")


def make(data: PageData) -> View:
    """Return the view."""
    names = list(data.others)
    controls = (Control("other", "Other run", options(names), names[:1]),)

    def show(settings: Settings) -> Content:
        if not names:
            command = "uv run pipeline.py --suite NAME --run-dir runs/NAME"
            text = f"No other run was found. Make one with <code>{command}</code>."
            return Content([], below=f'<p class="missing">{text}</p>')
        return _content(data, settings["other"][0])

    return View(
        "compare",
        "Compare runs",
        "This run beside another one: what they measured, and what they found. Runs with other "
        "texts or models differ for many reasons; no test compares them here.",
        controls if names else (),
        show,
    )


def _content(data: PageData, name: str) -> Content:
    paths = RunPaths(data.others[name])
    other = load_run(paths)
    tests = load_category_tests(paths.failure_tests) if paths.failure_tests.is_file() else None
    runs = {"this run": data.run, name: other}
    rows = [
        {"run": title, "question": f.question, "verdict": s.verdict, "finding": s.text, "n": s.n}
        for title, run, its in (("this run", data.run, data.tests), (name, other, tests))
        for f in find(run, its)
        for s in f.statements
    ]
    columns = []
    for title, run, its in (("this run", data.run, data.tests), (name, other, tests)):
        cards = "".join(html.finding(f) for f in find(run, its))
        columns.append(
            f"<div><h3>{escape(title)}: {escape(run.results.info.suite)}</h3>{cards}</div>"
        )
    facts = _facts(runs)
    charts, seen = _charts(data.run, other, name)
    return Content(
        rows,
        charts,
        legend(seen) if charts else "",
        f'{facts}<div class="two">{"".join(columns)}</div>',
        "The first measure that both runs have, on the base variant of each, with 95% intervals."
        if charts
        else "",
    )


def _facts(runs: dict[str, Run]) -> str:
    rows = [[fact, *(getattr(run.results.info, fact) for run in runs.values())] for fact in FACTS]
    infos = [run.results.info for run in runs.values()]
    rows.append(["languages", *(" ".join(info.languages) for info in infos)])
    rows.append(["variants", *(" ".join(info.variants) for info in infos)])
    corpora = (info.parallel_corpus for info in infos)
    rows.append(["parallel corpus", *(f"{c['corpus']}, {c['items']} items" for c in corpora)])
    return html.table(["", *runs], rows, "What the runs compare")


def _charts(mine: Run, other: Run, name: str) -> tuple[list[str], dict[str, Look]]:
    """Return a panel per common language, with base of both runs."""
    seen = {
        "mine": Look("this run", "v0", None, "circle"),
        "other": Look(name, "v2", "6 3", "square"),
    }
    both = [m for m in available(mine.results) if m in available(other.results)]
    codes = [c for c in mine.results.info.others if c in other.results.info.others]
    panels = []
    for code in codes if both else []:
        found = []
        for key, run in (("mine", mine), ("other", other)):
            curve = run.results.curve(both[0], run.base, code)
            if curve is not None:
                found.append(Line(seen[key].label, seen[key], curve, strong=True))
        panels.append(LinePanel(figures.language_name(code), MEASURES[both[0]].label, found))
    last = max(run.results.info.last_layer for run in (mine, other))
    between = lines.value_range(panels)
    return [lines.draw(panel, last, between) for panel in panels], seen
