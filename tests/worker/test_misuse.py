"""A transactional step may not end its transaction, and what it leaves open costs it one attempt and nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgflow import Async, Context, Done, Instance, Ok, Pgflow, Retry, Snooze, Unique, Workflow, step
from pgflow.database.connect import Connection
from tests.worker.conftest import Work
from tests.worker.db_helpers import connections, leftovers, one, rows, until_status
from tests.worker.waiting import PATIENCE, until

Input = dict[str, Any]
INSERT = "insert into ledger (value, attempt) values (%s, %s)"
ENDED = "ended the transaction that it runs in"
REFUSED = "is not for a transactional step"
ONCE = Retry(max_attempts=1)
TWICE = Retry(max_attempts=2, base=timedelta(milliseconds=10))


class Seen:
    """What steps have left outside of the database."""

    conn: Any = None
    errors: list[BaseException]  # which a thread or task met that went on after its step
    over: threading.Event  # when that has ended
    kept: list[Any]  # objects that must not be collected while the test runs


@pytest.fixture(autouse=True)
def ledger(conn: Connection) -> Iterator[None]:
    """An empty table of the user's own, with deferred constraints, and one that is named like one of pgflow's."""
    conn.execute("""create table if not exists ledger (
        value text, attempt integer, once text unique deferrable initially deferred)""")
    conn.execute("""
        create table if not exists public.jobs (id int primary key deferrable initially deferred);
        create or replace function public.check_later() returns trigger language plpgsql as $$ begin
            if new.value = 'refused' then raise 'not this value'; end if;
            if new.value = 'gone' then insert into public.gone values (1); end if;
            return null;
        end $$;
        drop trigger if exists later on ledger;
        create constraint trigger later after insert on ledger deferrable initially deferred
            for each row execute function public.check_later()""")
    Seen.errors, Seen.kept, Seen.over, Seen.conn = [], [], threading.Event(), None
    yield
    Seen.kept.clear()
    conn.execute("delete from ledger; drop table public.jobs; drop function public.check_later() cascade")


def keep_using(conn: Any) -> None:
    """Use a connection in a thread until that fails."""
    try:
        while True:
            conn.execute("select pg_sleep(0.01)")
    except BaseException as error:
        Seen.errors.append(error)
    finally:
        Seen.over.set()


def in_thread(ctx: Context[Input]) -> None:
    threading.Thread(target=keep_using, args=[ctx.conn], daemon=True).start()


def copy_in(ctx: Context[Input]) -> None:
    copying = ctx.conn.cursor().copy("copy ledger (value) from stdin")
    copying.__enter__().write_row(["copied"])
    Seen.kept.append(copying)


def copy_out(ctx: Context[Input]) -> None:
    copying = ctx.conn.cursor().copy("copy (select generate_series(1, 100000)) to stdout")
    copying.__enter__().read()
    Seen.kept.append(copying)


def streaming(ctx: Context[Input]) -> None:
    stream = ctx.conn.cursor().stream("select generate_series(1, 100000)")
    next(stream)
    Seen.kept.append(stream)


def piping(ctx: Context[Input]) -> None:
    pipeline = ctx.conn.pipeline()
    pipeline.__enter__()
    ctx.conn.execute("select 1")
    Seen.kept.append(pipeline)


def catching(ctx: Context[Input]) -> None:
    with suppress(psycopg.Error):
        ctx.conn.execute("select 1 / 0")


def entering(ctx: Context[Input]) -> None:
    with ctx.conn:
        ctx.conn.execute("select 1")


def with_autocommit(ctx: Context[Input]) -> None:
    ctx.conn.autocommit = True


def sql(query: str) -> Callable[[Context[Input]], None]:
    def execute(ctx: Context[Input]) -> None:
        for each in query.split(" | "):
            ctx.conn.execute(each)

    return execute


async def acopy_in(ctx: Context[Input]) -> None:
    copying = ctx.conn.cursor().copy("copy ledger (value) from stdin")
    await (await copying.__aenter__()).write_row(["copied"])
    Seen.kept.append(copying)


async def acopy_out(ctx: Context[Input]) -> None:
    copying = ctx.conn.cursor().copy("copy (select generate_series(1, 100000)) to stdout")
    await (await copying.__aenter__()).read()
    Seen.kept.append(copying)


async def astreaming(ctx: Context[Input]) -> None:
    stream = ctx.conn.cursor().stream("select generate_series(1, 100000)")
    await anext(stream)
    Seen.kept.append(stream)


async def apiping(ctx: Context[Input]) -> None:
    pipeline = ctx.conn.pipeline()
    await pipeline.__aenter__()
    await ctx.conn.execute("select 1")
    Seen.kept.append(pipeline)


async def acatching(ctx: Context[Input]) -> None:
    with suppress(psycopg.Error):
        await ctx.conn.execute("select 1 / 0")


async def aentering(ctx: Context[Input]) -> None:
    async with ctx.conn:
        await ctx.conn.execute("select 1")


async def akeep_using(conn: Any) -> None:
    try:
        while True:
            await conn.execute("select pg_sleep(0.01)")
    except BaseException as error:
        Seen.errors.append(error)
    finally:
        Seen.over.set()


async def in_task(ctx: Context[Input]) -> None:
    Seen.kept.append(asyncio.create_task(akeep_using(ctx.conn)))
    await asyncio.sleep(0)


def asql(query: str) -> Callable[[Context[Input]], Awaitable[None]]:
    async def execute(ctx: Context[Input]) -> None:
        for each in query.split(" | "):
            await ctx.conn.execute(each)

    return execute


# Statements that end the transaction of the step, and the error where the database refuses them.
ENDINGS = {
    "commit": ENDED,
    "end": ENDED,
    "rollback": ENDED,
    "abort": ENDED,
    "commit and chain": ENDED,
    "rollback and chain": ENDED,
    "commit; begin": ENDED,
    "rollback; begin": ENDED,
    "commit | select 1": ENDED,  # psycopg begins another transaction for the next statement
    "rollback | select 1": ENDED,
    "reset all": ENDED,
    "prepare transaction 'mine'": "prepared transactions are disabled",
    "do $$ begin commit; end $$": "invalid transaction termination",
    "do $$ begin rollback; end $$": "invalid transaction termination",
    "call committing()": "invalid transaction termination",
    "set transaction read only": "read-only transaction",
    "do $$ begin execute 'deallocate all'; end $$": "the step used DEALLOCATE ALL",
}
# (what a sync step does, what an async one does, part of the error); nothing of the step may be left in the ledger.
OTHERS: dict[str, tuple[Any, Any, str]] = {
    "conn.commit": (lambda ctx: ctx.conn.commit(), lambda ctx: ctx.conn.commit(), REFUSED),
    "conn.rollback": (lambda ctx: ctx.conn.rollback(), lambda ctx: ctx.conn.rollback(), REFUSED),
    "with conn": (entering, aentering, REFUSED),
    "autocommit": (with_autocommit, lambda ctx: ctx.conn.set_autocommit(True), "autocommit"),
    "close": (lambda ctx: ctx.conn.close(), lambda ctx: ctx.conn.close(), "the step closed its connection"),
    "catch": (catching, acatching, "transaction is aborted: the step caught a database error and went on"),
    "copy in": (copy_in, acopy_in, "while its connection was in use"),
    "copy out": (copy_out, acopy_out, "while its connection was in use"),
    "stream": (streaming, astreaming, "while its connection was in use"),
    "pipeline": (piping, apiping, "left a pipeline open"),
    "deferred": (
        sql("insert into ledger (once) values (1), (1)"),
        asql("insert into ledger (once) values (1), (1)"),
        "unique constraint",
    ),
    "deferred id": (
        sql("insert into public.jobs values (1), (1)"),
        asql("insert into public.jobs values (1), (1)"),
        "jobs_pkey",
    ),
    "deferred trigger": (
        sql("insert into ledger (value) values ('refused')"),
        asql("insert into ledger (value) values ('refused')"),
        "not this value",
    ),
    "deferred trigger whose table is gone": (
        sql("insert into ledger (value) values ('gone')"),
        asql("insert into ledger (value) values ('gone')"),
        'relation "public.gone" does not exist',
    ),
}
# What looks like one of these and does no harm.
HARMLESS = {
    "begin": "begin",  # the database warns that there is a transaction already
    "savepoint": "savepoint mine",
    "savepoint undone": "savepoint mine | insert into ledger (value) values ('undone') | rollback to savepoint mine",
    "failed savepoint": "savepoint mine | release savepoint mine",
    "characteristics": "set session characteristics as transaction read only",
    "held cursor": "declare mine cursor with hold for select generate_series(1, 1000) | fetch 1 from mine",
    "role": "set local role {role}",
    "session role": "set role {role}",
    "authorization": "set session authorization {role}",
    "local authorization": "set local session authorization {role}",
    "path": "set local search_path = nowhere",
    "session path": "set search_path = nowhere",
    "timeout": "set local statement_timeout = '100ms'",
    "lock timeout": "set local lock_timeout = 1",
    "encoding": "set client_encoding = latin1",
    "dates": "set datestyle = german, dmy",
    "deferred": "set constraints all deferred",
    "isolation": "set local default_transaction_isolation = serializable",
}


@step(transactional=True, retry=ONCE)
def act(ctx: Context[Input]) -> Ok:
    Seen.conn = ctx.conn
    ctx.conn.execute(INSERT, [ctx.value, ctx.attempt])
    how = ctx.initial.get("how", "")
    (OTHERS[how][0] if how in OTHERS else sql(how))(ctx)
    return Ok("done", {"text": "ä"})


@step(transactional=True, retry=ONCE)
async def aact(ctx: Context[Input]) -> Ok:
    Seen.conn = ctx.conn
    await ctx.conn.execute(INSERT, [ctx.value, ctx.attempt])
    how = ctx.initial.get("how", "")
    await (OTHERS[how][1] if how in OTHERS else asql(how))(ctx)
    return Ok("done", {"text": "ä"})


@step(transactional=True, retry=ONCE)
def use_on(ctx: Context[Input]) -> Ok:
    ctx.conn.execute(INSERT, [ctx.value, ctx.attempt])
    in_thread(ctx)
    return Ok("done")


@step(transactional=True, retry=ONCE)
async def ause_on(ctx: Context[Input]) -> Ok:
    await ctx.conn.execute(INSERT, [ctx.value, ctx.attempt])
    await in_task(ctx)
    return Ok("done")


def after(ctx: Context[Input], conn: Any) -> Any:
    """What the step returns after it has done something to its own instance."""
    match ctx.initial.get("then"):
        case "wait":
            return Async()
        case "snooze" if not Seen.kept:
            Seen.kept.append("snoozed")
            return Snooze(timedelta(milliseconds=1))
        case "raise":
            raise RuntimeError("after all")
    return Ok("done")


def own(app: Pgflow, ctx: Context[Input]) -> Any:
    how, conn = ctx.initial["how"], ctx.conn
    match how:
        case "cancel":
            return Own.cancel(ctx.value, conn=conn)
        case "delete":
            return app.storage.delete(ctx.id, conn=conn)
        case "put":
            return app.storage.put(app.storage.get(ctx.id, conn=conn), conn=conn)
        case "retry":
            return Own.retry(ctx.value, conn=conn)
        case "signal":
            return Own.resume(ctx.value, "later", {"by": "itself"}, conn=conn)
        case "delete row":
            return conn.execute("delete from pgflow.instances where run = %s", [ctx.run])
        case "delete job":
            return conn.execute("delete from pgflow.jobs where run = %s", [ctx.run])
        case "delete both":
            conn.execute("delete from pgflow.jobs where run = %s", [ctx.run])
            return conn.execute("delete from pgflow.instances where run = %s", [ctx.run])
    raise AssertionError(how)


async def aown(app: Pgflow, ctx: Context[Input]) -> Any:
    how, conn = ctx.initial["how"], ctx.conn
    match how:
        case "cancel":
            return await AOwn.acancel(ctx.value, conn=conn)
        case "delete":
            return await app.storage.adelete(ctx.id, conn=conn)
        case "put":
            return await app.storage.aput(await app.storage.aget(ctx.id, conn=conn), conn=conn)
        case "retry":
            return await AOwn.aretry(ctx.value, conn=conn)
        case "signal":
            return await AOwn.aresume(ctx.value, "later", {"by": "itself"}, conn=conn)
        case "delete row":
            return await conn.execute("delete from pgflow.instances where run = %s", [ctx.run])
        case "delete job":
            return await conn.execute("delete from pgflow.jobs where run = %s", [ctx.run])
        case "delete both":
            await conn.execute("delete from pgflow.jobs where run = %s", [ctx.run])
            return await conn.execute("delete from pgflow.instances where run = %s", [ctx.run])
    raise AssertionError(how)


@step(events=("done", "later"), transactional=True, retry=TWICE)
def change(ctx: Context[Input]) -> Any:
    ctx.conn.execute(INSERT, [ctx.value, ctx.attempt])
    own(Seen.conn, ctx)
    return after(ctx, ctx.conn)


@step(events=("done", "later"), transactional=True, retry=TWICE)
async def achange(ctx: Context[Input]) -> Any:
    await ctx.conn.execute(INSERT, [ctx.value, ctx.attempt])
    await aown(Seen.conn, ctx)
    return after(ctx, ctx.conn)


@step
def tail(ctx: Context[Input]) -> Ok:
    return Ok("done")


class Acting(Workflow[Input], unique=Unique("acting")):
    """A sync transactional step that executes its input."""

    initial = act
    transitions = {act: {"done": Done}}


class AActing(Workflow[Input], unique=Unique("aacting")):
    """An async one."""

    initial = aact
    transitions = {aact: {"done": Done}}


class Using(Workflow[Input], unique=Unique("using")):
    """Leaves a thread that goes on with the step's connection."""

    initial = use_on
    transitions = {use_on: {"done": Done}}


