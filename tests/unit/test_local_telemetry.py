"""Telemetry of workflows in memory: in order, outside any lock, in the thread that caused the event."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pgflow import (
    Context,
    Done,
    Ok,
    Retry,
    Snooze,
    TaskContext,
    Unique,
    Wait,
    WaitForEvent,
    Workflow,
    step,
    task,
    telemetry,
)
from pgflow.core.values.names import TELEMETRY
from pgflow.errors import ConfigError, InvalidPayload
from pgflow.local import Local, Storage
from pgflow.local.lock import DeferringLock
from pgflow.telemetry import Event
from tests.worker.event_recorder import EventRecorder, recording
from tests.worker.waiting import PATIENCE, until

Input = dict[str, Any]


@step
def fork(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step
async def branch(ctx: Context[Input]) -> Ok:
    return Ok("done")


left, right, join = branch.named("left"), branch.named("right"), fork.named("join")


class Fan(Workflow[Input], unique=Unique("fan")):
    """Two branches that meet again."""

    initial = fork
    transitions = {fork: {"done": [left, right]}, left: {"done": join}, right: {"done": join}, join: {"done": Done}}


answer = WaitForEvent("answered", timeout=timedelta(days=1)).named("answer")
pause = Wait(timedelta(hours=2)).named("pause")


class Asking(Workflow[Input], unique=Unique("asking")):
    """A wait for a signal or for a day, and a pause."""

    initial = answer
    transitions = {answer: {"received": pause, "timeout": pause}, pause: {"timeout": Done}}


begun, go_on = threading.Event(), threading.Event()


@step
def held(ctx: Context[Input]) -> Ok:
    begun.set()
    assert go_on.wait(PATIENCE)
    return Ok("done")


class Held(Workflow[Input], unique=Unique("held")):
    """A step that runs until `go_on` is set."""

    initial = held
    transitions = {held: {"done": Done}}


WORKFLOWS = (Fan, Asking, Held)


@pytest.fixture
def recorder() -> Iterator[EventRecorder]:
    """Attach to all events."""
    with recording() as listener:
        yield listener


def names(recorder: EventRecorder, instance_id: str) -> list[str]:
    """The events of an instance, in order."""
    return [" ".join(each.name[1:]) for each in recorder.events if each.metadata.get("instance_id") == instance_id]


def test_all_events_are_emitted_in_order_when_drain_returns(recorder: EventRecorder) -> None:
    many = 100
    with Local(workflows=WORKFLOWS) as app:
        Fan.start_many((str(number), {}) for number in range(many))
        app.drain(timeout=PATIENCE)
        counted = Counter(" ".join(each.name[1:]) for each in recorder.events)
        assert (counted["workflow start"], counted["workflow stop"]) == (many, many)
        assert counted["step start"] == counted["step stop"] == counted["workflow transition"] == 4 * many
        of_one = names(recorder, "fan::7")
    ends = ["step stop", "workflow transition", "engine advance"]
    assert of_one[:6] == ["workflow start", "step start", *ends, "step start"]
    assert of_one[-5:] == ["step start", *ends, "workflow stop"]


def test_the_event_of_a_call_precedes_its_return_and_its_effects(recorder: EventRecorder) -> None:
    with Local(workflows=WORKFLOWS) as app:
        Asking.start("1", {}, telemetry={"tenant": "a"})
        app.settle(timeout=PATIENCE)
        before = len(recorder.events)
        Asking.resume("1", "answered", {"ok": True})
        of_call = [" ".join(each.name[1:]) for each in recorder.events[before : before + 5]]
        assert of_call == ["workflow signal", "step resume", "step stop", "workflow transition", "engine advance"]
        assert recorder.events[before].metadata["tenant"] == "a"
        app.settle(timeout=PATIENCE)
        Asking.cancel("1")
        assert recorder.events[-1].name == telemetry.WORKFLOW_CANCEL


def test_waits_and_durations_use_the_virtual_clock_also_after_a_restart(recorder: EventRecorder) -> None:
    storage = Storage()
    with Local(workflows=WORKFLOWS, storage=storage) as app:
        Asking.start("1", {}, telemetry={"tenant": "a"})
        app.settle(timeout=PATIENCE)
    with Local(workflows=WORKFLOWS, storage=storage) as app:
        app.advance_time(timedelta(days=2), timeout=PATIENCE)
    (stop,) = recorder.of(telemetry.WORKFLOW_STOP)
    day, hours = recorder.of(telemetry.STEP_RESUME)
    assert recorder.about(telemetry.STEP_RESUME, "step", "source", "tenant") == [
        ("answer", "timeout", "a"),
        ("pause", "timeout", "a"),
    ]
    assert day.measurements["wait_duration"] == pytest.approx(86_400, abs=5)
    assert hours.measurements["wait_duration"] == pytest.approx(7_200, abs=1e-3)
    assert stop.measurements["duration"] == pytest.approx(93_600, abs=5)
    assert stop.measurements["advance_count"] == 3  # of the second one: an end, a wait, an end


def test_an_interrupted_step_emits_no_stop_event(recorder: EventRecorder) -> None:
    begun.clear()
    go_on.clear()
    with Local(workflows=WORKFLOWS) as app:
        Held.start("1", {})
        assert begun.wait(PATIENCE)
        Held.cancel("1", reason="withdrawn")
        go_on.set()
        app.drain(timeout=PATIENCE)
    assert names(recorder, "held::1") == ["workflow start", "step start", "workflow cancel"]


def test_a_handler_may_call_the_app(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []
    mine = threading.Lock()

    def meddle(event: Event, config: object) -> None:
        with mine:
            heard.append(event)
        assert Fan.get("1").id == "fan::1"
        other = threading.Thread(target=Fan.list)  # the lock is free, so other threads continue
        other.start()
        other.join(PATIENCE)
        assert not other.is_alive()
        if event.name == telemetry.WORKFLOW_STOP and event.metadata["instance_id"] == "fan::1":
            Asking.start("1", {})
            Asking.resume("1", "answered")

    telemetry.attach("meddle", [telemetry.WORKFLOW_STOP, telemetry.WORKFLOW_SIGNAL, telemetry.STEP_STOP], meddle)
    try:
        with Local(workflows=WORKFLOWS) as app:
            Fan.start("1", {})
            app.settle(timeout=PATIENCE)
            assert Asking.get("1").waiting_for[0].step == "pause"
    finally:
        telemetry.detach("meddle")
    assert "failed at" not in caplog.text
    of_asking = [each.name for each in heard if each.metadata["workflow"] == "Asking"]
    assert of_asking == [telemetry.WORKFLOW_SIGNAL, telemetry.STEP_STOP]


def test_a_handler_cannot_wait_for_its_own_local() -> None:
    refused: list[Exception] = []

    def wait(event: Event, config: object) -> None:
        try:
            app.drain(timeout=PATIENCE)
        except ConfigError as error:
            refused.append(error)

    telemetry.attach("wait", [telemetry.WORKFLOW_CANCEL, telemetry.WORKFLOW_STOP], wait)
    try:
        with Local(workflows=WORKFLOWS) as app:
            Asking.start("1", {})
            Asking.cancel("1")
            Fan.start("1", {})
            app.drain(timeout=PATIENCE)
    finally:
        telemetry.detach("wait")
    assert len(refused) == 2


def test_draining_waits_for_the_handlers() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(event: Event, config: object) -> None:
        entered.set()
        assert leave.wait(PATIENCE)

    telemetry.attach("slow", [telemetry.WORKFLOW_STOP], slow)
    try:
        with Local(workflows=WORKFLOWS) as app:
            Fan.start("1", {})
            assert entered.wait(PATIENCE)
            assert Fan.get("1").status == "completed"
            with pytest.raises(TimeoutError, match="a handler of telemetry"):
                app.drain(timeout=0.01)
            leave.set()
            app.drain(timeout=PATIENCE)
    finally:
        leave.set()
        telemetry.detach("slow")


def test_a_handler_that_fails_breaks_no_step(caplog: pytest.LogCaptureFixture) -> None:
    def bad(event: Event, config: object) -> None:
        raise ValueError("no")

    telemetry.attach("bad", telemetry.events(), bad)
    try:
        with Local(workflows=WORKFLOWS) as app:
            Fan.start("1", {})
            Asking.start("1", {})
            assert Asking.resume("1", "answered") in ("kept", "delivered")
            app.settle(timeout=PATIENCE)
            assert Fan.get("1").status == "completed"
    finally:
        telemetry.detach("bad")
    assert sum("'bad' failed" in record.getMessage() for record in caplog.records) == 1


def test_the_metadata_key_of_telemetry_is_reserved(recorder: EventRecorder) -> None:
    with Local(workflows=WORKFLOWS) as app:
        with pytest.raises(InvalidPayload, match=TELEMETRY):
            Fan.start("1", {}, metadata={TELEMETRY: {}})
        with pytest.raises(InvalidPayload, match=r"telemetry\.tenant"):
            Fan.start("1", {}, telemetry={"tenant": object()})
        given = {"tenant": ["a"]}
        Fan.start("1", {}, telemetry=given, metadata={"source": "web"})
        given["tenant"].append("b")
        app.drain(timeout=PATIENCE)
        assert Fan.get("1").metadata == {"source": "web"}
    assert recorder.of(telemetry.WORKFLOW_STOP)[0].metadata["tenant"] == ["a"]


def test_no_event_is_built_without_a_handler() -> None:
    with Local(workflows=WORKFLOWS) as app:
        lock = app._scheduler.lock
        noted: list[object] = []
        lock.defer = noted.append  # type: ignore[method-assign,assignment]
        Fan.start("1", {})
        Asking.start("1", {})
        Asking.resume("1", "answered")
        app.settle(timeout=PATIENCE)
        Asking.cancel("1")
    assert noted == []


# -- the lock


def test_callbacks_run_in_order_after_the_release_of_the_lock() -> None:
    done: list[int] = []
    later: list[Any] = []
    lock = DeferringLock(later.append, lambda: None)

    def first() -> None:
        done.append(1)
        with lock:  # deferred by a callback: it runs later
            lock.defer(lambda: done.append(3))
        other = threading.Thread(target=from_elsewhere)
        other.start()
        other.join(PATIENCE)
        done.append(2)

    def from_elsewhere() -> None:
        with lock:
            lock.defer(lambda: done.append(4))

    with lock, lock:
        lock.defer(first)
        assert done == []
    assert done == [1, 2]
    (rest,) = later  # not in the thread that ran the first ones
    rest()
    assert (done, lock.is_idle) == ([1, 2, 3, 4], True)


def test_an_exception_in_a_callback_leaves_the_others_for_the_next_release() -> None:
    done: list[int] = []
    lock = DeferringLock(lambda what: None, lambda: None)

    def interrupted() -> None:
        raise KeyboardInterrupt

    lock.defer(interrupted)
    lock.defer(lambda: done.append(1))
    with pytest.raises(KeyboardInterrupt):
        lock.run_deferred()
    with lock:
        pass
    assert done == [1]


def test_concurrent_threads_lose_no_event(recorder: EventRecorder) -> None:
    threads = 8
    with Local(workflows=WORKFLOWS) as app:
        Asking.start_many((f"{thread}-{number}", {}) for thread in range(threads) for number in range(20))

        def call(thread: int) -> None:
            for number in range(20):
                Asking.cancel(f"{thread}-{number}")

        callers = [threading.Thread(target=call, args=[thread]) for thread in range(threads)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(PATIENCE)
        app.drain(timeout=PATIENCE)
        until(lambda: len(recorder.of(telemetry.WORKFLOW_CANCEL)) == threads * 20)


@task(retry=Retry(max_attempts=2))
def errand(ctx: TaskContext, what: str) -> str | Snooze:
    if what == "fails" or (what == "fails once" and ctx.attempt == 1):
        raise ValueError(what)
    return Snooze(timedelta(hours=1)) if what == "snoozes" else what


def test_tasks_emit_the_events_that_a_worker_and_a_client_emit() -> None:
    with recording() as listener, Local(tasks=[errand]) as app:
        one = errand.options(telemetry={"trace": "t-1"}, metadata={"by": "test"}).enqueue("fails once")
        app.advance_time(timedelta(minutes=1))
        other = errand.enqueue("snoozes")
        app.settle(PATIENCE)
        other.cancel(reason="why")
        other.retry()
        app.settle(PATIENCE)
        assert one.get().metadata == {"by": "test"}
    seen = [event for event in listener.events if event.name[1] == "task"]
    named = [(event.name[2], event.metadata.get("job"), event.metadata.get("attempt")) for event in seen]
    first, second = one.id, other.id
    assert named == [
        ("enqueue", None, None),
        ("start", first, 1),
        ("exception", first, 1),
        ("start", first, 2),
        ("stop", first, 2),
        ("enqueue", None, None),
        ("start", second, 1),
        ("snooze", second, 1),
        ("cancel", second, None),
        ("retry", second, None),
        ("start", second, 1),
        ("snooze", second, 1),
    ]
    assert seen[0].metadata["jobs"] == (first,)
    failed = seen[2].metadata
    assert (failed["reason"], failed["will_retry"], failed["trace"], failed["runner"]) == (
        "fails once",
        True,
        "t-1",
        "local",
    )
