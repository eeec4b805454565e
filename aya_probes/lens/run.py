"""Run the lens stage: measure the variants that are not measured, then analyse all of them.

The analysis needs no torch. It is computed again only if its inputs or ``ANALYSIS_VERSION``
changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aya_probes import command_line, files, project, prompts, run_folder, stage_files, stimuli
from aya_probes.errors import StudyError
from aya_probes.lens import cells
from aya_probes.lens.cells import Draws, VariantLens
from aya_probes.probes import Concept
from aya_probes.prompts import Cell
from aya_probes.results import lens as results
from aya_probes.results.lens import MAKE_LENS, LensCell, LensResults, LensRow
from aya_probes.run_folder import RunPaths
from aya_probes.stimuli import Manifest

ANALYSIS_VERSION = 1  # raise it when the same stage files would give other results
STAGE = "lens"


@dataclass(frozen=True)
class Config:
    """The settings of the stage."""

    paths: RunPaths
    """The run folder."""
    variants: tuple[str, ...] | None = None
    """Variants to measure; None means the suite's default ones."""
    languages: tuple[str, ...] | None = None
    """Languages; None means all of the run."""
    sources: tuple[str, ...] | None = None
    """Source languages of translations; None means fr and es where the run has them."""
    limit: int | None = None
    """Use only the first so many concepts."""
    shots: int = prompts.SHOTS
    """Shots of a prompt."""
    prompt_file: Path = prompts.DEFAULT_PATH
    """The frames."""
    seed: int = project.SEED
    """Seed of all random draws."""
    device: str = "auto"
    """auto, cuda, mps or cpu."""
    dtype: str = "auto"
    """auto, float32 or bf16."""
    draws: int = 2_000
    """Permutations, and bootstrap resamples."""
    overwrite: bool = False
    """Measure and analyse again what is there."""
    analyse_only: bool = False
    """Measure nothing: analyse what is there, without torch."""


def run(config: Config) -> list[LensCell] | None:
    """Measure and analyse; returns the cells, or None if nothing changed since the last run.

    All variants that were measured are analysed, also those that are not measured now.
    Raises StudyError for prompts that lack a language or a slot, for too few concepts, for a model
    without an unembedding, and for files of other inputs.
    """
    manifest = stimuli.load_manifest(config.paths.manifest)
    suite = manifest.suite
    asked = config.variants or tuple(suite.default_names())
    variants = command_line.choose("variant", asked, suite.names())
    with run_folder.lock_run(config.paths.run_dir, "logit_lens.py"):
        if not config.analyse_only:
            _measure(config, manifest, variants)
        measured = stage_files.measured_variants(config.paths, suite.names(), STAGE)
        if not measured:
            raise StudyError(f"{config.paths.activations}: nothing measured; run {MAKE_LENS}")
        return _analyse(config, manifest, measured)


def _measure(config: Config, manifest: Manifest, variants: Sequence[str]) -> None:
    """Measure what is not measured; imports torch."""
    from aya_probes import model_stage
    from aya_probes.lens import stage

    options = model_stage.Options(config.device, config.dtype, config.overwrite)
    chosen = [manifest.suite.variant(name) for name in variants]
    languages = command_line.choose("language", config.languages, manifest.suite.languages)
    pivot = manifest.suite.pivot
    if pivot not in languages:
        raise StudyError(f"--languages lacks the pivot {pivot}; add it")
    sources = stage.choose_sources(languages, pivot, config.sources)
    concepts = prompts.load_concepts(manifest)[: config.limit]
    lens = stage.LensStage(
        prompts.load_prompts(config.prompt_file, languages),
        concepts,
        _possible(stage.default_cells(languages, pivot, sources), concepts),
        pivot,
        config.shots,
        config.seed,
    )
    model_stage.run_stages(config.paths, manifest, chosen, [lens], options)


def _possible(cells: Sequence[Cell], concepts: Sequence[Concept]) -> list[Cell]:
    """Return the cells with enough concepts, and name the others; if none has enough, all."""
    few = [
        cell
        for cell in cells
        if len(prompts.usable_concepts(concepts, cell.task, cell.source, cell.target))
        < prompts.LEAST_CONCEPTS
    ]
    if len(few) == len(cells):  # the first is refused with its own message
        return list(cells)
    for cell in few:
        print(
            f"note: {cell.task} from {cell.source} into {cell.target} is not asked: fewer than "
            f"{prompts.LEAST_CONCEPTS} concepts have different words in both",
            file=sys.stderr,
        )
    return [cell for cell in cells if cell not in few]


def _analyse(config: Config, manifest: Manifest, variants: Sequence[str]) -> list[LensCell] | None:
    """Analyse what was measured and write the results."""
    measured = [_load(config.paths, name, manifest) for name in variants]
    _refuse_mixture(measured)
    folder = config.paths.results
    digest = files.digest(
        {
            "analysis_version": ANALYSIS_VERSION,
            "measured": [(each.inputs_sha256, each.arrays_sha256) for each in measured],
            "seed": config.seed,
            "draws": config.draws,
        }
    )
    if not config.overwrite and _is_up_to_date(folder, digest):
        return None
    draws = Draws(config.draws, config.seed)
    found: list[LensCell] = []
    rows: list[LensRow] = []
    for variant in measured:
        for row in variant.cells:
            cell, layers = cells.analyse(variant, row, manifest.suite.pivot, draws)
            found.append(cell)
            rows += layers
    tokens = {each.variant: each.tokens for each in measured}
    record = LensResults(
        schema_version=project.SCHEMA_VERSION,
        suite=manifest.suite.name,
        label=manifest.suite.label,
        pivot=manifest.suite.pivot,
        inputs_sha256=digest,
        manifest_sha256=manifest.sha256,
        seed=config.seed,
        variants=tuple(variants),
        concepts_with_words={
            name: {a: len(some) for a, some in row["usable"].items()}
            for name, row in tokens.items()
        },
        shared_with_language={name: row["shared_language"] for name, row in tokens.items()},
        shared_with_concept={name: row["shared_concept"] for name, row in tokens.items()},
        quality={each.variant: q for each in measured if (q := each.quality()) is not None},
        code_sha256=project.source_hash(),
    )
    results.save_lens(folder, record, found, rows)
    return found


def _refuse_mixture(measured: Sequence[VariantLens]) -> None:
    """Raise StudyError for variants that were measured with different settings."""
    for other in measured[1:]:
        changed = sorted(
            key for key in other.settings if other.settings[key] != measured[0].settings.get(key)
        )
        if changed:
            raise StudyError(
                f"variants {measured[0].variant} and {other.variant} were measured with different "
                f"settings ({', '.join(changed)}); measure one again with: {MAKE_LENS} --overwrite "
                f"--variants {other.variant}"
            )


def _load(paths: RunPaths, variant: str, manifest: Manifest) -> VariantLens:
    content = stage_files.load_measured(paths, variant, STAGE, manifest.sha256, MAKE_LENS)
    path = stage_files.stage_path(paths, variant, STAGE)
    arrays = stage_files.load_arrays(path, content, MAKE_LENS)
    return cells.from_file(variant, content, arrays)


def _is_up_to_date(folder: Path, digest: str) -> bool:
    names = ("logit_lens.csv", "logit_lens_cells.csv", "logit_lens.json")
    if not all(files.matches_sum(folder / name) for name in names):
        return False
    try:
        return results.load_lens(folder / "logit_lens.json").inputs_sha256 == digest
    except StudyError:  # written by another version
        return False
