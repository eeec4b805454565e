"""The view of curves by layer: a panel per language, or languages overlaid per variant."""

from __future__ import annotations

from dataclasses import replace

from aya_probes import figures
from aya_probes.charts import lines
from aya_probes.charts.lines import Line, LinePanel, Marks
from aya_probes.charts.variants import SHAPES, Look, legend, looks
from aya_probes.errors import StudyError
from aya_probes.page import html
from aya_probes.page.data import PageData
from aya_probes.page.measures import MEASURES, available, on_corpus, poolings
from aya_probes.page.view import MANY, Content, Control, Settings, View, options
from aya_probes.results.curves import CONCEPT, COSINE, MISMATCHED, Curve, home_pooling

MEAN, HOME = "mean", "primary"
PANELS, OVERLAID = "languages", "variants"
FEW = 12  # languages shown at the start


def make(data: PageData) -> View:
    """Return the view."""
    info, results = data.results.info, data.results
    languages = [(f"{figures.language_name(c)} ({c})", c) for c in info.others]
    names = available(results)
    every = sorted({p for name in names for p in poolings(results, name)})
    concepts = [(f"{n} ({c})", c) for c, n in info.concept_names.items()]
    controls = (
        Control("languages", "Languages", languages, info.others[:FEW], MANY),
        Control("measure", "Measure", [(MEASURES[m].label, m) for m in names], names[:1]),
        Control("variants", "Variants", options(info.variants), data.run.shown, MANY),
        Control("band", "Interval shown for", options(info.variants), [data.run.base]),
        Control("pooling", "Tokens averaged", options([HOME, *every]), [HOME]),
        Control("concept", "Concept", [("mean of all", MEAN), *concepts], [MEAN]),
        Control(
            "layout",
            "One panel for each",
            [("language", PANELS), ("variant, languages overlaid", OVERLAID)],
            [PANELS],
        ),
    )
    return View(
        "curves",
        "Curves",
        "A measure at every layer, for each language with the pivot. Shaded: 95% interval of one "
        "variant. It shows where alignment is, not what the model does with it.",
        controls if names else (),
        lambda settings: _Curves(data, settings).content() if names else _nothing(),
    )


def _nothing() -> Content:
    text = "Nothing was measured: no probes, and too few items in the parallel corpus."
    return Content([], below=html.paragraph(text))


