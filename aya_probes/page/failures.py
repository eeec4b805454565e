"""The view of perturbed texts: tests by category, and every text beside its parent."""

from __future__ import annotations

from aya_probes import figures, files
from aya_probes.charts.svg import escape
from aya_probes.page import html
from aya_probes.page.data import PageData
from aya_probes.page.view import Content, Control, Settings, View
from aya_probes.results.failures import CategoryTest, FailureCase

ANY, PAGE = "all", 25
VERDICTS = ("regional_worse", "regional_better", "no_difference", "no_op")


def make(data: PageData) -> View:
    """Return the view."""
    cases = data.failures or []
    pages = max(1, -(-len(cases) // PAGE))

    def filter_(name: str, label: str, values: list[str]) -> Control:
        return Control(name, label, [(v, v) for v in (ANY, *values)], [ANY])

    languages = sorted({case.language for case in cases})
    named = [(ANY, ANY), *((figures.language_name(code), code) for code in languages)]
    controls = (
        filter_("category", "Category", sorted({case.category for case in cases})),
        Control("language", "Language", named, [ANY]),
        filter_("variant", "Variant", sorted({case.variant for case in cases})),
        filter_("verdict", "Verdict", [v for v in VERDICTS if any(c.verdict == v for c in cases)]),
        Control("page", "Page of texts", [(str(n), str(n)) for n in range(1, pages + 1)], ["1"]),
    )

    def show(settings: Settings) -> Content:
        if data.failures is None:
            command = f"{files.MAKE_FAILURES}{data.paths.flag()}"
            text = f"Not computed in this run. Make it with <code>{escape(command)}</code>."
            return Content([], below=f'<p class="missing">{text}</p>')
        if not cases:
            text = "Nothing was measured: this run has no perturbed text or no regional variant."
            return Content([], below=html.paragraph(text))
        return _content(data, cases, settings)

    return View(
        "failures",
        "Failures",
        "Texts changed in one known way, and how much more a regional variant loses than its "
        "reference. Intervals of single texts are too narrow to claim a text: see the tests.",
        controls if cases else (),
        show,
    )


def _matches(record: FailureCase | CategoryTest, settings: Settings, *names: str) -> bool:
    return all(settings[n][0] in (ANY, getattr(record, n)) for n in names)


def _content(data: PageData, cases: list[FailureCase], settings: Settings) -> Content:
    chosen = [
        c for c in cases if _matches(c, settings, "category", "language", "variant", "verdict")
    ]
    page = min(int(settings["page"][0]), max(1, -(-len(chosen) // PAGE)))
    first = (page - 1) * PAGE
    shown = chosen[first : first + PAGE]
    tests = [
        t
        for t in data.tests or ()
        if not t.subtype and _matches(t, settings, "category", "language", "variant")
    ]
    where = f"Texts {first + 1} to {first + len(shown)} of {len(chosen)}" if shown else "No text"
    heading = f"<h3>{where}</h3>" + '<p class="caption">Open a row to compare both texts.</p>'
    body = "".join(_case(case) for case in shown)
    return Content(html.as_rows(chosen), below=f"{_tests(tests)}{heading}{body}")


def _tests(tests: list[CategoryTest]) -> str:
    header = ["category", "language", "variant", "sentences", "mean delta", "95%", "p (Holm)"]
    rows = []
    for t in tests:
        bounds = "" if t.lower is None else f"[{t.lower:.3f}, {t.upper:.3f}]".replace("-", "−")
        language, delta = figures.language_name(t.language), _signed(t.mean_delta)
        p = "too few" if t.p_holm is None else f"{t.p_holm:.3f}"
        rows.append([t.category, language, t.variant, t.parents, delta, bounds, p])
    found = html.table(header, rows, "Tests over sentences, by category and language")
    count = sum(t.p_holm is not None and t.p_holm <= 0.05 for t in tests)
    summary = f"Tests by category and language: {count} of {len(tests)} established"
    return f"<details><summary>{summary}</summary>{found}</details>"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}".replace("-", "−")


def _case(case: FailureCase) -> str:
    """Return a text that opens to show its parent beside it."""
    parent, text = html.beside(case.parent, case.input)
    head = (
        f'<span class="what">{escape(case.category)}</span> · '
        f"{escape(figures.language_name(case.language))} · {escape(case.variant)} · "
        f"{_signed(case.delta)} [{_signed(case.lower)}, {_signed(case.upper)}] · "
        f"{escape(case.verdict.replace('_', ' '))}"
    )
    facts = (
        f"{case.stimulus_id}; change: {case.subtype or case.category}; against "
        f"{case.reference_variant}; effect {_signed(case.effect)}, on the reference "
        f"{_signed(case.reference_effect)}; layers {case.layers}; rules: {case.labels}"
    )
    return (
        f'<details class="case"><summary>{head}</summary><div class="pair">'
        f'<div><h4>Parent</h4><p dir="auto">{parent}</p></div>'
        f'<div><h4>Changed text</h4><p dir="auto">{text}</p></div></div>'
        f'<p class="caption">{escape(facts)}</p></details>'
    )
