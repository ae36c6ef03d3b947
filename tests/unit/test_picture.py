"""Pictures of workflows: every edge is in each of them, whatever the names, and nothing overlaps."""

from __future__ import annotations

import ast
import json
import re
import xml.etree.ElementTree as ET
from html import unescape
from itertools import pairwise
from textwrap import indent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgflow import Context, Done, Ok, Step, Unique, Wait, Workflow, route, step
from pgflow.core import picture
from pgflow.core.definition.graph import DONE
from pgflow.core.picture.layout import arrange
from pgflow.core.picture.outline import Outline, quoted
from pgflow.errors import DefinitionError, Invalid

Edge = tuple[str, str, str, bool]
ALL = [picture.ascii, picture.mermaid, picture.dot, picture.svg]
some = settings(max_examples=30, deadline=None)
NASTY = ["a,b", 'x"<b>&', "#1;`", "\u202eevil\\N", "-->", '"""', "'''", "?", "──x──>", "等待", "a?"]


def spec(*edges: Edge, initial: str = "a") -> dict[str, Any]:
    """Return the JSON values of a workflow that pictures use."""
    pairs: dict[tuple[str, str, bool], list[str]] = {}
    for source, event, target, is_dynamic in edges:
        pairs.setdefault((source, event, is_dynamic), []).append(target)
    return {
        "workflow": "Drawn",
        "version": 1,
        "initial": initial,
        "edges": [
            {"from": source, "event": event, "targets": targets, "dynamic": is_dynamic}
            for (source, event, is_dynamic), targets in pairs.items()
        ],
    }


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a workflow of up to ten steps: each is reached from one before and leads on; some names are hostile."""
    steps = [f"s{number}" for number in range(draw(st.integers(1, 10)))]
    after = [*steps, DONE]
    edges: dict[tuple[str, str], tuple[set[str], bool]] = {}
    for number, key in enumerate(steps):
        if number:
            source = steps[draw(st.integers(0, number - 1))]
            edges.setdefault((source, f"to_{key}"), (set(), draw(st.booleans())))[0].add(key)
        for event in draw(st.lists(st.sampled_from(["done", *NASTY]), min_size=1, max_size=3, unique=True)):
            targets = draw(st.sets(st.sampled_from(after[number + 1 :]), min_size=1, max_size=3))
            edges[key, event] = (targets, draw(st.booleans()))
    whole = [(s, e, t, dynamic) for (s, e), (targets, dynamic) in edges.items() for t in sorted(targets)]
    return spec(*whole, initial="s0")


def edges_of(workflow: dict[str, Any]) -> set[Edge]:
    """Return all single edges."""
    return {
        (each["from"], each["event"], target, each["dynamic"])
        for each in workflow["edges"]
        for target in each["targets"]
    }


def events_of(label: str) -> list[tuple[str, bool]]:
    """Parse the label of an arrow: the events, and whether each is dynamic."""
    found = re.findall(r'(?:("(?:[^"\\]|\\.)*")|([\w.:/+-]+))(\?)?(?:, |$)', label)
    return [(json.loads(quoted) if quoted else plain, bool(mark)) for quoted, plain, mark in found]


def read_ascii(text: str) -> set[Edge]:
    """Parse every edge."""
    edges = set()
    for line in text.splitlines():
        if found := re.fullmatch(r" {4}(\w+) +(?:──(.*?)──+|··(.*?)··+)> (\w+)", line):
            source, solid, dotted, target = found.groups()
            events = events_of(solid or dotted)
            assert all(dynamic for _, dynamic in events) == (dotted is not None)
            edges |= {(source, event, target, dynamic) for event, dynamic in events}
    return edges


def read_mermaid(text: str) -> set[Edge]:
    """Parse every edge."""

    def plain(label: str) -> str:
        return re.sub(r"#(\d+);", lambda found: chr(int(found[1])), label)

    keys = {number: plain(label) for number, label in re.findall(r'^    (s\d+)[(\[]+"(.*)"[)\]]+$', text, re.MULTILINE)}
    arrows = re.findall(r'^    (s\d+) (-->|-\.->)\|"([^"<>`]*)"\| (s\d+)$', text, re.MULTILINE)
    assert len(arrows) + len(keys) + 1 == len(text.splitlines())
    return {
        (keys[source], event, keys[target], dynamic)
        for source, _, label, target in arrows
        for event, dynamic in events_of(plain(label))
    }


def read_dot(text: str) -> set[Edge]:
    """Parse every edge."""
    arrows = re.findall(
        r'^    "(\w+)" -> "(\w+)" \[label="((?:[^"\\]|\\.)*)"(?:, style=dashed)?\];$', text, re.MULTILINE
    )
    assert len(arrows) == text.count(" -> ")
    return {
        (source, event, target, dynamic)
        for source, target, label in arrows
        for event, dynamic in events_of(unescape(re.sub(r"\\(.)", r"\1", label)))
    }


@step(events=("routed", "refused"))
def triage(ctx: Context[Any]) -> Ok:
    return Ok("refused")


@step
def fast(ctx: Context[Any]) -> Ok:
    return Ok("done")


@step(events=("done", "late"))
def standard(ctx: Context[Any]) -> Ok:
    return Ok("done")


@step
def audit(ctx: Context[Any]) -> Ok:
    return Ok("done")


@step
def close(ctx: Context[Any]) -> Ok:
    return Ok("done")


def by_priority(ctx: Context[Any]) -> Step:
    return fast


cool_off = Wait(hours=1).named("cool_off")


class Triage(Workflow[dict[str, Any]], unique=Unique("id")):
    initial = triage
    transitions = {
        triage: {"routed": route(by_priority, fast, standard), "refused": Done},
        fast: {"done": [audit, close]},
        audit: {"done": close},
        close: {"done": Done},
        standard: {"done": cool_off, "late": cool_off},
        cool_off: {"timeout": Done},
    }


DRAWN = """\
[*triage]
    triage ··routed?··> fast
    triage ··routed?··> standard
    triage ──refused──> done

