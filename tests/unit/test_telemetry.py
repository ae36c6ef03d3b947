"""Events reach the attached handlers and affect nothing else; log lines and metrics have the expected content."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgflow import telemetry
from pgflow.errors import AlreadyAttached, ConfigError, NotAttached
from pgflow.telemetry import Collector, Event, InstanceRef, Name, bus, emit, metrics, task_events
from pgflow.telemetry.emit import AttemptRef
from pgflow.telemetry.task_events import TaskRef

SUBJECT = InstanceRef("orderid::1", "OrderFlow", 3, 7, {"tenant": "a", "instance_id": "mine", "workflow_version": 0})
STEP = AttemptRef(SUBJECT, "charge", "Charge", 1, "default", 12)
FAILURE: dict[str, Any] = {"kind": "ValueError", "reason": "no\n good", "stacktrace": "Traceback"}
COUNTS: dict[str, Any] = {"step_count": 2, "advance_count": 4}

# How each event is emitted here, its measurements, and its metadata beyond that of all events of an instance.
EMITTED: dict[Name, tuple[Callable[[], None], set[str], set[str]]] = {
    telemetry.WORKFLOW_START: (
        lambda: emit.workflow_start(SUBJECT, initial_step="charge", context_keys=["b", "a"]),
        {"system_time"},
        {"initial_step", "context_keys", "runner"},
    ),
    telemetry.WORKFLOW_STOP: (
        lambda: emit.workflow_stop(SUBJECT, duration=1.5, completed_steps=["charge", "ship"], advance_count=4),
        {"duration", "step_count", "advance_count"},
        {"status", "completed_steps", "runner"},
    ),
    telemetry.WORKFLOW_EXCEPTION: (
        lambda: emit.workflow_exception(SUBJECT, duration=1.5, failed_step="charge", **FAILURE, **COUNTS),
        {"duration"},
        {"kind", "reason", "stacktrace", "status", "failed_step", "runner", "step_count", "advance_count"},
    ),
    telemetry.WORKFLOW_TRANSITION: (
        lambda: emit.workflow_transition(SUBJECT, from_step="charge", event="paid", targets=["ship", "mail"]),
        {"targets_count"},
        {"from_step", "event", "targets", "fan_out"},
    ),
    telemetry.STEP_START: (
        lambda: emit.step_start(STEP, active_steps_count=2),
        {"system_time"},
        {"step", "step_key", "step_name", "attempt", "queue", "worker", "concurrent", "active_steps_count"},
    ),
    telemetry.STEP_STOP: (
        lambda: emit.step_stop(
            STEP, event="paid", duration=0.0123, has_context_updates=True, has_metadata_updates=False
        ),
        {"duration"},
        {
            "step",
            "step_key",
            "step_name",
            "attempt",
            "queue",
            "worker",
            "event",
            "has_context_updates",
            "has_metadata_updates",
        },
    ),
    telemetry.STEP_EXCEPTION: (
        lambda: emit.step_exception(STEP, **FAILURE, duration=0.5, will_retry=True),
        {"duration"},
        {"step", "step_key", "step_name", "attempt", "queue", "worker", "kind", "reason", "stacktrace", "will_retry"},
    ),
    telemetry.STEP_ASYNC: (
        lambda: emit.step_async(STEP, duration=0.5, instance_status="waiting"),
        {"duration"},
        {"step", "step_key", "step_name", "attempt", "queue", "worker", "instance_status"},
    ),
    telemetry.STEP_RESUME: (
        lambda: emit.step_resume(STEP, resume_event="paid", source="external", wait_duration=2.5),
        {"system_time", "wait_duration"},
        {"step", "step_key", "step_name", "attempt", "queue", "worker", "resume_event", "source"},
    ),
    telemetry.ENGINE_ADVANCE: (
        lambda: emit.engine_advance(
            SUBJECT,
            duration=0.002,
            active_steps_count=2,
            completed_in_advance=1,
            status_before="running",
            status_after="waiting",
            iteration=4,
        ),
        {"duration", "active_steps_count", "completed_in_advance"},
        {"status_before", "status_after", "iteration"},
    ),
    telemetry.RUNNER_INIT: (
        lambda: emit.runner_init(
            name="worker 1", runner="worker", storage="postgresql", pid=9, queues={"default": 10}, schema="pgflow"
        ),
        {"system_time"},
        {"name", "runner", "storage", "pid", "queues", "schema"},
    ),
    telemetry.WORKFLOW_CANCEL: (
        lambda: emit.workflow_cancel(SUBJECT, reason="ordered twice", in_transaction=False),
        {"system_time"},
        {"status", "reason", "in_transaction"},
    ),
    telemetry.WORKFLOW_RETRY: (
        lambda: emit.workflow_retry(SUBJECT, in_transaction=False),
        {"system_time"},
        {"in_transaction"},
    ),
    telemetry.WORKFLOW_SIGNAL: (
        lambda: emit.workflow_signal(SUBJECT, signal="paid", step=None, outcome="kept", in_transaction=True),
        {"system_time"},
        {"signal", "step", "outcome", "in_transaction"},
    ),
    telemetry.STEP_RETRY: (
        lambda: emit.step_retry(STEP, max_attempts=5, kind="ValueError", reason="no"),
        {"system_time"},
        {"step", "step_key", "step_name", "attempt", "queue", "worker", "max_attempts", "kind", "reason"},
    ),
    telemetry.STEP_SNOOZE: (
        lambda: emit.step_snooze(STEP, delay=60.0),
        {"system_time", "delay"},
        {"step", "step_key", "step_name", "attempt", "queue", "worker"},
    ),
    telemetry.RUNNER_RESCUE: (
        lambda: emit.runner_rescue(name="worker 1", jobs=3, queues=["default"]),
        {"system_time", "jobs"},
        {"name", "runner", "queues"},
    ),
}
TASK = TaskRef(17, "send_receipt", 2, "mail", 12, {"tenant": "a", "job": "mine"})
OF_TASK = {"tenant", "job", "task"}
OF_ATTEMPT = OF_TASK | {"attempt", "queue", "worker", "runner"}
EMITTED |= {
    telemetry.TASK_ENQUEUE: (
        lambda: task_events.task_enqueue("send_receipt", [17, None], in_transaction=False),
        {"system_time", "jobs_count"},
        {"task", "jobs", "in_transaction"},
    ),
    telemetry.TASK_START: (lambda: task_events.task_start(TASK), {"system_time"}, OF_ATTEMPT),
    telemetry.TASK_STOP: (
        lambda: task_events.task_stop(TASK, duration=0.0123, age=2.5),
        {"duration", "age"},
        OF_ATTEMPT | {"status"},
    ),
    telemetry.TASK_EXCEPTION: (
        lambda: task_events.task_exception(TASK, **FAILURE, duration=0.5, max_attempts=5, will_retry=True),
        {"duration"},
        OF_ATTEMPT | {"kind", "reason", "stacktrace", "max_attempts", "will_retry"},
    ),
    telemetry.TASK_SNOOZE: (lambda: task_events.task_snooze(TASK, delay=60.0), {"system_time", "delay"}, OF_ATTEMPT),
    telemetry.TASK_CANCEL: (
        lambda: task_events.task_cancel(TASK, reason="sent twice", in_transaction=False),
        {"system_time"},
        OF_TASK | {"status", "reason", "in_transaction"},
    ),
    telemetry.TASK_RETRY: (
        lambda: task_events.task_retry(TASK, in_transaction=False),
        {"system_time"},
        OF_TASK | {"in_transaction"},
    ),
}
OF_ALL = {"tenant", "instance_id", "run", "workflow", "workflow_version"}


@pytest.fixture(autouse=True)
def _no_other_handlers() -> Iterator[None]:
    assert telemetry.attached() == ()
    yield
    for handler_id in telemetry.attached():
        telemetry.detach(handler_id)


@pytest.fixture
def seen() -> list[Event]:
    """Record all events."""
    found: list[Event] = []
    telemetry.attach("seen", telemetry.events(), lambda event, config: found.append(event))
    return found


def emit_example(name: Name) -> None:
    """Emit the example of an event."""
    EMITTED[name][0]()


# -- events


def test_there_are_eleven_events_six_additions_and_seven_of_tasks() -> None:
    """H1"""
    assert len(set(telemetry.SEED_EVENTS)) == 11
    assert len(set(telemetry.events())) == 24
    assert set(telemetry.SEED_EVENTS) < set(telemetry.events()) == set(EMITTED)
    assert {name[0] for name in telemetry.events()} == {"pgflow"}


@pytest.mark.parametrize("name", telemetry.events(), ids=".".join)
def test_each_event_has_its_measurements_and_its_metadata(name: Name, seen: list[Event]) -> None:
    emit_example(name)
    (event,) = seen
    _, measurements, metadata = EMITTED[name]
    of_all = set() if name[1] in ("runner", "task") else OF_ALL
    assert (event.name, set(event.measurements), set(event.metadata)) == (name, measurements, metadata | of_all)


def test_the_callers_metadata_never_overwrites_pgflows_fields(seen: list[Event]) -> None:
    """H13, H14"""
    emit_example(telemetry.STEP_STOP)
    about = seen[0].metadata
    assert (about["tenant"], about["instance_id"], about["workflow_version"]) == ("a", "orderid::1", 3)


def test_a_fan_out_has_more_than_one_target(seen: list[Event]) -> None:
    """H17"""
    for targets in (["ship", "mail"], ["ship"], []):
        emit.workflow_transition(SUBJECT, from_step="charge", event="paid", targets=targets)
    assert [(each.measurements["targets_count"], each.metadata["fan_out"]) for each in seen] == [
        (2, True),
        (1, False),
        (0, False),
    ]


# -- handlers


def test_a_handler_gets_its_events_and_config_until_it_is_detached() -> None:
    heard: list[tuple[Name, str]] = []
    telemetry.attach("h", [telemetry.STEP_STOP], lambda event, config: heard.append((event.name, config)), "config")
    emit_example(telemetry.STEP_STOP)
    emit_example(telemetry.STEP_START)
    telemetry.detach("h")
    emit_example(telemetry.STEP_STOP)
    assert heard == [(telemetry.STEP_STOP, "config")]


def test_a_detached_handler_leaves_nothing_behind() -> None:
    telemetry.attach("a", [telemetry.STEP_STOP, telemetry.STEP_START], print)
    telemetry.attach("b", [telemetry.STEP_STOP], print)
    assert telemetry.attached(telemetry.STEP_STOP) == ("a", "b")
    telemetry.detach("a")
    assert (telemetry.attached(), telemetry.attached(telemetry.STEP_START)) == (("b",), ())
    telemetry.detach("b")
    assert bus.handlers_by_event == {}


def test_an_id_is_attached_once_and_detached_once() -> None:
    telemetry.attach("h", [telemetry.STEP_STOP], print)
    with pytest.raises(AlreadyAttached):
        telemetry.attach("h", [telemetry.STEP_START], print)
    telemetry.detach("h")
    with pytest.raises(NotAttached):
        telemetry.detach("h")


async def _async_handler(event: Event, config: object) -> None: ...


@pytest.mark.parametrize(
    ("names", "handler"),
    [
        ([("pgflow", "step", "stopped")], print),
        ([], print),
        ([telemetry.STEP_STOP], _async_handler),
        ([telemetry.STEP_STOP], "print"),
    ],
)
def test_an_unknown_event_and_an_invalid_handler_are_refused(names: Any, handler: Any) -> None:
    with pytest.raises(ConfigError):
        telemetry.attach("h", names, handler)
    assert telemetry.attached() == ()


@pytest.mark.parametrize("kind", [ValueError, SystemExit, asyncio.CancelledError])
def test_a_failing_handler_stays_attached_and_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    now = 1000.0
    monkeypatch.setattr("pgflow.telemetry.bus.time.monotonic", lambda: now)

    def bad(event: Event, config: object) -> None:
        raise kind("no")

    telemetry.attach("bad", [telemetry.STEP_STOP], bad)
    heard: list[Event] = []
    telemetry.attach("good", [telemetry.STEP_STOP], lambda event, config: heard.append(event))
    emit_example(telemetry.STEP_STOP)
    emit_example(telemetry.STEP_STOP)
    assert (len(heard), len(caplog.records)) == (2, 1)
    assert "'bad' failed at pgflow.step.stop" in caplog.text
    now += 61
    emit_example(telemetry.STEP_STOP)
    assert (len(heard), len(caplog.records)) == (3, 2)


def test_a_handler_cannot_change_an_event(seen: list[Event]) -> None:
    emit_example(telemetry.STEP_STOP)
    with pytest.raises(TypeError):
        seen[0].metadata["step"] = "other"  # type: ignore[index]


def test_a_handler_may_detach_itself() -> None:
    heard: list[Event] = []

    def once(event: Event, config: object) -> None:
        heard.append(event)
        telemetry.detach("once")

    telemetry.attach("once", [telemetry.STEP_STOP], once)
    emit_example(telemetry.STEP_STOP)
    emit_example(telemetry.STEP_STOP)
    assert len(heard) == 1


# -- the log

LINES: dict[Name, tuple[int, str]] = {
    telemetry.TASK_ENQUEUE: (logging.INFO, "Task send_receipt enqueued, jobs: 17, None"),
    telemetry.TASK_START: (logging.INFO, "Task send_receipt started"),
    telemetry.TASK_STOP: (logging.INFO, "Task send_receipt completed in 12ms"),
    telemetry.TASK_EXCEPTION: (logging.ERROR, "Task send_receipt failed and will be retried after attempt 2: no good"),
    telemetry.TASK_SNOOZE: (logging.INFO, "Task send_receipt snoozes for 60s"),
    telemetry.TASK_CANCEL: (logging.INFO, "Task cancelled: sent twice"),
    telemetry.TASK_RETRY: (logging.INFO, "Task retried"),
    telemetry.WORKFLOW_START: (logging.INFO, "Workflow started"),
    telemetry.WORKFLOW_STOP: (logging.INFO, "Workflow completed in 1500ms"),
    telemetry.WORKFLOW_EXCEPTION: (logging.ERROR, "Workflow failed at charge: no good"),
    telemetry.WORKFLOW_TRANSITION: (logging.DEBUG, "Transition: charge → ship, mail"),
    telemetry.STEP_START: (logging.INFO, "Step charge started"),
    telemetry.STEP_STOP: (logging.INFO, "Step charge completed in 12ms → paid"),
    telemetry.STEP_EXCEPTION: (logging.ERROR, "Step charge failed: no good"),
    telemetry.STEP_ASYNC: (logging.WARNING, "Step charge waiting for async event"),
    telemetry.STEP_RESUME: (logging.INFO, "Step charge resumed with paid (waited 2500ms)"),
    telemetry.ENGINE_ADVANCE: (logging.DEBUG, "Engine advance #4 (2ms)"),
    telemetry.RUNNER_INIT: (logging.INFO, "pgflow runner initialized: worker 1"),
    telemetry.WORKFLOW_CANCEL: (logging.INFO, "Workflow cancelled: ordered twice"),
    telemetry.WORKFLOW_RETRY: (logging.INFO, "Workflow retried"),
    telemetry.WORKFLOW_SIGNAL: (logging.INFO, "Signal paid kept"),
    telemetry.STEP_RETRY: (logging.WARNING, "Step charge will be retried after attempt 1"),
    telemetry.STEP_SNOOZE: (logging.INFO, "Step charge snoozes for 60s"),
    telemetry.RUNNER_RESCUE: (logging.WARNING, "Jobs of lost workers rescued: 3"),
}


def lines_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the lines of pgflow: asyncio may log about objects of other tests whenever they are collected."""
    return [record for record in caplog.records if record.name.startswith("pgflow")]


