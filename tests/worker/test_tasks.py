"""Tasks: from the enqueue to the result, with retries, cancellation, rescue and telemetry."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Error, Pgflow, Retry, Snooze, current_job, telemetry
from pgflow.client import task_waiter
from pgflow.client.commands import AwaitTask
from pgflow.core.definition.middleware import Proceed, StepCall
from pgflow.core.models.task import TaskInstance
from pgflow.database.connect import Connection
from pgflow.database.statement import run
from pgflow.errors import (
    AlreadyStarted,
    InvalidPayload,
    InvalidValue,
    JobNotFound,
    NotActive,
    NotRetryable,
    StillRunning,
    UnknownTask,
)
from pgflow.store import task as store
from tests.hand_tasks import HandTask, Tasks, hand_task
from tests.worker.conftest import Work
from tests.worker.db_helpers import connections, one, rows
from tests.worker.thread_worker import Inside
from tests.worker.waiting import PATIENCE, until

SOON = Retry(max_attempts=3, base=timedelta(0), jitter=0.0)
gate = threading.Event()
seen: list[Any] = []


def add(a: int, b: int = 2) -> int:
    return a + b


async def aadd(a: int, b: int) -> dict[str, int]:
    await asyncio.sleep(0)
    return {"sum": a + b}


def flaky(until_attempt: int, ctx: Any) -> str:
    if ctx.attempt < until_attempt:
        raise ValueError(f"attempt {ctx.attempt}")
    return f"attempt {ctx.attempt} of {ctx.max_attempts}"


def refused() -> Any:
    return Error("card expired", retry=False)


def late(ctx: Any) -> Any:
    seen.append(ctx.attempt)
    return Snooze(timedelta(0)) if len(seen) == 1 else "done"


def whoami() -> list[Any]:
    ctx = current_job()
    return [ctx.id, ctx.task, ctx.queue, ctx.attempt, list(ctx.tags), dict(ctx.metadata)]


def blocked() -> None:
    gate.wait(30)


async def hung() -> None:
    await asyncio.sleep(60)


def books(ctx: Any, fails: bool) -> int:
    ctx.conn.execute("insert into ledger values (%s)", [ctx.id])
    if fails:
        raise ValueError("rolled back")
    return int(ctx.id)


async def abooks(ctx: Any, fails: bool) -> int:
    await ctx.conn.execute("insert into ledger values (%s)", [ctx.id])
    if fails:
        raise ValueError("rolled back")
    return int(ctx.id)


def cancels_itself(ctx: Any) -> None:
    ctx.conn.execute("insert into ledger values (%s)", [ctx.id])
    ctx.conn.execute("select pgflow.cancel_task(%s, 'by itself')", [ctx.id])


ADD, AADD, WHOAMI, BLOCKED = hand_task(add), hand_task(aadd), hand_task(whoami, tags=("own",)), hand_task(blocked)
FLAKY, REFUSED, LATE = hand_task(flaky, retry=SOON), hand_task(refused), hand_task(late)
HUNG = hand_task(hung, max_runtime=timedelta(seconds=0.05), retry=Retry(max_attempts=1))
BOOKS = hand_task(books, transactional=True, retry=Retry(max_attempts=1))
ABOOKS = hand_task(abooks, transactional=True, retry=Retry(max_attempts=1))
SELF = hand_task(cancels_itself, transactional=True)
UNKNOWN = hand_task(add, name="unknown_here")
PLAIN: dict[str, Any] = {
    **dict.fromkeys(("at", "delay", "queue", "priority", "max_attempts")),
    **{"tags": (), "metadata": {}, "notify": False},
}
WORKFLOWS: tuple[Any, ...] = ()
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=0.3)
SLOW = hand_task(flaky, name="slow", retry=Retry(max_attempts=2, base=HOUR, max_backoff=HOUR))
TASKS = (ADD, AADD, WHOAMI, BLOCKED, FLAKY, REFUSED, LATE, HUNG, BOOKS, ABOOKS, SELF, SLOW)


@pytest.fixture
def tasks(app: Pgflow) -> Tasks:
    """The app's commands."""
    gate.clear()
    seen.clear()
    return Tasks(app)


def until_ended(tasks: Tasks, job: int) -> TaskInstance:
    """Wait until a task has ended."""

    def look() -> TaskInstance | None:
        found = tasks.get(job)
        return found if found.finished_at is not None else None

    found = until(look, f"the end of job {job}")
    assert found is not None
    return found