[fast]  [standard]
    fast     ──done────────> audit
    fast     ──done────────> close
    standard ──done, late──> cool_off

[audit]  [cool_off]
    audit    ──done─────> close
    cool_off ──timeout──> done

[close]
    close ──done──> done

(done)

?  a route chooses among the targets of this event
an event that leads to several steps starts them all"""


def test_a_workflow_is_drawn_as_rows_and_lines() -> None:
    assert picture.ascii(Triage.graph) == DRAWN


@pytest.mark.parametrize("draw", ALL)
def test_a_stored_graph_gives_the_same_picture(draw: Any) -> None:
    kept = json.loads(json.dumps(Triage.graph.spec(), sort_keys=True))
    assert draw(kept) == draw(Triage.graph) == draw(Outline.of(Triage.graph))


@some
@given(specs())
def test_every_edge_can_be_read_back_from_text(workflow: dict[str, Any]) -> None:
    assert read_ascii(picture.ascii(workflow)) == edges_of(workflow)
    assert read_mermaid(picture.mermaid(workflow)) == edges_of(workflow)
    assert read_dot(picture.dot(workflow)) == edges_of(workflow)


@some
@given(specs())
def test_every_step_is_below_its_predecessors(workflow: dict[str, Any]) -> None:
    outline = Outline.of(workflow)
    at = {key: number for number, layer in enumerate(outline.layers) for key in layer}
    for key, number in at.items():
        above = [at[source] for source, _, target, _ in edges_of(workflow) if target == key]
        assert number == max(above, default=-1) + 1
    rows = [line for line in picture.ascii(workflow).splitlines() if line.startswith(("[", "("))]
    assert [re.findall(r"\w+", row) for row in rows] == [list(layer) for layer in outline.layers]


@some
@given(specs())
def test_nothing_in_the_svg_overlaps(workflow: dict[str, Any]) -> None:
    outline = Outline.of(workflow)
    layout = arrange(outline, lambda key: (60.0, 30.0), lambda arrow: (40.0, 15.0))
    for rank in layout.ranks:
        for left, right in pairwise(rank):
            assert left.x + left.width / 2 < right.x - right.width / 2
    assert sorted(layout.steps) == sorted(outline.steps)
    for arrow, path in layout.paths.items():
        assert (path[0], path[-1]) == (layout.steps[arrow.source], layout.steps[arrow.target])
        assert [place.rank for place in path] == list(range(path[0].rank, path[-1].rank + 1))


@some
@given(specs())
def test_the_svg_is_valid_and_complete(workflow: dict[str, Any]) -> None:
    text = picture.svg(workflow)
    root = ET.fromstring(text)  # noqa: S314 -- our own
    outline = Outline.of(workflow)
    name = "{http://www.w3.org/2000/svg}"
    width, height = (float(root.attrib[each]) for each in ("width", "height"))
    for box in root.iter(f"{name}rect"):
        x, y, wide, high = (float(box.attrib[each]) for each in ("x", "y", "width", "height"))
        assert 0 <= x < x + wide <= width
        assert 0 <= y < y + high <= height
    groups = list(root.iter(f"{name}g"))
    drawn = [each.attrib["data-step"] for each in groups if each.attrib["class"] == "step"]
    arrows = [
        (each.attrib["data-source"], each.attrib["data-target"]) for each in groups if "data-source" in each.attrib
    ]
    assert sorted(drawn) == sorted(outline.steps)
    assert arrows == [(arrow.source, arrow.target) for arrow in outline.arrows]
    written = sorted(each.text or "" for each in root.iter(f"{name}text"))
    assert written == sorted([*outline.steps, *(label for arrow in outline.arrows for label in arrow.labels)])
    assert {each.tag.removeprefix(name) for each in root.iter()} <= {"svg", "title", "g", "path", "rect", "text"}
    assert not any(key in {"style", "id"} or key.startswith("on") for each in root.iter() for key in each.attrib)


def test_avoidable_crossings_are_avoided() -> None:
    crossed = spec(
        ("a", "go", "b", False), ("a", "go", "c", False),
        ("b", "done", "e", False), ("c", "done", "d", False),
        ("a", "fly", "d", False), ("d", "done", "done", False), ("e", "done", "done", False),
    )  # fmt: skip
    paths = arrange(Outline.of(crossed), lambda key: (60.0, 30.0), lambda arrow: (40.0, 15.0)).paths
    pieces = [pair for path in paths.values() for pair in pairwise(path)]
    assert not [
        (one, other)
        for one in pieces
        for other in pieces
        if one[0].rank == other[0].rank and (one[0].x - other[0].x) * (one[1].x - other[1].x) < 0
    ]


def test_an_arrow_across_layers_is_straight() -> None:
    long = spec(*((f"s{n}", "done", f"s{n + 1}", False) for n in range(6)), ("s0", "skip", "s6", False), initial="s0")
    layout = arrange(Outline.of(long), lambda key: (60.0, 30.0), lambda arrow: (40.0, 15.0))
    (path,) = [path for arrow, path in layout.paths.items() if arrow.events == ("skip",)]
    assert len({place.x for place in path[1:-1]}) == 1


def test_a_row_of_many_steps_is_wrapped() -> None:
    wide = spec(*(("a", "go", f"a_rather_long_name_{number}", False) for number in range(20)))
    rows = [line for line in picture.ascii(wide).splitlines() if line.startswith("[a_rather")]
    assert len(rows) == 5
    assert max(map(len, rows)) <= 100


@pytest.mark.parametrize("text", NASTY)
def test_no_name_drives_a_terminal_or_looks_like_another(text: str) -> None:
    assert quoted(text).isprintable()
    assert re.fullmatch(r"\w+", quoted(text)) or json.loads(quoted(text)) == text


@pytest.mark.parametrize(
    "stored",
    [
        {},
        spec() | {"initial": None, "edges": 1},
        spec() | {"version": "one"},
        spec() | {"edges": [{"from": "a"}]},
        spec(("a", "x", "b", False), ("b", "x", "a", False)),
    ],
)
@pytest.mark.parametrize("draw", ALL)
def test_invalid_stored_data_is_refused(draw: Any, stored: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="the stored graph cannot be drawn"):
        draw(stored)


# -- docstrings

PICTURE = '[*a]\n    a ──"x\\\\y"──> done\n\n(done)'
BLOCK = f"<!-- pgflow:graph:start:Flow -->\n\n{indent(PICTURE, '    ')}\n\n<!-- pgflow:graph:end:Flow -->"

SOURCES = {
    "several lines": 'class Flow(Base):\n    """Sell it.\n\n    In parts.\n    """\n\n    initial = 1  # one\n',
    "one line": "class Flow(Base):\n    '''Sell it.'''\n    initial = 1\n",
    "raw": 'class Flow(Base):\n    r"""Sell \\d of it."""\n    initial = 1\n',
    "escapes": 'class Flow(Base):\n    """Sell \\\\ it \\u00e4.\\n"""\n    initial = 1\n',
    "single quotes": 'class Flow(Base):\n    \'Sell """it""".\\tNow\\\\\'; initial = 1\n',
    "in pieces": 'class Flow(Base):\n    ("Sell " "it"\n     """ now""")\n    initial = 1\n',
    "empty": 'class Flow(Base):\n    """"""\n    initial = 1\n',
    "none": "class Flow(Base):\n    # why\n    initial = 1\n",
    "none, decorated first": "class Flow(Base):\n    @property\n    def x(self): pass\n",
    "none, long head": 'class Flow(\n    Base, tags=["a:b"], metadata={"a": 1}\n):  # so: a comment\n    x = 1\n',
    "none, in one line": "class Flow(Base): initial = 1; other = 2\n",
    "in one line": "class Flow(Base): 'Sell it.'; initial = 1\n",
    "tabs": "class Flow(Base):\n\t'''Sell it.\n\n\tIn parts.'''\n\tinitial = 1\n",
    "decorated": '@register(\n    lambda: 1\n)\nclass Flow(Base):\n    """Sell it."""\n',
    "under an if": 'if True:\n    class Flow(Base):\n        """Sell it."""\n\n        x = 1\nelse:\n    Flow = 1\n',
    "beside another": 'def make():\n    class Flow: "Not this."\n\nclass Flow(Base):\n    """Sell it."""\n',
    "letters of several bytes": 'class Flow(Base): """Ä等."""; initial = "ä"  # ß\n',
    "no last line end": 'class Flow(Base):\n    """Sell it."""',
    "a form feed": '\fclass Flow(Base):\n    """Sell\f it."""\n    initial = "\f"\n',
    "a backslash at the end": 'class Flow(Base):\n    """Sell it. \\\n    """\n    initial = 1\n',
}


def docstring(source: str, qualname: str = "Flow") -> str:
    """Return the docstring of the last class with that name, cleaned."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    found = [ast.get_docstring(node) for node in nodes if node.name == qualname.rpartition(".")[2]]
    (doc,) = [each for each in found if each != "Not this."]
    return doc or ""


