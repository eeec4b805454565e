"""Run the alignment stage: compute results from activations, unless nothing changed."""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from aya_probes import errors, files, project, records
from aya_probes.alignment import cells, commitment, contrasts, cues, language_map
from aya_probes.alignment.contrasts import Draws, Table
from aya_probes.alignment.inputs import AlignmentInputs, Config, load_inputs
from aya_probes.errors import StudyError
from aya_probes.extraction import store
from aya_probes.extraction.store import Activations
from aya_probes.results import alignment as results_file
from aya_probes.results import tables
from aya_probes.results.alignment import Results
from aya_probes.results.curves import (
    CONCEPT,
    COSINE,
    ITEM_MEASURES,
    PARALLEL_ALIGNMENT,
    PARALLEL_CKA,
    PRIMARY,
    RAW,
)
from aya_probes.results.run_info import Provenance, RunInfo, VariantProvenance
from aya_probes.results.tables import Contrast, LanguagePair, Layers
from aya_probes.run_folder import RunPaths

# Raise this number when the same activations would give other results (ADR-012).
ANALYSIS_VERSION = 7


CONTRASTED = (CONCEPT, *ITEM_MEASURES)


@dataclass(frozen=True)
class Analysis:
    """Everything that the stage computes."""

    results: Results
    layers: list[Layers]
    contrasts: list[Contrast]
    language_map: list[LanguagePair]


def run(config: Config) -> tuple[Results, bool]:
    """Return the results, and whether they were computed now and saved.

    Saved results of the same inputs are loaded, unless ``config.overwrite``.
    """
    task = load_inputs(config)
    opened = {
        name: store.open_activations(store.variant_dir(config.paths, name), task.manifest.sha256)
        for name in task.variants
    }
    info = describe_run(task, config, opened)
    if not config.overwrite:
        found = _up_to_date(config.paths, info.provenance.inputs_sha256)
        if found is not None:
            return found, False
    analysis = analyse(task, info, opened)
    results_file.save_results(config.paths.curves, analysis.results)
    tables.save_tables(config.paths, analysis.results, analysis.layers, analysis.contrasts)
    records.save_table(config.paths.language_map, LanguagePair, analysis.language_map)
    _save_token_audit(task, config.paths)
    return analysis.results, True


def analyse(task: AlignmentInputs, info: RunInfo, opened: Mapping[str, Activations]) -> Analysis:
    """Measure every variant, then compare them."""
    results, layers, pairs = Results(info), list[Layers](), list[LanguagePair]()
    tables: dict[str, dict[tuple[str, str], np.ndarray]] = {}
    # With one BLAS thread the results do not depend on the number of cores; it is also faster.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", RuntimeWarning)  # warn_undefined names the NaN cells
        for variant in tqdm(task.variants, unit="variant", desc="measure"):
            measured = cells.measure(task, variant, opened[variant])
            shapes = commitment.find_shapes(task, variant, measured)
            results = results.merged(dataclasses.replace(measured.to_results(info), shapes=shapes))
            layers += commitment.commitment_table(task, variant, measured)
            pairs += language_map.measure(task, variant, opened[variant])
            for (name, code), table in {**measured.aligned, **measured.items}.items():
                tables.setdefault(name, {})[variant, code] = table
        differences = compare(task, results, tables)
        warn_of_few_draws(differences, len(task.orders))
        found = cues.measure(task, opened[task.variants[0]]) if task.concepts else {}
    results = dataclasses.replace(results, cues=found, disagreements=tuple(disagreements(results)))
    warn_undefined(results)
    return Analysis(results, layers, differences, pairs)


