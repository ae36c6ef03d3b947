"""Sessions with unusual settings store and read everything as any other session does."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row
from psycopg.types.json import JsonbDumper

from pgflow import Context, Done, Instance, Ok, Pgflow, Retry, Unique, WaitForEvent, Workflow, step
from pgflow.cli import cli
from pgflow.database.connect import aconnect, connect
from pgflow.errors import DatabaseError
from pgflow.migrations import migrate
from pgflow.migrations.script import sql as script
from tests.conftest import Server
from tests.torture.wire.proxy import upstream_of
from tests.worker.fake_pooler import StandIn
from tests.worker.thread_worker import Inside

Input = dict[str, Any]
NAME = "Zoë"
NUMBERS = count(1)


@step
async def greet(ctx: Context[Input]) -> Ok:
    return Ok("done", {"greeting": f"Olá, {ctx.initial['name']}", "third": 1 / 3}, metadata={"café": "ñ"})


@step(transactional=True)
def book(ctx: Context[Input]) -> Ok:
    (name,) = ctx.conn.execute("select %s::text", [ctx.initial["name"]]).fetchone()
    return Ok("done", {"booked": name, "paid": ctx.output(paid)})


@step(transactional=True)
async def abook(ctx: Context[Input]) -> Ok:
    (name,) = await (await ctx.conn.execute("select %s::text", [ctx.initial["name"]])).fetchone()
    return Ok("done", {"booked": name})


paid = WaitForEvent("paid").named("paid")


class Guest(Workflow[Input], unique=Unique("guest")):
    """An async step, a signal, and transactional steps of both kinds."""

    initial = greet
    transitions = {
        greet: {"done": paid},
        paid: {"received": book},
        book: {"done": abook},
        abook: {"done": Done},
    }


WORKFLOWS = (Guest,)
PAID = {"note": "grüezi", "third": 1 / 3}
OUTPUTS = {
    "greet": {"greeting": f"Olá, {NAME}", "third": 1 / 3},
    "book": {"booked": NAME, "paid": PAID},
    "abook": {"booked": NAME},
}

# Settings that a server, a database, a role or a program may have, and that pgflow must not depend on.
SETTINGS = {
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "TimeZone": "America/St_Johns",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "xmloption": "document",
    "backslash_quote": "off",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "search_path": "",
    "row_security": "off",
    "plan_cache_mode": "force_custom_plan",
    "client_min_messages": "error",
    "lc_monetary": "C",
    "lc_messages": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "check_function_bodies": "on",
    "plpgsql.variable_conflict": "use_variable",
    "plpgsql.extra_errors": "all",
    "gin_fuzzy_search_limit": "1",
    "client_encoding": "LATIN1",
}
ON_THE_SERVER_ONLY = {"session_replication_role": "replica"}  # for a superuser
# Settings of a caller's session. Limits of time and of results are the caller's decision.
OF_CALLERS = {
    name: value
    for name, value in SETTINGS.items()
    if name not in {"default_transaction_deferrable", "check_function_bodies", "gin_fuzzy_search_limit"}
    and not name.endswith("_timeout")
}
SESSION = "select name, setting from pg_settings where name not like 'plpgsql.%' order by name"


@pytest.fixture
def empty(server: Server, new_database: Callable[..., str]) -> str:
    """The dsn of an empty database of the test's own."""
    return new_database(server)


@pytest.fixture(scope="module")
def app(server: Server, new_database: Callable[..., str]) -> Iterator[Pgflow]:
    """An app in an ordinary database, with a worker that runs."""
    app = Pgflow(new_database(server), workflows=WORKFLOWS)
    app.migrate()
    app.register()
    with Inside(app):
        yield app
    app.close()


def use(app: Pgflow) -> Instance:
    """Run an instance to its end, and return it."""
    for workflow in WORKFLOWS:
        workflow.bind(app)
    Guest.start(NAME, {"name": NAME, "at": 1.5}, tags=[NAME], metadata={"from": "Málaga"})
    Guest.resume(NAME, "paid", PAID)
    app.run_worker(drain=True)
    (listed,) = app.list(Guest, tags=[NAME], metadata={"from": "Málaga"})
    found = Guest.get(NAME)
    assert (listed.id, listed.created_at) == (found.id, found.created_at)
    return found


