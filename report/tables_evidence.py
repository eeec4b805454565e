"""Tables of docs/validation.md and of the adapters: evidence that is not a run's alignment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scipy import stats

from aya_probes import files, project, records, suites
from aya_probes.published import MAKE_PUBLISHED, Reanalysis, ratio_table
from aya_probes.run_folder import RunPaths
from tables_alignment import markdown, number

VALIDATION = project.ROOT / "docs" / "validation.json"
CHOICE = project.ROOT / "docs" / "measure_choice.json"
ADAPTERS = project.ROOT / "data" / "adapters" / "mini"
MAKE_VALIDATION = "uv run benchmarks/validation.py"
MAKE_CHOICE = "uv run benchmarks/measure_choice.py"


def validation(name: str) -> list[dict[str, Any]]:
    """Return one table of docs/validation.json."""
    return list(files.load_json(VALIDATION, MAKE_VALIDATION)["tables"][name])


def choice(name: str) -> list[dict[str, Any]]:
    """Return one table of docs/measure_choice.json."""
    return list(files.load_json(CHOICE, MAKE_CHOICE)["tables"][name])


def binomial_range(rate: float, draws: int) -> tuple[float, float]:
    """Return the central 95% range of an observed rate whose true value is ``rate``."""
    low, high = (float(stats.binom.ppf(q, draws, rate)) for q in (0.025, 0.975))
    return low / draws, high / draws


def _columns(records: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Return a table; ``columns`` maps each header to a field and its format, as ``rate:.3f``.

    A value that is null becomes an empty cell.
    """

    def cell(record: Mapping[str, Any], column: str) -> str:
        field, _, spec = column.partition(":")
        value = record[field]
        return "" if value is None else format(value, spec)

    rows = [[cell(record, column) for column in columns.values()] for record in records]
    return markdown(list(columns), rows)


# --- the choice of the measure ----------------------------------------------------------------


def measure_choice(paths: RunPaths) -> str:
    """The verdict of the rule on each candidate."""
    records = [
        {**r, "says": "yes" if r["qualifies"] else "no", "limit": f"{r['limit']:.3f}"}
        for r in choice("choice")
    ]
    columns = {
        "candidate": "candidate",
        "qualifies": "says",
        "highest rate against its limit": "null:.3f",
        "limit": "limit",
        "in the null plant": "null_plant",
        "smallest power": "power:.3f",
        "standard error": "error:.3f",
        "in the signal plant": "signal_plant",
    }
    return _columns(records, columns)


def _candidates(field: Callable[[Mapping[str, Any]], str], *, signal: bool, peaks: bool) -> str:
    """Return one row per n and plant, one column per candidate."""
    found: dict[tuple[int, str, int], dict[str, str]] = {}
    for r in choice("candidates"):
        if r["signal"] == signal and (not peaks or "peak_bias" in r):
            row = found.setdefault((r["n"], r["plant"], r["draws"]), {})
            row[r["candidate"]] = field(r)
    names = list(next(iter(found.values())))
    rows = [
        [n, plant, *(row[name] for name in names), draws]
        for (n, plant, draws), row in found.items()
    ]
    return markdown(["n", "rogue dimensions", *names, "draws"], rows)


def candidate_nulls(paths: RunPaths) -> str:
    """Share of draws called where no signal is planted."""
    return _candidates(lambda r: f"{r['called']:.3f}", signal=False, peaks=False)


def candidate_power(paths: RunPaths) -> str:
    """Share of draws called where a signal is planted."""
    return _candidates(lambda r: f"{r['called']:.3f}", signal=True, peaks=False)


def candidate_peaks(paths: RunPaths) -> str:
    """Bias of the peak layer, and mean distance from it."""
    return _candidates(
        lambda r: f"{r['peak_bias']:+.2f} ({r['peak_error']:.2f})", signal=True, peaks=True
    )


def candidate_faked(paths: RunPaths) -> str:
    """Mean A at layer 1 where no signal is planted."""
    return _candidates(lambda r: f"{r['early']:+.3f}", signal=False, peaks=False)


# --- tests, intervals and contrasts -----------------------------------------------------------


def family_wise(paths: RunPaths) -> str:
    """False positives of max-T under planted nulls, against the binomial range."""
    rows = []
    for r in validation("family_wise"):
        low, high = binomial_range(r["nominal"], r["draws"])
        verdict = "within" if low <= r["rate"] <= high else "below" if r["rate"] < low else "ABOVE"
        rates = [f"{r['rate']:.3f}", f"{low:.3f}-{high:.3f}", verdict, f"{r['first']:.3f}"]
        rows.append([r["plant"], *rates, r["draws"]])
    header = ["planted null", "false positives", "range around 0.05", "", "layer 0 alone", "draws"]
    return markdown(header, rows)


def coverage(paths: RunPaths) -> str:
    """Coverage of nominal 95% intervals of A."""
    columns = {
        "n": "n",
        "true A": "alignment:.2f",
        "coverage": "coverage:.3f",
        "bias": "bias:+.4f",
        "mean width": "width:.3f",
        "draws": "draws",
    }
    return _columns(validation("coverage"), columns)