@pytest.mark.parametrize("name", telemetry.events(), ids=".".join)
def test_each_event_is_a_line_with_a_level(name: Name, caplog: pytest.LogCaptureFixture) -> None:
    """H18"""
    caplog.set_level(logging.DEBUG)
    telemetry.attach_log_handler()
    emit_example(name)
    (record,) = lines_of(caplog)
    level, line = LINES[name]
    prefix = {"runner": "", "task": "" if name == telemetry.TASK_ENQUEUE else "[job 17] "}.get(name[1], "[orderid::1] ")
    assert (record.name, record.levelno, record.getMessage()) == ("pgflow.telemetry", level, prefix + line)


def test_a_line_carries_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    telemetry.attach_log_handler()
    emit_example(telemetry.STEP_STOP)
    emit_example(telemetry.WORKFLOW_START)
    fields = ("instance_id", "workflow", "step", "event", "duration_ms")
    reported = [
        {field: vars(record)[field] for field in fields if field in vars(record)} for record in lines_of(caplog)
    ]
    subject = {"instance_id": "orderid::1", "workflow": "OrderFlow"}
    assert reported == [{**subject, "step": "charge", "event": "paid", "duration_ms": 12.3}, subject]


def test_the_callers_metadata_does_not_become_a_field_of_the_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    telemetry.attach_log_handler()
    subject = InstanceRef("orderid::1", "OrderFlow", 3, 7, {"step": "mine", "event": "mine", "resume_event": "mine"})
    emit.workflow_exception(subject, duration=None, failed_step="charge", **FAILURE, **COUNTS)
    emit.workflow_exception(subject, duration=None, failed_step=None, **FAILURE, **COUNTS)
    emit.workflow_stop(subject, duration=None, completed_steps=[], advance_count=0)
    emit.step_start(AttemptRef(subject, "charge", "Charge", 1), active_steps_count=1)
    fields = [{field: vars(record).get(field) for field in ("step", "event")} for record in caplog.records]
    assert [each["step"] for each in fields] == ["charge", None, None, "charge"]
    assert {each["event"] for each in fields} == {None}
    assert caplog.records[1].getMessage() == "[orderid::1] Workflow failed: no good"


