"""Tables that are not alignment results: validation, the artefact, published curves, adapters."""

from __future__ import annotations

from typing import Any

from aya_probes import files, project, results, suites
from aya_probes.published import MAKE_PUBLISHED, ratio_table
from aya_probes.run_folder import RunPaths
from tables_alignment import (
    best_row,
    commitment_cells,
    contrast_records,
    interval,
    languages,
    markdown,
    number,
)

ADAPTERS = project.ROOT / "data" / "adapters" / "mini"
MAKE_VALIDATION = "uv run benchmarks/validation.py"


def validation(name: str) -> list[dict[str, Any]]:
    """Return one table of docs/validation.json."""
    return list(files.load_json(results.VALIDATION, MAKE_VALIDATION)["tables"][name])


def binomial_range(rate: float, draws: int) -> tuple[float, float]:
    """Return the central 95% range of an observed rate whose true value is ``rate``."""
    from scipy import stats

    low, high = (float(stats.binom.ppf(q, draws, rate)) for q in (0.025, 0.975))
    return low / draws, high / draws


def family_wise(paths: RunPaths) -> str:
    """False positives of max-T under planted nulls, against the binomial range."""
    rows = []
    for r in validation("family_wise"):
        low, high = binomial_range(r["nominal"], r["draws"])
        verdict = "within" if low <= r["rate"] <= high else "below" if r["rate"] < low else "ABOVE"
        rows.append([r["plant"], f"{r['rate']:.3f}", f"{low:.3f}-{high:.3f}", verdict, r["draws"]])
    return markdown(["planted null", "false positives", "range around 0.05", "", "draws"], rows)


def coverage(paths: RunPaths) -> str:
    """Coverage of nominal 95% intervals of A."""
    rows = [
        [r["n"], f"{r['alignment']:.2f}", f"{r['coverage']:.3f}", f"{r['bias']:+.4f}",
         f"{r['width']:.3f}", r["draws"]]
        for r in validation("coverage")
    ]  # fmt: skip
    return markdown(["n", "true A", "coverage", "bias", "mean width", "draws"], rows)


def contrast_validation(paths: RunPaths) -> str:
    """False positives, power and coverage of paired contrasts at n = 20."""
    rows = [
        [f"{r['difference']:.3f}", f"{r['called']:.3f}", f"{r['coverage']:.3f}", r["draws"]]
        for r in validation("contrasts")
    ]
    return markdown(["true difference", "called at p ≤ 0.05", "coverage", "draws"], rows)


def shape_validation(paths: RunPaths) -> str:
    """Shape labels on planted curves."""
    names = ("RISE_PEAK_COLLAPSE", "MONOTONE_RISE", "MONOTONE_FALL", "FLAT", "UNRESOLVED")
    rows = [
        [r["plant"], *(f"{r[name]:.3f}" for name in names), f"{r['false']:.3f}", r["draws"]]
        for r in validation("shapes")
    ]
    return markdown(["planted curve", *names, "false label", "draws"], rows)


def layer_validation(paths: RunPaths) -> str:
    """Recovery of planted commitment and release, and rates under the null."""
    rows = []
    for r in validation("layers"):
        truth = f"{r['truth'][0]} to {r['truth'][1]}" if r["truth"] else "none"
        near = [
            f"{r[k]:.3f}" if r["truth"] else "" for k in ("commitment_within_1", "release_within_1")
        ]
        rows.append([r["n"], f"{r['peak']:.2f}", truth, f"{r['committed']:.3f}", *near,
                     f"{r['concepts_committed']:.3f}", f"{r['concept_rate_on_mismatched']:.4f}",
                     r["draws"]])  # fmt: skip
    header = ["n", "planted strength", "true layers", "committed", "commitment within 1",
              "release within 1", "concepts committed", "mismatched pairs committed",
              "draws"]  # fmt: skip
    return markdown(header, rows)


