"""Measure cross-lingual alignment per variant, language pair and row, with controls and intervals.

Reads:  data/stimulus_manifest.json, activations/<variant>/
Writes: results/alignment_curves.json, commitment_matrix.csv, contrasts.csv, token_audit.json

    uv run concept_alignment.py
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aya_probes import command_line, errors, files, project, results, stimuli
from aya_probes.alignment import cells, commitment, contrasts, inference
from aya_probes.alignment.cells import IDENTICAL_LIMIT, MIN_CONCEPTS, PRIMARY, Study, Tree
from aya_probes.alignment.commitment import MIN_SHAPE_CONCEPTS
from aya_probes.errors import StudyError
from aya_probes.extraction import store
from aya_probes.extraction.plan import Plan, plan_path
from aya_probes.run_folder import RunPaths
from aya_probes.suites import Suite

_PLAN_KEYS = ("device", "threads", "packed", "versions", "tokenizer_sha256")


@dataclass(frozen=True)
class Config:
    paths: RunPaths
    variants: tuple[str, ...] | None
    languages: tuple[str, ...] | None
    concepts: tuple[str, ...] | None
    n_bootstrap: int
    n_permutations: int
    seed: int


def load_study(config: Config) -> Study:
    """Read the manifest and settle variants, languages and concepts; UsageError on unknown ones."""
    manifest = stimuli.load_manifest(config.paths.manifest)
    suite = manifest.suite
    languages = command_line.choose("language", config.languages, suite.languages)
    if suite.pivot not in languages or len(languages) < 2:
        raise errors.UsageError(
            f"--languages must name {suite.pivot!r} (the pivot) and another one"
        )
    concepts = command_line.choose("concept", config.concepts, list(manifest.metadata["concepts"]))
    if len(concepts) < 2:
        raise StudyError(
            f"{config.paths.manifest}: alignment compares concepts: at least 2 are "
            f"needed, found {len(concepts)}; {files.MAKE_MANIFEST} --concepts …"
        )
    if len(concepts) < MIN_CONCEPTS:
        # Fewer concepts are computed, but the reader must know that nothing can be inferred.
        _warn(
            f"{len(concepts)} concepts, at least {MIN_CONCEPTS} are needed for inference: "
            "p-values, intervals, commitment and shapes are withheld"
        )
    elif len(concepts) < MIN_SHAPE_CONCEPTS:
        _warn(
            f"{len(concepts)} concepts, at least {MIN_SHAPE_CONCEPTS} are needed for two halves: "
            "shapes and contrasts are withheld"
        )
    wordings = sorted(
        {s.wording for s in manifest.stimuli if s.kind == "probe" and s.wording is not None}
    )
    if len(wordings) < 2:
        _warn("one wording per concept: `concept`, which compares different wordings, is withheld")
    n = len(concepts)
    return Study(
        manifest,
        choose_variants(config, suite),
        languages,
        concepts,
        wordings,
        inference.resample_weights(n, config.n_bootstrap, config.seed),
        inference.permutations(n, config.n_permutations, config.seed),
        config.seed,
    )


def choose_variants(config: Config, suite: Suite) -> list[str]:
    """Return the variants asked for, else those with activations; a default one missing is named.

    Raises UsageError for an unknown variant, StudyError if there are no activations at all.
    """
    if config.variants:
        return command_line.choose("variant", config.variants, suite.names())
    here = [v for v in suite.names() if plan_path(config.paths.activations / v).is_file()]
    if not here:
        raise StudyError(
            f"{config.paths.activations}: no variant has a plan.json here; "
            f"make them with: {files.MAKE_ACTIVATIONS}"
        )
    for name in suite.default_names():
        if name not in here:
            _warn(
                f"variant {name} has no activations: it is left out, and contrasts with it; "
                f"make them with: {files.MAKE_ACTIVATIONS} --variants {name}"
            )
    return here


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


# --- the stage --------------------------------------------------------------------------------


def _metadata(task: Study, config: Config) -> dict[str, Any]:
    suite = task.suite
    return {
        "schema_version": project.SCHEMA_VERSION,
        "suite": suite.name,
        "label": suite.label,
        "note": suite.note,
        "variants": task.variants,
        "languages": task.languages,
        "pivot": suite.pivot,
        "concepts": task.concepts,
        "roles": {v: suite.variant(v).role for v in task.variants},
        "targets": {v: list(suite.variant(v).targets) for v in task.variants},
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
            "code_sha256": project.source_hash(),
        },
    }


def run(config: Config) -> tuple[Path, Tree]:
    """Load, measure, save; returns the path and content of alignment_curves.json."""
    import pandas as pd
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    task = load_study(config)
    out: Tree = {name: {} for name in results.CURVE_FIELDS}
    out["metadata"] = _metadata(task, config)
    matrix: list[dict[str, Any]] = []
    curves: dict[tuple[str, str], np.ndarray] = {}
    # One BLAS thread: the same bytes on any number of cores, and no time lost in waiting.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN cells are reported below by name
        for variant in tqdm(task.variants, unit="variant", desc="measure"):
            loaded = store.open_activations(
                store.variant_dir(config.paths, variant), task.manifest.sha256
            )
            _note_plan(out, variant, loaded.plan)
            measured = cells.measure(task, variant, loaded, out)
            matrix += commitment.rows(task, variant, measured, out)
            curves |= {(variant, code): aligned for code, aligned in measured.aligned.items()}
    _warn_undefined(out)
    differences = contrasts.rows(
        [task.suite.variant(name) for name in task.variants],
        task.others,
        curves,
        untestable=_untestable(out),
        weights=task.weights,
        flips=config.n_permutations,
        seed=task.seed,
    )
    results.save_curves(config.paths.curves, out)
    columns = list(results.COMMITMENT_COLUMNS)
    files.save_csv(config.paths.commitment, pd.DataFrame(matrix, columns=columns))
    columns = list(results.CONTRAST_COLUMNS)
    files.save_csv(config.paths.contrasts, pd.DataFrame(differences, columns=columns))
    _save_token_audit(task, config.paths)
    return config.paths.curves, out


def _note_plan(out: Tree, variant: str, plan: Plan) -> None:
    """Record how a variant's vectors were made; refuse a variant of another depth."""
    rows = out["metadata"].setdefault("rows", list(plan.layers))
    if rows != list(plan.layers):
        raise StudyError(
            f"activations/{variant}/plan.json: {plan.layer_count} rows, other variants have "
            f"{len(rows)}: the variants of a suite must be one model; mend the suite file"
        )
    out["metadata"]["provenance"]["variants"][variant] = {
        "plan_sha256": plan.sha256,
        "source": plan.inputs.source,
        "dtype": plan.inputs.dtype,
        **{key: getattr(plan, key) for key in _PLAN_KEYS},
    }