def check(found: Instance) -> None:
    assert found.status == "completed", found.error
    assert {key: found.steps[key] for key in OUTPUTS} == OUTPUTS
    assert found.input == {"name": NAME, "at": 1.5}
    assert (found.id, found.tags) == (f"guest::{NAME}", (NAME,))
    assert {"from": "Málaga", "café": "ñ"}.items() <= found.metadata.items()
    assert all(entry.duration >= timedelta() for entry in found.history)


def use_everything(dsn: str, *, doctor: bool = True) -> None:
    """Install, work, and look at it with commands; the doctor is one of them."""
    app = Pgflow(dsn, workflows=WORKFLOWS)
    app.migrate()
    check(use(app))
    app.close()
    for command in (["migrate"], ["migrate", "--status"], ["list"], ["show", "Guest", NAME]):
        done = CliRunner().invoke(cli, [*command, "--dsn", dsn])
        assert done.exit_code == 0, done.output
    if doctor:
        done = CliRunner().invoke(cli, ["doctor", "--json", "--dsn", dsn])
        assert done.stdout, done
        states = {each["check"]: each["state"] for each in json.loads(done.stdout)["findings"]}
        del states["settings"]  # the test server is not durable
        assert "problem" not in states.values(), states


@pytest.mark.parametrize(
    "name", ["DateStyle", "client_encoding", "statement_timeout", "idle_in_transaction_session_timeout"]
)
def test_a_database_may_have_other_settings(empty: str, name: str) -> None:
    alter(empty, name, SETTINGS[name])
    # The doctor goes through poolers, so its limits begin with its transactions.
    use_everything(empty, doctor=not name.endswith("_timeout"))


def test_a_role_may_have_other_settings(server: Server, empty: str) -> None:
    role = f"strange_{next(NUMBERS)}"
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute(f"create role {role} superuser login".encode())
        try:
            for name, value in {**SETTINGS, **ON_THE_SERVER_ONLY}.items():
                if name.endswith("_timeout"):
                    continue
                conn.execute(
                    sql.SQL("alter role {} set {} to {}").format(sql.Identifier(role), sql.Identifier(name), value)
                )
            use_everything(make_conninfo(empty, user=role))
        finally:
            conn.execute(f"alter database {conninfo_to_dict(empty)['dbname']} owner to current_user".encode())
            with psycopg.connect(empty, autocommit=True) as there:
                there.execute(f"drop owned by {role} cascade".encode())
            conn.execute(f"drop role {role}".encode())


