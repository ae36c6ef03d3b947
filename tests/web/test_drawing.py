"""The pure parts: the layout and the timeline of a run, forms from schemas, words, tracebacks, filter texts."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow.web.pages.filters import chips, pieces, quoted, tabs
from pgflow.web.rendering.forms import FieldErrors, fields_of, read_form
from pgflow.web.rendering.graph import graph
from pgflow.web.rendering.layout import NODE_HEIGHT, arrange
from pgflow.web.rendering.timeline import Axis, folds, timeline
from pgflow.web.rendering.traces import frames
from pgflow.web.rendering.values import HIDDEN, line, value_of
from pgflow.web.rendering.words import ago, count, duration, size
from pgflow.web.run.models import Edge, Span, Step

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def random_graph(steps: int, seed: int = 7) -> tuple[list[str], list[tuple[str, str]]]:
    """Return an acyclic graph in which each step has one or two predecessors."""
    rng = random.Random(seed)  # noqa: S311 -- the same graph each time
    keys = [f"step_{number}" for number in range(steps)]
    edges = set()
    for number in range(1, steps):
        for _ in range(rng.choice((1, 1, 2))):
            edges.add((keys[rng.randrange(max(0, number - 30), number)], keys[number]))
    return keys, sorted(edges)


@given(st.integers(2, 40), st.integers(0, 1000))
def test_every_edge_leads_to_the_right_and_no_two_nodes_overlap(steps: int, seed: int) -> None:
    keys, edges = random_graph(steps, seed)
    layout = arrange(keys, edges)
    assert all(layout.rank[source] < layout.rank[target] for source, target in edges)
    by_rank: dict[int, list[float]] = {}
    for key in keys:
        by_rank.setdefault(layout.rank[key], []).append(layout.y[key])
    for heights in by_rank.values():
        heights.sort()
        assert all(below - above >= NODE_HEIGHT for above, below in pairwise(heights))
    assert min(layout.y[key] for key in keys) >= NODE_HEIGHT / 2 - 0.01


def test_a_thousand_steps_are_drawn_with_each_node_and_edge_once() -> None:
    keys, pairs = random_graph(1000)
    nodes = [Step(key=key, name=key, state="completed", what="Completed 3 ms") for key in keys]
    edges = [Edge(source=a, target=b, events=("ok",), label="", state="taken") for a, b in pairs]
    drawn = str(graph(nodes, edges, lambda key: f"?step={key}", "A run"))
    assert drawn.count('class="node ') == 1000
    assert drawn.count('<path class="edge ') == len(edges)
    assert not re.search(r"style=|nan|inf", drawn)


def test_an_empty_graph_is_drawn() -> None:
    assert "<svg" in str(graph([], [], str, "Nothing"))


def test_long_spans_in_which_nothing_ran_are_folded_and_the_rest_keeps_its_order() -> None:
    found = folds([(0, 10), (2000, 2010)], 2010)
    assert len(found) == 1
    assert 10 < found[0][0] < found[0][1] < 2000
    axis = Axis(2010, found)
    places = [axis(second) for second in range(0, 2011, 10)]
    assert places == sorted(places)
    assert (places[0], round(places[-1])) == (0, 100)
    assert axis(10) > 30
    assert folds([(0, 10)], 10) == []


def test_a_timeline_shows_how_much_is_folded_and_ends_now() -> None:
    def at(second: float) -> datetime:
        return NOW + timedelta(seconds=second)

    rows = [
        [Span(kind="ran", state="completed", since=at(0), until=at(4))],
        [Span(kind="waited", state="waiting", since=at(4), until=at(4000))],
    ]
    drawn = timeline(rows, at(0), at(4000), is_over=False)
    assert "1 h folded" in drawn.axis
    assert "now 13:06:40" in drawn.axis
    assert 'class="w s-waiting"' in drawn.rows[1]
    assert 'class="now"' in drawn.rows[0]
    assert "now" not in timeline(rows, at(0), at(4000), is_over=True).axis


@dataclass(frozen=True)
class Case:
    """A schema of one property, what the form shows for it, and what a filled field means."""

    schema: dict[str, Any]
    kind: str
    text: str
    value: Any


@pytest.mark.parametrize(
    "case",
    [
        Case({"type": "string"}, "text", "a", "a"),
        Case({"type": "string", "maxLength": 500}, "lines", "a\nb", "a\nb"),
        Case({"type": "integer", "minimum": 1}, "integer", "9007199254740993", 9007199254740993),
        Case({"type": "number"}, "number", "1.5", 1.5),
        Case({"type": "boolean"}, "boolean", "true", True),
        Case({"enum": ["a", "b"]}, "choice", "b", "b"),
        Case({"type": "string", "format": "date-time"}, "time", "2026-11-30T12:00", "2026-11-30T12:00Z"),
        Case({"type": "array", "items": {}}, "json", '["a", {}]', ["a", {}]),
        Case({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer", "7", 7),
        Case({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "json", '"x"', "x"),
        Case({"$ref": "#/$defs/Part"}, "text", "n", {"name": "n"}),
    ],
    ids=lambda case: f"{case.kind}-{case.text[:8]}",
)
def test_a_field_is_made_of_its_schema_and_read_back(case: Case) -> None:
    defs = {"Part": {"type": "object", "properties": {"name": {"type": "string"}}}}
    (field,) = fields_of({"properties": {"x": case.schema}, "required": ["x"], "$defs": defs})
    assert field.kind == case.kind
    assert read_form([field], {field.name: case.text}) == {"x": case.value}


def test_a_field_that_cannot_be_read_names_what_is_wrong() -> None:
    fields = fields_of({"properties": {"n": {"type": "integer"}, "j": {}, "t": {}}, "required": ["n", "j", "t"]})
    with pytest.raises(FieldErrors) as caught:
        read_form(fields, {"n": "seven", "j": "{"})
    assert caught.value.errors["n"] == "'seven' is not a whole number."
    assert caught.value.errors["j"].startswith("It is not JSON")
    assert caught.value.errors["t"] == "Fill in a value."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0, "0 ms"), (0.012, "12 ms"), (0.9999, "1 s"), (2.5, "2.5 s"), (59.7, "1 min"), (160, "2 min 40 s")],
        *[(3600, "1 h"), (90_000, "1 d 1 h"), (-5, "0 ms")],
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_words_for_counts_sizes_and_times() -> None:
    assert [count(each) for each in (None, 0, 10_000, 10_001)] == ["", "0", "10,000", "10,000+"]
    assert [size(each) for each in (12, 1234, 5_000_000)] == ["12 B", "1.2 kB", "5.0 MB"]
    assert ago(NOW - timedelta(minutes=3), NOW) == "3 min ago"
    assert ago(NOW + timedelta(seconds=9), NOW) == "in 9 s"


def test_values_are_shown_exactly_hidden_or_described() -> None:
    shown = value_of('{"a": {"Token": "x"}, "n": 9007199254740993, "s": {"pgflow:sealed": "k.x"}}', None, ["token"])
    assert shown.value == {"a": {"Token": HIDDEN}, "n": 9007199254740993, "s": "•••••• encrypted"}
    assert value_of('{"pgflow:sealed": "k.x"}', None, []).state == "encrypted"
    assert value_of('{"a', 100_000, []).state == "large"
    assert value_of("{", None, []).state == "unreadable"
    assert value_of(None, None, []).state == "absent"
    assert line(value_of('{"a": 1}', None, [])) == '{"a": 1}'


def test_the_frames_of_libraries_are_folded() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "/x/site-packages/httpx/a.py", line 1, in f\n    call()\n'
        '  File "/x/site-packages/httpx/b.py", line 2, in g\n    call()\n'
        '  File "/shop/partners.py", line 88, in inform_partner\n    await post()\n'
        "TimeoutError: no\n"
    )
    library, own = frames(text)
    assert (library.is_library, len(library.frames)) == (True, 2)
    assert own.frames[0].place == "/shop/partners.py:88 in inform_partner"
    assert own.frames[0].source == "await post()"
    assert frames("no traceback") == ()


def test_a_filter_is_taken_apart_and_put_together() -> None:
    text = r'state:failed error:"timed \"out\"" -tag:vip'
    assert pieces(text) == ["state:failed", r'error:"timed \"out\""', "-tag:vip"]
    assert chips(text)[1].without == "state:failed -tag:vip"
    assert quoted('a "b"') == r'"a \"b\""'
    found = tabs(text, ("failed", "running"), {"failed": 3})
    assert [(tab.state, tab.is_current) for tab in found] == [(None, False), ("failed", True), ("running", False)]
    assert found[2].q == r'state:running error:"timed \"out\"" -tag:vip'
