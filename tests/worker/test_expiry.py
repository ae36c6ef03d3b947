"""Queued work that is not started in time is cancelled; what has started is not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step, task
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.store import instance, job
from tests.store.driver import Driver
from tests.worker.conftest import Work
from tests.worker.db_helpers import one, rows, until_status
from tests.worker.waiting import until

Input = dict[str, Any]
HOUR = timedelta(hours=1)
CALLS: list[str] = []


@step
def act(ctx: Context[Input]) -> Ok:
    CALLS.append(ctx.value)
    return Ok("done")


class ExpiringFlow(Workflow[Input], unique=Unique("expiring")):
    initial = act
    transitions = {act: {"done": Done}}


@task(expires_in=HOUR)
def letter() -> None:
    CALLS.append("letter")


WORKFLOWS = (ExpiringFlow,)
TASKS = (letter,)
PAST = "update pgflow.jobs set expires_at = pgflow.now() - interval '1 minute'"


def end_expired(conn: Connection) -> list[str]:
    return [each.id for each in run(conn, instance.end_expired("pgflow", 10))]


def test_a_start_that_no_worker_took_in_time_is_cancelled(app: Pgflow, conn: Connection) -> None:
    ExpiringFlow.start("a", {}, expires_in=HOUR)
    ExpiringFlow.start("b", {})
    assert end_expired(conn) == []
    conn.execute(f"{PAST} where expires_at is not null".encode())
    assert end_expired(conn) == ["expiring::a"]
    ended = ExpiringFlow.get("a")
    assert (ended.status, ended.error) == ("cancelled", {"reason": "expired"})
    assert ExpiringFlow.get("b").status == "running"


def test_a_worker_ends_what_has_expired_and_does_not_run_it(app: Pgflow, work: Work, conn: Connection) -> None:
    CALLS.clear()
    ExpiringFlow.start("a", {}, expires_in=HOUR)
    job_id = app.enqueue(letter).id
    conn.execute(PAST.encode())
    work()
    until_status(ExpiringFlow, "a", "cancelled")
    found = until(lambda: app.job(job_id).get() if app.job(job_id).get().status == "cancelled" else None, "the task")
    assert found is not None
    assert found.error == {"reason": "expired"}
    assert CALLS == []
    assert one(conn, "select count(*) from pgflow.audit") == 0


def test_a_claimed_job_that_expires_before_it_begins_is_put_back_unstarted(app: Pgflow, conn: Connection) -> None:
    CALLS.clear()
    ExpiringFlow.start("a", {}, expires_in=HOUR)
    conn.execute(PAST.encode())
    driver = Driver(conn, WORKFLOWS)
    driver.claim()
    driver.run_steps()
    driver.settle()
    assert CALLS == []
    assert rows(conn, "select state, attempt, expires_at is not null from pgflow.jobs") == [("scheduled", 0, True)]
    assert end_expired(conn) == ["expiring::a"]


def test_a_job_that_has_started_does_not_expire(app: Pgflow, conn: Connection) -> None:
    ExpiringFlow.start("a", {}, expires_in=HOUR)
    driver = Driver(conn, WORKFLOWS)
    driver.claim()
    conn.execute(PAST.encode())
    assert end_expired(conn) == []  # it is running
    conn.execute("update pgflow.workers set lease_expires_at = pgflow.now()")
    run(conn, job.rescue("pgflow"))
    assert one(conn, "select attempt from pgflow.jobs") == 0  # which does not count as a start
    assert end_expired(conn) == ["expiring::a"]


def test_the_end_waits_while_the_instance_is_locked(app: Pgflow, conn: Connection, dsn: str) -> None:
    ExpiringFlow.start("a", {}, expires_in=HOUR, deadline=HOUR)
    conn.execute(PAST.encode())
    conn.execute("update pgflow.instances set deadline = pgflow.now() - interval '1 minute'")
    with connect(dsn, "test") as other, other.transaction():
        other.execute("select from pgflow.instances for update")
        assert end_expired(conn) == []
    assert end_expired(conn) == ["expiring::a"]
