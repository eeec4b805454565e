"""The view of planned differences between variants, as forest plots."""

from __future__ import annotations

from aya_probes import figures
from aya_probes.charts import forest
from aya_probes.charts.forest import Effect, ForestPanel
from aya_probes.charts.variants import looks
from aya_probes.errors import StudyError
from aya_probes.page import html
from aya_probes.page.data import PageData
from aya_probes.page.measures import MEASURES
from aya_probes.page.view import Content, Control, Settings, View, options
from aya_probes.results.contrasts import choose, seed_null
from aya_probes.results.tables import Contrast

FAMILIES = {
    "specificity": "gain on own languages minus gain on others",
    "parts": "gain on own languages, and on others",
    "region": "regional minus control, by language",
    "adaptation": "regional minus base, by language",
    "post-training": "control minus base, by language",
    "dose": "regional minus control at equal dose, own languages and others",
    "seed": "two training seeds, by language",
    "seed specificity": "specificity between two training seeds",
    "trained": "trained minus random weights, by language",
}
PARTS = {"specificity": "own − others", "targets": "own languages", "elsewhere": "others"}


def make(data: PageData) -> View:
    """Return the view."""
    measures = list(dict.fromkeys(row.measure for row in data.contrasts))
    families = [f for f in FAMILIES if any(row.family == f for row in data.contrasts)]
    windows = list(dict.fromkeys(row.window for row in data.contrasts))
    labels = [(MEASURES[m].label if m in MEASURES else m, m) for m in measures]
    controls = (
        Control("family", "Family", [(f"{f}: {FAMILIES[f]}", f) for f in families], families[:1]),
        Control("measure", "Measure", labels, measures[:1]),
        Control("window", "Layers", options(windows), windows[:1]),
    )

    def show(settings: Settings) -> Content:
        if not measures:
            text = "No contrasts: they need two variants, and 8 concepts or corpus documents."
            return Content([], below=html.paragraph(text))
        measure, family, window = (settings[n][0] for n in ("measure", "family", "window"))
        rows = choose(data.contrasts, measure, family, window=window)
        if not rows:
            raise StudyError(f"no contrasts of the family {family} on {measure} in {window} layers")
        return _content(data, rows)

    return View(
        "differences",
        "Differences",
        "Planned differences between two variants, paired by item, with 95% intervals. Filled: "
        "corrected p ≤ 0.05. A difference of alignment is not a difference of skill.",
        controls if measures else (),
        show,
    )


def _content(data: PageData, rows: list[Contrast]) -> Content:
    seen, panels = looks(data.results.info), []
    for contrast in dict.fromkeys(row.contrast for row in rows):
        here = [row for row in rows if row.contrast == contrast]
        look = seen.get(contrast.split(" - ")[0])
        effects = [_effect(data, row) for row in here]
        title = contrast.replace(" - ", " − ")
        panels.append(ForestPanel(title, effects, look.colour if look else "v0"))
    between = forest.value_range(panels)
    numbers = html.as_rows(rows)
    table = html.rows_table(numbers, "Differences between variants, paired by item")
    return Content(
        numbers,
        [forest.draw(panel, between) for panel in panels],
        below=f"<details><summary>All numbers as a table</summary>{table}</details>",
        caption="* and filled: p ≤ 0.05 after Holm's correction over the family. Striped: a "
        "language that the variant was tuned for. Grey box: the same difference between two "
        f"training seeds, which a difference must exceed. n = {_n(rows)}.",
    )


def _n(rows: list[Contrast]) -> str:
    counts = sorted({row.n for row in rows})
    between = dict.fromkeys((counts[0], counts[-1]))
    return f"{' to '.join(map(str, between))} (groups: {min(r.groups for r in rows)} or more)"


def _effect(data: PageData, row: Contrast) -> Effect:
    info = data.results.info
    left = row.contrast.split(" - ")[0]
    own = info.targets.get(info.repeats.get(left, left), ())
    null = seed_null(data.contrasts, row, info.repeats)
    name = PARTS.get(row.part) or figures.language_name(row.targets)
    text = (
        f"{row.contrast}, {name}: {row.estimate:+.4f} [{row.lower:.4f}, {row.upper:.4f}], "
        f"p {row.p:.4f}, Holm {row.p_holm:.4f}, n {row.n}; "
        f"seen with 80% power: {row.detectable:.4f}"
    )
    return Effect(
        name,
        row.estimate,
        row.lower,
        row.upper,
        row.established,
        not row.part and row.targets in own,
        None if null is None else null.estimate,
        text,
    )
