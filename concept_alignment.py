"""Measure cross-lingual alignment per variant, language pair and row, with controls and intervals.

Reads:  data/stimulus_manifest.json, activations/<variant>/
Writes: results/alignment_curves.json, commitment_matrix.csv, contrasts.csv, token_audit.json

    uv run concept_alignment.py
"""

from __future__ import annotations

import argparse
import itertools
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import activation_store as store
import alignment_stats as st
import artifacts
import study
from artifacts import Manifest, finite
from study import RunPaths, StudyError, Suite

PRIMARY = {"concept": "span_mean", "sentence": "content_mean"}  # poolings with full inference
IDENTICAL_LIMIT = 0.10  # share of concepts with identical row-0 vectors that voids a cell
LEGACY_COSINE, LEGACY_POOLING = 0.85, "last"  # the published study's commitment rule
MIN_CONCEPTS = 4
CONTRAST_HALF_WINDOW = 2
_CODE = ("concept_alignment.py", "alignment_stats.py", "activation_store.py", "artifacts.py")


@dataclass(frozen=True)
class Config:
    paths: RunPaths
    variants: tuple[str, ...] | None
    languages: tuple[str, ...] | None
    concepts: tuple[str, ...] | None
    n_bootstrap: int
    n_permutations: int
    seed: int


@dataclass
class Study:
    """What is analysed and the draws that every cell shares."""

    manifest: Manifest
    variants: list[str]
    languages: list[str]
    concepts: list[str]
    wordings: list[int]
    weights: np.ndarray
    orders: np.ndarray
    seed: int

    @property
    def suite(self) -> Suite:
        return self.manifest.suite

    @property
    def others(self) -> list[str]:
        return [code for code in self.languages if code != self.suite.pivot]

    def probe_ids(self, language: str) -> list[str]:
        """Return the probe stimuli of a language, concepts outermost."""
        return [f"{c}-{language}-{k}" for c in self.concepts for k in self.wordings]

    def parallel_ids(self, language: str) -> list[str]:
        """Return the parallel stimuli of a language in corpus order."""
        return [
            s.stimulus_id
            for s in self.manifest.stimuli
            if s.kind == "parallel" and s.language == language
        ]


Values = dict[tuple[str, str, str], np.ndarray]  # (measure, variant, language) -> A_i [row, n]


def load_study(config: Config) -> Study:
    """Read the manifest and settle variants, languages and concepts; UsageError on unknown ones."""
    manifest = artifacts.load_manifest(config.paths.manifest)
    suite = manifest.suite
    asked = config.variants or tuple(
        name
        for name in suite.names()
        if name in suite.default_names()
        or store.plan_path(config.paths.activations / name).is_file()
    )
    variants = study.choose("variant", asked, suite.names())
    languages = study.choose("language", config.languages, suite.languages)
    if suite.pivot not in languages or len(languages) < 2:
        raise study.UsageError(f"--languages must name {suite.pivot!r} (the pivot) and another one")
    concepts = study.choose("concept", config.concepts, list(manifest.metadata["concepts"]))
    if len(concepts) < MIN_CONCEPTS:
        # Fewer concepts are computed, but the reader must know that nothing can be inferred.
        print(
            f"warning: {len(concepts)} concepts, at least {MIN_CONCEPTS} are needed for "
            "inference: p-values and shapes are withheld",
            file=sys.stderr,
        )
    if len(concepts) < 2:
        raise StudyError(
            f"{config.paths.manifest}: alignment compares concepts: at least 2 are "
            f"needed, found {len(concepts)}; {artifacts.MAKE_MANIFEST} --concepts …"
        )
    wordings = sorted(
        {s.wording for s in manifest.stimuli if s.kind == "probe" and s.wording is not None}
    )
    n = len(concepts)
    return Study(
        manifest,
        variants,
        languages,
        concepts,
        wordings,
        st.resample_weights(n, config.n_bootstrap, config.seed),
        st.permutations(n, config.n_permutations, config.seed),
        config.seed,
    )


# --- one variant ------------------------------------------------------------------------------


