"""The stimuli as Markdown tables: cues, lengths, perturbations, readings; and what failures say."""

from __future__ import annotations

import functools
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from aya_probes import files, perturbations, project, suites
from aya_probes.perturbations import Perturbation
from aya_probes.results import failures as results
from aya_probes.results.curves import CONCEPT, NO_LENGTH, PRIMARY, RAW, SENTENCE
from aya_probes.results.failures import CategoryTest
from aya_probes.results.whole_run import ALPHA, Run, load_run
from aya_probes.run_folder import RunPaths
from tables_alignment import SHORT, at_peak, markdown, number

REVIEW = project.ROOT / "data" / "stimuli_review.csv"
EARLIER = project.ROOT / "docs" / "earlier_stimuli.json"
"""Numbers of suite mini with the stimuli that the present ones replaced."""


# --- cues that are not meaning ------------------------------------------------------------------


def cues(paths: RunPaths) -> str:
    """A and p of every cue that is not meaning, for both measures; a star where it passes."""
    run = load_run(paths)
    found = run.results.cues
    names = list(dict.fromkeys(cue for _, _, cue in found))

    def cell(measure: str, code: str, cue: str) -> str:
        one = found.get((measure, code, cue))
        if one is None or one.p is None:
            return "" if one is None else "constant"
        return f"{one.alignment:+.2f} ({one.p:.3f}){'*' if one.passes else ''}"

    rows = [
        [f"`{measure}`", code, *(cell(measure, code, cue) for cue in names)]
        for measure in PRIMARY
        for code in run.results.info.others
    ]
    return markdown(["measure", "language", *(f"{cue}: A (p)" for cue in names)], rows) + (
        f"\n\nconstant: the cue does not vary in one of the languages, or has the same value for "
        f"all pairs of texts. A star: p ≤ {ALPHA}."
    )


@functools.cache
def _lengths(paths: RunPaths) -> Mapping[tuple[str, str, str], int]:
    """Return the characters of every probe, by concept, language and wording."""
    audit = files.load_json(paths.token_audit, files.MAKE_CURVES)
    found = {}
    for name, probe in audit["probes"].items():
        head, wording = name.rsplit("-", 1)
        concept = next(c for c in load_run(paths).results.info.concepts if head.startswith(f"{c}-"))
        found[concept, head.removeprefix(f"{concept}-"), wording] = len(probe["text"])
    return found


def length_correlation(paths: RunPaths, code: str, *, same_wording: bool) -> float:
    """Return the rank correlation of a language's text lengths with the pivot's.

    The pairs are texts of one concept: of the same wording, or of different ones.
    """
    lengths, pivot = _lengths(paths), load_run(paths).results.info.pivot
    pairs = [
        (lengths[concept, pivot, mine], length)
        for concept, language, theirs in lengths
        if language == code
        for mine in sorted({w for c, other, w in lengths if (c, other) == (concept, pivot)})
        if (mine == theirs) == same_wording
        for length in [lengths[concept, code, theirs]]
    ]
    return float(stats.spearmanr([a for a, _ in pairs], [b for _, b in pairs]).statistic)


def lengths(paths: RunPaths) -> str:
    """Rank correlation of text length with English; base's alignment without length beside."""
    run = load_run(paths)

    def cell(measure: str, code: str) -> str:
        p = number(run.smallest_p(measure, run.base, code), 4)
        return f"{at_peak(run.results.curve(measure, run.base, code))}, p {p}"

    rows = [
        [
            code,
            *(
                f"{length_correlation(paths, code, same_wording=same):+.2f}"
                for same in (True, False)
            ),
            *(cell(m + suffix, code) for m in (CONCEPT, SENTENCE) for suffix in ("", NO_LENGTH)),
        ]
        for code in run.results.info.others
    ]
    header = ["language", "same wording", "different wordings"]
    for measure in (CONCEPT, SENTENCE):
        header += [f"{run.base}, {SHORT[measure]}", f"{SHORT[measure]}, length regressed out"]
    return markdown(header, rows)


# --- perturbations ------------------------------------------------------------------------------


@functools.cache
def _pairs(paths: RunPaths) -> Sequence[Perturbation]:
    """Return the perturbations of the run's suite."""
    suite = suites.load_suite(load_run(paths).results.info.suite)
    return tuple(perturbations.load_perturbations(suites.resolve_path(suite.perturbations)).pairs)


