"""Charts: what is drawn is what the numbers say, in colours that can be told apart."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aya_probes.charts import cells, forest, lines, sheet, svg
from aya_probes.charts.cells import Cell, CellPanel
from aya_probes.charts.forest import Effect, ForestPanel
from aya_probes.charts.lines import Line, LinePanel, Marks
from aya_probes.charts.variants import SHAPES, Look, looks, marker
from aya_probes.results.curves import Curve
from aya_probes.results.whole_run import load_run
from aya_probes.run_folder import RunPaths

NS = "{http://www.w3.org/2000/svg}"
LOOK = Look("base", "v0", None, "circle")
CURVE = Curve(
    (0.0, 0.5, None, 1.0), 0.25, lower=(-0.1, 0.4, None, 0.9), upper=(0.1, 0.6, None, 1.1)
)
EVIL = '<script>alert("x")</script> & "quotes"'


def tree(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def points(element: ElementTree.Element) -> list[tuple[float, float]]:
    return [
        (float(x), float(y))
        for x, y in (pair.split(",") for pair in element.attrib["points"].split())
    ]


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(2, 8))
def test_ticks_are_round_evenly_spaced_and_inside(low: float, span: float, count: int) -> None:
    found = svg.ticks(low, low + span, count)
    steps = {round(b - a, 6) for a, b in itertools.pairwise(found)}
    assert len(steps) <= 1
    assert all(low - 1e-6 * span <= value <= low + span * (1 + 1e-6) for value in found)
    assert len(found) <= count + 1


@pytest.mark.parametrize("last", [1, 4, 18, 36, 80])
def test_the_axis_of_layers_names_the_first_and_the_last(last: int) -> None:
    found = svg.layer_ticks(last)
    assert (found[0], found[-1]) == (0, last)
    assert found == sorted(set(found))
    assert len(found) <= 8


def test_a_line_passes_through_its_values_and_stops_where_they_are_undefined() -> None:
    panel = LinePanel("Hindi", "A", [Line("base", LOOK, CURVE, strong=True)])
    drawn = tree(lines.draw(panel, 3, (-0.5, 1.5)))
    found = [e for e in drawn.iter(f"{NS}polyline") if "line" in e.attrib["class"]]
    # Layer 2 is undefined: one piece with two points, one with a single point.
    assert [len(points(e)) for e in found] == [2, 1]
    bottom, top = lines.HEIGHT - lines.BOTTOM, lines.TOP
    values = [-0.5 + 2.0 * (bottom - y) / (bottom - top) for e in found for _, y in points(e)]
    assert values == pytest.approx([0.0, 0.5, 1.0], abs=0.01)
    band = [e for e in drawn.iter(f"{NS}polygon") if e.attrib["class"] == "band"]
    assert [len(points(e)) for e in band] == [6]


def test_only_the_chosen_variant_has_a_band_and_the_widest_line() -> None:
    other = Line("fire", Look("fire", "v1", None, "square"), CURVE)
    panel = LinePanel("Hindi", "A", [Line("base", LOOK, CURVE, strong=True), other])
    drawn = lines.draw(panel, 3, (-0.5, 1.5))
    assert drawn.count('class="band"') == 1
    assert [drawn.count(f'stroke-width="{w}"') for w in (2.4, 1.2)] == [2, 2]


def test_the_range_holds_every_value_and_interval_that_is_drawn() -> None:
    low, high = lines.value_range([LinePanel("Hindi", "A", [Line("base", LOOK, CURVE, True)])])
    assert low < -0.1
    assert high > 1.1
    assert lines.value_range([LinePanel("Hindi", "A", [])])[1] > 0


def test_a_screen_reader_hears_the_peak_and_the_caution() -> None:
    panel = LinePanel("Hindi", "A", [Line("base", LOOK, CURVE)], note="untestable", untestable=True)
    drawn = tree(lines.draw(panel, 3, (0, 1)))
    assert drawn.attrib["role"] == "img"
    assert drawn.attrib["aria-label"] == (
        "Hindi. untestable; base: largest 1.000 [0.900, 1.100] at layer 3"
    )


def test_marks_stand_at_their_layers_and_never_is_not_drawn() -> None:
    panel = LinePanel("Hindi", "A", [], marks=Marks(peak=2, commitment=1, release=-1))
    texts = [e.text for e in tree(lines.draw(panel, 3, (0, 1))).iter(f"{NS}text")]
    assert [t for t in texts if t in ("C", "P", "R")] == ["C", "P"]


def test_labels_are_text_and_never_markup() -> None:
    panel = LinePanel(EVIL, EVIL, [Line(EVIL, LOOK, CURVE)], note=EVIL)
    table = CellPanel(EVIL, [EVIL], ["0"], [[Cell(0.5, EVIL)]], EVIL)
    plot = ForestPanel(EVIL, [Effect(EVIL, 0.1, 0.0, 0.2, True, text=EVIL)])
    for drawn in (
        lines.draw(panel, 3, (0, 1)),
        cells.draw(table, 1.0),
        forest.draw(plot, (-1, 1)),
    ):
        found = tree(drawn)  # raises if the text broke the markup
        assert [e for e in found.iter() if e.tag.endswith("script")] == []
        assert any(e.text == EVIL for e in found.iter(f"{NS}text"))


def test_colours_of_cells_grow_from_light_to_dark_and_signs_differ() -> None:
    def light(colour: str) -> int:
        return sum(int(colour[i : i + 2], 16) for i in (1, 3, 5))

    scale = [light(cells.colour(v / 10, 1.0, signed=False)) for v in range(11)]
    assert scale == sorted(scale, reverse=True)
    ends = [cells.colour(v, 1.0, signed=True) for v in (-1.0, 0.0, 1.0)]
    assert len(set(ends)) == 3
    assert light(ends[1]) > max(light(ends[0]), light(ends[2]))
    assert cells.colour(9.0, 1.0, False) == cells.colour(1.0, 1.0, False)


def test_a_cell_that_is_untestable_is_hatched_with_a_pattern_of_its_own() -> None:
    row = [Cell(0.5, "a", dot=True), Cell(0.5, "b", hatched=True), Cell(None, "c")]
    drawn = [
        cells.draw(CellPanel(title, ["hi"], ["0", "1", "2"], [row], "layer"), 1.0)
        for title in ("base", "fire")
    ]
    names = [re.findall(r'pattern id="(\S+?)"', text) for text in drawn]
    assert [len(found) for found in names] == [1, 1]
    assert names[0] != names[1]
    for text, found in zip(drawn, names, strict=True):
        assert text.count(f"url(#{found[0]})") == 1
        assert text.count("<circle") == 1


def test_an_established_difference_is_filled_and_the_others_are_hollow() -> None:
    rows = [Effect("hi", 0.2, 0.1, 0.3, True, seeds=0.05), Effect("bn", 0.1, -0.1, 0.3, False)]
    panel = ForestPanel("fire - global", rows)
    drawn = tree(forest.draw(panel, forest.value_range([panel])))
    kinds = [e.attrib["class"] for e in drawn.iter(f"{NS}circle")]
    assert kinds == ["point", "hollow"]
    assert len([e for e in drawn.iter(f"{NS}rect") if e.attrib["class"] == "seed"]) == 1
    assert drawn.attrib["aria-label"].endswith("1 of 2 differences are established")


def test_an_interval_is_drawn_where_its_ends_are() -> None:
    panel = ForestPanel("fire - global", [Effect("hi", 0.2, 0.1, 0.3, True)])
    drawn = tree(forest.draw(panel, (0.0, 0.4)))
    bar = next(e for e in drawn.iter(f"{NS}line") if e.attrib["class"] == "line")
    start, end = forest.LEFT, svg.WIDTH - forest.RIGHT
    ends = [(float(bar.attrib[name]) - start) / (end - start) * 0.4 for name in ("x1", "x2")]
    assert ends == pytest.approx([0.1, 0.3], abs=0.002)


def test_a_sheet_holds_every_panel_without_overlap_and_its_text() -> None:
    panels = [
        lines.draw(LinePanel(f"p{n}", "A", [Line("base", LOOK, CURVE)]), 3, (0, 1))
        for n in range(5)
    ]
    whole = tree(sheet.join(panels, "Curves", [EVIL, "long " * 200]))
    inner = whole.findall(f"{NS}svg")
    boxes = [tuple(float(e.attrib[k]) for k in ("x", "y", "width", "height")) for e in inner]
    assert len(boxes) == 5
    for (ax, ay, aw, ah), (bx, by, bw, bh) in itertools.combinations(boxes, 2):
        assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay
    assert max(y + h for _, y, _, h in boxes) <= float(whole.attrib["height"])
    assert whole.find(f"{NS}style") is not None


def test_every_shape_of_a_marker_is_drawn_around_its_point() -> None:
    assert len({marker(shape, 10, 10, "point") for shape in SHAPES}) == len(SHAPES)


def test_variants_that_train_another_again_share_its_colour_and_differ_in_dash() -> None:
    info = load_run(RunPaths()).results.info
    found = looks(info)
    for again, origin in info.repeats.items():
        assert found[again].colour == found[origin].colour
        assert found[again].dash != found[origin].dash
    own = [v for v in info.variants if v not in info.repeats]
    assert len({(found[v].colour, found[v].shape) for v in own}) == len(own)


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [r"^\.chart-colours", r"^\.dark \.chart-colours"])
def test_text_and_lines_stand_out_from_the_ground_in_both_themes(theme: str) -> None:
    block = re.search(theme + r" \{(.*?)\}", svg.stylesheet(), re.DOTALL | re.MULTILINE)
    assert block is not None
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block[1]))
    ground = colours["ground"]
    for name in ("ink", "faint", "warn"):
        assert contrast(colours[name], ground) >= 4.5, name
    for name in ("c0", "c1", "c2", "c3", "c4", "c5", "grey"):
        assert contrast(colours[name], ground) >= 3.0, name