class AUsing(Workflow[Input], unique=Unique("ausing")):
    """Leaves a task that does."""

    initial = ause_on
    transitions = {ause_on: {"done": Done}}


class Own(Workflow[Input], unique=Unique("own")):
    """A sync transactional step that changes its own instance."""

    initial = change
    transitions = {change: {"done": tail, "later": tail}, tail: {"done": Done}}


class AOwn(Workflow[Input], unique=Unique("aown")):
    """An async one."""

    initial = achange
    transitions = {achange: {"done": tail, "later": tail}, tail: {"done": Done}}


WORKFLOWS = (Acting, AActing, Using, AUsing, Own, AOwn)
Kind = type[Workflow[Any]]
both = pytest.mark.parametrize("kind", [Acting, AActing], ids=["sync", "async"])
owns = pytest.mark.parametrize("kind", [Own, AOwn], ids=["sync", "async"])


def written(conn: Connection) -> list[tuple[Any, ...]]:
    return rows(conn, "select value, attempt from ledger order by value, attempt")


def recorded(conn: Connection) -> int:
    return int(one(conn, "select count(*) from pgflow.step_results where event is not null"))


def the_slot_is_free(kind: Kind, value: str = "next") -> None:
    """Run another one of the kind where only one may run at a time."""
    kind.start(value, {"how": "select 1"})
    assert until_status(kind, value).status == "completed"


