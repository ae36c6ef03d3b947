"""Group D: the engine, by itself and as users see it at work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

import pytest

from pgflow import Async, Context, Done, Error, Ok, Retry, Step, Unique, Wait, WaitForEvent, route
from pgflow.core.definition.graph import Choice, Graph
from pgflow.core.definition.step import Parking
from pgflow.core.engine.machine import advance, new, replay
from pgflow.core.engine.state import (
    Begun,
    Cancelled,
    CancelTimer,
    Complete,
    Completed,
    Event,
    Execute,
    Fail,
    Failed,
    Failure,
    Parked,
    ScheduleResume,
    State,
)
from pgflow.errors import NotActive, UndeclaredEvent, UnknownStep
from tests.conformance.conftest import Stack
from tests.conformance.definitions import Flow, Input, chain, define, make
from tests.worker.waiting import until

HOUR = timedelta(hours=1)
A, B, C, D = make("a"), make("b"), make("c"), make("d")
Ch = make("ch", "x", "y")

EXCLUSIVE = define(Ch, {Ch: {"x": B, "y": C}, B: {"done": D}, C: {"done": D}, D: {"done": Done}}, name="Exclusive")
FORK = define(A, {A: {"done": [B, C]}, B: {"done": D}, C: {"done": D}, D: {"done": Done}}, name="Fork")
LOSING = define(  # ch may leave the fan-out by another way
    A,
    {A: {"done": [B, Ch]}, B: {"done": D}, Ch: {"x": D, "y": C}, C: {"done": Done}, D: {"done": Done}},
    name="Losing",
)


def chosen(ctx: Context[Input]) -> Any:
    return [each for each in (B, C) if each.key in ctx.initial["chosen"]]


DYNAMIC = define(
    A, {A: {"done": route(chosen, B, C)}, B: {"done": D}, C: {"done": D}, D: {"done": Done}}, name="Dynamic"
)
waits = WaitForEvent("go", timeout=HOUR)
WAITING = define(
    A,
    {
        A: {"done": [Wait(HOUR), waits]},
        Wait(HOUR): {"timeout": D},
        waits: {"received": D, "timeout": D},
        D: {"done": Done},
    },
    name="Waiting",
)


def play(flow: Flow, *events: Event) -> State:
    """Start an instance and apply these events."""
    state, _ = advance(new(flow.graph), Begun())
    for event in events:
        state, _ = advance(state, event)
    return state


def ran(stack: Stack, flow: Flow, **given: Any) -> list[str]:
    """Run an instance to its end and return the steps that completed, in order."""
    stack.run(flow)
    flow.start("v", given)
    done = stack.until(flow, "v")
    assert done.status == "completed"
    assert len(done.history) == len({entry.step for entry in done.history})
    return list(done.completed_steps)


# -- what an event does


def test_d1_an_instance_starts_with_its_initial_step_and_its_configuration() -> None:
    """D1: a pending instance becomes running, with its initial step active and that step's configuration."""
    flow = chain(Wait(HOUR))
    pending = new(flow.graph)
    assert (pending.status, pending.active) == ("pending", frozenset())
    running, commands = advance(pending, Begun())
    assert (running.status, set(running.active), commands) == (
        "running",
        {"wait"},
        (Execute("wait", {"duration": "PT1H"}),),
    )


def test_d2_an_active_instance_does_not_start_again() -> None:
    """D2: starting an instance that runs or waits changes nothing."""
    running = play(FORK)
    waiting = play(WAITING, Completed("a", "done"), Parked("wait", HOUR, "timeout"), Parked("wait_for_event"))
    assert (running.status, waiting.status) == ("running", "waiting")
    for state in (running, waiting):
        assert advance(state, Begun()) == (state, ())


