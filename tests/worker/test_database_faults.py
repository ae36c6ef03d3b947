"""What the database refuses through a fault of its own is not blamed on a step: workers report it, wait and go on."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgflow import Async, Context, Done, Ok, Pgflow, Retry, Unique, Workflow, step, task
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.errors import AlreadyRunning, SequenceError
from pgflow.migrations.migrate import up
from pgflow.store import doctor
from tests.conftest import Server
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

ONCE = Retry(max_attempts=1)
AHEAD = 5000  # ids in use beyond the sequence: more than the attempts of a test use up


@step(retry=ONCE)
async def fork(ctx: Context[Any]) -> Ok:
    return Ok("done", {"attempt": ctx.attempt})


@step(retry=ONCE)
async def left(ctx: Context[Any]) -> Ok:
    return Ok("done")


@step(retry=ONCE)
async def right(ctx: Context[Any]) -> Ok:
    return Ok("done")


@step(retry=ONCE)
async def join(ctx: Context[Any]) -> Ok:
    return Ok("done")


@task
def jot() -> None: ...


class Forked(Workflow[Any], unique=Unique("forked")):
    initial = fork
    transitions = {fork: {"done": [left, right]}, left: {"done": join}, right: {"done": join}, join: {"done": Done}}


@step(retry=ONCE, transactional=True)
def book(ctx: Context[Any]) -> Ok:
    ctx.conn.execute("insert into public.books values (%s)", [ctx.value])
    return Ok("done")


class Booked(Workflow[Any], unique=Unique("booked")):
    initial = book
    transitions = {book: {"done": [left, right]}, left: {"done": join}, right: {"done": join}, join: {"done": Done}}


class Line(Workflow[Any], unique=Unique("line")):
    initial = left
    transitions = {left: {"done": right}, right: {"done": Done}}


@step(events=("given",), retry=ONCE)
async def ask(ctx: Context[Any]) -> Async:
    return Async()


class Asking(Workflow[Any], unique=Unique("asking")):
    initial = ask
    transitions = {ask: {"given": Done}}


WORKFLOWS = (Forked, Booked, Line, Asking)
TASKS = (jot,)


def occupy(conn: Connection, table: str) -> None:
    """Put rows into a table under ids that its sequence has not given out, as a copy of another database does."""
    column = "run" if table == "instances" else "id"
    numbered = "jobs" if table == "task_results" else table  # whose sequence
    rows = {
        "instances": "(run, id, workflow, version, status, input, finished_at) "
        "overriding system value select n, 'copied::' || n, 'Copied', 1, 'completed', '{}', now()",
        "jobs": "(id, run, step, state, run_at) overriding system value select n, 0, 'copied', 'parked', null",
        "task_results": "(id, task, queue, status, priority, attempt, max_attempts) "
        "select n, 'copied', 'default', 'completed', 0, 1, 1",
        "signals": "(id, run, name, consumed_at) overriding system value select n, 0, 'copied', now()",
        "scheduled_signals": "(id, run, step, name, due_at) overriding system value "
        "select n, 0, 's', 'copied', now() + interval '1 year'",
        "workers": "(id, node, pid, queues, version, lease_expires_at) overriding system value "
        "select n, 'copied', 1, '{}', '0', now() - interval '1 hour'",
    }[table]
    sequence = f"pg_get_serial_sequence('pgflow.{numbered}', '{column}')::regclass"
    (last,) = conn.execute(f"select coalesce(pg_sequence_last_value({sequence}), 0)".encode()).fetchall()[0]
    conn.execute(f"insert into pgflow.{table} {rows} from generate_series({last + 1}, {last + AHEAD}) n".encode())


def behind(conn: Connection) -> list[str]:
    """The tables whose sequences give out no new value."""
    return [each.table for each in run(conn, doctor.sequences("pgflow")) if each.fault]


def repair(conn: Connection) -> None:
    """Run the repair that the doctor suggests."""
    for each in run(conn, doctor.sequences("pgflow")):
        if each.fault:
            conn.execute(each.repair.encode())


@pytest.fixture(autouse=True)
def whole(conn: Connection) -> Iterator[None]:
    """When a test ends, the database has no fault."""
    conn.execute("create table if not exists public.books (value text)")
    conn.execute("delete from public.books")
    yield
    repair(conn)
    conn.execute("alter table pgflow.jobs drop constraint if exists theirs")
    conn.execute("drop trigger if exists theirs on pgflow.jobs; drop trigger if exists theirs on pgflow.step_results")
    conn.execute("drop function if exists public.theirs(); drop table if exists public.books")


def test_a_sequence_behind_its_table_fails_no_instance_and_holds_up_no_other_one(
    app: Pgflow, conn: Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflow.worker.turns.faults.REPORT_SECONDS", 600.0)  # longer than the test on any machine
    Forked.start_many([(f"f{number}", {}) for number in range(4)])
    Line.start_many([(f"l{number}", {}) for number in range(20)])
    occupy(conn, "jobs")
    with Inside(app, {"default": 50}, sweep=timedelta(seconds=0.2)) as inside:
        until(lambda: len(Line.list(status="completed")) == 20, "what needs no new job completes")
        until(lambda: "is behind" in (inside.worker.readiness_error() or ""), "the worker is not ready")
        tried = conn.execute("select last_value from pgflow.jobs_id_seq").fetchall()
        until(lambda: conn.execute("select last_value from pgflow.jobs_id_seq").fetchall() > tried, "another attempt")
        assert {each.status for each in Forked.list()} == {"running"}
        assert behind(conn) == ["pgflow.jobs"]
        repair(conn)
        until(lambda: len(Forked.list(status="completed")) == 4, "all go on when it is repaired")
        until(lambda: inside.worker.readiness_error() is None, "the worker is ready again")
    for number in range(4):
        assert [entry.attempt for entry in Forked.get(f"f{number}").history] == [1, 1, 1, 1]
    told = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert len([line for line in told if "returned a value that is in use" in line]) == 1, "once, not with each attempt"
    (found,) = [line for line in told if line.startswith("sequence pgflow.jobs_id_seq is behind pgflow.jobs: max id ")]
    assert re.search(r"max id \d+, last value \d+\. Run: select setval\('pgflow.jobs_id_seq', \d+\)", found)


def test_a_transactional_step_whose_result_meets_it_runs_again_and_takes_effect_once(
    app: Pgflow, conn: Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflow.worker.transactional.runner.REFUSED_RETRY", timedelta(seconds=0.1))
    Booked.start("b", {})
    occupy(conn, "jobs")
    with Inside(app):
        until(lambda: "which runs again" in caplog.text, "it is reported")
        assert Booked.get("b").status == "running"
        repair(conn)
        until(lambda: Booked.get("b").status == "completed", "it goes on")
    assert conn.execute("select value from public.books").fetchall() == [("b",)]


def test_calls_that_meet_it_name_the_repair(app: Pgflow, conn: Connection) -> None:
    Asking.start("a", {})

    def meets(table: str, call: Callable[[], Any], *, copied: str | None = None) -> None:
        occupy(conn, copied or table)
        with pytest.raises(SequenceError, match=rf"sequence of pgflow\.{table}\.\w+ is behind its table") as caught:
            call()
        statement = re.search(r"select setval\(.*\)\)", caught.value.hint or "")
        assert statement is not None
        assert behind(conn) == [f"pgflow.{table}"]
        conn.execute(statement[0].encode())
        assert behind(conn) == []
        call()

    meets("instances", lambda: Line.start("one", {}))
    meets("jobs", lambda: Line.start("two", {}))
    meets("jobs", lambda: app.enqueue("jot"), copied="task_results")
    meets("signals", lambda: Asking.resume("a", "given"))
    meets("scheduled_signals", lambda: Asking.schedule_resume("a", "ask", timedelta(hours=1)))
    with conn.transaction():
        occupy(conn, "instances")
        with pytest.raises(SequenceError), conn.transaction():
            Line.start("three", {}, conn=conn)
    repair(conn)
    with pytest.raises(AlreadyRunning):
        Line.start("one", {})


def test_async_calls_that_meet_it_name_the_repair(app: Pgflow, conn: Connection) -> None:
    occupy(conn, "instances")

    async def call() -> None:
        with pytest.raises(SequenceError, match="is behind its table"):
            await Line.astart("one", {})
        await app.aclose()

    asyncio.run(call())


def test_a_worker_that_gets_no_id_raises_the_reason(app: Pgflow, conn: Connection) -> None:
    occupy(conn, "workers")
    with pytest.raises(SequenceError, match=r"pgflow\.workers\.id is behind"), Inside(app):
        pass
    repair(conn)
    Line.start("l", {})
    with Inside(app):
        until(lambda: Line.get("l").status == "completed")


def test_an_exhausted_and_a_missing_sequence_are_reported(app: Pgflow, conn: Connection) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute("alter sequence pgflow.jobs_id_seq maxvalue 9000000; select setval('pgflow.jobs_id_seq', 9000000)")
        (found,) = [each for each in run(conn, doctor.sequences("pgflow")) if each.fault]
        assert found.fault == "sequence pgflow.jobs_id_seq is exhausted: its last value is its maximum, 9000000"
        with pytest.raises(SequenceError, match="exhausted"), conn.transaction():
            Line.start("l", {}, conn=conn)
        conn.execute(found.repair.encode())
        Line.start("l", {}, conn=conn)
    with conn.transaction(force_rollback=True):
        conn.execute("alter table pgflow.jobs alter id drop identity")
        (found,) = [each for each in run(conn, doctor.sequences("pgflow")) if each.fault]
        assert found.fault == "pgflow.jobs.id has no sequence, so that no row can be inserted"
        with pytest.raises(SequenceError, match="has no sequence"), conn.transaction():
            Line.start("l", {}, conn=conn)
        conn.execute(found.repair.encode())
        Line.start("l", {}, conn=conn)


def test_a_run_that_is_still_referred_to_counts_as_in_use(conn: Connection) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute(
            "insert into pgflow.step_results (run, step, event, attempt, started_at)"
            " values (9999999, 's', 'e', 1, now())"
        )
        assert behind(conn) == ["pgflow.instances"]


FAULTS = {
    "a trigger that raises": (
        (
            "create function public.theirs() returns trigger language plpgsql as $$ begin raise 'not today'; end $$;"
            "create trigger theirs before insert on pgflow.jobs for each row execute function public.theirs()"
        ),
        "drop trigger theirs on pgflow.jobs",
        "not today",
    ),
    "a trigger with a data error": (
        (
            "create function public.theirs() returns trigger language plpgsql as"
            " $$ begin perform 1 / 0; return new; end $$;"
            "create trigger theirs before insert on pgflow.step_results for each row when (new.step = 'fork')"
            " execute function public.theirs()"
        ),
        "drop trigger theirs on pgflow.step_results",
        "division by zero",
    ),
    "a trigger whose table is gone": (
        (
            "create function public.theirs() returns trigger language plpgsql as"
            " $$ begin insert into public.gone values (1); return new; end $$;"
            "create trigger theirs before insert on pgflow.jobs for each row execute function public.theirs()"
        ),
        "drop trigger theirs on pgflow.jobs",
        'relation "public.gone" does not exist',
    ),
    "a foreign key that a user has added": (
        (
            "create table public.steps (name text primary key);"
            "alter table pgflow.jobs add constraint theirs foreign key (step) references public.steps not valid"
        ),
        "alter table pgflow.jobs drop constraint theirs; drop table public.steps",
        'violates foreign key constraint "theirs"',
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_others_have_put_on_the_tables_fails_no_instance(
    app: Pgflow, conn: Connection, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    harm, undo, message = FAULTS[fault]
    Forked.start("f", {})
    conn.execute(harm.encode())
    with Inside(app) as inside:
        until(lambda: message in (inside.worker.readiness_error() or ""), "it is reported")
        assert Forked.get("f").status == "running"
        conn.execute(undo.encode())
        until(lambda: Forked.get("f").status == "completed", "it goes on")
    assert [each.attempt for each in Forked.get("f").history] == [1, 1, 1, 1]
    assert "gives back" not in caplog.text


def test_a_batch_goes_on_past_the_one_row_that_a_trigger_refuses(app: Pgflow, conn: Connection) -> None:
    Line.start_many([(f"l{number}", {}) for number in range(30)])
    (run_id,) = conn.execute("select run from pgflow.instances where id = 'line::l7'").fetchall()[0]
    conn.execute(
        "create function public.theirs() returns trigger language plpgsql as $$ begin raise 'not this one'; end $$"
    )
    conn.execute(
        "create trigger theirs before insert on pgflow.step_results for each row"
        f" when (new.run = {run_id}) execute function public.theirs()".encode()
    )
    with Inside(app, {"default": 50}):
        until(lambda: len(Line.list(status="completed")) == 29, "the others complete")
        assert Line.get("l7").status == "running"
        conn.execute("drop trigger theirs on pgflow.step_results")
        until(lambda: Line.get("l7").status == "completed", "and this one when it may")


def test_a_right_that_is_taken_away_is_waited_for(server: Server, new_database: Callable[..., str]) -> None:
    with ExitStack() as ends:
        admin = ends.enter_context(connect(new_database(server), "migrate"))
        up(admin)
        admin.execute("drop role if exists pgflow_faulty_worker")
        admin.execute("create role pgflow_faulty_worker login superuser")
        ends.callback(admin.execute, "drop owned by pgflow_faulty_worker; drop role pgflow_faulty_worker")
        dsn = psycopg.conninfo.make_conninfo(admin.info.dsn, user="pgflow_faulty_worker", dbname=admin.info.dbname)
        app = Pgflow(dsn, workflows=[Line])
        ends.callback(app.close)
        app.register()
        app.start(Line, "first", {})
        admin.execute("grant usage on schema pgflow to pgflow_faulty_worker")
        admin.execute("grant all on all tables in schema pgflow to pgflow_faulty_worker")
        admin.execute("grant execute on all functions in schema pgflow to pgflow_faulty_worker")
        admin.execute("alter role pgflow_faulty_worker nosuperuser")
        with Inside(app) as inside:
            until(lambda: app.get(Line, "first").status == "completed")
            admin.execute("revoke insert on pgflow.step_results from pgflow_faulty_worker")
            app.start(Line, "second", {})
            until(lambda: "permission denied for table step_results" in (inside.worker.readiness_error() or ""))
            assert app.get(Line, "second").status == "running"
            admin.execute("grant insert on pgflow.step_results to pgflow_faulty_worker")
            until(lambda: app.get(Line, "second").status == "completed")


def test_upkeep_that_is_refused_holds_up_no_other_upkeep(
    app: Pgflow, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """A scheduled signal that cannot be sent must not keep timers, retries and rescued jobs from going on."""
    Asking.start("a", {})
    with Inside(app):
        until(lambda: Asking.get("a").status == "waiting")
        Asking.schedule_resume("a", "ask", timedelta(0), "given")
        occupy(conn, "signals")
        until(lambda: "upkeep (send due signals)" in caplog.text, "it is reported")
        Line.start("later", {}, delay=timedelta(milliseconds=50))
        until(lambda: Line.get("later").status == "completed", "a delayed start is made ready")
        repair(conn)
        until(lambda: Asking.get("a").status == "completed", "the signal is sent")
