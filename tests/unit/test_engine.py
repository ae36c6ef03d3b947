"""The engine's rules, one by one, with workflow classes as users write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Step, Unique, Wait, WaitForEvent, Workflow, route, step
from pgflow.core.definition.graph import Choice, Graph
from pgflow.core.engine.machine import advance, new, replay
from pgflow.core.engine.state import (
    Begun,
    Cancelled,
    CancelTimer,
    Complete,
    Completed,
    Execute,
    Fail,
    Failed,
    Failure,
    Parked,
    ScheduleResume,
    State,
)
from pgflow.errors import GraphChanged, RouteError, UndeclaredEvent, UnknownStep


def make(name: str, *events: str) -> Step:
    @step(events=events or ("done",), name=name)
    def stub(ctx: Context[Any]) -> Ok:
        return Ok(events[0])

    return stub


A, B, C, D = make("a"), make("b"), make("c"), make("d")
Ch = make("ch", "x", "y")
HOUR = timedelta(hours=1)


class Exclusive(Workflow[Any], unique=Unique("k")):
    initial = Ch
    transitions = {Ch: {"x": B, "y": C}, B: {"done": D}, C: {"done": D}, D: {"done": Done}}


class Chosen(Workflow[Any], unique=Unique("k")):
    initial = A
    transitions = {
        A: {"done": route(lambda ctx: B, B, C)},
        B: {"done": D},
        C: {"done": D},
        D: {"done": Done},
    }


class Parallel(Workflow[Any], unique=Unique("k")):
    initial = A
    transitions = {A: {"done": [B, Ch]}, B: {"done": D}, Ch: {"x": D, "y": C}, C: {"done": Done}, D: {"done": Done}}


paid = WaitForEvent("paid", timeout=HOUR)


class Waiting(Workflow[Any], unique=Unique("k")):
    initial = A
    transitions = {
        A: {"done": [Wait(HOUR), paid, B]},
        Wait(HOUR): {"timeout": C},
        paid: {"received": C, "timeout": C},
        B: {"done": C},
        C: {"done": Done},
    }


def play(graph: Graph, *events: Any) -> State:
    state, _ = advance(new(graph), Begun())
    for event in events:
        state, _ = advance(state, event)
    return state


def test_an_instance_starts_with_its_initial_step() -> None:
    state, commands = advance(new(Exclusive.graph), Begun())
    assert (state.status, set(state.active), commands) == ("running", {"ch"}, (Execute("ch", None),))


def test_an_instance_that_has_not_started_accepts_no_results() -> None:
    pending = new(Exclusive.graph)
    assert advance(pending, Completed("ch", "x")) == (pending, ())


def test_an_execute_command_has_the_steps_configuration() -> None:
    _, commands = advance(play(Waiting.graph), Completed("a", "done"))
    assert commands == (
        Execute("wait", {"duration": "PT1H"}),
        Execute("wait_for_event", {"event": "paid", "timeout": "PT1H"}),
        Execute("b", None),
    )


@pytest.mark.parametrize(("event", "branch", "other"), [("x", "b", "c"), ("y", "c", "b")])
def test_exclusive_branches_that_converge_run_their_join(event: str, branch: str, other: str) -> None:
    state = play(Exclusive.graph, Completed("ch", event), Completed(branch, "done"))
    assert state.active == {"d"}
    assert state.skipped == {other}
    state, commands = advance(state, Completed("d", "done"))
    assert (state.status, commands) == ("completed", (Complete(),))
    assert list(state.done) == ["ch", branch, "d", "done"]


def test_a_route_to_one_of_two_branches_runs_their_join() -> None:
    state = play(Chosen.graph, Completed("a", "done", ("c",)), Completed("c", "done"))
    assert state.active == {"d"}
    assert state.skipped == {"b"}


def test_a_route_to_both_branches_waits_for_both() -> None:
    state = play(Chosen.graph, Completed("a", "done", ("c", "b")), Completed("c", "done"))
    assert state.active == {"b"}
    assert state.done["a"].targets == ("b", "c")


def test_a_branch_that_leaves_by_another_event_does_not_starve_the_join() -> None:
    state = play(Parallel.graph, Completed("a", "done"), Completed("ch", "y"), Completed("b", "done"))
    assert state.active == {"c", "d"}
    state = play(state.graph, *[Completed(s, e) for s, e in [("a", "done"), ("b", "done"), ("ch", "y"), ("c", "done")]])
    assert (state.status, set(state.active)) == ("running", {"d"})
    assert advance(state, Completed("d", "done"))[0].status == "completed"


def test_a_step_behind_a_dead_branch_and_a_taken_edge_starts_once() -> None:
    graph = Graph.build(
        "Shortcut",
        "ch",
        [Ch, B, D, Done()],
        {
            "ch": {"x": Choice(("b",)), "y": Choice(("d",))},
            "b": {"done": Choice(("d",))},
            "d": {"done": Choice(("done",))},
        },
    )
    state, commands = advance(play(graph), Completed("ch", "y"))
    assert (commands, set(state.skipped)) == ((Execute("d", None),), {"b"})


def test_done_waits_for_every_branch() -> None:
    state = play(Parallel.graph, Completed("a", "done"), Completed("ch", "y"), Completed("c", "done"))
    assert state.status == "running"
    assert "done" not in state.done


def test_a_completed_instance_has_done_in_its_completed_steps() -> None:
    state = play(Exclusive.graph, Completed("ch", "x"), Completed("b", "done"), Completed("d", "done"))
    assert "done" in state.done


def test_a_step_completes_at_most_once() -> None:
    state = play(Exclusive.graph, Completed("ch", "x"))
    assert advance(state, Completed("ch", "y")) == (state, ())


def test_an_undeclared_event_is_an_error_and_changes_nothing() -> None:
    state = play(Exclusive.graph)
    with pytest.raises(UndeclaredEvent, match=r"Exclusive: step 'ch' has no event 'z'; it declares 'x', 'y'"):
        advance(state, Completed("ch", "z"))
    assert state == play(Exclusive.graph)


@pytest.mark.parametrize("event", [Completed("unknown", "x"), Parked("unknown"), Failed("unknown", "why")])
def test_a_step_that_does_not_exist_is_an_error(event: Any) -> None:
    with pytest.raises(UnknownStep, match="Exclusive has no step 'unknown'") as caught:
        advance(play(Exclusive.graph), event)
    assert caught.value.hint == "It has: ch, b, c, d, done."


@pytest.mark.parametrize("targets", [None, (), ("d",), ("b", "unknown")])
def test_a_completion_with_a_route_needs_a_choice_among_its_targets(targets: tuple[str, ...] | None) -> None:
    with pytest.raises(RouteError, match=r"Chosen: a\.done"):
        advance(play(Chosen.graph), Completed("a", "done", targets))


def test_a_static_transition_takes_no_other_targets() -> None:
    state = play(Parallel.graph)
    assert advance(state, Completed("a", "done", ("ch", "b")))[0] == advance(state, Completed("a", "done"))[0]
    with pytest.raises(RouteError, match="leads to b, ch, not to b"):
        advance(state, Completed("a", "done", ("b",)))


def test_a_failure_ends_the_instance_and_names_the_step() -> None:
    state, commands = advance(play(Parallel.graph, Completed("a", "done")), Failed("b", "out of paper"))
    assert state.error == Failure("b", "out of paper")
    assert commands == (Fail(Failure("b", "out of paper")),)
    assert state.active == frozenset()


def test_an_instance_can_fail_without_a_failed_step() -> None:
    state, _ = advance(new(Parallel.graph), Failed(None, "unreadable input"))
    assert (state.status, state.error) == ("failed", Failure(None, "unreadable input"))


@pytest.mark.parametrize("last", [Failed("ch", "why"), Cancelled()])
def test_the_end_is_final(last: Any) -> None:
    ended, _ = advance(play(Exclusive.graph), last)
    for event in (Begun(), Completed("ch", "x"), Parked("ch"), Failed("ch", "again"), Cancelled()):
        assert advance(ended, event) == (ended, ())


def test_siblings_continue_while_a_step_waits() -> None:
    state = play(Waiting.graph, Completed("a", "done"), Parked("wait", HOUR, "timeout"))
    assert state.status == "running"
    state = play(state.graph, Completed("a", "done"), Parked("wait"), Parked("wait_for_event"), Completed("b", "done"))
    assert (state.status, set(state.waiting)) == ("waiting", {"wait", "wait_for_event"})


def test_two_waits_end_separately() -> None:
    waits = (Parked("wait"), Parked("wait_for_event"), Completed("b", "done"))
    state = play(Waiting.graph, Completed("a", "done"), *waits, Completed("wait_for_event", "received"))
    assert (state.status, set(state.active)) == ("waiting", {"wait"})
    state, commands = advance(state, Completed("wait", "timeout"))
    assert (state.status, commands) == ("running", (Execute("c", None),))


def test_a_wait_with_a_delay_schedules_one_timer() -> None:
    state = play(Waiting.graph, Completed("a", "done"))
    parked, commands = advance(state, Parked("wait", HOUR, "timeout"))
    assert commands == (ScheduleResume("wait", HOUR, "timeout"),)
    assert advance(parked, Parked("wait", HOUR, "timeout")) == (parked, ())


def test_a_signal_cancels_the_timer_and_the_timer_itself_does_not() -> None:
    state = play(Waiting.graph, Completed("a", "done"), Parked("wait_for_event", HOUR, "timeout"))
    assert advance(state, Completed("wait_for_event", "received"))[1] == (CancelTimer("wait_for_event"),)
    assert advance(state, Completed("wait_for_event", "timeout", by_timer=True))[1] == ()


@pytest.mark.parametrize("last", [Failed("b", "why"), Cancelled()])
def test_the_end_cancels_all_timers(last: Any) -> None:
    waits = (Parked("wait", HOUR, "timeout"), Parked("wait_for_event", HOUR, "timeout"))
    state = play(Waiting.graph, Completed("a", "done"), *waits)
    _, commands = advance(state, last)
    assert commands[:2] == (CancelTimer("wait"), CancelTimer("wait_for_event"))


def test_a_timer_cannot_have_an_undeclared_event() -> None:
    state = play(Waiting.graph, Completed("a", "done"))
    with pytest.raises(UndeclaredEvent):
        advance(state, Parked("b", HOUR, "timeout"))


def test_a_state_is_never_changed_in_place() -> None:
    before = play(Parallel.graph, Completed("a", "done"))
    done = dict(before.done)
    advance(before, Completed("b", "done"))
    advance(before, Failed("b", "why"))
    assert before.done == done
    assert before.active == {"b", "ch"}
    steps: Any = before.done
    with pytest.raises(TypeError):
        steps["b"] = None


def test_a_graph_that_never_reaches_done_fails_its_instance() -> None:
    graph = Graph.build("Stuck", "a", [A, B], {"a": {"done": Choice(("b",))}, "b": {"done": Choice(())}})
    state, commands = advance(play(graph, Completed("a", "done")), Completed("b", "done"))
    assert commands == (Fail(Failure(None, "no path to Done is left")),)
    assert (state.status, state.error, state.active) == ("failed", commands[0].error, frozenset())
    assert replay(graph, [("b", "done", None), ("a", "done", None)]) == state


def test_a_replay_without_results_is_a_started_instance() -> None:
    assert replay(Exclusive.graph, []) == play(Exclusive.graph)


def test_a_replay_uses_the_first_result_of_a_step() -> None:
    assert replay(Exclusive.graph, [("ch", "x", None), ("ch", "y", None)]) == play(
        Exclusive.graph, Completed("ch", "x")
    )


def test_a_replay_refuses_results_that_the_graph_does_not_lead_to() -> None:
    with pytest.raises(GraphChanged, match="has a result of d"):
        replay(Exclusive.graph, [("ch", "x", None), ("d", "done", None)])