def test_d3_a_completion_moves_a_step_from_active_to_done() -> None:
    """D3: a completed step is neither active, waiting nor timed; the next one gets its own configuration."""
    before = play(WAITING, Completed("a", "done"), Parked("wait_for_event", HOUR, "timeout"))
    assert before.timers == {"wait_for_event"}
    after, commands = advance(before, Completed("wait_for_event", "received"))
    assert (set(after.active), set(after.waiting), set(after.timers)) == ({"wait"}, set(), set())
    assert (list(after.done), commands) == (["a", "wait_for_event"], (CancelTimer("wait_for_event"),))
    assert advance(after, Completed("wait", "timeout"))[1] == (Execute("d", None),)


def test_d4_a_fan_out_starts_all_and_the_join_waits_for_all(stack: Stack) -> None:
    """D4: a fan-out activates all of its targets, and the join runs once, when all live branches have completed."""
    forked = play(FORK, Completed("a", "done"))
    assert forked.active == {"b", "c"}
    half, commands = advance(forked, Completed("c", "done"))
    assert (set(half.active), commands) == ({"b"}, ())
    assert advance(half, Completed("b", "done"))[1] == (Execute("d", None),)
    steps = ran(stack, FORK)
    assert (steps[0], set(steps[1:3]), steps[3:]) == ("a", {"b", "c"}, ["d", "done"])


@pytest.mark.parametrize(("event", "branch"), [("x", "b"), ("y", "c")])
def test_d5_a_join_after_an_exclusive_branch_runs(stack: Stack, event: str, branch: str) -> None:
    """D5: a join after an exclusive branch runs once, whichever branch was taken."""
    assert ran(stack, EXCLUSIVE, ch=event) == ["ch", branch, "d", "done"]


@pytest.mark.parametrize("choice", [["b"], ["c"], ["b", "c"]])
def test_d6_a_join_after_a_dynamic_choice_runs(stack: Stack, choice: list[str]) -> None:
    """D6: a route to one of two branches that converge, or to both, runs their join once."""
    steps = ran(stack, DYNAMIC, chosen=choice)
    assert (sorted(steps[1:-2]), steps[-2:]) == (choice, ["d", "done"])


def test_d7_a_branch_that_leaves_by_another_event_does_not_starve_the_join(stack: Stack) -> None:
    """D7: a branch of a fan-out that leaves by another event does not block the join."""
    assert sorted(ran(stack, LOSING, ch="y")) == ["a", "b", "c", "ch", "d", "done"]


@pytest.mark.parametrize("event", ["x", "y"])
@pytest.mark.parametrize("flow", [EXCLUSIVE, LOSING])
def test_d8_completed_means_that_done_was_reached(stack: Stack, flow: Flow, event: str) -> None:
    """D8: Done is among the completed steps of every completed instance, and it is the last of them."""
    *_, last = ran(stack, flow, ch=event)
    assert last == "done"
    assert flow.get("v").active_steps == frozenset()


def starving() -> Graph:
    """Return a graph that no workflow class would allow: b leads nowhere."""
    edges = {"a": {"done": Choice(("b", "c"))}, "c": {"done": Choice(("b",))}}
    b = make("b", act=lambda ctx: Ok("done"))
    return Graph.build("Flow", "a", [A, b, C], {**edges, "b": {"done": Choice(())}}, unique=Unique("k"))


def test_d8_an_instance_that_cannot_reach_done_fails() -> None:
    """D8: an instance without a way on that has not reached Done has failed with "no path"."""
    graph = starving()
    state, _ = advance(new(graph), Begun())
    for step in ("a", "c"):
        state, _ = advance(state, Completed(step, "done"))
    failed, commands = advance(state, Completed("b", "done"))
    error = Failure(None, "no path to Done is left")
    assert (failed.status, failed.error, commands) == ("failed", error, (Fail(error),))
    assert "done" not in failed.done
    assert replay(graph, [(step, "done", None) for step in "bca"]) == failed


