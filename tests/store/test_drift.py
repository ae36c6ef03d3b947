"""Drift of privileges, row-level security and the schema's name since `pgflow migrate` is detected and repaired."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.cli import cli
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.errors import RowSecurityError, SchemaError, SchemaMissing, SchemaOutdated
from pgflow.migrations import grants, migrate, script
from pgflow.store import role
from tests.conftest import Server
from tests.store.granted_roles import GrantedRoles
from tests.store.test_roles import HARMLESS, MATCHING, OVERVIEW
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

ORDERS = "orders"


@step
async def only(ctx: Context[Any]) -> Ok:
    return Ok("done")


class Drifting(Workflow[Any], unique=Unique("drifting")):
    initial = only
    transitions = {only: {"done": Done}}


COUNT = "select count(*), current_setting('row_security') from public.theirs"


@step(transactional=True)
def count(ctx: Context[Any]) -> Ok:
    return Ok("done", {"found": ctx.conn.execute(COUNT).fetchone()})


@step(transactional=True)
async def acount(ctx: Context[Any]) -> Ok:
    return Ok("done", {"found": await (await ctx.conn.execute(COUNT)).fetchone()})


class Counting(Workflow[Any], unique=Unique("counting")):
    initial = count
    transitions = {count: {"done": acount}, acount: {"done": Done}}


@pytest.fixture(scope="module")
def model_on(new_database: Callable[..., str]) -> Iterator[Callable[[Server], GrantedRoles]]:
    """Return `model_on(server)`: a database to copy, with roles that have their parts, created once per server."""
    with ExitStack() as ends:
        yield cache(lambda server: GrantedRoles.create(new_database(server), ends))


@pytest.fixture
def parts(any_server: Server, model_on: Callable[[Server], GrantedRoles]) -> Iterator[GrantedRoles]:
    """A database for one test, with roles that have their parts."""
    with model_on(any_server).copied(any_server) as parts:
        yield parts


def pgflow(dsn: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--dsn", dsn])


def may_call(conn: Connection, name: str) -> set[str]:
    """Return the functions of the schema that a role may call."""
    rows = conn.execute(
        "select p.proname from pg_proc p where p.pronamespace = 'pgflow'::regnamespace"
        " and has_function_privilege(%s, p.oid, 'execute')",
        [name],
    )
    return {row[0] for row in rows}


def lose_grants(conn: Connection) -> None:
    """Grant EXECUTE to PUBLIC, PostgreSQL's default, as after a restore with `pg_dump --no-acl`."""
    conn.execute("grant execute on all functions in schema pgflow to public")


EXPOSURES = {
    "functions": ("grant execute on all functions in schema pgflow to public", "pgflow.start: PUBLIC may call it"),
    "tables": ("grant select on all tables in schema pgflow to public", "pgflow.jobs: PUBLIC may select"),
    "the view": ("grant select on pgflow.job_details to public", "pgflow.job_details: PUBLIC may select"),
    "a column": ("grant update (state) on pgflow.jobs to public", "pgflow.jobs: PUBLIC may update of state"),
    "sequences": ("grant usage on all sequences in schema pgflow to public", "pgflow.jobs_id_seq: PUBLIC may usage"),
    "the schema": ("grant create on schema pgflow to public", "pgflow: PUBLIC may create objects in it"),
    "a search_path": ("alter function pgflow.channel() reset all", "pgflow.channel: it has lost its search_path"),
    "a definer": ("alter function pgflow.find(text, text) security invoker", 'it is not "security definer"'),
}


@pytest.mark.parametrize("exposure", EXPOSURES)
def test_migrate_roles_and_doctor_find_privilege_drift_and_restore_it(parts: GrantedRoles, exposure: str) -> None:
    harm, said = EXPOSURES[exposure]
    owner, dashboard = parts.dsn("owner"), parts.names["dashboard"]
    with parts.connect("admin") as conn:
        for arguments in (("migrate",), ("roles", "--apply", "--dashboard", dashboard)):
            conn.execute(harm.encode())
            assert any(said in str(each) for each in run(conn, role.find_drift("pgflow")))
            shown = pgflow(owner, "doctor", "--json")
            assert (shown.exit_code, said in shown.output.replace('\\"', '"')) == (1, True), shown.output
            assert pgflow(owner, "migrate", "--status").exit_code == 4
            assert "would apply rights" in pgflow(owner, "migrate", "--dry-run").output
            done = pgflow(owner, *arguments)
            assert done.exit_code == 0, done.output
            assert run(conn, role.find_drift("pgflow")) == []
            assert migrate.status(conn).up_to_date
        assert may_call(conn, dashboard) == {"find", "known_queues"} | OVERVIEW | MATCHING | HARMLESS