def test_a_task_runs_with_its_arguments_and_its_output_is_stored(tasks: Tasks, work: Work, conn: Connection) -> None:
    work()
    first, second = tasks.enqueue(ADD, {"a": 1}), tasks.enqueue(AADD, {"a": 1, "b": 5})
    ended = until_ended(tasks, first)
    assert (ended.status, ended.output, ended.args, ended.attempt) == ("completed", 3, {"a": 1}, 1)
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert ended.enqueued_at <= ended.started_at <= ended.finished_at
    assert ended.worker == one(conn, "select max(id) from pgflow.workers")
    assert until_ended(tasks, second).output == {"sum": 6}
    assert rows(conn, "select id from pgflow.jobs") == []


def test_an_attempt_that_fails_is_retried_with_its_errors_kept(tasks: Tasks, work: Work) -> None:
    work()
    ended = until_ended(tasks, tasks.enqueue(FLAKY, {"until_attempt": 3}))
    assert (ended.status, ended.output, ended.attempt) == ("completed", "attempt 3 of 3", 3)
    assert [(each["attempt"], each["type"], each["reason"]) for each in ended.errors] == [
        (1, "ValueError", "attempt 1"),
        (2, "ValueError", "attempt 2"),
    ]


def test_a_task_fails_when_its_attempts_are_used_up_or_its_error_is_final(tasks: Tasks, work: Work) -> None:
    work()
    ended = until_ended(tasks, tasks.enqueue(FLAKY, {"until_attempt": 9}, max_attempts=2))
    assert (ended.status, ended.attempt, len(ended.errors)) == ("failed", 2, 1)
    assert ended.error is not None
    assert (ended.error["reason"], ended.error["attempt"]) == ("attempt 2", 2)
    ended = until_ended(tasks, tasks.enqueue(REFUSED))
    assert ended.status == "failed"
    assert ended.error == {"reason": "card expired", "type": "Error", "attempt": 1}


def test_a_snooze_does_not_count_as_an_attempt(tasks: Tasks, work: Work) -> None:
    work()
    ended = until_ended(tasks, tasks.enqueue(LATE))
    assert (ended.status, ended.output, seen) == ("completed", "done", [1, 1])


def test_a_task_knows_its_job_also_where_it_calls_other_functions(tasks: Tasks, work: Work) -> None:
    work({"mail": 1, "default": 1})
    job = tasks.enqueue(WHOAMI, queue="mail", tags=["gift"], metadata={"by": "ann"}, telemetry={"trace": "t"})
    ended = until_ended(tasks, job)
    assert ended.output == [job, "whoami", "mail", 1, ["own", "gift"], {"by": "ann"}]
    assert (ended.tags, ended.metadata) == (("own", "gift"), {"by": "ann"})


def test_max_runtime_ends_an_attempt(tasks: Tasks, work: Work) -> None:
    work()
    ended = until_ended(tasks, tasks.enqueue(HUNG))
    assert ended.error is not None
    assert (ended.status, ended.error["type"]) == ("failed", "TimeoutError")


@pytest.mark.parametrize("task", [BOOKS, ABOOKS])
def test_a_transactional_task_commits_its_writes_with_its_end_or_not_at_all(
    tasks: Tasks, work: Work, conn: Connection, task: HandTask
) -> None:
    conn.execute("create table if not exists ledger (job bigint)")
    conn.execute("delete from ledger")
    work()
    fine, bad = tasks.enqueue(task, {"fails": False}), tasks.enqueue(task, {"fails": True})
    assert until_ended(tasks, fine).output == fine
    assert until_ended(tasks, bad).status == "failed"
    assert rows(conn, "select job from ledger") == [(fine,)]


def test_a_transactional_task_may_cancel_itself(tasks: Tasks, work: Work, conn: Connection) -> None:
    conn.execute("create table if not exists ledger (job bigint)")
    conn.execute("delete from ledger")
    work()
    job = tasks.enqueue(SELF)
    ended = until_ended(tasks, job)
    assert (ended.status, ended.error) == ("cancelled", {"reason": "by itself"})
    assert rows(conn, "select job from ledger") == [(job,)]


def test_middleware_sees_a_task_as_a_workflow_of_one_step(app: Pgflow, tasks: Tasks, work: Work) -> None:
    async def note(call: StepCall, proceed: Proceed) -> Any:
        seen.append((call.step.key, call.ctx.workflow, call.ctx.run, call.ctx.initial, call.queue))
        return await proceed()

    app.middleware = (note,)
    work()
    job, other = tasks.enqueue(ADD, {"a": 1}), tasks.enqueue(FLAKY, {"until_attempt": 2})
    assert until_ended(tasks, job).output == 3
    assert until_ended(tasks, other).attempt == 2
    assert ("add", "add", job, {"a": 1}, "default") in seen
    assert len(seen) == 3