def cell(
    values: np.ndarray, weights: np.ndarray | None, p: np.ndarray | None = None
) -> dict[str, Any]:
    """Return a curve's entry of the JSON from per-concept values ``[row, n]``, final norm last.

    Without ``weights`` the interval is null.
    """
    rows = values[:-1]
    entry: dict[str, Any] = {
        "mean": _list(rows.mean(1)),
        "lower": None,
        "upper": None,
        "p": None,
        "final_norm": finite(float(values[-1].mean())),
    }
    if weights is not None:
        lower, upper = st.expanded_interval(rows, weights)
        entry |= {"lower": _list(lower), "upper": _list(upper)}
    if p is not None:
        entry["p"] = _list(p[:-1])
    return entry


def _list(values: np.ndarray) -> list[float | None]:
    return [finite(float(value), 5) for value in values]


def analyse_variant(
    task: Study, variant: str, paths: RunPaths, out: dict[str, Any], values: Values
) -> list[dict[str, Any]]:
    """Fill ``out`` and ``values`` with one variant's measures; returns its commitment rows."""
    keep = {i for code in task.languages for i in (*task.probe_ids(code), *task.parallel_ids(code))}
    loaded = store.load_activations(
        store.variant_dir(paths, variant), task.manifest.sha256, study.POOLINGS, keep
    )
    shape = (len(task.concepts), len(task.wordings), len(loaded.plan["rows"]), -1)
    out["metadata"]["rows"] = loaded.plan["rows"]
    out["metadata"]["provenance"]["variants"][variant] = {
        "plan_sha256": artifacts.digest(loaded.plan),
        **{
            k: loaded.plan[k]
            for k in (
                "source",
                "dtype",
                "device",
                "threads",
                "packed",
                "versions",
                "tokenizer_sha256",
            )
        },
    }
    top1: dict[str, np.ndarray] = {}
    legacy: dict[str, np.ndarray] = {}
    for pooling in study.POOLINGS:
        raw = {
            code: loaded.take(pooling, task.probe_ids(code)).reshape(shape)
            for code in task.languages
        }
        centred = {code: st.mean_centre(vectors) for code, vectors in raw.items()}
        for left, right in itertools.combinations(_pivot_first(task), 2):
            similarity = st.cosines(centred[left], centred[right])
            for measure, home in PRIMARY.items():
                if measure == "concept" and len(task.wordings) < 2:
                    continue
                matrix = st.wording_mean(similarity, same_wording=measure == "sentence")
                aligned = st.alignment(matrix)
                if pooling == home:
                    infer = len(task.concepts) >= MIN_CONCEPTS
                    p = st.permutation_p(matrix, task.orders) if infer else None
                    entry = cell(aligned, task.weights if infer else None, p)
                    _put(out["pairs"], (measure, variant, f"{left}-{right}"), entry)
                else:
                    entry = cell(aligned, None)
                if left != task.suite.pivot:
                    continue
                _put(out["measures"], (pooling, measure, variant, right), entry)
                if pooling == home:
                    values[measure, variant, right] = aligned
                    _put(
                        out["measures"],
                        (pooling, f"{measure}_separation", variant, right),
                        cell(st.separation(matrix)[:, None], None),
                    )
                    top1_here = _retrieval(task, similarity, measure, pooling, variant, right, out)
                    if measure == "concept":
                        top1[right] = top1_here
            if left == task.suite.pivot:
                legacy_here = _raw_cosine(task, raw[left], raw[right], pooling, variant, right, out)
                if pooling == LEGACY_POOLING:
                    legacy[right] = legacy_here
        _identical_input(task, raw, pooling, variant, out)
    _parallel(task, loaded, variant, out)
    _tokens(task, loaded, variant, out)
    return commitment_rows(task, variant, values, top1, legacy, out)


def _pivot_first(task: Study) -> list[str]:
    return [task.suite.pivot, *task.others]


