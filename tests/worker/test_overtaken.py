"""A breaking migration is announced: a worker finishes its steps, gives the other jobs back and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgflow import Pgflow
from pgflow.database.connect import Connection
from pgflow.database.migration_files import migrations
from pgflow.database.statement import Statement, run
from pgflow.errors import SchemaOutdated, SchemaTooNew
from pgflow.store import job, migration, worker
from pgflow.store.migration import ANNOUNCED, Applied
from pgflow.store.notification import SweepRequested
from tests.worker.conftest import Work
from tests.worker.db_helpers import leftovers, one, rows, until_all_ended
from tests.worker.flows import WORKFLOWS as FLOWS
from tests.worker.flows import Held, HeldAsync
from tests.worker.gated_steps import Gate, Trio
from tests.worker.processes import Processes
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

WORKFLOWS = (*FLOWS, Trio)
NEXT = len(migrations()) + 1
SAID = f'migration {NEXT:04}_rename of schema "pgflow" is announced, and will be too new for this pgflow'


@pytest.fixture(autouse=True)
def gate() -> Iterator[None]:
    Gate.close()
    yield
    Gate.go.set()


@pytest.fixture
def conn(conn: Connection) -> Iterator[Connection]:
    """The connection; what was announced is taken back at the end."""
    yield conn
    run(conn, migration.withdraw("pgflow", NEXT))


def announce(conn: Connection) -> None:
    """What `pgflow migrate` of a newer release does first."""
    with conn.transaction():
        run(conn, migration.record("pgflow", Applied(NEXT, "rename", ANNOUNCED, breaking=True)))
        run(conn, worker.notify("pgflow", [SweepRequested()]))


def ended(inside: Inside) -> BaseException | None:
    """Wait for its end and return what it has raised."""
    until(lambda: not inside._thread.is_alive(), "its end")
    error, inside._error = inside._error, None
    return error


def untouched(conn: Connection) -> list[tuple[Any, ...]]:
    """Which steps are recorded, in which attempt, with which errors; and what anybody was lost with."""
    assert one(conn, "select coalesce(max(crashes), 0) from pgflow.jobs") == 0
    return rows(conn, "select distinct attempt, errors from pgflow.step_results")


def test_what_runs_ends_and_what_has_not_begun_is_given_back(app: Pgflow, conn: Connection) -> None:
    Trio.start("a", {"gate": True})
    Trio.start_many([(f"b{number}", {}) for number in range(5)])
    with Inside(app, {"default": 1}, sweep=timedelta(hours=1), lease=timedelta(hours=1)) as inside:
        assert Gate.begun.wait(30)
        announce(conn)
        until(lambda: inside.worker._stopping.is_set(), "its stop")
        Gate.go.set()
        error = ended(inside)
    assert isinstance(error, SchemaTooNew)
    assert SAID in str(error)
    assert error.hint == f"Deploy the pgflow that ships {NEXT:04}_rename."
    assert Gate.calls == ["a.first"]
    waiting = (
        "select i.id, j.step, j.state, j.attempt from pgflow.jobs j join pgflow.instances i using (run) order by 1"
    )
    assert rows(conn, waiting) == [
        ("trio::a", "second", "ready", 0),
        *((f"trio::b{number}", "first", "ready", 0) for number in range(5)),
    ]
    assert one(conn, "select count(*) from pgflow.workers where lease_expires_at > now()") == 0

    run(conn, migration.withdraw("pgflow", NEXT))
    with Inside(app):
        assert until_all_ended(conn) == {"completed": 6}
    assert len(Gate.calls) == len(set(Gate.calls)) == 18
    assert untouched(conn) == [(1, None)]
    assert leftovers(conn) == {}


def test_without_notifications_the_next_sweep_finds_it(app: Pgflow, conn: Connection) -> None:
    with Inside(app, listen=False) as inside:
        announce(conn)
        assert isinstance(ended(inside), SchemaTooNew)


def test_a_worker_that_has_lost_its_lease_gets_no_new_one(app: Pgflow, conn: Connection) -> None:
    with Inside(app, sweep=timedelta(seconds=30), listen=False) as inside:
        until(lambda: inside.worker._claimer.found_nothing, "its first look")
        announce(conn)
        conn.execute("update pgflow.workers set lease_expires_at = now()")
        assert isinstance(ended(inside), SchemaTooNew)
    assert one(conn, "select count(*) from pgflow.workers") == 1


def test_none_starts_and_one_that_finds_it_over_when_it_asks_why_does(
    app: Pgflow, conn: Connection, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(conn)
    with pytest.raises(SchemaTooNew, match="is announced"):
        work()
    register, answers = worker.register, list[int]()

    def refused_once(number: int) -> int:
        answers.append(number)
        return number if len(answers) > 1 else 0

    def registering(*args: Any, **options: Any) -> Statement[int]:
        return register(*args, **options).then(refused_once)

    run(conn, migration.withdraw("pgflow", NEXT))
    monkeypatch.setattr(worker, "register", registering)
    assert work().worker.settler.worker == answers[1]


def test_the_ledger_is_read_with_each_sweep_and_never_else(
    app: Pgflow, conn: Connection, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, sweeps = [0], [0]
    breaking, rescue = migration.breaking, job.rescue

    def counted_read(*args: Any) -> Any:
        reads[0] += 1
        return breaking(*args)

    def counted_sweep(*args: Any) -> Any:
        sweeps[0] += 1
        return rescue(*args)

    monkeypatch.setattr(migration, "breaking", counted_read)
    monkeypatch.setattr(job, "rescue", counted_sweep)
    inside = work({"default": 20})
    Trio.start_many([(f"v{number}", {}) for number in range(300)])
    assert until_all_ended(conn) == {"completed": 300}
    inside.stop()
    assert 0 < reads[0] == sweeps[0] < inside.worker.stats.round_trips


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Held, HeldAsync])
def test_a_process_logs_what_to_deploy_and_exits_with_4_also_when_a_step_does_not_end(
    conn: Connection, app: Pgflow, processes: Processes, tmp_path: Path, kind: Any
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    process = processes.start("--shutdown-timeout", "0.2", "--log-level", "error")
    kind.start("v", {"hold": str(hold)})
    until(lambda: one(conn, "select count(*) from pgflow.jobs where state = 'running'") == 1, "the step")
    announce(conn)
    assert process.wait() == 4
    lines = process.log.splitlines()
    assert lines[-1].startswith(f"pgflow: {SAID}, which knows the schema up to {NEXT - 1:04}. Deploy the pgflow that")
    assert rows(conn, "select state, attempt, crashes from pgflow.jobs") == [("ready", 0, 0)]

    late = processes.start(ready=False)
    assert late.wait() == 4
    assert late.log.count("\n") == 1
    assert SAID in late.log

    hold.unlink()
    run(conn, migration.withdraw("pgflow", NEXT))
    processes.start()
    assert until_all_ended(conn) == {"completed": 1}
    assert untouched(conn) == [(1, None)]


@contextmanager
def changed(conn: Connection, table: str, column: str) -> Iterator[None]:
    """While it lasts, a column has another name."""
    conn.execute(f"alter table pgflow.{table} rename column {column} to other".encode())
    try:
        yield
    finally:
        conn.execute(f"alter table pgflow.{table} rename column other to {column}".encode())


def test_a_schema_that_falls_behind_its_worker_is_the_end_at_once(app: Pgflow, conn: Connection) -> None:
    last = run(conn, migration.applied("pgflow"))[-1]
    with Inside(app) as inside, changed(conn, "jobs", "crashes"):
        conn.execute("delete from pgflow.migrations where version = %s", [NEXT - 1])
        try:
            error = ended(inside)
        finally:
            run(conn, migration.record("pgflow", last))
    assert isinstance(error, SchemaOutdated)
    assert error.hint == "Run: pgflow migrate"
    Trio.start("v", {})
    with Inside(app):
        assert until_all_ended(conn) == {"completed": 1}
    assert untouched(conn) == [(1, None)]


@pytest.mark.parametrize("is_breaking", [True, False])
def test_a_call_that_fails_reports_whether_its_code_is_too_old_sync_and_async(
    app: Pgflow, dsn: str, conn: Connection, is_breaking: bool
) -> None:
    Trio.start("v", {})
    run(conn, migration.record("pgflow", Applied(NEXT, "rename", "", breaking=is_breaking)))
    expected = SchemaTooNew if is_breaking else psycopg.errors.UndefinedColumn

    async def fail() -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as other:
            for given in (None, other):
                with pytest.raises(expected):
                    await Trio.aget("v", conn=given)
        with pytest.raises(expected):
            await Trio.acancel("v")
        await app.aclose()

    try:
        with changed(conn, "instances", "created_at"), changed(conn, "scheduled_signals", "run"):
            with psycopg.connect(dsn) as other:
                for given in (None, other):
                    with pytest.raises(expected):
                        Trio.get("v", conn=given)
            with pytest.raises(expected):
                Trio.cancel("v")
            asyncio.run(fail())
    finally:
        conn.execute("delete from pgflow.migrations where version = %s", [NEXT])
    assert app.get(Trio, "v").status == "running"  # nothing has come of it
