"""Transactional steps: their writes, their result and the next jobs commit together, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from pgflow import Async, Context, Done, Error, Ok, Pgflow, Retry, Snooze, Step, Unique, Workflow, route, step
from pgflow.database.connect import Connection
from pgflow.worker import outcome
from tests.worker.conftest import Work
from tests.worker.db_helpers import connections, cut, leftovers, one, rows, steps, until_all_ended, until_status
from tests.worker.flows import Books
from tests.worker.processes import Processes
from tests.worker.waiting import PATIENCE, until

Input = dict[str, Any]
SEVER = "select pg_terminate_backend(pg_backend_pid())"
INSERT = "insert into ledger (value, attempt) values (%s, %s)"
QUICKLY = Retry(max_attempts=3, base=timedelta(milliseconds=10))


class Gate:
    """Where a step waits for the test."""

    begun = Event()
    go = Event()


@pytest.fixture(autouse=True)
def ledger(conn: Connection) -> Iterator[None]:
    """An empty table of the user's own."""
    conn.execute("create table if not exists ledger (value text, attempt integer check (attempt < 100))")
    Gate.begun.clear()
    Gate.go.clear()
    yield
    Gate.go.set()
    conn.execute("delete from ledger")


def come_to(ctx: Context[Input]) -> Ok | Error | Snooze | Async:
    """What a step does after its write, the first time; later it is well."""
    match ctx.initial.get("how") if ctx.attempt == 1 else None:
        case "raise":
            raise RuntimeError("after the write")
        case "error":
            return Error("after the write")
        case "undeclared":
            return Ok("unheard_of")
        case "unstorable":
            return Ok("done", {"text": "\x00"})
        case "wait":
            return Async()
    return Ok("done", {"by": ctx.step})


@step(transactional=True, retry=QUICKLY)
def write(ctx: Context[Input]) -> Any:
    ctx.conn.execute(INSERT, [ctx.value, ctx.attempt])
    if ctx.initial.get("how") == "sever":
        ctx.conn.execute(SEVER)
    if ctx.initial.get("how") == "violate" and ctx.attempt == 1:
        ctx.conn.execute(INSERT, [ctx.value, 100])
    if ctx.initial.get("how") == "gate":
        Gate.begun.set()
        assert Gate.go.wait(PATIENCE)
    return come_to(ctx)


@step(transactional=True, retry=QUICKLY)
async def awrite(ctx: Context[Input]) -> Any:
    await ctx.conn.execute(INSERT, [ctx.value, ctx.attempt])
    if ctx.initial.get("how") == "sever":
        await ctx.conn.execute(SEVER)
    if ctx.initial.get("how") == "violate" and ctx.attempt == 1:
        await ctx.conn.execute(INSERT, [ctx.value, 100])
    if ctx.initial.get("how") == "gate":
        Gate.begun.set()
        await asyncio.to_thread(Gate.go.wait, PATIENCE)
    return come_to(ctx)


