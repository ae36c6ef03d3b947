"""Group B: what a workflow class can declare, and what is refused when it is defined."""

from __future__ import annotations

import re
from enum import Enum, StrEnum
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Retry, Step, Unique, WaitForEvent, Workflow, route
from pgflow.core.definition.graph import Edge
from pgflow.core.definition.step import Parking
from pgflow.errors import DefinitionError
from pgflow.local import Local
from tests.conformance.conftest import Stack
from tests.conformance.definitions import Input, chain, define, make

A, B, C, D = make("a"), make("b"), make("c"), make("d")
Ch = make("ch", "x", "y")


class Sized(Step):
    """A step with a configuration."""

    events = ("done",)
    size: int

    def execute(self, ctx: Context[Input]) -> Ok:
        return Ok("done", self.size)


class Plain(Step):
    """A step without one."""

    events = ("done",)

    def execute(self, ctx: Context[Input]) -> Ok:
        return Ok("done")


class Elsewhere:
    """A namespace for another class with the same name."""

    class Plain(Plain):
        pass


def refused(expected: str, initial: Any, transitions: Any, **options: Any) -> None:
    """Assert that a definition is refused with a message that starts with its name and matches `expected`."""
    with pytest.raises(DefinitionError, match=rf"^Flow\b.*{expected}"):
        define(initial, transitions, **options)


# -- what is accepted


def choose_b(ctx: Context[Input]) -> Step:
    return B


SOUND: dict[str, tuple[Any, Any, list[str]]] = {
    "linear": (A, {A: {"done": B}, B: {"done": Done}}, ["a", "b"]),
    "branch": (Ch, {Ch: {"x": B, "y": C}, B: {"done": Done}, C: {"done": Done}}, ["ch", "b"]),
    "fan-out": (A, {A: {"done": [B, C]}, B: {"done": D}, C: {"done": D}, D: {"done": Done}}, ["a", "b", "c", "d"]),
    "dynamic": (A, {A: {"done": route(choose_b, B, C)}, B: {"done": Done}, C: {"done": Done}}, ["a", "b"]),
}


@pytest.mark.parametrize("kind", SOUND)
def test_b1_workflows_of_each_kind_define_and_run(stack: Stack, kind: str) -> None:
    """B1: linear, branching, fan-out and dynamic workflows are accepted, and run."""
    initial, transitions, ran = SOUND[kind]
    flow = define(initial, transitions)
    stack.run(flow)
    flow.start("v")
    done = stack.until(flow, "v")
    assert (done.status, sorted(entry.step for entry in done.history)) == ("completed", sorted(ran))


def test_b2_a_target_is_a_step_a_configured_one_or_a_list_of_either() -> None:
    """B2: a target may be a class, a configured step, a list, and a list with configured steps."""
    big = Sized(size=9).named("big")
    flow = define(
        Plain,
        {
            Plain: {"done": Sized(size=1)},
            Sized(size=1): {"done": [A, B]},
            A: {"done": [big, C]},
            **{each: {"done": D} for each in (B, C, big)},
            D: {"done": Done},
        },
    )
    assert [flow.graph.nodes[key].config for key in ("plain", "sized", "big")] == [None, {"size": 1}, {"size": 9}]
    assert flow.graph.targets("sized", "done") == ("a", "b")
    assert flow.graph.targets("a", "done") == ("big", "c")


def test_b3_a_dynamic_transition_declares_its_targets() -> None:
    """B3: a function that chooses must be given with its possible targets; otherwise the definition is refused."""
    refused(r"ch.*x leads nowhere: give at least one target", Ch, {Ch: {"x": route(choose_b), "y": Done}})
    refused(
        r"choose_b is a plain function: decorate it .*write route\(choose_b, …\)", Ch, {Ch: {"x": choose_b, "y": Done}}
    )