def test_public_gets_nothing_from_a_restore_without_grants_or_default_privileges(
    any_server: Server, new_database: Callable[..., str]
) -> None:
    with connect(new_database(any_server), "migrate") as conn:
        conn.execute("alter default privileges grant select, delete on tables to public")
        conn.execute("alter default privileges grant usage on sequences to public")
        migrate.up(conn)
        assert run(conn, role.find_drift("pgflow")) == []
        assert conn.execute(
            "select count(*) from pg_class c where c.relnamespace = 'pgflow'::regnamespace"
            " and has_table_privilege('public', c.oid, 'select') and c.relkind in ('r', 'v')"
        ).fetchone() == (0,)
        conn.execute("drop schema pgflow cascade")
        conn.execute(script.sql().encode(), prepare=False)
        assert run(conn, role.find_drift("pgflow")) == []


def test_a_function_of_another_owner_gets_the_owner_of_the_tables(parts: GrantedRoles) -> None:
    with parts.connect("admin") as conn:
        conn.execute("alter function pgflow.find(text, text) owner to current_user")
        (found,) = run(conn, role.find_drift("pgflow"))
        assert "it runs with the rights of" in found.fault
        shown = pgflow(parts.dsn("owner"), "migrate")
        assert (shown.exit_code, "alter function" in shown.output) == (4, True), shown.output
        migrate.up(conn)
        assert run(conn, role.find_drift("pgflow")) == []


def test_objects_of_users_in_the_schema_are_ignored(parts: GrantedRoles) -> None:
    with parts.connect("admin") as conn:
        conn.execute("create view pgflow.theirs as select 1 as one; grant select on pgflow.theirs to public")
        conn.execute("create function pgflow.their_own() returns int language sql return 1")
        assert run(conn, role.find_drift("pgflow")) == []


# -- row-level security


def enable(conn: Connection, force: str = "enable") -> None:
    for table in ("instances", "jobs", "migrations"):
        conn.execute(f"alter table pgflow.{table} enable row level security".encode())
        conn.execute(f"alter table pgflow.{table} {force} row level security".encode())


def test_every_command_reports_row_level_security_with_the_repair(parts: GrantedRoles) -> None:
    worker, dashboard = parts.names["worker"], parts.names["dashboard"]
    disable = "alter table pgflow.instances disable row level security"
    with parts.connect("admin") as conn:
        enable(conn)
        for part, arguments in (
            ("owner", ("roles", "--apply", "--worker", worker)),
            ("owner", ("doctor",)),
            ("dashboard", ("list",)),
        ):
            done = pgflow(parts.dsn(part), *arguments)
            assert done.exit_code != 0, done.output
            assert "row-level security hides rows of" in done.output
            assert disable in done.output
            assert "backup" not in done.output
        with parts.connect("worker", "worker") as theirs, pytest.raises(RowSecurityError, match=r"pgflow\.instances"):
            migrate.check(theirs)
        with pytest.raises(RowSecurityError):
            Inside(Pgflow(parts.dsn("worker"), workflows=[Drifting])).__enter__()
        conn.execute(sql.SQL("alter role {} bypassrls").format(sql.Identifier(dashboard)))
        assert pgflow(parts.dsn("dashboard"), "list").exit_code == 0
        conn.execute(sql.SQL("alter role {} nobypassrls").format(sql.Identifier(dashboard)))
        with connect(parts.dsn("owner"), "migrate") as owner:
            migrate.check(owner)  # not forced: the owner sees every row
        enable(conn, "force")
        for option in ([], ["--status"]):
            done = pgflow(parts.dsn("owner"), "migrate", *option)
            assert (done.exit_code, disable in done.output) == (3, True), done.output


def test_calls_raise_instead_of_returning_no_rows(parts: GrantedRoles) -> None:
    reader = Pgflow(parts.dsn("dashboard"), workflows=[Drifting])
    assert reader.list() == []
    with parts.connect("admin") as conn:
        enable(conn)
        with pytest.raises(RowSecurityError, match="hides rows"):  # although the first call succeeded
            reader.list()
        reader.close()
        late = Pgflow(parts.dsn("dashboard"), workflows=[Drifting])

        async def call() -> None:
            with pytest.raises(RowSecurityError, match="hides rows"):
                await late.alist()
            await late.aclose()

        asyncio.run(call())
        enable(conn, "force")
        client = Pgflow(parts.dsn("client"), workflows=[Drifting])
        with pytest.raises(RowSecurityError, match="hides rows"):
            client.start(Drifting, "a", {})
        client.close()


