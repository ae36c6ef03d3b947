"""Few connections are allowed: sync and async calls share what there is, and one too many is reported at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.database.connect import Connection, connect
from pgflow.database.pooling import idle
from pgflow.database.pooling.pool import Pool
from pgflow.errors import TooManyConnections, Unreachable
from tests.worker.db_helpers import one, until_all_ended
from tests.worker.thread_worker import Inside
from tests.worker.waiting import PATIENCE, until

Input = dict[str, Any]


@step
def plain(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step(transactional=True)
def booked(ctx: Context[Input]) -> Ok:
    ctx.conn.execute("select 1")
    return Ok("done")


@step(transactional=True)
async def abooked(ctx: Context[Input]) -> Ok:
    await ctx.conn.execute("select 1")
    return Ok("done")


class Plain(Workflow[Input], unique=Unique("plain")):
    initial = plain
    transitions = {plain: {"done": Done}}


class Booked(Workflow[Input], unique=Unique("booked")):
    initial = booked
    transitions = {booked: {"done": abooked}, abooked: {"done": plain}, plain: {"done": Done}}


WORKFLOWS = (Plain, Booked)
Few = Callable[[int], str]


@pytest.fixture
def few(dsn: str, conn: Connection, app: Pgflow) -> Iterator[Few]:
    """Give `few(3)`: a dsn that allows three connections. A superuser would be allowed more."""
    name = f"few_{uuid4().hex[:8]}"
    role = sql.Identifier(name)
    conn.execute(sql.SQL("create role {} login in role {}").format(role, sql.Identifier(conn.info.user)))

    def allow(count: int) -> str:
        conn.execute(sql.SQL("alter role {} connection limit {}").format(role, count))
        return make_conninfo(dsn, user=name)

    yield allow
    conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [name])
    conn.execute(sql.SQL("drop role {}").format(role))


@contextmanager
def closing(dsn: str) -> Iterator[Pgflow]:
    app = Pgflow(dsn, workflows=WORKFLOWS)
    try:
        yield app
    finally:
        app.close()


def sessions(conn: Connection) -> int:
    return int(one(conn, "select count(*) from pg_stat_activity where usename like 'few_%%'"))


@pytest.mark.parametrize("limit", [1, 3])
def test_sync_and_async_calls_take_turns_with_few_connections(conn: Connection, few: Few, limit: int) -> None:
    """More threads, and then more tasks, than there are connections."""
    with closing(few(limit)) as app, ThreadPoolExecutor(6) as threads:

        async def rounds(name: str) -> None:
            for turn in range(3):
                starts = [app.astart(Plain, f"{name}-{turn}-{number}", {}) for number in range(6)]
                await asyncio.gather(*starts)
                calls = [
                    asyncio.get_running_loop().run_in_executor(
                        threads, app.start, Plain, f"{name}-sync-{turn}-{number}", {}
                    )
                    for number in range(6)
                ]
                await asyncio.gather(*calls)

        for name in ("first", "second"):
            app.list()
            asyncio.run(rounds(name))
        assert len(app.list(limit=500)) == one(conn, "select count(*) from pgflow.instances") == 2 * 3 * 12


def test_sync_and_async_calls_at_the_same_time_share_three_connections(conn: Connection, few: Few) -> None:
    with closing(few(3)) as app:

        def call(number: int) -> None:
            for turn in range(20):
                app.start(Plain, f"sync-{number}-{turn}", {})

        async def acall(number: int) -> None:
            for turn in range(20):
                await app.astart(Plain, f"async-{number}-{turn}", {})

        async def both() -> None:
            await asyncio.gather(asyncio.to_thread(call, 1), acall(2))

        asyncio.run(both())
        assert one(conn, "select count(*) from pgflow.instances") == 40


def test_idle_connections_of_another_event_loop_make_room(few: Few) -> None:
    """A loop that runs in a thread keeps its connections for later, but not from others."""
    with closing(few(2)) as app:
        is_idle, is_over = threading.Event(), threading.Event()

        async def live() -> None:
            await asyncio.gather(app.alist(), app.alist())
            is_idle.set()
            await asyncio.to_thread(is_over.wait, PATIENCE)
            await app.alist()
            await app.aclose()

        thread = threading.Thread(target=lambda: asyncio.run(live()))
        thread.start()
        assert is_idle.wait(PATIENCE)
        assert app.list() == []
        is_over.set()
        thread.join()


@pytest.mark.parametrize("has_called", [False, True])
def test_one_connection_too_many_is_an_error_with_advice(conn: Connection, few: Few, has_called: bool) -> None:
    dsn = few(1)
    with closing(dsn) as app:
        if has_called:
            app.list()
            app.close()
            until(lambda: sessions(conn) == 0, "the end of the session")
        with connect(dsn, "other"):
            with pytest.raises(TooManyConnections) as raised:
                app.list()
            with pytest.raises(TooManyConnections):
                asyncio.run(app.alist())
        assert isinstance(raised.value, Unreachable)
        assert "too many connections for role" in str(raised.value)
        assert "CONNECTION LIMIT" in (raised.value.hint or "")
        assert raised.value.exit_code == 3
        until(lambda: sessions(conn) == 0, "the end of the session")
        assert app.list() == []


@pytest.mark.parametrize("limit", [3, 4])
def test_a_worker_runs_with_few_connections(conn: Connection, app: Pgflow, few: Few, limit: int) -> None:
    """One for claims and settles, one that listens, one for heartbeats; a transactional step waits for another."""
    app.start_many(Plain if limit == 3 else Booked, [(str(number), {}) for number in range(20)])
    with closing(few(limit)) as allowed, Inside(allowed, {"default": 4}):
        assert until_all_ended(conn) == {"completed": 20}


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[Unreachable]:
    """The refusals that callers of a pool have met. Nothing of this process's own makes them wait."""
    monkeypatch.setattr(idle, "GRACE_SECONDS", 0.0)
    met: list[Unreachable] = []
    pause = idle.ConnectRetry.next_pause

    def noting(self: idle.ConnectRetry, error: Unreachable) -> float:
        met.append(error)
        return pause(self, error)

    monkeypatch.setattr(idle.ConnectRetry, "next_pause", noting)
    return met


