"""Group H: telemetry, the log, metrics, and pictures in docstrings."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pgflow import (
    Context,
    Done,
    Error,
    Ok,
    Retry,
    Snooze,
    Unique,
    Workflow,
    step,
    telemetry,
)
from pgflow.errors import AlreadyAttached, ConfigError, NotAttached
from pgflow.telemetry import Collector, Event, Name
from tests.conformance.conftest import Stack
from tests.worker.event_recorder import EventRecorder, recording
from tests.worker.waiting import until
from tests.worker.waiting_flows import Patient, approval

Input = dict[str, Any]
CHECKOUT = Path(__file__).parents[2]
QUICKLY = Retry(max_attempts=3, base=timedelta(milliseconds=5))
TENANT = {"tenant": "a", "instance_id": "mine", "workflow_version": 0}
OF_ALL = {"tenant", "instance_id", "run", "workflow", "workflow_version"}
OF_STEPS = {"step", "step_key", "step_name", "attempt", "queue", "worker"}

# Measurements, and metadata beyond that of all events of an instance: the required fields, then the additional ones.
KEYS: dict[Name, tuple[set[str], set[str]]] = {
    telemetry.WORKFLOW_START: ({"system_time"}, {"initial_step", "context_keys", "runner"}),
    telemetry.WORKFLOW_STOP: ({"duration", "step_count", "advance_count"}, {"status", "completed_steps", "runner"}),
    telemetry.WORKFLOW_EXCEPTION: (
        {"duration"},
        {"kind", "reason", "stacktrace", "status", "failed_step", "runner", "step_count", "advance_count"},
    ),
    telemetry.WORKFLOW_TRANSITION: ({"targets_count"}, {"from_step", "event", "targets", "fan_out"}),
    telemetry.STEP_START: ({"system_time"}, {"concurrent", "active_steps_count"} | OF_STEPS),
    telemetry.STEP_STOP: ({"duration"}, {"event", "has_context_updates", "has_metadata_updates"} | OF_STEPS),
    telemetry.STEP_EXCEPTION: ({"duration"}, {"kind", "reason", "stacktrace", "will_retry"} | OF_STEPS),
    telemetry.STEP_ASYNC: ({"duration"}, {"instance_status"} | OF_STEPS),
    telemetry.STEP_RESUME: ({"system_time", "wait_duration"}, {"resume_event", "source"} | OF_STEPS),
    telemetry.ENGINE_ADVANCE: (
        {"duration", "active_steps_count", "completed_in_advance"},
        {"status_before", "status_after", "iteration"},
    ),
    telemetry.RUNNER_INIT: ({"system_time"}, {"name", "runner", "storage", "pid", "queues", "schema"}),
    telemetry.WORKFLOW_CANCEL: ({"system_time"}, {"status", "reason", "in_transaction"}),
    telemetry.WORKFLOW_RETRY: ({"system_time"}, {"in_transaction"}),
    telemetry.WORKFLOW_SIGNAL: ({"system_time"}, {"signal", "step", "outcome", "in_transaction"}),
    telemetry.STEP_RETRY: ({"system_time"}, {"max_attempts", "kind", "reason"} | OF_STEPS),
    telemetry.STEP_SNOOZE: ({"system_time", "delay"}, OF_STEPS),
}


@step
def first(ctx: Context[Input]) -> Ok:
    return Ok("done", {"n": 1}, metadata={"bank": "b"})


@step
async def second(ctx: Context[Input]) -> Ok:
    return Ok("done")


class Line(Workflow[Input], unique=Unique("line"), version=4):
    """Two steps in a row."""

    initial = first
    transitions = {first: {"done": second}, second: {"done": Done}}


left, right, join = second.named("left"), second.named("right"), second.named("join")


class Fan(Workflow[Input], unique=Unique("fan")):
    """Two branches that converge."""

    initial = first
    transitions = {first: {"done": [left, right]}, left: {"done": join}, right: {"done": join}, join: {"done": Done}}


@step(retry=QUICKLY)
def shaky(ctx: Context[Input]) -> Ok | Error:
    if ctx.attempt == 1:
        raise ConnectionError("not yet")
    return Ok("done") if ctx.attempt == 3 else Error("nor now")


class Shaky(Workflow[Input], unique=Unique("shaky")):
    """Succeeds in the third attempt."""

    initial = shaky
    transitions = {shaky: {"done": Done}}


@step(retry=Retry(max_attempts=1))
def broken(ctx: Context[Input]) -> Ok:
    raise ValueError("never")


class Broken(Workflow[Input], unique=Unique("broken")):
    """Completes one step and fails at the next."""

    initial = first
    transitions = {first: {"done": broken}, broken: {"done": Done}}


slept: set[int] = set()


@step
def sleepy(ctx: Context[Input]) -> Ok | Snooze:
    if ctx.initial["night"] in slept:
        return Ok("done")
    slept.add(ctx.initial["night"])
    return Snooze(timedelta(milliseconds=5))


class Sleepy(Workflow[Input], unique=Unique("sleepy")):
    """Snoozes once."""

    initial = sleepy
    transitions = {sleepy: {"done": Done}}


@pytest.fixture
def recorder() -> Iterator[EventRecorder]:
    """Record all events."""
    with recording() as listener:
        yield listener


def check(event: Event, workflow: type[Workflow[Any]], /, **expected: Any) -> None:
    """An event has exactly the measurements and metadata of the table, with the expected values."""
    measurements, metadata = KEYS[event.name]
    assert set(event.measurements) == measurements
    assert set(event.metadata) == metadata | OF_ALL
    about = {"tenant": "a", "instance_id": f"{workflow.unique.key}::1", "workflow": workflow.name}
    seen = {**event.metadata, **event.measurements}
    expected = {**about, "workflow_version": workflow.version, **expected}
    assert {key: seen[key] for key in expected} == expected


def is_time(event: Event) -> bool:
    """Whether a time in nanoseconds is in this century."""
    return bool(1_600_000_000 * 10**9 < event.measurements["system_time"] < 4_000_000_000 * 10**9)


def runner(stack: Stack) -> str:
    return "local" if stack.is_local else "worker"


def test_h1_there_are_eleven_events_and_six_additions() -> None:
    """H1: the 11 required events exist; `events()` lists them with the six additional ones."""
    assert len(set(telemetry.SEED_EVENTS)) == 11
    assert telemetry.events()[:11] == telemetry.SEED_EVENTS
    of_tasks = {each for each in telemetry.events() if each[1] == "task"}
    assert set(telemetry.events()) == set(KEYS) | {telemetry.RUNNER_RESCUE} | of_tasks


def test_h2_workflow_start(stack: Stack, recorder: EventRecorder) -> None:
    """H2: the start of an instance emits an event with its first step and the keys of its input."""
    stack.run(Line)
    Line.start("1", {"b": 1, "a": 2}, telemetry=TENANT)
    recorder.until(telemetry.WORKFLOW_STOP)
    (start,) = recorder.of(telemetry.WORKFLOW_START)
    check(start, Line, initial_step="first", context_keys=("a", "b"), runner=runner(stack))
    assert is_time(start)
    assert next(each.name for each in recorder.events if each.name[1] != "runner") == telemetry.WORKFLOW_START


def test_h3_workflow_stop(stack: Stack, recorder: EventRecorder) -> None:
    """H3: the completion of an instance emits one last event, with its duration since the start call."""
    stack.run(Line)
    Line.start("1", {}, telemetry=TENANT)
    (stop,) = recorder.until(telemetry.WORKFLOW_STOP)
    check(stop, Line, status="completed", completed_steps=("first", "second"), runner=runner(stack), step_count=2)
    assert 0 < stop.measurements["duration"] < 60
    assert recorder.events[-1] is stop


def test_h4_workflow_exception(stack: Stack, recorder: EventRecorder) -> None:
    """H4: the failure of an instance emits an event with step, reason and traceback; the counts are metadata."""
    stack.run(Broken)
    Broken.start("1", {}, telemetry=TENANT)
    (failed,) = recorder.until(telemetry.WORKFLOW_EXCEPTION)
    check(failed, Broken, kind="ValueError", reason="never", status="failed", failed_step="broken", step_count=1)
    assert (failed.metadata["advance_count"], failed.metadata["runner"]) == (2, runner(stack))
    assert "ValueError: never" in failed.metadata["stacktrace"]
    assert 0 < failed.measurements["duration"] < 60
    assert recorder.of(telemetry.WORKFLOW_STOP) == []


def test_h5_workflow_transition(stack: Stack, recorder: EventRecorder) -> None:
    """H5: each completion emits an event with the activated steps, none if a join waits for another branch."""
    stack.run(Fan)
    Fan.start("1", {}, telemetry=TENANT)
    recorder.until(telemetry.WORKFLOW_STOP)
    transitions = recorder.of(telemetry.WORKFLOW_TRANSITION)
    check(transitions[0], Fan, from_step="first", event="done", targets=("left", "right"))
    assert sorted((each.metadata["from_step"], each.metadata["targets"]) for each in transitions[1:3]) in (
        [("left", ()), ("right", ("join",))],
        [("left", ("join",)), ("right", ())],
    )
    check(transitions[3], Fan, from_step="join", event="done", targets=("done",))


def test_h6_step_start(stack: Stack, recorder: EventRecorder) -> None:
    """H6: each attempt emits an event when it starts, with the number of active steps."""
    stack.run(Fan)
    Fan.start("1", {}, telemetry=TENANT)
    recorder.until(telemetry.WORKFLOW_STOP)
    starts = recorder.of(telemetry.STEP_START)
    check(starts[0], Fan, step="first", step_key="first", attempt=1, concurrent=False, active_steps_count=1)
    assert is_time(starts[0])
    assert sorted(recorder.about(telemetry.STEP_START, "step")) == ["first", "join", "left", "right"]
    assert starts[1].metadata["concurrent"]
    assert starts[1].metadata["active_steps_count"] == 2
    assert not starts[3].metadata["concurrent"]
    for step_ in ("first", "left", "right", "join"):
        of_step = [each.name for each in recorder.events if each.metadata.get("step") == step_]
        assert of_step == [telemetry.STEP_START, telemetry.STEP_STOP]


def test_h7_step_stop(stack: Stack, recorder: EventRecorder) -> None:
    """H7: each completion emits one event, with the step's event, its duration, and whether it has output."""
    stack.run(Line)
    Line.start("1", {}, telemetry=TENANT)
    recorder.until(telemetry.WORKFLOW_STOP)
    one, two = recorder.of(telemetry.STEP_STOP)
    check(one, Line, step="first", event="done", has_context_updates=True, has_metadata_updates=True)
    check(two, Line, step="second", event="done", has_context_updates=False, has_metadata_updates=False)
    assert all(0 <= each.measurements["duration"] < 30 for each in (one, two))


