"""Migrations that break older code: announced first, applied when no older worker is left, or else taken back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from pgflow.database import migration_files
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.errors import SchemaError, SchemaOutdated, SchemaTooNew
from pgflow.migrations import migrate, script
from pgflow.store import migration, worker
from pgflow.store.worker import Alive
from tests.store.sql_copy import add_migration, forget
from tests.store.test_migrate import all_at_once, catalog, execute, migrate_up
from tests.worker.patience import until

RENAME = "-- pgflow: breaking\nalter table pgflow.jobs rename column crashes to losses;"
SOON = timedelta(milliseconds=300)


@pytest.fixture
def conn(empty: str) -> Iterator[Connection]:
    """A connection to a database with the schema of an older release: this one."""
    migrate_up(empty)
    with connect(empty) as connection:
        yield connection


def enter(conn: Connection, lease: timedelta = timedelta(hours=1)) -> int:
    """Register a worker; 0 when it is refused."""
    return run(
        conn, worker.register("pgflow", node="host", pid=7, queues=["default"], version="0.1", nonce="", lease=lease)
    )


def columns(conn: Connection) -> set[str]:
    query = "select attname from pg_attribute where attrelid = 'pgflow.jobs'::regclass"
    return {name for (name,) in conn.execute(query).fetchall()} & {"crashes", "losses"}


def test_it_waits_for_older_workers_says_for_whom_and_goes_on_when_they_have_ended(
    sql_copy: Path, empty: str, conn: Connection
) -> None:
    first, second = enter(conn), enter(conn)
    add_migration(sql_copy, RENAME)
    told: list[Sequence[Alive]] = []
    with ThreadPoolExecutor(1) as pool:
        migrating = pool.submit(migrate_up, empty, on_wait=told.append)
        until(lambda: told, "the first look")
        run(conn, worker.leave("pgflow", first))
        until(lambda: len(told[-1]) == 1, "the next look")
        assert not migrating.done()
        assert columns(conn) == {"crashes"}
        run(conn, worker.leave("pgflow", second))
        assert migrating.result(30) == ["extra"]
    assert [each.id for each in told[0]] == [first, second]
    assert str(told[-1][0]) == f"worker {second} (host, pid 7, pgflow 0.1)"
    assert columns(conn) == {"losses"}
    assert migrate.status(conn).up_to_date


def test_a_worker_that_does_not_end_is_named_and_everything_is_as_before(
    sql_copy: Path, empty: str, conn: Connection
) -> None:
    number = enter(conn)
    before = catalog(empty)
    add_migration(sql_copy, RENAME)
    with pytest.raises(SchemaError, match=rf"have not ended: worker {number} \(host, pid 7, pgflow 0.1\)") as refusal:
        migrate_up(empty, timeout=SOON)
    assert "workers may start" in str(refusal.value.hint)
    assert catalog(empty) == before
    assert migrate.status(conn).announced is None
    assert run(conn, migration.breaking("pgflow", 0)) is None


def test_a_worker_that_is_dead_is_waited_for_as_long_as_its_lease(sql_copy: Path, empty: str, conn: Connection) -> None:
    enter(conn, timedelta(seconds=0.5))
    add_migration(sql_copy, RENAME)
    assert migrate_up(empty) == ["extra"]


def announced(empty: str, sql_copy: Path) -> str:
    """Let somebody announce a migration and be killed; returns its file's name."""
    name = add_migration(sql_copy, RENAME)
    line = migration.Applied(len(migration_files.migrations()), "extra", migration.ANNOUNCED, breaking=True)
    with connect(empty) as conn:
        run(conn, migration.record("pgflow", line))
    return name


def test_while_it_is_announced_no_older_worker_starts_and_no_newer_one_either(
    sql_copy: Path, empty: str, conn: Connection
) -> None:
    assert enter(conn)
    name = announced(empty, sql_copy)
    with pytest.raises(SchemaOutdated, match="this pgflow needs"):
        migrate.check(conn)
    now = migrate.status(conn)
    assert now.announced is not None
    assert now.version == now.latest - 1 == now.announced.version - 1
    (sql_copy / "migrations" / name).unlink()
    forget()  # and so it is the older release again
    assert enter(conn) == 0
    said = f'migration {name.removesuffix(".sql")} of schema "pgflow" is announced'
    for refuse in (migrate.check, migrate.up):
        with pytest.raises(SchemaTooNew, match=said):
            refuse(conn)
    assert migrate.status(conn).version == now.version


def test_who_comes_after_one_that_was_killed_goes_on(sql_copy: Path, empty: str, conn: Connection) -> None:
    announced(empty, sql_copy)
    assert migrate_up(empty) == ["extra"]
    assert columns(conn) == {"losses"}


