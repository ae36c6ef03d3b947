"""Migrating: from an empty database, concurrently, never into a foreign schema, and the same with the script."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import psycopg
import pytest
from psycopg import sql as compose

from pgflow.database import migration_files
from pgflow.database.connect import aconnect, connect
from pgflow.database.migration_files import FUNCTIONS, in_order
from pgflow.database.statement import Statement
from pgflow.errors import ConfigError, SchemaError, SchemaForeign, SchemaMissing, SchemaOutdated, SchemaTooNew
from pgflow.migrations import migrate, script
from pgflow.store import migration
from tests.conftest import Server
from tests.store.sql_copy import add_migration, clear_caches
from tests.worker.waiting import until

AT_ONCE = 8

# All objects of a schema, without oids.
CATALOG = """
select 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text, a.attidentity::text,
    pg_get_expr(d.adbin, d.adrelid), array_to_string(c.reloptions, ',')
from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where n.nspname = %(schema)s and not a.attisdropped
union all
select 'index', c.relname, null, pg_get_indexdef(c.oid), null, null, null, null
from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = %(schema)s and c.relkind = 'i'
union all
select 'constraint', c.conrelid::regclass::text, c.conname, pg_get_constraintdef(c.oid), null, null, null, null
from pg_constraint c join pg_namespace n on n.oid = c.connamespace where n.nspname = %(schema)s
union all
select 'function', p.proname, pg_get_function_identity_arguments(p.oid), pg_get_functiondef(p.oid),
    null, null, null, null
