"""Fill the tables of REPORT.md from the results, so that no number in it is typed by hand.

Each table stands between ``<!-- table:NAME -->`` and ``<!-- /table -->``. ``--check`` changes
nothing and exits 1 if a table is out of date.

Reads:  results/, p1_edge_cases.json, data/adapters/mini/*/card.json, REPORT.md
Writes: REPORT.md

    uv run viz/report_tables.py
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import artifacts
import study
from study import RunPaths, StudyError

REPORT = study.ROOT / "REPORT.md"
MAKE = "uv run viz/report_tables.py"
ADAPTERS = study.ROOT / "data" / "adapters" / "mini"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(text: Any, digits: int = 3) -> str:
    return "" if text in ("", None) else f"{float(text):.{digits}f}"


def peaks(paths: RunPaths) -> str:
    """Largest ``concept`` alignment per language: row, value and interval, base and untrained."""
    curves = artifacts.load_curves(paths.curves)
    metadata = curves["metadata"]
    concept = curves["measures"]["span_mean"]["concept"]
    rows = []
    for code in (c for c in metadata["languages"] if c != metadata["pivot"]):
        line = [code]
        for variant in metadata["variants"]:
            entry = concept[variant][code]
            mean = [float(value) for value in entry["mean"]]
            row = mean.index(max(mean))
            line.append(
                f"{entry['mean'][row]:.2f} [{entry['lower'][row]:.2f}, "
                f"{entry['upper'][row]:.2f}] at {row}"
            )
        void = curves["audit"]["identical_input"]["span_mean"][metadata["variants"][0]][code]
        line.append(f"{void['share']:.0%}" + (" untestable" if void["untestable"] else ""))
        rows.append(line)
    return markdown(["language", *metadata["variants"], "identical inputs"], rows)


def commitment(paths: RunPaths) -> str:
    """Commitment layer and the published rule's layer, per language and variant."""
    table = artifacts.load_csv(
        paths.commitment, artifacts.COMMITMENT_COLUMNS, artifacts.MAKE_CURVES
    )
    whole = table[table["concept_id"] == "ALL"]
    variants = list(dict.fromkeys(whole["variant"]))
    rows = []
    for code in dict.fromkeys(whole["language"]):
        here = whole[whole["language"] == code].set_index("variant")
        cells = [
            here.loc[v, "commitment_layer"]
            if here.loc[v, "status"] == "committed"
            else str(here.loc[v, "status"])
            for v in variants
        ]
        first = here.loc[variants[0]]
        artefact = " (identical inputs)" if first["legacy_status"] == "identical_input" else ""
        rows.append([code, *map(str, cells), f"{first['legacy_layer']}{artefact}"])
    return markdown(["language", *variants, f"published rule, {variants[0]}"], rows)


def shapes(paths: RunPaths) -> str:
    """Shape label per language and variant."""
    curves = artifacts.load_curves(paths.curves)
    variants = curves["metadata"]["variants"]
    codes = [c for c in curves["metadata"]["languages"] if c != curves["metadata"]["pivot"]]
    rows = [[code, *(str(curves["shape"][v][code]["label"]) for v in variants)] for code in codes]
    return markdown(["language", *variants], rows)


def contrasts(paths: RunPaths) -> str:
    """Contrasts between trained variants with interval, p and Holm's p."""
    table = artifacts.load_csv(paths.contrasts, artifacts.CONTRAST_COLUMNS, artifacts.MAKE_CURVES)
    rows = [
        [
            r["contrast"],
            r["language"],
            r["window"],
            _number(r["estimate"]),
            f"[{_number(r['lower'])}, {_number(r['upper'])}]",
            _number(r["p"]),
            _number(r["p_holm"]),
            r["n"],
        ]
        for r in table.to_dict("records")
        if not r["contrast"].startswith("trained")
    ]
    return markdown(
        ["contrast", "language", "rows", "estimate", "95% interval", "p", "p (Holm)", "n"], rows
    )