def test_h8_step_exception(stack: Stack, recorder: EventRecorder) -> None:
    """H8: each failed attempt emits an event, with the traceback, or None for a returned `Error`."""
    stack.run(Shaky)
    Shaky.start("1", {}, telemetry=TENANT)
    recorder.until(telemetry.WORKFLOW_STOP)
    raised, returned = recorder.of(telemetry.STEP_EXCEPTION)
    check(raised, Shaky, step="shaky", attempt=1, kind="ConnectionError", reason="not yet", will_retry=True)
    check(returned, Shaky, step="shaky", attempt=2, kind="Error", reason="nor now", stacktrace=None)
    assert "ConnectionError: not yet" in raised.metadata["stacktrace"]
    assert raised.measurements["duration"] > 0
    assert recorder.about(telemetry.STEP_RETRY, "attempt", "max_attempts") == [(1, 3), (2, 3)]
    check(recorder.of(telemetry.STEP_RETRY)[0], Shaky, kind="ConnectionError", reason="not yet")
    assert recorder.of(telemetry.WORKFLOW_EXCEPTION) == []


def test_h9_step_async(stack: Stack, recorder: EventRecorder) -> None:
    """H9: the start of a wait emits an event with the attempt's duration and the instance's status."""
    stack.run(Patient)
    Patient.start("1", {}, telemetry=TENANT)
    (waits,) = recorder.until(telemetry.STEP_ASYNC)
    check(waits, Patient, step="approval", attempt=1, instance_status="waiting")
    assert 0 <= waits.measurements["duration"] < 30


