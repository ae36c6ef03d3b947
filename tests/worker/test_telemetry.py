"""The telemetry of workers and clients, on a real database."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from pgflow import (
    Context,
    Done,
    Error,
    Ok,
    Pgflow,
    Retry,
    Snooze,
    Unique,
    WaitForEvent,
    Workflow,
    step,
    telemetry,
)
from pgflow.core.values.names import TELEMETRY
from pgflow.database.connect import Connection
from pgflow.errors import InvalidPayload, NotActive
from pgflow.telemetry import Collector, Event
from tests.worker.conftest import Work
from tests.worker.db_helpers import one, rows, until_all_ended, until_status
from tests.worker.event_recorder import EventRecorder, recording
from tests.worker.waiting import PATIENCE, until
from tests.worker.waiting_flows import Patient

Input = dict[str, Any]

QUICKLY = Retry(max_attempts=3, base=timedelta(milliseconds=5))


@step
def first(ctx: Context[Any]) -> Ok:
    return Ok("done", {"n": 1}, metadata={"bank": "b"})


@step
async def second(ctx: Context[Input]) -> Ok:
    return Ok("done")


class Line(Workflow[Input], unique=Unique("line"), version=4):
    """Two steps in a row."""

    initial = first
    transitions = {first: {"done": second}, second: {"done": Done}}


@step
def fork(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step
def left(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step
def right(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step
def join(ctx: Context[Input]) -> Ok:
    return Ok("done")


class Fan(Workflow[Input], unique=Unique("fan")):
    """Two branches that meet again."""

    initial = fork
    transitions = {fork: {"done": [left, right]}, left: {"done": join}, right: {"done": join}, join: {"done": Done}}


@step(retry=QUICKLY)
def shaky(ctx: Context[Input]) -> Ok | Error | Snooze:
    if ctx.attempt == 1:
        raise ConnectionError("not yet")
    if ctx.attempt == 2:
        return Error("nor now")
    return Ok("done")


class Shaky(Workflow[Input], unique=Unique("shaky")):
    """Comes through in the third attempt."""

    initial = shaky
    transitions = {shaky: {"done": Done}}


@step(retry=Retry(max_attempts=1))
def broken(ctx: Context[Input]) -> Ok:
    raise ValueError("never")


class Broken(Workflow[Input], unique=Unique("broken")):
    """Completes one step and fails at the next."""

    initial = first
    transitions = {first: {"done": broken}, broken: {"done": Done}}


slept: set[str] = set()


@step
def sleepy(ctx: Context[Input]) -> Ok | Snooze:
    if ctx.value in slept:
        return Ok("done")
    slept.add(ctx.value)
    return Snooze(timedelta(milliseconds=5))


class Sleepy(Workflow[Input], unique=Unique("sleepy")):
    """Snoozes once."""

    initial = sleepy
    transitions = {sleepy: {"done": Done}}


@step(transactional=True)
def book(ctx: Context[Input]) -> Ok:
    return Ok("done")


class Books(Workflow[Input], unique=Unique("books")):
    """One transactional step."""

    initial = book
    transitions = {book: {"done": Done}}


go_on = threading.Event()


@step
def held(ctx: Context[Input]) -> Ok:
    assert go_on.wait(PATIENCE)
    return Ok("done")


class Held(Workflow[Input], unique=Unique("held")):
    """A step that runs until it is let go."""

    initial = held
    transitions = {held: {"done": Done}}


@step
def meddler(ctx: Context[Input]) -> Ok:
    return Ok("done", metadata={TELEMETRY: {"tenant": "b"}})


class Meddler(Workflow[Input], unique=Unique("meddler")):
    """Writes where it may not."""

    initial = meddler
    transitions = {meddler: {"done": Done}}


class Counted(BaseModel):
    """An input with a type."""

    count: int


class Typed(Workflow[Counted], unique=Unique("typed")):
    """Reads its input."""

    initial = first
    transitions = {first: {"done": Done}}


one_, two_, three_ = (WaitForEvent(name).named(name) for name in ("one", "two", "three"))


class Wide(Workflow[Input], unique=Unique("wide")):
    """Waits for three signals at once."""

    initial = fork
    transitions = {
        fork: {"done": [one_, two_, three_]},
        one_: {"received": join},
        two_: {"received": join},
        three_: {"received": join},
        join: {"done": Done},
    }


pages = [book.named(f"page_{number}") for number in range(6)]


class Library(Workflow[Input], unique=Unique("library")):
    """Transactional steps side by side."""

    initial = fork
    transitions = {fork: {"done": pages}, **{page: {"done": join} for page in pages}, join: {"done": Done}}


WORKFLOWS = (Line, Fan, Patient, Shaky, Broken, Sleepy, Books, Held, Meddler, Typed, Wide, Library)
TENANT = {"tenant": "a", "instance_id": "mine", "step": "mine"}


@pytest.fixture
def recorder() -> Iterator[EventRecorder]:
    """Listen to everything."""
    with recording() as listener:
        yield listener


def check_subject(event: Event, instance_id: str, workflow: str, version: int) -> None:
    """The metadata of all events of an instance that was started with TENANT."""
    keys = ("tenant", "instance_id", "workflow", "workflow_version")
    assert tuple(event.metadata[key] for key in keys) == ("a", instance_id, workflow, version)


def test_a_line_emits_all_events_from_start_to_stop(recorder: EventRecorder, work: Work) -> None:
    """H2, H3, H5, H6, H7, H11, H13, H14, H16"""
    Line.start("1", {"b": 1, "a": 2}, telemetry=TENANT)
    work()
    (stop,) = recorder.until(telemetry.WORKFLOW_STOP)
    of_line = [event for event in recorder.events if event.name != telemetry.RUNNER_INIT]
    for event in of_line:
        check_subject(event, "line::1", "Line", 4)
    assert [event.name[1:] for event in of_line] == [
        ("workflow", "start"),
        ("step", "start"),
        ("step", "stop"),
        ("workflow", "transition"),
        ("engine", "advance"),
        ("step", "start"),
        ("step", "stop"),
        ("workflow", "transition"),
        ("engine", "advance"),
        ("workflow", "stop"),
    ]
    start = of_line[0]
    assert start.measurements["system_time"] > 1_600_000_000_000_000_000
    assert (start.metadata["initial_step"], start.metadata["context_keys"], start.metadata["runner"]) == (
        "first",
        ("a", "b"),
        "worker",
    )
    assert recorder.about(telemetry.STEP_START, "step", "step_key", "concurrent", "active_steps_count", "attempt") == [
        ("first", "first", False, 1, 1),
        ("second", "second", False, 1, 1),
    ]
    assert recorder.about(telemetry.STEP_STOP, "step", "event", "has_context_updates", "has_metadata_updates") == [
        ("first", "done", True, True),
        ("second", "done", False, False),
    ]
    assert all(0 <= event.measurements["duration"] < 30 for event in recorder.of(telemetry.STEP_STOP))
    assert recorder.about(telemetry.WORKFLOW_TRANSITION, "from_step", "event", "targets", "fan_out") == [
        ("first", "done", ("second",), False),
        ("second", "done", ("done",), False),
    ]
    assert recorder.about(telemetry.ENGINE_ADVANCE, "status_before", "status_after", "iteration") == [
        ("running", "running", 1),
        ("running", "completed", 2),
    ]
    advances = recorder.of(telemetry.ENGINE_ADVANCE)
    assert [event.measurements["completed_in_advance"] for event in advances] == [1, 1]
    assert [event.measurements["active_steps_count"] for event in advances] == [1, 0]
    assert all(event.measurements["duration"] > 0 for event in advances)
    assert (stop.measurements["step_count"], stop.measurements["advance_count"]) == (2, 2)
    assert 0 < stop.measurements["duration"] < 60
    assert (stop.metadata["status"], stop.metadata["completed_steps"]) == ("completed", ("first", "second"))


def test_a_worker_that_is_ready_emits_an_event(recorder: EventRecorder, work: Work) -> None:
    """H12"""
    work({"default": 3})
    (init,) = recorder.until(telemetry.RUNNER_INIT)
    assert set(init.metadata) == {"name", "runner", "storage", "pid", "queues", "schema"}
    assert (init.metadata["storage"], init.metadata["queues"]) == ("postgresql", {"default": 3})


def test_a_fan_out_has_a_transition_to_many_and_its_join_runs_once(recorder: EventRecorder, work: Work) -> None:
    """H5, H17"""
    Fan.start("1", {}, telemetry=TENANT)
    work()
    (stop,) = recorder.until(telemetry.WORKFLOW_STOP)
    check_subject(stop, "fan::1", "Fan", 1)
    transitions = recorder.about(telemetry.WORKFLOW_TRANSITION, "from_step", "targets", "fan_out")
    assert transitions[0] == ("fork", ("left", "right"), True)
    assert sorted(targets for _, targets, _ in transitions[1:3]) == [(), ("join",)]
    assert transitions[3] == ("join", ("done",), False)
    assert recorder.of(telemetry.WORKFLOW_TRANSITION)[0].measurements["targets_count"] == 2
    starts = dict(recorder.about(telemetry.STEP_START, "step", "concurrent"))
    assert (starts["fork"], starts["join"]) == (False, False)
    assert starts["left"] or starts["right"]
    assert sorted(recorder.about(telemetry.STEP_STOP, "step")) == ["fork", "join", "left", "right"]
    assert stop.measurements["step_count"] == 4


def test_the_end_of_a_wait_is_emitted_with_its_source_and_duration(
    recorder: EventRecorder, work: Work, conn: Connection
) -> None:
    """H9, H10"""
    Patient.start("1", {}, telemetry=TENANT)
    work()
    recorder.until(telemetry.STEP_ASYNC)
    until_status(Patient, "1", "waiting")
    assert Patient.resume("1", "approved") == "delivered"
    recorder.until(telemetry.STEP_ASYNC, 3)
    conn.execute("update pgflow.jobs set parked_at = parked_at - interval '1 hour'")
    Patient.resume("1", "arrived")
    recorder.until(telemetry.WORKFLOW_STOP)
    assert recorder.about(telemetry.STEP_ASYNC, "step", "instance_status") == [
        ("approval", "waiting"),
        ("pause", "waiting"),
        ("courier", "waiting"),
    ]
    assert recorder.about(telemetry.STEP_RESUME, "step", "resume_event", "source") == [
        ("approval", "approved", "external"),
        ("pause", "timeout", "timeout"),
        ("courier", "received", "external"),
    ]
    waits = [event.measurements["wait_duration"] for event in recorder.of(telemetry.STEP_RESUME)]
    assert 0 < waits[0] < 60
    assert 0.03 <= waits[1] < 60
    assert 3600 < waits[2] < 3660
    assert [event.measurements["duration"] for event in recorder.of(telemetry.STEP_STOP)] == [None] * 3
    signals = recorder.about(telemetry.WORKFLOW_SIGNAL, "instance_id", "signal", "outcome", "in_transaction")
    assert signals[1] == ("patient::1", "arrived", "delivered", False)
    check_subject(recorder.of(telemetry.STEP_RESUME)[2], "patient::1", "Patient", 1)


def test_a_signal_that_came_before_the_wait_ends_it_after_no_time(recorder: EventRecorder, work: Work) -> None:
    Patient.start("1", {})
    Patient.resume("1", "approved")
    work()
    (resume, *_) = recorder.until(telemetry.STEP_RESUME)
    assert (resume.metadata["step"], resume.metadata["source"]) == ("approval", "external")
    assert resume.measurements["wait_duration"] == 0.0
    assert recorder.about(telemetry.WORKFLOW_SIGNAL, "outcome") == ["kept"]


def test_failed_attempts_are_emitted_and_whether_they_are_retried(recorder: EventRecorder, work: Work) -> None:
    """H8"""
    Shaky.start("1", {}, telemetry=TENANT)
    work()
    recorder.until(telemetry.WORKFLOW_STOP)
    assert recorder.about(telemetry.STEP_EXCEPTION, "kind", "reason", "attempt", "will_retry") == [
        ("ConnectionError", "not yet", 1, True),
        ("Error", "nor now", 2, True),
    ]
    traced, plain = recorder.of(telemetry.STEP_EXCEPTION)
    assert "ConnectionError: not yet" in traced.metadata["stacktrace"]
    assert plain.metadata["stacktrace"] is None
    assert traced.measurements["duration"] > 0
    assert recorder.about(telemetry.STEP_RETRY, "step", "attempt", "max_attempts") == [("shaky", 1, 3), ("shaky", 2, 3)]
    assert recorder.about(telemetry.STEP_START, "attempt") == [1, 2, 3]
    assert len(recorder.of(telemetry.WORKFLOW_START)) == 1
    assert recorder.of(telemetry.WORKFLOW_EXCEPTION) == []


def test_a_failure_is_emitted_with_its_step_and_reason(recorder: EventRecorder, work: Work) -> None:
    """H4"""
    Broken.start("1", {}, telemetry=TENANT)
    work()
    (failed,) = recorder.until(telemetry.WORKFLOW_EXCEPTION)
    check_subject(failed, "broken::1", "Broken", 1)
    keys = ("kind", "reason", "status", "failed_step", "step_count", "advance_count", "runner")
    assert tuple(failed.metadata[key] for key in keys) == ("ValueError", "never", "failed", "broken", 1, 2, "worker")
    assert "ValueError: never" in failed.metadata["stacktrace"]
    assert failed.measurements["duration"] > 0
    assert recorder.about(telemetry.STEP_EXCEPTION, "step", "will_retry") == [("broken", False)]
    assert recorder.of(telemetry.STEP_RETRY) == recorder.of(telemetry.WORKFLOW_STOP) == []
    Broken.retry("1")
    assert recorder.about(telemetry.WORKFLOW_RETRY, "instance_id", "workflow") == [("broken::1", "Broken")]
    assert len(recorder.until(telemetry.WORKFLOW_EXCEPTION, 2)) == 2


def test_a_snooze_is_emitted(recorder: EventRecorder, work: Work) -> None:
    Sleepy.start("1", {})
    work()
    recorder.until(telemetry.WORKFLOW_STOP)
    (snooze,) = recorder.of(telemetry.STEP_SNOOZE)
    assert (snooze.metadata["step"], snooze.measurements["delay"]) == ("sleepy", 0.005)


def test_a_transactional_step_emits_the_same_events(recorder: EventRecorder, work: Work) -> None:
    Books.start("1", {})
    work()
    recorder.until(telemetry.WORKFLOW_STOP)
    assert recorder.about(telemetry.STEP_STOP, "step", "event") == [("book", "done")]
    assert recorder.about(telemetry.WORKFLOW_TRANSITION, "targets") == [("done",)]


def test_a_cancel_is_emitted_by_its_caller_and_whether_it_may_roll_back(recorder: EventRecorder, app: Pgflow) -> None:
    Line.start("1", {})
    Line.start("2", {})
    Line.cancel("1", reason="withdrawn")
    with app._transport.pool.connection() as conn, conn.transaction():
        Line.cancel("line::2", conn=conn)
    keys = ("instance_id", "status", "reason", "in_transaction")
    assert recorder.about(telemetry.WORKFLOW_CANCEL, *keys) == [
        ("line::1", "cancelled", "withdrawn", False),
        ("line::2", "cancelled", None, True),
    ]


def test_a_refused_call_emits_nothing(recorder: EventRecorder, app: Pgflow) -> None:
    Line.start("1", {})
    Line.cancel("1")
    with pytest.raises(Exception, match="cannot be cancelled"):
        Line.cancel("1")
    assert len(recorder.of(telemetry.WORKFLOW_CANCEL)) == 1


def test_a_rescue_is_emitted_with_the_number_of_jobs(recorder: EventRecorder, work: Work, conn: Connection) -> None:
    dead = one(
        conn,
        "insert into pgflow.workers (node, pid, queues, version, lease_expires_at) "
        "values ('gone', 1, '{default}', '0', now() - interval '1 minute') returning id",
    )
    Line.start("1", {})
    conn.execute("update pgflow.jobs set state = 'running', worker = %s, attempt = 1", [dead])
    work()
    (rescue,) = recorder.until(telemetry.RUNNER_RESCUE)
    assert (rescue.measurements["jobs"], rescue.metadata["queues"]) == (1, ("default",))
    recorder.until(telemetry.WORKFLOW_STOP)


def test_a_fenced_result_emits_nothing(recorder: EventRecorder, work: Work, conn: Connection) -> None:
    go_on.clear()
    Held.start("1", {})
    work()
    recorder.until(telemetry.STEP_START)
    conn.execute("update pgflow.jobs set attempt = 3")  # as if it had been freed and claimed since
    go_on.set()
    recorder.until(telemetry.WORKFLOW_STOP)
    assert recorder.about(telemetry.STEP_START, "attempt")[0] == 1
    (attempt,) = recorder.about(telemetry.STEP_STOP, "attempt")
    assert attempt > 1


def test_a_handler_that_fails_breaks_no_step(work: Work, caplog: pytest.LogCaptureFixture) -> None:
    def bad(event: Event, config: object) -> None:
        raise ValueError("no")

    telemetry.attach("bad", telemetry.events(), bad)
    try:
        Fan.start("1", {})
        work()
        assert until_status(Fan, "1").status == "completed"
    finally:
        telemetry.detach("bad")
    assert sum("'bad' failed" in record.getMessage() for record in caplog.records) == 1


def test_what_the_caller_gave_along_is_kept_apart_from_the_instances_metadata(work: Work, conn: Connection) -> None:
    """H13"""
    Line.start("1", {}, telemetry={"tenant": "a"}, metadata={"source": "web"})
    assert Line.get("1").metadata == {"source": "web"}
    assert Line.list()[0].metadata == {"source": "web"}
    work()
    assert until_status(Line, "1").metadata == {"source": "web", "bank": "b"}
    kept = one(conn, "select metadata -> %s from pgflow.instances", TELEMETRY)
    assert (kept if isinstance(kept, dict) else json.loads(kept)) == {"tenant": "a"}


def test_it_outlives_the_worker_that_began(recorder: EventRecorder, work: Work) -> None:
    """H13"""
    Patient.start("1", {}, telemetry=TENANT)
    beginning = work()
    recorder.until(telemetry.STEP_ASYNC)
    beginning.stop()
    Patient.resume("1", "approved")
    Patient.resume("1", "arrived")
    work()
    (stop,) = recorder.until(telemetry.WORKFLOW_STOP)
    check_subject(stop, "patient::1", "Patient", 1)
    assert stop.metadata["completed_steps"] == ("approval", "pause", "courier")


def test_the_key_it_is_stored_under_is_reserved(app: Pgflow, work: Work) -> None:
    with pytest.raises(InvalidPayload, match=TELEMETRY):
        Line.start("1", {}, metadata={TELEMETRY: {}})
    with pytest.raises(InvalidPayload, match=r"telemetry\.tenant"):
        Line.start("1", {}, telemetry={"tenant": object()})
    Meddler.start("1", {})
    work()
    failed = until_status(Meddler, "1")
    assert failed.error is not None
    assert (failed.status, failed.error["type"], failed.error["attempt"]) == ("failed", "InvalidPayload", 1)


def test_a_collector_counts_what_a_worker_does(work: Work) -> None:
    """H19"""
    with Collector() as collector:
        Line.start_many((str(number), {}) for number in range(5))
        Broken.start("1", {})
        work()
        until(lambda: collector.read()["pgflow.workflow.stop.count"].get(("Line",)) == 5)
        until(lambda: collector.read()["pgflow.workflow.exception.count"] == {("Broken", "broken"): 1})
        read = collector.read()
    assert read["pgflow.workflow.start.count"] == {("Line",): 5, ("Broken",): 1}
    assert read["pgflow.step.stop.duration"]["Line", "first"].count == 5
    assert read["pgflow.step.exception.count"] == {("Broken", "broken", "ValueError"): 1}


# -- an instance that fails without a step of it at fault


def test_an_input_that_no_longer_fits_its_model_emits_a_failure(
    recorder: EventRecorder, work: Work, conn: Connection
) -> None:
    Typed.start("1", {"count": 3}, telemetry=TENANT)
    conn.execute("""update pgflow.instances set input = '{"count": "many"}'""")
    work()
    (failed,) = recorder.until(telemetry.WORKFLOW_EXCEPTION)
    check_subject(failed, "typed::1", "Typed", 1)
    assert (failed.metadata["kind"], failed.metadata["failed_step"]) == ("InvalidInput", "first")


@pytest.mark.parametrize(
    ("damage", "kind", "tenants"),
    [
        ("update pgflow.step_results set event = 'gone'", "UndeclaredEvent", ["a"]),
        ("update pgflow.step_results set step = 'gone'", "GraphChanged", ["a"]),
        ("update pgflow.instances set metadata = %s", "InvalidPayload", []),
    ],
    ids=["event", "step", "metadata"],
)
def test_an_unreadable_instance_emits_one_failure(
    recorder: EventRecorder, work: Work, conn: Connection, damage: str, kind: str, tenants: list[str]
) -> None:
    Wide.start("1", {}, telemetry=TENANT)
    beginning = work()
    recorder.until(telemetry.STEP_ASYNC, 3)
    beginning.stop()
    conn.execute(damage.encode(), [('{"a":' * 70 + "1" + "}" * 70)] if "%s" in damage else [])
    for signal in ("one", "two", "three"):  # so that several tokens are read at once
        conn.execute("select pgflow.resume('Wide', '1', %s)", [signal])
    work()
    (failed,) = recorder.until(telemetry.WORKFLOW_EXCEPTION)
    assert one(conn, "select status from pgflow.instances") == "failed"
    about = failed.metadata
    assert (about["instance_id"], about["workflow"], about["workflow_version"]) == ("wide::1", "Wide", 1)
    assert [about[key] for key in ("tenant",) if key in about] == tenants
    assert (about["kind"], about["status"], about["failed_step"] in ("one", "two", "three")) == (kind, "failed", True)
    assert "stored data cannot be read" in about["reason"]
    assert 0 < failed.measurements["duration"] < 60
    work()
    assert len(recorder.of(telemetry.WORKFLOW_EXCEPTION)) == 1


def test_an_instance_whose_worker_died_in_each_attempt_emits_a_failure(
    recorder: EventRecorder, work: Work, conn: Connection
) -> None:
    Broken.start("1", {}, telemetry=TENANT)
    as_rescue_leaves_it = "kind = 'advance', state = 'ready', attempt = 5, crashes = 3"
    conn.execute(f"update pgflow.jobs set {as_rescue_leaves_it}".encode())  # noqa: S608 -- it stands above
    work()
    (failed,) = recorder.until(telemetry.WORKFLOW_EXCEPTION)
    check_subject(failed, "broken::1", "Broken", 1)
    assert (failed.metadata["kind"], failed.metadata["failed_step"]) == ("WorkerLost", "first")
    (lost,) = recorder.of(telemetry.STEP_EXCEPTION)
    assert (lost.metadata["attempt"], lost.metadata["will_retry"], lost.measurements["duration"]) == (5, False, None)


def test_a_result_that_cannot_be_stored_emits_a_failure(recorder: EventRecorder, work: Work, conn: Connection) -> None:
    conn.execute("alter table pgflow.step_results add constraint no check (event <> 'done') not valid")
    try:
        Line.start("1", {})
        work()
        (failed,) = recorder.until(telemetry.WORKFLOW_EXCEPTION)
        assert (failed.metadata["kind"], failed.metadata["failed_step"]) == ("CheckViolation", "first")
        assert recorder.of(telemetry.STEP_STOP) == []
    finally:
        conn.execute("alter table pgflow.step_results drop constraint no")


# -- who is interrupted, and who takes over


def test_an_interrupted_step_emits_no_further_event(recorder: EventRecorder, work: Work) -> None:
    go_on.clear()
    Held.start("1", {})
    work()
    recorder.until(telemetry.STEP_START)
    Held.cancel("1")
    go_on.set()
    Line.start("1", {})
    recorder.until(telemetry.WORKFLOW_STOP)
    assert [each.name[1:] for each in recorder.events if each.metadata.get("workflow") == "Held"] == [
        ("workflow", "start"),
        ("step", "start"),
        ("workflow", "cancel"),
    ]


def test_a_duration_counts_from_the_start_call(recorder: EventRecorder, work: Work, conn: Connection) -> None:
    Patient.start("1", {})
    beginning = work()
    recorder.until(telemetry.STEP_ASYNC)
    beginning.stop()
    conn.execute("update pgflow.instances set created_at = created_at - interval '1 hour'")
    conn.execute("update pgflow.jobs set parked_at = parked_at - interval '1 hour'")
    Patient.resume("1", "approved")
    Patient.resume("1", "arrived")
    work()
    (stop,) = recorder.until(telemetry.WORKFLOW_STOP)
    assert 3600 < stop.measurements["duration"] < 3660
    assert 3600 < recorder.of(telemetry.STEP_RESUME)[0].measurements["wait_duration"] < 3660


def test_a_timer_that_ends_under_another_worker_emits_the_whole_wait(
    recorder: EventRecorder, work: Work, conn: Connection
) -> None:
    Patient.start("1", {})
    Patient.resume("1", "approved")
    beginning = work()
    recorder.until(telemetry.STEP_STOP)
    until_status(Patient, "1", "waiting")
    beginning.stop()
    conn.execute("update pgflow.jobs set parked_at = parked_at - interval '1 hour' where step = 'pause'")
    if recorder.about(telemetry.STEP_RESUME, "step") == ["approval"]:
        work()
    recorder.until(telemetry.STEP_RESUME, 2)
    assert recorder.about(telemetry.STEP_RESUME, "step", "source") == [("approval", "external"), ("pause", "timeout")]


# -- under load


def test_under_load_each_completion_is_emitted_once_by_one_of_two_workers(recorder: EventRecorder, work: Work) -> None:
    many = 120
    work({"default": 8})
    work({"default": 8})
    Fan.start_many((str(number), {}) for number in range(many))
    Line.start_many((str(number), {}) for number in range(many))
    Wide.start_many((str(number), {}) for number in range(many))
    for number in range(many):
        for signal in ("one", "two", "three"):
            Wide.resume(str(number), signal)
    recorder.until(telemetry.WORKFLOW_STOP, 3 * many)
    counted = Counter(
        (each.metadata["workflow"], each.name[1:]) for each in recorder.events if each.name[1] != "runner"
    )
    for workflow, steps in (("Fan", 4), ("Line", 2), ("Wide", 5)):
        each = {
            ("workflow", "start"): many,
            ("workflow", "stop"): many,
            ("workflow", "transition"): steps * many,
            ("step", "stop"): steps * many,
            ("step", "start"): steps * many,
        }
        assert {name: counted[workflow, name] for name in each} == each
    assert counted["Wide", ("step", "resume")] == 3 * many
    assert counted["Wide", ("workflow", "signal")] == 3 * many
    completed: Counter[str] = Counter()
    for event in recorder.of(telemetry.ENGINE_ADVANCE):
        completed[event.metadata["workflow"]] += event.measurements["completed_in_advance"]
    assert completed == {"Fan": 4 * many, "Line": 2 * many, "Wide": 5 * many}
    check_order(recorder)


def test_a_recorded_result_is_emitted_although_its_instance_was_cancelled(
    recorder: EventRecorder, work: Work, conn: Connection
) -> None:
    many = 150
    Library.start_many((str(number), {}) for number in range(many))
    work({"default": 12})
    work({"default": 12})
    recorder.until(telemetry.STEP_STOP, 5)
    for number in range(many):
        try:
            Library.cancel(str(number))
        except NotActive:
            continue
    ended = until_all_ended(conn)
    assert ended["cancelled"] > 10
    recorded = {(run, key) for run, key in rows(conn, "select run, step from pgflow.step_results")}
    until(lambda: len(recorder.of(telemetry.STEP_STOP)) >= len(recorded), "the end of each step")
    stops = recorder.about(telemetry.STEP_STOP, "run", "step")
    assert (len(stops), set(stops)) == (len(recorded), recorded)
    assert len(recorder.of(telemetry.WORKFLOW_CANCEL)) == ended["cancelled"]
    assert len(recorder.of(telemetry.WORKFLOW_STOP)) == ended.get("completed", 0)


def check_order(recorder: EventRecorder) -> None:
    """The events of each instance are in order: its start first, its stop last, a step's start before its stop."""
    by_run: dict[int, list[Event]] = {}
    for event in recorder.events:
        if event.metadata.get("run") is not None:
            by_run.setdefault(event.metadata["run"], []).append(event)
    for events in by_run.values():
        of_runner = [each.name for each in events]
        assert of_runner[0] == telemetry.WORKFLOW_START
        steps = [(each.metadata["step"], each.name) for each in events if each.name[1] == "step"]
        for step_ in {step_ for step_, _ in steps}:
            own = [name for other, name in steps if other == step_]
            assert (own[0], own[-1]) == (telemetry.STEP_START, telemetry.STEP_STOP)
