"""The views of the page: what they show is what the records say, for every setting."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from aya_probes import project
from aya_probes.errors import StudyError, UsageError
from aya_probes.findings.questions import find
from aya_probes.page import build, compare, curves, downloads, failures, html, map_view, tokens
from aya_probes.page.data import PageData, load_data
from aya_probes.page.view import View, complete, query, read_query, render
from aya_probes.results.curves import CONCEPT, COSINE, SENTENCE
from aya_probes.results.whole_run import Run
from aya_probes.run_folder import RunPaths

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'
FLORES = RunPaths(project.ROOT / "runs" / "mini-flores")


@pytest.fixture(scope="module")
def data() -> PageData:
    return load_data(RunPaths())


@pytest.fixture(scope="module")
def flores() -> PageData:
    return load_data(FLORES)


@pytest.fixture(scope="module")
def views(data: PageData) -> dict[str, View]:
    return {view.name: view for view in build.make_views(data)}


def show(view: View, **settings: list[str]) -> list[dict[str, Any]]:
    return [dict(row) for row in view.show(complete(view, settings)).rows]


def with_label(data: PageData, text: str) -> PageData:
    """Return the data of a run whose suite has this label and note."""
    info = dataclasses.replace(data.results.info, label=text, note=text)
    results = dataclasses.replace(data.results, info=info)
    run = Run(results, data.run.layers, data.run.contrasts)
    return dataclasses.replace(data, run=run)


# --- every view ---------------------------------------------------------------------------------


def test_every_view_of_both_runs_says_what_it_does_not_show(
    data: PageData, flores: PageData
) -> None:
    for found in (data, flores):
        for view in build.make_views(found):
            assert render(view, {}).startswith("<section")
            assert re.search(r"(?i)\b(no|not|nothing|neither|only|too)\b", view.sentence), view.name


def test_a_link_restores_every_setting(views: dict[str, View]) -> None:
    for view in views.values():
        chosen = {}
        for control in view.controls:
            values = [value for _, value in control.choices]
            chosen[control.name] = values[-1:] if control.kind != "many" else values[1:3]
        wanted = complete(view, chosen)
        assert complete(view, read_query(query(view, wanted))) == wanted
    empty = complete(views["curves"], {"variants": []})
    assert complete(views["curves"], read_query(query(views["curves"], empty))) == empty


def test_the_link_of_a_view_at_its_start_is_only_its_name(views: dict[str, View]) -> None:
    for name, view in views.items():
        assert query(view, complete(view, {})) == f"view={name}"


def test_unknown_settings_and_values_are_refused_with_the_valid_ones(
    views: dict[str, View],
) -> None:
    with pytest.raises(UsageError, match="unknown measure 'nonsense'; valid: concept_alignment"):
        complete(views["curves"], {"measure": ["nonsense"]})
    with pytest.raises(UsageError, match="unknown setting 'colour'"):
        complete(views["curves"], {"colour": ["red"]})
    with pytest.raises(UsageError, match="give one value"):
        complete(views["curves"], {"measure": [CONCEPT, SENTENCE]})
    answer = build.draw(views["curves"], {"measure": [EVIL]})
    assert 'role="alert"' in answer
    assert "<script" not in answer
    assert "<img" not in answer


def test_the_link_of_every_finding_opens_its_view(data: PageData, flores: PageData) -> None:
    for found in (data, flores):
        known = {view.name: view for view in build.make_views(found)}
        for finding in find(found.run, found.tests):
            view = known[finding.view]
            if view.controls:
                view.show(complete(view, finding.settings))


def test_a_label_with_markup_is_text_in_every_view(data: PageData) -> None:
    changed = with_label(data, EVIL)
    for view in build.make_views(changed):
        shown = render(view, {})
        assert "<script" not in shown
        assert "<img" not in shown
    assert "&lt;script&gt;" in build._heading(changed)
    assert "<script" not in build._heading(changed)


# --- the numbers ----------------------------------------------------------------------------------


def test_rows_of_curves_are_the_curves(data: PageData, views: dict[str, View]) -> None:
    rows = show(views["curves"], languages=["hi"], variants=["base", "fire"])
    last = data.results.info.last_layer
    assert len(rows) == 2 * (last + 2)
    curve = data.run.curve(CONCEPT, "fire", "hi")
    mine = [row for row in rows if row["variant"] == "fire"]
    assert [row["mean"] for row in mine] == [*curve.mean, curve.final_norm]
    assert [row["layer"] for row in mine] == [*map(str, range(last + 1)), "final_norm"]


def test_one_panel_a_language_or_one_a_variant(views: dict[str, View]) -> None:
    view, given = views["curves"], {"languages": ["hi", "bn", "fr"], "variants": ["base", "fire"]}
    for layout, count in (("languages", 3), ("variants", 2)):
        settings = complete(view, {**given, "layout": [layout]})
        assert len(view.show(settings).charts) == count


def test_a_concept_has_its_raw_cosine_and_no_other_measure(
    data: PageData, views: dict[str, View]
) -> None:
    chosen = {"languages": ["hi"], "variants": ["base"], "concept": ["C01"]}
    rows = show(views["curves"], **chosen, measure=[COSINE])
    wanted = data.results.cosines["base", "C01", "hi"]
    assert [row["mean"] for row in rows][:-1] == list(wanted)
    with pytest.raises(StudyError, match="only its raw cosine"):
        show(views["curves"], **chosen, measure=[CONCEPT])


def test_an_untestable_panel_is_hatched_and_says_why(views: dict[str, View]) -> None:
    chosen = {"languages": ["sw"], "measure": [COSINE], "pooling": ["last"]}
    drawn = views["curves"].show(complete(views["curves"], chosen)).charts[0]
    assert "untestable" in drawn
    assert "url(#hatch-" in drawn


def test_a_map_of_differences_is_one_variant_minus_another(
    data: PageData, views: dict[str, View]
) -> None:
    rows = show(views["map"], variants=["fire"], minus=["base"])
    found = {(row["language"], row["layer"]): row["value"] for row in rows}
    for code in data.results.info.others:
        fire, base = (data.run.curve(CONCEPT, v, code).array() for v in ("fire", "base"))
        for layer, value in enumerate(fire - base):
            assert found[code, layer] == pytest.approx(value)


def test_random_weights_do_not_take_the_colours_from_the_others(views: dict[str, View]) -> None:
    def key(variants: list[str]) -> set[str]:
        settings = complete(views["map"], {"variants": variants, "minus": ["base"]})
        charts = views["map"].show(settings).charts
        return {text for chart in charts for text in re.findall(r"colours to ([\d.]+)", chart)}

    assert key(["fire", "untrained"]) == key(["fire"])
    assert float(*key(["untrained"])) > float(*key(["fire"]))


def test_the_matrix_has_every_pair_once_at_the_chosen_layer(
    data: PageData, views: dict[str, View]
) -> None:
    rows = show(views["map"], show=["matrix"], variants=["base"], layer=["3"])
    codes = data.results.info.languages
    pairs = {frozenset((row["language_a"], row["language_b"])) for row in rows}
    assert pairs == {frozenset(pair) for pair in itertools.combinations(codes, 2)}
    for row in rows:
        curve = data.results.pair(CONCEPT, "base", row["language_a"], row["language_b"])
        assert curve is not None
        assert row["value"] == curve.mean[3]


def test_the_matrix_of_a_corpus_says_which_layer_it_shows(flores: PageData) -> None:
    view = map_view.make(flores)
    settings = {"show": ["matrix"], "measure": ["parallel_alignment"], "layer": ["0"]}
    content = view.show(complete(view, settings))
    saved = {row.layer for row in flores.language_map}
    assert {row["layer"] for row in content.rows} == {min(saved)}
    assert "three layers" in content.caption


def test_differences_show_every_row_of_a_family(data: PageData, views: dict[str, View]) -> None:
    rows = show(views["differences"], family=["region"], measure=[CONCEPT])
    wanted = [
        r for r in data.contrasts if (r.family, r.measure, r.window) == ("region", CONCEPT, "all")
    ]
    assert rows == html.as_rows(wanted)


def test_failures_are_filtered_and_paged(data: PageData, views: dict[str, View]) -> None:
    rows = show(views["failures"], category=["UNICODE_EDGE"], language=["ar"])
    assert data.failures is not None
    wanted = [c for c in data.failures if (c.category, c.language) == ("UNICODE_EDGE", "ar")]
    assert rows == html.as_rows(wanted)
    view = views["failures"]
    shown = [view.show(complete(view, {"page": [n]})).below for n in ("1", "2")]
    assert [text.count('<details class="case"') for text in shown] == [failures.PAGE] * 2
    assert shown[0] != shown[1]


def test_comparing_a_run_shows_the_findings_of_both(data: PageData, flores: PageData) -> None:
    other = dataclasses.replace(data, others={"flores": FLORES.run_dir})
    rows = show(compare.make(other))
    for name, run, tests in (("this run", data.run, data.tests), ("flores", flores.run, None)):
        mine = [row["finding"] for row in rows if row["run"] == name]
        assert mine == [s.text for f in find(run, tests) for s in f.statements]


def test_a_stage_that_was_not_run_says_how_to_make_it(
    data: PageData, views: dict[str, View], tmp_path: Path
) -> None:
    assert "uv run logit_lens.py" in render(views["lens"], {})
    (tmp_path / "results").mkdir()
    paths = RunPaths(tmp_path)
    moved = dataclasses.replace(data, paths=paths)
    view = {v.name: v for v in build.make_views(moved)}["behaviour"]
    assert f"--run-dir {tmp_path}" in render(view, {})
    paths.behaviour.write_text(f"variant,text\nbase,{EVIL}\n", encoding="utf-8")
    shown = render(view, {})
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown
    paths.behaviour.write_bytes(b"\xff\xfe\x00")
    assert 'role="alert"' in build.draw(view, {})


# --- tokens and texts -----------------------------------------------------------------------------


def test_bytes_of_a_character_make_one_box_and_no_token_is_lost() -> None:
    pieces = {"1": "<bos>", "2": "▁I", "3": "<0xE1>", "4": "<0x8B>", "5": "<0x93>", "6": "."}
    probe = {"token_ids": [1, 2, 3, 4, 5, 6], "span_tokens": [3], "final_token": 6}
    found = tokens.merge(probe, pieces)
    assert [p.text for p in found] == ["<bos>", "▁I", "ዓ", "."]
    assert [i for p in found for i in p.ids] == probe["token_ids"]
    assert [p.in_span for p in found] == [False, False, True, False]
    assert [p.final for p in found] == [False, False, False, True]


def test_bytes_that_make_no_character_are_shown_and_stay_one_box() -> None:
    pieces = {"1": "<0xE1>", "2": "a", "3": "<0x8B>"}
    found = tokens.merge({"token_ids": [1, 2, 3], "span_tokens": [], "final_token": 3}, pieces)
    assert [list(p.ids) for p in found] == [[1], [2], [3]]
    assert [p.text for p in found] == ["�", "a", "�"]


def test_a_token_whose_text_is_not_saved_is_shown_by_its_number() -> None:
    found = tokens.merge({"token_ids": [7], "span_tokens": [], "final_token": 7}, {})
    assert [p.text for p in found] == ["#7"]


def test_every_probe_of_a_run_is_cut_into_all_its_tokens(data: PageData) -> None:
    for probe in data.tokens["probes"].values():
        found = tokens.merge(probe, data.pieces)
        assert [i for piece in found for i in piece.ids] == probe["token_ids"]
        assert sum(piece.final for piece in found) == 1


def test_boxes_follow_the_direction_of_their_text(views: dict[str, View]) -> None:
    shown = render(views["tokens"], {})
    found = re.findall(r'<p class="pieces" dir="(\w+)">', shown)
    codes = [row["language"] for row in show(views["tokens"])]
    assert {code for code, way in zip(codes, found, strict=True) if way == "rtl"} == {"ar"}
    assert html.direction("123 שלום") == "rtl"
    assert html.direction("...") == "ltr"


def test_the_artefact_of_the_final_token_is_flagged(views: dict[str, View]) -> None:
    rows = {row["language"]: row for row in show(views["tokens"])}
    assert not rows["en"]["same_final_token"]
    assert rows["sw"]["same_final_token"]
    assert "last-token vectors start equal" in render(views["tokens"], {})


def test_differing_characters_are_marked_and_hidden_ones_are_seen() -> None:
    left, right = html.beside("ab<c", "ab\u200d<c")
    assert left == "ab&lt;c"
    assert right == "ab<ins>⟨U+200D⟩</ins>&lt;c"
    left, right = html.beside("cat", "cut")
    assert (left, right) == ("c<del>a</del>t", "c<ins>u</ins>t")
    assert html.beside("same", "same") == ("same", "same")


def test_texts_of_failures_follow_their_own_direction(views: dict[str, View]) -> None:
    view = views["failures"]
    shown = view.show(complete(view, {"language": ["ar"]})).below
    texts = re.findall(r"<p dir=\"auto\">(.*?)</p>", shown)
    assert any("؀" <= char <= "ۿ" for text in texts for char in text)


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(views: dict[str, View]) -> TestClient:
    return TestClient(Starlette(routes=downloads.routes(list(views.values()), "mini")))


def test_the_csv_of_a_view_has_the_rows_that_it_shows(
    client: TestClient, views: dict[str, View]
) -> None:
    answer = client.get("/files/view.csv?view=curves&languages=hi&variants=base")
    found = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    wanted = show(views["curves"], languages=["hi"], variants=["base"])
    assert [row["mean"] for row in found] == [
        "" if row["mean"] is None else str(row["mean"]) for row in wanted
    ]


@pytest.mark.parametrize("name", ["curves", "map", "differences", "published"])
def test_the_svg_of_a_view_holds_all_its_charts(
    client: TestClient, views: dict[str, View], name: str
) -> None:
    answer = client.get(f"/files/view.svg?view={name}")
    count = len(views[name].show(complete(views[name], {})).charts)
    assert answer.status_code == 200
    assert answer.text.count('role="img"') == count + 1
    assert "<script" not in answer.text


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("/files/view.csv?view=nothing", 404, "valid: findings, curves"),
        ("/files/view.csv?view=curves&measure=none", 400, "unknown measure"),
        ("/files/view.svg?view=findings", 400, "has no charts"),
        ("/files/view.csv?" + "&".join(f"languages=x{n}" for n in range(2000)), 404, "valid"),
        ("/files/view.csv?view=curves&" + "languages=hi&" * 2000, 400, "exceeded"),
    ],
)
def test_a_bad_address_is_answered_and_not_served(
    client: TestClient, address: str, status: int, words: str
) -> None:
    answer = client.get(address)
    assert answer.status_code == status
    assert words.lower() in answer.text.lower()


def test_a_cell_of_a_csv_is_no_formula() -> None:
    text = html.csv_text([{"text": "=1+1", "value": -0.5}, {"text": "+x", "value": None}])
    assert text == "text,value\n'=1+1,-0.5\n'+x,\n"
    assert html.csv_text([]) == ""


def test_no_curve_is_hidden_when_a_run_has_more_languages_than_are_shown_first(
    data: PageData,
) -> None:
    view = curves.make(data)
    first = next(c for c in view.controls if c.name == "languages")
    assert [value for _, value in first.choices] == data.results.info.others
