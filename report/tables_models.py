"""What the sweep over model types found, as Markdown tables (benchmarks/architectures.py)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tables_alignment import markdown
from tables_performance import numbers, or_command

EXACT = {"packed": "packed", "padded": "padded", "alone": "one text at a time"}
_SUFFIX = "; this architecture is not supported (docs/models.md)"


@dataclass(frozen=True)
class _Sweep:
    rows: list[dict[str, Any]]
    versions: dict[str, str]

    def having(self, *statuses: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["status"] in statuses]


def _read() -> _Sweep:
    data = numbers("architectures")
    return _Sweep(data["types"], data["machine"]["versions"])


def model_counts() -> str:
    """Return how many types are exact, refused and not built."""
    sweep = _read()
    counts = Counter(row["status"] for row in sweep.rows)
    largest = max(row["error"] for row in sweep.having(*EXACT))
    meaning = {
        "packed": "exact, texts packed without padding",
        "padded": "exact, texts padded on the right",
        "alone": "exact, one text at a time",
        "refused": "refused, the reason named",
        "not built": "not tried: no tiny model of it can be built",
        "wrong": "wrong vectors, or a fault of this project",
    }
    rows = [[text, str(counts[status])] for status, text in meaning.items()]
    versions = ", ".join(f"{name} {version}" for name, version in sweep.versions.items())
    return (
        markdown([f"of {len(sweep.rows)} types", "types"], rows)
        + f"\n\nThe largest relative error of an exact type is {largest:.1g} ({versions}, CPU, "
        "float32)."
    )


def models_exact() -> str:
    """Return the exact types: how their texts run, and how exact they are."""
    rows = [
        [
            f"`{row['type']}`",
            row["model_class"],
            EXACT[row["status"]],
            f"{row['error']:.1g}" + (" (float32)" if row["reference"] == "float32" else ""),
            row["library"],
        ]
        for row in _read().having(*EXACT)
    ]
    return markdown(["type", "class", "texts run", "error", "library"], rows)


def models_refused() -> str:
    """Return the refused types and the reasons."""
    return _reasons("refused", "why")


def models_not_built() -> str:
    """Return the types that were not tried and why."""
    return _reasons("not built", "what the library said")


def _reasons(status: str, heading: str) -> str:
    rows = [
        [
            f"`{row['type']}`",
            row["model_class"],
            row["reason"].removeprefix(f"{row['model_class']} ").removesuffix(_SUFFIX),
        ]
        for row in _read().having(status)
    ]
    return markdown(["type", "class", heading], rows) if rows else "None."


_FUNCTIONS = (model_counts, models_exact, models_refused, models_not_built)
TABLES = {table.__name__: or_command(table) for table in _FUNCTIONS}