from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = %(schema)s
order by 1, 2, 3, 4
"""


def catalog(dsn: str, schema: str = "pgflow") -> list[tuple[Any, ...]]:
    with connect(dsn) as conn:
        return conn.execute(CATALOG, {"schema": schema}).fetchall()


def migrate_up(dsn: str, schema: str = "pgflow", **options: Any) -> list[str]:
    with connect(dsn, "migrate") as conn:
        return [each.name for each in migrate.up(conn, schema, **options)]


def execute(dsn: str, text: str) -> None:
    with connect(dsn) as conn:
        conn.execute(text)


def all_at_once(dsn: str) -> list[list[str]]:
    start = Barrier(AT_ONCE)

    def one(_: int) -> list[str]:
        with connect(dsn, "migrate") as conn:
            start.wait()
            return [each.name for each in migrate.up(conn)]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, range(AT_ONCE)))


def everything() -> list[str]:
    """Return what an empty database gets, each once; concurrent migrates may share it: each one is a transaction."""
    return sorted([*(each.name for each in migration_files.migrations()), "functions"])


def test_an_empty_database_gets_everything_once(any_server: Server, new_database: Callable[..., str]) -> None:
    dsn = new_database(any_server)
    first, second = migrate_up(dsn), migrate_up(dsn)
    assert first[0] == "engine"
    assert first[-1] == "functions"
    assert second == []
    with connect(dsn) as conn:
        now = migrate.status(conn)
        migrate.check(conn)
        assert conn.execute("select pgflow.now() is not null and pgflow.channel() <> ''").fetchone() == (True,)
    assert now.up_to_date
    assert now.version == now.latest == len(migration_files.migrations())


def test_concurrent_migrates_apply_each_migration_once(empty: str) -> None:
    done = all_at_once(empty)
    assert sorted(name for names in done for name in names) == everything()


def test_without_advisory_locks_the_primary_key_serializes_them(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        migration, "lock_transaction", lambda schema: Statement("migration/lock_transaction", "select true", {}, bool)
    )
    done = all_at_once(empty)
    assert sorted(name for names in done for name in names) == everything()


def test_a_schema_with_foreign_tables_is_rejected_and_left_alone(empty: str) -> None:
    execute(empty, "create schema pgflow; create table pgflow.orders (id int)")
    before = catalog(empty)
    with pytest.raises(SchemaForeign, match='schema "pgflow" holds 1 tables'):
        migrate_up(empty)
    with connect(empty) as conn, pytest.raises(SchemaForeign) as refusal:
        migrate.check(conn)
    assert "--schema" in (refusal.value.hint or "")
    assert catalog(empty) == before


def test_a_migrations_table_of_another_tool_is_recognized(empty: str) -> None:
    execute(empty, "create schema pgflow; create table pgflow.migrations (id int, migration text, batch int)")
    with pytest.raises(SchemaForeign):
        migrate_up(empty)


def test_a_schema_in_which_public_may_create_is_rejected(empty: str) -> None:
    execute(empty, "create schema pgflow; grant create on schema pgflow to public")
    with pytest.raises(SchemaError, match='PUBLIC may create objects in schema "pgflow"') as refusal:
        migrate_up(empty)
    assert "revoke create on schema" in (refusal.value.hint or "")
    execute(empty, "revoke create on schema pgflow from public")
    assert migrate_up(empty)


def test_objects_of_an_extension_in_the_schema_are_ignored(empty: str) -> None:
    execute(empty, "create schema pgflow; create view pgflow.v as select 1; alter extension plpgsql add view pgflow.v")
    assert migrate_up(empty)


def test_an_existing_empty_schema_needs_no_privilege_to_create_schemas(empty: str) -> None:
    with connect(empty) as conn:
        role = f"limited_{conn.info.backend_pid}"
        conn.execute(f"create role {role}; create schema pgflow authorization {role}")
        conn.execute(f"set session authorization {role}")
        assert migrate.up(conn)
        conn.execute("reset session authorization")
        conn.execute(f"drop owned by {role}; drop role {role}")


def test_a_migration_changed_after_it_was_applied_is_rejected(empty: str) -> None:
    migrate_up(empty)
    execute(empty, "update pgflow.migrations set checksum = 'other' where version = 1")
    with connect(empty) as conn:
        for refuse in (migrate.status, migrate.check, migrate.up):
            with pytest.raises(SchemaError, match="0001_engine was changed"):
                refuse(conn)


def test_line_ends_do_not_change_the_checksum() -> None:
    unix, windows = (in_order([("migrations/0001_a.sql", text)]) for text in ("select 1;\n", "select 1;\r\n"))
    assert unix == windows


def test_a_newer_schema_is_accepted_and_keeps_its_functions(empty: str) -> None:
    migrate_up(empty)
    execute(
        empty,
        "insert into pgflow.migrations (version, name, checksum) values (9999, 'future', '');"
        "update pgflow.migrations set checksum = 'newer' where version = 0",
    )
    with connect(empty) as conn:
        migrate.check(conn)
        assert migrate.up(conn) == []
        assert migrate.status(conn).version == 9999


def test_a_newer_schema_with_a_breaking_migration_is_rejected(empty: str) -> None:
    migrate_up(empty)
    execute(
        empty, "insert into pgflow.migrations (version, name, checksum, breaking) values (9999, 'future', '', true)"
    )
    with connect(empty) as conn:
        for refuse in (migrate.check, migrate.up):
            with pytest.raises(SchemaTooNew, match='migration 9999_future of schema "pgflow" is too new') as refusal:
                refuse(conn)
            assert refusal.value.hint == "Deploy the pgflow that ships 9999_future."


def test_a_database_without_pgflow_is_rejected_with_the_command(empty: str) -> None:
    with connect(empty) as conn:
        with pytest.raises(SchemaMissing) as refusal:
            migrate.check(conn)
        with pytest.raises(SchemaMissing) as other:
            migrate.check(conn, "orders")
    assert refusal.value.hint == "Run: pgflow migrate"
    assert other.value.hint == "Run: pgflow migrate --schema orders"


async def acheck(dsn: str) -> None:
    async with await aconnect(dsn) as conn:
        await migrate.acheck(conn)


def test_the_async_check_raises_the_same(empty: str, migrated: str) -> None:
    import asyncio

    asyncio.run(acheck(migrated))
    with pytest.raises(SchemaMissing):
        asyncio.run(acheck(empty))


def test_a_role_that_may_not_read_migrations_passes_the_check(migrated: str) -> None:
    with connect(migrated) as conn, conn.transaction(force_rollback=True):
        conn.execute("create role caller; set local role caller")
        migrate.check(conn)


def test_a_dry_run_lists_migrations_and_writes_nothing(empty: str) -> None:
    assert migrate_up(empty, dry_run=True)[0] == "engine"
    with connect(empty) as conn:
        assert conn.execute("select count(*) from pg_namespace where nspname = 'pgflow'").fetchone() == (0,)


@pytest.mark.parametrize("schema", ["pgflow", "orders", "user", "_" + "x" * 62])
def test_the_script_creates_the_same_schema_as_migrate(
    server: Server, new_database: Callable[..., str], schema: str
) -> None:
    migrated, scripted = new_database(server), new_database(server)
    migrate_up(migrated, schema)
    with connect(scripted) as conn:
        conn.execute(script.sql(schema))
        assert migrate.status(conn, schema).up_to_date
        assert migrate.up(conn, schema) == []
    assert catalog(scripted, schema) == catalog(migrated, schema)
    assert len(catalog(migrated, schema)) > 50


def test_a_script_that_runs_twice_fails_on_the_primary_key(empty: str) -> None:
    execute(empty, script.sql())
    with connect(empty) as conn, pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute(script.sql())


def test_two_schemas_in_one_database_are_independent(empty: str) -> None:
    migrate_up(empty, "user")
    with connect(empty) as conn:
        assert not migrate.status(conn).version
        assert conn.execute("select count(*) from pg_namespace where nspname = 'pgflow'").fetchone() == (0,)
        migrate.check(conn, "user")


@pytest.mark.parametrize("schema", ["Orders", "", "a b", "pg_mine", 'a"; drop table x; --', "1a", "x" * 64])
def test_a_schema_name_that_is_not_plain_is_rejected(migrated: str, schema: str) -> None:
    with connect(migrated) as conn, pytest.raises(ConfigError):
        migrate.up(conn, schema)


def test_a_connection_in_a_transaction_is_rejected(migrated: str) -> None:
    with connect(migrated) as conn, conn.transaction(), pytest.raises(ValueError, match="outside a transaction"):
        migrate.up(conn)


def test_a_connection_without_autocommit_works_and_stays_so(empty: str) -> None:
    with connect(empty, autocommit=False) as conn:
        assert migrate.up(conn)
        assert not conn.autocommit
    with connect(empty) as conn:
        migrate.check(conn)


def test_a_schema_with_a_pending_migration_is_outdated(sql_copy: Path, empty: str) -> None:
    migrate_up(empty)
    add_migration(sql_copy, "alter table pgflow.queues add column note text;")
    with connect(empty) as conn:
        with pytest.raises(SchemaOutdated, match=r"is at \d+, this pgflow needs \d+"):
            migrate.check(conn)
        assert [each.name for each in migrate.up(conn)] == ["extra"]
        migrate.check(conn)


def test_a_changed_function_is_installed_without_a_migration(sql_copy: Path, empty: str) -> None:
    migrate_up(empty)
    (sql_copy / "functions" / "extra.sql").write_text(
        "create or replace function pgflow.extra() returns int language sql as $$ select pgflow.later() $$;\n"
        "create or replace function pgflow.later() returns int language sql as $$ select 42 $$;\n"
    )
    clear_caches()
    with connect(empty) as conn:
        with pytest.raises(SchemaOutdated, match="functions"):
            migrate.check(conn)
        assert [each.version for each in migrate.up(conn)] == [FUNCTIONS]
        assert conn.execute("select pgflow.extra()").fetchone() == (42,)


def test_a_migration_that_fails_leaves_no_trace(sql_copy: Path, empty: str) -> None:
    migrate_up(empty)
    before = catalog(empty)
    add_migration(sql_copy, "create table pgflow.half (id int); select 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate_up(empty)
    assert catalog(empty) == before
    with connect(empty) as conn:
        assert len(migrate.status(conn).pending) == 1


def test_a_migration_without_transaction_runs_once(sql_copy: Path, empty: str) -> None:
    migrate_up(empty)
    add_migration(
        sql_copy,
        "-- pgflow: no transaction\ncreate index concurrently if not exists extra on pgflow.queues (paused_at);",
    )
    add_migration(sql_copy, "alter index pgflow.extra rename to extra_renamed;")
    done = all_at_once(empty)
    assert sorted(name for names in done for name in names) == ["extra", "extra"]
    with connect(empty) as conn:
        migrate.check(conn)
        assert conn.execute(
            "select indisvalid from pg_index where indexrelid = 'pgflow.extra_renamed'::regclass"
        ).fetchone() == (True,)


def test_a_lock_on_a_busy_table_is_retried_and_never_waited_for_long(sql_copy: Path, empty: str) -> None:
    migrate_up(empty)
    add_migration(sql_copy, "alter table pgflow.jobs add column note text;")
    with connect(empty) as busy, busy.transaction():
        busy.execute("lock table pgflow.jobs in access share mode")
        with pytest.raises(SchemaError, match="could not be migrated within 0 s: a lock was not available"):
            migrate_up(empty, timeout=timedelta(milliseconds=300))
    assert migrate_up(empty) == ["extra"]


def waits(conn: psycopg.Connection[Any], relation: str) -> bool:
    """Return whether a session waits for a lock on a table."""
    query = "select exists (select from pg_locks where not granted and relation = %s::regclass)"
    return bool((conn.execute(query, [relation]).fetchone() or [False])[0])


def test_the_timeout_applies_to_each_migration(sql_copy: Path, empty: str) -> None:
    migrate_up(empty)
    add_migration(sql_copy, "select pg_sleep(0.7);")
    add_migration(sql_copy, "alter table pgflow.jobs add column note text;")
    with connect(empty) as busy, ThreadPoolExecutor(1) as pool:
        with busy.transaction():
            busy.execute("lock table pgflow.jobs in access share mode")
            migrating = pool.submit(migrate_up, empty, timeout=timedelta(seconds=0.6))
            until(lambda: waits(busy, "pgflow.jobs"), "the second one's wait")
            until(lambda: not waits(busy, "pgflow.jobs"), "the end of its wait")
        assert migrating.result(30) == ["extra", "extra"]


def test_a_migration_without_transaction_does_not_block_others_while_it_waits_for_a_lock(
    sql_copy: Path, empty: str
) -> None:
    migrate_up(empty)
    alter = "alter table pgflow.jobs add column if not exists note text;\n"
    add_migration(sql_copy, f"-- pgflow: no transaction\n-- Not concurrently.\n{alter}")
    with connect(empty) as reader, connect(empty) as worker, ThreadPoolExecutor(1) as pool:
        with reader.transaction():
            reader.execute("lock table pgflow.jobs in access share mode")
            migrating = pool.submit(migrate_up, empty)
            until(lambda: waits(reader, "pgflow.jobs"), "the wait for the lock")
            worker.execute("set statement_timeout = 1000")
            assert worker.execute("update pgflow.jobs set attempt = 1").rowcount == 0
        assert migrating.result(30) == ["extra"]


def test_of_several_tables_all_are_locked_within_the_limit_or_none(sql_copy: Path, empty: str) -> None:
    migrate_up(empty)
    tables = ("jobs", "signals", "instances", "step_results", "queues")
    add_migration(sql_copy, "".join(f"alter table pgflow.{table} add column note text;\n" for table in tables))
    is_over = Event()

    def use_the_first() -> None:
        with connect(empty) as conn:
            conn.execute("set statement_timeout = 250")
            while not is_over.is_set():
                conn.execute("update pgflow.jobs set attempt = 1")

    with ExitStack() as stack, connect(empty) as conn, ThreadPoolExecutor(2) as pool:
        readers = {table: stack.enter_context(connect(empty)) for table in tables[1:]}
        for table, reader in readers.items():
            reader.execute(f"begin; lock table pgflow.{table} in access share mode".encode())
        using, migrating = pool.submit(use_the_first), pool.submit(migrate_up, empty)
        for table, reader in readers.items():  # each lock is waited for briefly, then available
            until(lambda table=table: waits(conn, f"pgflow.{table}"), "the wait", pause=0)  # type: ignore[misc]
            conn.execute("select pg_sleep(0.08)")
            reader.execute("commit")
        assert migrating.result(30) == ["extra"]
        is_over.set()
        using.result(30)


def test_waiting_for_another_migrate_times_out(empty: str) -> None:
    with connect(empty) as other, other.transaction():
        other.execute(migration.lock_transaction("pgflow").query, {"schema": "pgflow"})
        with pytest.raises(SchemaError, match="another session is migrating it"):
            migrate_up(empty, timeout=timedelta(milliseconds=100))


def test_a_migration_without_transaction_waits_for_another_migrate_too(
    sql_copy: Path, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate_up(empty)
    add_migration(sql_copy, "-- pgflow: no transaction\nalter table pgflow.queues add column note text;")
    with connect(empty) as other, other.transaction():
        other.execute(migration.lock_transaction("pgflow").query, {"schema": "pgflow"})
        # As if the other session began just after the transaction that determines the next migration.
        monkeypatch.setattr(
            migration,
            "lock_transaction",
            lambda schema: Statement("migration/lock_transaction", "select true", {}, bool),
        )
        with pytest.raises(SchemaError, match="another session is migrating it"):
            migrate_up(empty, timeout=timedelta(milliseconds=100))
    assert migrate_up(empty) == ["extra"]


@pytest.mark.parametrize(
    "paths", [["0002_b.sql"], ["0001_a.sql", "0003_c.sql"], ["0001_a.sql", "0001_b.sql"], ["0001-a.sql"], ["1_a.sql"]]
)
def test_migrations_are_numbered_from_1_without_a_gap(paths: list[str]) -> None:
    with pytest.raises(SchemaError):
        in_order([(f"migrations/{path}", "") for path in paths])


def test_a_migration_declares_its_options_in_headers() -> None:
    headers = ("-- What it does.\n-- pgflow: breaking\n", "-- What it does.\n-- pgflow: no transaction\n")
    (breaking,), (bare,) = (in_order([("migrations/0001_a.sql", text)]) for text in headers)
    assert (breaking.breaking, breaking.transactional) == (True, True)
    assert (bare.breaking, bare.transactional) == (False, False)
    with pytest.raises(SchemaError, match="is breaking and without a transaction"):
        in_order([("migrations/0001_a.sql", "".join(headers))])
    with pytest.raises(SchemaError, match="unknown header: braking"):
        in_order([("migrations/0001_a.sql", "-- pgflow: braking\n")])


def test_the_row_factory_of_a_connection_has_no_effect(empty: str) -> None:
    migrate_up(empty)
    with closing(psycopg.connect(empty, row_factory=psycopg.rows.dict_row)) as conn:
        migrate.check(conn)
        conn.execute(compose.SQL("rollback"))