def program(source: str) -> str:
    """Return the program without its docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_picture_is_inserted_and_nothing_else_changes(source: str) -> None:
    changed = picture.embed(source, "Flow", "Flow", PICTURE)
    assert program(changed) == program(source)
    expected = docstring(changed)
    assert expected.endswith(BLOCK)
    assert expected.removesuffix(BLOCK).split() == docstring(source).split()
    assert picture.embed(changed, "Flow", "Flow", PICTURE) == changed
    comments = [line.partition("#")[2] for line in source.splitlines() if "#" in line]
    assert all(comment in changed for comment in comments)
    assert not re.search(r"[ \t]\n", changed)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_new_picture_replaces_the_old_one(source: str) -> None:
    old = picture.embed(source, "Flow", "Flow", "[*old]\n\n[x]")
    new = picture.embed(old, "Flow", "Renamed", PICTURE)
    assert "old" not in new
    assert docstring(new).count("<!-- pgflow:graph:start:Renamed -->") == 1
    assert picture.embed(new, "Flow", "Flow", "[*old]\n\n[x]") == old


def test_text_around_the_markers_does_not_change() -> None:
    marks = "<!-- pgflow:graph:start:Flow -->\n    <!-- pgflow:graph:end:Flow -->"
    source = f'class Flow(Base):\n    """Sell.\n\n    {marks} Now.\n    """\n'
    changed = picture.embed(source, "Flow", "Flow", "[*a]")
    assert docstring(changed) == (
        "Sell.\n\n<!-- pgflow:graph:start:Flow -->\n\n    [*a]\n\n<!-- pgflow:graph:end:Flow --> Now."
    )


def test_nested_classes_and_several_in_a_file_have_a_picture_each() -> None:
    source = 'class A(Base):\n    """One."""\n\n    class B(Base):\n        x = 1\n\n\nclass B(Base):\n    """Two."""\n'
    for qualname in ("A", "A.B", "B"):
        source = picture.embed(source, qualname, qualname, f"[*{qualname}]")
    tree = ast.parse(source)
    outer, other = (node for node in tree.body if isinstance(node, ast.ClassDef))
    inner = outer.body[1]
    assert isinstance(inner, ast.ClassDef)
    for node, qualname in ((outer, "A"), (inner, "A.B"), (other, "B")):
        assert f"    [*{qualname}]\n" in (ast.get_docstring(node) or "")
    assert source.count("[*") == 3


@pytest.mark.parametrize("drawn", ['a "', '"""', '""""', "'''", "\\", "a\\", '\\"""', '""\\"'])
@pytest.mark.parametrize("quote", ['"""', "'''", "'"])
def test_no_picture_breaks_out_of_its_docstring(drawn: str, quote: str) -> None:
    changed = picture.embed(f"class Flow(Base):\n    {quote}Sell it.{quote}\n", "Flow", "Flow", drawn)
    assert f"    {drawn}\n" in docstring(changed)
    assert picture.embed(changed, "Flow", "Flow", drawn) == changed


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("x = 1\n", "is defined nowhere"),
        ("class Flow: x = 1\nclass Flow: x = 1\n", "is defined more than once"),
        ('class Flow:\n    r"""Sell it."""\n', "is raw"),
        ('class Flow:\n    """<!-- pgflow:graph:start:Flow --> no end"""\n', "do not match"),
        ('class Flow:\n    """<!-- pgflow:graph:end:Flow --> <!-- pgflow:graph:start:Flow -->"""\n', "do not match"),
        ('class Flow:\n    """Sell\\\n """ """it.\n"""\n)', "does not fit"),
        ('class Flow:\n    """Sell \\ """\n', "without changing the program"),
    ],
)
def test_an_unsafe_change_is_refused(source: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        picture.embed(source, "Flow", "Flow", '"""')
