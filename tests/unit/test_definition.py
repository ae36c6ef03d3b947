"""A workflow that cannot run is refused when its class is defined, with workflow, step and fix in one message."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum, StrEnum
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Retry, Step, Unique, Wait, WaitForEvent, Workflow, route, step
from pgflow.core.definition.step import Parking
from pgflow.errors import DefinitionError


def make(name: str, *events: str, **options: Any) -> Step:
    @step(events=events or ("done",), name=name, **options)
    def stub(ctx: Context[Any]) -> Ok:
        return Ok(events[0])

    return stub


A, B, C, D = make("a"), make("b"), make("c"), make("d")
AB = make("ab", "x", "y")


class Sized(Step):
    events = ("done",)
    size: int

    def execute(self, ctx: Context[Any]) -> Ok:
        return Ok("done")


def define(initial: Any, transitions: Any, **options: Any) -> type[Workflow[Any]]:
    options = {"unique": Unique("k"), **options}
    namespace = {key: value for key, value in (("initial", initial), ("transitions", transitions)) if value is not ...}
    flow: type[Workflow[Any]] = type("Flow", (Workflow,), namespace, **options)
    return flow


def attribute(**attributes: Any) -> Step:
    """Return a step that is valid except for the given attributes."""
    sound = {"events": ("done",), "execute": lambda self, ctx: Ok("done"), "__module__": __name__}
    metaclass: Any = type(Step)
    made: Step = metaclass("Odd", (Step,), {**sound, **attributes})()
    return made


class Twice:
    """A namespace for a second class with the same name."""

    class Sized(Step):
        events = ("done",)

        def execute(self, ctx: Context[Any]) -> Ok:
            return Ok("done")


class Plain(Enum):
    DONE = "done"


LOOP: list[Any] = []
LOOP.append(LOOP)

OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "tags is not a list": ({"tags": "x"}, r"Flow: tags must be a list of strings, got 'x'"),
    "a tag is not a string": ({"tags": ["x", 1]}, r"Flow: tags must be a list of strings"),
    "metadata is not a dict": ({"metadata": [("a", 1)]}, r"Flow: metadata must be a dict"),
    "metadata has a key that is not a string": (
        {"metadata": {1: 2}},
        r"Flow: metadata has the key 1, which JSON cannot",
    ),
    "metadata has such a key deep down": ({"metadata": {"a": [{2: 3}]}}, r"Flow: metadata\['a'\]\[0\] has the key 2"),
    "metadata is not JSON": ({"metadata": {"n": object}}, r"Flow: metadata\['n'\] is <class 'object'>"),
    "metadata is too deep": (
        {"metadata": {"a": LOOP}},
        r"Flow: metadata\['a'\]\[0\].* is more than 64 levels deep: flatten",
    ),
    "metadata is infinite": ({"metadata": {"n": float("inf")}}, r"Flow: metadata\.n is inf"),
    "unique is missing": ({"unique": None}, r"Flow has no business key: add one, as in .*unique=Unique"),
    "unique is a string": ({"unique": "orderid"}, r"Flow: unique is 'orderid': write unique=Unique"),
    "version is zero": ({"version": 0}, r"Flow: version must be a whole number from 1, got 0"),
    "version is a string": ({"version": "1"}, r"Flow: version must be a whole number from 1, got '1'"),
    "version is a bool": ({"version": True}, r"Flow: version must be a whole number from 1"),
    "retry is a number": ({"retry": 3}, r"Flow: retry is 3: write a policy"),
    "queue has a space": ({"queue": "a b"}, r"Flow: queue is 'a b': use up to 63 letters"),
    "orchestration_queue has a space": ({"orchestration_queue": "a b"}, r"Flow: orchestration_queue is 'a b': use"),
    "priority is too large": ({"priority": 99_999}, r"Flow: priority must be a whole number from -32768"),
    "name has a space": ({"name": "a b"}, r"Flow is named 'a b'"),
    "an option is misspelt": ({"verison": 2}, r"Flow: there is no option 'verison'; did you mean 'version'\?"),
    "an option is unknown": (
        {"zzz": 2},
        r"Flow: there is no option 'zzz'; the options are app, current, deadline, metadata, name, on_cancel,",
    ),
}


@pytest.mark.parametrize("problem", OPTIONS)
def test_a_wrong_option_is_refused(problem: str) -> None:
    options, expected = OPTIONS[problem]
    with pytest.raises(DefinitionError, match=expected):
        define(A, {A: {"done": Done}}, **options)


def plain(ctx: Context[Any]) -> Ok:
    return Ok("done")


RULES: dict[str, tuple[Any, Any, str]] = {
    "no initial step": (..., {A: {"done": Done}}, r"^Flow has no initial step: add `initial = "),
    "initial is a list": ([A, B], {A: {"done": Done}}, r"^Flow: initial must be one step, got \["),
    "initial is a string": ("a", {A: {"done": Done}}, r"^Flow: initial: 'a' is not a step"),
    "initial is Done": (Done, {A: {"done": Done}}, r"^Flow: initial is Done, so nothing would ever run"),
    "no transitions": (A, ..., r"^Flow has no transitions: add"),
    "transitions are empty": (A, {}, r"^Flow has no transitions"),
    "a source is a string": (A, {"a": {"done": Done}}, r"^Flow: a source in transitions: 'a' is not a step"),
    "Done is a source": (A, {A: {"done": Done}, Done: {"done": A}}, r"^Flow: Done ends the workflow: remove"),
    "a source stands twice": (Twice.Sized, {Twice.Sized: {"done": Done}, Twice.Sized(): {}}, r"Sized is twice in"),
    "a source has no events": (A, {A: Done}, r"leads to <class .*Done'>: write \{event: target\}"),
    "an event is a number": (A, {A: {1: Done}}, r"has a transition for 1: the name of an event must be a string"),
    "an event stands twice": (
        A,
        {A: {"done": Done, Plain.DONE: B}, B: {"done": Done}},
        r"^Flow: stub 'a' has two transitions for 'done': keep one of them",
    ),
    "a target is None": (A, {A: {"done": None}}, r"^Flow: stub 'a'\.done leads to None: give a target"),
    "a target list is empty": (A, {A: {"done": []}}, r"^Flow: stub 'a'\.done leads nowhere: give at least one"),
    "a route has no targets": (A, {A: {"done": route(lambda ctx: B)}}, r"\.done leads nowhere"),
    "a target stands twice": (A, {A: {"done": [B, B]}, B: {"done": Done}}, r"leads to stub 'b' twice: name it once"),
    "a list in a list": (A, {A: {"done": [[B]]}}, r"routes and lists cannot be nested"),
    "a target is a string": (A, {A: {"done": "b"}}, r"^Flow: stub 'a'\.done: 'b' is not a step: give a Step class"),
    "a target is a function": (
        A,
        {A: {"done": plain}},
        r"^Flow: .*: plain is a plain function: decorate it with @step",
    ),
    "a target is another class": (A, {A: {"done": Unique}}, r"is not a step"),
    "a target lacks its configuration": (
        A,
        {A: {"done": Sized}},
        r"Sized needs a configuration \(size\): write Sized\(siz",
    ),
    "a cycle": (
        A,
        {A: {"done": B}, B: {"done": C}, C: {"done": B}},
        r"^Flow: cycle in the graph: b → c → b\. A step runs once: to repeat it use Retry",
    ),
    "a loop to itself": (A, {A: {"done": A}}, r"cycle in the graph: a → a"),
    "an unreachable step": (
        A,
        {A: {"done": Done}, B: {"done": C}, C: {"done": Done}},
        r"^Flow: no path from a leads to b, c, which is unreachable: add a transition",
    ),
    "a path that ends elsewhere": (
        A,
        {A: {"done": B}},
        r"^Flow: the path ends at stub \('b'\), which is not Done: add",
    ),
    "a fan-out to Done and another": (A, {A: {"done": [B, Done]}, B: {"done": Done}}, r"must converge before Done"),
    "a fan-out that does not converge": (
        A,
        {A: {"done": [B, C]}, B: {"done": Done}, C: {"done": Done}},
        r"^Flow: a\.done fans out to b, c, whose branches must converge before Done: lead them to a common step",
    ),
    "two configurations share a key": (
        A,
        {
            A: {"done": Wait(minutes=1)},
            Wait(minutes=1): {"timeout": Wait(minutes=2)},
            Wait(minutes=2): {"timeout": Done},
        },
        r"Wait\(duration=.*60\)\) and .*Wait\(duration=.*120\)\) share the key 'wait': give one .* \.named\(",
    ),
    "two classes share a key": (
        Sized(size=1),
        {Sized(size=1): {"done": Twice.Sized}, Twice.Sized: {"done": Done}},
        r"test_definition\.Sized\(size=1\) and \S+test_definition\.Twice\.Sized\(\) share the key 'sized'",
    ),
    "the key of Done is taken": (make("done"), {make("done"): {"done": Done}}, r"has the key 'done', which is that of"),
    "an undeclared event": (
        A,
        {A: {"done": Done, "other": Done}},
        r"^Flow: stub 'a' does not declare the event 'other': remove its transition, or add it to .* \('done'\)",
    ),
    "an event without a transition": (
        AB,
        {AB: {"x": Done}},
        r"^Flow: stub 'ab' declares the event 'y', which leads nowhere: add \{'y': target\} to its transitions",
    ),
    "a timeout without a transition": (
        WaitForEvent(timeout=timedelta(1)),
        {WaitForEvent(timeout=timedelta(1)): {"received": Done}},
        r"WaitForEvent declares the event 'timeout', which leads nowhere",
    ),
    "a transition without a timeout": (
        WaitForEvent(),
        {WaitForEvent(): {"received": Done, "timeout": Done}},
        r"WaitForEvent does not declare the event 'timeout'",
    ),
}


@pytest.mark.parametrize("problem", RULES)
def test_a_definition_that_cannot_run_is_refused(problem: str) -> None:
    initial, transitions, expected = RULES[problem]
    with pytest.raises(DefinitionError, match=expected):
        define(initial, transitions)


class Naive(Step):
    """A step whose configuration JSON does not preserve."""

    events = ("done",)
    size: float

    def execute(self, ctx: Context[Any]) -> Ok:
        return Ok("done")


def two_arguments(self: Step, instance: Any, ctx: Any) -> Ok:
    return Ok("done")


def generator(self: Step, ctx: Any) -> Any:
    yield Ok("done")


ODD: dict[str, tuple[Step, str]] = {
    "no events": (attribute(events=()), r"^Flow: Odd declares no events: add events = "),
    "events are one string": (attribute(events="done"), r"^Flow: Odd has events = 'done': write a tuple"),
    "an event is a number": (
        attribute(events=(1,)),
        r"^Flow: Odd declares the event 1: the name of an event must be a string",
    ),
    "an event has a space": (attribute(events=("a b",)), r"^Flow: Odd declares the event 'a b'"),
    "an event stands twice": (attribute(events=("done", "done")), r"^Flow: Odd declares an event twice"),
    "no execute": (
        attribute(execute=Step.execute),
        r"^Flow: Odd has no execute method: add `def execute\(self, ctx\)`",
    ),
    "execute is a generator": (attribute(execute=generator), r"^Flow: Odd: execute is a generator"),
    "execute takes more": (attribute(execute=two_arguments), r"^Flow: Odd: execute gets the context and nothing else"),
    "retry is a number": (attribute(retry=3), r"^Flow: Odd has retry = 3: write a policy"),
    "queue has a space": (attribute(queue="a b"), r"^Flow: Odd has queue = 'a b'"),
    "transactional is a string": (attribute(transactional="yes"), r"^Flow: Odd has transactional = 'yes'"),
    "max_runtime is a number": (attribute(max_runtime=30), r"^Flow: Odd has max_runtime = 30: write a timedelta"),
    "max_runtime is nothing": (attribute(max_runtime=timedelta(0)), r"^Flow: Odd has max_runtime = datetime"),
    "the key has a hyphen": (attribute(step_key="a-b"), r"^Flow: Odd 'a-b' has the key 'a-b': set step_key"),
    "the configuration is not JSON": (Naive(size=float("nan")), r"^Flow: Naive: the configuration\.size is nan"),
    "a signal becomes no event": (
        attribute(parking=lambda self: Parking({"go": "gone"})),
        r"^Flow: Odd: the signal 'go' becomes 'gone', which it does not declare",
    ),
    "a timeout becomes no event": (
        attribute(parking=lambda self: Parking({}, timedelta(1), "late")),
        r"^Flow: Odd: its timeout becomes 'late', which it does not declare",
    ),
    "a delay without an event": (
        attribute(parking=lambda self: Parking({}, timedelta(1))),
        r"^Flow: Odd: a timeout needs both a delay",
    ),
    "a delay of thousands of years": (
        attribute(parking=lambda self: Parking({}, timedelta.max, "done")),
        r"^Flow: Odd: a timeout needs both a delay, from zero to 100 years, and an event",
    ),
}


@pytest.mark.parametrize("problem", ODD)
def test_a_step_that_cannot_run_is_refused(problem: str) -> None:
    odd, expected = ODD[problem]
    with pytest.raises(DefinitionError, match=expected):
        define(odd, {odd: {"done": Done}})


def test_the_first_broken_rule_is_reported() -> None:
    with pytest.raises(DefinitionError, match="tags"):
        define(..., ..., tags="x", unique=None)
    with pytest.raises(DefinitionError, match="no initial step"):
        define(..., {A: {"zzz": A}})
    with pytest.raises(DefinitionError, match="cycle"):
        define(A, {A: {"zzz": A}})


def test_linear_branching_parallel_and_dynamic_workflows_are_accepted() -> None:
    assert define(A, {A: {"done": Done}}).graph.nodes["a"].sole_successor == "done"
    define(AB, {AB: {"x": B, "y": C}, B: {"done": D}, C: {"done": D}, D: {"done": Done}})
    define(A, {A: {"done": [B, C]}, B: {"done": D}, C: {"done": D}, D: {"done": Done}})
    define(A, {A: {"done": route(lambda ctx: B, B, C)}, B: {"done": Done}, C: {"done": Done}})


def test_a_branch_may_leave_a_fan_out() -> None:
    define(A, {A: {"done": [B, AB]}, B: {"done": D}, AB: {"x": D, "y": C}, C: {"done": Done}, D: {"done": Done}})


def test_the_same_step_may_be_used_twice_under_two_keys() -> None:
    first, second = Wait(minutes=1).named("first"), Wait(minutes=1).named("second")
    flow = define(first, {first: {"timeout": second}, second: {"timeout": Done}})
    assert list(flow.graph.nodes) == ["first", "second", "done"]


def test_events_may_be_members_of_a_string_enum() -> None:
    class Outcome(StrEnum):
        GOOD = "good"

    graded = attribute(events=(Outcome.GOOD,))
    flow = define(graded, {graded: {Outcome.GOOD: Done}})
    assert flow.graph.targets("odd", "good") == ("done",)
    assert [type(event) for event in flow.graph.nodes["odd"].choices] == [str]


def test_awaited_signals_may_be_members_of_an_enum() -> None:
    parking = Parking({Plain.DONE: Plain.DONE}, timedelta(1), Plain.DONE)  # type: ignore[dict-item,arg-type] # not typed so
    assert parking == Parking({"done": "done"}, timedelta(1), "done")


def test_metadata_stays_as_it_was_declared() -> None:
    given = {"team": {"name": "x"}}
    flow = define(A, {A: {"done": Done}}, metadata=given)
    given["team"]["name"] = "changed"
    assert flow.metadata == flow.graph.metadata == {"team": {"name": "x"}}


def test_the_defaults_of_a_workflow_reach_its_steps() -> None:
    quick = make("quick", "done", queue="fast", retry=Retry(max_attempts=9))
    flow = define(A, {A: {"done": quick}, quick: {"done": Done}}, queue="slow", retry=Retry(max_attempts=2))
    nodes = flow.graph.nodes
    assert [(nodes[key].queue, nodes[key].retry.max_attempts) for key in ("a", "quick")] == [("slow", 2), ("fast", 9)]


def test_a_long_chain_is_accepted() -> None:
    link = attribute()
    chain = [link.named(f"s{number}") for number in range(1000)]
    flow = define(chain[0], {each: {"done": after} for each, after in zip(chain, [*chain[1:], Done], strict=True)})
    assert len(flow.graph.nodes) == 1001