def test_a_cancel_ends_a_task_that_waits_and_fences_one_that_runs(tasks: Tasks, work: Work) -> None:
    waits = tasks.enqueue(ADD, {"a": 1}, delay=timedelta(hours=1))
    tasks.cancel(waits, "not needed")
    ended = tasks.get(waits)
    assert (ended.status, ended.error, ended.attempt) == ("cancelled", {"reason": "not needed"}, 0)
    inside = work()
    runs = tasks.enqueue(BLOCKED)
    until(lambda: tasks.get(runs).status == "running", "its start")
    tasks.cancel(runs)
    assert tasks.get(runs).status == "cancelled"
    until(lambda: not inside.worker.held_jobs.jobs, "the worker gives it up")
    gate.set()
    with pytest.raises(NotActive, match=r"job \d+ \(blocked\) is cancelled: it cannot be cancelled"):
        tasks.cancel(runs)


def test_a_retry_runs_an_ended_task_again_under_its_id(tasks: Tasks, work: Work, conn: Connection) -> None:
    work()
    job = tasks.enqueue(FLAKY, {"until_attempt": 2}, max_attempts=1, tags=["x"], metadata={"by": "ann"})
    failed = until_ended(tasks, job)
    assert failed.status == "failed"
    conn.execute("update pgflow.task_results set args = '{\"until_attempt\": 1}'")
    tasks.retry(job)
    ended = until_ended(tasks, job)
    assert (ended.status, ended.attempt, ended.tags, ended.metadata) == ("completed", 1, ("x",), {"by": "ann"})
    assert ended.enqueued_at == failed.enqueued_at
    with pytest.raises(NotRetryable, match="is completed"):
        tasks.retry(job)


def test_a_retry_runs_a_task_now_that_waits_for_its_next_attempt(tasks: Tasks, work: Work) -> None:
    work()
    job = tasks.enqueue(SLOW, {"until_attempt": 2})
    until(lambda: tasks.get(job).status == "waiting", "the first attempt's end")
    tasks.retry(job)
    ended = until_ended(tasks, job)
    assert (ended.status, ended.attempt, len(ended.errors)) == ("completed", 2, 1)


def test_a_task_that_does_not_run_can_be_moved_and_deleted(tasks: Tasks, work: Work, conn: Connection) -> None:
    work({"other": 1})
    job = tasks.enqueue(ADD, {"a": 1}, delay=timedelta(hours=1), priority=5)
    tasks.update(job, priority=-3)
    assert (tasks.get(job).priority, tasks.get(job).queue) == (-3, "default")
    tasks.update(job, queue="other", delay=timedelta(0))
    assert until_ended(tasks, job).queue == "other"
    with pytest.raises(NotActive, match="is completed: it cannot be moved"):
        tasks.update(job, priority=1)
    runs = tasks.enqueue(BLOCKED, queue="other")
    until(lambda: tasks.get(runs).status == "running", "its start")
    for call in (tasks.delete, tasks.update):
        with pytest.raises(AlreadyStarted, match=r"job \d+ \(blocked\) is running"):
            call(runs)
    gate.set()
    until_ended(tasks, runs)
    waits = tasks.enqueue(ADD, {"a": 1})
    for each in (job, runs, waits):
        tasks.delete(each)
    assert one(conn, "select count(*) from pgflow.jobs") == one(conn, "select count(*) from pgflow.task_results") == 0


def test_a_task_unknown_to_a_worker_stays_for_another_one(dsn: str, app: Pgflow, tasks: Tasks, work: Work) -> None:
    other = Pgflow(dsn)
    Tasks(other).adopt(UNKNOWN)
    inside = work()
    job = Tasks(other).enqueue(UNKNOWN, {"a": 1})
    until(lambda: inside.worker.stats.claimed, "a claim")
    until(lambda: tasks.get(job).run_at and tasks.get(job).status == "pending", "it waits")
    inside.worker.adopt(UNKNOWN)
    tasks.update(job, delay=timedelta(0))
    assert until_ended(tasks, job).output == 3
    other.close()