def test_h10_step_resume(stack: Stack, recorder: EventRecorder) -> None:
    """H10: the end of a wait emits an event with its cause and the time waited, also after a restart."""
    stack.run(Patient)
    Patient.start("1", {}, telemetry=TENANT)
    stack.until(Patient, "1", "waiting")
    assert Patient.resume("1", "approved") == "delivered"
    recorder.until(telemetry.STEP_ASYNC, 3)
    stack.restart()
    Patient.resume("1", "arrived")
    recorder.until(telemetry.WORKFLOW_STOP)
    by_call, by_timer, later = recorder.of(telemetry.STEP_RESUME)
    check(by_call, Patient, step="approval", resume_event="approved", source="external")
    check(by_timer, Patient, step="pause", resume_event="timeout", source="timeout")
    check(later, Patient, step="courier", resume_event="received", source="external")
    assert is_time(by_call)
    assert 0.03 <= by_timer.measurements["wait_duration"] < 60
    assert all(0 < each.measurements["wait_duration"] < 60 for each in (by_call, later))


def test_h11_engine_advance(stack: Stack, recorder: EventRecorder) -> None:
    """H11: each advance emits an event with the status before and after, and its number."""
    stack.run(Line)
    Line.start("1", {}, telemetry=TENANT)
    recorder.until(telemetry.WORKFLOW_STOP)
    one, two = recorder.of(telemetry.ENGINE_ADVANCE)
    check(one, Line, status_before="running", status_after="running", iteration=1, active_steps_count=1)
    check(two, Line, status_before="running", status_after="completed", iteration=2, active_steps_count=0)
    assert [each.measurements["completed_in_advance"] for each in (one, two)] == [1, 1]
    assert all(0 < each.measurements["duration"] < 30 for each in (one, two))


