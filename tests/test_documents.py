"""The documents agree with the code and the results: no number and no name is left to rot."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from aya_probes import project, results

FILES = project.ROOT / "docs" / "artifacts.md"


def test_every_table_is_what_the_results_say() -> None:
    command = [sys.executable, str(project.ROOT / "report" / "fill.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("results/alignment_curves.json", results.CURVE_FIELDS),
        ("results/commitment_matrix.csv", results.COMMITMENT_COLUMNS),
        ("results/contrasts.csv", results.CONTRAST_COLUMNS),
        ("results/failure_cases.csv", results.FAILURE_COLUMNS),
        ("p1_edge_cases.json", results.CASE_FIELDS),
    ],
)
def test_files_on_disk_are_described_field_by_field(path: str, names: tuple[str, ...]) -> None:
    row = next(
        line for line in FILES.read_text("utf-8").splitlines() if line.startswith(f"| `{path}`")
    )
    missing = [name for name in names if not re.search(rf"\b{name}\b", row)]
    assert missing == []


def test_the_readme_names_every_module_and_folder() -> None:
    readme = (project.ROOT / "README.md").read_text("utf-8")
    modules = [path.name for path in project.ROOT.glob("*.py")]
    folders = ["benchmarks/", "viz/", "data/", "docs/", "tests/"]
    assert [name for name in (*modules, *folders) if f"`{name}`" not in readme] == []


def test_every_link_in_the_documents_leads_somewhere() -> None:
    documents = [*project.ROOT.glob("*.md"), *(project.ROOT / "docs").rglob("*.md")]
    broken = [
        f"{path.name}: {target}"
        for path in documents
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8"))
        if not (path.parent / target).exists()
    ]
    assert broken == []
