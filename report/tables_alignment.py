"""Alignment results as Markdown tables: peaks, commitment, shapes, contrasts, corpora."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aya_probes import files, project, records
from aya_probes.results.alignment import Results, load_results
from aya_probes.results.curves import (
    CONCEPT,
    PARALLEL_CKA,
    PARALLEL_RETRIEVAL,
    PRIMARY,
    SENTENCE,
    Curve,
)
from aya_probes.results.tables import Contrast, Layers
from aya_probes.run_folder import RunPaths

FLORES_RUN = RunPaths(project.ROOT / "runs" / "mini-flores")


@dataclass(frozen=True)
class Run:
    """What a run's alignment files hold."""

    results: Results
    layers: Mapping[tuple[str, str], Layers]  # of ALL concepts, by variant and language
    contrasts: Sequence[Contrast]

    @property
    def base(self) -> str:
        """The base variant, else the first one."""
        return self.results.info.first("base") or self.results.info.variants[0]

    def contrasts_of(self, *kinds: str) -> list[Contrast]:
        """Return the contrasts of these kinds."""
        return [c for c in self.contrasts if c.contrast.split(":")[0] in kinds]

    def curve(self, measure: str, variant: str, language: str) -> Curve:
        """Return a curve that the run must have."""
        found = self.results.curve(measure, variant, language)
        assert found is not None, (measure, variant, language)
        return found


@functools.cache
def load_run(paths: RunPaths) -> Run:
    """Read a run's alignment results."""
    table = records.load_table(Layers, paths.commitment, files.MAKE_CURVES)
    whole = {(r.variant, r.language): r for r in table if r.concept_id == "ALL"}
    contrasts = records.load_table(Contrast, paths.contrasts, files.MAKE_CURVES)
    return Run(load_results(paths.curves), whole, contrasts)


# --- words ------------------------------------------------------------------------------------


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with ``digits`` decimals, nothing for a missing one."""
    return "" if value is None else f"{value:.{digits}f}"


def interval(curve: Curve, layer: int, digits: int = 2) -> str:
    """Return ``mean [lower, upper]`` of a curve at a layer."""
    mean, lower, upper = (curve.array(name)[layer] for name in ("mean", "lower", "upper"))
    return f"{mean:.{digits}f} [{lower:.{digits}f}, {upper:.{digits}f}]"


def at_peak(curve: Curve) -> str:
    """Return the interval at the layer of the largest mean, and that layer."""
    assert curve.peak is not None
    return f"{interval(curve, curve.peak)} at {curve.peak}"


def bounds(contrast: Contrast, digits: int = 3) -> str:
    """Return a contrast's interval."""
    return f"[{number(contrast.lower, digits)}, {number(contrast.upper, digits)}]"


# --- tables -----------------------------------------------------------------------------------


def peaks(paths: RunPaths) -> str:
    """Largest concept alignment per language and variant, with the audit of inputs."""
    run = load_run(paths)
    info = run.results.info
    rows = []
    for code in info.others:
        line = [code, *(at_peak(run.curve(CONCEPT, v, code)) for v in info.variants)]
        inputs = run.results.input_share(info.variants[0], code)
        line.append(f"{inputs.share:.0%}" + (" untestable" if inputs.untestable else ""))
        line.append(f"{run.layers[info.variants[0], code].shared_tokens:.0%}")
        rows.append(line)
    return markdown(["language", *info.variants, "identical inputs", "shared tokens"], rows)


def detection(paths: RunPaths) -> str:
    """Smallest max-T p over layers 1..L, and corrected over the languages too."""
    run = load_run(paths)
    info = run.results.info
    columns = [(variant, measure) for variant in info.variants for measure in PRIMARY]

    def smallest(variant: str, measure: str, code: str) -> str:
        curve = run.curve(measure, variant, code)
        found = (curve.array(name)[1:] for name in ("p", "p_joint"))
        return " / ".join(number(float(np.nanmin(p)), 4) for p in found)

    rows = [[code, *(smallest(v, m, code) for v, m in columns)] for code in info.others]
    names = {CONCEPT: "concept", SENTENCE: "sentence"}
    return markdown(["language", *(f"{v}, {names[m]}" for v, m in columns)], rows)


def commitment(paths: RunPaths) -> str:
    """Commitment and release layer, and the published rule's layer, per language and variant."""
    run = load_run(paths)
    info = run.results.info
    rows = []
    for code in info.others:
        line = [code, *(run.layers[v, code].span for v in info.variants)]
        first = run.layers[info.variants[0], code]
        artefact = " (identical inputs)" if first.legacy_status == "identical_input" else ""
        rows.append([*line, f"{first.legacy_layer}{artefact}"])
    return markdown(["language", *info.variants, f"published rule, {info.variants[0]}"], rows)