def test_a_policy_that_lets_every_row_pass_is_accepted(parts: GrantedRoles) -> None:
    dashboard = sql.Identifier(parts.names["dashboard"])
    with parts.connect("admin") as conn:
        enable(conn)
        for table in ("instances", "jobs", "migrations"):
            name = sql.Identifier("pgflow", table)
            conn.execute(sql.SQL("create policy pass on {} to {} using (true)").format(name, dashboard))
        assert "options=-c row_security=on" in pgflow(parts.dsn("dashboard"), "list").output
        with_row_security = psycopg.conninfo.make_conninfo(parts.dsn("dashboard"), options="-c row_security=on")
        assert pgflow(with_row_security, "list").exit_code == 0
        grants.apply(conn, {"dashboard": [parts.names["dashboard"]]})
        conn.execute("create policy narrow on pgflow.jobs as restrictive using (id > 7)")
        assert "hides rows of pgflow.jobs" in pgflow(with_row_security, "list").output


@pytest.mark.parametrize("setting", ["off", "on"])
def test_a_transactional_step_has_row_security_on_and_its_settle_has_the_workers_setting(
    parts: GrantedRoles, setting: str
) -> None:
    worker = sql.Identifier(parts.names["worker"])
    with parts.connect("admin") as conn:
        conn.execute("create table public.theirs as select n from generate_series(1, 10) n")
        conn.execute("alter table public.theirs enable row level security")
        conn.execute(sql.SQL("create policy few on public.theirs to {} using (n < 4)").format(worker))
        conn.execute(sql.SQL("grant select on public.theirs to {}").format(worker))
        conn.execute(
            "create table public.seen (setting text);"
            "create function public.record() returns trigger language plpgsql security definer as $$ begin"
            " insert into public.seen values (current_setting('row_security')); return new; end $$;"
            "create trigger record before insert on pgflow.step_results for each row execute function public.record()"
        )
        dsn = parts.dsn("worker")
        if setting == "on":
            dsn = psycopg.conninfo.make_conninfo(dsn, options="-c row_security=on")
            enable(conn)
            for table in ("instances", "jobs", "migrations"):
                name = sql.Identifier("pgflow", table)
                conn.execute(sql.SQL("create policy pass on {} to {} using (true)").format(name, worker))
        admin = Pgflow(parts.admin, workflows=[Counting])
        admin.register()
        app = Pgflow(dsn, workflows=[Counting])
        with Inside(app):
            admin.start(Counting, "a", {})
            until(lambda: admin.get(Counting, "a").status == "completed")
        steps = admin.get(Counting, "a").steps
        app.close()
        admin.close()
        assert steps == {name: {"found": [3, "on"]} for name in ("count", "acount")}
        assert conn.execute("select setting from public.seen").fetchall() == [(setting,)] * 2


def test_a_worker_waits_while_rows_are_hidden_and_resumes(parts: GrantedRoles) -> None:
    with parts.connect("admin") as conn:
        admin = Pgflow(parts.admin, workflows=[Drifting])
        admin.register()
        app = Pgflow(parts.dsn("worker"), workflows=[Drifting])
        with Inside(app) as inside:
            enable(conn)
            admin.start(Drifting, "a", {})
            until(lambda: "row-level security hides rows" in (inside.worker.readiness_error() or ""), "it is reported")
            for table in ("instances", "jobs", "migrations"):
                conn.execute(f"alter table pgflow.{table} disable row level security".encode())
            until(lambda: admin.get(Drifting, "a").status == "completed", "it goes on")
        app.close()
        admin.close()


def test_an_event_trigger_that_enables_it_is_reported_on_installation(
    any_server: Server, new_database: Callable[..., str]
) -> None:
    name = f"pgflow {os.getpid()} installs"
    with connect(new_database(any_server), "test") as conn:
        conn.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
        try:
            conn.execute(
                sql.SQL("grant all on database {} to {}").format(sql.Identifier(conn.info.dbname), sql.Identifier(name))
            )
            conn.execute(
                "create function public.secure() returns event_trigger language plpgsql as $$ declare o record; begin"
                " for o in select * from pg_event_trigger_ddl_commands() where object_type = 'table' loop"
                " execute format('alter table %s enable row level security', o.object_identity);"
                " execute format('alter table %s force row level security', o.object_identity); end loop; end $$;"
                "create event trigger secure on ddl_command_end when tag in ('CREATE TABLE')"
                " execute function public.secure()"
            )
            conn.execute(sql.SQL("set role {}").format(sql.Identifier(name)))
            conn.execute("set row_security = off")
            with pytest.raises(RowSecurityError, match=r"pgflow\.migrations") as caught:
                migrate.up(conn)
            assert "event trigger" in (caught.value.hint or "")
        finally:
            conn.execute("reset role; drop event trigger if exists secure")
            conn.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(name)))


