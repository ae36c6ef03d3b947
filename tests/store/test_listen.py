"""Listening: a notification wakes immediately, a broken connection is replaced, and a silent one is detected."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
import pytest

from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.store import worker
from pgflow.worker import listener
from pgflow.worker.listener import Listener

PATIENCE = 20


def with_listener(dsn: str, test: Callable[["asyncio.Queue[str | None]", Listener], Awaitable[None]]) -> None:
    """Run a test next to a listener on `dsn`; the queue contains its notifications."""

    async def scene() -> None:
        heard: asyncio.Queue[str | None] = asyncio.Queue()
        listener = Listener(dsn, "pgflow", heard.put_nowait)
        task = asyncio.create_task(listener.run())
        try:
            async with asyncio.timeout(PATIENCE):
                await test(heard, listener)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())


def wake(dsn: str, *queues: str) -> None:
    with connect(dsn) as conn:
        run(conn, worker.wake("pgflow", queues))


def end_listeners(dsn: str) -> None:
    with connect(dsn) as conn:
        conn.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where application_name = 'pgflow:listen' and datname = current_database()"
        )


def test_a_notification_wakes_with_the_name_of_its_queue(migrated: str) -> None:
    async def scene(heard: "asyncio.Queue[str | None]", listener: Listener) -> None:
        await listener.listening.wait()
        wake(migrated, "mail", "")
        assert await heard.get() is None
        assert sorted([await heard.get() or "", await heard.get() or ""]) == ["", "mail"]

    with_listener(migrated, scene)


def test_a_broken_connection_is_replaced_and_every_queue_is_checked(migrated: str) -> None:
    async def scene(heard: "asyncio.Queue[str | None]", listener: Listener) -> None:
        assert await heard.get() is None
        end_listeners(migrated)
        assert await heard.get() is None
        wake(migrated, "mail")
        assert await heard.get() == "mail"

    with_listener(migrated, scene)


class SilentConnection(psycopg.AsyncConnection[Any]):
    """A connection through a pooler in transaction mode: LISTEN succeeds, nothing arrives."""

    async def notifies(self, **_: Any) -> AsyncIterator[psycopg.Notify]:  # type: ignore[override]  # a generator, but fewer arguments
        nothing: list[psycopg.Notify] = []
        for each in nothing:
            yield each


def test_a_connection_without_notifications_is_given_up_with_a_warning(
    migrated: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def deaf(dsn: str, role: str, **_: Any) -> psycopg.AsyncConnection[Any]:
        return await SilentConnection.connect(dsn, autocommit=True)

    monkeypatch.setattr(listener, "aconnect", deaf)
    waiting = Listener(migrated, "pgflow", lambda queue: None)
    asyncio.run(asyncio.wait_for(waiting.run(), PATIENCE))
    assert "polling only" in caplog.text
    assert not waiting.listening.is_set()