def parallel(paths: RunPaths) -> str:
    """Retrieval and unbiased CKA on the parallel corpus at their best row, per language."""
    curves = artifacts.load_curves(paths.curves)
    metadata, measures = curves["metadata"], curves["measures"]["content_mean"]
    same = metadata["parallel_corpus"]["identical_to_pivot"]
    rows = []
    for code in (c for c in metadata["languages"] if c != metadata["pivot"]):
        line = [code, f"{same[code]:.0%}"]
        for variant in ("base", "untrained"):
            for measure in ("parallel_retrieval", "parallel_cka"):
                mean = measures[measure][variant][code]["mean"]
                best = max((v, -n) for n, v in enumerate(mean) if v is not None)
                line.append(f"{best[0]:.2f} at {-best[1]}")
        rows.append(line)
    return markdown(
        [
            "language",
            "same string as English",
            "retrieval, base",
            "CKA, base",
            "retrieval, untrained",
            "CKA, untrained",
        ],
        rows,
    )


def failures(paths: RunPaths) -> str:
    """Category tests with at least 20 parents, smallest p first."""
    table = artifacts.load_csv(paths.failure_tests, ("category", "p_holm"), artifacts.MAKE_FAILURES)
    kept = sorted((r for r in table.to_dict("records") if r["p"]), key=lambda r: float(r["p"]))
    rows = [
        [
            r["category"],
            r["language"],
            r["variant"],
            _number(r["mean_effect"]),
            _number(r["mean_delta"]),
            f"[{_number(r['lower'])}, {_number(r['upper'])}]",
            _number(r["p_holm"]),
            r["n"],
        ]
        for r in kept[:10]
    ]
    return markdown(
        ["category", "language", "variant", "effect", "delta", "95% interval", "p (Holm)", "n"],
        rows,
    )


def adapters(paths: RunPaths) -> str:
    """Held-out perplexity of the adapters, before and after."""
    cards = {
        name: json.loads((ADAPTERS / name / "card.json").read_text("utf-8"))
        for name in ("global", "fire", "earth")
    }
    before = next(iter(cards.values()))["perplexity_before"]
    rows = [
        [
            code,
            f"{before[code]:.1f}",
            *(
                f"{card['perplexity_after'][code]:.1f}"
                + (" (trained)" if code in card["tokens"] else "")
                for card in cards.values()
            ),
        ]
        for code in study.load_suite("mini").languages
    ]
    return markdown(["language", "base", *cards], rows)


TABLES: dict[str, Callable[[RunPaths], str]] = {
    "peaks": peaks,
    "commitment": commitment,
    "shapes": shapes,
    "contrasts": contrasts,
    "parallel": parallel,
    "failures": failures,
    "adapters": adapters,
}


def fill(text: str, paths: RunPaths) -> str:
    """Return ``text`` with every table replaced by what the results say."""

    def table(match: re.Match[str]) -> str:
        if match[1] not in TABLES:
            raise StudyError(f"{REPORT}: {study.unknown('table', match[1], TABLES)}")
        return f"<!-- table:{match[1]} -->\n{TABLES[match[1]](paths)}\n<!-- /table -->"

    return re.sub(r"<!-- table:(\w+) -->.*?<!-- /table -->", table, text, flags=re.DOTALL)


def run(paths: RunPaths, *, check: bool) -> Path:
    """Fill REPORT.md, or with ``check`` raise StudyError if that would change it."""
    text = REPORT.read_text(encoding="utf-8")
    filled = fill(text, paths)
    if check and filled != text:
        raise StudyError(f"{REPORT}: a table disagrees with {paths.results}; fill it with: {MAKE}")
    if not check:
        with artifacts.atomic_write(REPORT) as handle:
            handle.write(filled.encode())
    return REPORT


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    parser = study.common_parser("viz/report_tables.py", "Fill the tables of REPORT.md.")
    parser.add_argument("--check", action="store_true", help="only compare, exit 1 on a difference")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and fill; returns the exit code."""
    args = build_parser().parse_args(argv)
    return study.run_stage(
        "viz/report_tables.py", lambda: print(run(RunPaths(args.run_dir), check=args.check))
    )


if __name__ == "__main__":
    raise SystemExit(main())
