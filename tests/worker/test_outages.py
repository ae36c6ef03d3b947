"""What a worker goes through: lost connections, a database that is gone, rows that it cannot make sense of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest
from psycopg.pq import PipelineStatus

from pgflow import Done, Pgflow, Unique, WaitForEvent, Workflow
from pgflow.database.connect import Connection, aconnect, connect
from pgflow.database.transaction_status import is_idle
from pgflow.embedded import EmbeddedPostgres
from pgflow.migrations.migrate import up
from tests.worker.conftest import Work
from tests.worker.db_helpers import (
    connections,
    cut,
    leftovers,
    one,
    rows,
    until_all_ended,
    until_recorded,
    until_status,
)
from tests.worker.flows import Fan, Line, Paused
from tests.worker.gated_steps import Gate, Input, Trio, first, third
from tests.worker.processes import Processes
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

ROLES = ("worker", "heart", "listen", "step")


@pytest.fixture(autouse=True)
def gate() -> Iterator[None]:
    Gate.close()
    yield
    Gate.go.set()


word = WaitForEvent("word").named("word")


class Pair(Workflow[Input], unique=Unique("pair")):
    initial = first
    transitions = {first: {"done": word}, word: {"received": third}, third: {"done": Done}}


class Newcomer(Workflow[Input], unique=Unique("newcomer")):
    """Known to newer workers only."""

    initial = first
    transitions = {first: {"done": Done}}


WORKFLOWS = (Trio, Pair, Line, Fan, Paused)


# -- connections


def test_a_worker_process_whose_connections_are_all_cut_goes_on_and_loses_and_doubles_nothing(
    app: Pgflow, conn: Connection, processes: Processes
) -> None:
    process = processes.start("-q", "default=20")
    Line.start_many([(f"v{number}", {"seconds": 0.01}) for number in range(300)])
    Fan.start_many([(f"v{number}", {"seconds": 0.01}) for number in range(30)])
    whole = 300 * 5 + 30 * 12
    ended = 0
    for part in (0.1, 0.3, 0.5, 0.7):
        until_recorded(conn, part * whole)
        ended += cut(conn, *ROLES)
    assert ended >= 6
    assert until_all_ended(conn) == {"completed": 330}
    assert one(conn, "select count(*) from pgflow.step_results") == whole
    assert leftovers(conn) == {}
    assert one(conn, "select count(*) from pgflow.workers where pid = %s", process.pid) == 1, "its lease went on"
    assert process.terminate() == 0, process.log


def test_an_idle_worker_whose_connections_are_cut_listens_again(app: Pgflow, conn: Connection, work: Work) -> None:
    work(poll=timedelta(seconds=30), lease=timedelta(seconds=30))
    until(lambda: connections(conn, "listen") == 1, "the listener")
    assert cut(conn, *ROLES) == 3
    until(lambda: connections(conn, "listen") == 1, "the listener")
    Trio.start("v", {})
    assert until_status(Trio, "v").status == "completed"


def test_a_worker_replaces_a_connection_that_still_waits_for_an_answer(app: Pgflow, conn: Connection) -> None:
    """As after "connection socket closed": psycopg has raised, and libpq has not yet seen that the server is gone."""
    with Inside(app) as inside:
        claimer = inside.worker._claimer
        until(lambda: claimer.conn is not None, "the connection")
        stuck = claimer.conn
        assert stuck is not None

        def leave_an_answer_unread() -> None:
            if is_idle(stuck) and stuck.pgconn.pipeline_status == PipelineStatus.OFF:
                stuck.pgconn.send_query(b"select 1")
            else:  # between two turns of the worker
                asyncio.get_running_loop().call_later(0.01, leave_an_answer_unread)

        inside.call(leave_an_answer_unread)
        until(lambda: stuck.closed, "the connection's end")
        Trio.start("v", {})
        assert until_status(Trio, "v").status == "completed"
        assert claimer.conn is not stuck


def test_a_worker_that_is_frozen_while_it_sends_does_not_keep_its_locks(
    app: Pgflow, dsn: str, conn: Connection
) -> None:
    # In the middle of a pipeline neither the statement's timeout nor that of an idle transaction counts.
    if conn.info.server_version < 170_000:  # nothing there ends it before the process wakes up or its connection breaks
        return
    Trio.start("v", {})
    free = "select count(*) from (select from pgflow.jobs for no key update skip locked) j"

    async def freeze() -> None:
        async with await aconnect(dsn, "worker") as frozen:
            shown = await (await frozen.execute("show transaction_timeout")).fetchone()
            assert shown == ("10s",)
            await frozen.execute("set transaction_timeout = 300")
            with suppress(psycopg.OperationalError):
                async with frozen.pipeline():
                    await frozen.execute("update pgflow.jobs set priority = 1")
                    until(lambda: one(conn, free) == 0, "the lock")
                    until(lambda: one(conn, free) == 1, "the lock's end")

    asyncio.run(freeze())
    assert one(conn, "select priority from pgflow.jobs") == 0


@pytest.fixture(scope="module")
def fragile() -> Iterator[EmbeddedPostgres]:
    """A server of this module's own, to be crashed."""
    with EmbeddedPostgres() as server:
        with connect(server.dsn, "migrate") as conn:
            up(conn)
        yield server


