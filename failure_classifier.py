"""Attribute failures: how each perturbation changes alignment, per regional variant.

Effect of a perturbed text on a variant: its ``sentence`` alignment with its parent's pivot
sentence, minus the parent's own, averaged over the window ℓ* ± 2, ℓ* being the peak of the
reference variant's ``sentence`` alignment in the parent's language. delta = effect on the regional
variant - effect on the reference (control, else base). A single pair has no concepts to resample,
so its interval resamples the mismatched pivot sentences that its alignment is measured against:
it says how much depends on the choice of negatives, not how far the case generalises; claims are
made per category, language and variant (failure_tests.csv).

Reads:  data/stimulus_manifest.json, data/perturbations.json, activations/<variant>/
Writes: results/failure_cases.csv, results/failure_tests.csv, p1_edge_cases.json

    uv run failure_classifier.py
"""

from __future__ import annotations

import argparse
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aya_probes import command_line, files, probes, project, results, stimuli, suites
from aya_probes.alignment import inference, measures
from aya_probes.errors import StudyError
from aya_probes.extraction import plan, store
from aya_probes.files import finite
from aya_probes.run_folder import RunPaths
from aya_probes.stimuli import Manifest, Stimulus
from aya_probes.suites import Suite

CATEGORIES = (
    "UNICODE_EDGE",
    "TRANSLITERATION",
    "CODE_SWITCH",
    "FORMAL_REGISTER",
    "LOW_RESOURCE_VARIANT",
)
UNATTRIBUTED = "UNATTRIBUTED"
LATIN_SHARE = 0.70  # TRANSLITERATION: share of Latin letters
SCRIPT_SHARE = 0.15  # CODE_SWITCH: share of letters of each of two scripts
LEXICON_HITS = 2
WORDS_PER_TERM = 10
FERTILITY_RATIO = 1.5
HALF_WINDOW = 2
RESAMPLES = 2_000
MIN_PARENTS = 20  # a test over fewer is not reported as a claim
N_CASES, N_PER_CATEGORY, N_CONTROLS = 32, 4, 8


@dataclass(frozen=True)
class Config:
    paths: RunPaths
    variants: tuple[str, ...] | None
    seed: int


# --- labels -----------------------------------------------------------------------------------


def scripts(text: str) -> Counter[str]:
    """Count letters by script (the first word of the Unicode name)."""
    return Counter(unicodedata.name(c, "?").split()[0] for c in text if c.isalpha())


def words(text: str) -> list[str]:
    """Split into lower-case words, punctuation stripped."""
    return [w for w in (re.sub(r"^\W+|\W+$", "", part) for part in text.lower().split()) if w]


def _edge_marks(text: str) -> set[str]:
    marks = {f"Cf {ord(c):04X}" for c in text if unicodedata.category(c) == "Cf"}
    marks |= {"native digit" for c in text if c.isdecimal() and not c.isascii()}
    kinds = {unicodedata.bidirectional(c) for c in text if c.isalpha()}
    if "L" in kinds and kinds & {"R", "AL"}:
        marks.add("bidi mix")
    if unicodedata.normalize("NFC", text) != text:
        marks.add("not NFC")
    return marks


def labels(
    parent: str,
    text: str,
    *,
    language: str,
    tag: str,
    languages: Sequence[str],
    latin_script: bool,
    terms: Sequence[str],
    lexicons: dict[str, set[str]],
    pivot: str,
    fertility: float,
    parent_fertility: float,
) -> list[str]:
    """Return every category whose rule holds, in order of precedence (docs/failure_taxonomy.md)."""
    found = []
    marks = _edge_marks(text) - _edge_marks(parent)
    count = scripts(text)
    total = max(1, sum(count.values()))
    latin = count["LATIN"] / total
    mixed = sum(n / total >= SCRIPT_SHARE for n in count.values()) >= 2
    if mixed:
        marks.discard("bidi mix")  # a second script is code-switching, not an encoding matter
    if marks:
        found.append("UNICODE_EDGE")
    if not latin_script and latin >= LATIN_SHARE:
        found.append("TRANSLITERATION")
    here = words(text)
    hits = {code: sum(w in lexicons.get(code, ()) for w in here) for code in (language, pivot)}
    if mixed or (latin_script and language != pivot and min(hits.values()) >= LEXICON_HITS):
        found.append("CODE_SWITCH")
    n_terms = sum(term in text for term in terms)
    if n_terms * WORDS_PER_TERM >= len(here) and n_terms and not any(t in parent for t in terms):
        found.append("FORMAL_REGISTER")
    if tag.split("-")[0] not in languages or fertility >= FERTILITY_RATIO * parent_fertility:
        found.append("LOW_RESOURCE_VARIANT")
    return found


