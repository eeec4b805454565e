"""Alignment results as Markdown tables: peaks, commitment, shapes, contrasts, corpora."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aya_probes import figures as style
from aya_probes import files, project, results
from aya_probes.run_folder import RunPaths

FLORES_RUN = RunPaths(project.ROOT / "runs" / "mini-flores")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def number(value: Any, digits: int = 3) -> str:
    """Return a number with ``digits`` decimals, nothing for a missing one."""
    return "" if value in ("", None) else f"{float(value):.{digits}f}"


def interval(entry: dict[str, Any], row: int, digits: int = 2) -> str:
    """Return ``mean [lower, upper]`` of a curve's entry at a row."""
    mean, lower, upper = (entry[name][row] for name in ("mean", "lower", "upper"))
    return f"{mean:.{digits}f} [{lower:.{digits}f}, {upper:.{digits}f}]"


def best_row(entry: dict[str, Any]) -> int:
    """Return the row of a curve's largest defined mean."""
    known = [(value, -row) for row, value in enumerate(entry["mean"]) if value is not None]
    return -max(known)[1]


def languages(metadata: dict[str, Any]) -> list[str]:
    """Return the languages compared with the pivot."""
    return [code for code in metadata["languages"] if code != metadata["pivot"]]


Record = dict[str, Any]


def commitment_cells(paths: RunPaths) -> dict[tuple[str, str], Record]:
    """Return the ALL rows of the commitment matrix by (variant, language)."""
    table = files.load_csv(paths.commitment, results.COMMITMENT_COLUMNS, files.MAKE_CURVES)
    whole = table[table["concept_id"] == "ALL"]
    records: list[Any] = whole.to_dict("records")
    return {(r["variant"], r["language"]): r for r in records}


def peaks(paths: RunPaths) -> str:
    """Largest ``concept`` alignment per language and variant, with the audit of inputs."""
    curves = results.load_curves(paths.curves)
    metadata = curves["metadata"]
    concept = curves["measures"]["span_mean"]["concept"]
    rows = []
    for code in languages(metadata):
        line = [code]
        for variant in metadata["variants"]:
            row = best_row(concept[variant][code])
            line.append(f"{interval(concept[variant][code], row)} at {row}")
        first = metadata["variants"][0]
        void = curves["audit"]["identical_input"]["span_mean"][first][code]
        line.append(f"{void['share']:.0%}" + (" untestable" if void["untestable"] else ""))
        line.append(f"{curves['audit']['shared_tokens'][first][code]:.0%}")
        rows.append(line)
    header = ["language", *metadata["variants"], "identical inputs", "shared tokens"]
    return markdown(header, rows)


def detection(paths: RunPaths) -> str:
    """Smallest max-T p over rows 1..L, and corrected over the languages too."""
    curves = results.load_curves(paths.curves)
    metadata = curves["metadata"]
    tables = {name: curves["measures"][pool][name] for pool, name in
              (("span_mean", "concept"), ("content_mean", "sentence"))}  # fmt: skip
    rows = []
    for code in languages(metadata):
        line = [code]
        for variant in metadata["variants"]:
            for name in tables:
                entry = tables[name][variant][code]
                smallest = [
                    min((p for p in entry[key][1:] if p is not None), default=None)
                    for key in ("p", "p_joint")
                ]
                line.append(" / ".join(number(p, 4) for p in smallest))
        rows.append(line)
    header = [f"{v}, {name}" for v in metadata["variants"] for name in tables]
    return markdown(["language", *header], rows)


def commitment(paths: RunPaths) -> str:
    """Commitment and release layer, and the published rule's layer, per language and variant."""
    cells = commitment_cells(paths)
    variants = list(dict.fromkeys(variant for variant, _ in cells))
    rows = []
    for code in dict.fromkeys(code for _, code in cells):
        line = [code, *(style.commitment_text(cells[variant, code]) for variant in variants)]
        first = cells[variants[0], code]
        artefact = " (identical inputs)" if first["legacy_status"] == "identical_input" else ""
        rows.append([*line, f"{first['legacy_layer']}{artefact}"])
    return markdown(["language", *variants, f"published rule, {variants[0]}"], rows)


def agnostic(paths: RunPaths) -> str:
    """Mean alignment over testable pairs with English and without it, at the best row."""
    curves = results.load_curves(paths.curves)
    rows = []
    for measure in ("concept", "sentence"):
        for variant in curves["metadata"]["variants"]:
            line = [measure, variant]
            for family in ("with_pivot", "without_pivot"):
                entry = curves["agnostic"][measure][variant][family]
                row = best_row(entry)
                line.append(f"{interval(entry, row)} at {row} ({entry['pairs']} pairs)")
            rows.append(line)
    return markdown(["measure", "variant", "pairs with English", "pairs without English"], rows)


