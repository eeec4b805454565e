"""Extract the variants of a run on this machine, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from aya_probes.extraction import prefetch, runner, store
from aya_probes.extraction.runner import Job, Options
from aya_probes.models import loading
from aya_probes.run_folder import RunPaths
from aya_probes.stimuli import Manifest
from aya_probes.suites import Variant


def extract_all(
    paths: RunPaths, manifest: Manifest, variants: Sequence[Variant], options: Options
) -> None:
    """Extract the variants; the next one's files are fetched while one computes."""
    for variant, source in prefetch.one_ahead(variants, loading.resolve_source):
        folder = store.variant_dir(paths, variant.name)
        _extract_one(Job(manifest, variant, folder, options), source)
        print(f"{variant.name}: {len(manifest.stimuli)} stimuli in {folder}", flush=True)


def _extract_one(job: Job, source: loading.Source) -> None:
    name = job.variant.name
    with tqdm(total=0, unit="token", desc=f"{name}: loading", mininterval=0.5) as bar:

        def announce(tokens: int, note: str) -> None:
            bar.write(f"{name}: on {note}")
            bar.set_description(name)
            bar.reset(total=tokens)

        runner.extract(job, source=source, announce=announce, progress=bar.update)