def _put(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value


def _retrieval(
    task: Study,
    similarity: np.ndarray,
    measure: str,
    pooling: str,
    variant: str,
    language: str,
    out: dict[str, Any],
) -> np.ndarray:
    """Write retrieval within wording pairs; returns wording pairs won both ways ``[row, n]``."""
    k = similarity.shape[1]
    chosen = np.eye(k, dtype=bool) if measure == "sentence" else ~np.eye(k, dtype=bool)
    scores = st.retrieval(similarity[:, chosen])
    for name, score in scores.items():
        entry = cell(
            score.mean(axis=1), task.weights if len(task.concepts) >= MIN_CONCEPTS else None
        )
        if name == "two_way":
            entry["chance"] = round(1 / (2 * len(task.concepts) - 1), 5)
        _put(out["measures"], (pooling, f"{measure}_retrieval_{name}", variant, language), entry)
    return scores["two_way"].mean(axis=1)


def _raw_cosine(
    task: Study,
    left: np.ndarray,
    right: np.ndarray,
    pooling: str,
    variant: str,
    language: str,
    out: dict[str, Any],
) -> np.ndarray:
    """Write uncentred cosine and its mismatched control; returns matched cosine ``[row, n]``."""
    matrix = st.wording_mean(st.cosines(left, right), same_wording=True)
    matched = np.diagonal(matrix, axis1=1, axis2=2)
    _put(out["measures"], (pooling, "cosine", variant, language), cell(matched, task.weights))
    _put(
        out["measures"],
        (pooling, "mismatched", variant, language),
        cell(st.mismatched(matrix)[:, None], None),
    )
    if pooling == "content_mean":
        for position, concept in enumerate(task.concepts):
            _put(out["curves"], (variant, concept, language), _list(matched[:-1, position]))
    return matched


def _identical_input(
    task: Study, raw: dict[str, np.ndarray], pooling: str, variant: str, out: dict[str, Any]
) -> None:
    """Audit: share of concepts whose pooled row-0 vectors equal the pivot's in some wording."""
    pivot = raw[task.suite.pivot][:, :, 0]
    for code in task.others:
        same = (raw[code][:, :, 0] == pivot).all(axis=-1).any(axis=1)
        share = float(same.mean())
        entry = {
            "share": round(share, 4),
            "untestable": share >= IDENTICAL_LIMIT,
            "concepts": [c for c, s in zip(task.concepts, same, strict=True) if s],
        }
        _put(out["audit"], ("identical_input", pooling, variant, code), entry)


def _parallel(task: Study, loaded: store.Activations, variant: str, out: dict[str, Any]) -> None:
    """Write retrieval and unbiased CKA on the parallel corpus (content_mean, centred)."""
    items = task.parallel_ids(task.suite.pivot)
    if len(items) < MIN_CONCEPTS:
        return
    pivot = loaded.take("content_mean", items)
    for code in task.others:
        other = loaded.take("content_mean", task.parallel_ids(code))
        scores, cka = [], []
        for row in range(pivot.shape[1]):
            a, b = pivot[:, row] - pivot[:, row].mean(0), other[:, row] - other[:, row].mean(0)
            scores.append(st.retrieval(st.unit(a) @ st.unit(b).T)["two_way"])
            cka.append(st.unbiased_cka(a, b))
        score = np.array(scores)
        spread = np.sqrt(score.mean(1) * (1 - score.mean(1)) / score.shape[1])
        entry = cell(score, None)
        entry["standard_error"] = _list(spread[:-1])
        entry |= {"n": len(items), "chance": round(1 / (2 * len(items) - 1), 5)}
        _put(out["measures"], ("content_mean", "parallel_retrieval", variant, code), entry)
        _put(
            out["measures"],
            ("content_mean", "parallel_cka", variant, code),
            {**cell(np.array(cka)[:, None], None), "n": len(items)},
        )


def _tokens(task: Study, loaded: store.Activations, variant: str, out: dict[str, Any]) -> None:
    """Audit: token Jaccard of the concepts' spans with the pivot, and fertility."""

    def span(stimulus: str) -> set[int]:
        record = loaded.tokens[stimulus]
        return {record["token_ids"][n] for n in record["span_tokens"]}

    for code in task.languages:
        ids, pivot_ids = task.probe_ids(code), task.probe_ids(task.suite.pivot)
        shared = [
            len(span(a) & span(b)) / len(span(a) | span(b))
            for a, b in zip(ids, pivot_ids, strict=True)
        ]
        fertility = [loaded.tokens[i]["tokens_per_character"] for i in ids]
        if code != task.suite.pivot:
            _put(out["audit"], ("shared_tokens", variant, code), round(float(np.mean(shared)), 4))
        _put(
            out["audit"],
            ("tokens_per_character", variant, code),
            round(float(np.mean(fertility)), 4),
        )


def commitment_rows(
    task: Study,
    variant: str,
    values: Values,
    top1: dict[str, np.ndarray],
    legacy: dict[str, np.ndarray],
    out: dict[str, Any],
) -> list[dict[str, Any]]:
    """Return commitment and legacy layers, ALL and per concept, and fill ``out['shape']``."""
    rows = []
    names = task.manifest.metadata["concepts"]
    for code in task.others:
        aligned = values.get(("concept", variant, code))
        void = out["audit"]["identical_input"]["span_mean"][variant][code]["untestable"]
        old_void = out["audit"]["identical_input"][LEGACY_POOLING][variant][code]["untestable"]
        layer: int | None = None
        status = "untestable"
        if aligned is not None and not void and len(task.concepts) >= MIN_CONCEPTS:
            curve = out["measures"]["span_mean"]["concept"][variant][code]
            p = np.array([np.nan if v is None else v for v in curve["p"]])
            layer = st.commitment_layer(aligned[:-1].mean(1), p)
            status = "committed" if layer is not None else "never"
        if aligned is not None and len(task.concepts) >= 2 * MIN_CONCEPTS:
            label, peak = st.shape_label(aligned[:-1], seed=task.seed)
            means = aligned.mean(1)
            top = float(means[:-1].max())
            _put(
                out["shape"],
                (variant, code),
                {
                    "label": "UNTESTABLE" if void else label,
                    "peak_row": peak,
                    "norm_step": finite(float(means[-1] - means[-2])),
                    "retained": finite(float(means[-2]) / top) if top > 0 else None,
                },
            )
        old = legacy[code]

        legacy_status = "identical_input" if old_void else "as_published"

        def row(
            concept_id: str,
            concept: str,
            layer: int | None,
            status: str,
            cosine: np.ndarray,
            code: str = code,
            legacy_status: str = legacy_status,
        ) -> dict[str, Any]:
            found = st.first_run(cosine[:-1] >= LEGACY_COSINE, start=0)
            return {
                "variant": variant,
                "language": code,
                "concept_id": concept_id,
                "concept": concept,
                "status": status,
                "commitment_layer": ""
                if status == "untestable"
                else -1
                if layer is None
                else layer,
                "legacy_layer": -1 if found is None else found,
                "legacy_status": legacy_status,
            }

        rows.append(row("ALL", "ALL", layer, status, old.mean(1)))
        same = out["audit"]["identical_input"]["span_mean"][variant][code]["concepts"]
        for position, concept in enumerate(task.concepts):
            one = st.first_run(top1[code][:-1, position] > 0.5, start=1) if code in top1 else None
            state = "untestable" if concept in same or code not in top1 else "descriptive"
            rows.append(row(concept, names[concept], one, state, old[:, position]))
    return rows


# --- contrasts between variants ---------------------------------------------------------------


def contrast_rows(
    task: Study, values: Values, out: dict[str, Any], seed: int
) -> list[dict[str, Any]]:
    """Return the paired contrasts of ``concept`` alignment between variants, Holm-adjusted.

    Each half of the concepts is read in the window ℓ* ± 2, ℓ* chosen on the other half in the
    control variant (base where there is none), so that selection and estimate are independent.
    Languages with an untestable cell are left out.
    """
    suite = task.suite
    here = [suite.variant(name) for name in task.variants]
    base = next((v.name for v in here if v.role == "base"), None)
    control = next((v.name for v in here if v.role == "control"), base)
    regional = [v for v in here if v.role == "regional"]
    untrained = next((v.name for v in here if v.role == "untrained"), None)
    if control is None or not values or len(task.concepts) < 2 * MIN_CONCEPTS:
        return []
    audit = out["audit"]["identical_input"]["span_mean"]
    others = [c for c in task.others if not any(audit[v][c]["untestable"] for v in task.variants)]
    targeted = {code for variant in regional for code in variant.targets}
    untargeted = [code for code in others if code not in targeted]
    pairs = [("post-training", control, base)] if base and base != control else []
    pairs += [("region", v.name, control) for v in regional]
    pairs += [("trained", v.name, untrained) for v in here if untrained and v.name != untrained]
    records: list[tuple[str, str, str, np.ndarray]] = []
    for kind, left, right in pairs:
        difference = {
            code: _windowed(task, values, control, left, code)
            - _windowed(task, values, control, str(right), code)
            for code in others
        }
        name = f"{kind}: {left} - {right}"
        records += [
            (name, code, _window_text(task, values, control, code), difference[code])
            for code in others
        ]
        targets = [c for c in suite.variant(left).targets if c in others]
        if kind == "region" and targets and untargeted:
            gap = np.mean([difference[c] for c in targets], axis=0) - np.mean(
                [difference[c] for c in untargeted], axis=0
            )
            label = f"{'+'.join(targets)} vs {'+'.join(untargeted)}"
            records.append((f"specificity: {left} - {right}", label, "per language", gap))
    p = np.array([st.sign_flip_p(d, count=len(task.orders), seed=seed) for *_, d in records])
    adjusted = st.holm(p)
    rows = []
    for (name, language, window, d), raw_p, holm_p in zip(records, p, adjusted, strict=True):
        lower, upper = st.expanded_interval(d, task.weights)
        rows.append(
            {
                "contrast": name,
                "language": language,
                "window": window,
                "estimate": float(d.mean()),
                "lower": float(lower),
                "upper": float(upper),
                "p": raw_p,
                "p_holm": holm_p,
                "n": len(d),
            }
        )
    return rows


def _peaks(task: Study, values: Values, control: str, code: str) -> list[tuple[np.ndarray, int]]:
    """Return (concepts to read, ℓ* chosen on the others) for both halves."""
    curve = values["concept", control, code][:-1]
    first, second = st.halves(len(task.concepts), task.seed)
    return [
        (mine, 1 + int(curve[1:, theirs].mean(1).argmax()))
        for mine, theirs in ((first, second), (second, first))
    ]


def _windowed(task: Study, values: Values, control: str, variant: str, code: str) -> np.ndarray:
    curve = values["concept", variant, code][:-1]
    result = np.empty(curve.shape[1])
    for mine, peak in _peaks(task, values, control, code):
        low, high = max(1, peak - CONTRAST_HALF_WINDOW), peak + CONTRAST_HALF_WINDOW + 1
        result[mine] = curve[low:high, mine].mean(0)
    return result


def _window_text(task: Study, values: Values, control: str, code: str) -> str:
    last = len(values["concept", control, code]) - 2
    return " / ".join(
        f"{max(1, peak - CONTRAST_HALF_WINDOW)}-{min(last, peak + CONTRAST_HALF_WINDOW)}"
        for _, peak in _peaks(task, values, control, code)
    )


# --- the stage --------------------------------------------------------------------------------


def run(config: Config) -> tuple[Path, dict[str, Any]]:
    """Load, measure, save; returns the path and content of alignment_curves.json."""
    import pandas as pd
    from tqdm import tqdm

    task = load_study(config)
    out: dict[str, Any] = {name: {} for name in artifacts.CURVE_FIELDS}
    out["metadata"] = {
        "schema_version": study.SCHEMA_VERSION,
        "suite": task.suite.name,
        "label": task.suite.label,
        "note": task.suite.note,
        "variants": task.variants,
        "languages": task.languages,
        "pivot": task.suite.pivot,
        "concepts": task.concepts,
        "roles": {v: task.suite.variant(v).role for v in task.variants},
        "targets": {v: list(task.suite.variant(v).targets) for v in task.variants},
        "concept_names": {c: task.manifest.metadata["concepts"][c] for c in task.concepts},
        "n": len(task.concepts),
        "wordings": len(task.wordings),
        "n_bootstrap": config.n_bootstrap,
        "n_permutations": config.n_permutations,
        "seed": config.seed,
        "parallel_corpus": task.manifest.metadata["corpus"],
        "provenance": {
            "manifest_sha256": task.manifest.sha256,
            "variants": {},
            "code_sha256": study.code_hash(*_CODE),
        },
    }
    values: Values = {}
    commitment: list[dict[str, Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN cells are reported below by name
        for variant in tqdm(task.variants, unit="variant", desc="measure"):
            commitment += analyse_variant(task, variant, config.paths, out, values)
    _warn_undefined(out)
    contrasts = contrast_rows(task, values, out, config.seed)
    artifacts.save_curves(config.paths.curves, out)
    artifacts.save_csv(
        config.paths.commitment,
        pd.DataFrame(commitment, columns=list(artifacts.COMMITMENT_COLUMNS)),
    )
    artifacts.save_csv(
        config.paths.contrasts, pd.DataFrame(contrasts, columns=list(artifacts.CONTRAST_COLUMNS))
    )
    _save_token_audit(task, config.paths)
    return config.paths.curves, out


def _warn_undefined(out: dict[str, Any]) -> None:
    for pooling, measures in out["measures"].items():
        for measure, variants in measures.items():
            for variant, languages in variants.items():
                for code, entry in languages.items():
                    rows = [r for r, value in enumerate(entry["mean"]) if value is None]
                    if rows and measure in (*PRIMARY, "cosine"):
                        print(
                            f"warning: {variant} {code} {pooling} {measure}: rows {rows} are "
                            "undefined (constant or zero vectors)",
                            file=sys.stderr,
                        )


def _save_token_audit(task: Study, paths: RunPaths) -> None:
    """Write the probes' token pieces and flags for the demo (from the first variant)."""
    tokens = artifacts.load_json(
        store.variant_dir(paths, task.variants[0]) / "tokens.json", artifacts.MAKE_ACTIVATIONS
    )
    probes = {
        s.stimulus_id: {
            **tokens[s.stimulus_id],
            "text": s.text,
            "surface": s.text[s.span[0] : s.span[1]] if s.span else None,
        }
        for s in task.manifest.stimuli
        if s.kind == "probe" and s.language in task.languages and s.item_id in task.concepts
    }
    artifacts.save_json(
        paths.token_audit, {"variant": task.variants[0], "probes": probes}, indent=None
    )


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    parser = study.common_parser(
        "concept_alignment.py",
        "Measure cross-lingual alignment with controls and intervals.",
        "variants",
        "languages",
        "concepts",
        "seed",
    )
    parser.add_argument(
        "--n-bootstrap",
        type=study.positive_int,
        default=10_000,
        metavar="B",
        help="bootstrap resamples over concepts (default 10000)",
    )
    parser.add_argument(
        "--n-permutations",
        type=study.positive_int,
        default=10_000,
        metavar="B",
        help="permutations of concepts (default 10000)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and measure; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        path, out = run(
            Config(
                RunPaths(args.run_dir),
                args.variants,
                args.languages,
                args.concepts,
                args.n_bootstrap,
                args.n_permutations,
                args.seed,
            )
        )
        cells = out["audit"]["identical_input"]["span_mean"]
        void = [f"{v}/{c}" for v, row in cells.items() for c, e in row.items() if e["untestable"]]
        print(
            f"{len(out['metadata']['variants'])} variants x "
            f"{len(out['metadata']['languages']) - 1} languages in {path}; "
            f"untestable (identical inputs): {', '.join(void) or 'none'}"
        )

    return study.run_stage("concept_alignment.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
