"""What a reader must know before a run's numbers are used."""

from __future__ import annotations

from aya_probes import errors, files
from aya_probes.findings.statement import names
from aya_probes.results.curves import CONCEPT
from aya_probes.results.whole_run import Run
from aya_probes.run_folder import RunPaths

FEW_CONCEPTS = 8  # below it there are no shapes and no contrasts
SAME_TEXT = 0.05  # share of corpus items with the pivot's text that is worth a caution


def find(run: Run, paths: RunPaths) -> list[str]:
    """Return the cautions of a run, each a sentence."""
    info = run.results.info
    found = [] if info.suite.startswith("tiny-aya") else ["These are not Tiny Aya results."]
    if info.note:
        found.append(errors.escape_hidden(info.note))
    return [*found, *_inputs(run), *_design(run), *_files(paths)]


def _inputs(run: Run) -> list[str]:
    info, found = run.results.info, []
    void = [c for c in info.others if c not in run.testable] if info.concepts else []
    if void:
        found.append(f"{names(void)}: untestable, most concepts have the same input as the pivot.")
    cued = [c for c in run.testable if run.results.passing_cues(CONCEPT, c)]
    if cued:
        found.append(
            f"{names(cued)}: a cue that is not meaning passes the test of concept alignment."
        )
    shares = info.parallel_corpus.get("identical_to_pivot", {})
    same = {code: share for code, share in shares.items() if share > SAME_TEXT}
    if same:
        words = ", ".join(f"{names([code])} {share:.0%}" for code, share in same.items())
        found.append(f"Corpus items with the same text as in the pivot: {words}.")
    return found


def _design(run: Run) -> list[str]:
    info, found = run.results.info, []
    if info.concepts and info.n < FEW_CONCEPTS:
        found.append(f"{info.n} concepts are too few for shapes and contrasts ({FEW_CONCEPTS}).")
    regional = info.by_role("regional")
    if regional and not info.by_role("control"):
        found.append("No control variant: region and further training cannot be told apart.")
    if regional and not info.by_role("seed"):
        found.append("No second training seed: a difference may be one between any two trainings.")
    if info.variants and not info.by_role("untrained"):
        found.append("No untrained variant: what tokenizer and architecture give is not known.")
    if run.results.disagreements:
        count = len(run.results.disagreements)
        found.append(f"Standardised and raw vectors disagree in {count} statements.")
    return found


def _files(paths: RunPaths) -> list[str]:
    changed = [
        path.name
        for path in (paths.curves, paths.contrasts, paths.commitment)
        if not files.matches_sum(path)
    ]
    if not changed:
        return []
    return [f"{', '.join(changed)} differs from SHA256SUMS: it was changed after it was written."]