def reason(failed: Instance) -> str:
    assert failed.error is not None
    assert failed.error["attempt"] == 1
    return str(failed.error["reason"])


@both
@pytest.mark.parametrize("how", list(ENDINGS))
def test_a_step_that_ends_its_transaction_fails_and_nothing_is_recorded(
    app: Pgflow, conn: Connection, work: Work, kind: Kind, how: str
) -> None:
    conn.execute("""create or replace procedure committing() language plpgsql as $$ begin commit; end $$""")
    work({"default": 1})
    the_slot_is_free(kind, "first")  # so that statements are prepared
    conn.execute("delete from ledger")
    kind.start("v", {"how": how})
    failed = until_status(kind, "v")
    assert failed.status == "failed"
    assert ENDINGS[how] in reason(failed)
    assert recorded(conn) == 1, "that of the first"
    is_committed = how.startswith(("commit", "end"))  # not before the step, but by it
    assert written(conn) == ([("v", 1)] if is_committed else [])
    the_slot_is_free(kind)
    assert leftovers(conn) == {}


@both
@pytest.mark.parametrize("how", list(OTHERS))
def test_what_a_step_leaves_open_or_broken_costs_one_attempt_and_no_slot(
    app: Pgflow, conn: Connection, work: Work, kind: Kind, how: str
) -> None:
    work({"default": 1})
    kind.start("v", {"how": how})
    failed = until_status(kind, "v")
    assert failed.status == "failed"
    assert any(part in reason(failed) for part in OTHERS[how][2].split("|")), failed.error
    assert (recorded(conn), written(conn)) == (0, [])
    the_slot_is_free(kind)
    assert leftovers(conn) == {}