def classify(found: Sequence[str]) -> str:
    """Return the first label, or UNATTRIBUTED: a cause is never forced."""
    return found[0] if found else UNATTRIBUTED


def word_lexicons(manifest: Manifest) -> dict[str, set[str]]:
    """Return, per language, the words of its probes that no other language's probes have."""
    seen: dict[str, set[str]] = {}
    for s in manifest.stimuli:
        if s.kind == "probe":
            seen.setdefault(s.language, set()).update(words(s.text))
    return {
        code: {w for w in own if not any(w in o for c, o in seen.items() if c != code)}
        for code, own in seen.items()
    }


# --- effects ----------------------------------------------------------------------------------


@dataclass
class Effects:
    """Per-case effects of one variant: ``value [case]`` and ``draws [case, resample]``."""

    value: np.ndarray
    draws: np.ndarray


def reference_variant(suite: Suite, variants: Sequence[str]) -> str:
    """Return the control variant, else base; raises StudyError if the run has neither."""
    for role in ("control", "base"):
        for name in variants:
            if suite.variant(name).role == role:
                return name
    raise StudyError(
        "failures are measured against a control or base variant, and this run has "
        f"neither; extract one with: {files.MAKE_ACTIVATIONS}"
    )


def probe_grid(manifest: Manifest, language: str) -> tuple[list[str], list[str], list[int]]:
    """Return a language's probe ids (concepts outermost), its concepts and wordings."""
    probes = [s for s in manifest.stimuli if s.kind == "probe" and s.language == language]
    concepts = list(dict.fromkeys(s.item_id for s in probes))
    wordings = sorted({s.wording for s in probes if s.wording is not None})
    return [f"{c}-{language}-{k}" for c in concepts for k in wordings], concepts, wordings


def sentence_peaks(manifest: Manifest, loaded: store.Activations) -> dict[str, int]:
    """Return, per language, the row 1..L of the largest ``sentence`` alignment with the pivot."""
    grids = {}
    for code in manifest.suite.languages:
        ids, concepts, wordings = probe_grid(manifest, code)
        vectors = loaded.take("content_mean", ids)
        grids[code] = measures.mean_centre(
            vectors.reshape(len(concepts), len(wordings), *vectors.shape[1:])
        )
    pivot = grids[manifest.suite.pivot]
    peaks = {}
    for code, grid in grids.items():
        matrix = measures.wording_mean(measures.cosines(pivot, grid), same_wording=True)
        peaks[code] = 1 + int(measures.alignment(matrix).mean(1)[1:-1].argmax())
    return peaks


def variant_effects(
    manifest: Manifest,
    loaded: store.Activations,
    cases: Sequence[Stimulus],
    peaks: dict[str, int],
    seed: int,
) -> Effects:
    """Return the effect of every case on one variant, with resampled negatives."""
    pivot = manifest.suite.pivot
    last = loaded.plan.layer_count - 2
    centred: dict[str, np.ndarray] = {}
    means: dict[str, np.ndarray] = {}
    for code in {pivot, *(case.language for case in cases)}:
        vectors = loaded.take("content_mean", probe_grid(manifest, code)[0])
        means[code] = vectors.mean(0)
        centred[code] = measures.unit(vectors - means[code])
    ids, concepts, _wordings = probe_grid(manifest, pivot)
    weights = inference.resample_weights(len(concepts) - 1, RESAMPLES, seed)
    value, draws = np.empty(len(cases)), np.empty((len(cases), RESAMPLES))
    for n, case in enumerate(cases):
        assert case.parent_id is not None
        rows = slice(
            max(1, peaks[case.language] - HALF_WINDOW),
            min(last, peaks[case.language] + HALF_WINDOW) + 1,
        )
        texts = loaded.take("content_mean", [case.stimulus_id, case.parent_id])
        texts = measures.unit(texts - means[case.language])[:, rows]
        same = [position for position, name in enumerate(ids) if name.endswith(f"-{case.wording}")]
        negatives = [p for p in same if ids[p].split("-")[0] != case.item_id]
        own = ids.index(f"{case.item_id}-{pivot}-{case.wording}")
        matched = np.einsum("trh,rh->t", texts, centred[pivot][own, rows]) / texts.shape[1]
        other = np.einsum("trh,jrh->tj", texts, centred[pivot][negatives][:, rows]) / texts.shape[1]
        # A_i of the design; its column mean (other texts against the own pivot sentence) is the
        # same for text and parent, so that it cancels, and half of the row mean is left.
        shrink = len(negatives) / (len(negatives) + 1)
        gain, drift = matched[0] - matched[1], (other[0] - other[1]) / 2
        value[n] = shrink * (gain - drift.mean())
        draws[n] = shrink * (gain - drift @ weights.T)
    return Effects(value, draws)


