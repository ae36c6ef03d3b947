"""A failing route fails its instance, not the step before it: the step's result is recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pgflow import (
    Async,
    Context,
    Done,
    Instance,
    Ok,
    Retry,
    Step,
    Unique,
    Wait,
    WaitForEvent,
    Workflow,
    route,
    step,
    telemetry,
)
from tests.hostile import CONTROL_FLOW, HOSTILE, HostileRepr
from tests.stacks.conftest import Stack
from tests.worker.waiting import until

Input = dict[str, Any]

BROKEN: dict[str, str] = {}  # by business value: what its routes do, until a test takes that out
RUNS: Counter[tuple[str, str]] = Counter()  # by business value and step or "route"
SEEN: dict[str, Any] = {}  # by business value: what the route was given last
FAST = Retry(max_attempts=3, base=timedelta(milliseconds=1))


@step
def left(ctx: Context[Input]) -> Ok:
    RUNS[ctx.value, "left"] += 1
    return Ok("done", dict(ctx.steps))


@step
def right(ctx: Context[Input]) -> Ok:
    return Ok("done", "right")


@step
def elsewhere(ctx: Context[Input]) -> Ok:
    return Ok("done")


async def coroutine() -> Step:
    return left


def broken(ctx: Context[Input]) -> Any:
    """Choose `left`, unless the test set another behaviour."""
    RUNS[ctx.value, "route"] += 1
    SEEN[ctx.value] = {**ctx.steps, "metadata": dict(ctx.metadata), "attempt": ctx.attempt}
    match BROKEN.get(ctx.value):
        case None:
            return left
        case "undeclared":
            return elsewhere
        case "nothing":
            return []
        case "no step":
            return 7
        case "no repr":
            return HostileRepr()
        case "coroutine":
            return coroutine()
        case "changes its context":
            for output in ctx.steps.values():
                output["n"] = "changed"
            ctx.metadata["by"].append("changed")
            raise ValueError("after that")
        case name:
            raise HOSTILE[name]()


ROUTE = route(broken, left, right)
AFTER: dict[Any, Any] = {left: {"done": Done}, right: {"done": Done}}


@step(retry=FAST)
def in_a_thread(ctx: Context[Input]) -> Ok:
    RUNS[ctx.value, ctx.step] += 1
    return Ok("done", {"n": 1}, metadata={"by": [ctx.step]})


@step(retry=FAST)
async def on_the_loop(ctx: Context[Input]) -> Ok:
    RUNS[ctx.value, ctx.step] += 1
    return Ok("done", {"n": 1}, metadata={"by": [ctx.step]})


@step(retry=FAST)
def at_the_third_attempt(ctx: Context[Input]) -> Ok:
    RUNS[ctx.value, ctx.step] += 1
    if ctx.attempt < 3:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return Ok("done", {"n": 1}, metadata={"by": [ctx.step]})


@step(retry=FAST)
async def asks(ctx: Context[Input]) -> Async:
    RUNS[ctx.value, ctx.step] += 1
    return Async()


class AfterThread(Workflow[Input], unique=Unique("after_thread")):
    initial = in_a_thread
    transitions = {in_a_thread: {"done": ROUTE}, **AFTER}


class AfterLoop(Workflow[Input], unique=Unique("after_loop")):
    initial = on_the_loop
    transitions = {on_the_loop: {"done": ROUTE}, **AFTER}


class AfterAttempts(Workflow[Input], unique=Unique("after_attempts")):
    initial = at_the_third_attempt
    transitions = {at_the_third_attempt: {"done": ROUTE}, **AFTER}


class AfterSignal(Workflow[Input], unique=Unique("after_signal")):
    """A step that waits for a signal."""

    initial = asks
    transitions = {asks: {"done": ROUTE}, **AFTER}


answer = WaitForEvent("answered").named("answer")


class AfterWait(Workflow[Input], unique=Unique("after_wait")):
    initial = answer
    transitions = {answer: {"received": ROUTE}, **AFTER}


hurried = WaitForEvent("answered", timeout=timedelta(milliseconds=20)).named("hurried")


class AfterTimeout(Workflow[Input], unique=Unique("after_timeout")):
    initial = hurried
    transitions = {hurried: {"received": Done, "timeout": ROUTE}, **AFTER}


pause = Wait(timedelta(milliseconds=20)).named("pause")


class AfterTimer(Workflow[Input], unique=Unique("after_timer")):
    initial = pause
    transitions = {pause: {"timeout": ROUTE}, **AFTER}


other = on_the_loop.named("other")
meet = on_the_loop.named("meet")


class AfterJoin(Workflow[Input], unique=Unique("after_join")):
    initial = in_a_thread
    transitions = {
        in_a_thread: {"done": [on_the_loop, other]},
        on_the_loop: {"done": meet},
        other: {"done": meet},
        meet: {"done": ROUTE},
        **AFTER,
    }


class InBranch(Workflow[Input], unique=Unique("in_branch")):
    """A route in one branch of a fan-out, whose other one waits for a signal."""

    initial = in_a_thread
    transitions = {
        in_a_thread: {"done": [on_the_loop, answer]},
        on_the_loop: {"done": ROUTE},
        left: {"done": meet},
        right: {"done": meet},
        answer: {"received": meet},
        meet: {"done": Done},
    }


another = elsewhere.named("another")


def broken_too(ctx: Context[Input]) -> Step:
    return elsewhere if broken(ctx) is left else another


class InBothBranches(Workflow[Input], unique=Unique("in_both")):
    """Two branches with a route each."""

    initial = in_a_thread
    transitions = {
        in_a_thread: {"done": [on_the_loop, other]},
        on_the_loop: {"done": ROUTE},
        other: {"done": route(broken_too, elsewhere, another)},
        left: {"done": meet},
        right: {"done": meet},
        elsewhere: {"done": meet},
        another: {"done": meet},
        meet: {"done": Done},
    }


class Sound(Workflow[Input], unique=Unique("still_sound")):
    """Shows that the worker still runs."""

    initial = right
    transitions = {right: {"done": Done}}


WORKFLOWS = (
    *(AfterThread, AfterLoop, AfterAttempts, AfterSignal, AfterWait, AfterTimeout, AfterTimer, AfterJoin),
    *(InBranch, InBothBranches, Sound),
)
BEFORE = {
    AfterThread: ("in_a_thread", {"n": 1}),
    AfterLoop: ("on_the_loop", {"n": 1}),
    AfterAttempts: ("at_the_third_attempt", {"n": 1}),
    AfterSignal: ("asks", {"n": 2}),
    AfterWait: ("answer", {"n": 2}),
    AfterTimeout: ("hurried", {}),
    AfterTimer: ("pause", {}),
    AfterJoin: ("meet", {"n": 1}),
}
RAISED = [
    *(f"a {kind.__name__}" for kind in CONTROL_FLOW),
    *("a Plain", "str raises SystemExit", "getattr raises", "notes exit", "a name that raises"),
]
CHOSEN = ["undeclared", "nothing", "no step", "no repr", "coroutine"]


def steps(instance: Instance) -> list[str]:
    return [entry.step for entry in instance.history]


def lead(stack: Stack, workflow: type[Workflow[Any]], how: str) -> Instance:
    """Start an instance, bring it to its route, which does `how`, and return it when it has ended."""
    BROKEN[stack.value] = how
    workflow.start(stack.value, {})
    if workflow in (AfterSignal, AfterWait):
        stack.until(workflow, "waiting")
        workflow.resume(stack.value, "done" if workflow is AfterSignal else "answered", {"n": 2})
    return stack.until(workflow)


def check_failed(stack: Stack, workflow: type[Workflow[Any]], failed: Instance) -> None:
    at, output = BEFORE[workflow]
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error["step"], failed.error["type"]) == (at, "RouteError")
    assert failed.error["reason"].startswith(f"{workflow.name}: {at}.")
    assert "the route broken" in failed.error["reason"]
    assert (steps(failed)[-1], failed.history[-1].output, failed.history[-1].targets) == (at, output, None)
    assert failed.waiting_for == ()
    assert failed.error["attempt"] == SEEN[stack.value]["attempt"] == failed.history[-1].attempt


@pytest.mark.parametrize("workflow", BEFORE, ids=lambda workflow: workflow.name)
def test_a_retry_calls_the_route_again_and_runs_no_completed_step(stack: Stack, workflow: type[Workflow[Any]]) -> None:
    failed = lead(stack, workflow, "a SystemExit")
    check_failed(stack, workflow, failed)
    ran, asked = (
        {key: n for key, n in RUNS.items() if key[0] == stack.value and key[1] != "route"},
        RUNS[stack.value, "route"],
    )
    assert asked == 1
    workflow.retry(stack.value)  # the route fails again
    again = stack.until_again(workflow, failed)
    check_failed(stack, workflow, again)
    assert again.history == failed.history
    assert RUNS[stack.value, "route"] == 2
    del BROKEN[stack.value]
    workflow.retry(stack.value)
    done = stack.until(workflow, "completed")
    assert (steps(done), RUNS[stack.value, "route"]) == ([*steps(failed), "left"], 3)
    at, output = BEFORE[workflow]
    entry = next(entry for entry in done.history if entry.step == at)
    before = failed.history[-1]
    assert (entry.targets, entry.output, entry.attempt, entry.errors) == (
        ("left",),
        output,
        before.attempt,
        before.errors,
    )
    assert SEEN[stack.value][at] == output  # the route saw the recorded result
    assert done.steps["left"][at] == output
    assert done.error is None
    assert {key: n for key, n in RUNS.items() if key[0] == stack.value and key[1] not in ("route", "left")} == ran


@pytest.mark.parametrize("how", [*RAISED, *CHOSEN])
def test_a_route_that_fails_in_any_way_fails_its_instance_alone(stack: Stack, how: str) -> None:
    for workflow in (AfterLoop, AfterWait, AfterTimer):
        check_failed(stack, workflow, lead(stack, workflow, how))
        del BROKEN[stack.value]
        workflow.retry(stack.value)
        assert stack.until(workflow, "completed").status == "completed"
        RUNS.clear()
    Sound.start(stack.value)
    assert stack.until(Sound).status == "completed"


def test_a_signal_that_came_before_its_wait_is_recorded_before_the_route_fails(stack: Stack) -> None:
    BROKEN[stack.value] = "a GeneratorExit"
    AfterWait.start(stack.value, {}, delay=timedelta(milliseconds=300))
    assert AfterWait.resume(stack.value, "answered", {"n": 2}) == "kept"
    failed = stack.until(AfterWait)
    check_failed(stack, AfterWait, failed)
    del BROKEN[stack.value]
    AfterWait.retry(stack.value)
    assert steps(stack.until(AfterWait, "completed")) == ["answer", "left"]


def test_a_failing_route_stops_the_other_branch_and_a_retry_continues_both(stack: Stack) -> None:
    BROKEN[stack.value] = "a KeyboardInterrupt"
    InBranch.start(stack.value, {})
    failed = stack.until(InBranch)
    assert (failed.status, sorted(steps(failed)), failed.waiting_for) == ("failed", ["in_a_thread", "on_the_loop"], ())
    del BROKEN[stack.value]
    InBranch.retry(stack.value)
    waiting = stack.until(InBranch, "waiting")
    while "left" not in steps(waiting):
        waiting = stack.until(InBranch, "waiting")
    assert [each.step for each in waiting.waiting_for] == ["answer"]
    InBranch.resume(stack.value, "answered", {})
    done = stack.until(InBranch, "completed")
    assert sorted(steps(done)) == ["answer", "in_a_thread", "left", "meet", "on_the_loop"]
    assert (RUNS[stack.value, "on_the_loop"], RUNS[stack.value, "left"], RUNS[stack.value, "route"]) == (1, 1, 2)


def test_routes_of_two_branches_that_failed_are_both_called_again(stack: Stack) -> None:
    BROKEN[stack.value] = "a SystemExit"
    InBothBranches.start(stack.value, {})
    failed = stack.until(InBothBranches)
    assert failed.status == "failed"
    del BROKEN[stack.value]
    InBothBranches.retry(stack.value)
    done = stack.until(InBothBranches, "completed")
    assert sorted(steps(done)) == ["elsewhere", "in_a_thread", "left", "meet", "on_the_loop", "other"]
    assert RUNS[stack.value, "in_a_thread"] == RUNS[stack.value, "left"] == RUNS[stack.value, "meet"] == 1


def test_a_route_that_changes_its_context_changes_nothing_else(stack: Stack) -> None:
    failed = lead(stack, AfterLoop, "changes its context")
    check_failed(stack, AfterLoop, failed)
    assert failed.metadata["by"] == ["on_the_loop"]
    del BROKEN[stack.value]
    AfterLoop.retry(stack.value)
    done = stack.until(AfterLoop, "completed")
    assert done.steps["left"] == {"on_the_loop": {"n": 1}}
    assert done.metadata["by"] == ["on_the_loop"]


def test_an_instance_whose_route_failed_can_be_put_back_as_it_was(stack: Stack, app: Any) -> None:
    failed = lead(stack, AfterLoop, "a SystemExit")
    app.storage.put(failed)
    del BROKEN[stack.value]
    AfterLoop.retry(stack.value)
    done = stack.until(AfterLoop, "completed")
    assert (steps(done), RUNS[stack.value, "on_the_loop"]) == (["on_the_loop", "left"], 1)


@pytest.fixture
def emitted() -> Iterator[list[telemetry.Event]]:
    """All telemetry events, in their order."""
    events: list[telemetry.Event] = []
    telemetry.attach("emitted", telemetry.events(), lambda event, config: events.append(event))
    yield events
    telemetry.detach("emitted")


def test_a_failing_route_emits_the_end_of_its_step_and_the_failure_of_its_instance(
    stack: Stack, emitted: list[telemetry.Event]
) -> None:
    lead(stack, AfterLoop, "a SystemExit")

    def own() -> list[telemetry.Event]:
        return [each for each in list(emitted) if each.metadata.get("instance_id") == f"after_loop::{stack.value}"]

    until(lambda: any(each.name == telemetry.WORKFLOW_EXCEPTION for each in own()), "the event")
    names = [each.name for each in own()]
    assert telemetry.STEP_STOP in names
    assert telemetry.STEP_EXCEPTION not in names
    assert telemetry.WORKFLOW_TRANSITION not in names
    (ended,) = [each for each in own() if each.name == telemetry.WORKFLOW_EXCEPTION]
    assert ended.metadata["failed_step"] == "on_the_loop"
    assert "the route broken raised SystemExit" in ended.metadata["reason"]
    del BROKEN[stack.value]
    AfterLoop.retry(stack.value)
    until(lambda: any(each.name == telemetry.WORKFLOW_STOP for each in own()), "the end")
    moves = [
        (each.metadata["from_step"], tuple(each.metadata["targets"]))
        for each in own()
        if each.name == telemetry.WORKFLOW_TRANSITION
    ]
    assert moves == [("on_the_loop", ("left",)), ("left", ("done",))]
    assert [each.metadata["step_key"] for each in own() if each.name == telemetry.STEP_STOP] == ["on_the_loop", "left"]