@step
def left(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step
def right(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step
def meet(ctx: Context[Input]) -> Ok:
    return Ok("done")


class Sync(Workflow[Input], unique=Unique("sync")):
    """A transactional step in a thread, which forks."""

    initial = write
    transitions = {
        write: {"done": [left, right]},
        left: {"done": meet},
        right: {"done": meet},
        meet: {"done": Done},
    }


class Asynchronous(Workflow[Input], unique=Unique("async")):
    """A transactional step on the event loop, which forks."""

    initial = awrite
    transitions = {
        awrite: {"done": [left, right]},
        left: {"done": meet},
        right: {"done": meet},
        meet: {"done": Done},
    }


class Single(Workflow[Input], unique=Unique("single")):
    """One transactional step and nothing else."""

    initial = write
    transitions = {write: {"done": Done}}


class Joining(Workflow[Input], unique=Unique("joining")):
    """Two transactional steps side by side, and a transactional join."""

    initial = left
    transitions = {
        left: {"done": [write.named("first"), awrite.named("second")]},
        write.named("first"): {"done": write.named("joined")},
        awrite.named("second"): {"done": write.named("joined")},
        write.named("joined"): {"done": Done},
    }


def choose(ctx: Context[Input]) -> Step:
    """Fail until the test takes the value out of `BROKEN_ROUTES`."""
    if ctx.value in BROKEN_ROUTES:
        raise SystemExit("the route fails")
    return left


BROKEN_ROUTES: set[str] = set()
TARGETS: dict[Any, Any] = {left: {"done": Done}, right: {"done": Done}}


class Routed(Workflow[Input], unique=Unique("routed_sync")):
    """A route after a transactional step in a thread."""

    initial = write
    transitions = {write: {"done": route(choose, left, right)}, **TARGETS}


class ARouted(Workflow[Input], unique=Unique("routed_async")):
    """A route after a transactional step on the event loop."""

    initial = awrite
    transitions = {awrite: {"done": route(choose, left, right)}, **TARGETS}


WORKFLOWS = (Sync, Asynchronous, Single, Joining, Books, Routed, ARouted)
Kind = type[Workflow[Any]]
both = pytest.mark.parametrize("kind", [Sync, Asynchronous], ids=["sync", "async"])


def written(conn: Connection) -> list[tuple[Any, ...]]:
    return rows(conn, "select value, attempt from ledger order by value, attempt")


@both
def test_writes_and_result_come_together(app: Pgflow, conn: Connection, work: Work, kind: Kind) -> None:
    work()
    kind.start("v", {})
    done = until_status(kind, "v")
    assert (done.status, len(steps(done))) == ("completed", 4)
    assert written(conn) == [("v", 1)]
    stamped = """select count(distinct t.xmin::text) from (
        select xmin from ledger union all select xmin from pgflow.step_results where step like '%%write') t"""
    assert one(conn, stamped) == 1, "one transaction wrote both"
    assert leftovers(conn) == {}


@both
def test_nothing_is_seen_before_the_step_ends(app: Pgflow, conn: Connection, work: Work, kind: Kind) -> None:
    work()
    kind.start("v", {"how": "gate"})
    assert Gate.begun.wait(PATIENCE)
    assert (written(conn), rows(conn, "select * from pgflow.step_results")) == ([], [])
    Gate.go.set()
    assert until_status(kind, "v").status == "completed"
    assert written(conn) == [("v", 1)]


@both
@pytest.mark.parametrize("how", ["raise", "error", "violate"])
def test_a_step_that_fails_takes_its_writes_back_and_is_tried_again(
    app: Pgflow, conn: Connection, work: Work, kind: Kind, how: str
) -> None:
    work()
    kind.start("v", {"how": how})
    done = until_status(kind, "v")
    assert (done.status, done.history[0].attempt) == ("completed", 2)
    assert written(conn) == [("v", 2)]


@both
@pytest.mark.parametrize("how", ["undeclared", "unstorable"])
def test_a_result_that_is_refused_takes_the_writes_back(
    app: Pgflow, conn: Connection, work: Work, kind: Kind, how: str
) -> None:
    work()
    kind.start("v", {"how": how})
    assert until_status(kind, "v").status == "failed"
    assert written(conn) == []
    assert leftovers(conn) == {}


@pytest.mark.parametrize("kind", [Routed, ARouted], ids=["sync", "async"])
def test_a_step_whose_route_fails_keeps_its_writes_with_its_result(
    app: Pgflow, conn: Connection, work: Work, kind: Kind
) -> None:
    work()
    BROKEN_ROUTES.add("v")
    kind.start("v", {})
    failed = until_status(kind, "v")
    assert failed.error is not None
    assert (failed.status, failed.error["type"], len(failed.history)) == ("failed", "RouteError", 1)
    assert written(conn) == [("v", 1)]
    stamped = "select count(distinct xmin::text) from (select xmin from ledger union all select xmin from pgflow.{}) t"
    assert one(conn, stamped.format("step_results")) == 1, "one transaction wrote the step's row and its result"
    assert one(conn, stamped.format("instances")) == 1, "and failed the instance"
    BROKEN_ROUTES.clear()
    kind.retry("v")
    done = until_status(kind, "v", "completed")
    assert (steps(done)[-1], len(done.history), written(conn)) == ("left", 2, [("v", 1)])
    assert leftovers(conn) == {}


@both
def test_a_transactional_step_may_wait(app: Pgflow, conn: Connection, work: Work, kind: Kind) -> None:
    work()
    kind.start("v", {"how": "wait"})
    until_status(kind, "v", "waiting")
    assert written(conn) == [("v", 1)]
    assert kind.resume("v", "done", {"by": "hand"}) == "delivered"
    done = until_status(kind, "v")
    assert (done.status, written(conn)) == ("completed", [("v", 1)])


@both
def test_a_step_whose_job_another_worker_has_claimed_rolls_its_writes_back(
    app: Pgflow, conn: Connection, work: Work, kind: Kind
) -> None:
    inside = work()
    kind.start("v", {"how": "gate"})
    assert Gate.begun.wait(PATIENCE)
    register = """insert into pgflow.workers (node, pid, queues, version, lease_expires_at)
        values ('elsewhere', 1, '{}', '0', now() + interval '1 hour') returning id"""
    other = one(conn, register)
    conn.execute("update pgflow.jobs set worker = %s, attempt = attempt + 1", [other])
    Gate.go.set()
    until(lambda: not inside.worker.held_jobs.jobs, "the insight of the first worker")
    inside.stop()
    assert (written(conn), rows(conn, "select * from pgflow.step_results")) == ([], [])
    assert rows(conn, "select worker, attempt from pgflow.jobs") == [(other, 2)]


@both
def test_a_step_whose_workers_lease_ends_takes_its_writes_back_and_runs_again(
    app: Pgflow, conn: Connection, work: Work, kind: Kind
) -> None:
    work()
    kind.start("v", {"how": "gate"})
    assert Gate.begun.wait(PATIENCE)
    Gate.begun.clear()
    conn.execute("update pgflow.workers set lease_expires_at = now()")
    assert Gate.begun.wait(PATIENCE)  # by the same worker under a new id
    Gate.go.set()
    done = until_status(kind, "v")
    assert (done.status, done.history[0].attempt) == ("completed", 1)
    assert written(conn) == [("v", 1)]
    assert leftovers(conn) == {}


def test_a_worker_killed_in_the_middle_leaves_nothing_and_another_one_runs_the_step_again(
    app: Pgflow, conn: Connection, processes: Processes, tmp_path: Path
) -> None:
    hold, log = tmp_path / "hold", tmp_path / "log"
    hold.touch()
    first = processes.start()
    Books.start("v", {"hold": str(hold), "log": str(log)})
    until(lambda: log.exists() and "hold_books 1" in log.read_text(), "the write")
    first.kill()
    until(lambda: connections(conn, "step") == 0, "its end")
    assert (written(conn), rows(conn, "select * from pgflow.step_results")) == ([], [])
    hold.unlink()
    processes.start()
    done = until_status(Books, "v")
    assert (done.status, done.history[0].attempt) == ("completed", 1)
    assert written(conn) == [("v", 1)]
    assert leftovers(conn) == {}


@pytest.mark.parametrize("kind", [Sync, Asynchronous, Joining], ids=["sync", "async", "joining"])
def test_many_at_once_each_write_once_at_the_first_attempt(
    app: Pgflow, conn: Connection, work: Work, kind: Kind
) -> None:
    # More of them than connections in the pool, and than threads in the event loop's own executor.
    work({"default": 60})
    kind.start_many([(f"v{number}", {}) for number in range(120)])
    assert until_all_ended(conn) == {"completed": 120}
    each = 3 if kind is Joining else 1
    assert rows(conn, "select count(*), count(distinct value), max(attempt) from ledger") == [(120 * each, 120, 1)]
    assert leftovers(conn) == {}


def test_as_many_run_at_once_as_the_queues_allow(app: Pgflow, conn: Connection, work: Work) -> None:
    work({"default": 24})
    for kind in (Sync, Asynchronous):
        kind.start_many([(f"v{number}", {"how": "gate"}) for number in range(12)])
    waiting = """select count(*) from pg_stat_activity
        where application_name = 'pgflow:step' and datname = current_database() and state = 'idle in transaction'"""
    until(lambda: one(conn, waiting) == 24, "24 open transactions")
    Gate.go.set()
    assert until_all_ended(conn) == {"completed": 24}


def test_a_connection_lost_in_the_middle_costs_no_attempt_and_doubles_nothing(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    work()
    Single.start("v", {"how": "gate"})
    assert Gate.begun.wait(PATIENCE)
    assert cut(conn, "step") == 1
    Gate.go.set()
    done = until_status(Single, "v")
    assert (done.status, done.history[0].attempt, written(conn)) == ("completed", 1, [("v", 1)])
    assert [error["severed"] for error in done.history[0].errors] == [1]


@both
def test_a_step_that_loses_its_connection_each_time_ends_all_the_same(
    app: Pgflow, conn: Connection, work: Work, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome, "MAX_UNCOUNTED_DISCONNECTS", 5)  # it would take half a minute
    work()
    kind.start("v", {"how": "sever"})
    failed = until_status(kind, "v")
    assert (failed.status, written(conn)) == ("failed", [])
    assert failed.error is not None
    assert failed.error["attempt"] == 3
    assert [each.get("severed") for each in failed.error["attempts"]] == [1, 2, 3, 4, 5, None, None]
    assert leftovers(conn) == {}