def compare(
    task: AlignmentInputs,
    results: Results,
    tables: Mapping[str, Mapping[tuple[str, str], np.ndarray]],
) -> list[Contrast]:
    """Return the contrasts of every measure with values per concept or per corpus item."""
    variants = [task.suite.variant(name) for name in task.variants]
    found = []
    for name, values in tables.items():
        if name.removesuffix(RAW) not in CONTRASTED:
            continue
        of_concepts = name.removesuffix(RAW) == CONCEPT
        groups = np.arange(len(task.concepts)) if of_concepts else task.documents
        weights = task.weights(int(groups.max()) + 1)
        if weights is None:
            continue
        found += contrasts.contrast_table(
            variants,
            task.others,
            Table(name, values, groups),
            untestable_languages(results) if of_concepts else (),
            Draws(weights, len(task.orders), task.seed),
        )
    return found


def describe_run(
    task: AlignmentInputs, config: Config, opened: Mapping[str, Activations]
) -> RunInfo:
    """Return what the run compares; raises StudyError if variants differ in depth."""
    suite, depth = task.suite, next(iter(opened.values())).plan.layers
    for name, loaded in opened.items():
        if loaded.plan.layers != depth:
            raise StudyError(
                f"activations/{name}/plan.json: layers 0..{loaded.plan.layer_count - 2}, but other "
                f"variants have 0..{len(depth) - 2}; fix the suite: all must have the same depth"
            )
    return RunInfo(
        schema_version=project.SCHEMA_VERSION,
        suite=suite.name,
        label=suite.label,
        note=suite.note,
        pivot=suite.pivot,
        languages=tuple(task.languages),
        variants=tuple(task.variants),
        roles={v: suite.variant(v).role for v in task.variants},
        repeats={v: of for v in task.variants if (of := suite.variant(v).of) is not None},
        targets={v: suite.variant(v).targets for v in task.variants},
        concepts=tuple(task.concepts),
        concept_names={c: task.manifest.metadata["concepts"][c] for c in task.concepts},
        layers=depth,
        n=len(task.concepts),
        wordings=len(task.wordings),
        n_bootstrap=config.n_bootstrap,
        n_permutations=config.n_permutations,
        seed=config.seed,
        parallel_corpus=task.manifest.metadata["corpus"],
        provenance=_provenance(task, config, opened),
    )


def _provenance(
    task: AlignmentInputs, config: Config, opened: Mapping[str, Activations]
) -> Provenance:
    contents = {name: loaded.content_sha256 for name, loaded in opened.items()}
    decisive = [
        ANALYSIS_VERSION,
        project.SCHEMA_VERSION,
        task.manifest.sha256,
        contents,
        task.languages,
        task.concepts,
        config.n_bootstrap,
        config.n_permutations,
        config.seed,
    ]
    return Provenance(
        inputs_sha256=files.digest(decisive),
        manifest_sha256=task.manifest.sha256,
        analysis_version=ANALYSIS_VERSION,
        code_sha256=project.source_hash(),
        variants={name: _variant_provenance(loaded) for name, loaded in opened.items()},
    )


def _variant_provenance(loaded: Activations) -> VariantProvenance:
    plan = loaded.plan
    return VariantProvenance(
        content_sha256=loaded.content_sha256,
        source=plan.inputs.source,
        dtype=plan.inputs.dtype,
        device=plan.device,
        threads=plan.threads,
        packed=plan.packed,
        versions=plan.versions,
        tokenizer_sha256=plan.tokenizer_sha256,
    )


def _up_to_date(paths: RunPaths, inputs_sha256: str) -> Results | None:
    """Return the saved results if they are complete, unaltered and of the same inputs."""
    tables_here = (paths.curve_table, paths.commitment, paths.contrasts, paths.language_map)
    if not all(map(files.matches_sum, (paths.curves, *tables_here, paths.token_audit))):
        return None
    try:
        found = results_file.load_results(paths.curves)
    except StudyError:  # written by another version
        return None
    return found if found.info.provenance.inputs_sha256 == inputs_sha256 else None


def untestable_languages(results: Results) -> set[str]:
    """Return the languages that are untestable on ``span_mean`` in any variant."""
    info = results.info
    if not info.concepts:
        return set()
    return {c for v in info.variants for c in info.others if results.is_untestable(v, c)}