@both
@pytest.mark.parametrize("how", list(HARMLESS))
def test_what_a_step_sets_breaks_nothing(app: Pgflow, conn: Connection, work: Work, kind: Kind, how: str) -> None:
    role = f"pgflow_bystander_{conn.info.backend_pid}"
    conn.execute(f"create role {role}".encode())
    try:
        work({"default": 1})
        kind.start("v", {"how": HARMLESS[how].format(role=role)})
        done = until_status(kind, "v")
        assert (done.status, done.error) == ("completed", None)
        assert done.history[0].output == {"text": "ä"}
        assert (recorded(conn), written(conn)) == (1, [("v", 1)])
        the_slot_is_free(kind)
    finally:
        conn.execute(f"drop role {role}".encode())


@pytest.mark.parametrize("kind", [Using, AUsing], ids=["sync", "async"])
def test_a_thread_that_outlives_the_step_loses_the_connection(
    app: Pgflow, conn: Connection, work: Work, kind: Kind
) -> None:
    work({"default": 1})
    for number in range(5):  # whether a call is under way when the step returns is a matter of chance
        kind.start(f"v{number}", {})
        ended = until_status(kind, f"v{number}")
        assert Seen.over.wait(PATIENCE), "it cannot use it any longer"
        assert all(isinstance(error, psycopg.Error) for error in Seen.errors), Seen.errors
        if ended.status == "failed":
            assert "while its connection was in use" in reason(ended)
        wanted = [(f"v{number}", 1)] if ended.status == "completed" else []
        assert [row for row in written(conn) if row[0] == f"v{number}"] == wanted
        Seen.over.clear()