def test_h12_runner_init(stack: Stack, recorder: EventRecorder) -> None:
    """H12: a runner emits an event when it is ready, and again after a restart."""
    stack.run(Line)
    (init,) = recorder.until(telemetry.RUNNER_INIT)
    assert (set(init.measurements), set(init.metadata)) == KEYS[telemetry.RUNNER_INIT]
    assert is_time(init)
    assert (init.metadata["runner"], init.metadata["pid"]) == (runner(stack), os.getpid())
    assert init.metadata["storage"] == ("memory" if stack.is_local else "postgresql")
    assert init.metadata["name"]
    stack.restart()
    assert len(recorder.until(telemetry.RUNNER_INIT, 2)) == 2


def test_h12_the_additional_events(stack: Stack, recorder: EventRecorder) -> None:
    """H12: signals, cancels, retries and snoozes emit events as well, each once."""
    stack.run(Patient, Broken, Sleepy)
    Patient.start("1", {}, telemetry=TENANT)
    stack.until(Patient, "1", "waiting")
    Patient.resume("1", "arrived")
    Patient.resume("1", "approved", step=approval)
    Patient.cancel("1", reason="withdrawn")
    Broken.start("1", {}, telemetry=TENANT)
    recorder.until(telemetry.WORKFLOW_EXCEPTION)
    Broken.retry("1")
    recorder.until(telemetry.WORKFLOW_EXCEPTION, 2)
    Sleepy.start("1", {"night": len(slept)}, telemetry=TENANT)
    recorder.until(telemetry.WORKFLOW_STOP)
    assert recorder.about(telemetry.WORKFLOW_SIGNAL, "signal", "step", "outcome", "in_transaction") == [
        ("arrived", None, "kept", False),
        ("approved", "approval", "delivered", False),
    ]
    (cancelled,) = recorder.of(telemetry.WORKFLOW_CANCEL)
    assert (cancelled.metadata["instance_id"], cancelled.metadata["reason"]) == ("patient::1", "withdrawn")
    (retried,) = recorder.of(telemetry.WORKFLOW_RETRY)
    assert (retried.metadata["instance_id"], retried.metadata["workflow"]) == ("broken::1", "Broken")
    (snoozed,) = recorder.of(telemetry.STEP_SNOOZE)
    check(snoozed, Sleepy, step="sleepy", delay=0.005)
    for event in (*recorder.of(telemetry.WORKFLOW_SIGNAL), cancelled, retried):  # a client may not know all metadata
        measurements, metadata = KEYS[event.name]
        assert set(event.measurements) == measurements
        assert set(event.metadata) | {"tenant"} == metadata | OF_ALL


def test_h13_the_callers_metadata_is_in_all_events_and_survives_a_restart(
    stack: Stack, recorder: EventRecorder
) -> None:
    """H13: `telemetry=` is in each event, never overwrites pgflow's fields, and survives a restart."""
    stack.run(Patient)
    mine = dict.fromkeys({key for _, metadata in KEYS.values() for key in (metadata | OF_ALL) - {"tenant"}}, "mine")
    Patient.start("1", {}, telemetry={**mine, "tenant": "a"}, metadata={"source": "web"})
    stack.until(Patient, "1", "waiting")
    assert Patient.get("1").metadata == {"source": "web"}
    Patient.resume("1", "approved")
    recorder.until(telemetry.STEP_ASYNC, 3)
    stack.restart()
    Patient.resume("1", "arrived")
    recorder.until(telemetry.WORKFLOW_STOP)
    of_instance = [each for each in recorder.events if each.name in telemetry.SEED_EVENTS and each.name[1] != "runner"]
    assert len(of_instance) > 10
    assert {each.metadata["tenant"] for each in of_instance} == {"a"}
    for event in of_instance:
        assert "mine" not in {event.metadata[key] for key in KEYS[event.name][1] | OF_ALL}


