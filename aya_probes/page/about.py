"""The view of provenance: what the numbers were computed from, and by which code."""

from __future__ import annotations

import json
from typing import Any

from aya_probes import figures, records
from aya_probes.charts.svg import escape
from aya_probes.page import html
from aya_probes.page.data import PageData
from aya_probes.page.view import Content, Settings, View
from aya_probes.results.run_info import RunInfo

SHORT = 12  # digits of a hash in a table


def facts(info: RunInfo) -> list[tuple[str, Any]]:
    """Return what a run compares, for people."""
    corpus = info.parallel_corpus
    found: list[tuple[str, Any]] = [
        ("suite", info.suite),
        ("model", info.label or info.suite),
        ("caution", info.note),
        ("compared with", figures.language_name(info.pivot)),
        ("languages", ", ".join(figures.language_name(code) for code in info.others)),
        ("variants", ", ".join(f"{v} ({info.roles[v]})" for v in info.variants)),
        ("probes", figures.size_text(info) if info.concepts else "none"),
        ("layers", f"0 to {info.last_layer}, and final_norm"),
        ("parallel corpus", f"{corpus['corpus']}, {corpus['items']} items"),
        ("its licence", corpus.get("licence", "")),
        ("bootstrap resamples", info.n_bootstrap),
        ("permutations", info.n_permutations),
        ("seed of all random draws", info.seed),
        ("version of the analysis", info.provenance.analysis_version),
        ("hash of the inputs", info.provenance.inputs_sha256[:SHORT]),
        ("hash of the stimuli", info.provenance.manifest_sha256[:SHORT]),
        ("hash of the code", info.provenance.code_sha256[:SHORT]),
    ]
    tuned = {v: codes for v, codes in info.targets.items() if codes}
    for variant, codes in tuned.items():
        found.append((f"{variant} was tuned for", ", ".join(map(figures.language_name, codes))))
    return [(name, value) for name, value in found if value not in ("", None)]


def sources(info: RunInfo) -> list[dict[str, Any]]:
    """Return how each variant's vectors were computed, one row per variant."""
    rows = []
    for name, found in info.provenance.variants.items():
        source = {k: v for k, v in found.source.items() if v is not None and k != "role"}
        words = "; ".join(
            f"{k} {str(v)[:SHORT] if 'sha256' in k else v}" for k, v in source.items()
        )
        rows.append(
            {
                "variant": name,
                "weights": words,
                "precision": found.dtype,
                "device": found.device,
                "threads": found.threads,
                "tokenizer": found.tokenizer_sha256[:SHORT],
                "vectors": found.content_sha256[:SHORT],
                "libraries": ", ".join(f"{k} {v}" for k, v in found.versions.items()),
            }
        )
    return rows


def make(data: PageData) -> View:
    """Return the view."""
    info = data.results.info

    def show(settings: Settings) -> Content:
        rows = [{"what": name, "value": value} for name, value in facts(info)]
        whole = json.dumps(records.to_json(info), indent=1, ensure_ascii=False, sort_keys=True)
        parts = [
            html.table(["", "this run"], facts(info), "What the run compares"),
            html.rows_table(sources(info), "How each variant's vectors were computed"),
            "<details><summary>The same and more as JSON</summary>"
            f'<pre tabindex="0" class="scroll">{escape(whole)}</pre></details>',
        ]
        return Content(rows, below="".join(parts))

    return View(
        "about",
        "About",
        "What the numbers were computed from, and by which code. It lets others compute them "
        "again; it is no proof that they are right.",
        (),
        show,
    )
