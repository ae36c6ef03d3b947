"""A workflow class exposes its declaration, validates its input, and passes its calls to its app."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, cast
from weakref import WeakSet

import pytest
from pydantic import BaseModel, ConfigDict, Field

from pgflow import Context, Done, Ok, Retry, Started, Step, Unique, Wait, Workflow, route, step
from pgflow.client import apps
from pgflow.core.definition.graph import Edge
from pgflow.core.definition.retry import resolve
from pgflow.core.values.absent import ABSENT
from pgflow.errors import (
    DefinitionError,
    InvalidInput,
    InvalidPayload,
    InvalidValue,
    NotBound,
    RouteError,
    UndeclaredEvent,
    UnknownStep,
)


class Order(BaseModel):
    model_config = ConfigDict(strict=True)
    item_count: int = Field(alias="itemCount")
    at: datetime | None = None


@step(events=("big", "small"))
def triage(ctx: Context[Any]) -> Ok:
    return Ok("big")


@step(retry=Retry(max_attempts=8), queue="slow")
def fast(ctx: Context[Any]) -> Ok:
    return Ok("done")


class Standard(Step):
    events = ("done",)
    days: int

    def execute(self, ctx: Context[Any]) -> Ok:
        return Ok("done")


def by_steps(ctx: Context[Any]) -> Any:
    return ctx.steps["choice"]


class Flow(Workflow[Order], unique=Unique("orderid"), tags=["a", "b", "a"], metadata={"team": "x"}, priority=2):
    initial = triage
    transitions = {
        triage: {"big": route(by_steps, fast, Standard(days=3)), "small": Standard(days=3)},
        fast: {"done": Done},
        Standard(days=3): {"done": Done},
    }


def test_a_workflow_exposes_its_options() -> None:
    assert (Flow.name, Flow.version, Flow.tags, Flow.metadata) == ("Flow", 1, ("a", "b"), {"team": "x"})
    assert (Flow.unique, Flow.queue, Flow.priority, Flow.retry_policy) == (Unique("orderid"), "default", 2, None)
    assert (Flow.is_versioned, Flow.input_type) == (False, Order)


def test_a_workflow_has_one_version_unless_it_is_versioned() -> None:
    assert Flow.resolve_version() == Flow.resolve_version(1) == (1, Flow)
    with pytest.raises(InvalidValue, match="Flow is not a versioned workflow; it only supports version 1, not 2"):
        Flow.resolve_version(2)


def test_the_graph_has_its_edges_and_predecessors() -> None:
    assert Flow.graph.edges() == (
        Edge("triage", "big", ("fast", "standard"), dynamic=True),
        Edge("triage", "small", ("standard",)),
        Edge("fast", "done", ("done",)),
        Edge("standard", "done", ("done",)),
    )
    assert Flow.graph.predecessors(Done) == Flow.graph.predecessors("done") == {"fast", "standard"}
    assert Flow.graph.predecessors(triage) == Flow.graph.predecessors("nobody") == frozenset()


def test_the_spec_is_the_stored_form_of_the_graph() -> None:
    assert Flow.graph.spec() == {
        "workflow": "Flow",
        "version": 1,
        "initial": "triage",
        "priority": 2,
        "orchestration_queue": None,
        "unique": {"key": "orderid", "scope": "workflow"},
        "tags": ["a", "b"],
        "metadata": {"team": "x"},
        "steps": {
            "triage": _entry("triage", ["big", "small"]),
            "fast": _entry("fast", ["done"], queue="slow", max_attempts=8),
            "standard": _entry("Standard", ["done"], config={"days": 3}),
            "done": _entry("Done", ["done"], signals=[]),
        },
        "edges": [
            {"from": "triage", "event": "big", "targets": ["fast", "standard"], "dynamic": True},
            {"from": "triage", "event": "small", "targets": ["standard"], "dynamic": False},
            {"from": "fast", "event": "done", "targets": ["done"], "dynamic": False},
            {"from": "standard", "event": "done", "targets": ["done"], "dynamic": False},
        ],
    }


def _entry(name: str, events: list[str], **more: Any) -> dict[str, Any]:
    plain = {"name": name, "events": events, "signals": events, "config": None, "queue": "default", "max_attempts": 5}
    return {**plain, **more}


def test_the_digest_changes_only_with_the_graph() -> None:
    class Same(Workflow[Any], unique=Unique("other", scope="none"), version=7, queue="x", retry=Retry(max_attempts=1)):
        initial = triage
        transitions = {
            Standard(days=4): {"done": Done},
            triage: {"small": Standard(days=4), "big": route(by_steps, Standard(days=4), fast)},
            fast: {"done": Done},
        }

    class Other(Workflow[Any], unique=Unique("orderid")):
        initial = triage
        transitions = {
            triage: {"big": [fast, Standard(days=3)], "small": Standard(days=3)},
            fast: {"done": Standard(days=3)},
            Standard(days=3): {"done": Done},
        }

    assert Same.graph.digest() == Flow.graph.digest()
    assert Other.graph.digest() != Flow.graph.digest()


def test_the_most_specific_retry_policy_applies() -> None:
    class Patient(Workflow[Any], unique=Unique("k"), retry=Retry(max_attempts=99)):
        initial = fast
        transitions = {fast: {"done": triage}, triage: {"big": Done, "small": Done}}

    assert [resolve(each, Patient).max_attempts for each in (fast, triage)] == [8, 99]
    assert resolve(triage, Flow) == Retry()


def choosing(chosen: Any) -> Context[Any]:
    return Context(None, steps={"choice": chosen})


@pytest.mark.parametrize(
    ("chosen", "taken"),
    [
        (fast, ("fast",)),
        (Standard, ("standard",)),
        (Standard(days=3), ("standard",)),
        ([Standard(days=3), fast], ("fast", "standard")),
        ({fast}, ("fast",)),
    ],
)
def test_a_route_takes_the_chosen_targets(chosen: Any, taken: tuple[str, ...]) -> None:
    assert Flow.graph.select("triage", "big", choosing(chosen)) == taken


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, "returned None, which is not a step: return one of fast, standard"),
        ("fast", "returned 'fast', which is not a step"),
        ([], "chose no target: return at least one of fast, standard"),
        (Done, "chose 'done': add it to the route's targets"),
        (Wait(minutes=1), "chose 'wait'"),
        (Standard(days=4), "chose 'standard' with another configuration"),
    ],
)
def test_an_undeclared_choice_is_an_error(chosen: Any, expected: str) -> None:
    with pytest.raises(RouteError, match=rf"^Flow: triage\.big: the route by_steps {expected}"):
        Flow.graph.select("triage", "big", choosing(chosen))


def test_a_route_that_raises_is_an_error_with_its_cause() -> None:
    with pytest.raises(RouteError, match="the route by_steps raised KeyError: 'choice'") as caught:
        Flow.graph.select("triage", "big", Context(None))
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_transition_without_a_route_takes_all_its_targets() -> None:
    assert Flow.graph.select("triage", "small", Context(None)) == ("standard",)
    assert Flow.graph.is_dynamic("triage", "big")
    assert not Flow.graph.is_dynamic("triage", "small")
    with pytest.raises(UndeclaredEvent):
        Flow.graph.targets("triage", "huge")
    with pytest.raises(UnknownStep):
        Flow.graph.targets("nobody", "done")


async def chooses_async(ctx: Context[Any]) -> Step:
    return fast


@pytest.mark.parametrize("chooser", [fast, Standard, 3, chooses_async, lambda: fast, lambda one, two: fast])
def test_a_route_needs_a_plain_function_of_the_context(chooser: Any) -> None:
    with pytest.raises(DefinitionError, match=r"route\("):
        route(chooser, fast)


def test_an_input_is_validated_stored_by_alias_and_read_back() -> None:
    order = Order(itemCount=3, at=datetime.fromisoformat("2030-01-02T03:04:05+00:00"))
    assert Flow.write_input(order) == '{"at":"2030-01-02T03:04:05Z","itemCount":3}'
    assert Flow.read_input(Flow.write_input(order)) == order
    assert Flow.write_input({"itemCount": 3}) == '{"at":null,"itemCount":3}'


def test_an_input_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"the input was left out, and {} does not fit Order: itemCount: Field"):
        Flow.write_input(ABSENT)
    with pytest.raises(InvalidInput, match="Flow: the input does not fit Order: Input should be a valid dictionary"):
        Flow.write_input(cast("Any", None))
    wrong: Any = Context(None)
    with pytest.raises(InvalidInput, match="Flow: the input does not fit Order"):
        Flow.write_input(wrong)
    with pytest.raises(InvalidInput, match=r"Flow: the stored input does not fit Order: itemCount: .* integer"):
        Flow.read_input('{"itemCount": "x"}')


def test_a_workflow_without_an_input_type_accepts_any_json() -> None:
    class Untyped(Workflow, unique=Unique("k")):  # type: ignore[type-arg] # what it is about
        initial = fast
        transitions = {fast: {"done": Done}}

    given: list[Any] = [ABSENT, None, {}]
    assert [Untyped.write_input(each) for each in given] == ["{}", "null", "{}"]
    assert Untyped.read_input(Untyped.write_input({"a": [1]})) == {"a": [1]}
    with pytest.raises(InvalidPayload, match=r"input\.a cannot be stored"):
        Untyped.write_input({"a": object()})


def test_an_error_in_an_untyped_input_has_its_path() -> None:
    class Loose(Workflow[dict[str, Any]], unique=Unique("k")):
        initial = fast
        transitions = {fast: {"done": Done}}

    with pytest.raises(InvalidPayload, match=r"^input\.a\[0\] is nan"):
        Loose.write_input({"a": [float("nan")]})
    with pytest.raises((InvalidPayload, InvalidInput), match="object"):
        Loose.write_input({"a": object()})


def test_an_input_type_that_cannot_be_validated_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"cannot be the input: write Workflow\[Order\] with a pydantic model"):

        class Odd(Workflow[Recorder], unique=Unique("k")):
            initial = fast
            transitions = {fast: {"done": Done}}


class Recorder:
    """A fake app that records calls and returns an instance."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def answer(*args: Any, **options: Any) -> Any:
            self.asked.append((name, args, options))
            return self._later() if name.startswith("a") else Started("k::v", 1)

        return answer

    async def _later(self) -> Started:
        return Started("k::v", 1)


CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "start": (("v", {"itemCount": 1}), {"conn": 1, "priority": 3, "on_conflict": "existing"}),
    "start_many": (([("v", None)],), {"conn": 1}),
    "resume": (("v", "paid", {"x": 1}), {"step": "wait", "conn": 1, "idempotency_key": "k"}),
    "cancel": (("v",), {"reason": "why", "conn": 1, "idempotency_key": "k"}),
    "retry": (("v",), {"conn": 1, "idempotency_key": "k"}),
    "get": (("v",), {"conn": 1}),
    "runs": (("v",), {"before": 7, "limit": 3, "conn": 1}),
    "list": ((), {"status": "failed", "before": 7, "limit": 3, "conn": 1}),
}


@pytest.mark.parametrize("name", CALLS)
def test_each_call_and_its_async_twin_go_to_the_app(name: str) -> None:
    class Bound(Workflow[Any], unique=Unique("k")):
        initial = fast
        transitions = {fast: {"done": Done}}

    recorder: Any = Recorder()
    Bound.bind(recorder)
    args, options = CALLS[name]
    getattr(Bound, name)(*args, **options)
    asyncio.run(getattr(Bound, f"a{name}")(*args, **options))
    assert recorder.asked == [(name, (Bound, *args), options), (f"a{name}", (Bound, *args), options)]


@pytest.fixture
def open_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process had not created an app yet."""
    monkeypatch.setattr(apps, "open_apps", WeakSet())


@pytest.mark.usefixtures("open_apps")
def test_a_call_without_an_app_raises_with_a_hint() -> None:
    with pytest.raises(NotBound, match="Flow belongs to no app, and none is open") as caught:
        Flow.start("v")
    assert caught.value.hint == "Make one first: Pgflow(dsn, workflows=[Flow])."


@pytest.mark.usefixtures("open_apps")
def test_a_subclass_does_not_belong_to_the_app_of_its_parent() -> None:
    class Parent(Workflow[Any], unique=Unique("k")):
        initial = fast
        transitions = {fast: {"done": Done}}

    recorder: Any = Recorder()
    Parent.bind(recorder)

    class Child(Parent, unique=Unique("k"), version=2):
        pass

    assert list(Child.graph.nodes) == ["fast", "done"]
    with pytest.raises(NotBound, match="Child"):
        Child.get("v")
