"""Connecting: every form of connection string, limits from the startup packet on, and one sentence on failure."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from pgflow import errors
from pgflow.database.connect import aconnect, connect, connection_error, conninfo
from pgflow.database.dsn import parse, place
from pgflow.database.sqlstate import ERRORS_BY_SQLSTATE, translate
from pgflow.database.statement import Statement, arun, run, run_all
from pgflow.database.transaction_status import is_idle
from pgflow.store import migration
from tests.conftest import Server

SECRET = "hunter2"  # noqa: S105 - not a real password
EURO = Statement(
    "test/euro",
    "select current_setting('client_encoding'), %(a)s::text",
    {"a": "€"},
    lambda rows: (rows[0][0], rows[0][1]),
)
SEARCH_LIMIT = Statement("test/limit", "select current_setting('gin_fuzzy_search_limit')", {}, lambda rows: rows[0][0])


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGOPTIONS", "PGAPPNAME", "PGHOST", "PGPORT", "PGDATABASE", "PGSERVICE", "PGCONNECT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that this test has bound without listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def setting(conn: psycopg.Connection[tuple[str]], name: str) -> str:
    row = conn.execute("select current_setting(%s)", [name]).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize(
    "dsn",
    [
        "postgres://ann:hunter2@db.example:6543/shop",
        "postgresql://ann:hunter2@db.example:6543/shop",
        "postgresql+psycopg://ann:hunter2@db.example:6543/shop",
        "POSTGRESQL+psycopg2://ann:hunter2@db.example:6543/shop",
        " host=db.example port=6543 user=ann password=hunter2 dbname=shop ",
    ],
)
def test_every_usual_form_of_connection_string_is_accepted(dsn: str) -> None:
    assert parse(dsn) == {
        "host": "db.example", "port": "6543", "user": "ann", "password": SECRET, "dbname": "shop"
    }  # fmt: skip
    assert place(dsn) == "db.example:6543/shop"


def test_an_empty_connection_string_uses_libpqs_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGDATABASE", "shop")
    assert parse("") == {}
    assert place("") == "db.example:5432/shop"


@pytest.mark.parametrize(
    "dsn",
    [
        "mysql://ann:hunter2@db.example/shop",
        "postgres://ann:x@hunter2@db.example/shop",
        "postgres://ann:x/hunter2@db.example/shop",
        "postgres://ann:12/hunter2@db.example/shop",
        "postgres://ann:hunter2@[::1/shop",
        "postgres://ann:%zzhunter2@db.example/shop",
        "postgres://ann@db.example/shop?hunter2",
        "postgres://ann@db.example:hunter2/shop",
        "host=db.example password=x hunter2",
        "host=db.example port=hunter2",
        "host=db.example connect_timeout=hunter2",
        "password='hunter2",
        "host=db.example\0hunter2",
        "hunter2",
    ],
)
def test_a_bad_connection_string_is_rejected_without_quoting_it(dsn: str) -> None:
    with pytest.raises(errors.BadDsn) as refusal:
        connect(dsn)
    assert SECRET not in f"{refusal.value} {refusal.value.hint} {refusal.value.__cause__}"
    assert refusal.value.hint


def test_the_name_of_an_unknown_option_is_quoted() -> None:
    with pytest.raises(errors.BadDsn, match='"sslmod"'):
        parse("host=db.example sslmod=require")


def test_a_session_has_its_limits_from_the_startup_packet_on(migrated: str) -> None:
    with connect(migrated, "worker") as conn:
        assert setting(conn, "statement_timeout") == "30s"
        assert setting(conn, "lock_timeout") == "2s"
        assert setting(conn, "idle_in_transaction_session_timeout") == "10s"
        assert setting(conn, "timezone") == "UTC"
        assert setting(conn, "jit") == "off"
        assert setting(conn, "default_transaction_isolation") == "read committed"
        assert setting(conn, "application_name") == "pgflow:worker"


def test_a_migration_has_no_statement_timeout(migrated: str) -> None:
    with connect(migrated, "migrate") as conn:
        assert setting(conn, "statement_timeout") == "0"


def test_limits_of_a_role_neither_end_sessions_nor_truncate_lists(migrated: str, server: Server) -> None:
    limits = {
        "gin_fuzzy_search_limit": "5",
        "idle_session_timeout": "1min",
        **({"transaction_timeout": "1min"} if server.version >= 17 else {}),
    }
    dsn = psycopg.conninfo.make_conninfo(migrated, user="limited")
    with psycopg.connect(migrated, autocommit=True) as admin:
        admin.execute("create role limited superuser login")
        try:
            for name, value in limits.items():
                admin.execute(f"alter role limited set {name} = '{value}'".encode())
            for role in ("worker", "heart", "listen", "step"):
                with connect(dsn, role) as conn:
                    assert setting(conn, "idle_session_timeout") == "0"
            for role in ("client", "read", "worker"):
                with connect(dsn, role) as conn, connect(dsn, role, pooler=True) as pooled:
                    assert setting(conn, "gin_fuzzy_search_limit") == "0"
                    assert run(pooled, SEARCH_LIMIT) == "0"
            with connect(dsn, "migrate") as conn:
                assert not conn.execute(
                    "select 1 from pg_settings where name = 'transaction_timeout' and setting <> '0'"
                ).fetchall()
        finally:
            admin.execute("drop role limited")


def test_client_encoding_is_utf8_for_any_settings_of_the_user(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    for given in ({}, {"client_encoding": "WIN1252"}, {"options": "-c client_encoding=LATIN9"}):
        with connect(psycopg.conninfo.make_conninfo(migrated, **given)) as conn:
            assert setting(conn, "client_encoding") == "UTF8"


@pytest.mark.parametrize("role", ["client", "worker", "step"])
def test_through_a_pooler_the_encoding_that_another_client_set_has_no_effect(migrated: str, role: str) -> None:
    async def ask() -> tuple[str, str]:
        async with await aconnect(migrated, role, pooler=True) as conn:
            await conn.execute("set client_encoding to latin1")
            return await arun(conn, EURO)

    with connect(migrated, role, pooler=True) as conn:
        conn.execute("set client_encoding to latin1")
        assert run(conn, EURO) == asyncio.run(ask()) == ("UTF8", "€")


def test_settings_in_the_connection_string_win(migrated: str) -> None:
    dsn = psycopg.conninfo.make_conninfo(
        migrated, options="-c jit=on -c work_mem=12MB", application_name="shop", connect_timeout=60
    )
    with connect(dsn, "worker") as conn:
        assert setting(conn, "jit") == "on"
        assert setting(conn, "work_mem") == "12MB"
        assert setting(conn, "lock_timeout") == "2s"
        assert setting(conn, "application_name") == "shop"
    assert "connect_timeout=60" in conninfo(dsn)


def test_settings_in_the_environment_win(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c jit=on")
    monkeypatch.setenv("PGAPPNAME", "shop")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "60")
    with connect(migrated) as conn:
        assert setting(conn, "jit") == "on"
        assert setting(conn, "application_name") == "shop"
    assert "connect_timeout" not in conninfo(migrated)


def test_through_a_pooler_no_startup_options_are_sent(migrated: str) -> None:
    with connect(migrated, pooler=True) as conn:
        assert setting(conn, "statement_timeout") == "0"
        assert conn.prepare_threshold is None
    assert "options" not in parse(conninfo("host=db.example", pooler=True))


def test_a_connection_needs_no_home_directory(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    for pooler in (False, True):
        with connect(migrated, "worker", pooler=pooler) as conn:
            assert run_all(conn, [migration.applied("pgflow")])


def test_the_async_connection_is_the_same(migrated: str) -> None:
    async def ask() -> tuple[object, ...] | None:
        async with await aconnect(migrated, "listen") as conn:
            cursor = await conn.execute(
                "select current_setting('application_name'), current_setting('statement_timeout')"
            )
            return await cursor.fetchone()

    assert asyncio.run(ask()) == ("pgflow:listen", "30s")


def test_a_connection_is_idle_when_it_is_open_has_no_transaction_and_waits_for_no_answer(migrated: str) -> None:
    with connect(migrated) as conn:
        assert is_idle(conn)
        with conn.transaction():
            assert not is_idle(conn)
        assert is_idle(conn)
        conn.pgconn.send_query(b"select 1")
        assert not conn.broken
        assert not is_idle(conn)
        conn.close()
        assert not is_idle(conn)


def test_an_unreachable_server_is_named_without_the_password(closed_port: int) -> None:
    dsn = f"postgresql://ann:{SECRET}@127.0.0.1:{closed_port}/shop"
    with pytest.raises(errors.Unreachable) as refusal:
        connect(dsn)
    assert str(refusal.value) == f"cannot reach PostgreSQL at 127.0.0.1:{closed_port}/shop: Connection refused"
    assert "PGFLOW_DSN" in (refusal.value.hint or "")
    with pytest.raises(errors.Unreachable, match="Connection refused"):
        asyncio.run(aconnect(dsn))


def test_a_database_that_does_not_exist_is_reported(server: Server) -> None:
    with pytest.raises(errors.Unreachable, match=r'/nowhere: database "nowhere" does not exist') as refusal:
        connect(server.database_dsn("nowhere"))
    assert "createdb" in (refusal.value.hint or "")


def test_an_unknown_user_gets_a_hint_to_check_the_connection_string(migrated: str) -> None:
    with pytest.raises(errors.Unreachable) as refusal:
        connect(psycopg.conninfo.make_conninfo(migrated, user="nobody_here", password=SECRET))
    assert "Check the user and the password" in (refusal.value.hint or "")
    assert SECRET not in str(refusal.value)


def test_a_read_only_server_is_accepted_for_reading_only(migrated: str) -> None:
    dsn = psycopg.conninfo.make_conninfo(migrated, options="-c default_transaction_read_only=on")
    with pytest.raises(errors.Unreachable, match="read-only") as refusal:
        connect(dsn)
    assert "primary" in (refusal.value.hint or "")
    connect(dsn, "read").close()


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("connection is bad: local user with ID 54321 does not exist", "Set the database user"),
        (
            'connection to server at "x", port 5432 failed: FATAL:  password authentication failed for user "ann"',
            "Check",
        ),
        ('connection failed: FATAL:  no pg_hba.conf entry for host "x"', "pg_hba.conf"),
        ("connection failed: FATAL:  sorry, too many clients already", "max_connections"),
        ("connection failed: FATAL:  the database system is starting up", "moment"),
        ('connection is bad: invalid sslmode value: "on"', "Fix"),
        ("connection timeout expired", "Start PostgreSQL"),
        ("", "Start PostgreSQL"),
    ],
)
def test_the_hint_fits_the_message_of_the_server(message: str, advice: str) -> None:
    error = connection_error(psycopg.OperationalError(message), "x:5432/shop")
    assert advice in (error.hint or "")
    assert "\n" not in str(error)


@pytest.mark.parametrize("code", sorted(ERRORS_BY_SQLSTATE))
def test_each_sqlstate_of_the_sql_api_maps_to_its_exception(migrated: str, code: str) -> None:
    with connect(migrated) as conn, pytest.raises(psycopg.Error) as raised:
        conn.execute(f"do $$ begin raise exception using errcode = '{code}', message = 'what', hint = 'fix'; end $$")
    error = translate(raised.value)
    assert type(error) is ERRORS_BY_SQLSTATE[code]
    assert (str(error), error.hint) == ("what", "fix")


@pytest.mark.parametrize("query", ["select * from nowhere.x", "select * from nothing", "select nofunction(1)"])
def test_a_missing_object_gets_a_hint_to_migrate(migrated: str, query: str) -> None:
    with connect(migrated) as conn, pytest.raises(psycopg.Error) as raised:
        conn.execute(query.encode())
    error = translate(raised.value)
    assert isinstance(error, errors.SchemaMissing)
    assert error.hint == "Run: pgflow migrate"


def test_transient_errors_are_not_translated() -> None:
    for transient in (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure, psycopg.OperationalError):
        assert translate(transient("x")) is None


def test_a_server_that_is_too_old_is_rejected(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgflow.database.connect.MIN_SERVER_VERSION", 99)
    open_and_refuse: list[Callable[[], object]] = [lambda: connect(migrated), lambda: asyncio.run(aconnect(migrated))]
    for attempt in open_and_refuse:
        with pytest.raises(errors.DatabaseError, match="is too old"):
            attempt()
