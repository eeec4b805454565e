"""The documents agree with the code and the results: no number and no name is left to rot."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from typing import Any

from aya_probes import project
from aya_probes.extraction.plan import Plan
from aya_probes.results.curves import Cue, Shape
from aya_probes.results.failures import BorrowedWords, CategoryTest
from aya_probes.results.run_info import RunInfo
from aya_probes.results.tables import Contrast, CurveRow, LanguagePair, Layers


def test_every_table_is_what_the_results_say() -> None:
    command = [sys.executable, str(project.ROOT / "report" / "fill.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_field_of_a_record_is_documented() -> None:
    text = (project.ROOT / "docs" / "artifacts.md").read_text("utf-8")
    tables = dict(re.findall(r"<!-- table:record_(\w+) -->\n(.*?)<!-- /table -->", text, re.DOTALL))
    kinds: dict[str, type[Any]] = {
        "layers": Layers,
        "curve_row": CurveRow,
        "plan": Plan,
        "run_info": RunInfo,
        "shape": Shape,
        "cue": Cue,
        "contrast": Contrast,
        "language_pair": LanguagePair,
        "category_test": CategoryTest,
        "borrowed_words": BorrowedWords,
    }
    for name, kind in kinds.items():
        fields = [field.name for field in dataclasses.fields(kind)]
        assert re.findall(r"^\| `(\w+)` \|", tables[name], re.MULTILINE) == fields


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