def warn_undefined(results: Results) -> None:
    """Warn of cells without a value, in one line per pooling, measure and set of layers."""
    undefined: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for key, curve in results.curves.items():
        missing = [str(layer) for layer, value in enumerate(curve.mean) if value is None]
        named_here = key.measure in (*PRIMARY, COSINE, PARALLEL_ALIGNMENT, PARALLEL_CKA)
        if key.left == results.info.pivot and named_here and missing:
            where = undefined.setdefault((key.pooling, key.measure, ", ".join(missing)), {})
            where.setdefault(key.variant, []).append(key.right)
    for (pooling, measure, missing_layers), variants in undefined.items():
        named = "; ".join(f"{name}: {', '.join(codes)}" for name, codes in variants.items())
        errors.warn(
            f"{measure} on {pooling} is undefined (constant or zero vectors) at layers "
            f"{missing_layers} of {named}"
        )


def warn_of_few_draws(found: Sequence[Contrast], draws: int) -> None:
    """Warn if so few random draws are made that Holm's correction leaves no p-value below 0.05."""
    families = Counter((row.measure, row.family, row.window) for row in found)
    largest = max(families.values(), default=0)
    if largest > 0.05 * (draws + 1):
        errors.warn(
            f"{draws} random draws can establish none of the {largest} contrasts of a family; use "
            f"--n-permutations {20 * largest} or more"
        )


def _save_token_audit(task: AlignmentInputs, paths: RunPaths) -> None:
    """Write the tokens of the probes for the page, from the first variant."""
    if not task.concepts:
        files.save_json(paths.token_audit, {"variant": task.variants[0], "probes": {}}, indent=None)
        return
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
    audit = {"variant": task.variants[0], "probes": probes}
    files.save_json(paths.token_audit, audit, indent=None)


def summary(results: Results) -> str:
    """Return the lines that the stage prints: identical inputs, and the size of the run."""
    info, lines = results.info, []
    for pooling in dict.fromkeys(key[0] for key in results.inputs):
        cells_here = [(v, c) for v in info.variants for c in info.others]
        void = [(v, c) for v, c in cells_here if results.is_untestable(v, c, pooling)]
        shares = {(v, c): results.input_share(v, c, pooling).share for v, c in cells_here}
        named = dict.fromkeys(f"{c} {share:.0%}" for (_, c), share in shares.items() if share)
        lines.append(
            f"untestable on {pooling}: {len(void)} of {len(cells_here)} cells"
            + (f" (identical inputs: {', '.join(named)} of the concepts)" if named else "")
        )
    size = f"{info.n} concepts" if info.concepts else f"{info.parallel_corpus['items']} items"
    lines.append(f"{len(info.variants)} variants x {len(info.others)} languages, {size}")
    lines += results.disagreements
    return "\n".join(lines)


def disagreements(results: Results, alpha: float = 0.05) -> list[str]:
    """Return, in words, where the standardised and the raw measure disagree about alignment.

    Untestable languages are left out.
    """
    info, found = results.info, []
    for measure, pooling in PRIMARY.items() if info.concepts else ():
        for variant in info.variants:
            verdicts: dict[bool, list[str]] = {True: [], False: []}
            for code in info.others:
                if results.is_untestable(variant, code, pooling):
                    continue
                curves = (results.curve(measure + suffix, variant, code) for suffix in ("", RAW))
                robust, raw = (
                    bool(c is not None and (c.array("p")[1:] <= alpha).any()) for c in curves
                )
                if robust != raw:
                    verdicts[robust].append(code)
            for robust, codes in verdicts.items():
                if codes:
                    found.append(
                        f"{measure}, {variant}: "
                        f"{'established' if robust else 'not established'} for {', '.join(codes)}, "
                        f"but {'not ' if robust else ''}established on raw vectors"
                    )
    return found
