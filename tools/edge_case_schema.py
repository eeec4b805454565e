"""Write the JSON Schema of p1_edge_cases.json, from the records that define the file.

Writes: data/p1_edge_cases.schema.json

    uv run tools/edge_case_schema.py
"""

from __future__ import annotations

from collections.abc import Sequence

from aya_probes import command_line, files, project, records
from aya_probes.results.failures import EdgeCaseFile

SCHEMA = project.ROOT / "data" / "p1_edge_cases.schema.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the schema; returns the exit code."""
    parser = command_line.common_parser("edge_case_schema.py", "Write the schema of edge cases.")
    parser.parse_args(argv)
    return command_line.run_stage(
        "edge_case_schema.py", lambda: files.save_json(SCHEMA, records.json_schema(EdgeCaseFile))
    )


if __name__ == "__main__":
    raise SystemExit(main())
