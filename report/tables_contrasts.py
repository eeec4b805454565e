"""Contrasts between variants as Markdown tables: on the concepts and on both parallel corpora."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from aya_probes.results import contrasts as chosen
from aya_probes.results.contrasts import SEED, SEED_SPECIFICITY, SeedNull
from aya_probes.results.curves import (
    CONCEPT,
    ITEM_MEASURES,
    PARALLEL_ALIGNMENT,
    PARALLEL_CKA,
    PARALLEL_RETRIEVAL,
    RAW,
)
from aya_probes.results.tables import Contrast
from aya_probes.results.whole_run import Run, load_run
from aya_probes.run_folder import RunPaths
from tables_alignment import FLORES_RUN, markdown, number

CORPORA = {"cldr": "CLDR names", "flores": "FLORES sentences"}
WHAT = {PARALLEL_ALIGNMENT: "A", PARALLEL_RETRIEVAL: "retrieval", PARALLEL_CKA: "CKA"}
FAMILIES = (
    "specificity",
    "parts",
    "region",
    "adaptation",
    "post-training",
    "dose",
    SEED,
    SEED_SPECIFICITY,
    "trained",
)


@dataclass(frozen=True)
class Source:
    """One measure of one run."""

    title: str
    run: Run
    measure: str

    def rows(self, *families: str, suffix: str = "") -> list[Contrast]:
        """Return the contrasts of these families over all layers."""
        return chosen.choose(self.run.contrasts, self.measure + suffix, *families)

    def beside(self, row: Contrast, **changed: str) -> Contrast | None:
        """Return the row that differs from ``row`` only in the named fields."""
        return chosen.same(self.run.contrasts, row, **changed)

    def raw(self, row: Contrast) -> Contrast | None:
        """Return the same contrast on raw vectors."""
        return self.beside(row, measure=self.measure + RAW)

    def null(self, row: Contrast) -> SeedNull | None:
        """Return the difference between seeds that the row must exceed."""
        return chosen.seed_null(self.run.contrasts, row, self.run.results.info.repeats)


def sources(paths: RunPaths) -> list[Source]:
    """Return every measure with contrasts: the concepts, then the corpora of both runs."""
    found = [Source("concepts, A", load_run(paths), CONCEPT)]
    for where in dict.fromkeys((paths, FLORES_RUN)):
        run = load_run(where)
        corpus = run.results.info.parallel_corpus["corpus"]
        corpus = CORPORA.get(corpus, corpus)
        found += [Source(f"{corpus}, {WHAT[name]}", run, name) for name in ITEM_MEASURES]
    return [source for source in found if source.rows(*FAMILIES)]


def _main(paths: RunPaths) -> list[Source]:
    """Return the concepts, and alignment on both corpora."""
    return [s for s in sources(paths) if s.measure in (CONCEPT, PARALLEL_ALIGNMENT)]


# --- words ------------------------------------------------------------------------------------


def effect(row: Contrast | None) -> str:
    """Return a contrast's estimate and interval, with a star where Holm's p is at most 0.05."""
    if row is None:
        return ""
    star = "*" if row.established else ""
    return f"{row.estimate:+.3f} [{number(row.lower)}, {number(row.upper)}]{star}"


def both(source: Source, row: Contrast) -> str:
    """Return a contrast, with the one on raw vectors below it."""
    raw = source.raw(row)
    return effect(row) + (f"<br>raw {effect(raw)}" if raw is not None else "")


def _small(value: float) -> str:
    """Return a number with 4 decimals."""
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _seeds(null: SeedNull | None) -> str:
    if null is None:
        return "no second seed"
    reach = "" if null.reach is None else f" (95% up to {_small(null.reach)})"
    return f"±{_small(null.estimate)}{reach}"


def _beyond(row: Contrast, null: SeedNull | None) -> str:
    return "" if null is None else "yes" if null.exceeded_by(row) else "no"


# --- tables -------------------------------------------------------------------------------------


def specificity(paths: RunPaths) -> str:
    """Did targeted languages gain more: every measure and window, and the difference of seeds."""
    rows: list[list[str]] = []
    for source in sources(paths):
        for row in source.rows("specificity"):
            null = source.null(row)
            rows.append(
                [
                    row.contrast,
                    source.title,
                    f"{row.targets} against {row.others}",
                    effect(row),
                    number(row.p_holm),
                    effect(source.raw(row)),
                    effect(source.beside(row, window="middle")),
                    effect(source.beside(row, window="peak")),
                    _seeds(null),
                    _beyond(row, null),
                    f"{number(row.p_language)} (≥ {number(row.p_language_floor)})",
                    f"{row.n} in {row.groups}" if row.n != row.groups else str(row.n),
                ]
            )
    header = (
        "contrast; measure; targets against others; all layers; p (Holm); all layers, raw; "
        "middle third; around the peak; between seeds; beyond the seeds; p over language labels "
        "(smallest reachable); n"
    )
    order = list(dict.fromkeys(row[0] for row in rows))
    rows.sort(key=lambda row: order.index(row[0]))
    return markdown(header.split("; "), rows)


def parts(paths: RunPaths) -> str:
    """The two halves of specificity: the gain on the targets and the change elsewhere."""
    return _by_part(paths, "parts")


def dose(paths: RunPaths) -> str:
    """Specificity and its halves against the control with as many tokens of each language."""
    return _by_part(paths, "dose")


def _by_part(paths: RunPaths, family: str) -> str:
    """Return a table of the contrasts of a family, one row per part, measures across."""
    used = sources(paths)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for source in used:
        for row in source.rows(family):
            cells = found.setdefault((row.contrast, row.part), {})
            cells[source.title] = both(source, row)
    titles = [source.title for source in used]
    rows = [[*key, *(cells.get(t, "") for t in titles)] for key, cells in found.items()]
    return markdown(["contrast", "part", *titles], rows)


def _by_language(paths: RunPaths, family: str) -> str:
    """Return a table of the contrasts of single languages; targeted ones are marked."""
    used = _main(paths)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for source in used:
        for row in source.rows(family):
            found.setdefault((row.contrast, row.targets), {})[source.title] = both(source, row)
    info, titles = used[0].run.results.info, [source.title for source in used]

    def order(key: tuple[str, str]) -> tuple[int, int]:
        return info.variants.index(key[0].split(" - ")[0]), info.others.index(key[1])

    rows = []
    for contrast, code in sorted(found, key=order):
        left = contrast.split(" - ")[0]
        targeted = code in info.targets[info.repeats.get(left, left)]
        name = f"{code} (target)" if targeted else code
        cells = found[contrast, code]
        rows.append([contrast, name, *(cells.get(title, "") for title in titles)])
    return markdown(["contrast", "language", *titles], rows)


def region(paths: RunPaths) -> str:
    """Regional − control, by language."""
    return _by_language(paths, "region")


def adaptation(paths: RunPaths) -> str:
    """Regional − base, by language."""
    return _by_language(paths, "adaptation")


def post_training(paths: RunPaths) -> str:
    """Control − base, by language."""
    return _by_language(paths, "post-training")


def seeds(paths: RunPaths) -> str:
    """Seed specificity beside the specificity of regions, then every seed difference."""
    rows = []
    for source in sources(paths):
        for row in source.rows(SEED_SPECIFICITY):
            origin = row.contrast.split(" - ")[1]
            beside = [
                f"{r.contrast}: {effect(r)}"
                for r in source.rows("specificity")
                if origin in r.contrast.split(" - ") and r.targets == row.targets
            ]
            cells = [row.contrast, source.title, row.targets, both(source, row)]
            rows.append([*cells, "<br>".join(beside)])
    header = ["seeds", "measure", "targets", "targets - others, between seeds"]
    header.append("the same, between regions")
    if not any(source.rows(SEED) for source in sources(paths)):
        return "No variant has a second training seed."
    whole = [markdown(header, rows)] if rows else []
    return "\n\n".join([*whole, _by_language(paths, SEED)])


def trained(paths: RunPaths) -> str:
    """Each variant against the untrained one on the concepts, raw below."""
    source = sources(paths)[0]
    info, cells = source.run.results.info, dict[str, dict[str, str]]()
    for row in source.rows("trained"):
        left = row.contrast.split(" - ")[0]
        if left not in info.repeats:
            cells.setdefault(row.targets, {})[left] = both(source, row)
    variants = list(next(iter(cells.values()), {}))
    return markdown(
        ["language", *(f"{v} - untrained" for v in variants)],
        [[code, *(row[v] for v in variants)] for code, row in cells.items()],
    )


def detectable(paths: RunPaths) -> str:
    """Smallest effect with 80% power, of every family with contrasts that are not established."""
    rows = []
    for family in FAMILIES:
        for source in sources(paths):
            every = source.rows(family)
            missed = [row for row in every if not row.established]
            if missed:
                power = [row.detectable for row in missed]
                seen = max(abs(row.estimate) for row in missed)
                between = dict.fromkeys((number(min(power)), number(max(power))))
                rows.append(
                    [
                        family,
                        source.title,
                        f"{len(missed)} of {len(every)}",
                        "–".join(between),
                        number(seen),
                    ]
                )
    header = (
        "family; measure; not established; effect seen with 80% power (smallest–largest); "
        "largest estimate among them"
    )
    if not rows:
        return "Every contrast is established."
    return markdown(header.split("; "), rows) + (
        "\n\nThe power is that of the test before Holm's correction."
    )


def contrasts(paths: RunPaths) -> str:
    """Number of established contrasts of every family and measure, standardised / raw."""
    used = sources(paths)
    rows = []
    for family in FAMILIES:
        cells = [_established(source.rows(family), source, family) for source in used]
        if any(cells):
            rows.append([family, *cells])
    header = [f"{source.title}: standardised / raw of all" for source in used]
    return markdown(["family", *header], rows)


def _established(rows: Sequence[Contrast], source: Source, family: str) -> str:
    if not rows:
        return ""
    raw = source.rows(family, suffix=RAW)
    counts = [sum(row.established for row in table) for table in (rows, raw)]
    return f"{counts[0]} / {counts[1]} of {len(rows)}"


def verdicts(paths: RunPaths, titles: Sequence[str]) -> Iterator[str]:
    """Yield, in words, what specificity is on each of the named measures."""
    for source in sources(paths):
        rows = source.rows("specificity")
        if source.title in titles and rows:
            words = "; ".join(_verdict(source, row) for row in rows)
            yield f"on {source.title.removesuffix(', A')}, {words}"


def _verdict(source: Source, row: Contrast) -> str:
    """Return one specificity in words, beside the difference between seeds."""
    null = source.null(row)
    words = "established" if row.established else "not established"
    if null is not None:
        side = "beyond" if null.exceeded_by(row) else "not beyond"
        words += f", {side} the {_small(null.estimate)} between two seeds"
    return f"`{row.contrast.split(' - ')[0]}` {effect(row).rstrip('*')} ({words})"


TABLES: tuple[Callable[[RunPaths], str], ...] = (
    specificity,
    parts,
    dose,
    region,
    adaptation,
    post_training,
    seeds,
    trained,
    detectable,
    contrasts,
)
