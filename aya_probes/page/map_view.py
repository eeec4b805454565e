"""The view of maps: languages by layers, and languages by languages at one layer."""

from __future__ import annotations

from aya_probes import figures, suites
from aya_probes.charts import cells
from aya_probes.charts.cells import Cell, CellPanel
from aya_probes.errors import StudyError
from aya_probes.page import html
from aya_probes.page.data import PageData
from aya_probes.page.measures import MEASURES, available, on_corpus
from aya_probes.page.view import MANY, SLIDER, Content, Control, Settings, View, options
from aya_probes.results.curves import PARALLEL_ALIGNMENT, PRIMARY, RAW, home_pooling
from aya_probes.results.whole_run import ALPHA

LAYERS, MATRIX, NONE = "layers", "matrix", "nothing"
SHOWN = 4  # variants at the start


def make(data: PageData) -> View:
    """Return the view."""
    info = data.results.info
    names = [m for m in available(data.results) if not m.endswith(RAW)]
    last = [(str(n), str(n)) for n in range(info.last_layer + 1)]
    middle = [str((info.last_layer + 1) // 2)]
    controls = (
        Control(
            "show",
            "Show",
            [("languages by layers", LAYERS), ("languages by languages", MATRIX)],
            [LAYERS],
        ),
        Control("measure", "Measure", [(MEASURES[m].label, m) for m in names], names[:1]),
        Control("variants", "Variants", options(info.variants), data.run.shown[:SHOWN], MANY),
        Control("minus", "Minus", options([NONE, *info.variants]), [NONE]),
        Control("layer", "Layer (languages by languages)", last, middle, SLIDER),
    )

    def show(settings: Settings) -> Content:
        if not names:
            return Content([], below=html.paragraph("Nothing was measured in this run."))
        return _Map(data, settings).content()

    return View(
        "map",
        "Map",
        "Where a measure is large: over languages and layers, or between every two languages at "
        "one layer. Colours show estimates; only dots mark a passed test.",
        controls if names else (),
        show,
    )


class _Map:
    """The view for one choice of settings."""

    def __init__(self, data: PageData, settings: Settings) -> None:
        self.data, self.results = data, data.results
        self.show, self.measure = settings["show"][0], settings["measure"][0]
        self.minus, self.layer = settings["minus"][0], int(settings["layer"][0])
        self.variants = [v for v in settings["variants"] if v != self.minus]
        known = suites.load_languages()

        def place(code: str) -> tuple[str, str, str]:
            return known[code].region, known[code].script, code

        self.codes = sorted(self.results.info.others, key=place)
        self.all = sorted(self.results.info.languages, key=place)
        self.rows: list[dict[str, object]] = []
        self.saved = {
            (row.variant, row.layer, frozenset((row.language_a, row.language_b))): row.alignment
            for row in data.language_map
        }
        layers = {layer for _, layer, _ in self.saved}
        self.nearest = min(layers, key=lambda n: (abs(n - self.layer), n), default=self.layer)

    def content(self) -> Content:
        """Return the panels, their key and their numbers."""
        if not self.variants:
            raise StudyError("choose at least one variant that differs from the one subtracted")
        make = self.by_layer if self.show == LAYERS else self.by_language
        panels = [make(variant) for variant in self.variants]
        if not self.rows:
            raise StudyError(f"{MEASURES[self.measure].label}: this run has no values for this map")
        top = cells.limit(self.scaled(panels))
        signed = self.minus != NONE or any(
            (c.value or 0) < -0.1 * top for p in panels for row in p.cells for c in row
        )
        drawn = [cells.draw(panel, top, signed) for panel in panels]
        return Content(self.rows, drawn, below=self.table(), caption=self.caption())

    def scaled(self, panels: list[CellPanel]) -> list[CellPanel]:
        """Return the panels that set the colour scale.

        A difference to or from random weights is far larger than one between trained variants, and
        would leave no colour to those; it is drawn in the colour of the scale's end.
        """
        roles = self.results.info.roles
        named = zip(self.variants, panels, strict=True)
        trained = [panel for variant, panel in named if roles[variant] != "untrained"]
        return trained if trained and self.minus != NONE else panels

    def _difference(self, value: float | None, other: float | None) -> float | None:
        if self.minus == NONE or value is None:
            return value
        return None if other is None else value - other

    def title(self, variant: str) -> str:
        return variant if self.minus == NONE else f"{variant} − {self.minus}"

    def by_layer(self, variant: str) -> CellPanel:
        """Return the panel of languages by layers."""
        last = self.results.info.last_layer
        table = [[self.cell(variant, code, n) for n in range(last + 1)] for code in self.codes]
        names = [figures.language_name(code) for code in self.codes]
        numbers = [str(n) for n in range(last + 1)]
        return CellPanel(self.title(variant), names, numbers, table, "layer")

    def cell(self, variant: str, code: str, layer: int) -> Cell:
        curve = self.results.curve(self.measure, variant, code)
        if curve is None:
            return Cell(None, "not measured")
        other = self.results.curve(self.measure, self.minus, code)
        minus = None if other is None else other.mean[layer]
        value = self._difference(curve.mean[layer], minus)
        p = curve.array("p")[layer]
        passed = self.minus == NONE and p <= ALPHA
        hatched = self.untestable(variant, code)
        shown = "undefined" if value is None else f"{value:.3f}"
        text = f"{figures.language_name(code)}, layer {layer}: {shown}"
        text += ", untestable" if hatched else f", p {p:.3f}" if p == p else ""
        self.rows.append(
            {
                "variant": variant,
                "minus": "" if self.minus == NONE else self.minus,
                "measure": self.measure,
                "language": code,
                "layer": layer,
                "value": value,
                "p": None if p != p else float(p),
            }
        )
        return Cell(value, text, passed, hatched)

    def untestable(self, variant: str, code: str) -> bool:
        info = self.results.info
        if not info.concepts or on_corpus(self.measure):
            return False
        return self.results.is_untestable(variant, code, home_pooling(self.measure))

    def by_language(self, variant: str) -> CellPanel:
        """Return the panel of languages by languages at the chosen layer."""
        table = [[self.pair(variant, a, b) for b in self.all] for a in self.all]
        return CellPanel(self.title(variant), self.all, self.all, table, f"layer {self.shown()}")

    def shown(self) -> int:
        """Return the layer of the matrix: the chosen one, or the nearest that is saved."""
        return self.layer if self.measure in PRIMARY else self.nearest

    def pair(self, variant: str, a: str, b: str) -> Cell:
        if a == b:
            return Cell(None, a)
        value = self._difference(self._value(variant, a, b), self._value(self.minus, a, b))
        if value is None:
            return Cell(None, f"{a} and {b}: no value")
        if a < b:
            row: dict[str, object] = {"variant": variant}
            row |= {"minus": "" if self.minus == NONE else self.minus, "measure": self.measure}
            row |= {"layer": self.shown(), "language_a": a, "language_b": b, "value": value}
            self.rows.append(row)
        names = figures.language_name(a), figures.language_name(b)
        return Cell(value, f"{names[0]} and {names[1]}: {value:.3f}")

    def _value(self, variant: str, a: str, b: str) -> float | None:
        if self.measure in PRIMARY:
            curve = self.results.pair(self.measure, variant, a, b)
            return None if curve is None else curve.mean[self.layer]
        if self.measure != PARALLEL_ALIGNMENT:
            return None
        return self.saved.get((variant, self.shown(), frozenset((a, b))))

    def table(self) -> str:
        """Return the numbers as a table, for readers without the charts."""
        found = html.rows_table(self.rows[:2000], "Values of the map")
        return f"<details><summary>Values as a table</summary>{found}</details>"

    def caption(self) -> str:
        parts = [f"{figures.size_text(self.results.info)}. Languages are ordered by region."]
        if self.show == LAYERS and self.minus == NONE:
            parts.append(f"Dot: corrected p ≤ {ALPHA}. Hatched: untestable.")
        if self.minus != NONE:
            parts.append(
                "Differences are estimates; their tests are in the view Differences. Colours end "
                "at the largest difference of a trained variant."
            )
        if self.show == MATRIX and self.measure not in PRIMARY:
            parts.append("This run saves three layers; the nearest one is shown.")
        return " ".join(parts)
