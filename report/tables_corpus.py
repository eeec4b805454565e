"""Measures of the parallel corpora as Markdown tables: retrieval, CKA and hubs."""

from __future__ import annotations

from collections.abc import Callable

from aya_probes.results.curves import (
    HUB_SKEW,
    PARALLEL_CKA,
    PARALLEL_CSLS,
    PARALLEL_RETRIEVAL,
    RAW,
)
from aya_probes.results.whole_run import Run, load_run
from aya_probes.run_folder import RunPaths
from tables_alignment import FLORES_RUN, at_peak, markdown


def parallel(paths: RunPaths) -> str:
    """Retrieval and unbiased CKA at their best layer: standardised, raw, and with CSLS."""
    run = load_run(paths)
    info = run.results.info
    same, untrained = info.parallel_corpus["identical_to_pivot"], info.by_role("untrained")
    columns = [
        ("retrieval", PARALLEL_RETRIEVAL, run.base),
        ("retrieval, raw", PARALLEL_RETRIEVAL + RAW, run.base),
        ("retrieval, CSLS", PARALLEL_CSLS, run.base),
        *((f"retrieval, {v}", PARALLEL_RETRIEVAL, v) for v in untrained),
        ("CKA", PARALLEL_CKA, run.base),
        ("CKA, raw", PARALLEL_CKA + RAW, run.base),
        *((f"CKA, {v}", PARALLEL_CKA, v) for v in untrained),
    ]
    rows = [
        [
            code,
            f"{same[code]:.0%}",
            *(at_peak(run.results.curve(measure, v, code)) for _, measure, v in columns),
            _hubs(run, code),
        ]
        for code in info.others
    ]
    header = ["language", f"same string as {info.pivot}", *(title for title, _, _ in columns)]
    first = run.curve(PARALLEL_RETRIEVAL, run.base, info.others[0])
    return markdown([*header, "hub skew, standardised / raw"], rows) + (
        f"\n\n{run.base} unless another variant is named; n = {first.n} items in "
        f"{info.parallel_corpus['documents']} documents; chance of retrieval {first.chance:.4f}. "
        "Hub skew is that of the layer with the best standardised retrieval."
    )


def _hubs(run: Run, code: str) -> str:
    """Return the skew of hubs at the layer of the best retrieval, standardised / raw."""
    peak = run.curve(PARALLEL_RETRIEVAL, run.base, code).peak
    if peak is None:
        return ""
    curves = (run.curve(HUB_SKEW + suffix, run.base, code) for suffix in ("", RAW))
    return " / ".join(f"{curve.array()[peak]:.1f}" for curve in curves)


def parallel_flores(paths: RunPaths) -> str:
    """The same on FLORES sentences (suite mini-flores)."""
    return parallel(FLORES_RUN)


TABLES: tuple[Callable[[RunPaths], str], ...] = (parallel, parallel_flores)
