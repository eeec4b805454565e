"""Tables of docs/validation.md and of the adapters: evidence that is not a run's alignment."""

from __future__ import annotations

from typing import Any

from scipy import stats

from aya_probes import files, project, records, suites
from aya_probes.published import MAKE_PUBLISHED, Reanalysis, ratio_table
from aya_probes.results.failures import CategoryTest
from aya_probes.run_folder import RunPaths
from tables_alignment import markdown, number

VALIDATION = project.ROOT / "docs" / "validation.json"
ADAPTERS = project.ROOT / "data" / "adapters" / "mini"
MAKE_VALIDATION = "uv run benchmarks/validation.py"


def validation(name: str) -> list[dict[str, Any]]:
    """Return one table of docs/validation.json."""
    return list(files.load_json(VALIDATION, MAKE_VALIDATION)["tables"][name])


def binomial_range(rate: float, draws: int) -> tuple[float, float]:
    """Return the central 95% range of an observed rate whose true value is ``rate``."""
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
        [
            r["n"],
            f"{r['alignment']:.2f}",
            f"{r['coverage']:.3f}",
            f"{r['bias']:+.4f}",
            f"{r['width']:.3f}",
            r["draws"],
        ]
        for r in validation("coverage")
    ]
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
        rows.append(
            [
                r["n"],
                f"{r['peak']:.2f}",
                truth,
                f"{r['committed']:.3f}",
                *near,
                f"{r['concepts_committed']:.3f}",
                f"{r['concept_rate_on_mismatched']:.4f}",
                r["draws"],
            ]
        )
    header = [
        "n",
        "planted strength",
        "true layers",
        "committed",
        "commitment within 1",
        "release within 1",
        "concepts committed",
        "mismatched pairs committed",
        "draws",
    ]
    return markdown(header, rows)


def decoys(paths: RunPaths) -> str:
    """What raw cosine and the published rule find, and what ours finds."""
    rows = [
        [
            r["plant"],
            f"{r['matched']:.3f}",
            f"{r['mismatched']:.3f}",
            f"{r['published_rule']:.2f}",
            f"{r['sentence_called']:.3f}",
            f"{r['concept_called']:.3f}",
            f"{r['A']:.3f}",
            r["draws"],
        ]
        for r in validation("decoys")
    ]
    header = [
        "plant",
        "raw cosine, matched",
        "raw cosine, mismatched",
        "published rule commits",
        "`sentence_alignment` called",
        "`concept_alignment` called",
        "mean A",
        "draws",
    ]
    return markdown(header, rows)


def published_claims(paths: RunPaths) -> str:
    """The published headline ratios at their own peaks and at matched layers."""
    return markdown(*ratio_table(records.load(Reanalysis, paths.published, MAKE_PUBLISHED)))


def published_regions(paths: RunPaths) -> str:
    """Fire − earth, South Asia minus Africa and West Asia."""
    found = records.load(Reanalysis, paths.published, MAKE_PUBLISHED)
    rows = [
        [
            name.replace("_", " "),
            f"{r.estimate:+.3f} [{r.lower:.3f}, {r.upper:.3f}]",
            number(r.p_language),
            number(r.p_language_floor),
            r.n,
        ]
        for name, r in found.difference_in_differences.items()
    ]
    header = [
        "layers",
        "difference [95% over concepts]",
        "p (language labels)",
        "smallest reachable",
        "n",
    ]
    return markdown(header, rows)


def failures(paths: RunPaths) -> str:
    """Category tests with at least 20 parents, smallest p first."""
    table = records.load_table(CategoryTest, paths.failure_tests, files.MAKE_FAILURES)
    tested = [(r.p, r) for r in table if r.p is not None]
    rows = [
        (
            r.category,
            r.language,
            r.variant,
            number(r.mean_effect),
            number(r.mean_delta),
            f"[{number(r.lower)}, {number(r.upper)}]",
            number(r.p_holm),
            r.n,
        )
        for _, r in sorted(tested, key=lambda pair: pair[0])[:10]
    ]
    header = "category, language, variant, effect, delta, 95% interval, p (Holm), n"
    return markdown(header.split(", "), rows)


def adapters(paths: RunPaths) -> str:
    """Held-out perplexity of the adapters, before and after."""
    cards = {
        name: files.load_json(ADAPTERS / name / "card.json", "uv run tools/train_adapters.py")
        for name in ("global", "fire", "earth")
    }

    def after(card: Any, code: str) -> str:
        trained = " (trained)" if code in card["tokens"] else ""
        return f"{card['perplexity_after'][code]:.1f}{trained}"

    before = next(iter(cards.values()))["perplexity_before"]
    rows = [
        [code, f"{before[code]:.1f}", *(after(card, code) for card in cards.values())]
        for code in suites.load_suite("mini").languages
    ]
    return markdown(["language", "base", *cards], rows)


TABLES = (
    published_claims,
    published_regions,
    family_wise,
    coverage,
    contrast_validation,
    shape_validation,
    layer_validation,
    decoys,
    failures,
    adapters,
)