def best_variants(effects: dict[str, Effects]) -> list[list[str]]:
    """Return, per case, the variant with the largest effect, then those not measurably below it."""
    names = list(effects)
    found = []
    for n in range(len(effects[names[0]].value)):
        first = max(names, key=lambda name: effects[name].value[n])
        gaps = {v: effects[first].draws[n] - effects[v].draws[n] for v in names if v != first}
        found.append([first, *(v for v, gap in gaps.items() if np.quantile(gap, 0.025) <= 0)])
    return found


def verdict(no_op: bool, lower: float, upper: float) -> str:
    """Return what a case shows: no_op, regional_worse, regional_better or no_difference."""
    if no_op:
        return "no_op"
    return "regional_worse" if upper < 0 else "regional_better" if lower > 0 else "no_difference"


# --- edge cases -------------------------------------------------------------------------------


def choose_cases(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose up to 32 distinct texts: 4 per category, 8 controls, the rest by |delta|.

    A control is a text on which the regional variant that targets its language is not worse than
    the reference, and no other variant is measurably better.
    """
    ordered = sorted(rows, key=lambda r: (-abs(r["delta"]), r["stimulus_id"], r["variant"]))
    chosen: dict[str, dict[str, Any]] = {}

    def take(candidates: list[dict[str, Any]], count: int, control: bool) -> None:
        for row in candidates:
            if count <= 0:
                return
            if row["stimulus_id"] not in chosen:
                chosen[row["stimulus_id"]] = {**row, "control": control}
                count -= 1

    good = [
        r
        for r in ordered
        if r["targeted"]
        and r["delta"] >= 0
        and r["verdict"] != "no_op"
        and r["variant"] in r["best"]
    ]
    take([r for r in good if r["verdict"] == "regional_better"] + good, N_CONTROLS, True)
    for category in CATEGORIES:
        have = sum(r["category"] == category and not r["control"] for r in chosen.values())
        take([r for r in ordered if r["category"] == category], N_PER_CATEGORY - have, False)
    take(ordered, N_CASES - len(chosen), False)
    return list(chosen.values())


def edge_case(number: int, row: dict[str, Any], run: str) -> dict[str, Any]:
    """Return one case of p1_edge_cases.json with its measured evidence."""
    effects = row["effects"]
    acceptable = sorted(row["best"])
    decided = row["verdict"] in ("regional_worse", "regional_better")
    status = "control" if row["control"] else "confirmed" if decided else "tie"
    expected = row["variant"] if row["control"] else row["best"][0]
    return {
        "test_id": f"P1-{number:02d}",
        "input": row["input"],
        "language_ground_truth": row["tag"],
        "expected_variant": expected,
        "acceptable_variants": acceptable,
        "failure_category": row["category"],
        "status": status,
        "routing_recommendation": f"{row['category']} in {row['tag']}: measured best on {expected}"
        if status != "tie"
        else f"{row['category']} in {row['tag']}: no measured difference",
        "p1_test_assertion": f"route(input) in {acceptable}",
        "evidence": {
            "parent_id": row["parent_id"],
            "perturbation": row["change"],
            "stimulus_id": row["stimulus_id"],
            "regional_variant": row["variant"],
            "reference_variant": row["reference_variant"],
            "effect": {name: finite(value, 4) for name, value in effects.items()},
            "delta": finite(row["delta"], 4),
            "ci95": [finite(row["lower"], 4), finite(row["upper"], 4)],
            "rows": row["rows"],
            "pooling": row["pooling"],
            "run": run,
        },
    }


def router_pass_rates(cases: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """Return the best pass rate of a constant, a script-only and a language-only router.

    Each router answers with the variant that passes most cases of its group: the upper bound of
    what a router with that information alone can reach.
    """
    groupings = {
        "constant": lambda case: "all",
        "script_only": lambda case: (scripts(case["input"]).most_common(1) or [("", 0)])[0][0],
        "language_only": lambda case: case["language_ground_truth"],
    }
    rates = {}
    for router, group_of in groupings.items():
        groups: dict[str, list[dict[str, Any]]] = {}
        for case in cases:
            groups.setdefault(group_of(case), []).append(case)
        passed = sum(
            max(sum(name in c["acceptable_variants"] for c in group) for name in names)
            for group in groups.values()
        )
        rates[router] = round(passed / max(1, len(cases)), 4)
    return rates


# --- the stage --------------------------------------------------------------------------------


def _measure(config: Config, manifest: Manifest) -> tuple[list[dict[str, Any]], list[str]]:
    suite = manifest.suite
    available = [
        n for n in suite.names() if plan.plan_path(store.variant_dir(config.paths, n)).is_file()
    ]
    names = (
        command_line.choose("variant", config.variants, available) if config.variants else available
    )
    if not names:
        raise StudyError(
            f"{config.paths.activations}: no activations; make them with: {files.MAKE_ACTIVATIONS}"
        )
    reference = reference_variant(suite, names)
    names = [n for n in names if suite.variant(n).role != "untrained"]
    cases = [s for s in manifest.stimuli if s.kind == "perturbation"]
    if len(manifest.metadata["concepts"]) < 3 or not cases:
        raise StudyError(
            f"{config.paths.manifest}: failures need at least 3 concepts and one "
            f"perturbation pair; make it anew with: {files.MAKE_MANIFEST}"
        )
    effects: dict[str, Effects] = {}
    peaks: dict[str, int] = {}
    tokens: dict[str, dict[str, Any]] = {}
    for name in [reference, *(n for n in names if n != reference)]:
        loaded = store.open_activations(store.variant_dir(config.paths, name), manifest.sha256)
        peaks = peaks or sentence_peaks(manifest, loaded)
        tokens = tokens or loaded.tokens
        effects[name] = variant_effects(manifest, loaded, cases, peaks, config.seed)
        last = loaded.plan.layer_count - 2
    _, terms = probes.load_perturbations(suites.resolve_path(suite.perturbations))
    lexicons, known = word_lexicons(manifest), suites.load_languages()
    text_of = {s.stimulus_id: s.text for s in manifest.stimuli}
    best = best_variants({name: effects[name] for name in names})
    rows = []
    for name in (n for n in names if suite.variant(n).role == "regional"):
        delta = effects[name].value - effects[reference].value
        bounds = np.quantile(effects[name].draws - effects[reference].draws, [0.025, 0.975], axis=1)
        for n, case in enumerate(cases):
            parent = str(case.parent_id)
            mine, theirs = tokens[case.stimulus_id], tokens[parent]
            found = labels(
                text_of[parent],
                case.text,
                language=case.language,
                tag=case.tag or case.language,
                languages=suite.languages,
                latin_script=known[case.language].script == "Latn",
                terms=terms.get(case.language, []),
                lexicons=lexicons,
                pivot=suite.pivot,
                fertility=mine["tokens_per_character"],
                parent_fertility=theirs["tokens_per_character"],
            )
            no_op = mine["token_ids"] == theirs["token_ids"]
            peak = peaks[case.language]
            rows.append(
                {
                    "stimulus_id": case.stimulus_id,
                    "parent_id": parent,
                    "language": case.language,
                    "tag": case.tag,
                    "variant": name,
                    "reference_variant": reference,
                    "category": case.category,
                    "labels": ";".join(found) or UNATTRIBUTED,
                    "detected": classify(found),
                    "effect": effects[name].value[n],
                    "reference_effect": effects[reference].value[n],
                    "delta": delta[n],
                    "lower": bounds[0][n],
                    "upper": bounds[1][n],
                    "rows": f"{max(1, peak - HALF_WINDOW)}-{min(last, peak + HALF_WINDOW)}",
                    "pooling": "content_mean",
                    "verdict": verdict(no_op, bounds[0][n], bounds[1][n]),
                    "input": case.text,
                    "parent": text_of[parent],
                    "targeted": case.language in suite.variant(name).targets,
                    "best": best[n],
                    "effects": {v: float(effects[v].value[n]) for v in names},
                }
            )
    return rows, names


def category_tests(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Return a sign-flip test per category, language and variant, Holm-adjusted."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["category"], row["language"], row["variant"]), []).append(row)
    tests = []
    for (category, language, variant), group in sorted(groups.items()):
        changed = [r for r in group if r["verdict"] != "no_op"]
        delta = np.array([r["delta"] for r in changed])
        enough = len({r["parent_id"] for r in changed}) >= MIN_PARENTS
        low, high = (
            inference.expanded_interval(
                delta, inference.resample_weights(len(delta), RESAMPLES, seed)
            )
            if len(delta) > 2
            else (np.nan, np.nan)
        )
        tests.append(
            {
                "category": category,
                "language": language,
                "variant": variant,
                "reference_variant": group[0]["reference_variant"],
                "n": len(delta),
                "mean_effect": float(np.mean([r["effect"] for r in changed]))
                if changed
                else np.nan,
                "mean_delta": float(delta.mean()) if len(delta) else np.nan,
                "lower": float(low),
                "upper": float(high),
                "p": inference.sign_flip_p(delta, count=9_999, seed=seed) if enough else np.nan,
            }
        )
    for test, p in zip(tests, inference.holm(np.array([t["p"] for t in tests])), strict=True):
        test["p_holm"] = p
    return tests


def run(config: Config) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure, classify, save; returns the failure rows and the edge-case file's content."""
    import pandas as pd

    manifest = stimuli.load_manifest(config.paths.manifest)
    rows, names = _measure(config, manifest)
    pairs, _ = probes.load_perturbations(suites.resolve_path(manifest.suite.perturbations))
    change = {pair.id: pair.change for pair in pairs}
    for row in rows:
        row["change"] = change.get(row["stimulus_id"], "")
    chosen = choose_cases(rows)
    run_name = f"{manifest.suite.name} {manifest.sha256[:12]}"
    cases = [edge_case(n, row, run_name) for n, row in enumerate(chosen, start=1)]
    rates = router_pass_rates(cases, names)
    note = (
        "Cases are the largest differences of many, and their intervals cover the choice of "
        "negatives only: no claim about a category follows (see failure_tests.csv)."
    )
    if manifest.suite.label != "Tiny Aya" or any(v.package for v in manifest.suite.variants):
        note += " Measured on another model: tests the harness, not a Tiny Aya router."
    edge = {
        "version": project.SCHEMA_VERSION,
        "source": f"failure_classifier.py, suite {manifest.suite.name}",
        "categories": [*CATEGORIES, UNATTRIBUTED],
        "metadata": {
            "suite": manifest.suite.name,
            "label": manifest.suite.label,
            "note": note,
            "manifest_sha256": manifest.sha256,
            "seed": config.seed,
            "variants": names,
            "router_best_pass_rate": rates,
            "discriminating": bool(cases) and all(rate < 1 for rate in rates.values()),
            "status_counts": dict(sorted(Counter(c["status"] for c in cases).items())),
            "code_sha256": project.source_hash(),
        },
        "cases": cases,
    }
    files.save_csv(
        config.paths.failure_cases, pd.DataFrame(rows, columns=list(results.FAILURE_COLUMNS))
    )
    files.save_csv(config.paths.failure_tests, pd.DataFrame(category_tests(rows, config.seed)))
    files.save_json(config.paths.edge_cases, edge)
    return rows, edge


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser(
        "failure_classifier.py", "Attribute failures and write edge cases.", "variants", "seed"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and classify; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        config = Config(RunPaths(args.run_dir), args.variants, args.seed)
        rows, edge = run(config)
        if len(edge["cases"]) < N_CASES:
            print(
                f"warning: {len(edge['cases'])} edge cases, {N_CASES} wanted: this run has too "
                "few perturbation pairs",
                file=sys.stderr,
            )
        unlike = len({r["stimulus_id"] for r in rows if r["category"] != r["detected"]})
        print(
            f"{len(rows)} rows in {config.paths.failure_cases}; {unlike} pairs detected "
            f"as another category than they were made for; {len(edge['cases'])} edge cases in "
            f"{config.paths.edge_cases}, discriminating: {edge['metadata']['discriminating']}"
        )

    return command_line.run_stage("failure_classifier.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
