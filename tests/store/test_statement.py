"""Statements return the same values on sync and async connections, alone and in a pipeline."""

import asyncio
import select
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from pgflow.database.connect import Connection, aconnect
from pgflow.database.statement import Statement, arun, arun_all, astart, run, run_all, start
from pgflow.errors import AlreadyRunning, SchemaMissing
from tests.worker.waiting import PATIENCE

DOUBLE = Statement("test/double", "select %(n)s::int * 2", {"n": 21}, lambda rows: int(rows[0][0]))
SILENT = Statement("test/silent", "set local jit = off", {}, len)
REFUSED = Statement(
    "test/refused", "do $$ begin raise exception using errcode = 'PF002', message = 'busy'; end $$", {}, len
)


def test_a_statement_returns_its_decoded_result(conn: Connection) -> None:
    assert run(conn, DOUBLE) == 42


def test_a_statement_without_a_result_has_no_rows(conn: Connection) -> None:
    assert run(conn, SILENT) == 0


def test_a_prepared_statement_returns_the_same_values(conn: Connection) -> None:
    assert run(conn, Statement("test/binary", DOUBLE.query, DOUBLE.params, DOUBLE.read, prepare=True)) == 42


def test_statements_in_a_pipeline_are_read_when_all_are_sent(conn: Connection) -> None:
    with conn.pipeline():
        first, silent, last = start(conn, DOUBLE), start(conn, SILENT), start(conn, DOUBLE)
        assert (last.result(), silent.result(), first.result()) == (42, 0, 42)


def test_an_error_of_the_sql_api_is_raised_as_its_exception(conn: Connection) -> None:
    with pytest.raises(AlreadyRunning, match="busy") as refusal, conn.transaction():
        run(conn, REFUSED)
    assert isinstance(refusal.value.__cause__, psycopg.Error)


def test_an_error_in_a_pipeline_is_raised_when_the_result_is_read(migrated: str) -> None:
    with psycopg.connect(migrated) as conn, pytest.raises(AlreadyRunning), conn.pipeline():
        start(conn, REFUSED).result()


def test_a_missing_table_is_a_missing_schema(conn: Connection) -> None:
    with pytest.raises(SchemaMissing), conn.transaction():
        run(conn, Statement("test/missing", "select * from pgflow.nothing", {}, len))


def test_any_other_error_is_raised_unchanged(conn: Connection) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero), conn.transaction():
        run(conn, Statement("test/wrong", "select 1 / 0", {}, len))


def test_the_callers_row_and_cursor_classes_make_no_difference(migrated: str) -> None:
    with psycopg.connect(migrated, row_factory=dict_row, cursor_factory=psycopg.ClientCursor) as conn:
        assert run(conn, Statement("test/binary", "select %(n)b::int4 * 2", {"n": 21}, DOUBLE.read)) == 42


def test_an_async_connection_runs_the_same_values(migrated: str) -> None:
    async def all_of_it() -> None:
        async with await aconnect(migrated) as conn:
            assert await arun(conn, DOUBLE) == 42
            async with conn.transaction():
                assert await arun(conn, SILENT) == 0
            with pytest.raises(AlreadyRunning):
                await arun(conn, REFUSED)
            async with conn.pipeline():
                first, last = await astart(conn, DOUBLE), await astart(conn, DOUBLE)
                assert (await last.result(), await first.result()) == (42, 42)

    asyncio.run(all_of_it())


def test_statements_in_one_round_trip_all_take_effect_or_none(migrated: str) -> None:
    insert = Statement("test/insert", "insert into pgflow.queues (name) values ('q')", {}, len)
    with psycopg.connect(migrated, autocommit=True) as conn:
        assert run_all(conn, [DOUBLE, SILENT, DOUBLE]) == [42, 0, 42]
        with pytest.raises(AlreadyRunning):
            run_all(conn, [insert, REFUSED])
        with pytest.raises(psycopg.errors.DivisionByZero):
            run_all(conn, [insert, Statement("test/wrong", "select 1 / 0", {}, len), DOUBLE])
        assert conn.execute("select count(*) from pgflow.queues where name = 'q'").fetchone() == (0,)

    async def all_of_it() -> None:
        async with await aconnect(migrated) as aconn:
            assert await arun_all(aconn, [DOUBLE, SILENT]) == [42, 0]
            with pytest.raises(AlreadyRunning):
                await arun_all(aconn, [REFUSED, DOUBLE])

    asyncio.run(all_of_it())


def test_an_error_before_all_is_sent_is_raised_and_nothing_is_logged(
    migrated: str, caplog: pytest.LogCaptureFixture
) -> None:
    def slowly(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> Iterator[Statement[int]]:
        yield REFUSED
        assert select.select([conn.fileno()], [], [], PATIENCE)[0]
        yield DOUBLE
        yield DOUBLE

    with psycopg.connect(migrated, autocommit=True) as conn:
        with pytest.raises(AlreadyRunning):
            run_all(conn, slowly(conn))
        assert run_all(conn, [DOUBLE]) == [42]

    async def the_same() -> None:
        async with await aconnect(migrated) as aconn:
            with pytest.raises(AlreadyRunning):
                await arun_all(aconn, slowly(aconn))
            assert await arun_all(aconn, [DOUBLE]) == [42]

    asyncio.run(the_same())
    assert caplog.text == ""


def test_a_statement_behind_a_failed_one_is_not_recorded_as_prepared(migrated: str) -> None:
    with psycopg.connect(migrated, autocommit=True, prepare_threshold=2) as conn:
        for _ in range(5):
            with pytest.raises(AlreadyRunning):
                run_all(conn, [REFUSED, DOUBLE])
            assert run_all(conn, [DOUBLE]) == [42]