def agnostic(paths: RunPaths) -> str:
    """Mean alignment over testable pairs with English and without it, at the best layer."""
    results = load_run(paths).results
    rows = []
    for measure in PRIMARY:
        for variant in results.info.variants:
            curves = [
                results.agnostic[measure, variant, family]
                for family in ("with_pivot", "without_pivot")
            ]
            cells = [f"{at_peak(curve)} ({curve.pairs} pairs)" for curve in curves]
            rows.append([f"`{measure}`", variant, *cells])
    return markdown(["measure", "variant", "pairs with English", "pairs without English"], rows)


def shapes(paths: RunPaths) -> str:
    """Shape label per language and variant."""
    results = load_run(paths).results
    variants = results.info.variants
    rows = [
        [code, *(results.shapes[v, code].label for v in variants)] for code in results.info.others
    ]
    return markdown(["language", *variants], rows)


def contrasts(paths: RunPaths) -> str:
    """Contrasts between trained variants with interval, p and Holm's p."""
    rows = [
        (
            c.contrast,
            c.language,
            c.window,
            number(c.estimate),
            bounds(c),
            number(c.p),
            number(c.p_holm),
            c.n,
        )
        for c in load_run(paths).contrasts_of("post-training", "region")
    ]
    header = ["contrast", "language", "layers", "estimate", "95% interval", "p", "p (Holm)", "n"]
    return markdown(header, rows)


def specificity(paths: RunPaths) -> str:
    """Did targeted languages gain more: over concepts, and over languages with its floor."""
    rows = [
        (
            c.contrast,
            c.language,
            number(c.estimate),
            bounds(c),
            number(c.p),
            number(c.p_holm),
            number(c.p_language),
            number(c.p_language_floor),
            c.n,
        )
        for c in load_run(paths).contrasts_of("specificity")
    ]
    header = (
        "contrast, languages, estimate, 95% interval, p (concepts), p (Holm), "
        "p (language labels), smallest reachable, n"
    )
    return markdown(header.split(", "), rows)


def trained(paths: RunPaths) -> str:
    """Each variant against the untrained one; a star where Holm's p is at most 0.05."""
    cells: dict[str, dict[str, str]] = {}
    for c in load_run(paths).contrasts_of("trained"):
        star = "*" if c.p_holm <= 0.05 else ""
        left = c.contrast.removeprefix("trained: ").split(" - ")[0]
        text = f"{number(c.estimate, 2)} {bounds(c, 2)}{star}"
        cells.setdefault(c.language, {})[left] = text
    variants = list(next(iter(cells.values()), {}))
    return markdown(
        ["language", *(f"{v} - untrained" for v in variants)],
        [[code, *(row[v] for v in variants)] for code, row in cells.items()],
    )


def parallel(paths: RunPaths) -> str:
    """Retrieval and unbiased CKA on a parallel corpus at their best layer, with intervals."""
    run = load_run(paths)
    info = run.results.info
    same = info.parallel_corpus["identical_to_pivot"]
    shown = [v for v in info.variants if info.roles[v] in ("base", "untrained")]
    columns = [(m, v) for m in (PARALLEL_RETRIEVAL, PARALLEL_CKA) for v in shown]
    rows = [
        [code, f"{same[code]:.0%}", *(at_peak(run.curve(m, v, code)) for m, v in columns)]
        for code in info.others
    ]
    first = run.curve(PARALLEL_RETRIEVAL, shown[0], info.others[0])
    titles = {PARALLEL_RETRIEVAL: f"retrieval (chance {first.chance:.4f})", PARALLEL_CKA: "CKA"}
    header = ["language", "same string as English", *(f"{titles[m]}, {v}" for m, v in columns)]
    return markdown(header, rows) + f"\n\nn = {first.n} items per language."


def parallel_flores(paths: RunPaths) -> str:
    """The same on FLORES sentences (suite mini-flores)."""
    return parallel(FLORES_RUN)


def precision(paths: RunPaths) -> str:
    """What bf16 changes: the same probes in suite mini (float32) and mini-flores (bf16)."""
    here, there = load_run(paths), load_run(FLORES_RUN)
    info = here.results.info
    rows = []
    for measure in PRIMARY:
        for variant in info.variants:
            gaps = np.concatenate(
                [
                    here.curve(measure, variant, code).array()
                    - there.curve(measure, variant, code).array()
                    for code in info.others
                ]
            )
            gaps = np.abs(gaps[~np.isnan(gaps)])
            rows.append((f"`{measure}`", variant, f"{gaps.max():.4f}", f"{gaps.mean():.4f}"))
    return markdown(["measure", "variant", "largest difference", "mean difference"], rows)


TABLES: tuple[Callable[[RunPaths], str], ...] = (
    peaks,
    detection,
    commitment,
    agnostic,
    shapes,
    contrasts,
    specificity,
    trained,
    parallel,
    parallel_flores,
    precision,
)