@pytest.mark.parametrize("chosen", [D, Sized(size=1), None, [], "b"])
def test_b3_an_undeclared_choice_fails_the_instance(stack: Stack, chosen: Any) -> None:
    """B3: an undeclared choice is an error that is stored, never a silent end."""
    flow = define(A, {A: {"done": route(lambda ctx: chosen, B, C)}, B: {"done": Done}, C: {"done": Done}})
    stack.run(flow)
    flow.start("v")
    failed = stack.until(flow, "v")
    assert failed.error is not None
    assert (failed.status, failed.error["step"], failed.error["type"]) == ("failed", "a", "RouteError")
    assert "Flow: a.done: the route <lambda>" in failed.error["reason"]


DIAMOND = define(Ch, {Ch: {"x": [A, B], "y": route(choose_b, A, B)}, A: {"done": C}, B: {"done": C}, C: {"done": Done}})


def test_b4_a_graph_has_the_predecessors_of_a_step() -> None:
    """B4: `predecessors(step)` are the steps that lead to it over all events; none for a step outside of the graph."""
    graph = DIAMOND.graph
    assert [graph.predecessors(each) for each in (Ch, A, C, Done)] == [set(), {"ch"}, {"a", "b"}, {"c"}]
    assert graph.predecessors("c") == {"a", "b"}
    assert graph.predecessors("nobody") == graph.predecessors(D) == frozenset()


def test_b5_a_graph_lists_its_nodes_and_edges() -> None:
    """B5: the graph lists its nodes and, for each transition, source, event, targets and whether it is dynamic."""
    assert list(DIAMOND.graph.nodes) == ["ch", "a", "b", "c", "done"]
    assert DIAMOND.graph.edges() == (
        Edge("ch", "x", ("a", "b"), dynamic=False),
        Edge("ch", "y", ("a", "b"), dynamic=True),
        Edge("a", "done", ("c",)),
        Edge("b", "done", ("c",)),
        Edge("c", "done", ("done",)),
    )


# -- what is refused


def test_b6_a_workflow_has_an_initial_step() -> None:
    """B6: a workflow without an initial step is refused."""
    refused("has no initial step: add `initial = FirstStep`", ..., {A: {"done": Done}})


@pytest.mark.parametrize(
    ("initial", "expected"),
    [
        ([A, B], "initial must be one step, got "),
        (route(choose_b, A, B), "initial must be one step, got "),
        ("a", "initial: 'a' is not a step: give a Step class"),
        (choose_b, "initial: choose_b is a plain function: decorate it with @step"),
        (Sized, r"initial: Sized needs a configuration \(size\): write Sized\(size=…\)"),
        (Done, "initial is Done, so nothing would ever run: begin with another step"),
    ],
)
def test_b7_the_initial_step_is_a_step(initial: Any, expected: str) -> None:
    """B7: only a single step can be the initial one. It is a value, so there is no rule about literals."""
    refused(expected, initial, {A: {"done": Done}})


def test_b7_the_initial_step_may_be_configured(stack: Stack) -> None:
    """B7: a configured step can be the initial one, whatever expression creates it."""
    flow = define([Sized(size=7)][0], {Sized(size=7): {"done": Done}})
    stack.run(flow)
    flow.start("v")
    assert stack.until(flow, "v").steps == {"sized": 7}


@pytest.mark.parametrize(
    ("transitions", "loop"),
    [
        ({A: {"done": A}}, "a → a"),
        ({A: {"done": B}, B: {"done": C}, C: {"done": B}}, "b → c → b"),
        ({A: {"done": route(choose_b, A, B)}, B: {"done": Done}}, "a → a"),
    ],
)
def test_b8_a_cycle_is_refused(transitions: Any, loop: str) -> None:
    """B8: a cycle is refused, also a step that leads to itself; the message shows the cycle and the alternatives."""
    refused(rf"cycle in the graph: {loop}\. A step runs once: to repeat it use Retry, Snooze", A, transitions)


