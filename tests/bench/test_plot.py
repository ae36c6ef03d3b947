"""The plots are well-formed, self-contained SVG with a description."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.bench.plot import Bar, Chart, Panel, Series, bars, lines

SVG = "{http://www.w3.org/2000/svg}"
TIMES = "\N{MULTIPLICATION SIGN}"
PANELS = [
    Panel(
        "drain <fast>",
        "jobs/s & more",
        [Bar("ours", 30, 28, 33, "30", is_ours=True), Bar("theirs", 3, 3, 3, f"3 (10{TIMES})")],
    ),
    Panel("empty", "ms", []),
]
CHARTS = [
    Chart(
        "claim",
        "ready tokens",
        "ms",
        [Series("of 100", [(0, 1.0), (1000, 1.5), (10_000_000, 2.0)]), Series("of 1", [(0, 1)])],
    ),
    Chart("flat", "sizes", "MB", [Series("worker", [(5, 0.0)])]),
]


@pytest.mark.parametrize("drawn", [bars("Speed", "medians", PANELS), lines("Growth", "medians", CHARTS)])
def test_a_plot_is_well_formed_and_self_contained(drawn: str) -> None:
    root = ElementTree.fromstring(drawn)  # noqa: S314 -- our own
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    used = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert used <= {"svg", "title", "desc", "rect", "path", "circle", "text"}
    assert not any(name in ("style", "class", "id", "href") for element in root.iter() for name in element.attrib)
    width, height = (float(root.get(name, "0")) for name in ("width", "height"))
    for element in root.iter(f"{SVG}text"):
        assert 0 <= float(element.get("x", "-1")) <= width
        assert 0 <= float(element.get("y", "-1")) <= height


def test_a_plot_has_a_description() -> None:
    for drawn, text in (
        (bars("Speed", "medians", PANELS), f"drain <fast> (jobs/s & more): ours 30, theirs 3 (10{TIMES})"),
        (lines("Growth", "medians", CHARTS), "claim (ms) by ready tokens: of 100 0: 1 1000: 1.5 1e+07: 2"),
    ):
        described = ElementTree.fromstring(drawn).find(f"{SVG}desc")  # noqa: S314 -- our own
        assert described is not None
        assert text in (described.text or "")


def test_bars_are_as_long_as_their_values() -> None:
    root = ElementTree.fromstring(bars("Speed", "medians", PANELS))  # noqa: S314 -- our own
    ours, theirs = [float(each.get("width", "0")) for each in root.iter(f"{SVG}rect")][1:]
    assert ours / theirs == pytest.approx(10, rel=0.01)


def test_lines_rise_with_their_values_and_go_right_as_the_work_grows() -> None:
    root = ElementTree.fromstring(lines("Growth", "medians", CHARTS[:1]))  # noqa: S314 -- our own
    dots = [(float(each.get("cx", "0")), float(each.get("cy", "0"))) for each in root.iter(f"{SVG}circle")][:3]
    assert [x for x, _ in dots] == sorted(x for x, _ in dots)
    assert [y for _, y in dots] == sorted((y for _, y in dots), reverse=True)
