"""A test install has a clock that can be moved and writes that are refused; another install has neither."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.migrations.migrate import status, up
from tests.conftest import Server
from tests.torture.install import debug

SCHEMAS = ["pgflow", "orders"]
# The objects of a schema, with their definitions.
INVENTORY = """
select c.relname, c.relkind::text, coalesce(c.relacl::text, '')
    from pg_class c where c.relnamespace = %(schema)s::regnamespace
union all
select p.proname, pg_get_functiondef(p.oid), coalesce(p.proacl::text, '')
    from pg_proc p where p.pronamespace = %(schema)s::regnamespace
union all
select t.tgname, t.tgrelid::regclass::text, t.tgtype::text from pg_trigger t
    join pg_class c on c.oid = t.tgrelid where c.relnamespace = %(schema)s::regnamespace
order by 1, 2, 3
"""


@pytest.fixture(scope="module")
def dsn(server: Server, new_database: Callable[..., str]) -> str:
    """The dsn of a database with pgflow in it, under two names."""
    made: str = new_database(server)
    with connect(made, "migrate") as conn:
        for schema in SCHEMAS:
            up(conn, schema)
    return made


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection]:
    """A connection that commits each statement, to a database that is a normal install again afterwards."""
    with connect(dsn, "migrate") as conn:
        yield conn
        for schema in SCHEMAS:
            debug.uninstall_clock(conn, schema)
            debug.uninstall_refusals(conn, schema)


def inventory(conn: Connection, schema: str) -> list[tuple[str, str, str]]:
    """Return the objects of a schema."""
    return conn.execute(INVENTORY, {"schema": schema}).fetchall()


def shift(conn: Connection, schema: str) -> timedelta:
    """Return how far a schema's clock is ahead of the real time."""
    found = conn.execute(f"select {schema}.now() - statement_timestamp()".encode()).fetchone()
    assert found is not None
    by: timedelta = found[0]
    return by


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_moved_clock_is_moved_for_every_session_at_once_and_in_no_other_schema(
    conn: Connection, dsn: str, schema: str
) -> None:
    debug.install_clock(conn, schema)
    with connect(dsn, "worker") as other:
        for by in (timedelta(hours=3), timedelta(hours=-3), timedelta(seconds=0.5), timedelta(0)):
            run(conn, debug.move_clock(by, schema))
            assert shift(conn, schema) == shift(other, schema) == by
            (elsewhere,) = set(SCHEMAS) - {schema}
            assert shift(conn, elsewhere) == timedelta(0)


def test_a_moved_clock_decides_what_is_leased(conn: Connection) -> None:
    debug.install_clock(conn)
    leased = b"select pgflow.is_leased(%s, interval '30 s')"
    until = datetime.now(UTC) + timedelta(seconds=20)
    assert conn.execute(leased, [until]).fetchone() == (True,)
    run(conn, debug.move_clock(timedelta(minutes=1)))
    assert conn.execute(leased, [until]).fetchone() == (False,)


def test_an_index_on_a_time_is_used_with_the_clock_that_can_be_moved(conn: Connection) -> None:
    debug.install_clock(conn)
    with conn.transaction(force_rollback=True):
        conn.execute("set local enable_seqscan = off")
        conn.execute("set local enable_bitmapscan = off")
        conn.execute("create table pgflow.probe (at timestamptz)")
        conn.execute("create index on pgflow.probe (at)")
        plan = conn.execute("explain select from pgflow.probe where at <= pgflow.now()").fetchall()
    assert any("Index Cond: (at <= pgflow.now())" in line for (line,) in plan), plan


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("what", ["clock", "refusals"])
def test_what_is_installed_can_be_taken_out_again_without_a_trace(conn: Connection, schema: str, what: str) -> None:
    install, uninstall = getattr(debug, f"install_{what}"), getattr(debug, f"uninstall_{what}")
    before = inventory(conn, schema)
    for _ in range(2):
        install(conn, schema)
    assert inventory(conn, schema) != before
    assert status(conn, schema).up_to_date
    for _ in range(2):
        uninstall(conn, schema)
    assert inventory(conn, schema) == before


def test_a_normal_install_has_none_of_it(conn: Connection) -> None:
    names = {name for name, _, _ in inventory(conn, "pgflow")}
    assert not names & {"clock", "refusals", "refuse"}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_writes_are_refused_with_each_of_the_errors_after_which_one_tries_again(conn: Connection, schema: str) -> None:
    debug.install_refusals(conn, schema)
    write = f"update {schema}.jobs set priority = priority".encode()  # noqa: S608 -- a schema of ours
    conn.execute(write)
    run(conn, debug.refuse(1, schema))
    states = set()
    for _ in range(100):
        with pytest.raises(
            psycopg.errors.OperationalError, match="refused by the test install, as a update of jobs"
        ) as refused:
            conn.execute(write)
        states.add(refused.value.sqlstate)
    assert states == {"40001", "40P01", "55P03"}
    run(conn, debug.refuse(0, schema))
    conn.execute(write)


def test_a_chance_is_a_chance_for_each_statement(conn: Connection) -> None:
    debug.install_refusals(conn)
    run(conn, debug.refuse(0.5))
    refused = 0
    for _ in range(200):
        try:
            conn.execute("delete from pgflow.signals")
        except psycopg.errors.OperationalError:
            refused += 1
    assert 50 < refused < 150


def test_each_of_the_engines_tables_is_refused(conn: Connection) -> None:
    debug.install_refusals(conn)
    run(conn, debug.refuse(1))
    accepting = set()
    for name, kind, _ in inventory(conn, "pgflow"):
        if kind == "r":
            with suppress(psycopg.errors.OperationalError):
                conn.execute(f"delete from pgflow.{name} where false".encode())  # noqa: S608 -- a table of ours
                accepting.add(name)
    assert accepting == {
        "migrations",
        "queues",
        "node_queues",
        "limits",
        "refusals",
    }  # the engine only reads its queues
