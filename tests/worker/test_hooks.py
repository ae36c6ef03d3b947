"""Whatever ends an instance or a task, its hook is enqueued exactly once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Async, Context, Done, Ended, Ok, Pgflow, Retry, Unique, Workflow, step, task
from pgflow.database.connect import Connection
from pgflow.database.statement import run
from pgflow.store import instance, job
from tests.worker.conftest import Work
from tests.worker.db_helpers import one, rows
from tests.worker.waiting import until

Input = dict[str, Any]
HOUR = timedelta(hours=1)
ONCE = Retry(max_attempts=1)
DEEP = "[" * 70 + "]" * 70


@task(queue="hooks")
def failed(end: Ended) -> None: ...


@task(queue="hooks")
def cancelled(end: Ended) -> None: ...


@step(retry=ONCE)
def act(ctx: Context[Input]) -> Ok:
    return Ok("done", ctx.initial)


@step
def wait(ctx: Context[Input]) -> Async:
    return Async()


class Acting(Workflow[Input], unique=Unique("acting"), on_failure=failed, on_cancel=cancelled):
    initial = act
    transitions = {act: {"done": Done}}


class Waiting(Workflow[Input], unique=Unique("waiting"), on_failure=failed, on_cancel=cancelled):
    initial = wait
    transitions = {wait: {"done": Done}}


@task(on_failure=failed, on_cancel=cancelled, retry=ONCE)
def act_alone(text: str = "") -> str:
    return text


WORKFLOWS = (Acting, Waiting)
TASKS = (failed, cancelled, act_alone)
RESULTS = ("pgflow.step_results", "pgflow.task_results")


@pytest.fixture
def refusing(conn: Connection) -> Iterator[None]:
    """A constraint on both tables of results, which refuses some outputs."""
    for table in RESULTS:
        conn.execute(f"alter table {table} add constraint refused check (output::text !~ 'refused')".encode())
    yield
    for table in RESULTS:
        conn.execute(f"alter table {table} drop constraint refused".encode())


def hooks(conn: Connection) -> list[tuple[Any, ...]]:
    """Return the hooks that were enqueued, with the status and the type of the error, or its reason."""
    return rows(
        conn,
        """select step, coalesce(args #>> '{end,workflow}', args #>> '{end,task}'), args #>> '{end,status}',
            coalesce(args #>> '{end,error,type}', args #>> '{end,error,reason}')
        from pgflow.jobs where queue = 'hooks' order by 1, 2""",
    )


def until_ended(conn: Connection) -> None:
    """Wait until only hooks are left: no worker of these tests serves their queue."""
    until(lambda: not one(conn, "select count(*) from pgflow.jobs where queue <> 'hooks'"), "the end of the others")


def lose_workers(conn: Connection) -> None:
    """Let each job that was claimed be held by a worker of its own that is lost, for the fifth time."""
    conn.execute("update pgflow.jobs set state = 'running', worker = -id, attempt = 1, crashes = 4")
    run(conn, job.rescue("pgflow"))


def test_a_poison_job_has_one_hook_when_its_last_worker_is_lost(app: Pgflow, work: Work, conn: Connection) -> None:
    Acting.start("a", {})
    act_alone.enqueue()
    lose_workers(conn)
    assert hooks(conn) == []
    work()
    until_ended(conn)
    assert hooks(conn) == [
        ("failed", "Acting", "failed", "WorkerLost"),
        ("failed", "act_alone", "failed", "WorkerLost"),
    ]


def test_what_the_database_refuses_to_store_has_one_hook(
    app: Pgflow, work: Work, conn: Connection, refusing: None
) -> None:
    for number in range(2):
        Acting.start(f"v{number}", {"n": "refused" if number else "stored"})
        act_alone.enqueue("refused" if number else "stored")
    work()
    until_ended(conn)
    assert hooks(conn) == [
        ("failed", "Acting", "failed", "CheckViolation"),
        ("failed", "act_alone", "failed", "CheckViolation"),
    ]


def test_what_cannot_be_read_has_one_hook_and_leaves_the_others_alone(
    app: Pgflow, work: Work, conn: Connection
) -> None:
    Acting.start("a", {})
    Acting.start("b", {})
    act_alone.enqueue_many([("args",), ("errors",), ("no list",), ("intact",)])
    conn.execute("update pgflow.instances set input = %s::jsonb where id = 'acting::a'", [f'{{"n": {DEEP}}}'])
    deep_text = json.dumps({"text": json.loads(DEEP)})
    conn.execute("update pgflow.jobs set args = %s::jsonb where args ->> 'text' = 'args'", [deep_text])
    for which, errors in (("errors", DEEP), ("no list", "[3]")):
        conn.execute("update pgflow.jobs set errors = %s::jsonb where args ->> 'text' = %s", [errors, which])
    work()
    until_ended(conn)
    assert hooks(conn) == [
        ("failed", "Acting", "failed", "InvalidPayload"),
        ("failed", "act_alone", "failed", "InvalidInput"),
    ]
    assert rows(conn, "select status, count(*) from pgflow.task_results group by 1 order by 1") == [
        ("completed", 3),
        ("failed", 1),
    ]


def test_a_bulk_cancel_enqueues_one_hook_each(app: Pgflow, conn: Connection) -> None:
    for number in range(2):
        Waiting.start(f"v{number}", {})
        act_alone.enqueue(str(number))
    for chosen in ("workflow:Waiting", "task:act_alone"):
        app.bulk.cancel(chosen, reason="withdrawn")
    assert hooks(conn) == [
        *[("cancelled", "Waiting", "cancelled", "withdrawn")] * 2,
        *[("cancelled", "act_alone", "cancelled", "withdrawn")] * 2,
    ]


def test_a_deadline_and_an_expiry_enqueue_one_hook_each(app: Pgflow, conn: Connection) -> None:
    Waiting.start("late", {}, deadline=HOUR)
    Acting.start("expiring", {}, expires_in=HOUR)
    act_alone.options(expires_in=HOUR).enqueue()
    conn.execute("update pgflow.instances set deadline = pgflow.now() - interval '1 minute' where deadline is not null")
    conn.execute("update pgflow.jobs set expires_at = pgflow.now() - interval '1 minute' where expires_at is not null")
    for _ in range(2):
        run(conn, instance.end_expired("pgflow", 10))
    assert hooks(conn) == [
        ("cancelled", "Acting", "cancelled", "expired"),
        ("cancelled", "act_alone", "cancelled", "expired"),
        ("failed", "Waiting", "failed", "DeadlineExceeded"),
    ]
