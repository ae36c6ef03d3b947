"""Tasks from the enqueue to the result, on both stacks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from threading import Event
from typing import Any

import pytest
from pydantic import BaseModel

from pgflow import Context, Done, Error, Ok, Retry, Snooze, TaskContext, Unique, UniqueTask, Workflow, current_job, task
from pgflow import step as as_step
from pgflow.errors import (
    AlreadyEnqueued,
    AlreadyStarted,
    ConfigError,
    InvalidInput,
    InvalidPayload,
    InvalidValue,
    JobNotFound,
    NotActive,
    NotRetryable,
    StillRunning,
    TaskCancelled,
    TaskFailed,
)
from pgflow.local import Local
from tests.stacks.conftest import Stack
from tests.worker.waiting import until

QUICKLY = Retry(max_attempts=3, base=timedelta(milliseconds=10))
HOUR = timedelta(hours=1)
PATIENCE = 60.0


class Order(BaseModel):
    number: str
    due: date


@dataclass
class Receipt:
    number: str
    sent: date


@task(queue="default", tags=["mail"], metadata={"team": "shop"}, priority=3)
def send(order: Order, /, *, copies: int = 1) -> Receipt:
    return Receipt(f"{order.number}/{copies}", order.due)


@task
async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


@task(retry=QUICKLY)
def flaky(ctx: TaskContext, failures: int) -> int:
    if ctx.attempt <= failures:
        raise ValueError(f"failure {ctx.attempt}")
    return ctx.attempt


@task
def described(ctx: TaskContext, value: str) -> dict[str, Any]:
    same = current_job() is ctx and inner() is ctx
    return {"id": ctx.id, "task": ctx.task, "queue": ctx.queue, "tags": ctx.tags, "meta": ctx.metadata, "same": same}


def inner() -> TaskContext:
    return current_job()


@task
async def described_async() -> str:
    return f"{current_job().task} {await asyncio.to_thread(lambda: current_job().attempt)}"


@task
def returning(value: str) -> int | Error | Snooze:
    match value:
        case "error":
            return Error("not now", retry=False)
        case "snooze":
            return 7 if current_job().metadata.get("snoozed") else Snooze(HOUR)
    return value  # type: ignore[return-value]  # not of the declared type


GATES: dict[str, tuple[Event, Event]] = {}  # begun, go


@task
def gated(name: str) -> str:
    begun, go = GATES[name]
    begun.set()
    go.wait(PATIENCE)
    return name


@task(max_runtime=timedelta(milliseconds=50), retry=Retry(max_attempts=1))
async def slow() -> None:
    await asyncio.sleep(PATIENCE)


@task(unique=UniqueTask(["key"]))
def once(key: str, other: int = 0) -> int:
    return other


@task(unique=UniqueTask(on_conflict="skip"))
def skipped(key: str) -> None: ...


@task(unique=UniqueTask(on_conflict="raise"))
def raising(key: str) -> None: ...


@task(unique=UniqueTask(["key"], on_conflict="replace", replace=["args", "run_at", "priority"]))
def debounced(key: str, text: str) -> str:
    return text


@task(unique=UniqueTask(["key"], period=HOUR))
def hourly(key: str) -> None: ...


@task(unique=UniqueTask("none", by_queue=True))
def single() -> None: ...


@as_step
def in_step(ctx: Context[dict[str, Any]]) -> Ok:
    job = current_job()
    return Ok("done", {"task": job.task, "attempt": job.attempt, "max": job.max_attempts})


class Flow(Workflow[dict[str, Any]], unique=Unique("value"), retry=Retry(max_attempts=4)):
    initial = in_step
    transitions = {in_step: {"done": Done}}


WORKFLOWS = (Flow,)
TASKS = (
    send, double, flaky, described, described_async, returning, gated, slow, once, skipped, raising, debounced, hourly,
    single,
)  # fmt: skip


@pytest.fixture
def gate(stack: Stack) -> Iterator[str]:
    GATES[stack.value] = Event(), Event()
    yield stack.value
    GATES[stack.value][1].set()


def test_arguments_and_result_keep_their_types(stack: Stack) -> None:
    handle = send.enqueue(Order(number="a", due=date(2030, 1, 1)), copies=2)
    assert handle.created
    assert handle.result(timeout=PATIENCE) == Receipt("a/2", date(2030, 1, 1))
    ended = handle.get()
    assert (ended.status, ended.task, ended.attempt, ended.priority) == ("completed", "send", 1, 3)
    assert ended.args == {"order": {"number": "a", "due": "2030-01-01"}, "copies": 2}
    assert ended.output == {"number": "a/2", "sent": "2030-01-01"}
    assert (ended.tags, ended.metadata) == (("mail",), {"team": "shop"})
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert ended.enqueued_at <= ended.started_at <= ended.finished_at


def test_an_async_task_and_the_async_calls(stack: Stack) -> None:
    async def run() -> tuple[int, str, list[int]]:
        handle = await double.aenqueue(4)
        several = await double.aenqueue_many([double.call(1), (2,), {"number": 3}])
        outputs = [await each.aresult(timeout=PATIENCE) for each in several]
        return await handle.aresult(timeout=PATIENCE), (await double.aget(handle.id)).status, outputs

    assert asyncio.run(run()) == (8, "completed", [2, 4, 6])


def test_calls_by_name_take_the_arguments_by_name(app: Any) -> None:
    assert app.enqueue("double", {"number": 5}).result(timeout=PATIENCE) == 10
    (handle,) = app.enqueue_many(double, [double.call(6)], tags=["x"])
    assert app.job(handle.id).result(timeout=PATIENCE) == 12
    assert [each.id for each in app.list_tasks("double", tags=["x"])] == [handle.id]


def test_a_failing_task_is_retried_and_then_fails_with_its_reason(stack: Stack) -> None:
    assert flaky.enqueue(2).result(timeout=PATIENCE) == 3
    handle = flaky.enqueue(9)
    with pytest.raises(TaskFailed, match="failure 3") as raised:
        handle.result(timeout=PATIENCE)
    assert raised.value.job == handle.id
    failed = handle.get()
    assert [each["reason"] for each in failed.errors] == ["failure 1", "failure 2"]
    assert failed.error is not None
    assert (failed.error["reason"], failed.error["type"], failed.attempt) == ("failure 3", "ValueError", 3)
    assert flaky.options(max_attempts=1).enqueue(1).get().max_attempts == 1
    handle.retry()
    until(lambda: handle.get().status == "failed" and handle.get().finished_at != failed.finished_at, "the second end")


def test_the_context_is_a_parameter_and_the_current_job(stack: Stack) -> None:
    handle = described.options(tags=["urgent"], metadata={"by": "test"}).enqueue("x")
    assert handle.result(timeout=PATIENCE) == {
        "id": handle.id,
        "task": "described",
        "queue": "default",
        "tags": ["urgent"],
        "meta": {"by": "test"},
        "same": True,
    }
    assert described_async.enqueue().result(timeout=PATIENCE) == "described_async 1"
    Flow.start(stack.value)
    assert stack.until(Flow).steps["in_step"] == {"task": "Flow.in_step", "attempt": 1, "max": 4}
    with pytest.raises(JobNotFound, match="outside of a job"):
        current_job()


def test_a_task_may_return_an_error_or_a_snooze(stack: Stack) -> None:
    with pytest.raises(TaskFailed, match="not now"):
        returning.enqueue("error").result(timeout=PATIENCE)
    with pytest.raises(TaskFailed, match="output does not fit"):
        returning.enqueue("another type").result(timeout=PATIENCE)
    handle = returning.enqueue("snooze")
    until(lambda: handle.get().run_at is not None and handle.get().attempt == 0, "the snooze")
    handle.cancel()


def test_a_task_that_runs_too_long_fails(stack: Stack) -> None:
    with pytest.raises(TaskFailed, match="max_runtime"):
        slow.enqueue().result(timeout=PATIENCE)


def test_a_result_is_waited_for_until_its_timeout(stack: Stack, gate: str) -> None:
    handle = gated.enqueue(gate)
    with pytest.raises(StillRunning, match=f"job {handle.id}") as raised:
        handle.result(timeout=0.05)
    assert isinstance(raised.value, TimeoutError)
    with pytest.raises(StillRunning):
        asyncio.run(handle.aresult(timeout=timedelta(milliseconds=20)))
    results: list[str] = []
    waiting = threading.Thread(target=lambda: results.append(handle.result(timeout=PATIENCE)))
    waiting.start()
    GATES[gate][1].set()
    waiting.join(PATIENCE)
    assert results == [gate]
    for wrong in (-1, "soon", True):
        with pytest.raises(InvalidValue, match="timeout="):
            handle.result(timeout=wrong)  # type: ignore[arg-type]


def test_a_running_task_is_cancelled_and_its_result_discarded(stack: Stack, gate: str) -> None:
    handle = gated.enqueue(gate)
    assert GATES[gate][0].wait(PATIENCE)
    with pytest.raises(AlreadyStarted):
        handle.run_now()
    with pytest.raises(NotRetryable):
        handle.retry()
    handle.cancel(reason="not needed")
    with pytest.raises(TaskCancelled, match="not needed"):
        handle.result(timeout=PATIENCE)
    with pytest.raises(NotActive):
        handle.cancel()
    with pytest.raises(NotActive):
        handle.run_now()
    GATES[gate][1].set()
    handle.retry()
    assert handle.result(timeout=PATIENCE) == gate
    with pytest.raises(NotRetryable):
        handle.retry()


def test_a_scheduled_task_waits_for_its_time_or_runs_now(stack: Stack) -> None:
    later = datetime.now(UTC) + HOUR
    for handle in (double.options(delay=HOUR).enqueue(1), double.options(at=later).enqueue(2)):
        pending = handle.get()
        assert (pending.status, pending.attempt) == ("pending", 0)
        assert pending.run_at is not None
        assert abs(pending.run_at - later) < timedelta(minutes=10)
        handle.run_now()
        assert handle.result(timeout=PATIENCE) in (2, 4)
    double.cancel(double.options(delay=HOUR).enqueue(3).id)
    assert double.list(status="cancelled", args={"number": 3}, limit=1)[0].args == {"number": 3}


def test_lists_are_filtered_and_paged(stack: Stack) -> None:
    tag = f"list-{stack.value}"
    handles = double.options(delay=HOUR, tags=[tag], queue="later").enqueue_many((n,) for n in range(5))
    ids = [each.id for each in handles]
    assert ids == sorted(ids)
    assert [each.id for each in double.list(tags=[tag])] == ids[::-1]
    assert [each.id for each in double.list(tags=[tag], order="oldest", limit=2, after=ids[0])] == ids[1:3]
    assert [each.id for each in double.list(tags=[tag], before=ids[2])] == ids[1::-1]
    assert [each.id for each in double.list(tags=[tag], args={"number": 3}, queue="later", status="pending")] == [
        ids[3]
    ]
    assert send.list(tags=[tag]) == []
    for each in handles:
        each.cancel()
    assert len(double.list(tags=[tag], status=["cancelled", "failed"])) == 5


def test_an_id_of_another_task_or_of_none_is_not_found(stack: Stack) -> None:
    handle = double.enqueue(1)
    for call in (send.get, send.cancel, send.retry, send.run_now):
        with pytest.raises(JobNotFound, match=f"there is no job {handle.id} of the task send"):
            call(handle.id)
    with pytest.raises(JobNotFound):
        double.get(2**60)


def test_an_active_execution_is_not_enqueued_twice(stack: Stack) -> None:
    later = once.options(delay=HOUR)
    first = later.enqueue(stack.value, 1)
    again = later.enqueue(stack.value, 2)
    assert (again.id, again.created) == (first.id, False)
    several = later.enqueue_many([(stack.value, 3), (stack.value + "x", 4), (stack.value + "x", 5)])
    assert [each.created for each in several] == [False, True, False]
    assert several[1].id == several[2].id
    first.run_now()
    assert first.result(timeout=PATIENCE) == 1
    assert once.enqueue(stack.value).created


def test_a_conflict_skips_or_raises(stack: Stack) -> None:
    first = skipped.options(delay=HOUR).enqueue(stack.value)
    again = skipped.options(delay=HOUR).enqueue(stack.value)
    assert (first.created, again.created) == (True, False)
    with pytest.raises(AlreadyEnqueued, match="was not enqueued"):
        _ = again.id
    first = raising.options(delay=HOUR).enqueue(stack.value)
    with pytest.raises(AlreadyEnqueued) as raised:
        raising.enqueue_many([(stack.value + "y",), (stack.value,)])
    assert raised.value.job == first.id
    assert raising.list(args={"key": stack.value + "y"}) == []  # none of the calls
    assert raising.enqueue(stack.value + "y").created


def test_a_conflict_replaces_fields_of_one_that_has_not_started(stack: Stack) -> None:
    first = debounced.options(delay=HOUR).enqueue(stack.value, "old")
    again = debounced.options(delay=2 * HOUR, priority=7).enqueue(stack.value, "new")
    assert (again.id, again.created) == (first.id, False)
    seen = first.get()
    assert seen.run_at is not None
    assert seen.run_at - seen.enqueued_at > 1.5 * HOUR
    assert (seen.args["text"], seen.priority) == ("new", 7)
    debounced.enqueue(stack.value, "now")
    assert first.result(timeout=PATIENCE) == "now"


def test_a_completed_execution_counts_within_its_period(stack: Stack) -> None:
    first = hourly.enqueue(stack.value)
    first.result(timeout=PATIENCE)
    again = hourly.enqueue(stack.value)
    assert (again.id, again.created) == (first.id, False)


def test_uniqueness_by_queue_alone(stack: Stack) -> None:
    names = [f"one-{stack.value}", f"two-{stack.value}"]
    first, second = [single.options(queue=name, delay=HOUR).enqueue() for name in names]
    again = single.options(queue=names[0], delay=HOUR).enqueue()
    assert (second.created, again.created, again.id) == (True, False, first.id)


def test_refused_calls_store_nothing(stack: Stack) -> None:
    tag = f"refused-{stack.value}"
    tagged = double.options(tags=[tag], delay=HOUR)
    refused: list[tuple[type[Exception], Any]] = [
        (InvalidInput, lambda: tagged.enqueue("x")),  # type: ignore[arg-type]
        (InvalidInput, lambda: tagged.enqueue()),  # type: ignore[call-arg]
        (InvalidInput, lambda: tagged.enqueue_many([(1,), ("x",)])),
        (InvalidInput, lambda: tagged.enqueue_many([{"numer": 1}])),
        (InvalidInput, lambda: tagged.enqueue_many([send.call(Order(number="a", due=date(2030, 1, 1)))])),  # type: ignore[list-item]
        (InvalidPayload, lambda: once.options(tags=[tag]).enqueue("x" * 1_100_000)),
        (InvalidValue, lambda: double.options(tags=[tag], queue="a b").enqueue(1)),
        (InvalidValue, lambda: double.options(tags=[tag], priority=40_000).enqueue(1)),
        (InvalidValue, lambda: double.options(tags=[tag], max_attempts=0).enqueue(1)),
        (InvalidValue, lambda: double.options(tags=[tag] * 40).enqueue(1)),
        (ConfigError, lambda: double.options(tags=[tag], delay=HOUR, at=datetime.now(UTC)).enqueue(1)),
        (ConfigError, lambda: double.options(tags=[tag], at=datetime(2030, 1, 1)).enqueue(1)),  # noqa: DTZ001 -- what is refused
    ]
    for error, call in refused:
        with pytest.raises(error):
            call()
    assert double.list(tags=[tag]) == once.list(tags=[tag]) == []


def test_local_refuses_by_name_what_it_cannot_do() -> None:
    @task(transactional=True)
    def writing(ctx: TaskContext) -> bool:
        return ctx.conn is None

    with Local(tasks=[double, writing]) as app:
        with pytest.raises(ConfigError, match="Local takes no idempotency_key"):
            double.options(idempotency_key="k").enqueue(1)
        with pytest.raises(ConfigError, match="Local takes no conn"):
            double.options(conn=object()).enqueue(1)
        with pytest.raises(ConfigError, match="writing is transactional"):
            writing.enqueue()
        assert app.list_tasks() == []
    with Local(tasks=[writing], allow_transactional=True):
        assert writing.enqueue().result(timeout=PATIENCE) is True


def test_local_runs_tasks_on_its_virtual_clock() -> None:
    with Local(tasks=[flaky, double, hourly, debounced]) as app:
        handle = double.options(delay=timedelta(days=1)).enqueue(1)
        app.settle(PATIENCE)
        assert handle.get().status == "pending"
        app.advance_time(timedelta(days=1))
        assert handle.get().output == 2
        first = hourly.enqueue("k")
        app.drain(PATIENCE)
        app.advance_time(timedelta(minutes=59))
        assert not hourly.enqueue("k").created
        app.advance_time(timedelta(minutes=2))
        assert hourly.enqueue("k").id != first.id
        minutely = debounced.options(delay=timedelta(minutes=1))
        last = [minutely.enqueue("d", text) for text in "abc"][-1]
        app.advance_time(timedelta(minutes=1))
        assert (last.get().output, len(debounced.list())) == ("c", 1)
        slow_retry = flaky.enqueue(1)
        app.settle(PATIENCE)
        assert slow_retry.get().status == "waiting"
        app.advance_time(timedelta(seconds=1))
        assert slow_retry.get().status == "completed"