def test_who_comes_after_one_that_was_killed_takes_it_back_if_need_be(
    sql_copy: Path, empty: str, conn: Connection
) -> None:
    enter(conn)
    announced(empty, sql_copy)
    with pytest.raises(SchemaError):
        migrate_up(empty, timeout=SOON)
    assert migrate.status(conn).announced is None


def test_what_a_worker_that_is_no_more_has_locked_is_not_waited_for_and_what_others_have_is(
    sql_copy: Path, empty: str, conn: Connection
) -> None:
    add_migration(sql_copy, RENAME)
    lock = "lock table pgflow.jobs in row exclusive mode"
    zombie, elsewhere, caller = (connect(empty, role) for role in ("step", "step", "client"))
    with zombie, elsewhere, caller:
        for each, what in ((zombie, lock), (elsewhere, "select 1"), (caller, lock)):
            each.execute("begin")
            each.execute(what.encode())
        with pytest.raises(SchemaError, match="a lock was not available"):
            migrate_up(empty, timeout=SOON)
        with pytest.raises(psycopg.OperationalError):
            zombie.execute("select 1")
        caller.execute("rollback")
        assert migrate_up(empty) == ["extra"]
        elsewhere.execute("commit")


def test_many_at_once_announce_it_and_apply_it_once(sql_copy: Path, empty: str, conn: Connection) -> None:
    enter(conn, timedelta(seconds=1))
    add_migration(sql_copy, RENAME)
    assert [name for names in all_at_once(empty) for name in names] == ["extra"]


def test_one_that_fails_is_taken_back(sql_copy: Path, empty: str, conn: Connection) -> None:
    before = catalog(empty)
    add_migration(sql_copy, f"{RENAME} select 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate_up(empty)
    assert catalog(empty) == before
    assert migrate.status(conn).announced is None
    assert enter(conn)


def test_a_worker_that_looked_before_the_announcement_and_comes_after_it_is_refused(
    sql_copy: Path, empty: str, conn: Connection
) -> None:
    line = migration.Applied(9999, "future", "", breaking=True)
    with connect(empty, "migrate") as other, ThreadPoolExecutor(1) as pool:
        with other.transaction():
            run(other, worker.bar("pgflow"))
            assert run(other, worker.alive("pgflow")) == []
            coming = pool.submit(enter, conn)
            waiting = "select count(*) from pg_locks where not granted and relation = 'pgflow.workers'::regclass"
            until(lambda: other.execute(waiting).fetchone() == (1,), "the worker's wait")
            run(other, migration.record("pgflow", line))
        assert coming.result(30) == 0


def test_a_worker_that_is_just_about_to_come_is_waited_for_too(sql_copy: Path, empty: str, conn: Connection) -> None:
    add_migration(sql_copy, RENAME)
    with connect(empty) as coming, coming.transaction():
        number = run(
            coming,
            worker.register("pgflow", node="h", pid=7, queues=[], version="0", nonce="", lease=timedelta(hours=1)),
        )
        assert number
        with pytest.raises(SchemaError, match="a lock was not available"):
            migrate_up(empty, timeout=SOON)
    with pytest.raises(SchemaError, match=f"have not ended: worker {number} "):
        migrate_up(empty, timeout=SOON)
    assert columns(conn) == {"crashes"}


def test_the_announcement_wakes_the_workers(sql_copy: Path, empty: str, conn: Connection) -> None:
    with connect(empty, "listen") as ear:
        channel = run(ear, worker.channel("pgflow"))
        ear.execute(f"listen {channel}".encode())
        add_migration(sql_copy, RENAME)
        migrate_up(empty)
        (note,) = ear.notifies(timeout=10, stop_after=1)
    assert note.payload == worker.SWEEP


def test_a_fresh_install_needs_nobodys_leave(sql_copy: Path, empty: str) -> None:
    add_migration(sql_copy, RENAME)
    assert migrate_up(empty)[-2:] == ["extra", "functions"]


@pytest.mark.parametrize("schema", ["pgflow", "user"])
def test_the_script_refuses_as_long_as_a_worker_is_alive(
    sql_copy: Path, empty: str, conn: Connection, schema: str
) -> None:
    if schema != "pgflow":
        migrate_up(empty, schema)
    version = len(migration_files.migrations())
    number = run(
        conn, worker.register(schema, node="h", pid=7, queues=[], version="0", nonce="", lease=timedelta(hours=1))
    )
    add_migration(sql_copy, RENAME)
    text = script.sql(schema, after=version)
    with pytest.raises(psycopg.errors.RaiseException, match="workers are alive whose code the next migration would"):
        execute(empty, text)
    run(conn, worker.leave(schema, number))
    execute(empty, text)
    assert migrate.status(conn, schema).up_to_date


def test_who_is_alive_can_be_told_on_a_schema_of_any_age(empty: str) -> None:
    for each in migration_files.migrations():
        migrate_up(empty, to=each.version)
        with connect(empty) as conn:
            assert run(conn, worker.alive("pgflow")) == []
