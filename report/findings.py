"""What a run shows, in words and numbers: the abstract, the claims, the artefact."""

from __future__ import annotations

from collections.abc import Sequence

from aya_probes import suites
from aya_probes.results.contrasts import choose
from aya_probes.results.curves import (
    CONCEPT,
    COSINE,
    DISATTENUATED,
    MISMATCHED,
    RAW,
    WITHIN_CATEGORY,
)
from aya_probes.results.whole_run import Run, load_run
from aya_probes.run_folder import RunPaths
from tables_alignment import interval, markdown
from tables_contrasts import sources, verdicts

LAST = "last"  # the published study's pooling
SAID_ON = ("concepts, A", "FLORES sentences, A")  # measures whose specificity is put in words


def artefact(paths: RunPaths) -> str:
    """The artefact on purpose, on suite mini's base: last token, final punctuation."""
    run = load_run(paths)
    rows = []
    for code in run.results.info.others:
        inputs = run.results.input_share(run.base, code, LAST)
        cell = run.layers[run.base, code]
        ours = cell.status
        if ours == "committed":
            ours = f"layer {cell.commitment_layer}"
        legacy = cell.legacy_layer
        assert legacy is not None
        cosines = [run.results.curve(m, run.base, code, LAST) for m in (COSINE, MISMATCHED)]
        rows.append(
            (
                code,
                f"{inputs.share:.0%}",
                *("" if curve is None else f"{curve.array()[0]:.2f}" for curve in cosines),
                "never" if legacy < 0 else f"layer {legacy}",
                "withheld: untestable" if inputs.untestable else "tested",
                ours,
            )
        )
    header = (
        "language",
        "identical last-token inputs",
        "layer 0 cosine, same concept",
        "layer 0 cosine, other concepts",
        "published rule commits at",
        "this pipeline, `last`",
        "this pipeline, `concept_alignment`",
    )
    return markdown(header, rows)


# --- what base shows ----------------------------------------------------------------------------


def _codes(codes: Sequence[str]) -> str:
    return ", ".join(codes) or "none"


def _names(codes: Sequence[str]) -> str:
    known = suites.load_languages()
    return ", ".join(known[code].name for code in codes) or "no language"


def _passing(run: Run, measure: str) -> list[str]:
    """Return the testable languages that pass a measure's test on base."""
    return [code for code in run.testable if run.passes(measure, run.base, code)]


def _with_shape(run: Run, *labels: str) -> list[str]:
    """Return the testable languages whose relative curve has one of the labels on base."""
    shapes = {code: run.results.shapes.get((run.base, code)) for code in run.testable}
    return [code for code, shape in shapes.items() if shape is not None and shape.label in labels]


def _kept(run: Run, codes: Sequence[str]) -> str:
    """Return how much of the largest value the languages keep at the last layer."""
    kept = [run.results.shapes[run.base, code].retained for code in codes]
    known = [share for share in kept if share is not None]
    if not known:
        return ""
    return f"; at layer {run.results.info.last_layer} they keep {min(known):.0%}–{max(known):.0%}"


def _cued(run: Run, codes: Sequence[str]) -> list[str]:
    """Return the languages in which a cue that is not meaning passes the test too."""
    return [code for code in codes if run.results.passing_cues(CONCEPT, code)]


def _specificity(paths: RunPaths) -> str:
    """Return the specificity of every regional variant, in words."""
    return "; ".join(verdicts(paths, SAID_ON)) or "no contrasts"


def _region_counts(paths: RunPaths) -> list[str]:
    """Return how many region contrasts on targeted languages are gains and are established."""
    found = []
    for source in sources(paths):
        info = source.run.results.info
        rows = choose(source.run.contrasts, source.measure, "region")
        aimed = [r for r in rows if r.targets in info.targets[r.contrast.split(" - ")[0]]]
        gains = [r for r in aimed if r.established and r.estimate > 0]
        if source.title in SAID_ON:
            found.append(f"{len(gains)} of {len(aimed)} on {source.title}")
    return found


