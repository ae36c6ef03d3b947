"""Workflows behave the same on both stacks."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgflow import Instance
from pgflow.core.models.instance import WaitingFor
from pgflow.errors import (
    AlreadyRunning,
    AmbiguousSignal,
    ConfigError,
    InstanceNotFound,
    InvalidPayload,
    InvalidValue,
    NotActive,
    NotRetryable,
    UndeclaredEvent,
    UnknownStep,
)
from tests.stacks import flows
from tests.stacks.conftest import Stack
from tests.stacks.flows import (
    SCENES,
    SHORTLY,
    Anyone,
    Asking,
    AskingToo,
    Deciding,
    Exclusive,
    Fallible,
    Forked,
    Hurrying,
    Linear,
    Lingering,
    Overlapping,
    Pausing,
    Repeating,
    Routed,
    Scene,
    Signing,
    Worldwide,
    WorldwideToo,
    ann,
)
from tests.worker.waiting import PATIENCE, until

WORKFLOWS = flows.WORKFLOWS
FIRST = {"on": "2030-01-01", "pair": [1, 2]}


def steps(instance: Instance) -> list[str]:
    return [entry.step for entry in instance.history]


def scene(stack: Stack) -> Scene:
    SCENES[stack.value] = Scene()
    return SCENES[stack.value]


# -- which way it goes


def test_a_linear_workflow_completes_and_steps_see_json(stack: Stack) -> None:
    started = Linear.start(stack.value, {"n": 1}, tags=["mine"], metadata={"team": "b", "n": 2})
    done = stack.until(Linear)
    assert (started.id, started.run, started.created) == (f"linear::{stack.value}", done.run, True)
    assert (done.status, done.error, done.waiting_for, done.version) == ("completed", None, (), 1)
    assert (done.id, done.workflow, done.input, done.tags) == (started.id, "Linear", {"n": 1}, ("tagged", "mine"))
    metadata = {"team": "b", "n": 2, "by": "first"}
    assert done.metadata == metadata
    assert done.steps == {"first": FIRST, "left": {"seen": FIRST}, "meet": {"met": ["left"], "meta": metadata}}


def test_history_has_an_entry_for_each_completion_in_order(stack: Stack) -> None:
    Linear.start(stack.value)
    done = stack.until(Linear)
    seen = [(entry.step, entry.event, entry.attempt, entry.output, entry.metadata) for entry in done.history]
    assert seen == [
        ("first", "x", 1, FIRST, {"by": "first"}),
        ("left", "done", 1, done.steps["left"], {}),
        ("meet", "done", 1, done.steps["meet"], {}),
    ]
    assert done.finished_at is not None
    times = [done.created_at, *(entry.at for entry in done.history), done.finished_at]
    assert times == sorted(times)
    assert all(moment.tzinfo is not None for moment in times)
    assert all(timedelta(0) <= entry.duration < timedelta(seconds=PATIENCE) for entry in done.history)


@pytest.mark.parametrize(("event", "branch"), [("x", "left"), ("y", "right")])
def test_a_join_after_exclusive_branches_runs_once(stack: Stack, event: str, branch: str) -> None:
    Exclusive.start(stack.value, {"event": event})
    done = stack.until(Exclusive)
    assert (done.status, steps(done)) == ("completed", ["first", branch, "meet"])


@pytest.mark.parametrize("event", ["x", "y"])
def test_a_fan_out_is_joined(stack: Stack, event: str) -> None:
    Forked.start(stack.value, {"event": event})
    done = stack.until(Forked)
    assert (done.status, sorted(steps(done))) == (
        "completed",
        {"x": ["first", "left", "meet", "right"], "y": ["first"]}[event],
    )
    if event == "x":
        assert (steps(done)[-1], done.steps["meet"]["met"]) == ("meet", ["left", "right"])


def test_branches_overlap_in_threads_and_on_the_loop(stack: Stack) -> None:
    scene(stack)
    Overlapping.start(stack.value)
    done = stack.until(Overlapping)
    assert (done.status, {entry.attempt for entry in done.history}) == ("completed", {1})


@pytest.mark.parametrize("wanted", [["left"], ["right"], ["left", "right"]])
def test_a_route_runs_the_targets_it_chose(stack: Stack, wanted: list[str]) -> None:
    Routed.start(stack.value, {"wanted": wanted})
    done = stack.until(Routed)
    assert (done.status, sorted(steps(done))) == ("completed", sorted(["first", "meet", *wanted]))


def test_a_route_that_chooses_nothing_fails_its_instance(stack: Stack) -> None:
    Routed.start(stack.value, {"wanted": []})
    failed = stack.until(Routed)
    assert failed.error is not None
    assert (failed.status, failed.error["step"], failed.error["type"]) == ("failed", "first", "RouteError")
    assert steps(failed) == ["first"]


# -- how it fails


def test_a_flaky_step_completes_and_its_history_has_the_errors(stack: Stack) -> None:
    Fallible.start(stack.value, {"how": "flaky"})
    done = stack.until(Fallible)
    assert (done.status, steps(done)) == ("completed", ["first", "fallible", "left"])
    entry = done.history[1]
    assert (entry.attempt, entry.output) == (3, {"attempt": 3})
    assert [(error["attempt"], error["reason"], error["type"]) for error in entry.errors] == [
        (1, "attempt 1", "ConnectionError"),
        (2, "attempt 2", "ConnectionError"),
    ]


@pytest.mark.parametrize(
    ("how", "attempts", "reason", "kind"),
    [
        ("raises", 3, "down", "ConnectionError"),
        ("exits", 3, "3", "SystemExit"),
        ("returns", 3, "declined", "Error"),
        ("no_retry", 1, "card expired", "Error"),
        ("never_on", 1, "never again", "Mended"),
        ("nonsense", 1, "step fallible returned dict; a step returns Ok, Async, Error or Snooze", "TypeError"),
        ("undeclared", 1, "Fallible: step 'fallible' has no event 'elsewhere'; it declares 'done'", "UndeclaredEvent"),
        ("unserialisable", 1, None, "InvalidPayload"),
        ("infinite", 1, "fallible.output.n is inf, which JSON cannot hold: use None or a string", "InvalidPayload"),
    ],
)
def test_a_step_that_exhausts_its_attempts_fails_its_instance_alone(
    stack: Stack, how: str, attempts: int, reason: str | None, kind: str
) -> None:
    Fallible.start(stack.value, {"how": how})
    Fallible.start(f"{stack.value}-other")
    failed = stack.until(Fallible)
    assert (failed.status, steps(failed), failed.waiting_for) == ("failed", ["first"], ())
    assert failed.finished_at is not None
    assert failed.error is not None
    assert (failed.error["step"], failed.error["type"], failed.error["attempt"]) == ("fallible", kind, attempts)
    assert reason in (None, failed.error["reason"])
    assert [error["attempt"] for error in failed.error["attempts"]] == list(range(1, attempts))
    assert stack.until(Fallible, value=f"{stack.value}-other").status == "completed"


def test_a_retried_instance_continues_at_the_failed_step(stack: Stack) -> None:
    Fallible.start(stack.value, {"how": "no_retry"})
    failed = stack.until(Fallible)
    Fallible.retry(stack.value)
    until(lambda: Fallible.get(stack.value).finished_at not in (None, failed.finished_at), "the second end")
    again = Fallible.get(stack.value)
    assert (again.run, again.status, steps(again)) == (failed.run, "failed", ["first"])
    Linear.start(stack.value)
    stack.until(Linear)
    with pytest.raises(NotRetryable):
        Linear.retry(stack.value)


def test_a_snooze_does_not_count_as_an_attempt(stack: Stack) -> None:
    Fallible.start(stack.value, {"how": "snoozes", "until": time.time() + 0.15})
    done = stack.until(Fallible)
    assert (done.status, done.steps["fallible"]) == ("completed", {"attempt": 1})


def test_a_step_that_modifies_its_context_changes_nothing_else(stack: Stack) -> None:
    Fallible.start(stack.value, {"how": "spoils"})
    done = stack.until(Fallible)
    assert (done.input, done.steps["first"]) == ({"how": "spoils"}, FIRST)


# -- what it waits for


@pytest.mark.parametrize("payload", [None, {"amount": 3, "notes": ["ä", "\U0001f600"]}, [], 0, False, "text", 1.5])
def test_a_signal_ends_the_wait_and_its_payload_is_the_output(stack: Stack, payload: Any) -> None:
    Asking.start(stack.value)
    waiting = stack.until(Asking, "waiting")
    assert waiting.waiting_for == (WaitingFor("answer", "signal", ("answered",), attempt=1, max_attempts=5),)
    assert Asking.resume(stack.value, "answered", payload) == "delivered"
    done = stack.until(Asking)
    assert done.steps["answer"] == payload
    entry = done.history[1]
    assert (entry.step, entry.event, entry.attempt, entry.metadata) == ("answer", "received", 1, {})


def test_a_signal_that_comes_before_the_wait_is_kept(stack: Stack) -> None:
    Asking.start(stack.value, delay=SHORTLY)
    assert Asking.get(stack.value).status == "pending"
    assert Asking.resume(stack.value, "answered", "early") == "kept"
    assert Asking.resume(stack.value, "answered", "too many") == "kept"
    done = stack.until(Asking)
    assert (done.status, done.steps["answer"]) == ("completed", "early")


def test_each_signal_ends_one_wait_and_is_refused_after_the_last(stack: Stack) -> None:
    Repeating.start(stack.value, delay=SHORTLY)
    Repeating.resume(stack.value, "answered", 1)
    Repeating.resume(stack.value, "answered", 2)
    until(lambda: len(Repeating.get(stack.value).history) == 2, "both answers")
    waiting = stack.until(Repeating, "waiting")
    assert ([wait.step for wait in waiting.waiting_for], waiting.steps) == (["last"], {"answer": 1, "again": 2})
    with pytest.raises(NotActive, match="gone past"):
        Repeating.resume(stack.value, "answered", 3)
    assert Repeating.resume(stack.value, "closed") == "delivered"
    assert stack.until(Repeating).status == "completed"


def test_a_delayed_start_waits_for_its_time(stack: Stack) -> None:
    Linear.start(stack.value, at=datetime.now(UTC) + timedelta(hours=1))
    pending = Linear.get(stack.value)
    (wait,) = pending.waiting_for
    assert (pending.status, wait.step, wait.kind, wait.attempt) == ("pending", "first", "queue", 0)
    assert wait.until is not None
    with pytest.raises(AlreadyRunning):
        Linear.start(stack.value)
    with pytest.raises(ConfigError):
        Linear.start(stack.value, at=datetime(2030, 1, 1))  # noqa: DTZ001 -- what is refused
    Linear.cancel(stack.value)
    assert Linear.get(stack.value).status == "cancelled"


def test_two_waits_end_one_by_one(stack: Stack) -> None:
    Signing.start(stack.value)
    stack.until(Signing, "waiting")
    with pytest.raises(AmbiguousSignal):
        Signing.resume(stack.value, "signed", "nobody")
    assert Signing.resume(stack.value, "signed", "Ann", step=ann) == "delivered"
    until(lambda: steps(Signing.get(stack.value)) == ["first", "ann"], "the first signature")
    half = stack.until(Signing, "waiting")
    assert [wait.step for wait in half.waiting_for] == ["bob"]
    assert Signing.resume(stack.value, "signed", "Bob") == "delivered"
    done = stack.until(Signing)
    assert (done.status, done.steps["ann"], done.steps["bob"]) == ("completed", "Ann", "Bob")


def test_addressed_signals_find_their_waits(stack: Stack) -> None:
    Signing.start(stack.value, delay=SHORTLY)
    assert Signing.resume(stack.value, "signed", "Bob", step="bob") == "kept"
    assert Signing.resume(stack.value, "signed", "Ann", step="ann") == "kept"
    done = stack.until(Signing)
    assert (done.steps["ann"], done.steps["bob"]) == ("Ann", "Bob")


def test_a_wait_without_a_signal_times_out_and_not_early(stack: Stack) -> None:
    Hurrying.start(stack.value)
    done = stack.until(Hurrying)
    assert [(entry.step, entry.event, entry.output) for entry in done.history] == [("hurried", "timeout", {})]
    assert done.history[0].at - done.created_at >= SHORTLY


def test_a_signal_cancels_the_timeout(stack: Stack) -> None:
    Hurrying.start(stack.value)
    assert Hurrying.resume(stack.value, "answered", "yes") in ("delivered", "kept")
    done = stack.until(Hurrying)
    assert (steps(done), done.steps["hurried"]) == (["hurried", "right"], "yes")


def test_a_timer_ends_and_not_early(stack: Stack) -> None:
    Pausing.start(stack.value)
    waiting = stack.until(Pausing, "waiting", "completed")
    for wait in waiting.waiting_for:
        assert (wait.step, wait.kind, wait.events) == ("pause", "timer", ("timeout",))
        assert wait.until is not None
    done = stack.until(Pausing)
    assert (done.status, steps(done)) == ("completed", ["pause", "right"])
    assert done.history[0].at - done.created_at >= timedelta(milliseconds=200)


def test_a_custom_step_waits_and_its_event_is_routed(stack: Stack) -> None:
    Deciding.start(stack.value)
    stack.until(Deciding, "waiting")
    Deciding.resume(stack.value, "yes", "right")
    assert steps(stack.until(Deciding)) == ["decision", "right"]


def test_a_signal_that_no_step_takes_is_refused(stack: Stack) -> None:
    Asking.start(stack.value)
    with pytest.raises(UndeclaredEvent):
        Asking.resume(stack.value, "paid")
    with pytest.raises(UnknownStep):
        Asking.resume(stack.value, "answered", step="nobody")
    with pytest.raises(InvalidPayload):
        Asking.resume(stack.value, "answered", object())
    with pytest.raises(InstanceNotFound):
        Asking.resume("nobody", "answered")
    Asking.resume(stack.value, "answered")
    assert stack.until(Asking).status == "completed"
    with pytest.raises(NotActive):
        Asking.resume(stack.value, "answered")


# -- cancel, and starting again


@pytest.mark.parametrize("event", ["x", "y"])
def test_cancel_stops_an_instance_whose_step_runs(stack: Stack, event: str) -> None:
    seen = scene(stack)
    Lingering.start(stack.value, {"event": event})
    assert seen.begun.wait(PATIENCE)
    (running,) = Lingering.get(stack.value).waiting_for
    assert (running.kind, running.attempt, running.until) == ("running", 1, None)
    Lingering.cancel(stack.value, reason="the customer withdrew")
    if event == "x":
        assert seen.interrupted.wait(PATIENCE)
    seen.go.set()
    ended = Lingering.get(stack.value)
    assert (ended.status, ended.error, ended.waiting_for) == ("cancelled", {"reason": "the customer withdrew"}, ())
    again = Lingering.start(stack.value, {"event": "y"})  # its step ends at once
    done = stack.until(Lingering)
    assert (done.run, done.status) == (again.run, "completed")
    assert again.run > ended.run


def test_cancel_stops_an_instance_that_waits(stack: Stack) -> None:
    Asking.start(stack.value)
    stack.until(Asking, "waiting")
    Asking.cancel(stack.value)
    ended = Asking.get(stack.value)
    assert (ended.status, ended.error, ended.waiting_for) == ("cancelled", None, ())
    assert ended.finished_at is not None
    with pytest.raises(NotActive):
        Asking.resume(stack.value, "answered")
    with pytest.raises(NotActive):
        Asking.cancel(stack.value)
    with pytest.raises(InstanceNotFound):
        Asking.cancel("nobody")


def test_a_key_is_taken_while_its_instance_is_active_and_free_after(stack: Stack) -> None:
    first = Asking.start(stack.value)
    before = stack.until(Asking, "waiting")
    with pytest.raises(AlreadyRunning):
        Asking.start(stack.value)
    assert Asking.get(stack.value) == before
    (known, new) = Asking.start_many([(stack.value, {}), (f"{stack.value}-b", {})])
    assert (known.run, known.created, new.created) == (first.run, False, True)
    Asking.resume(stack.value, "answered")
    stack.until(Asking)
    again = Asking.start(stack.value)
    assert again.run > first.run
    assert stack.until(Asking, "waiting").history[0].step == "first"
    listed = [each.run for each in Asking.list() if each.id == again.id]
    assert listed == [again.run, first.run]


def test_a_scope_bounds_the_uniqueness_of_a_key(stack: Stack) -> None:
    Asking.start(stack.value)
    AskingToo.start(stack.value)
    assert (Asking.get(stack.value).workflow, AskingToo.get(stack.value).workflow) == ("Asking", "AskingToo")
    Worldwide.start(stack.value)
    with pytest.raises(AlreadyRunning):
        WorldwideToo.start(stack.value)
    one, two = Anyone.start(stack.value), Anyone.start(stack.value)
    assert one.id != two.id
    assert one.id.startswith(f"visit::{stack.value}::")
    stack.until(Anyone, "waiting", value=one.id)
    assert Anyone.resume(one.id, "answered") == "delivered"
    assert stack.until(Anyone, value=one.id).status == "completed"
    assert Anyone.get(two.id).is_active


def test_one_invalid_start_refuses_all_of_its_call(stack: Stack) -> None:
    with pytest.raises(InvalidValue):
        Linear.start_many([(stack.value, {}), ("two words", {})])
    with pytest.raises(InvalidPayload):
        Linear.start(stack.value, {"n": float("nan")})
    with pytest.raises(InstanceNotFound):
        Linear.get(stack.value)


def test_48_started_at_once_are_all_completed(stack: Stack) -> None:
    started = Forked.start_many([(f"{stack.value}-{number}", {"n": number}) for number in range(48)])
    assert all(each.created for each in started)
    for number in range(48):
        done = stack.until(Forked, value=f"{stack.value}-{number}")
        assert (done.status, done.input, len(done.history)) == ("completed", {"n": number}, 4)
    page = [each for each in Forked.list(status="completed", limit=48) if each.run >= started[0].run]
    assert [each.run for each in page] == sorted((each.run for each in started), reverse=True)
    assert (page[0].steps, page[0].history) == ({}, ())