def test_the_log_handler_is_attached_once_and_detached_once() -> None:
    """H18"""
    telemetry.attach_log_handler()
    with pytest.raises(AlreadyAttached):
        telemetry.attach_log_handler()
    telemetry.detach_log_handler()
    with pytest.raises(NotAttached):
        telemetry.detach_log_handler()


def test_levels_and_events_of_the_log_can_be_chosen(caplog: pytest.LogCaptureFixture) -> None:
    """H18"""
    caplog.set_level(logging.INFO)
    names = [telemetry.STEP_START, telemetry.STEP_STOP]
    telemetry.attach_log_handler(
        level={telemetry.STEP_START: "debug", telemetry.STEP_STOP: logging.ERROR}, events=names
    )
    for name in (*names, telemetry.WORKFLOW_STOP):
        emit_example(name)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "[orderid::1] Step charge completed in 12ms → paid")
    ]


def test_an_unknown_level_or_event_is_refused() -> None:
    with pytest.raises(ConfigError, match="no log level 'loud'"):
        telemetry.attach_log_handler(level={telemetry.STEP_START: "loud"})
    with pytest.raises(ConfigError, match="no event"):
        telemetry.attach_log_handler(level={("pgflow", "step", "begin"): "info"})
    assert telemetry.attached() == ()