def test_b9_an_unreachable_step_is_refused_by_name() -> None:
    """B9: unreachable steps are refused by name."""
    refused(
        "no path from a leads to b, c, which is unreachable: add a transition to it, or remove it",
        A,
        {A: {"done": Done}, B: {"done": C}, C: {"done": Done}},
    )


def test_b10_every_path_ends_in_done() -> None:
    """B10: a path that ends at another step than Done is refused, with the step."""
    refused(
        r"the path ends at Plain \('plain'\), which is not Done: add transitions", Ch, {Ch: {"x": Plain, "y": Done}}
    )


@pytest.mark.parametrize(
    ("targets", "more"), [([B, C], {B: {"done": Done}, C: {"done": Done}}), ([B, Done], {B: {"done": Done}})]
)
def test_b11_a_fan_out_converges(targets: Any, more: Any) -> None:
    """B11: branches of a fan-out that never converge before Done are refused."""
    refused("a.done fans out to b, .* must converge before Done: lead them", A, {A: {"done": targets}, **more})


def test_b12_two_steps_with_one_key_are_refused_by_name() -> None:
    """B12: two steps with the same key are refused, both by name; `.named` is the fix."""
    refused(
        r"test_b_definition\.Plain\(\) and \S+Elsewhere\.Plain\(\) share the key 'plain': give one .*\.named",
        Plain,
        {Plain: {"done": Elsewhere.Plain}, Elsewhere.Plain: {"done": Done}},
    )
    chain(Plain(), Elsewhere.Plain().named("other"))
    refused("has the key 'done', which is that of Done", make("done"), {make("done"): {"done": Done}})


def test_b13_each_declared_event_has_a_transition() -> None:
    """B13: a declared event without a transition is refused."""
    refused("'ch' declares the event 'y', which leads nowhere: add {'y': target}", Ch, {Ch: {"x": Done}})


def test_b14_each_transition_is_for_a_declared_event() -> None:
    """B14: a transition for an event that its step does not declare is refused."""
    refused(
        r"'a' does not declare the event 'zzz': remove its transition, or add it to the step's events \('done'\)",
        A,
        {A: {"done": Done, "zzz": Done}},
    )


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ("done", 'has events = .done.: write a tuple of names, as in events = \\("done",\\)'),
        ({"done": 1}, "has events = {'done': 1}: write a tuple"),
        ((1,), "declares the event 1: the name of an event must be a string of 1 to 100 characters"),
        ((None,), "declares the event None"),
        (("",), "declares the event ''"),
        (("two words",), "declares the event 'two words'"),
        (("done\n",), "declares the event 'done"),
        (("x" * 101,), "declares the event 'xxx"),
        (("done", "done"), "declares an event twice in .*: name each once"),
    ],
)
def test_b15_events_are_names(events: Any, expected: str) -> None:
    """B15: events must be a tuple of distinct names."""
    kind: Any = type("Odd", (Plain,), {"events": events, "__module__": __name__})
    refused(f"Odd {expected}", kind, {kind: {"done": Done}})


class Outcome(StrEnum):
    GOOD = "good"
    BAD = "bad"


class Graded(Enum):
    GOOD = "good"
    BAD = "bad"