def _by_kind(pairs: Iterable[Perturbation]) -> dict[tuple[str, str], list[Perturbation]]:
    found: dict[tuple[str, str], list[Perturbation]] = {}
    for pair in sorted(pairs, key=lambda p: (p.category, p.subtype)):
        found.setdefault((pair.category, pair.subtype), []).append(pair)
    return found


def _languages(paths: RunPaths) -> list[str]:
    known = {pair.language for pair in _pairs(paths)}
    return [code for code in load_run(paths).results.info.others if code in known]


def _wordings(found: Mapping[Any, int]) -> str:
    return " / ".join(str(found[w]) for w in sorted(found))


def pair_counts(paths: RunPaths) -> str:
    """Number of perturbed texts by category and subtype: per language and per wording."""
    codes, rows = _languages(paths), []
    for key, pairs in _by_kind(_pairs(paths)).items():
        here = Counter(pair.language for pair in pairs)
        wordings = _wordings(Counter(pair.wording for pair in pairs))
        rows.append([*key, *(here[code] or "" for code in codes), len(pairs), wordings])
    whole = _pairs(paths)
    here = Counter(pair.language for pair in whole)
    wordings = _wordings(Counter(pair.wording for pair in whole))
    rows.append(["all", "", *(here[code] for code in codes), len(whole), wordings])
    return markdown(["category", "subtype", *codes, "all", "wordings 1 / 2 / 3"], rows)


def _ratio(pair: Perturbation) -> float:
    return len(pair.text.split()) / len(pair.parent.split())


def word_ratios(paths: RunPaths) -> str:
    """Words of a perturbed text by words of its parent: median per language, and the range."""
    codes, rows = _languages(paths), []
    for key, pairs in _by_kind(_pairs(paths)).items():
        line = []
        for code in codes:
            ratios = [_ratio(pair) for pair in pairs if pair.language == code]
            line.append(f"{statistics.median(ratios):.2f}" if ratios else "")
        ratios = [_ratio(pair) for pair in pairs]
        rows.append([*key, *line, f"{min(ratios):.2f}–{max(ratios):.2f}"])
    return markdown(["category", "subtype", *codes, "smallest–largest"], rows)


def review(paths: RunPaths) -> str:
    """Findings of the readings of the stimuli by language: repaired or answered."""
    table = files.load_csv(REVIEW, ("language", "reading", "outcome"), "git checkout data")
    counts = Counter(zip(table["language"], table["reading"], table["outcome"], strict=True))
    columns = [
        (reading, outcome)
        for reading in dict.fromkeys(table["reading"])
        for outcome in ("repaired", "answered")
    ]
    rows = [
        [code, *(counts[code, *column] for column in columns)]
        for code in dict.fromkeys(table["language"])
    ]
    rows.append(["all", *(sum(row[n] for row in rows) for n in range(1, len(columns) + 1))])
    header = [f"{reading} reading: {outcome}" for reading, outcome in columns]
    return markdown(["language", *header], rows)


# --- failures -----------------------------------------------------------------------------------


def _tests(paths: RunPaths) -> list[CategoryTest]:
    return results.load_category_tests(paths.failure_tests)


def _failure_table(tests: Sequence[CategoryTest], keys: Sequence[str]) -> str:
    """Return the tests, one row per category (or subtype) and language, variants across."""
    found: dict[tuple[str, ...], dict[str, CategoryTest]] = {}
    for test in tests:
        key = tuple(getattr(test, name) for name in keys)
        found.setdefault(key, {})[test.variant] = test
    variants = list(dict.fromkeys(test.variant for test in tests))
    rows = []
    for key, by_variant in found.items():
        first = next(iter(by_variant.values()))
        line = [*key, f"{first.n} ({first.parents})"]
        for variant in variants:
            line += _failure_cells(by_variant.get(variant))
        rows.append(line)
    header = [f"{variant}: {what}" for variant in variants for what in ("effect", "pivot", "delta")]
    return markdown([*keys, "texts (parents)", *header], rows)


def _failure_cells(test: CategoryTest | None) -> list[str]:
    if test is None:
        return ["", "", ""]
    star = "*" if test.p_holm is not None and test.p_holm <= ALPHA else ""
    untested = "" if test.p is not None else " (not tested)"
    bounds = "" if test.lower is None else f" [{number(test.lower)}, {number(test.upper)}]"
    delta = f"{number(test.mean_delta)}{bounds}{star}{untested}"
    return [number(test.mean_effect), number(test.mean_pivot_effect), delta]