def contrast_validation(paths: RunPaths) -> str:
    """False positives, power and coverage of paired contrasts at n = 20."""
    columns = {
        "true difference": "difference:.3f",
        "called at p ≤ 0.05": "called:.3f",
        "coverage": "coverage:.3f",
        "draws": "draws",
    }
    return _columns(validation("contrasts"), columns)


def contrast_error_validation(paths: RunPaths) -> str:
    """Error rates of the contrast pipeline without any difference."""
    columns = {
        "values": "plant",
        "family": "family",
        "layers": "window",
        "contrasts called at p ≤ 0.05": "called:.3f",
        "any called after Holm": "family_wise:.3f",
        "coverage of 0": "coverage:.3f",
        "draws": "draws",
    }
    records = [
        r
        for r in validation("contrast_errors")
        if r["window"] == "all" or "ignored" not in r["plant"]
    ]
    return _columns(records, columns)


def contrast_power_validation(paths: RunPaths) -> str:
    """What the contrast pipeline finds of a planted specificity."""
    columns = {
        "values": "plant",
        "true specificity": "truth:.4f",
        "established, all layers": "established_all:.2f",
        "middle third": "established_middle:.2f",
        "around the peak": "established_peak:.2f",
        "coverage": "coverage:.3f",
        "language labels p ≤ 0.05": "labels:.2f",
        "part: targets": "targets:.2f",
        "part: elsewhere": "elsewhere:.2f",
        "specificity of earth": "earth:.2f",
        "region: targets": "region_targets:.2f",
        "region: others": "region_others:.3f",
        "draws": "draws",
    }
    return _columns(validation("contrast_power"), columns)


# --- curves -----------------------------------------------------------------------------------


def ceiling_validation(paths: RunPaths) -> str:
    """Declines claimed on A and on disattenuated alignment."""
    columns = {
        "what changes over layers": "plant",
        "true value, layer 0": "first:.2f",
        "layer 18": "last:.2f",
        "decline claimed on A": "decline_of_a:.3f",
        "decline claimed, disattenuated": "decline:.3f",
        "rise claimed, disattenuated": "rise:.3f",
        "interval of the decline above 0": "decline_interval:.3f",
        "coverage": "coverage:.3f",
        "bias": "bias:+.3f",
        "draws": "draws",
    }
    return _columns(validation("ceilings"), columns)


def shape_validation(paths: RunPaths) -> str:
    """Shape labels on planted curves."""
    names = (
        "RISE_PEAK_DECLINE",
        "RISE",
        "FALL",
        "FLAT",
        "UNRESOLVED",
        "UNDEFINED",
    )
    columns = {
        "planted curve": "plant",
        **{name: f"{name}:.3f" for name in names},
        "false label": "false:.3f",
        "draws": "draws",
    }
    return _columns(validation("shapes"), columns)


def peak_validation(paths: RunPaths) -> str:
    """The peak layer and its interval."""
    columns = {
        "n": "n",
        "true peak value": "peak:.2f",
        "true peak layer": "truth",
        "peak named": "named:.3f",
        "within 1 layer": "within_1:.3f",
        "interval covers": "coverage:.3f",
        "mean width": "width:.1f",
        "draws": "draws",
    }
    return _columns(validation("peaks"), columns)


def layer_validation(paths: RunPaths) -> str:
    """Recovery of planted commitment and release, and rates under the null."""
    records = [
        {
            **r,
            "layers": "{} to {}".format(*r["truth"]) if r["truth"] else "none",
            **({} if r["truth"] else {"commitment_within_1": None, "release_within_1": None}),
        }
        for r in validation("layers")
    ]
    columns = {
        "n": "n",
        "planted strength": "peak:.2f",
        "true layers": "layers",
        "committed": "committed:.3f",
        "commitment within 1": "commitment_within_1:.3f",
        "release within 1": "release_within_1:.3f",
        "interval of commitment covers": "coverage:.3f",
        "mean width": "width:.1f",
        "concepts committed": "concepts_committed:.3f",
        "mismatched pairs committed": "concept_rate_on_mismatched:.4f",
        "draws": "draws",
    }
    return _columns(records, columns)


def decoys(paths: RunPaths) -> str:
    """What raw cosine and the published rule find, and what ours finds."""
    columns = {
        "plant": "plant",
        "raw cosine, matched": "matched:.3f",
        "raw cosine, mismatched": "mismatched:.3f",
        "published rule commits": "published_rule:.2f",
        "`sentence_alignment` called": "sentence_called:.3f",
        "`concept_alignment` called": "concept_called:.3f",
        "within the category called": "within_called:.3f",
        "mean A": "A:.3f",
        "mean A within the category": "A_within:.3f",
        "draws": "draws",
    }
    return _columns(validation("decoys"), columns)


# --- the published study, and the adapters ------------------------------------------------------


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
    measure_choice,
    candidate_nulls,
    candidate_power,
    candidate_peaks,
    candidate_faked,
    family_wise,
    coverage,
    contrast_validation,
    contrast_error_validation,
    contrast_power_validation,
    ceiling_validation,
    shape_validation,
    peak_validation,
    layer_validation,
    decoys,
    adapters,
)