def test_d8_an_instance_that_cannot_reach_done_is_never_completed(stack: Stack) -> None:
    """D8: the same on each stack, should such a graph ever exist; a retry changes nothing."""
    flow = chain(A, B, C)
    flow.definition = replace(flow.definition, graph=starving())
    flow.definitions = replace(flow.definitions, versions={1: flow.definition})
    stack.run(flow)
    flow.start("v")
    failed = stack.until(flow, "v")
    assert failed.error is not None
    assert (failed.status, failed.error["reason"]) == ("failed", "no path to Done is left")
    assert sorted(failed.completed_steps) == ["a", "b", "c"]
    flow.retry("v")
    again = stack.until(flow, "v")
    assert (again.status, again.error, again.history) == ("failed", failed.error, failed.history)
    assert flow.start("v").run > failed.run


def test_d9_an_unknown_event_is_an_error(stack: Stack) -> None:
    """D9: an undeclared event is an error, from a step and from a resume, never a silent end."""
    with pytest.raises(UndeclaredEvent, match="Exclusive: step 'ch' has no event 'zzz'; it declares 'x', 'y'"):
        advance(play(EXCLUSIVE), Completed("ch", "zzz"))
    with pytest.raises(UndeclaredEvent, match="has no event 'zzz'"):
        advance(play(EXCLUSIVE), Parked("ch", HOUR, "zzz"))
    with pytest.raises(UnknownStep, match="Exclusive has no step 'unknown'"):
        advance(play(EXCLUSIVE), Completed("unknown", "x"))
    wait = WaitForEvent("go")
    flow = define(Ch, {Ch: {"x": wait, "y": Done}, wait: {"received": Done}})
    stack.run(flow)
    flow.start("bad", {"ch": "zzz"})
    flow.start("good")
    failed = stack.until(flow, "bad")
    assert failed.error is not None
    assert (failed.status, failed.error["step"], failed.error["type"]) == ("failed", "ch", "UndeclaredEvent")
    stack.until(flow, "good", "waiting")
    with pytest.raises(UndeclaredEvent, match="Flow takes no signal 'stop'"):
        flow.resume("good", "stop")
    assert flow.get("good").status == "waiting"


class Changing(Step):
    """A step whose wait ends with another event than when its workflow was defined."""

    events = ("done",)
    ends: ClassVar[list[Parking]] = []

    def execute(self, ctx: Context[Input]) -> Async:
        return Async()

    def parking(self) -> Parking:
        return self.ends[-1] if self.ends else Parking({"done": "done"})


@pytest.mark.parametrize(
    "parking", [Parking({"done": "zzz"}), Parking({}, HOUR, "zzz"), Parking({}, timedelta(0), "zzz")]
)
def test_d9_a_wait_that_would_end_with_an_unknown_event_is_an_error(stack: Stack, parking: Parking) -> None:
    """D9: a wait that can only end with an undeclared event fails its own instance at once."""
    Changing.ends.clear()
    flow = chain(Changing())
    stack.run(flow)
    Changing.ends.append(parking)
    flow.start("bad")
    failed = stack.until(flow, "bad")
    assert failed.error is not None
    assert (failed.error["type"], failed.error["step"]) == ("UndeclaredEvent", "changing")
    Changing.ends.clear()
    flow.start("good")
    stack.until(flow, "good", "waiting")
    flow.resume("good", "done")
    assert stack.until(flow, "good").status == "completed"


def test_d10_a_step_completes_once_in_an_instance() -> None:
    """D10: a second result of a step changes nothing and starts nothing."""
    done = play(EXCLUSIVE, Completed("ch", "x"))
    for again in (
        Completed("ch", "x"),
        Completed("ch", "y"),
        Parked("ch"),
        Failed("ch", "late"),
        Completed("c", "done"),
    ):
        assert advance(done, again) == (done, ())