def failures(paths: RunPaths) -> str:
    """Category tests: effect with the anchor and with the pivot, and the regional difference."""
    tests = [test for test in _tests(paths) if not test.subtype]
    reference = ", ".join(dict.fromkeys(test.reference_variant for test in tests))
    established = sum(t.p_holm is not None and t.p_holm <= ALPHA for t in tests)
    return _failure_table(tests, ("category", "language")) + (
        f"\n\ndelta: against {reference}; a star: Holm p ≤ {ALPHA} over all rows and variants "
        f"({established} of {len(tests)})."
    )


def failure_subtypes(paths: RunPaths) -> str:
    """The same tests by subtype; Holm's correction is over the subtypes."""
    tests = [test for test in _tests(paths) if test.subtype]
    return _failure_table(tests, ("category", "subtype", "language"))


def borrowed_words(paths: RunPaths) -> str:
    """Alignment of base for mixed texts, their parents and their borrowed words alone."""
    run = load_run(paths)
    rows = [
        [
            r.language,
            f"{r.subtype} ({r.mixed})",
            r.n,
            *(number(v) for v in (r.anchor_parent, r.anchor_text, r.anchor_words)),
            *(number(v) for v in (r.pivot_parent, r.pivot_text, r.pivot_words)),
        ]
        for r in results.load_borrowed_words(paths.borrowed_words)
        if r.variant == run.base
    ]
    header = ["language", "switched into", "n"]
    header += [
        f"with the {anchor}: {what}"
        for anchor in ("anchor", run.results.info.pivot)
        for what in ("parent", "text", "borrowed words alone")
    ]
    return markdown(header, rows)


# --- what changed -------------------------------------------------------------------------------


def stimuli_change(paths: RunPaths) -> str:
    """The earlier stimuli beside the present ones: on raw vectors, so that only they differ."""
    earlier = files.load_json(EARLIER, "git checkout docs/earlier_stimuli.json")
    run = load_run(paths)
    rows = []
    for code, old in earlier["languages"].items():
        record = run.layers[run.base, code]
        raw = record.status if record.commitment_raw is None else _committed(record.commitment_raw)
        p = number(run.smallest_p(CONCEPT + RAW, run.base, code), 4)
        rows.append(
            [
                code,
                f"{old['length_correlation']:+.2f}",
                f"{length_correlation(paths, code, same_wording=True):+.2f}",
                f"{old['raw_alignment']:.2f} at {old['raw_layer']}, p {old['raw_p']:.4f}",
                f"{at_peak(run.results.curve(CONCEPT + RAW, run.base, code))}, p {p}",
                old["status"],
                raw,
                record.status,
            ]
        )
    header = (
        "language; length correlation, earlier; now; largest raw A of base, earlier; now; "
        "raw verdict, earlier; now; verdict on standardised vectors"
    )
    return (
        f"Earlier: {earlier['source']}.\n\n"
        + markdown(header.split("; "), rows)
        + "\n\n"
        + _category_change(paths, earlier["categories"], run)
    )


def _committed(layer: int) -> str:
    return "never" if layer < 0 else "committed"


def _category_change(paths: RunPaths, earlier: Mapping[str, Any], run: Run) -> str:
    """Return the table of categories: texts, wordings, word ratio, established tests."""
    tests = [test for test in _tests(paths) if not test.subtype and test.p is not None]
    rows = []
    for category, old in earlier.items():
        pairs = [pair for pair in _pairs(paths) if pair.category == category]
        here = [test for test in tests if test.category == category]
        established = sum(test.p_holm is not None and test.p_holm <= ALPHA for test in here)
        every = sorted({pair.wording for pair in _pairs(paths)})
        before = {w: old["wordings"].get(str(w), 0) for w in every}
        ratio = float(np.median([_ratio(pair) for pair in pairs])) if pairs else None
        rows.append(
            [
                category,
                old["texts"],
                len(pairs),
                _wordings(before),
                _wordings(Counter(pair.wording for pair in pairs)),
                number(old["word_ratio"], 2),
                number(ratio, 2),
                f"{old['established']} of {old['tests']}",
                f"{established} of {len(here)}",
            ]
        )
    header = (
        "category; texts, earlier; now; by wording, earlier; now; median word ratio, earlier; "
        "now; established tests, earlier; now"
    )
    return markdown(header.split("; "), rows)


TABLES: tuple[Callable[[RunPaths], str], ...] = (
    cues,
    lengths,
    pair_counts,
    word_ratios,
    review,
    failures,
    failure_subtypes,
    borrowed_words,
    stimuli_change,
)