def decoys(paths: RunPaths) -> str:
    """What raw cosine and the published rule find, and what ours finds."""
    rows = [
        [r["plant"], f"{r['matched']:.3f}", f"{r['mismatched']:.3f}", f"{r['published_rule']:.2f}",
         f"{r['sentence_called']:.3f}", f"{r['concept_called']:.3f}", f"{r['A']:.3f}", r["draws"]]
        for r in validation("decoys")
    ]  # fmt: skip
    header = ["plant", "raw cosine, matched", "raw cosine, mismatched", "published rule commits",
              "`sentence` called", "`concept` called", "mean A", "draws"]  # fmt: skip
    return markdown(header, rows)


def artefact(paths: RunPaths) -> str:
    """The artefact on purpose, on suite mini's base: last token, final punctuation."""
    curves = results.load_curves(paths.curves)
    metadata = curves["metadata"]
    base = next(v for v in metadata["variants"] if metadata["roles"][v] == "base")
    cells, last = commitment_cells(paths), curves["measures"]["last"]
    rows = []
    for code in languages(metadata):
        audit = curves["audit"]["identical_input"]["last"][base][code]
        cell = cells[base, code]
        ours = cell["status"]
        if ours == "committed":
            ours = f"row {cell['commitment_layer']}"
        legacy = int(cell["legacy_layer"])
        rows.append([
            code,
            f"{audit['share']:.0%}",
            f"{last['cosine'][base][code]['mean'][0]:.2f}",
            f"{last['mismatched'][base][code]['mean'][0]:.2f}",
            "never" if legacy < 0 else f"row {legacy}",
            "withheld: untestable" if audit["untestable"] else "tested",
            ours,
        ])  # fmt: skip
    header = ["language", "identical last-token inputs", "row 0 cosine, same concept",
              "row 0 cosine, other concepts", "published rule commits at",
              "this pipeline, `last`", "this pipeline, `concept`"]  # fmt: skip
    return markdown(header, rows)


def published_claims(paths: RunPaths) -> str:
    """The published headline ratios at their own peaks and at matched layers."""
    return markdown(*ratio_table(files.load_json(paths.published, MAKE_PUBLISHED)))


def published_regions(paths: RunPaths) -> str:
    """Fire − earth, South Asia minus Africa and West Asia."""
    found = files.load_json(paths.published, MAKE_PUBLISHED)["difference_in_differences"]
    rows = [
        [name.replace("_", " "), f"{r['estimate']:+.3f} [{r['lower']:.3f}, {r['upper']:.3f}]",
         number(r["p_language"]), number(r["p_language_floor"]), r["n"]]
        for name, r in found.items()
    ]  # fmt: skip
    header = ["layers", "difference [95% over concepts]", "p (language labels)",
              "smallest reachable", "n"]  # fmt: skip
    return markdown(header, rows)


def claims(paths: RunPaths) -> str:
    """The original study's headline claims, and what suite mini says of each."""
    curves = results.load_curves(paths.curves)
    metadata, cells = curves["metadata"], commitment_cells(paths)
    base = next(v for v in metadata["variants"] if metadata["roles"][v] == "base")
    codes = languages(metadata)
    audit = curves["audit"]["identical_input"]
    testable = [c for c in codes if not audit["span_mean"][base][c]["untestable"]]
    found = [c for c in testable if cells[base, c]["status"] == "committed"]
    shape = [c for c in testable if curves["shape"][base][c]["label"] == "RISE_PEAK_COLLAPSE"]
    rising = ("RISE_PEAK_COLLAPSE", "MONOTONE_RISE")
    rises = [c for c in found if curves["shape"][base][c]["label"] in rising]
    region = [r for r in contrast_records(paths) if r["contrast"].startswith("region")]
    kept = [r for r in region if float(r["p_holm"]) <= 0.05]
    special = [r for r in contrast_records(paths) if r["contrast"].startswith("specificity")]
    gaps = "; ".join(
        f"{r['contrast'].split(': ')[1]} {float(r['estimate']):+.3f} "
        f"[{number(r['lower'])}, {number(r['upper'])}]"
        for r in special
    )
    constant = [c for c in codes if audit["last"][base][c]["untestable"]]
    rows = [
        ["concepts are shared mid-network", f"aligned after the embeddings in {len(found)} of "
         f"{len(testable)} testable languages ({', '.join(found)}); more than at the embeddings "
         f"already, in both halves of the concepts, in {len(rises)} ({', '.join(rises)})"],
        ["and are let go again towards the output", f"rise, peak and decline before the final norm "
         f"in {len(shape)} of {len(testable)} ({', '.join(shape)})"],
        ["regional tuning raises alignment in its languages", f"{len(kept)} of {len(region)} "
         f"contrasts of a regional adapter with `global` survive Holm; targets minus untargeted: "
         f"{gaps}"],
        ["alignment is maximal at the embeddings where scripts are shared",
         f"an artefact: the last token is the same in {len(constant)} of {len(codes)} languages "
         f"({', '.join(constant)})"],
    ]  # fmt: skip
    return markdown(["claim of the original study", "suite mini"], rows)