class _Curves:
    """The view for one choice of settings."""

    def __init__(self, data: PageData, settings: Settings) -> None:
        self.data, self.results = data, data.results
        self.languages, self.variants = settings["languages"], settings["variants"]
        self.measure, self.band = settings["measure"][0], settings["band"][0]
        self.concept, self.layout = settings["concept"][0], settings["layout"][0]
        chosen = settings["pooling"][0]
        self.pooling = home_pooling(self.measure) if chosen == HOME else chosen
        found = poolings(self.results, self.measure)
        if self.pooling not in found:
            raise StudyError(
                f"{self.measure} was not computed on {self.pooling}; choose {' or '.join(found)}"
            )
        if self.concept != MEAN and self.measure != COSINE:
            raise StudyError(
                "a single concept has only its raw cosine: choose that measure, or the mean of all"
            )

    def content(self) -> Content:
        """Return the panels, their legend and their numbers."""
        if not self.languages or not self.variants:
            raise StudyError("choose at least one language and one variant")
        overlaid = self.layout == OVERLAID
        panels = (
            [self.overlay(name) for name in self.variants]
            if overlaid
            else [self.panel(code) for code in self.languages]
        )
        last = self.results.info.last_layer
        between = lines.value_range(panels)
        seen = self.language_looks() if overlaid else self.variant_looks()
        return Content(
            self.rows(),
            [lines.draw(panel, last, between) for panel in panels],
            legend(seen),
            self.peaks(),
            self.caption(),
        )

    def curve(self, variant: str, code: str) -> Curve | None:
        """Return the chosen curve of a variant and language."""
        if self.concept != MEAN:
            values = self.results.cosines.get((variant, self.concept, code))
            return None if values is None else Curve(values, None)
        return self.results.curve(self.measure, variant, code, self.pooling)

    def variant_looks(self) -> dict[str, Look]:
        return {v: look for v, look in looks(self.results.info).items() if v in self.variants}

    def language_looks(self) -> dict[str, Look]:
        found = {}
        for n, code in enumerate(self.languages):
            dash = (None, "6 3", "2 3")[(n // 6) % 3]
            found[code] = Look(
                figures.language_name(code), f"v{n % 6}", dash, SHAPES[n % (len(SHAPES) - 1)]
            )
        return found

    def panel(self, code: str) -> LinePanel:
        """Return the panel of a language."""
        found, control = [], self.measure == COSINE and self.concept == MEAN
        for variant, look in self.variant_looks().items():
            curve = self.curve(variant, code)
            if curve is not None:
                found.append(Line(variant, look, curve, variant == self.band))
            other = self.results.curve(MISMATCHED, variant, code, self.pooling)
            if control and other is not None:
                found.append(Line(f"{variant}, mismatched", look, other, dotted=True))
        chance = next((line.curve.chance for line in found if line.curve.chance), None)
        panel = LinePanel(
            figures.language_name(code), MEASURES[self.measure].axis, found, chance=chance
        )
        panel = self.audited(panel, code)
        if self.measure == CONCEPT and self.pooling == home_pooling(CONCEPT):
            ceiling = figures.pair_ceiling(self.results, self.band, code)
            panel = panel if ceiling is None else replace(panel, ceiling=ceiling.mean)
            panel = replace(panel, marks=self.marks(code))
        return panel

    def audited(self, panel: LinePanel, code: str) -> LinePanel:
        """Return the panel with a warning if identical inputs make its curves no evidence."""
        info = self.results.info
        if not info.concepts or on_corpus(self.measure) or code == info.pivot:
            return panel
        inputs = self.results.input_share(info.variants[0], code, self.pooling)
        if not inputs.untestable:
            return panel
        note = f"untestable: {inputs.share:.0%} of the inputs are identical"
        return replace(panel, note=note, untestable=True)

    def marks(self, code: str) -> Marks:
        row = self.data.run.layers.get((self.band, code))
        curve = self.curve(self.band, code)
        peak = None if curve is None else curve.peak
        if row is None or row.status != "committed":
            return Marks(peak)
        return Marks(peak, row.commitment_layer, row.release_layer)

    def overlay(self, variant: str) -> LinePanel:
        """Return the panel of a variant, with all languages."""
        found = []
        for code, look in self.language_looks().items():
            curve = self.curve(variant, code)
            if curve is not None:
                found.append(Line(look.label, look, curve))
        return LinePanel(variant, MEASURES[self.measure].axis, found)

    def rows(self) -> list[dict[str, object]]:
        """Return the numbers drawn: one row per variant, language and layer."""
        found: list[dict[str, object]] = []
        for code in self.languages:
            for variant in self.variants:
                curve = self.curve(variant, code)
                if curve is None:
                    continue
                head = {"measure": self.measure, "pooling": self.pooling}
                head |= {"variant": variant, "language": code, "concept": self.concept}
                for layer in range(len(curve.mean)):
                    each = {n: curve.array(n)[layer] for n in ("mean", "lower", "upper", "p")}
                    plain = {n: None if v != v else float(v) for n, v in each.items()}
                    found.append({**head, "layer": str(layer), **plain})
                low, high = curve.final_norm_interval or (None, None)
                end = {"mean": curve.final_norm, "lower": low, "upper": high, "p": None}
                found.append({**head, "layer": "final_norm", **end})
        return found

    def peaks(self) -> str:
        """Return a table of the largest value of each curve, for readers without the charts."""
        rows = []
        for code in self.languages:
            row = [figures.language_name(code)]
            for variant in self.variants:
                curve = self.curve(variant, code)
                peak = None if curve is None else curve.peak
                if curve is None or peak is None:
                    row.append("")
                else:
                    row.append(f"{lines.value_text(curve, peak)} at {peak}".replace("-", "−"))
            rows.append(row)
        caption = "Largest value of each curve, its 95% interval, and its layer"
        found = html.table(["language", *self.variants], rows, caption)
        return f"<details><summary>Largest values as a table</summary>{found}</details>"

    def caption(self) -> str:
        """Return what the marks mean."""
        info = self.results.info
        parts = [f"{figures.size_text(info)}. Layer 0 is the embeddings; N (hollow) is final_norm."]
        if self.layout == PANELS:
            parts.append(f"Thick line and shading: {self.band} with its 95% interval.")
        if self.layout == PANELS and self.measure == CONCEPT:
            parts.append(
                f"C, P, R: commitment layer, peak and release layer of {self.band}. Shaded from "
                "0: up to the noise ceiling."
            )
        if self.measure == COSINE:
            parts.append(
                "Dotted: mismatched concepts. Raw cosine is high for unrelated sentences too."
            )
        return " ".join(parts)