def claims(paths: RunPaths) -> str:
    """The original study's headline claims, and what suite mini says of each."""
    run = load_run(paths)
    codes, testable = run.results.info.others, run.testable
    either, within = _passing(run, CONCEPT), _passing(run, WITHIN_CATEGORY)
    declines = _with_shape(run, "RISE_PEAK_DECLINE")
    rises = _with_shape(run, "RISE_PEAK_DECLINE", "RISE")
    constant = [c for c in codes if run.results.is_untestable(run.base, c, LAST)]
    cued = _cued(run, either)
    rows = [
        (
            "concepts are shared mid-network",
            f"the concept or its category is shared in {len(either)} of {len(testable)} testable "
            f"languages ({_codes(either)}); the concept itself, tested within its category, in "
            f"{len(within)} ({_codes(within)}). A cue that is not meaning passes too in "
            f"{len(cued)} of the first ({_codes(cued)}). Relative to the noise ceiling, a rise "
            f"after the embeddings is established in {len(rises)} ({_codes(rises)})",
        ),
        (
            "and become language-specific again towards the output",
            "relative to the noise ceiling, rise and decline before the final norm are both "
            f"established in {len(declines)} of {len(testable)} ({_codes(declines)})"
            f"{_kept(run, declines)}",
        ),
        (
            "regional tuning raises alignment in its languages",
            f"established gains of a regional adapter over `global` in its own languages: "
            f"{'; '.join(_region_counts(paths)) or 'none tested'}. Gain on its languages minus "
            f"gain on others: {_specificity(paths)}",
        ),
        (
            "alignment is maximal at the embeddings where scripts are shared",
            f"an artefact: the last token is the same in {len(constant)} of {len(codes)} languages "
            f"({_codes(constant)})",
        ),
    ]
    return markdown(["claim of the original study", "suite mini"], rows)


def _strongest(run: Run, codes: Sequence[str]) -> str:
    """Return where alignment is strongest, beside the untrained variant, as a sentence."""
    info = run.results.info
    if not codes:
        return ""

    def height(code: str) -> float:
        curve = run.curve(CONCEPT, run.base, code)
        return float("-inf") if curve.peak is None else float(curve.array()[curve.peak])

    best = max(codes, key=height)
    curve = run.curve(CONCEPT, run.base, best)
    if curve.peak is None:
        return ""
    beside = "".join(
        f", while `{v}` has {interval(run.curve(CONCEPT, v, best), curve.peak)} there"
        for v in info.by_role("untrained")
    )
    relative = run.results.curve(DISATTENUATED, run.base, best)
    share = "" if relative is None else f", {interval(relative, curve.peak)} of the noise ceiling"
    return (
        f" Where no such cue passes, it is strongest in {_names([best])} at layer {curve.peak}: "
        f"A = {interval(curve, curve.peak)}{share} (n = {curve.n or info.n}){beside}."
    )


def abstract(paths: RunPaths) -> str:
    """The results in sentences, from the numbers."""
    run = load_run(paths)
    info = run.results.info
    pivot = _names([info.pivot])
    either, within, raw = (_passing(run, m) for m in (CONCEPT, WITHIN_CATEGORY, CONCEPT + RAW))
    missed = [code for code in run.testable if code not in either]
    void = [code for code in info.others if code not in run.testable]
    declines, cued = _with_shape(run, "RISE_PEAK_DECLINE"), _cued(run, either)
    clean = [code for code in either if code not in cued]
    parts = [
        f"In base, alignment with {pivot} that the concept or its category makes is established in "
        f"{_names(either)}"
    ]
    if missed:
        parts.append(f"it is not established in {_names(missed)}")
    if void:
        parts.append(f"it is untestable in {_names(void)} (identical inputs)")
    return (
        f"{'; '.join(parts)}. Tested within its category, the concept itself is shared in "
        f"{_names(within)}. A cue that is not meaning, such as shared tokens, passes the first "
        f"test too in {_names(cued)}. On raw vectors the first test is passed in {len(raw)} of "
        f"{len(run.testable)} languages ({_codes(raw)}).{_strongest(run, clean)} Relative to the "
        "noise ceiling, rise, peak and decline before the final norm are established in "
        f"{_names(declines)}{_kept(run, declines)}. Regional adapters against `global`, gain on "
        f"their own languages minus gain on others: {_specificity(paths)}."
    )


def finding(paths: RunPaths) -> str:
    """The answer in three sentences, for README's first screen."""
    run = load_run(paths)
    info, testable = run.results.info, run.testable
    either, within = _passing(run, CONCEPT), _passing(run, WITHIN_CATEGORY)
    starts = [
        layer
        for code in testable
        if (layer := run.layers[run.base, code].commitment_layer) is not None and layer >= 0
    ]
    between = (
        f"; the sharing begins between layers {min(starts)} and {max(starts)}, depending on the "
        "language"
        if starts
        else ""
    )
    untrained = info.first("untrained")
    null = ""
    if untrained is not None:
        passed = [code for code in testable if run.passes(CONCEPT, untrained, code)]
        null = f" With random weights the first test is passed in {len(passed)} ({_codes(passed)})."
    return (
        f"In {info.label}, {info.n} medical concepts or their categories are shared with English "
        f"in {len(either)} of {len(testable)} testable languages (max-T p ≤ 0.05 by language), and "
        f"the concepts themselves, tested within their categories, in {len(within)}{between}."
        f"{null} Regional LoRA adapters against the one for all languages, gain on their own "
        f"languages minus gain on others: {_specificity(paths)}."
    )


TABLES = (artefact, claims, abstract, finding)
