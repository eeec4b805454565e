"""The methods of a run in words, with its own numbers."""

from __future__ import annotations

from aya_probes import figures
from aya_probes.charts.svg import escape
from aya_probes.findings.statement import names
from aya_probes.results.curves import CONCEPT, PARALLEL_ALIGNMENT, SENTENCE
from aya_probes.results.run_info import RunInfo
from aya_probes.results.whole_run import ALPHA, Run


def write(run: Run) -> str:
    """Return the methods as HTML paragraphs."""
    info = run.results.info
    parts = [_texts(info), _vectors(info), _measures(info), _tests(run), _differences(run)]
    return "".join(f"<p>{escape(part)}</p>" for part in parts if part)


def _texts(info: RunInfo) -> str:
    corpus = info.parallel_corpus
    probes = ""
    if info.concepts:
        probes = (
            f"{info.n} concepts in {info.wordings} sentences each, in {len(info.languages)} "
            f"languages ({names(info.languages)}). "
        )
    documents = corpus.get("documents", corpus["items"])
    return (
        f"{probes}Parallel corpus: {corpus['items']} items of {corpus['corpus']} in {documents} "
        f"documents ({corpus.get('source', 'unknown source')}). All languages are compared with "
        f"{figures.language_name(info.pivot)}."
    )


def _vectors(info: RunInfo) -> str:
    roles = ", ".join(f"{name} ({info.roles[name]})" for name in info.variants)
    provenance = info.provenance.variants.values()
    precision = ", ".join(sorted({f"{p.dtype} on {p.device}" for p in provenance}))
    return (
        f"Variants: {roles}. Their residual stream was read at layers 0 (input of the first block) "
        f"to {info.last_layer} (output of the last block), before the final norm; final_norm is "
        f"reported apart. Computed in {precision}."
    )


def _measures(info: RunInfo) -> str:
    concept = (
        f"{CONCEPT} is the cosine of a concept's tokens between different sentences of two "
        f"languages, minus that of mismatched concepts; {SENTENCE} is the same between "
        "translations. "
    )
    return (
        f"{concept if info.concepts else ''}{PARALLEL_ALIGNMENT} is the same on items of the "
        "corpus. 0 is chance. Vectors are mean-centred and each dimension is divided by its "
        "standard deviation, by language and layer; measures that end in _raw are only "
        "mean-centred. Concepts with identical inputs in both languages are left out."
    )


def _tests(run: Run) -> str:
    info = run.results.info
    if not info.concepts:
        return (
            f"Intervals are 95% over documents of the corpus ({info.n_bootstrap} resamples). A "
            "single text is no independent observation."
        )
    return (
        f"p-values permute whole concepts {info.n_permutations} times and take the largest "
        f"statistic over layers 1 to {info.last_layer} (max-T); {ALPHA} is the limit. They are by "
        f"language; p_joint is over all languages. Intervals are 95% over {info.n_bootstrap} "
        f"resamples of the concepts. Seed of all draws: {info.seed}. The commitment layer is the "
        "first of three layers in a row with p at the limit and A at least half of its largest "
        "value."
    )


def _differences(run: Run) -> str:
    if not run.contrasts:
        return "The run has no contrasts between variants."
    counts: dict[str, int] = {}
    for row in run.contrasts:
        if row.window == "all":
            counts[row.family] = counts.get(row.family, 0) + 1
    words = ", ".join(f"{family} ({count})" for family, count in counts.items())
    return (
        "Differences between variants are planned, paired by item, and averaged over layers 1 to "
        f"{run.results.info.last_layer}. Their p-values exchange signs over concepts or documents, "
        "and are corrected by Holm's method over the rows of one family, measure and window. "
        f"Families with the number of rows over all measures: {words}. A difference between "
        "regions must exceed the same difference between two training seeds."
    )
