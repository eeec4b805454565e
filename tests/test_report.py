"""report.py: one file that needs nothing else, with the numbers of the run."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import report
from aya_probes import project
from aya_probes.charts.svg import escape
from aya_probes.findings.questions import find
from aya_probes.html_report import document, sections
from aya_probes.page.data import PageData, load_data
from aya_probes.run_folder import RunPaths

RUNS = {"mini": RunPaths(), "mini-flores": RunPaths(project.ROOT / "runs" / "mini-flores")}
VOID = {"meta", "br", "img", "hr", "input", "link"}


class Reader(HTMLParser):
    """Collects tags, addresses and ids, and notices an element that is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("href", "src", "srcset", "action")]
        self.ids += [v or "" for k, v in attrs if k == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module", params=RUNS)
def data(request: pytest.FixtureRequest) -> PageData:
    return load_data(RUNS[request.param])


@pytest.fixture(scope="module")
def text(data: PageData) -> str:
    return document.write(data)


def test_it_needs_no_other_file_and_no_network(text: str) -> None:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert all(address.startswith("#") for address in reader.addresses)
    assert {address[1:] for address in reader.addresses} <= set(reader.ids)
    assert not {"script", "link", "img", "iframe"} & set(reader.tags)
    assert re.findall(r"url\((?!#)|@import", text) == []
    assert "default-src 'none'" in text


def test_it_holds_every_finding_and_every_figure_of_the_run(data: PageData, text: str) -> None:
    for finding in find(data.run, data.tests):
        for statement in finding.statements:
            assert escape(statement.text) in text
    drawn = list(sections.charts(data))
    assert drawn
    for number in range(1, len(drawn) + 1):
        assert f"Figure {number}. " in text
    assert text.count('role="img"') == sum(len(content.charts) for _, _, content in drawn)


def test_the_methods_have_the_numbers_of_the_run(data: PageData, text: str) -> None:
    info = data.results.info
    methods = text[text.index('id="methods"') : text.index('id="provenance"')]
    numbers = [info.last_layer, info.n_bootstrap, info.parallel_corpus["items"]]
    if info.concepts:
        numbers += [info.n, info.wordings, info.n_permutations, info.seed]
    for number in numbers:
        assert re.search(rf"\b{number}\b", methods), number


def test_the_same_results_give_the_same_bytes(data: PageData, text: str) -> None:
    assert document.write(data) == text


def test_the_command_writes_into_the_run_folder_and_prints_the_path(
    tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(RUNS["mini-flores"].results, tmp_path / "results")
    assert report.main(["--run-dir", str(tmp_path)]) == 0
    written = tmp_path / "results" / "report.html"
    assert capsys.readouterr().out.strip() == str(written)
    found = written.read_text(encoding="utf-8")
    assert f"uv run failure_classifier.py --run-dir {tmp_path}" in found


def test_missing_and_broken_results_name_the_command(tmp_path: Path, capsys: Any) -> None:
    assert report.main(["--run-dir", str(tmp_path)]) == 1
    assert "uv run concept_alignment.py" in capsys.readouterr().err
    shutil.copytree(RUNS["mini-flores"].results, tmp_path / "results")
    (tmp_path / "results" / "alignment_curves.json").write_text("{", encoding="utf-8")
    assert report.main(["--run-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "alignment_curves.json" in error
    assert not (tmp_path / "results" / "report.html").exists()
