"""Statements that are exchanged with libpq itself read and write what a cursor does, and fail as it does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from pgflow.database.arrays import Bigints, Texts
from pgflow.database.connect import Connection, aconnect, connect
from pgflow.database.direct import Query, exchange
from pgflow.database.statement import Statement, arun_then, run_then
from pgflow.database.transaction_status import is_idle

VALUES = {
    "text": ("text", "naïve 漢 'quoted' \\ %"),
    "nothing": ("text", None),
    "boolean": ("boolean", True),
    "integer": ("integer", -7),
    "bigint": ("bigint", 2**62),
    "double": ("double precision", 1e-300),
    "time": ("timestamptz", datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
    "texts": ("text[]", Texts(["a", None, "{b}"])),
    "bigints": ("bigint[]", Bigints([1, 2])),
}


@pytest.fixture
def conn(migrated: str) -> Iterator[Connection]:
    with connect(migrated, "client") as conn:
        conn.execute("drop table if exists public.written")
        conn.execute("create table public.written (n integer, constraint one unique (n) deferrable initially deferred)")
        yield conn
        if not conn.closed:
            conn.execute("drop table public.written")


def insert(*numbers: int) -> Statement[list[int]]:
    query = "insert into public.written select unnest(%(numbers)b::bigint[]) returning n"
    return Statement(
        "test/insert", query, {"numbers": Bigints(numbers)}, lambda rows: [n for (n,) in rows], prepare=True
    )


def written(migrated: str) -> list[int]:
    with connect(migrated, "read") as other:
        return [n for (n,) in other.execute("select n from public.written order by n").fetchall()]


FAILS: Statement[Any] = Statement("test/fails", "select 1 / %(n)s::integer", {"n": 0}, list, prepare=True)


def ends_session(conn: Connection) -> Statement[Any]:
    query = "select pg_terminate_backend(%(pid)s::integer)"
    return Statement("test/ends", query, {"pid": conn.info.backend_pid}, list, prepare=True)


def test_values_are_bound_and_read(conn: Connection) -> None:
    columns = ", ".join(f"%({name})s::{kind}" for name, (kind, _) in VALUES.items())
    query = Query(f"select {columns}, '%%', %(text)s::text", {name: value for name, (_, value) in VALUES.items()})
    for _ in range(2):
        (row,) = conn.wait(exchange(conn, query))
        assert row == (*(value for _, value in VALUES.values()), "%", VALUES["text"][1])


def test_a_value_that_cannot_be_sent_is_refused_before_anything_is(conn: Connection) -> None:
    for value, error in (("a\0b", psycopg.DataError), ({}, psycopg.ProgrammingError)):
        with pytest.raises(error):
            conn.wait(exchange(conn, Query("select %(value)s::text", {"value": value})))
        assert is_idle(conn)
    assert run_then(conn, insert(1)) == [1]


@pytest.mark.parametrize("after", [None, insert(2)], ids=["alone", "with another"])
def test_an_error_is_raised_also_one_of_the_commit(
    conn: Connection, migrated: str, after: Statement[Any] | None
) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        run_then(conn, FAILS, after)
    with pytest.raises(psycopg.errors.UniqueViolation):
        run_then(conn, insert(1, 1), after)
    assert is_idle(conn)
    assert run_then(conn, insert(3), after) == [3]
    assert 1 not in written(migrated)


def test_the_second_statement_has_a_transaction_of_its_own_and_its_errors_are_ignored(
    conn: Connection, migrated: str
) -> None:
    assert run_then(conn, insert(1), insert(2)) == [1]
    assert run_then(conn, insert(3), FAILS) == [3]
    assert run_then(conn, insert(4), insert(5, 5)) == [4]
    assert is_idle(conn)
    assert written(migrated) == [1, 2, 3, 4]


def test_a_session_that_ends_after_the_commit_does_not_hide_it(conn: Connection, migrated: str) -> None:
    assert run_then(conn, insert(1), ends_session(conn)) == [1]
    assert not is_idle(conn)
    assert written(migrated) == [1]


def test_a_session_that_ends_before_the_commit_is_an_error(conn: Connection, migrated: str) -> None:
    with pytest.raises(psycopg.OperationalError):
        run_then(conn, ends_session(conn), insert(1))
    assert not is_idle(conn)
    assert written(migrated) == []


def test_so_it_is_on_an_async_connection(conn: Connection, migrated: str) -> None:
    async def play() -> None:
        own = await aconnect(migrated, "client")
        assert await arun_then(own, insert(1), insert(2)) == [1]
        with pytest.raises(psycopg.errors.UniqueViolation):
            await arun_then(own, insert(3, 3), insert(4))
        assert await arun_then(own, insert(5)) == [5]
        assert is_idle(own)
        await own.close()

    asyncio.run(play())
    assert written(migrated) == [1, 2, 4, 5]