def test_a_step_waits_for_a_place_that_another_process_may_free(few: Few, refused: list[Unreachable]) -> None:
    """A worker waits for a connection; an app raises at once."""
    dsn = few(1)
    pool = Pool(dsn, "step", keep_retrying=True)
    with ThreadPoolExecutor(1) as threads:
        with connect(dsn, "other"):
            waiting = threads.submit(pool.threads.acquire, PATIENCE)
            until(lambda: len(refused) > 2, "some refusals")
            assert not waiting.done()
        conn = waiting.result()
        pool.threads.release(conn)
    pool.close()
    assert {type(each) for each in refused} == {TooManyConnections}


def test_an_async_step_waits_for_a_place_that_another_process_may_free(few: Few, refused: list[Unreachable]) -> None:
    dsn = few(1)
    pool = Pool(dsn, "step", keep_retrying=True)

    async def acquire() -> None:
        async with pool.aconnection(PATIENCE) as conn:
            assert not conn.closed

    async def wait() -> None:
        with connect(dsn, "other"):
            waiting = asyncio.create_task(acquire())
            await asyncio.to_thread(until, lambda: len(refused) > 2, "some refusals")
            assert not waiting.done()
        await waiting
        await pool.aclose()

    asyncio.run(wait())


def test_a_thread_that_waits_for_a_connection_ends_when_the_pool_is_closed(
    few: Few, refused: list[Unreachable]
) -> None:
    dsn = few(1)
    pool = Pool(dsn, "step", max_size=1, keep_retrying=True)
    with ThreadPoolExecutor(2) as threads, connect(dsn, "other"):
        first = threads.submit(pool.threads.acquire, 1000.0)
        until(lambda: refused, "a refusal")
        second = threads.submit(pool.threads.acquire, 1000.0)
        until(second.running, "the second thread")
        pool.close()
        for waiting in (first, second):
            with pytest.raises(Unreachable, match="were closed while a thread waited"):
                waiting.result(PATIENCE)
