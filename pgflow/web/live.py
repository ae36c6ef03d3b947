"""Notify browsers that something has changed: one LISTEN per process, and a pulse for what is not notified.

An event carries no data: the browser fetches its page again, through the gate. So nothing can leak around the rights.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import psycopg

from pgflow.database import statement
from pgflow.database.connect import aconnect
from pgflow.errors import PgflowError
from pgflow.logs import Logger
from pgflow.store import pulse
from pgflow.worker.listener import Listener

__all__ = ["Live"]

log = Logger("pgflow.web")

PULSE_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 15.0
SETTLE_SECONDS = 0.25  # how long changes are collected
MAX_SUBSCRIBERS = 500


class Live:
    """The changes of one schema, for any number of subscribers. It connects while there is one.

    Workers notify when work arrives, but not when a step ends. So a pulse, a cheap counter of all writes, is also read
    each second. On a replica there are no notifications, and the pulse is its replay position.
    """

    def __init__(self, dsn: str, schema: str, *, pooler: bool) -> None:
        self._dsn = dsn
        self._schema = schema
        self._pooler = pooler
        self._subscribers: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None

    async def changes(self) -> AsyncIterator[str]:
        """Yield the lines of an event stream until the client leaves."""
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            yield "event: full\ndata:\n\n"  # the page polls instead
            return
        changed = asyncio.Event()
        self._subscribers.add(changed)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="pgflow-web-live")
        try:
            yield "retry: 3000\nevent: hello\ndata:\n\n"
            while True:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                        await changed.wait()
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                await asyncio.sleep(SETTLE_SECONDS)
                changed.clear()
                yield "event: change\ndata:\n\n"
        finally:
            self._subscribers.discard(changed)
            if not self._subscribers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _announce(self, _: object = None) -> None:
        for each in self._subscribers:
            each.set()

    async def _run(self) -> None:
        listener = Listener(self._dsn, self._schema, self._announce, pooler=self._pooler)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pulse())
            if not self._pooler and await self._can_listen():
                tasks.create_task(listener.run())

    async def _can_listen(self) -> bool:
        try:
            async with await aconnect(self._dsn) as conn:
                return not (await statement.arun(conn, pulse.read(self._schema))).is_replica
        except (PgflowError, psycopg.Error, OSError):
            return True  # the listener connects again by itself

    async def _pulse(self) -> None:
        last = None
        while True:
            try:
                async with await aconnect(self._dsn, pooler=self._pooler) as conn:
                    while True:
                        beat = await statement.arun(conn, pulse.read(self._schema))
                        if beat != last:
                            last = beat
                            self._announce()
                        await asyncio.sleep(PULSE_SECONDS)
            except (PgflowError, psycopg.Error, OSError) as error:
                log.warning("the dashboard lost its connection and will connect again: %s", str(error).strip())
                self._announce()  # pages then report that the database does not answer
            await asyncio.sleep(PULSE_SECONDS)