def test_the_environment_may_have_other_settings(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATESTYLE", "German")
    monkeypatch.setenv("PGTZ", "America/St_Johns")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    use_everything(empty)


@pytest.mark.parametrize(
    "given",
    [
        {"client_encoding": "LATIN1"},
        {"client_encoding": "SQL_ASCII"},
        {"options": "-c client_encoding=WIN1252 -c DateStyle=SQL,DMY -c IntervalStyle=postgres_verbose"},
    ],
)
def test_the_connection_string_may_have_other_settings(empty: str, given: dict[str, str]) -> None:
    use_everything(make_conninfo(empty, **given))


def test_the_connection_string_may_have_other_settings_behind_a_pooler(empty: str) -> None:
    for name in ("DateStyle", "extra_float_digits", "standard_conforming_strings", "client_encoding", "TimeZone"):
        alter(empty, name, SETTINGS[name])
    Pgflow(empty, workflows=WORKFLOWS).migrate()
    with StandIn(str(upstream_of(empty)), size=3) as pooler:
        app = Pgflow(make_conninfo(pooler.through(empty), client_encoding="LATIN1"), workflows=WORKFLOWS, pooler=True)
        check(use(app))
        app.close()


def alter(dsn: str, name: str, value: str) -> None:
    """Give every new session of a database a setting."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        database = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
        conn.execute(sql.SQL("alter database {} set {} to {}").format(database, sql.Identifier(name), value))


# -- on a caller's connection


def call_all(app: Pgflow, conn: Any, value: str) -> list[Any]:
    """Make every call on a connection, and return what they return, without what differs from run to run."""
    started = app.start(Guest, value, {"name": NAME, "at": 1 / 3}, tags=[NAME], metadata={"from": "Málaga"}, conn=conn)
    sent = app.resume(Guest, value, "paid", PAID, conn=conn)
    scheduled = app.schedule_resume(Guest, value, paid, timedelta(hours=1), "paid", PAID, conn=conn)
    got = app.get(Guest, value, conn=conn)
    listed = app.list(Guest, metadata={"from": "Málaga"}, tags=[NAME], conn=conn, limit=1)
    jobs = [each.tags for each in app.jobs(Guest, conn=conn) if each.instance_id == got.id]
    app.storage.put(replace(got, metadata={**got.metadata, "put": NAME}), conn=conn)
    stored = app.storage.get(f"guest::{value}", conn=conn)
    app.cancel(Guest, value, reason=NAME, conn=conn)
    ended = app.get(Guest, value, conn=conn)
    app.storage.delete(f"guest::{value}", conn=conn)
    assert got.created_at == listed[0].created_at == stored.created_at
    assert abs(scheduled.at - got.created_at - timedelta(hours=1)) < timedelta(minutes=1)
    return [started.created, sent, *map(shown, (got, *listed, stored, ended)), jobs, ended.error]


def shown(found: Instance) -> tuple[Any, ...]:
    return found.status, found.input, found.tags, dict(found.metadata), found.signals and found.signals[0].payload


async def acall_all(app: Pgflow, conn: Any, value: str) -> list[Any]:
    """`call_all`, async."""
    started = await app.astart(
        Guest, value, {"name": NAME, "at": 1 / 3}, tags=[NAME], metadata={"from": "Málaga"}, conn=conn
    )
    sent = await app.aresume(Guest, value, "paid", PAID, conn=conn)
    await app.aschedule_resume(Guest, value, paid, timedelta(hours=1), "paid", PAID, conn=conn)
    got = await app.aget(Guest, value, conn=conn)
    listed = await app.alist(Guest, metadata={"from": "Málaga"}, tags=[NAME], conn=conn, limit=1)
    jobs = [each.tags for each in await app.ajobs(Guest, conn=conn) if each.instance_id == got.id]
    await app.storage.aput(replace(got, metadata={**got.metadata, "put": NAME}), conn=conn)
    stored = await app.storage.aget(f"guest::{value}", conn=conn)
    await app.acancel(Guest, value, reason=NAME, conn=conn)
    ended = await app.aget(Guest, value, conn=conn)
    await app.storage.adelete(f"guest::{value}", conn=conn)
    return [started.created, sent, *map(shown, (got, *listed, stored, ended)), jobs, ended.error]


@pytest.fixture(scope="module")
def expected(app: Pgflow) -> list[Any]:
    """What the calls return on an ordinary connection."""
    with psycopg.connect(app.dsn) as conn:
        found = call_all(app, conn, f"{NAME}-plain")
        conn.rollback()
    return found


@pytest.mark.parametrize("settings", [*([each] for each in OF_CALLERS), list(OF_CALLERS)], ids=" ".join)
def test_a_callers_session_may_have_other_settings(app: Pgflow, expected: list[Any], settings: list[str]) -> None:
    with psycopg.connect(app.dsn) as conn:
        for name in settings:
            conn.execute("select set_config(%s, %s, false)", [name, OF_CALLERS[name]])
        before = conn.execute(SESSION).fetchall()
        assert call_all(app, conn, f"{NAME}-{next(NUMBERS)}") == expected
        assert conn.execute(SESSION).fetchall() == before
        conn.rollback()


def test_a_callers_async_session_may_have_other_settings(app: Pgflow, expected: list[Any]) -> None:
    async def ask() -> list[Any]:
        async with await psycopg.AsyncConnection.connect(app.dsn) as conn:
            for name, value in OF_CALLERS.items():
                await conn.execute("select set_config(%s, %s, false)", [name, value])
            found = await acall_all(app, conn, f"{NAME}-{next(NUMBERS)}")
            await conn.rollback()
            await app.aclose()
            return found

    assert asyncio.run(ask()) == expected


@pytest.mark.parametrize("is_on", ["on", "off"])
def test_the_size_of_an_input_is_counted_alike_whatever_a_backslash_means(app: Pgflow, is_on: str) -> None:
    # In PostgreSQL's form they are over the limit: only the text outside of strings is counted without its blanks.
    fits, does_not = {"many": [1] * 7_000_000, "name": 'a"b\\'}, {"many": ['a"\\ '] * 2_200_000}
    with psycopg.connect(app.dsn) as conn:
        conn.execute("select set_config('standard_conforming_strings', %s, false)", [is_on])
        conn.execute("select pgflow.start('Guest', 'large', %s::jsonb)", [json.dumps(fits)])
        with pytest.raises(psycopg.Error, match="over the limit of 16777216"):
            conn.execute("select pgflow.start('Guest', 'larger', %s::jsonb)", [json.dumps(does_not)])
        conn.rollback()
        with pytest.raises(psycopg.Error, match="invalid tags"):
            conn.execute("select pgflow.start('Guest', 'tags', '{}', tags => array['a' || chr(7)])")


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "LATIN9", "WIN1252", "SQL_ASCII", "GB18030"])
def test_text_follows_the_encoding_of_a_callers_connection(app: Pgflow, expected: list[Any], encoding: str) -> None:
    with psycopg.connect(app.dsn, client_encoding=encoding) as conn:
        value = f"{NAME}-{encoding}"
        assert call_all(app, conn, value) == expected
        app.start(Guest, value, {"name": NAME}, conn=conn)
        conn.commit()
    assert app.get(Guest, value).input == {"name": NAME}
    app.cancel(Guest, value)


@pytest.mark.parametrize("given", [("Zoë€", {"name": "x"}, []), ("x", {"name": "€"}, []), ("x", {"name": "x"}, ["€"])])
def test_what_an_encoding_cannot_hold_is_refused_before_anything_is_sent(
    app: Pgflow, given: tuple[str, Input, list[str]]
) -> None:
    value, given_input, tags = given
    with psycopg.connect(app.dsn, client_encoding="LATIN1") as conn:
        with pytest.raises(DatabaseError, match=r"LATIN1: it has no '€' \(U\+20AC\)") as refusal:
            app.start(Guest, value, given_input, tags=tags, conn=conn)
        assert "client_encoding" in str(refusal.value.hint)
        conn.execute("select 1")  # the caller's transaction goes on


def test_what_an_encoding_cannot_hold_is_not_read_as_something_else(app: Pgflow) -> None:
    app.start(Guest, "euro", {"name": "€"})
    with (
        psycopg.connect(app.dsn, client_encoding="LATIN1") as conn,
        pytest.raises(DatabaseError, match=r"client_encoding of this connection is LATIN1: .*0xe2 0x82 0xac"),
    ):
        app.get(Guest, "euro", conn=conn)

    async def ask() -> None:
        async with await psycopg.AsyncConnection.connect(app.dsn, client_encoding="LATIN1") as conn:
            with pytest.raises(DatabaseError, match="LATIN1: it has no"):
                await app.astart(Guest, "x", {"name": "€"}, conn=conn)
            with pytest.raises(DatabaseError, match="0xe2 0x82 0xac"):
                await app.aget(Guest, "euro", conn=conn)
        await app.aclose()

    asyncio.run(ask())
    app.cancel(Guest, "euro")


def test_an_encoding_that_python_does_not_know_is_refused(app: Pgflow) -> None:
    with (
        psycopg.connect(app.dsn, client_encoding="EUC_TW") as conn,
        pytest.raises(DatabaseError, match="EUC_TW: Python has no codec for it"),
    ):
        app.list(Guest, conn=conn)


# -- in a transactional step

TWICE = Retry(max_attempts=2, base=timedelta(milliseconds=10))


@step(transactional=True, retry=TWICE)
def change_session(ctx: Context[Input]) -> Ok:
    for name, value in OF_CALLERS.items():
        ctx.conn.execute("select set_config(%s, %s, true)", [name, value])
    ctx.conn.adapters.register_dumper(list, JsonbDumper)
    ctx.conn.row_factory, ctx.conn.cursor_factory = dict_row, psycopg.ClientCursor
    return Ok("done", {"name": ctx.initial["name"], "third": 1 / 3})


@step(transactional=True, retry=TWICE)
async def achange_session(ctx: Context[Input]) -> Ok:
    for name, value in OF_CALLERS.items():
        await ctx.conn.execute("select set_config(%s, %s, true)", [name, value])
    ctx.conn.adapters.register_dumper(list, JsonbDumper)
    ctx.conn.row_factory, ctx.conn.cursor_factory = dict_row, psycopg.AsyncClientCursor
    return Ok("done", {"name": ctx.initial["name"], "third": 1 / 3})


class Changing(Workflow[Input], unique=Unique("changing")):
    """Its steps change the session that their results are recorded in."""

    initial = change_session
    transitions = {change_session: {"done": achange_session}, achange_session: {"done": Done}}


class AsyncChanging(Workflow[Input], unique=Unique("changing")):
    """The async step alone."""

    initial = achange_session
    transitions = {achange_session: {"done": Done}}


@pytest.mark.parametrize("pooler", [False, True])
def test_a_transactional_step_may_change_its_session(empty: str, pooler: bool) -> None:
    Pgflow(empty, workflows=[Changing, AsyncChanging]).migrate()
    with StandIn(str(upstream_of(empty)), size=3) as stand_in:
        app = Pgflow(stand_in.through(empty) if pooler else empty, workflows=[Changing, AsyncChanging], pooler=pooler)
        app.start(Changing, "ok", {"name": NAME})
        app.start(Changing, "euro", {"name": "€"})
        app.start(AsyncChanging, "euro", {"name": "€"})
        app.run_worker(drain=True)
        found = app.get(Changing, "ok")
        assert found.status == "completed", found.error
        recorded = {"name": NAME, "third": 1 / 3}
        assert [found.steps[key] for key in ("change_session", "achange_session")] == [recorded, recorded]
        for workflow in (Changing, AsyncChanging):
            found = app.get(workflow, "euro")  # the settle has the worker's encoding again
            assert found.status == "completed", found.error
            assert found.steps["achange_session"] == {"name": "€", "third": 1 / 3}
        app.close()


# -- in a database with another encoding than UTF8


@pytest.fixture(params=["LATIN1", "WIN1251", "SQL_ASCII"])
def other_encoding(request: pytest.FixtureRequest, server: Server) -> Iterator[tuple[str, str]]:
    """An encoding, and the dsn of a database that has it."""
    name = f"pgflow_other_{request.param.lower()}"
    server.drop_database(name)
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute(f"create database {name} template template0 encoding '{request.param}' locale 'C'".encode())
    yield request.param, server.database_dsn(name)
    server.drop_database(name)


def test_another_encoding_than_utf8_is_refused(other_encoding: tuple[str, str]) -> None:
    encoding, dsn = other_encoding
    assert script().isascii(), "psql may send it in any encoding"
    with connect(dsn, "migrate") as conn:
        for dry_run in (True, False):
            with pytest.raises(DatabaseError, match=encoding) as refusal:
                migrate.up(conn, dry_run=dry_run)
            assert "createdb --template=template0 --encoding=UTF8" in str(refusal.value.hint)
        for after in (0, 5):
            with pytest.raises(psycopg.errors.RaiseException, match=encoding):
                conn.execute(script(after=after).encode())
        assert conn.execute("select to_regnamespace('pgflow') is null").fetchone() == (True,)
    with pytest.raises(DatabaseError, match="pgflow needs UTF8"):
        Pgflow(dsn, workflows=WORKFLOWS).migrate()
    done = subprocess.run(
        [sys.executable, "-c", "from pgflow.cli import main; main()", "migrate", "--dsn", dsn],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == DatabaseError.exit_code
    assert encoding in done.stderr
    assert "createdb --template=template0 --encoding=UTF8" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_names_it(other_encoding: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    encoding, dsn = other_encoding
    monkeypatch.setattr(migrate, "require_utf8", lambda conn: None)  # installed by an earlier version
    name = "Зоя" if encoding == "WIN1251" else NAME
    app = Pgflow(dsn, workflows=WORKFLOWS)
    app.migrate()
    app.migrate()  # finds the migrations that it recorded
    app.start(Guest, name, {"name": name})
    assert app.get(Guest, name).input == {"name": name}
    app.close()
    done = CliRunner().invoke(cli, ["doctor", "--json", "--dsn", dsn])
    (found,) = [each for each in json.loads(done.stdout)["findings"] if each["check"] == "encoding"]
    assert (found["state"], done.exit_code) == ("problem", 1)
    assert encoding in found["what"]
    assert "createdb" in found["fix"]
    assert "pg_dump" in found["fix"]


@pytest.mark.parametrize("role", ["client", "worker", "heart", "listen", "read", "step", "migrate"])
def test_our_own_connections_use_utf8(server: Server, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    dsn = make_conninfo(server.dsn, client_encoding="WIN1252")

    async def ask(pooler: bool) -> str:
        async with await aconnect(dsn, role, pooler=pooler) as conn:
            return conn.info.encoding

    for pooler in (False, True):
        with connect(dsn, role, pooler=pooler) as conn:
            assert (conn.info.encoding, asyncio.run(ask(pooler))) == ("utf-8", "utf-8")