# -- the schema's name


def test_every_command_reports_a_renamed_schema_which_works_after_migrate(
    any_server: Server, migrated_database: Callable[[Server], str]
) -> None:
    dsn = migrated_database(any_server)
    with connect(dsn, "migrate") as conn:
        app = Pgflow(dsn, workflows=[Drifting])
        app.register()
        app.start(Drifting, "before", {})
        app.close()
        conn.execute("alter schema pgflow rename to orders")
        for arguments in (("migrate",), ("migrate", "--status"), ("list",), ("doctor",)):
            done = pgflow(dsn, *arguments)
            assert (done.exit_code, 'renamed to "orders"' in done.output) == (4, True), done.output
            assert "pgflow migrate --schema orders" in done.output
        with pytest.raises(SchemaMissing, match="renamed"):
            Inside(Pgflow(dsn, workflows=[Drifting])).__enter__()

        named = 'schema "orders" was renamed or restored under this name: its functions still name "pgflow"'
        for command in (("list",), ("doctor",), ("start", "drifting", "x"), ("cancel", "drifting", "before")):
            done = pgflow(dsn, *command, "--schema", ORDERS)
            assert done.exit_code != 0
            assert (named in done.output, "pgflow migrate --schema orders" in done.output) == (True, True), done.output
        assert pgflow(dsn, "migrate", "--status", "--schema", ORDERS).exit_code == 4
        calls = Pgflow(dsn, workflows=[Drifting], schema=ORDERS)
        with pytest.raises(SchemaOutdated, match="renamed"):
            calls.start(Drifting, "x", {})
        with pytest.raises(SchemaOutdated, match="renamed"):
            Inside(calls).__enter__()
        calls.close()

        assert "applied functions" in pgflow(dsn, "migrate", "--schema", ORDERS).output
        assert "up to date" in pgflow(dsn, "migrate", "--schema", ORDERS).output
        works(dsn, "before")
        assert pgflow(dsn, "migrate", "--dry-run").exit_code == 0  # the old name is unused

        conn.execute("alter schema orders rename to pgflow")  # and back
        with pytest.raises(SchemaOutdated, match='still name "orders"'):
            migrate.check(conn)
        migrate.up(conn)
        migrate.check(conn)


def test_a_copy_under_another_name_never_uses_the_tables_of_the_original(
    any_server: Server, migrated_database: Callable[[Server], str]
) -> None:
    dsn = migrated_database(any_server)
    with connect(dsn, "migrate") as conn:
        Pgflow(dsn, workflows=[Drifting]).register()
        conn.execute("alter schema pgflow rename to orders")
        conn.execute("create schema pgflow")
        with pytest.raises(SchemaMissing, match="renamed"):
            migrate.up(conn)
        conn.execute("drop schema pgflow")
        migrate.up(conn, ORDERS)
        migrate.up(conn)
        conn.execute("drop schema orders cascade; alter schema pgflow rename to orders")
        migrate.up(conn, "pgflow2")
        conn.execute("alter schema pgflow2 rename to pgflow")
        with pytest.raises(SchemaError, match="renamed or restored"):
            migrate.check(conn, ORDERS)
        done = pgflow(dsn, "start", "drifting", "x", "--schema", ORDERS)
        assert done.exit_code == 4, done.output
        assert conn.execute("select count(*) from pgflow.instances").fetchone() == (0,)


def works(dsn: str, value: str) -> None:
    """Check that everything works under the new name: starts, settles, notifications, lists, the view."""
    app = Pgflow(dsn, workflows=[Drifting], schema=ORDERS)
    with Inside(app):
        app.start(Drifting, "after", {})
        until(lambda: len(app.list(status="completed")) == 2, "both complete")
    assert {each.id for each in app.list()} == {f"drifting::{value}", "drifting::after"}
    app.close()
    with connect(dsn) as conn:
        named = conn.execute(
            "select p.proname from pg_proc p where p.pronamespace = 'orders'::regnamespace"
            " and p.prosrc ~ '\\mpgflow[.]'"
        ).fetchall()
        assert named == []
        assert conn.execute("select orders.channel() = 'pgflow_' || 'orders.jobs'::regclass::oid").fetchone() == (True,)
        conn.execute("select * from orders.job_details")
