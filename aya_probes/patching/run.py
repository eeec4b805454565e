"""Run concept patching: measure the variants, test, compare them, and save the results."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from aya_probes import command_line, project, prompts, records, run_folder, stage_files, stimuli
from aya_probes.alignment import contrasts, inference
from aya_probes.alignment.contrasts import Draws, Table
from aya_probes.errors import UsageError
from aya_probes.patching import analysis
from aya_probes.patching.analysis import Curve, Measurement
from aya_probes.results import patching as results_file
from aya_probes.results.patching import PatchingResults, PatchRow
from aya_probes.results.tables import Contrast
from aya_probes.run_folder import RunPaths
from aya_probes.stimuli import Manifest

PROG = "concept_patching.py"
STAGE = "patching"
LEAST_LANGUAGES = 3
ANALYSIS_VERSION = 1  # raise it when the same measurements would give other results


@dataclass(frozen=True)
class Config:
    """What a user may set of the stage."""

    paths: RunPaths
    variants: tuple[str, ...] | None = None
    languages: tuple[str, ...] | None = None
    """Languages of vectors and answers; None: all of the run."""
    targets: tuple[str, ...] | None = None
    """Languages of answers that are tried; None: all."""
    limit: int | None = None
    """Number of concepts; None: all."""
    frames: Path = prompts.DEFAULT_PATH
    shots: int = prompts.SHOTS
    n_bootstrap: int = 10_000
    n_permutations: int = 10_000
    seed: int = project.SEED
    device: str = "auto"
    dtype: str = "auto"
    overwrite: bool = False


def run(config: Config) -> PatchingResults:
    """Measure what is not measured yet, then analyse; returns the results, which are saved.

    Raises StudyError as ``model_stage.run_stages`` and ``prompts.load_prompts`` do.
    """
    manifest = stimuli.load_manifest(config.paths.manifest)
    suite = manifest.suite
    asked = config.variants or tuple(suite.default_names())
    names = command_line.choose("variant", asked, suite.names())
    with run_folder.lock_run(config.paths.run_dir, PROG):
        _measure(config, manifest, names)
        measured = [_load(config, manifest, name) for name in names]
        results, rows, differences = analyse(config, manifest, measured)
        results_file.save(config.paths, results, rows)
        path = config.paths.results / "patching_contrasts.csv"
        records.save_table(path, Contrast, differences)
    return results


def _measure(config: Config, manifest: Manifest, names: Sequence[str]) -> None:
    from aya_probes import model_stage  # torch takes seconds to import
    from aya_probes.patching.stage import PatchingStage

    suite = manifest.suite
    languages = command_line.choose("language", config.languages, list(suite.languages))
    if suite.pivot not in languages or len(languages) < LEAST_LANGUAGES:
        raise UsageError(
            f"--languages {','.join(languages)}: patching needs the pivot {suite.pivot} and two "
            "others at least: one is given, one answered, and the vectors are of a third"
        )
    targets = command_line.choose("target", config.targets, languages)
    stage = PatchingStage(
        prompts=prompts.load_prompts(config.frames, languages),
        concepts=prompts.load_concepts(manifest)[: config.limit],
        pivot=suite.pivot,
        targets=tuple(targets),
        sources=tuple(languages),
        shots=config.shots,
        seed=config.seed,
    )
    options = model_stage.Options(config.device, config.dtype, config.overwrite)
    variants = [suite.variant(name) for name in names]
    model_stage.run_stages(config.paths, manifest, variants, [stage], options)


def _load(config: Config, manifest: Manifest, name: str) -> Measurement:
    make = results_file.MAKE_PATCHING + config.paths.flag()
    content = stage_files.load_measured(config.paths, name, STAGE, manifest.sha256, make)
    path = stage_files.stage_path(config.paths, name, STAGE)
    return Measurement(name, content.rows, stage_files.load_arrays(path, content, make))


def analyse(
    config: Config, manifest: Manifest, measured: Sequence[Measurement]
) -> tuple[PatchingResults, list[PatchRow], list[Contrast]]:
    """Return the record, the rows of the table, and the contrasts between variants."""
    n = max(len(m.tokens["concepts"]) for m in measured)
    weights = inference.resample_weights(n, config.n_bootstrap, config.seed)
    draws = Draws(weights, config.n_permutations, config.seed)
    rows, windows, effects = list[PatchRow](), [], dict[tuple[str, str, str], Curve]()
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", RuntimeWarning)  # means of cells without a value
        for one in measured:
            rows += analysis.unpatched_rows(one)
            for curve in analysis.curves(one):
                found, window = analysis.rows_of(one.variant, curve, draws)
                rows += found
                windows += [window] if curve.test == "word" else []
                if curve.test == "word" and curve.condition == "source" and curve.testable:
                    effects[one.variant, curve.target, curve.source] = curve
        differences = compare(manifest, effects, draws)
    results = PatchingResults(
        schema_version=project.SCHEMA_VERSION,
        suite=manifest.suite.name,
        pivot=manifest.suite.pivot,
        manifest_sha256=manifest.sha256,
        settings={
            "permutations": str(config.n_permutations),
            "resamples": str(config.n_bootstrap),
            "seed": str(config.seed),
            "analysis_version": str(ANALYSIS_VERSION),
            "code_sha256": project.source_hash(),
        },
        ways={one.variant: one.tokens["way"] for one in measured},
        cells=tuple(cell for one in measured for cell in analysis.cells(one)),
        windows=tuple(windows),
        exact=tuple(words for one in measured for words in analysis.exact_words(one)),
    )
    return results, rows, differences


def compare(
    manifest: Manifest, effects: Mapping[tuple[str, str, str], Curve], draws: Draws
) -> list[Contrast]:
    """Return the planned contrasts of the effect of single source languages, by target.

    A contrast is over the variants whose target can be tested, and over the concepts that are told
    apart in each of them. Vectors are of the layers 0..L − 1; a patch of layer L at a word has no
    effect, so the last value only fills the place of the final norm, which no window reads.
    """
    found = []
    for target in dict.fromkeys(key[1] for key in effects):
        mine = {(v, a): curve for (v, t, a), curve in effects.items() if t == target}
        names = sorted({c for curve in mine.values() for c in curve.concepts})
        variants = [manifest.suite.variant(name) for name in dict.fromkeys(v for v, _ in mine)]
        values = {}
        for key, curve in mine.items():
            table = np.full((len(curve.in_target) + 1, len(names)), np.nan)
            place = [names.index(concept) for concept in curve.concepts]
            table[:-1, place] = curve.in_target
            table[-1] = table[-2]
            values[key] = table
        table_ = Table(f"patching_{target}", values, np.arange(len(names)))
        mine_draws = Draws(
            inference.resample_weights(len(names), len(draws.weights), draws.seed),
            draws.flips,
            draws.seed,
        )
        languages = list(dict.fromkeys(a for _, a in mine))
        found += contrasts.contrast_table(variants, languages, table_, (), mine_draws)
    return found


def summary(results: PatchingResults) -> str:
    """Return one line: how many targets were tested, and in how many a window was found."""
    tested = [c for c in results.cells if c.task == "translation" and c.status == analysis.TESTED]
    whole = [w for w in results.windows if w.condition == "mean_sources" and w.patched == "onward"]
    found = [w for w in whole if w.first is not None]
    return (
        f"{len(tested)} of {sum(c.task == 'translation' for c in results.cells)} targets tested, "
        f"{len(found)} of {len(whole)} with a window of layers that carry the concept but not the "
        "language"
    )
