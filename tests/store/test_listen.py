"""The listener: notifications arrive at once, a broken connection is replaced, one without notifications is noticed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import psycopg
import pytest

from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.store import worker
from pgflow.store.notification import CheckCancels, Notification, QueueReady, SweepRequested
from pgflow.worker import listener
from pgflow.worker.listener import Listener

PATIENCE = 20


Notifications: TypeAlias = "asyncio.Queue[Notification]"


def with_listener(dsn: str, test: Callable[[Notifications, Listener], Awaitable[None]]) -> None:
    """Run a test beside a listener on `dsn`; the queue receives the notifications."""

    async def scene() -> None:
        received: Notifications = asyncio.Queue()
        listener = Listener(dsn, "pgflow", received.put_nowait)
        task = asyncio.create_task(listener.run())
        try:
            async with asyncio.timeout(PATIENCE):
                await test(received, listener)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())


def notify(dsn: str, *notifications: Notification) -> None:
    with connect(dsn) as conn:
        run(conn, worker.notify("pgflow", notifications))


def end_listeners(dsn: str) -> None:
    with connect(dsn) as conn:
        conn.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where application_name = 'pgflow:listen' and datname = current_database()"
        )


def test_a_notification_arrives_as_the_value_that_was_sent(migrated: str) -> None:
    async def scene(received: Notifications, listener: Listener) -> None:
        await listener.listening.wait()
        sent: set[Notification] = {QueueReady("mail"), CheckCancels(), SweepRequested()}
        notify(migrated, *sent)
        assert await received.get() == SweepRequested()
        assert {await received.get() for _ in sent} == sent

    with_listener(migrated, scene)


def test_after_each_connection_it_asks_for_a_sweep(migrated: str) -> None:
    async def scene(received: Notifications, listener: Listener) -> None:
        assert await received.get() == SweepRequested()
        end_listeners(migrated)
        assert await received.get() == SweepRequested()
        notify(migrated, QueueReady("mail"))
        assert await received.get() == QueueReady("mail")

    with_listener(migrated, scene)


class Silent(psycopg.AsyncConnection[Any]):
    """A connection through a pooler in transaction mode: LISTEN succeeds, nothing arrives."""

    async def notifies(self, **_: Any) -> AsyncIterator[psycopg.Notify]:  # type: ignore[override]  # a generator, but fewer arguments
        nothing: list[psycopg.Notify] = []
        for each in nothing:
            yield each


def test_a_connection_without_notifications_is_given_up_and_logged(
    migrated: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def silent(dsn: str, role: str, **_: Any) -> psycopg.AsyncConnection[Any]:
        return await Silent.connect(dsn, autocommit=True)

    monkeypatch.setattr(listener, "aconnect", silent)
    waiting = Listener(migrated, "pgflow", lambda notification: None)
    asyncio.run(asyncio.wait_for(waiting.run(), PATIENCE))
    assert "polling only" in caplog.text
    assert not waiting.listening.is_set()