def abstract(paths: RunPaths) -> str:
    """The results in sentences, from the numbers."""
    curves = results.load_curves(paths.curves)
    metadata, cells = curves["metadata"], commitment_cells(paths)
    base = next(v for v in metadata["variants"] if metadata["roles"][v] == "base")
    names = suites.load_languages()
    by_status: dict[str, list[str]] = {}
    for code in languages(metadata):
        by_status.setdefault(cells[base, code]["status"], []).append(names[code].name)
    concept = curves["measures"]["span_mean"]["concept"]
    untrained = [v for v in metadata["variants"] if metadata["roles"][v] == "untrained"]
    strongest = max(
        (c for c in languages(metadata) if cells[base, c]["status"] == "committed"),
        key=lambda c: max(concept[base][c]["mean"]),
    )
    row = best_row(concept[base][strongest])
    beside = "".join(f", where {v} has {interval(concept[v][strongest], row)}" for v in untrained)
    region = [r for r in contrast_records(paths) if r["contrast"].startswith("region")]
    kept = sum(float(r["p_holm"]) <= 0.05 for r in region)
    parts = [
        f"In base, concept alignment with {names[metadata['pivot']].name} is established in "
        f"{', '.join(by_status.get('committed', ['no language']))}"
    ]
    if "never" in by_status:
        parts.append(f"not established in {', '.join(by_status['never'])}")
    if "untestable" in by_status:
        parts.append(f"untestable in {', '.join(by_status['untestable'])} (identical inputs)")
    return (
        f"{'; '.join(parts)}. It is strongest in {names[strongest].name} at row {row}: "
        f"A = {interval(concept[base][strongest], row)} (n = {metadata['n']}){beside}. "
        f"Of {len(region)} contrasts between a regional adapter and `global`, {kept} survive "
        "correction for multiple comparisons."
    )


def failures(paths: RunPaths) -> str:
    """Category tests with at least 20 parents, smallest p first."""
    table = files.load_csv(paths.failure_tests, ("category", "p_holm"), files.MAKE_FAILURES)
    kept = sorted((r for r in table.to_dict("records") if r["p"]), key=lambda r: float(r["p"]))
    rows = [
        [r["category"], r["language"], r["variant"], number(r["mean_effect"]),
         number(r["mean_delta"]), f"[{number(r['lower'])}, {number(r['upper'])}]",
         number(r["p_holm"]), r["n"]]
        for r in kept[:10]
    ]  # fmt: skip
    return markdown(
        ["category", "language", "variant", "effect", "delta", "95% interval", "p (Holm)", "n"],
        rows,
    )


def adapters(paths: RunPaths) -> str:
    """Held-out perplexity of the adapters, before and after."""
    cards = {
        name: files.load_json(ADAPTERS / name / "card.json", "uv run train_adapters.py")
        for name in ("global", "fire", "earth")
    }
    before = next(iter(cards.values()))["perplexity_before"]
    rows = [
        [code, f"{before[code]:.1f}", *(
            f"{card['perplexity_after'][code]:.1f}"
            + (" (trained)" if code in card["tokens"] else "")
            for card in cards.values()
        )]
        for code in suites.load_suite("mini").languages
    ]  # fmt: skip
    return markdown(["language", "base", *cards], rows)