def test_an_unknown_duration_is_left_out_of_the_line(caplog: pytest.LogCaptureFixture) -> None:
    """H15"""
    caplog.set_level(logging.DEBUG)
    telemetry.attach_log_handler()
    emit.workflow_stop(SUBJECT, duration=None, completed_steps=[], advance_count=0)
    assert caplog.records[0].getMessage() == "[orderid::1] Workflow completed"
    assert not hasattr(caplog.records[0], "duration_ms")


# -- metrics


def test_the_metrics_are_these() -> None:
    """H19"""
    assert [(each.name, each.kind, each.unit, each.tags) for each in metrics()] == [
        ("pgflow.workflow.start.count", "counter", "1", ("workflow",)),
        ("pgflow.workflow.stop.count", "counter", "1", ("workflow",)),
        ("pgflow.workflow.exception.count", "counter", "1", ("workflow", "failed_step")),
        ("pgflow.workflow.stop.duration", "distribution", "ms", ("workflow",)),
        ("pgflow.step.stop.duration", "distribution", "ms", ("workflow", "step")),
        ("pgflow.step.exception.count", "counter", "1", ("workflow", "step", "kind")),
        ("pgflow.step.async.count", "counter", "1", ("workflow", "step")),
        ("pgflow.step.resume.wait_duration", "distribution", "ms", ("workflow", "step", "source")),
        ("pgflow.task.enqueue.count", "counter", "1", ("task",)),
        ("pgflow.task.stop.count", "counter", "1", ("task",)),
        ("pgflow.task.exception.count", "counter", "1", ("task", "kind")),
        ("pgflow.task.stop.duration", "distribution", "ms", ("task",)),
        ("pgflow.task.stop.age", "distribution", "ms", ("task",)),
        ("pgflow.engine.advance.active_steps_count", "last_value", "1", ("workflow",)),
    ]