def test_d10_a_repeated_signal_runs_nothing_twice(stack: Stack) -> None:
    """D10: a second signal for a wait that has ended does not run the next step again."""
    calls: Counter[str] = Counter()

    def count(ctx: Context[Input]) -> Ok:
        calls[ctx.step] += 1
        return Ok("done", ctx.steps["wait_for_event"])

    last = WaitForEvent("end").named("last")
    flow = chain(WaitForEvent("go"), make("after", act=count), last)
    stack.run(flow)
    flow.start("v")
    stack.until(flow, "v", "waiting")
    assert flow.resume("v", "go", 1) == "delivered"
    until(lambda: "last" in flow.get("v").active_steps, "the last wait")
    with pytest.raises(NotActive, match="has gone past the step that takes 'go'"):
        flow.resume("v", "go", 2)
    flow.resume("v", "end")
    done = stack.until(flow, "v")
    assert (done.steps["wait_for_event"], done.steps["after"], calls) == (1, 1, {"after": 1})


def test_d11_a_signal_before_its_wait_changes_nothing_else(stack: Stack) -> None:
    """D11: a signal for a step that does not wait yet leaves the instance unchanged, and is kept for its wait."""
    running = play(WAITING)
    assert advance(running, Completed("wait_for_event", "received")) == (running, ())
    flow = chain(A, WaitForEvent("go"))
    stack.run(flow)
    flow.start("v", delay=timedelta(milliseconds=300))
    before = flow.get("v")
    assert flow.resume("v", "go", 3) == "kept"
    after = flow.get("v")
    assert [(signal.event, signal.payload) for signal in after.signals] == [("go", 3)]
    assert replace(after, signals=()) == before
    assert stack.until(flow, "v").steps == {"a": {}, "wait_for_event": 3}


@pytest.mark.parametrize("end", [Completed("d", "done"), Failed("d", "why"), Cancelled()])
def test_d12_the_end_is_final(end: Event) -> None:
    """D12: nothing changes an instance that has completed, failed or been cancelled."""
    ended = play(EXCLUSIVE, Completed("ch", "x"), Completed("b", "done"), end)
    assert ended.status in ("completed", "failed", "cancelled")
    for late in (Begun(), Completed("d", "done"), Parked("d", HOUR, "done"), Failed("d", "late"), Cancelled()):
        assert advance(ended, late) == (ended, ())


def test_d12_an_ended_instance_can_neither_be_resumed_nor_cancelled(stack: Stack) -> None:
    """D12: an attempt to do so is refused, and the instance does not change."""
    act = make("act", act=lambda ctx: Error("no") if ctx.value == "failed" else Ok("done"), retry=Retry(max_attempts=1))
    flow = define(act, {act: {"done": waits}, waits: {"received": Done, "timeout": Done}})
    stack.run(flow)
    for value in ("completed", "failed", "cancelled"):
        flow.start(value)
        stack.until(flow, value, "waiting", "failed")
    flow.resume("completed", "go")
    flow.cancel("cancelled")
    for value in ("completed", "failed", "cancelled"):
        ended = stack.until(flow, value)
        assert ended.status == value
        with pytest.raises(NotActive, match=value):
            flow.resume(value, "go")
        with pytest.raises(NotActive, match=value):
            flow.cancel(value)
        assert flow.get(value) == ended


# -- what the engine is


def test_d13_the_engine_is_a_pure_function() -> None:
    """D13: the engine needs no runner, returns a new state, and leaves the old one, which is immutable."""
    before = play(FORK, Completed("a", "done"))
    seen = (before.status, dict(before.done), set(before.active))
    first, second = (advance(before, Completed("b", "done")) for _ in range(2))
    assert first == second
    advance(before, Failed("b", "why"))
    assert (before.status, dict(before.done), set(before.active)) == seen
    state: Any = before
    with pytest.raises(AttributeError):
        state.status = "completed"
    with pytest.raises(TypeError):
        state.done["b"] = None
    with pytest.raises(AttributeError):
        state.active.add("d")


def orders(state: State, outcomes: dict[str, Completed]) -> Iterator[State]:
    """Yield the final states over all orders in which the steps can complete."""
    if not state.active:
        yield state
    for step in sorted(state.active):
        yield from orders(advance(state, outcomes[step])[0], outcomes)