def test_each_event_of_a_task_is_emitted(tasks: Tasks, work: Work) -> None:
    events: list[telemetry.Event] = []
    wanted = [name for name in telemetry.events() if name[1] == "task"]
    telemetry.attach("tasks", wanted, lambda event, config: events.append(event))
    try:
        work()
        job = tasks.enqueue(FLAKY, {"until_attempt": 2}, telemetry={"trace": "t"})
        until_ended(tasks, job)
        until(lambda: events and events[-1].name == telemetry.TASK_STOP, "the stop")
        cancelled = tasks.enqueue(ADD, {"a": 1}, delay=timedelta(hours=1))
        tasks.cancel(cancelled, "why")
        tasks.retry(cancelled)
    finally:
        telemetry.detach("tasks")
    assert next(event.metadata["jobs"] for event in events if event.name == telemetry.TASK_ENQUEUE) == (job,)
    assert {"cancel", "retry"} <= {event.name[2] for event in events}
    attempts = [event for event in events if event.metadata.get("job") == job]
    assert [event.name[2] for event in attempts] == ["start", "exception", "start", "stop"]
    start, failed, _, stop = attempts
    assert (start.metadata["job"], start.metadata["task"], start.metadata["trace"]) == (job, "flaky", "t")
    assert (failed.metadata["will_retry"], failed.metadata["reason"]) == (True, "attempt 1")
    assert stop.measurements["duration"] >= 0
    assert stop.measurements["age"] >= stop.measurements["duration"]


def test_a_lost_worker_s_task_runs_again(app: Pgflow, tasks: Tasks, work: Work, conn: Connection) -> None:
    with Inside(app) as first:
        job = tasks.enqueue(BLOCKED)
        until(lambda: tasks.get(job).status == "running", "its start")
        conn.execute("update pgflow.workers set lease_expires_at = now() - interval '1 hour'")
        second = work()
        until(lambda: second.worker.stats.rescued or first.worker.stats.rescued, "the rescue")
        gate.set()
        ended = until_ended(tasks, job)
    assert (ended.status, ended.attempt) == ("completed", 1)
    assert {each["reason"] for each in ended.errors} == {
        "the worker was lost while the task ran"
    }  # more than once if busy


def test_a_task_that_kills_each_worker_fails_without_running_again(tasks: Tasks, work: Work, conn: Connection) -> None:
    job = tasks.enqueue(ADD, {"a": 1}, delay=timedelta(hours=1))
    conn.execute("update pgflow.jobs set crashes = 5, state = 'ready'")
    work()
    ended = until_ended(tasks, job)
    assert ended.error is not None
    assert (ended.status, ended.error["type"]) == ("failed", "WorkerLost")
    assert ended.error["reason"] == "the worker was lost while the task ran, 5 times"


def test_plain_sql_enqueues_in_its_own_transaction(tasks: Tasks, work: Work, conn: Connection) -> None:
    work()
    with conn.transaction(force_rollback=True):
        conn.execute("select pgflow.enqueue('add', '{\"a\": 9}')")
    job = one(conn, "select pgflow.enqueue('add', '{\"a\": 7}', tags => '{sql}')")
    ended = until_ended(tasks, job)
    assert (ended.output, ended.tags) == (9, ("sql",))
    assert one(conn, "select count(*) from pgflow.task_results") == 1


def test_an_idempotency_key_enqueues_once(tasks: Tasks, conn: Connection) -> None:
    keys = [tasks.enqueue(ADD, {"a": 1}, idempotency_key="k") for _ in range(3)]
    assert len(set(keys)) == 1
    assert one(conn, "select count(*) from pgflow.jobs") == 1


def test_bad_input_is_refused_and_nothing_is_written(tasks: Tasks, conn: Connection) -> None:
    def enqueue(task: str, args: str) -> None:
        run(conn, store.enqueue("pgflow", task=task, args=[args], **PLAIN))

    with pytest.raises(UnknownTask, match="no task named 'nothing' is registered here") as refusal:
        enqueue("nothing", "{}")
    assert "add" in (refusal.value.hint or "")
    with pytest.raises(InvalidPayload, match="the arguments are not an object"):
        enqueue("add", "[1]")
    with pytest.raises(InvalidPayload, match="over the limit"):
        enqueue("add", '{"a": "' + 17_000_000 * "x" + '"}')
    with pytest.raises(InvalidValue, match="is not a valid queue"):
        tasks.enqueue(ADD, {"a": 1}, queue="no blanks")
    with pytest.raises(InvalidValue, match="max_attempts must be a whole number from 1 to 32,767, got 0"):
        tasks.enqueue(ADD, {"a": 1}, max_attempts=0)
    with pytest.raises(InvalidValue, match="tags"):
        tasks.enqueue(ADD, {"a": 1}, tags=[str(number) for number in range(33)])
    for call in (tasks.get, tasks.cancel, tasks.retry, tasks.update, tasks.delete):
        with pytest.raises(JobNotFound, match="there is no job 999999 of a task"):
            call(999_999)
    assert one(conn, "select count(*) from pgflow.jobs") == 0
    job = tasks.enqueue(ADD, {"a": 1})
    with pytest.raises(JobNotFound, match="of the task flaky"):
        tasks.get(job, FLAKY)