def test_h14_the_version_is_in_all_events(stack: Stack, recorder: EventRecorder) -> None:
    """H14: each event of an instance has `workflow_version` and the run id."""
    stack.run(Line)
    run = Line.start("1", {}, telemetry=TENANT).run
    recorder.until(telemetry.WORKFLOW_STOP)
    of_instance = [each for each in recorder.events if each.name[1] != "runner"]
    assert len(of_instance) == 10
    assert {(each.metadata["workflow_version"], each.metadata["run"]) for each in of_instance} == {(4, run)}


def test_h15_an_unknown_duration_is_none(stack: Stack, recorder: EventRecorder) -> None:
    """H15: a step that a timer completes has no duration, nor has an instance that was started in the future."""
    app = stack.run(Patient)
    if stack.is_local:
        app.advance_time(timedelta(hours=1))
    Patient.start("1", {}, telemetry=TENANT)
    Patient.resume("1", "approved")
    until(lambda: "courier" in {each.metadata["step"] for each in recorder.of(telemetry.STEP_ASYNC)}, "the last wait")
    if not stack.is_local:
        stack.rows("update pgflow.instances set created_at = created_at + interval '1 hour' returning 1")  # type: ignore[attr-defined]
    stack.restart()
    Patient.resume("1", "arrived")
    if stack.is_local:
        stack.app.advance_time(timedelta(minutes=59))
    (stop,) = recorder.until(telemetry.WORKFLOW_STOP)
    assert stop.measurements["duration"] is None
    assert [each.measurements["duration"] for each in recorder.of(telemetry.STEP_STOP)][1:] == [None, None]


def test_h16_the_counts_are_measurements_of_the_stop(stack: Stack, recorder: EventRecorder) -> None:
    """H16: `step_count` and `advance_count` of a completed instance are measurements."""
    stack.run(Fan)
    Fan.start("1", {}, telemetry=TENANT)
    (stop,) = recorder.until(telemetry.WORKFLOW_STOP)
    advances = recorder.of(telemetry.ENGINE_ADVANCE)
    assert stop.measurements["step_count"] == 4 == sum(each.measurements["completed_in_advance"] for each in advances)
    assert stop.measurements["advance_count"] == advances[-1].metadata["iteration"] == len(advances)


def test_h17_a_fan_out_is_flagged(stack: Stack, recorder: EventRecorder) -> None:
    """H17: `fan_out` is true if a completion activates several steps, and `targets_count` is their number."""
    stack.run(Fan)
    Fan.start("1", {}, telemetry=TENANT)
    recorder.until(telemetry.WORKFLOW_STOP)
    seen = [
        (each.metadata["from_step"], each.metadata["fan_out"], each.measurements["targets_count"])
        for each in recorder.of(telemetry.WORKFLOW_TRANSITION)
    ]
    assert (seen[0], seen[3]) == (("first", True, 2), ("join", False, 1))
    assert sorted((fan_out, count) for _, fan_out, count in seen[1:3]) == [(False, 0), (False, 1)]


