"""A claim or a rescue skips jobs that were updated after its snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import pytest

from pgflow import Pgflow
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import Statement, run
from pgflow.store import job
from tests.conftest import Server
from tests.store.driver import Driver
from tests.store.test_interleavings import WORKFLOWS, Pair, start
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

# Blocks a session in the middle of a statement, after its snapshot: a view replaces a table and waits for a lock if the
# session has enabled it.
BLOCK = """
    alter table pgflow.{table} rename to real_{table};
    create view pgflow.{table} as select * from pgflow.real_{table}
        where case when current_setting('test.block', true) = 'on'
            then (select true from pg_advisory_xact_lock_shared({lock})) else true end;
"""
MIDDLE = "select from pg_stat_activity where wait_event = 'advisory' and datname = current_database()"
T = TypeVar("T")


@contextmanager
def blocked(conn: Connection, late: Connection, statement: Statement[T], lock: int) -> Iterator[Callable[[], T]]:
    """Start a statement whose snapshot precedes the block; yield a function that unblocks it and returns its result."""
    conn.execute("select pg_advisory_lock(%s)", [lock])
    late.execute("set test.block = on")
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(run, late, statement)
        until(lambda: running.done() or conn.execute(MIDDLE).fetchall(), "the statement's middle")

        def unblock() -> T:
            conn.execute("select pg_advisory_unlock(%s)", [lock])
            return running.result()

        yield unblock


@pytest.fixture
def dsn(server: Server, migrated_database: Callable[[Server], str]) -> str:
    """The dsn of a database in which sessions can be blocked, with the workflows registered."""
    dsn = migrated_database(server)
    app = Pgflow(dsn, workflows=WORKFLOWS)
    app.register()
    app.close()
    with connect(dsn, "migrate") as conn:
        for table, lock in (("queues", 7), ("workers", 8)):
            conn.execute(BLOCK.format(table=table, lock=lock).encode())
    return dsn


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection]:
    """A connection to it that is not blocked."""
    with connect(dsn, "test") as conn:
        yield conn


def test_a_claim_skips_a_job_that_moved_on_after_its_snapshot(dsn: str, conn: Connection) -> None:
    with connect(dsn, "a") as late, connect(dsn, "b") as other:
        a, b = Driver(late, WORKFLOWS), Driver(other, WORKFLOWS)
        start(b, Pair, "v")
        with blocked(conn, late, job.claim("pgflow", a.settler.worker, {"default": 10}), 7) as unblock:
            b.settler.is_draining = True  # jobs that it makes ready are left to other workers
            b.turn()
            b.settle()
            jobs = "select step, state from pgflow.jobs order by id"
            assert conn.execute(jobs).fetchall() == [("left", "ready"), ("right", "ready")]
            assert unblock() == []
        while a.turn():
            pass
        assert conn.execute("select status from pgflow.instances").fetchall() == [("completed",)]
        recorded = conn.execute("select step from pgflow.step_results order by seq").fetchall()
        assert [step for (step,) in recorded] == ["first", "left", "right", "join"]


def test_a_rescue_skips_a_job_that_another_worker_claimed_after_its_snapshot(dsn: str, conn: Connection) -> None:
    with connect(dsn, "a") as late, connect(dsn, "b") as other:
        dead = Driver(other, WORKFLOWS)
        start(dead, Pair, "v")
        assert dead.claim() == 1
        other.execute("update pgflow.workers set lease_expires_at = pgflow.now()")
        with blocked(conn, late, job.rescue("pgflow"), 8) as unblock:
            assert run(other, job.rescue("pgflow")).jobs == 1
            successor = Driver(other, WORKFLOWS)
            assert successor.claim() == 1
            assert unblock().jobs == 0
        held = conn.execute("select state, worker, attempt, crashes from pgflow.jobs").fetchall()
        assert held == [("running", successor.settler.worker, 1, 1)]


def test_a_worker_that_is_notified_during_a_claim_claims_again(dsn: str, conn: Connection) -> None:
    app = Pgflow(dsn, workflows=WORKFLOWS)
    database = conn.execute("select current_database()").fetchone()
    assert database is not None
    conn.execute(f"alter database {database[0]} set test.block = on".encode())  # for new sessions
    conn.execute("select pgflow.start('Pair', 'locked')")
    conn.execute("select pg_advisory_lock(7)")
    never = timedelta(minutes=10)
    with connect(dsn, "a") as other, Inside(app, {"default": 10}, poll=never, sweep=never, lease=never):
        other.execute("begin")
        other.execute("select from pgflow.jobs for update")  # the claim skips it, and finds nothing
        until(lambda: conn.execute(MIDDLE).fetchall(), "the claim's middle")
        listens = "select from pg_stat_activity where application_name = 'pgflow:listen' and state = 'idle'"
        until(lambda: conn.execute(listens).fetchall(), "the listener")
        conn.execute("select pgflow.start('Pair', 'v')")
        conn.execute("select pg_advisory_unlock(7)")
        until(lambda: conn.execute("select from pgflow.instances where status = 'completed'").fetchall())
    app.close()
