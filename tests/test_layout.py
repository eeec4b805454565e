"""The house: who imports whom, what an install makes importable, and how large things may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aya_probes import project

PACKAGE = "aya_probes"
FOLDERS = ("viz", "report", "benchmarks", "tools", "tests")
DOORS = {path.stem for path in project.ROOT.glob("*.py")}
SCRIPTS = {path.stem: folder for folder in FOLDERS for path in (project.ROOT / folder).glob("*.py")}
# Which of the project's parts each part may import, beside itself.
MAY_IMPORT = {
    PACKAGE: set[str](),
    "doors": {PACKAGE, "doors", "viz"},
    "viz": {PACKAGE},
    "report": {PACKAGE},
    "tools": {PACKAGE},
    "benchmarks": {PACKAGE},
    "tests": {PACKAGE, "doors", "viz", "tools"},
}
LINES_OF_A_MODULE, LINES_OF_A_FUNCTION, PARAMETERS = 400, 60, 6


def part_of(path: Path) -> str:
    """Return the part of the project that a file belongs to."""
    first = path.relative_to(project.ROOT).parts[0]
    return "doors" if first.endswith(".py") else first


def sources() -> list[Path]:
    parts = (PACKAGE, *FOLDERS)
    return [
        *project.ROOT.glob("*.py"),
        *(path for part in parts for path in (project.ROOT / part).rglob("*.py")),
    ]


def imports(path: Path) -> Iterator[str]:
    """Yield the part of the project of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            if top in DOORS:  # report.py goes before the folder report/, which is no package
                yield "doors"
            elif top == PACKAGE or top in FOLDERS:
                yield top
            elif top in SCRIPTS and SCRIPTS[top] == part_of(path):
                yield part_of(path)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_face_one_way(part: str) -> None:
    wrong = {
        f"{path.relative_to(project.ROOT)} imports {found}"
        for path in sources()
        if part_of(path) == part
        for found in imports(path)
        if found != part and found not in MAY_IMPORT[part]
    }
    assert wrong == set()


def test_nothing_but_the_package_is_importable_after_an_install(tmp_path: Path) -> None:
    names = sorted({PACKAGE, *DOORS, *FOLDERS})
    code = (
        "import importlib.util, sys\n"
        f"print(*[n for n in {names!r} if importlib.util.find_spec(n) is not None])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.split() == [PACKAGE]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_modules_and_functions_stay_readable() -> None:
    found = []
    for path in sources():
        if part_of(path) == "tests":
            continue
        name = path.relative_to(project.ROOT).as_posix()
        if len(path.read_text("utf-8").splitlines()) > LINES_OF_A_MODULE:
            found.append(f"{name}: over {LINES_OF_A_MODULE} lines")
        for function in functions(path):
            lines = (function.end_lineno or 0) - function.lineno + 1
            given = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
            parameters = [a for a in given if a.arg not in ("self", "cls")]
            if lines > LINES_OF_A_FUNCTION or len(parameters) > PARAMETERS:
                found.append(
                    f"{name}: {function.name}: {lines} lines, {len(parameters)} parameters"
                )
    assert found == []
