"""An application's pool: lends connections to the tasks of a loop, and closes them with the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgflow.database.connect import connect
from pgflow.database.pooling import pool as module
from pgflow.database.pooling.pool import MAX_SIZE, Pool
from pgflow.errors import Unreachable
from tests.worker.waiting import until


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    pool = Pool(dsn)
    yield pool
    pool.close()


def clients(dsn: str) -> int:
    """Return the number of other connections to the database."""
    query = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    with connect(dsn, "test") as conn:
        row = conn.execute(query).fetchone()
    return int(row[0]) if row else 0


async def ask(pool: Pool, query: str = "select pg_backend_pid()") -> Any:
    async with pool.aconnection() as conn:
        row = await (await conn.execute(query.encode())).fetchone()
    return None if row is None else row[0]


def test_a_program_that_runs_several_loops_keeps_no_connection_of_any(pool: Pool, dsn: str) -> None:
    async def several() -> None:
        await asyncio.gather(*(ask(pool) for _ in range(3)))

    for _ in range(60):
        asyncio.run(several())
    until(lambda: clients(dsn) == 0, "the end of all connections")


def test_consecutive_calls_reuse_one_connection(pool: Pool) -> None:
    async def twice() -> list[int]:
        return [await ask(pool), await ask(pool)]

    first, second = asyncio.run(twice())
    assert first == second


def test_closing_ends_the_connections_of_the_loop(pool: Pool, dsn: str) -> None:
    async def use() -> int:
        await ask(pool)
        await pool.aclose()
        until(lambda: clients(dsn) == 0, "the end of the connection")
        return int(await ask(pool, "select 7"))

    assert asyncio.run(use()) == 7


def test_a_broken_connection_or_one_in_a_transaction_is_not_reused(pool: Pool) -> None:
    async def use() -> list[int]:
        pids = [await ask(pool)]
        async with pool.aconnection() as conn:
            await conn.execute("begin")
        pids.append(await ask(pool))
        with pytest.raises(psycopg.OperationalError):
            await ask(pool, "select pg_terminate_backend(pg_backend_pid())")
        return [*pids, await ask(pool)]

    assert len(set(asyncio.run(use()))) == 3


def test_a_caller_that_gets_no_connection_in_time_gets_an_error(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACQUIRE_TIMEOUT", 0.05)

    async def use() -> None:
        held = asyncio.Event()
        taken = asyncio.Semaphore(0)

        async def hold() -> None:
            async with pool.aconnection():
                taken.release()
                await held.wait()

        holders = [asyncio.create_task(hold()) for _ in range(MAX_SIZE)]
        for _ in holders:
            await taken.acquire()
        with pytest.raises(Unreachable, match="no connection became free"):
            await ask(pool)
        held.set()
        await asyncio.gather(*holders)
        assert await ask(pool, "select 7") == 7

    asyncio.run(use())