@pytest.mark.chaos
@pytest.mark.parametrize("is_long", [False, True], ids=["short", "longer than the lease"])
def test_a_crash_of_the_database_is_survived(fragile: EmbeddedPostgres, is_long: bool) -> None:
    kind = Trio
    app = Pgflow(fragile.dsn, workflows=WORKFLOWS)
    prefix = "long" if is_long else "short"
    try:
        kind.start_many([(f"{prefix}{number}", {"seconds": 0.02}) for number in range(400)])
        with Inside(app, {"default": 10}, lease=timedelta(seconds=2 if is_long else 60)) as inside:
            until(lambda: inside.worker.stats.steps > 100, "some work", pause=0.002)
            born = inside.worker.settler.worker
            fragile.crash()
            if is_long:
                until(lambda: inside.worker._claimer.is_lease_lost, "the lease's end")
            fragile.start()
            with connect(fragile.dsn, "test") as conn:
                assert until_all_ended(conn)["completed"] >= 400
                counted = """select count(*), count(distinct (run, step)) from pgflow.step_results
                    where run in (select run from pgflow.instances where id like %s)"""
                assert rows(conn, counted, f"trio::{prefix}%") == [(1200, 1200)]
                assert leftovers(conn) == {}
            assert (inside.worker.settler.worker != born) == is_long
    finally:
        app.close()


# -- what it cannot make sense of


def test_a_job_of_an_unknown_workflow_waits_for_a_worker_that_knows_it(
    app: Pgflow, dsn: str, conn: Connection, work: Work
) -> None:
    newer = Pgflow(dsn, workflows=[Newcomer])
    try:
        newer.register()
        Newcomer.start("v", {})
        work()
        Trio.start("v", {})
        assert until_status(Trio, "v").status == "completed"
        until(lambda: one(conn, "select state from pgflow.jobs") == "scheduled", "the passing on")
        assert (Newcomer.get("v").status, rows(conn, "select attempt, errors from pgflow.jobs")) == (
            "running",
            [(0, None)],
        )
        with Inside(newer):
            conn.execute("update pgflow.jobs set run_at = pgflow.now() where state = 'scheduled'")  # not waited for
            until(
                lambda: (
                    Newcomer.get("v").status == "completed"
                    or conn.execute("update pgflow.jobs set run_at = pgflow.now() where state = 'scheduled'") is None
                ),
                "its end",
            )
        done = Newcomer.get("v")
        assert (done.status, done.history[0].attempt) == ("completed", 1)
    finally:
        newer.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("metadata", "jsonb_build_object('n', repeat('9', 5000)::numeric)"),
        ("input", "jsonb_build_object('n', repeat('9', 5000)::numeric)"),
        ("input", "(repeat('[', 100) || repeat(']', 100))::jsonb"),
        ("input", "'7'::jsonb"),
    ],
)
def test_data_that_cannot_be_read_fails_its_own_instance_only(
    app: Pgflow, conn: Connection, work: Work, column: str, value: str
) -> None:
    Trio.start_many([(f"v{number}", {}) for number in range(5)])
    conn.execute(f"update pgflow.instances set {column} = {value} where id = 'trio::v2'".encode())  # noqa: S608 -- ours
    work()
    until(lambda: one(conn, "select count(*) from pgflow.jobs") == 0, "the end of all")
    assert rows(conn, "select id, status, error ->> 'step' from pgflow.instances order by id") == [
        (f"trio::v{number}", "failed" if number == 2 else "completed", "first" if number == 2 else None)
        for number in range(5)
    ]
    assert leftovers(conn) == {}


def test_an_output_that_cannot_be_read_fails_its_own_instance_only(app: Pgflow, conn: Connection, work: Work) -> None:
    inside = work()
    Pair.start_many([("bad", {}), ("good", {})])
    until(lambda: one(conn, "select count(*) from pgflow.jobs where state = 'parked'") == 2, "the waits")
    inside.stop()
    conn.execute(
        """update pgflow.step_results set output = jsonb_build_object('n', repeat('9', 5000)::numeric)
        where run = (select run from pgflow.instances where id = 'pair::bad')"""
    )
    Pair.resume("bad", "word")
    Pair.resume("good", "word")
    work()
    assert until_status(Pair, "good").status == "completed"
    until(lambda: one(conn, "select status from pgflow.instances where id = 'pair::bad'") == "failed", "the failure")
    assert leftovers(conn) == {}