def shapes(paths: RunPaths) -> str:
    """Shape label per language and variant."""
    curves = results.load_curves(paths.curves)
    variants = curves["metadata"]["variants"]
    rows = [
        [code, *(str(curves["shape"][v][code]["label"]) for v in variants)]
        for code in languages(curves["metadata"])
    ]
    return markdown(["language", *variants], rows)


def contrast_records(paths: RunPaths) -> list[Record]:
    """Return results/contrasts.csv as records."""
    table = files.load_csv(paths.contrasts, results.CONTRAST_COLUMNS, files.MAKE_CURVES)
    records: list[Any] = table.to_dict("records")
    return records


def contrasts(paths: RunPaths) -> str:
    """Contrasts between trained variants with interval, p and Holm's p."""
    rows = [
        [
            r["contrast"], r["language"], r["window"], number(r["estimate"]),
            f"[{number(r['lower'])}, {number(r['upper'])}]", number(r["p"]), number(r["p_holm"]),
            r["n"],
        ]
        for r in contrast_records(paths)
        if r["contrast"].split(":")[0] in ("post-training", "region")
    ]  # fmt: skip
    return markdown(
        ["contrast", "language", "rows", "estimate", "95% interval", "p", "p (Holm)", "n"], rows
    )


def specificity(paths: RunPaths) -> str:
    """Did targeted languages gain more: over concepts, and over languages with its floor."""
    rows = [
        [
            r["contrast"], r["language"], number(r["estimate"]),
            f"[{number(r['lower'])}, {number(r['upper'])}]", number(r["p"]), number(r["p_holm"]),
            number(r["p_language"]), number(r["p_language_floor"]), r["n"],
        ]
        for r in contrast_records(paths)
        if r["contrast"].startswith("specificity")
    ]  # fmt: skip
    header = ["contrast", "languages", "estimate", "95% interval", "p (concepts)", "p (Holm)",
              "p (language labels)", "smallest reachable", "n"]  # fmt: skip
    return markdown(header, rows)


def trained(paths: RunPaths) -> str:
    """Each variant against the untrained one; a star where Holm's p is at most 0.05."""
    cells: dict[str, dict[str, str]] = {}
    for r in contrast_records(paths):
        if r["contrast"].startswith("trained"):
            star = "*" if float(r["p_holm"]) <= 0.05 else ""
            left = r["contrast"].removeprefix("trained: ").split(" - ")[0]
            text = f"{number(r['estimate'], 2)} [{number(r['lower'], 2)}, {number(r['upper'], 2)}]"
            cells.setdefault(r["language"], {})[left] = text + star
    variants = list(next(iter(cells.values()), {}))
    return markdown(
        ["language", *(f"{v} - untrained" for v in variants)],
        [[code, *(row[v] for v in variants)] for code, row in cells.items()],
    )


def parallel(paths: RunPaths) -> str:
    """Retrieval and unbiased CKA on a parallel corpus at their best row, with intervals."""
    curves = results.load_curves(paths.curves)
    metadata, measures = curves["metadata"], curves["measures"]["content_mean"]
    same = metadata["parallel_corpus"]["identical_to_pivot"]
    shown = [v for v in metadata["variants"] if metadata["roles"][v] in ("base", "untrained")]
    rows = []
    for code in languages(metadata):
        line = [code, f"{same[code]:.0%}"]
        for measure in ("parallel_retrieval", "parallel_cka"):
            for variant in shown:
                entry = measures[measure][variant][code]
                row = best_row(entry)
                line.append(f"{interval(entry, row)} at {row}")
        rows.append(line)
    any_entry = measures["parallel_retrieval"][shown[0]][languages(metadata)[0]]
    header = [
        f"{what}, {variant}"
        for what in (f"retrieval (chance {any_entry['chance']:.4f})", "CKA")
        for variant in shown
    ]
    return (
        markdown(["language", "same string as English", *header], rows)
        + f"\n\nn = {any_entry['n']} items per language."
    )


def parallel_flores(paths: RunPaths) -> str:
    """The same on FLORES sentences (suite mini-flores)."""
    return parallel(FLORES_RUN)


def precision(paths: RunPaths) -> str:
    """What bf16 changes: the same probes in suite mini (float32) and mini-flores (bf16)."""
    here, there = (results.load_curves(p.curves) for p in (paths, FLORES_RUN))
    rows = []
    for pooling, measure in (("span_mean", "concept"), ("content_mean", "sentence")):
        for variant in here["metadata"]["variants"]:
            gaps = [
                abs(a - b)
                for code in languages(here["metadata"])
                for a, b in zip(
                    *(
                        c["measures"][pooling][measure][variant][code]["mean"]
                        for c in (here, there)
                    ),
                    strict=True,
                )
                if a is not None and b is not None
            ]
            rows.append([measure, variant, f"{max(gaps):.4f}", f"{sum(gaps) / len(gaps):.4f}"])
    return markdown(["measure", "variant", "largest difference", "mean difference"], rows)