@pytest.mark.parametrize("event", ["x", "y"])
def test_d13_the_order_of_events_makes_no_difference(event: str) -> None:
    """D13: the same events in any possible order lead to the same final state."""
    E, F = make("e"), make("f", "left", "right")
    flow = define(
        A,
        {
            A: {"done": [B, Ch]},
            B: {"done": [C, E, F]},
            Ch: {"x": [D, F], "y": D},
            C: {"done": D},
            E: {"done": D},
            F: {"left": D, "right": Done},
            D: {"done": Done},
        },
    )
    outcomes = {
        key: Completed(key, event if key == "ch" else node.step.emits()[0]) for key, node in flow.graph.nodes.items()
    }
    ends = list(orders(play(flow), outcomes))
    assert len(ends) >= 18
    assert {end.status for end in ends} == {"completed"}
    assert all(end == ends[0] for end in ends)
    assert set(ends[0].done) == set(flow.graph.nodes)


def test_d13_its_effects_are_commands() -> None:
    """D13: the effects of an event are returned as values: run a step, set or cancel a timer, end the instance."""
    state = play(WAITING, Completed("a", "done"))
    state, asked = advance(state, Parked("wait", HOUR, "timeout"))
    assert asked == (ScheduleResume("wait", HOUR, "timeout"),)
    state, asked = advance(state, Completed("wait", "timeout", by_timer=True))
    assert asked == ()
    state = play(WAITING, Completed("a", "done"), Completed("wait", "timeout"), Completed("wait_for_event", "received"))
    assert advance(state, Completed("d", "done"))[1] == (Complete(),)
    assert advance(state, Failed("d", "why"))[1] == (Fail(Failure("d", "why")),)


# -- routes


def test_d14_a_route_sees_the_outputs_of_the_steps_before_it(stack: Stack) -> None:
    """D14: a route gets the input and the outputs of all completed steps, including the last one."""

    def by_size(ctx: Context[Input]) -> Any:
        return C if ctx.steps["first"]["size"] + ctx.steps["second"]["size"] > ctx.initial["limit"] else B

    first = make("first", act=lambda ctx: Ok("done", {"size": 2}))
    second = make("second", act=lambda ctx: Ok("done", {"size": 3}))
    flow = define(
        first,
        {first: {"done": second}, second: {"done": route(by_size, B, C)}, B: {"done": Done}, C: {"done": Done}},
    )
    stack.run(flow)
    for value, limit in (("small", 5), ("big", 4)):
        flow.start(value, {"limit": limit})
    assert stack.until(flow, "small").completed_steps == ("first", "second", "b", "done")
    assert stack.until(flow, "big").completed_steps == ("first", "second", "c", "done")


def raises(ctx: Context[Input]) -> Any:
    raise KeyError("size")


@pytest.mark.parametrize("kind", ["step", "signal"])
def test_d15_a_route_that_raises_fails_the_instance(stack: Stack, kind: str) -> None:
    """D15: an error in a route fails the instance and is stored, after a step and after a signal."""
    first = (
        make("first", act=lambda ctx: Ok("done", {"size": 2})) if kind == "step" else WaitForEvent("go").named("first")
    )
    event = "done" if kind == "step" else "received"
    flow = define(first, {first: {event: route(raises, B, C)}, B: {"done": Done}, C: {"done": Done}})
    stack.run(flow)
    flow.start("v")
    if kind == "signal":
        stack.until(flow, "v", "waiting")
        flow.resume("v", "go")
    failed = stack.until(flow, "v")
    assert failed.error is not None
    assert (failed.status, failed.waiting_for) == ("failed", ())
    assert [(entry.step, entry.targets) for entry in failed.history] == [("first", None)]  # the step has completed
    assert (failed.error["step"], failed.error["type"], failed.error["attempt"]) == ("first", "RouteError", 1)
    assert failed.error["reason"] == f"Flow: first.{event}: the route raises raised KeyError: 'size'"