@pytest.mark.parametrize("kind", [Outcome, Graded])
def test_b15_events_may_be_members_of_an_enum(stack: Stack, kind: Any) -> None:
    """B15: members of an enum of strings are accepted wherever an event is given."""

    class Asking(Step):
        events = (kind.GOOD, kind.BAD)

        def execute(self, ctx: Context[Input]) -> Any:
            return ctx.initial and Ok(kind[ctx.initial["event"]])

        def parking(self) -> Parking:
            return Parking({kind.BAD: kind.GOOD})

    wait = WaitForEvent(kind.BAD)
    flow = define(Asking, {Asking: {kind.GOOD: wait, kind.BAD: Done}, wait: {"received": Done}})
    assert [type(event) for event in (*flow.graph.nodes["asking"].choices, *Asking().emits())] == [str] * 4
    assert (Asking().signals(), wait.signals()) == (("bad",), ("bad",))
    assert [type(name) for name in (*Asking().signals(), *Asking().parking().awaits.values())] == [str] * 2
    stack.run(flow)
    for event in ("GOOD", "BAD"):
        flow.start(event, {"event": event})
    assert stack.until(flow, "BAD").history[0].event == "bad"
    (waits,) = stack.until(flow, "GOOD", "waiting").waiting_for
    assert waits.events == ("bad",)
    flow.resume("GOOD", kind.BAD)
    assert [entry.event for entry in stack.until(flow, "GOOD").history] == ["good", "received"]


def test_b15_two_names_for_one_event_are_refused() -> None:
    """B15: transitions for a member of an enum and for its value are refused as duplicates."""
    graded = make("graded", "good", "bad")
    refused("'graded' has two transitions for 'good': keep one", graded, {graded: {"good": A, Graded.GOOD: B}})


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("b", "'b' is not a step: give a Step class, a configured step or a function made with @step"),
        (None, "leads to None: give a target, Done to end the workflow"),
        (Unique, "is not a step"),
        (Workflow, "is not a step"),
        (3, "3 is not a step"),
        ([], "leads nowhere"),
        ([B, "c"], "'c' is not a step"),
        ([B, [C]], "routes and lists cannot be nested"),
        ([B, B], "leads to .*'b' twice: name it once"),
        (Sized, r"Sized needs a configuration \(size\)"),
    ],
)
def test_b16_a_target_is_a_step(target: Any, expected: str) -> None:
    """B16: a target that is not a step is refused, with source and event."""
    refused(f"'a'.done.*{expected}", A, {A: {"done": target}, B: {"done": Done}})


def test_b16_a_source_is_a_step() -> None:
    """B16: so is an invalid source, Done as a source, and a source that appears twice."""
    refused("a source in transitions: 'a' is not a step", A, {"a": {"done": Done}})
    refused("Done ends the workflow: remove its entry", A, {A: {"done": Done}, Done: {"done": A}})
    refused("Plain is twice in transitions", Plain, {Plain: {"done": Done}, Plain(): {"done": Done}})
    refused("leads to 3: write {event: target}", A, {A: 3})
    refused("has no transitions: add `transitions = ", A, ...)


@pytest.mark.parametrize("event", [1, None, ("done",), Done])
def test_b17_the_name_of_an_event_is_a_string(event: Any) -> None:
    """B17: a transition whose event is not a name is refused."""
    refused("'a' has a transition for .*: the name of an event must be a string", A, {A: {event: Done}})


# -- options


def option_refused(expected: str, **options: Any) -> None:
    refused(expected, A, {A: {"done": Done}}, **options)


def test_b18_tags_are_a_list_of_strings() -> None:
    """B18: tags are a list of strings, none by default; anything else is refused."""
    assert chain(A).tags == ()
    assert chain(A, tags=["a", "b", "a"]).tags == ("a", "b")
    for wrong in ("x", ["x", 1], 3, [None], [""]):
        option_refused(r'tags must be a list of strings, got .*: write tags=\["orders"\]', tags=wrong)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ([("a", 1)], "metadata must be a dict"),
        ({1: 2}, "metadata has the key 1, which JSON cannot represent: use a string"),
        ({"a": {"b": [{2: 3}]}}, r"metadata\['a'\]\['b'\]\[0\] has the key 2"),
        ({"a": {None: 3}}, r"metadata\['a'\] has the key None"),
        ({"n": object}, r"metadata\['n'\] is <class 'object'>, which JSON cannot represent: use strings"),
        ({"n": [(1, 2)]}, r"metadata\['n'\]\[0\] is \(1, 2\)"),
        ({"n": {"x": {1, 2}}}, r"metadata\['n'\]\['x'\] is \{1, 2\}"),
        ({"n": float("nan")}, r"metadata\.n is nan"),
        ({"n": "\x00"}, r"metadata\.n holds a NUL character"),
        ({"n": "x" * 70_000}, "metadata is 70,008 bytes of JSON, more than the 65,536 allowed"),
    ],
)
def test_b19_metadata_is_json_at_every_level(metadata: Any, expected: str) -> None:
    """B19: metadata is a dict with string keys and JSON values, at every level."""
    option_refused(expected, metadata=metadata)