def _untestable(out: Tree) -> set[str]:
    """Return the languages with an untestable cell in any variant, on the concept's tokens."""
    audit = out["audit"]["identical_input"]["span_mean"]
    return {code for row in audit.values() for code, cell in row.items() if cell["untestable"]}


def _warn_undefined(out: Tree) -> None:
    """Name the cells that have no value, one line per pooling, measure and rows."""
    undefined_in: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for pooling, measures in out["measures"].items():
        for measure in (*PRIMARY, "cosine"):
            for variant, languages in measures.get(measure, {}).items():
                for code, entry in languages.items():
                    rows = [str(r) for r, value in enumerate(entry["mean"]) if value is None]
                    if rows:
                        key = (pooling, measure, ", ".join(rows))
                        undefined_in.setdefault(key, {}).setdefault(variant, []).append(code)
    for (pooling, measure, undefined), variants in undefined_in.items():
        by_languages: dict[str, list[str]] = {}
        for variant, codes in variants.items():
            by_languages.setdefault(", ".join(codes), []).append(variant)
        where = "; ".join(f"{', '.join(names)}: {codes}" for codes, names in by_languages.items())
        _warn(
            f"{measure} on {pooling} is undefined (constant or zero vectors) in row {undefined} of "
            f"{where}"
        )


def _save_token_audit(task: Study, paths: RunPaths) -> None:
    """Write the probes' token pieces and flags for the demo (from the first variant)."""
    tokens = files.load_json(
        store.variant_dir(paths, task.variants[0]) / "tokens.json", files.MAKE_ACTIVATIONS
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
    files.save_json(paths.token_audit, {"variant": task.variants[0], "probes": probes}, indent=None)


def summary(out: Tree) -> str:
    """Return the lines that the stage prints: what is untestable, and why."""
    metadata = out["metadata"]
    lines = []
    for pooling, variants in out["audit"]["identical_input"].items():
        shares = [(v, c, e["share"]) for v, row in variants.items() for c, e in row.items()]
        void: dict[tuple[str, float], list[str]] = {}
        for variant, code, share in shares:
            if share >= IDENTICAL_LIMIT:
                void.setdefault((code, share), []).append(variant)
        count = sum(map(len, void.values()))
        named = ", ".join(f"{code} {share:.0%}" for code, share in void)
        lines.append(
            f"untestable on {pooling}: {count} of {len(shares)} cells"
            + (f" (identical inputs: {named} of the concepts)" if count else "")
        )
    lines.append(
        f"{len(metadata['variants'])} variants x {len(metadata['languages']) - 1} languages, "
        f"{metadata['n']} concepts"
    )
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    parser = command_line.common_parser(
        "concept_alignment.py",
        "Measure cross-lingual alignment with controls and intervals.",
        "variants",
        "languages",
        "concepts",
        "seed",
    )
    for flag, what in (
        ("--n-bootstrap", "bootstrap resamples over concepts"),
        ("--n-permutations", "permutations of concepts"),
    ):
        parser.add_argument(
            flag,
            type=command_line.positive_int,
            default=10_000,
            metavar="B",
            help=f"{what} (default 10000)",
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
        print(f"{summary(out)} in {path}")

    return command_line.run_stage("concept_alignment.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