def test_h18_events_become_lines_of_the_log(
    stack: Stack, recorder: EventRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """H18: each event is a log line with a level, the instance and its fields; a wait has its milliseconds."""
    caplog.set_level(logging.DEBUG, "pgflow.telemetry")
    telemetry.attach_log_handler()
    try:
        stack.run(Patient)
        Patient.start("1", {}, telemetry=TENANT)
        Patient.resume("1", "approved")
        Patient.resume("1", "arrived")
        recorder.until(telemetry.WORKFLOW_STOP)
        until(lambda: "Workflow completed in" in caplog.text)
    finally:
        telemetry.detach_log_handler()
    records = [record for record in caplog.records if record.name == "pgflow.telemetry"]
    lines = {record.getMessage(): record for record in records}
    init, *others = lines
    assert init.startswith("pgflow runner initialized: ")
    assert all(line.startswith("[patient::1] ") for line in others)
    resumed = next(line for line in lines if "Step pause resumed" in line)
    (waited,) = [word for word in resumed.split() if word.endswith("ms)")]
    assert resumed == f"[patient::1] Step pause resumed with timeout (waited {waited}"
    assert 30 <= int(waited.removesuffix("ms)")) < 60_000
    levels = {line.removeprefix("[patient::1] "): record.levelname for line, record in lines.items()}
    assert levels["Workflow started"] == levels["Step courier started"] == "INFO"
    assert levels["Step pause waiting for async event"] == "WARNING"
    assert levels["Transition: approval → pause"] == levels["Transition: courier → done"] == "DEBUG"
    assert records[-1].getMessage().startswith("[patient::1] Workflow completed in ")
    fields = vars(records[-1])
    assert (fields["instance_id"], fields["workflow"]) == ("patient::1", "Patient")
    assert 30 <= fields["duration_ms"] < 60_000


def test_h18_the_log_handler_is_attached_and_detached_once(caplog: pytest.LogCaptureFixture) -> None:
    """H18: attaching or detaching it twice raises; events and levels can be chosen."""
    caplog.set_level(logging.INFO, "pgflow.telemetry")
    telemetry.attach_log_handler(
        events=[telemetry.STEP_START, telemetry.STEP_STOP], level={telemetry.STEP_START: "debug"}
    )
    with pytest.raises(AlreadyAttached):
        telemetry.attach_log_handler()
    assert telemetry.attached() == (telemetry.LOG_HANDLER,)
    assert telemetry.attached(telemetry.WORKFLOW_STOP) == ()
    telemetry.detach_log_handler()
    with pytest.raises(NotAttached):
        telemetry.detach_log_handler()


def test_h19_there_are_nine_metrics(stack: Stack) -> None:
    """H19: nine metrics, four of workflows, four of steps, one of the engine, with their types and tags."""
    assert [len(telemetry.metrics(scope)) for scope in ("workflow", "step", "engine")] == [4, 4, 1]
    of_instances = [each for scope in ("workflow", "step", "engine") for each in telemetry.metrics(scope)]
    assert telemetry.metrics() == (*of_instances[:8], *telemetry.metrics("task"), *of_instances[8:])
    with pytest.raises(ConfigError):
        telemetry.metrics("runner")
    assert {(each.name, each.kind, each.tags) for each in of_instances} == {
        ("pgflow.workflow.start.count", "counter", ("workflow",)),
        ("pgflow.workflow.stop.count", "counter", ("workflow",)),
        ("pgflow.workflow.exception.count", "counter", ("workflow", "failed_step")),
        ("pgflow.workflow.stop.duration", "distribution", ("workflow",)),
        ("pgflow.step.stop.duration", "distribution", ("workflow", "step")),
        ("pgflow.step.exception.count", "counter", ("workflow", "step", "kind")),
        ("pgflow.step.async.count", "counter", ("workflow", "step")),
        ("pgflow.step.resume.wait_duration", "distribution", ("workflow", "step", "source")),
        ("pgflow.engine.advance.active_steps_count", "last_value", ("workflow",)),
    }
    with Collector() as collector:
        stack.run(Line, Broken, Patient)
        Line.start_many((str(number), {}) for number in range(3))
        Broken.start("1", {})
        Patient.start("1", {})
        Patient.resume("1", "approved")
        Patient.resume("1", "arrived")
        until(lambda: sum(collector.read()["pgflow.workflow.stop.count"].values()) == 4)
        until(lambda: collector.read()["pgflow.workflow.exception.count"])
    read = collector.read()
    assert read["pgflow.workflow.start.count"] == {("Line",): 3, ("Broken",): 1, ("Patient",): 1}
    assert read["pgflow.workflow.stop.count"] == {("Line",): 3, ("Patient",): 1}
    assert read["pgflow.workflow.exception.count"] == {("Broken", "broken"): 1}
    assert read["pgflow.workflow.stop.duration"]["Line",].count == 3
    assert read["pgflow.step.stop.duration"]["Line", "first"].count == 3
    assert read["pgflow.step.exception.count"] == {("Broken", "broken", "ValueError"): 1}
    assert read["pgflow.step.async.count"]["Patient", "pause"] == 1
    waited = read["pgflow.step.resume.wait_duration"]["Patient", "pause", "timeout"]
    assert 30 <= waited.min == waited.total < 60_000
    assert read["pgflow.engine.advance.active_steps_count"]["Line",] == 0


STEPS = """\
from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step

@step(events=("sold", "refused", "lost"))
def sell(ctx: Context) -> Ok:
    return Ok("sold")

@step
def pack(ctx: Context) -> Ok:
    return Ok("done")

@step
def ship(ctx: Context) -> Ok:
    return Ok("done")

EDGES = {sell: {"sold": pack, "refused": Done, "lost": Done}, pack: {"done": ship}, ship: {"done": Done}}

def registered(cls):
    return cls

"""
HEAD = "(Workflow, unique=Unique('x'))"
BODY = "\n    initial = sell\n    transitions = EDGES\n"
INNER = BODY.replace("\n    ", "\n        ")
FLOWS = {
    "Bare": f"class Bare{HEAD}:  # so: a comment{BODY}",
    "Plain": f'class Plain{HEAD}:\n    """Sell it.\n\n    In parts.\n    """\n{BODY}',
    "Raw": f'class Raw{HEAD}:\n    r"""Sell \\d of it."""{BODY}',
    "Short": f"class Short{HEAD}: initial = sell; transitions = EDGES\n",
    "Quoted": f"class Quoted{HEAD}: 'Sell it.'; initial = sell; transitions = EDGES\n",
    "Registered": f"@registered\nclass Registered{HEAD}:{BODY}",
    "Tabs": f"class Tabs{HEAD}:\n\t'''Sell it.'''\n\tinitial = sell\n\ttransitions = EDGES\n",
    "Two": (
        "class Two(Workflow, unique=Unique('x'), current=2):\n    'Two.'\n\n"
        f"    class V1(Workflow, version=1):{INNER}\n"
        f"    class V2(Workflow, version=2):\n        '''New.'''\n{INNER}\n"
        "    versions = {1: V1, 2: V2}\n"
    ),
}


def test_h20_pictures_are_inserted_into_docstrings_idempotently(tmp_path: Path) -> None:
    """H20: a picture is inserted into each docstring, in any form; a second run changes nothing."""
    sources = {name: (STEPS + source).encode() for name, source in FLOWS.items()}
    plain = (STEPS + FLOWS["Plain"]).replace
    sources["Crlf"] = plain("Plain", "Crlf").replace("\n", "\r\n").encode()
    sources["Cookie"] = ("# coding: gb18030\n" + plain("Plain", "Cookie").replace("parts", "文")).encode("gb18030")
    sources["Latin"] = ("# coding: latin-1\n" + plain("Plain", "Latin").replace("parts", "Stücken")).encode("latin-1")
    for name, source in sources.items():
        (tmp_path / f"{name.lower()}.py").write_bytes(source)
    imports = "".join(f"from {name.lower()} import {name}\n" for name in sources)
    app = f"from pgflow import Pgflow\n{imports}app = Pgflow(workflows=[{', '.join(sources)}])\n"
    (tmp_path / "flows.py").write_text(app)

    def found() -> dict[str, bytes]:
        return {name: (tmp_path / f"{name.lower()}.py").read_bytes() for name in sources}

    done = run_docs(tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (6, "Updated 11 workflow(s).")
    assert "latin.py not updated: encoding iso-8859-1 cannot represent '─'" in done.stderr
    once = found()
    assert [name for name in sources if once[name] == sources[name]] == ["Latin"]
    for name, source in once.items():
        compile(source, name, "exec")
    done = run_docs(tmp_path)
    assert (done.returncode, done.stdout) == (6, "Updated 0 workflow(s).\n")
    assert found() == once
    assert once["Two"].decode().count("graph:start") == 2  # one for each version; the versioned workflow has no graph
    assert once["Crlf"].count(b"\n") == once["Crlf"].count(b"\r\n") > 40
    drawn = once["Plain"].decode()
    assert f"sell ──sold{'─' * 11}> pack\n" in drawn
    assert "sell ──refused, lost──> done\n" in drawn  # all events of a pair, across two layers


def run_docs(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `pgflow docs` on flows:app of a folder."""
    return subprocess.run(
        [sys.executable, "-c", "from pgflow.cli import main; main()", "docs", "--app", "flows:app"],
        capture_output=True,
        check=False,
        cwd=folder,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=60,
    )
