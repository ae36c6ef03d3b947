"""Breaking migrations are announced first, and applied when no older worker is left, else withdrawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from pgflow.store.notification import SweepRequested, decode
from pgflow.store.worker import Alive
from tests.conftest import Server
from tests.store.sql_copy import add_migration, clear_caches
from tests.store.test_migrate import all_at_once, catalog, execute, migrate_up
from tests.worker.waiting import until

RENAME = "-- pgflow: breaking\nalter table pgflow.jobs rename column crashes to losses;"
SOON = timedelta(milliseconds=300)


@pytest.fixture
def dsn(server: Server, migrated_database: Callable[[Server], str]) -> str:
    """The dsn of a database with the schema of an older release, which is this one, for one test."""
    return migrated_database(server)


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection]:
    """A connection to it."""
    with connect(dsn) as connection:
        yield connection


def register(conn: Connection, lease: timedelta = timedelta(hours=1)) -> int:
    """Register a worker; returns 0 if it is rejected."""
    return run(
        conn, worker.register("pgflow", node="host", pid=7, queues=["default"], version="0.1", nonce="", lease=lease)
    )


def columns(conn: Connection) -> set[str]:
    query = "select attname from pg_attribute where attrelid = 'pgflow.jobs'::regclass"
    return {name for (name,) in conn.execute(query).fetchall()} & {"crashes", "losses"}


def test_it_waits_for_older_workers_and_applies_the_migration_once_they_have_ended(
    sql_copy: Path, dsn: str, conn: Connection
) -> None:
    first, second = register(conn), register(conn)
    add_migration(sql_copy, RENAME)
    told: list[Sequence[Alive]] = []
    with ThreadPoolExecutor(1) as pool:
        migrating = pool.submit(migrate_up, dsn, on_wait=told.append)
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


def test_a_worker_that_does_not_end_is_named_and_nothing_changes(sql_copy: Path, dsn: str, conn: Connection) -> None:
    number = register(conn)
    before = catalog(dsn)
    add_migration(sql_copy, RENAME)
    with pytest.raises(SchemaError, match=rf"have not ended: worker {number} \(host, pid 7, pgflow 0.1\)") as refusal:
        migrate_up(dsn, timeout=SOON)
    assert "workers may start" in str(refusal.value.hint)
    assert catalog(dsn) == before
    assert migrate.status(conn).announced is None
    assert run(conn, migration.breaking("pgflow", len(migration_files.migrations()) - 1)) is None


def test_it_waits_for_a_dead_worker_until_its_lease_expires(sql_copy: Path, dsn: str, conn: Connection) -> None:
    register(conn, timedelta(seconds=0.5))
    add_migration(sql_copy, RENAME)
    assert migrate_up(dsn) == ["extra"]


def announce(dsn: str, sql_copy: Path) -> str:
    """Announce a migration as if by a killed process; returns the name of its file."""
    name = add_migration(sql_copy, RENAME)
    line = migration.Applied(len(migration_files.migrations()), "extra", migration.ANNOUNCED, breaking=True)
    with connect(dsn) as conn:
        run(conn, migration.record("pgflow", line))
    return name


def test_while_it_is_announced_no_older_worker_starts_and_no_newer_one_either(
    sql_copy: Path, dsn: str, conn: Connection
) -> None:
    assert register(conn)
    name = announce(dsn, sql_copy)
    with pytest.raises(SchemaOutdated, match="this pgflow needs"):
        migrate.check(conn)
    now = migrate.status(conn)
    assert now.announced is not None
    assert now.version == now.latest - 1 == now.announced.version - 1
    (sql_copy / "migrations" / name).unlink()
    clear_caches()  # now this is the older release again
    assert register(conn) == 0
    said = f'migration {name.removesuffix(".sql")} of schema "pgflow" is announced'
    for refuse in (migrate.check, migrate.up):
        with pytest.raises(SchemaTooNew, match=said):
            refuse(conn)
    assert migrate.status(conn).version == now.version


def test_a_second_migrate_resumes_after_the_first_was_killed(sql_copy: Path, dsn: str, conn: Connection) -> None:
    announce(dsn, sql_copy)
    assert migrate_up(dsn) == ["extra"]
    assert columns(conn) == {"losses"}


def test_a_second_migrate_withdraws_the_announcement_of_one_that_was_killed(
    sql_copy: Path, dsn: str, conn: Connection
) -> None:
    register(conn)
    announce(dsn, sql_copy)
    with pytest.raises(SchemaError):
        migrate_up(dsn, timeout=SOON)
    assert migrate.status(conn).announced is None


def test_locks_of_a_dead_worker_are_released_and_other_sessions_locks_are_waited_for(
    sql_copy: Path, dsn: str, conn: Connection
) -> None:
    add_migration(sql_copy, RENAME)
    lock = "lock table pgflow.jobs in row exclusive mode"
    zombie, elsewhere, caller = (connect(dsn, role) for role in ("step", "step", "client"))
    with zombie, elsewhere, caller:
        for each, what in ((zombie, lock), (elsewhere, "select 1"), (caller, lock)):
            each.execute("begin")
            each.execute(what.encode())
        with pytest.raises(SchemaError, match="a lock was not available"):
            migrate_up(dsn, timeout=SOON)
        with pytest.raises(psycopg.OperationalError):
            zombie.execute("select 1")
        caller.execute("rollback")
        assert migrate_up(dsn) == ["extra"]
        elsewhere.execute("commit")


def test_concurrent_migrates_announce_and_apply_it_once(sql_copy: Path, dsn: str, conn: Connection) -> None:
    register(conn, timedelta(seconds=1))
    add_migration(sql_copy, RENAME)
    assert [name for names in all_at_once(dsn) for name in names] == ["extra"]


def test_a_failed_migration_is_withdrawn(sql_copy: Path, dsn: str, conn: Connection) -> None:
    before = catalog(dsn)
    add_migration(sql_copy, f"{RENAME} select 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate_up(dsn)
    assert catalog(dsn) == before
    assert migrate.status(conn).announced is None
    assert register(conn)


def test_a_worker_that_checks_before_the_announcement_and_registers_after_it_is_rejected(
    sql_copy: Path, dsn: str, conn: Connection
) -> None:
    line = migration.Applied(9999, "future", "", breaking=True)
    with connect(dsn, "migrate") as other, ThreadPoolExecutor(1) as pool:
        with other.transaction():
            run(other, worker.block_registration("pgflow"))
            assert run(other, worker.alive("pgflow")) == []
            coming = pool.submit(register, conn)
            waiting = "select count(*) from pg_locks where not granted and relation = 'pgflow.workers'::regclass"
            until(lambda: other.execute(waiting).fetchone() == (1,), "the worker's wait")
            run(other, migration.record("pgflow", line))
        assert coming.result(30) == 0


def test_it_waits_for_a_worker_that_is_registering(sql_copy: Path, dsn: str, conn: Connection) -> None:
    add_migration(sql_copy, RENAME)
    with connect(dsn) as coming, coming.transaction():
        number = run(
            coming,
            worker.register("pgflow", node="h", pid=7, queues=[], version="0", nonce="", lease=timedelta(hours=1)),
        )
        assert number
        with pytest.raises(SchemaError, match="a lock was not available"):
            migrate_up(dsn, timeout=SOON)
    with pytest.raises(SchemaError, match=f"have not ended: worker {number} "):
        migrate_up(dsn, timeout=SOON)
    assert columns(conn) == {"crashes"}


def test_the_announcement_wakes_the_workers(sql_copy: Path, dsn: str, conn: Connection) -> None:
    with connect(dsn, "listen") as listener:
        channel = run(listener, worker.channel("pgflow"))
        listener.execute(f"listen {channel}".encode())
        add_migration(sql_copy, RENAME)
        migrate_up(dsn)
        (notification,) = listener.notifies(timeout=10, stop_after=1)
    assert decode(notification.payload) == SweepRequested()


def test_a_fresh_install_does_not_wait(sql_copy: Path, empty: str) -> None:
    add_migration(sql_copy, RENAME)
    assert migrate_up(empty)[-2:] == ["extra", "functions"]


@pytest.mark.parametrize("schema", ["pgflow", "user"])
def test_the_script_fails_while_a_worker_is_alive(sql_copy: Path, dsn: str, conn: Connection, schema: str) -> None:
    if schema != "pgflow":
        migrate_up(dsn, schema)
    version = len(migration_files.migrations())
    number = run(
        conn, worker.register(schema, node="h", pid=7, queues=[], version="0", nonce="", lease=timedelta(hours=1))
    )
    add_migration(sql_copy, RENAME)
    text = script.sql(schema, after=version)
    with pytest.raises(psycopg.errors.RaiseException, match="workers are alive whose code the next migration would"):
        execute(dsn, text)
    run(conn, worker.leave(schema, number))
    execute(dsn, text)
    assert migrate.status(conn, schema).up_to_date


def test_live_workers_can_be_listed_on_a_schema_of_any_version(empty: str) -> None:
    for each in migration_files.migrations():
        migrate_up(empty, to=each.version)
        with connect(empty) as conn:
            assert run(conn, worker.alive("pgflow")) == []