def test_b19_recursive_metadata_is_refused() -> None:
    """B19: so is metadata that contains itself."""
    circle: dict[str, Any] = {}
    circle["again"] = [circle]
    option_refused(r"metadata\['again'\].* is more than 64 levels deep", metadata=circle)


def test_b19_metadata_stays_as_it_was_declared(stack: Stack) -> None:
    """B19: each instance has the metadata as declared, whatever happens to the original dict afterwards."""
    given: dict[str, Any] = {"team": {"name": "x", "size": 2, "on": True, "pay": 1.5, "none": None, "list": [1]}}
    before = {"team": dict(given["team"])}
    flow = chain(A, metadata=given)
    given["team"]["name"] = given["more"] = "changed"
    assert (flow.metadata, chain(A).metadata) == (before, {})
    stack.run(flow)
    flow.start("v")
    assert stack.until(flow, "v").metadata == before


def test_b20_a_business_key_is_mandatory() -> None:
    """B20: a workflow without `unique` is refused, with the option to add."""
    option_refused(r'has no business key: add one, as in class Flow\(.*unique=Unique\("orderid"\)\)', unique=None)
    option_refused(r"unique is 'orderid': write unique=Unique", unique="orderid")


@pytest.mark.parametrize("key", ["orderid", "a", "order_id2", "x" * 63])
def test_b21_a_key_is_a_name_in_lower_case(key: str) -> None:
    """B21: a key is a lower-case letter followed by up to 62 letters, digits and underscores."""
    assert Unique(key).key == key


@pytest.mark.parametrize(
    "key", ["", "Order", "order-id", "1a", "_a", "a b", "abc\n", "\nabc", "ä", "x" * 64, 123, None]
)
def test_b21_another_key_is_refused(key: Any) -> None:
    """B21: anything else is refused, including a trailing newline."""
    with pytest.raises(DefinitionError, match=r"^the unique key .*(use up to 63 lower-case|must be a string)"):
        Unique(key)
    if isinstance(key, str):
        with pytest.raises(DefinitionError, match=re.escape(repr(key))):
            Unique(key)


def test_b22_a_scope_is_one_of_four() -> None:
    """B22: a scope is "workflow" (the default), "version", "global" or "none"."""
    assert Unique("k").scope == "workflow"
    for scope in ("workflow", "version", "global", "none"):
        given: Any = scope
        assert Unique("k", scope=given).scope == scope
    for wrong in ("invalid", "Global", None, 3):
        given = wrong
        with pytest.raises(DefinitionError, match="unknown: use one of 'workflow', 'version', 'global', 'none'"):
            Unique("k", scope=given)


def test_b23_another_option_of_unique_is_refused() -> None:
    """B23: `Unique` has these two options; Python refuses another."""
    wrong: Any = {"foo": 1}
    with pytest.raises(TypeError, match="foo"):
        Unique("k", **wrong)
    with pytest.raises(TypeError, match="key"):
        Unique(**{})


def test_b24_an_unknown_option_of_a_workflow_is_refused() -> None:
    """B24: an unknown option is refused, with the closest option or all of them."""
    option_refused("there is no option 'verison'; did you mean 'version'", verison=2)
    option_refused(
        "there is no option 'zzz'; the options are app, current, deadline, metadata, name, on_cancel,", zzz=2
    )