def test_a_page_has_live_and_ended_tasks_by_id(tasks: Tasks, work: Work, conn: Connection) -> None:
    done = tasks.enqueue_all(ADD, *({"a": number} for number in range(3)), tags=["gift"])
    inside = work()
    for each in done:
        assert each.id is not None
        until_ended(tasks, each.id)
    inside.stop()
    live = tasks.enqueue_all(ADD, {"a": 10}, {"a": 11}, queue="other")
    ids = [each.id for each in (*done, *live)]
    assert [each.id for each in tasks.page()] == ids[::-1]
    assert [each.id for each in tasks.page(oldest=True, limit=2)] == ids[:2]
    assert [each.id for each in tasks.page(oldest=True, after=ids[1], limit=2)] == ids[2:4]
    assert [each.id for each in tasks.page(before=ids[3], limit=2)] == ids[2:0:-1]
    assert [each.id for each in tasks.page(statuses=("completed",))] == ids[2::-1]
    assert [each.id for each in tasks.page(statuses=("pending",), queue="other")] == ids[:2:-1]
    assert [each.id for each in tasks.page(tags=("gift",), args='{"a":1}')] == [ids[1]]
    assert tasks.page(AADD) == []


def test_a_caller_is_woken_when_its_task_ends_and_a_hundred_share_one_connection(
    app: Pgflow, tasks: Tasks, work: Work, conn: Connection
) -> None:
    work({"default": 200})
    jobs = [each.id or 0 for each in tasks.enqueue_all(ADD, *({"a": number} for number in range(100)), delay=SECOND)]
    with ThreadPoolExecutor(100) as threads:
        found = list(threads.map(tasks.wait, jobs))
        assert connections(conn, "listen") == 2, "the worker's and the app's"
    assert [each.output for each in found] == list(range(2, 102))
    assert one(conn, "select count(*) from pgflow.waiters") == 1

    async def both() -> list[TaskInstance]:
        return await asyncio.gather(*(app._backend.aexecute(AwaitTask(None, job)) for job in jobs[:2]))

    assert [each.id for each in asyncio.run(both())] == jobs[:2]


def test_a_wait_ends_with_a_cancel_a_timeout_or_an_unknown_job(tasks: Tasks) -> None:
    job = tasks.enqueue(ADD, {"a": 1})
    with pytest.raises(StillRunning, match=rf"job {job} has not ended after 0\.05 s"):
        tasks.wait(job, 0.05)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(tasks.wait, job)
        until(lambda: tasks._app._postgres._waiter.get()._waiting, "the wait")
        tasks.cancel(job, "why")
        assert waiting.result(30).status == "cancelled"
    with pytest.raises(JobNotFound):
        tasks.wait(999_999)


@pytest.mark.parametrize("pooler", [False, True])
def test_closing_an_app_ends_the_thread_that_waited_at_once(
    dsn: str, tasks: Tasks, work: Work, monkeypatch: pytest.MonkeyPatch, pooler: bool
) -> None:
    monkeypatch.setattr(task_waiter, "IDLE_SECONDS", 3600.0)
    work()
    caller = Pgflow(dsn, pooler=pooler)
    for _ in range(2):  # a closed app can be used again
        before = set(threading.enumerate())
        assert Tasks(caller).wait(tasks.enqueue(ADD, {"a": 1})).output == 3
        (waited,) = (each for each in set(threading.enumerate()) - before if each.name == "pgflow-await")
        caller.close()
        waited.join(PATIENCE)
        assert not waited.is_alive()


def test_behind_a_pooler_all_waits_share_one_poll(dsn: str, app: Pgflow, tasks: Tasks, work: Work) -> None:
    work()
    pooled = Pgflow(dsn, pooler=True)
    jobs = [tasks.enqueue(ADD, {"a": number}, delay=SECOND) for number in range(3)]
    with ThreadPoolExecutor(3) as threads:
        assert [each.output for each in threads.map(Tasks(pooled).wait, jobs)] == [2, 3, 4]
    pooled.close()