@both
def test_the_steps_connection_is_of_no_use_after_the_step(
    app: Pgflow, conn: Connection, work: Work, kind: Kind
) -> None:
    work()
    kind.start("v", {"how": "select 1"})
    assert until_status(kind, "v").status == "completed"
    assert Seen.conn.closed
    if kind is Acting:
        with pytest.raises(psycopg.OperationalError, match="closed"):
            Seen.conn.execute("select 1")
    assert connections(conn, "step") == 1, "the session is the worker's"


# -- its own instance


@owns
@pytest.mark.parametrize("then", ["ok", "wait"])
def test_a_step_that_cancels_its_own_instance_ends_it_and_its_writes_are_kept(
    app: Pgflow, conn: Connection, work: Work, kind: Kind, then: str
) -> None:
    Seen.conn = app
    worker = work({"default": 1}).worker
    kind.start("v", {"how": "cancel", "then": then})
    done = until_status(kind, "v")
    assert (done.status, written(conn)) == ("cancelled", [("v", 1)])
    until(lambda: not worker.held_jobs.jobs, "its end in memory")
    assert (recorded(conn), leftovers(conn)) == (0, {})
    kind.start("w", {"how": "signal"})
    assert until_status(kind, "w").status == "completed"
    assert [row for row in written(conn) if row[0] == "v"] == [("v", 1)], "it ran once"


@owns
def test_a_cancel_is_rolled_back_with_a_step_that_fails(app: Pgflow, conn: Connection, work: Work, kind: Kind) -> None:
    Seen.conn = app
    work({"default": 1})
    kind.start("v", {"how": "cancel", "then": "raise"})
    failed = until_status(kind, "v")
    assert failed.error is not None
    assert (failed.status, failed.error["attempt"], written(conn)) == ("failed", 2, [])


@owns
def test_a_cancel_is_rolled_back_with_a_step_that_snoozes(
    app: Pgflow, conn: Connection, work: Work, kind: Kind
) -> None:
    Seen.conn = app
    work({"default": 1})
    kind.start("v", {"how": "cancel", "then": "snooze"})
    done = until_status(kind, "v")
    assert (done.status, written(conn)) == ("cancelled", [("v", 1)])


@owns
@pytest.mark.parametrize("how", ["delete", "delete both", "delete row"])
def test_a_step_may_delete_its_own_instance(app: Pgflow, conn: Connection, work: Work, kind: Kind, how: str) -> None:
    Seen.conn = app
    worker = work({"default": 1}).worker
    kind.start("v", {"how": how})
    until(lambda: written(conn), "the step's commit")
    until(lambda: not worker.held_jobs.jobs and "tokens" not in leftovers(conn), "its end")
    assert written(conn) == [("v", 1)]
    assert not one(conn, "select count(*) from pgflow.instances")
    kind.start("v", {"how": "signal"})
    assert until_status(kind, "v").status == "completed", "the worker goes on"


@owns
@pytest.mark.parametrize(
    ("how", "message"),
    [("put", "changed its own job"), ("delete job", "changed its own job"), ("retry", "only a failed instance|is not")],
)
def test_a_step_that_takes_its_own_job_away_fails(
    app: Pgflow, conn: Connection, work: Work, kind: Kind, how: str, message: str
) -> None:
    Seen.conn = app
    work({"default": 1})
    kind.start("v", {"how": how})
    failed = until_status(kind, "v")
    assert failed.error is not None
    assert (failed.status, failed.error["attempt"]) == ("failed", 2)
    assert any(part in failed.error["reason"] for part in message.split("|")), failed.error
    assert (recorded(conn), written(conn), leftovers(conn)) == (0, [], {})


@owns
def test_a_step_may_signal_its_own_instance(app: Pgflow, conn: Connection, work: Work, kind: Kind) -> None:
    Seen.conn = app
    work({"default": 1})
    kind.start("v", {"how": "signal", "then": "wait"})
    done = until_status(kind, "v")
    assert (done.status, done.history[0].event, written(conn)) == ("completed", "later", [("v", 1)])
