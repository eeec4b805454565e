"""Run stages that measure a loaded model: each variant is loaded once for all of them.

A stage says what it needs (``ModelStage``) and measures; plan, resume, loading, progress and files
are the same for all. Analysis reads the files with ``stage_files``, without torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from aya_probes import files, project
from aya_probes.errors import StudyError
from aya_probes.extraction import packs, prefetch, vectors
from aya_probes.extraction.encoding import Encoded
from aya_probes.extraction.runner import changed_fields, known_identity, versions
from aya_probes.models import loading
from aya_probes.models.loading import Identity, Source
from aya_probes.models.residuals import LoadedModel
from aya_probes.run_folder import RunPaths
from aya_probes.stage_files import (
    Measured,
    StageFile,
    StageInputs,
    arrays_are_valid,
    load_stage,
    save_stage,
    stage_path,
)
from aya_probes.stimuli import Manifest
from aya_probes.suites import Variant

_PARITY_TEXTS = 4  # texts whose vectors an unproven device must give as the CPU does


@dataclass(frozen=True)
class Options:
    """What a user may set of every stage that runs a model."""

    device: str = "auto"
    """auto, cuda, mps or cpu."""
    dtype: str = "auto"
    """auto, float32 or bf16."""
    overwrite: bool = False
    """Measure again what is there."""


DEFAULTS = Options()


@dataclass(frozen=True)
class Inputs:
    """What a stage measures on: the run, the variant, and where it reports its progress."""

    manifest: Manifest
    """The stimuli and the suite."""
    variant: Variant
    """The variant that is loaded."""
    announce: Callable[[int, str], object]
    """Takes the number of units of work to come and the unit's name, before the work."""
    progress: Callable[[int], object]
    """Takes the number of units done, as they are done."""


class ModelStage(Protocol):
    """A stage that measures a loaded model."""

    @property
    def name(self) -> str:
        """Name of the stage and of its files."""

    @property
    def version(self) -> int:
        """Version of its method: raise it when the same inputs would give other rows."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What else decides the rows, as JSON types: flags, hashes of files, seeds."""

    def measure(self, loaded: LoadedModel, inputs: Inputs) -> Measured:
        """Measure one variant, in inference mode; raises StudyError for what cannot be measured."""


@dataclass(frozen=True)
class _Task:
    """One variant of a run."""

    paths: RunPaths
    manifest: Manifest
    variant: Variant

    def file(self, stage: ModelStage) -> Path:
        return stage_path(self.paths, self.variant.name, stage.name)

    def requested(self, stage: ModelStage, identity: Identity, dtype: str) -> StageInputs:
        return StageInputs(
            stage=stage.name,
            stage_version=stage.version,
            settings=dict(stage.settings),
            suite=self.manifest.suite.name,
            variant=self.variant.name,
            source=identity,
            manifest_sha256=self.manifest.sha256,
            dtype=dtype,
        )


def _is_finished(task: _Task, stage: ModelStage) -> bool:
    """Tell, without loading a model, whether a stage's file is there and up to date.

    A file in another precision is kept. Raises StudyError, naming what changed, if it was made
    from other inputs.
    """
    path = task.file(stage)
    if not path.is_file():
        return False
    content = load_stage(path, "the same command with --overwrite")
    identity = {**content.inputs.source, **known_identity(task.variant)}
    wanted = task.requested(stage, identity, content.inputs.dtype)
    changed = changed_fields(content.inputs, wanted)
    if changed:
        raise StudyError(
            f"{path}: {', '.join(changed)} changed since it was measured; run again with "
            "--overwrite to measure it again"
        )
    return arrays_are_valid(path, content)


def run_stages(
    paths: RunPaths,
    manifest: Manifest,
    variants: Sequence[Variant],
    stages: Sequence[ModelStage],
    options: Options = DEFAULTS,
) -> int:
    """Measure ``variants`` with every stage whose file is not there; returns the files written.

    Weights are loaded once a variant, and only if a stage needs them; the files of the next are
    fetched meanwhile. Hold the lock of the run folder when calling it. Raises StudyError if a file
    was made from other inputs and ``overwrite`` is off, and for what a stage cannot measure.
    """
    todo: list[tuple[_Task, list[ModelStage]]] = []
    for variant in variants:
        task = _Task(paths, manifest, variant)
        files.remove_leftovers(paths.activations / variant.name)
        left = [s for s in stages if options.overwrite or not _is_finished(task, s)]
        for stage in stages:
            if stage not in left:
                print(f"{variant.name}: {stage.name} complete, skipped ({task.file(stage)})")
        if left:
            todo.append((task, left))
    fetch = prefetch.one_ahead(todo, lambda item: loading.resolve_source(item[0].variant))
    for (task, left), source in fetch:
        _measure_variant(task, left, source, options)
    return sum(len(left) for _, left in todo)


def _measure_variant(
    task: _Task, stages: Sequence[ModelStage], source: Source, options: Options
) -> None:
    """Load a variant, then measure and save stage by stage."""
    name = task.variant.name
    device, why = loading.choose_device(options.device)
    dtype = loading.choose_dtype(options.dtype, device)
    with (
        tqdm(total=0, desc=f"{name}: loading", mininterval=0.5) as bar,
        _memory_errors(name, device),
    ):
        loaded = loading.load_variant(task.variant, source, device=device, dtype=dtype)
        note = packs.check_device(loaded, _some_texts(loaded, task.manifest))
        bar.write(f"{name}: on {device.type} ({why}), {loaded.dtype_name}{note}")
        for stage in stages:
            inputs = _report_to(bar, task, stage)
            with torch.inference_mode():
                found = stage.measure(loaded, inputs)
            content = StageFile(
                schema_version=project.SCHEMA_VERSION,
                inputs=task.requested(stage, source.identity, loaded.dtype_name),
                device=device.type,
                versions=versions(),
                code_sha256=project.source_hash(),
                arrays_sha256=None,
                rows=[dict(row) for row in found.rows],
            )
            save_stage(task.file(stage), content, found.arrays)
            bar.write(f"{name}: {len(found.rows)} rows in {task.file(stage)}")


def _report_to(bar: tqdm, task: _Task, stage: ModelStage) -> Inputs:
    """Return a stage's inputs, whose progress goes to ``bar``."""

    def announce(total: int, unit: str) -> None:
        bar.unit = unit
        bar.set_description(f"{task.variant.name}: {stage.name}")
        bar.reset(total=total)

    return Inputs(task.manifest, task.variant, announce, bar.update)


def _some_texts(loaded: LoadedModel, manifest: Manifest) -> list[Encoded]:
    """Return a few stimuli for the check of a device that is not proven."""
    return vectors.encode_texts(loaded, [s.text for s in manifest.stimuli[:_PARITY_TEXTS]])


@contextlib.contextmanager
def _memory_errors(variant: str, device: torch.device) -> Iterator[None]:
    """Explain how to go on if the device's memory is used up."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not loading.is_out_of_memory(error):
            raise
        raise StudyError(
            f"variant {variant}: the memory of {device.type} is used up; run with --dtype bf16 "
            "--overwrite, or on a device with more memory"
        ) from None