def test_each_metric_uses_fields_of_its_event() -> None:
    for metric in metrics():
        _, measurements, metadata = EMITTED[metric.event]
        assert metric.measurement is None or metric.measurement in measurements
        assert set(metric.tags) <= metadata | OF_ALL


def test_metrics_are_listed_by_scope_and_an_unknown_one_is_an_error() -> None:
    """H19"""
    assert [len(metrics(scope)) for scope in ("workflow", "step", "task", "engine")] == [4, 4, 5, 1]
    assert metrics("workflow") + metrics("step") + metrics("task") + metrics("engine") == metrics(None)
    with pytest.raises(ConfigError, match="there is no metrics scope 'runner'"):
        metrics("runner")


def test_a_collector_counts_measures_and_keeps_the_last() -> None:
    with Collector() as collector:
        emit_example(telemetry.WORKFLOW_START)
        emit_example(telemetry.WORKFLOW_START)
        emit_example(telemetry.STEP_STOP)
        emit_example(telemetry.STEP_STOP)
        emit_example(telemetry.ENGINE_ADVANCE)
        emit.workflow_stop(SUBJECT, duration=None, completed_steps=[], advance_count=0)
    emit_example(telemetry.WORKFLOW_START)
    read = collector.read()
    assert read["pgflow.workflow.start.count"] == {("OrderFlow",): 2}
    assert read["pgflow.engine.advance.active_steps_count"] == {("OrderFlow",): 2}
    assert read["pgflow.workflow.stop.count"] == {("OrderFlow",): 1}
    assert read["pgflow.workflow.stop.duration"] == {}
    seen = read["pgflow.step.stop.duration"]["OrderFlow", "charge"]
    assert (seen.count, seen.total, seen.min, seen.max) == (2, pytest.approx(24.6), 12.3, 12.3)
    assert (sum(seen.buckets), seen.buckets[3]) == (2, 2)  # more than 10 ms, up to 50