def test_b25_a_workflow_exposes_what_it_declares() -> None:
    """B25: a class has its tags, metadata, key and version, whether it is versioned, and the app of its calls."""
    flow = chain(A, tags=["t"], metadata={"m": 1}, unique=Unique("key", "global"), version=3, queue="q", priority=2)
    assert (flow.name, flow.tags, flow.metadata, flow.unique) == ("Flow", ("t",), {"m": 1}, Unique("key", "global"))
    assert (flow.version, flow.versions, flow.is_versioned) == (3, {3: flow}, False)
    assert (flow.queue, flow.priority, flow.retry_policy) == ("q", 2, None)
    assert chain(A, retry=Retry(max_attempts=2)).retry_policy == Retry(max_attempts=2)
    with Local() as app, Local(workflows=[flow]) as other:
        assert (chain(A, app=app).bound(), flow.bound()) == (app, other)


# The rules in their order: each entry breaks one rule more than the previous one.
ORDER: list[tuple[str, dict[str, Any]]] = [
    ("tags must be a list of strings", {"tags": "x"}),
    ("metadata must be a dict", {"metadata": "x"}),
    ("has no business key", {"unique": None}),
    ("version must be a whole number from 1", {"version": 0}),
    ("has no initial step", {"initial": None}),
]
SHAPES: list[tuple[str, Any, Any]] = [
    ("source in transitions", A, {"a": {"done": A}, A: {"done": A, "zzz": A}}),
    ("leads to None", A, {A: {"done": None, "zzz": A}, B: {"done": B}}),
    ("cycle", A, {A: {"done": A, "zzz": A}, B: {"done": Done}}),
    ("unreachable", A, {A: {"zzz": B}, B: {"done": D}, C: {"done": Done}}),
    ("the path ends at", A, {A: {"zzz": [B, C]}, B: {"done": Done}}),
    ("must converge", A, {A: {"zzz": [B, C]}, B: {"done": Done}, C: {"done": Done}}),
    ("does not declare the event 'zzz'", A, {A: {"zzz": B}, B: {"done": Done}}),
]


@pytest.mark.parametrize("number", range(len(ORDER)))
def test_b26_options_are_checked_in_their_order(number: int) -> None:
    """B26: of several wrong options the first in the order of the rules is reported first, and each once."""
    broken = {key: value for _, wrong in ORDER[number:] for key, value in wrong.items()}
    initial = broken.pop("initial")
    _reported_in_order([expected for expected, _ in ORDER[number:]], initial, {A: {"done": Done}}, **broken)


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_b26_transitions_are_checked_in_their_order(number: int) -> None:
    """B26: the same for transitions; each message has workflow and step."""
    expected, initial, transitions = SHAPES[number]
    message = _reported_in_order([expected], initial, transitions)
    assert re.search(r"\b[a-d]\b", message)


def _reported_in_order(expected: list[str], initial: Any, transitions: Any, **options: Any) -> str:
    with pytest.raises(DefinitionError) as caught:
        define(initial, transitions, **options)
    message = str(caught.value)
    assert message.startswith("Flow")
    places = [message.find(each) for each in expected]
    assert places[0] >= 0
    assert [place for place in places if place >= 0] == sorted(place for place in places if place >= 0)
    assert max(message.count(each) for each in expected) == 1
    return message


@pytest.mark.parametrize(("event", "branch"), [("x", "b"), ("y", "c")])
def test_b27_exclusive_branches_that_converge_are_accepted_and_run(stack: Stack, event: str, branch: str) -> None:
    """B27: exclusive branches that converge are accepted, and their join runs once."""
    flow = define(Ch, {Ch: {"x": B, "y": C}, B: {"done": D}, C: {"done": D}, D: {"done": Done}})
    stack.run(flow)
    flow.start("v", {"ch": event})
    done = stack.until(flow, "v")
    assert (done.status, [entry.step for entry in done.history]) == ("completed", ["ch", branch, "d"])
