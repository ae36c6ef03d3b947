"""The cost of workflows in memory is linear in the number of events. Function calls are counted, not seconds."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from pgflow import Async, Context, Done, Ok, Step, Unique, Workflow, step
from pgflow.core.engine.machine import advance, new
from pgflow.core.engine.state import Begun, Completed
from pgflow.core.values import append_map
from pgflow.core.values.append_map import AppendMap
from pgflow.local import Local

SMALL, LARGE = 25, 100
SLACK = 1.5  # a quadratic cost would have four times the share

Input = dict[str, Any]


class Plain(Step):
    """Completes at once."""

    events = ("done",)

    def execute(self, ctx: Context[Input]) -> Ok:
        return Ok("done", {"value": ctx.value})


class Waits(Step):
    """Waits for a signal."""

    events = ("came",)

    def execute(self, ctx: Context[Input]) -> Async:
        return Async()


@step
def first(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step
def last(ctx: Context[Input]) -> Ok:
    return Ok("done", {"seen": len(ctx.steps)})


def flow(edges: Mapping[Any, Any], begins: Any) -> type[Workflow[Any]]:
    class Made(Workflow[Input], unique=Unique("made", scope="none")):
        """Made for one test."""

        initial = begins
        transitions = edges

    return Made


def chain(kind: type[Step], event: str, size: int) -> type[Workflow[Any]]:
    steps = [kind().named(f"s{number}") for number in range(size)]
    after = [*steps[1:], Done]
    return flow({each: {event: to} for each, to in zip(steps, after, strict=True)}, steps[0])


def fan(size: int) -> type[Workflow[Any]]:
    branches = [Plain().named(f"b{number}") for number in range(size)]
    edges: dict[Any, Any] = {first: {"done": branches}, last: {"done": Done}}
    edges.update({each: {"done": last} for each in branches})
    return flow(edges, first)


def calls(do: Callable[[], object]) -> int:
    """Count the function calls of this thread and of the threads that it starts."""
    counter = count()

    def seen(frame: Any, event: str, arg: Any) -> None:
        if event in ("call", "c_call"):
            next(counter)

    threading.setprofile(seen)
    sys.setprofile(seen)
    try:
        do()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return next(counter)


def a_chain(size: int) -> int:
    workflow = chain(Plain, "done", size)

    def run() -> None:
        with Local(workflows=[workflow]) as app:
            workflow.start("v", {})
            app.drain()
            (done,) = workflow.list()
            assert done.status == "completed"

    return calls(run)


def a_fan(size: int) -> int:
    workflow = fan(size)

    def run() -> None:
        with Local(workflows=[workflow]) as app:
            workflow.start("v", {})
            app.drain()
            (done,) = app.storage.query()
            assert done.steps["last"] == {"seen": size + 1}

    return calls(run)


def signals(size: int) -> int:
    """Each wait gets its signal when it waits."""
    workflow = chain(Waits, "came", size)

    def run() -> None:
        with Local(workflows=[workflow]) as app:
            started = workflow.start("v", {})
            for number in range(size):
                app.drain()
                workflow.resume(started.id, "came", {"number": number})
            app.drain()
            assert app.storage.get(started.id).status == "completed"

    return calls(run)


def signals_ahead(size: int) -> int:
    """All signals are in the mailbox before the first wait."""
    workflow = chain(Waits, "came", size)
    gate = threading.Event()

    @step
    def opens(ctx: Context[Input]) -> Ok:
        gate.wait(60)
        return Ok("done")

    edges = {opens: {"done": workflow.initial}, **workflow.transitions}
    gated = flow(edges, opens)

    def run() -> None:
        with Local(workflows=[gated]) as app:
            started = gated.start("v", {})
            for number in range(size):
                gated.resume(started.id, "came", {"number": number})
            gate.set()
            app.drain()
            done = app.storage.get(started.id)
            assert [each["number"] for each in done.steps.values() if each] == list(range(size))

    return calls(run)


def many(size: int) -> int:
    """Many active instances, each called by its id."""
    workflow = chain(Waits, "came", 1)

    def run() -> None:
        with Local(workflows=[workflow]) as app:
            started = [workflow.start(f"v{number}", {}) for number in range(size)]
            app.drain()
            for each in started:
                workflow.resume(each.id, "came")
            app.drain()
            assert {each.status for each in app.storage.query()} == {"completed"}

    return calls(run)


def runs_of_one_value(size: int) -> int:
    workflow = chain(Waits, "came", 1)

    def run() -> None:
        with Local(workflows=[workflow]) as app:
            for _ in range(size):
                started = workflow.start("v", {})
                app.drain()
                workflow.resume(started.id, "came")
            app.drain()

    return calls(run)


def scheduled(size: int) -> int:
    """Signals that are scheduled and cancelled, with many active instances."""
    workflow = chain(Waits, "came", 1)

    def run() -> None:
        with Local(workflows=[workflow]) as app:
            started = [workflow.start(f"v{number}", {}) for number in range(size)]
            app.drain()
            later = [workflow.schedule_resume(each.id, "s0", timedelta(days=1), "came") for each in started]
            assert all(each.cancel() for each in later)

    return calls(run)


@pytest.mark.parametrize("scenario", [a_chain, a_fan, signals, signals_ahead, many, runs_of_one_value, scheduled])
def test_the_cost_of_an_event_does_not_grow_with_the_history(scenario: Callable[[int], int]) -> None:
    small, large = scenario(SMALL), scenario(LARGE)
    assert large / small < LARGE / SMALL * SLACK, f"{small} calls for {SMALL}, {large} for {LARGE}"


def test_the_cost_of_a_page_depends_on_its_length_alone() -> None:
    workflow = chain(Plain, "done", 2)

    def page(size: int) -> int:
        with Local(workflows=[workflow]) as app:
            for number in range(size):
                workflow.start(f"v{number}", {})
            app.drain()
            middle = app.storage.query(limit=size // 2)[-1].run
            found: list[Any] = []

            def ask() -> None:
                found.extend(workflow.list(limit=5))
                found.extend(app.storage.query(limit=5))
                found.extend(app.storage.query(limit=5, before=middle))
                found.extend(app.storage.query(limit=5, id=found[-1].id))

            cost = calls(ask)
            assert len(found) == 16
            return cost

    assert page(400) < page(40) * SLACK


# -- the core


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the histories that are copied."""
    seen: list[int] = []
    copy = append_map.AppendMap._copy

    def counted(self: AppendMap[Any, Any]) -> AppendMap[Any, Any]:
        seen.append(len(self))
        return copy(self)

    monkeypatch.setattr(append_map.AppendMap, "_copy", counted)
    return seen


@pytest.mark.parametrize("make", [lambda size: chain(Plain, "done", size), fan])
def test_an_advance_copies_no_history(make: Callable[[int], type[Workflow[Any]]], copies: list[int]) -> None:
    def run(size: int) -> int:
        state, _ = advance(new(make(size).graph), Begun())

        def steps() -> None:
            nonlocal state
            while state.active:
                state, _ = advance(state, Completed(sorted(state.active)[0], "done"))

        cost = calls(steps)
        assert state.status == "completed"
        return cost

    assert run(400) < run(100) * 4 * SLACK
    assert copies == []


def test_a_state_that_is_advanced_twice_keeps_both_results(copies: list[int]) -> None:
    begun, _ = advance(new(fan(3).graph), Begun())
    begun, _ = advance(begun, Completed("first", "done"))
    one, _ = advance(begun, Completed("b0", "done"))
    other, _ = advance(begun, Completed("b1", "done"))
    assert (set(begun.done), set(one.done), set(other.done)) == ({"first"}, {"first", "b0"}, {"first", "b1"})
    assert copies == [1]
