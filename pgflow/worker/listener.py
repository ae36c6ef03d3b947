"""Receive notifications with LISTEN on a connection of its own, which is re-established when it breaks.

Only an accelerator: a notification may be lost, forged or late. So polling always runs underneath, and a payload is
only a hint where to look.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import psycopg
from psycopg import sql

from pgflow.database.connect import AsyncConnection, aconnect
from pgflow.database.statement import arun
from pgflow.errors import PgflowError
from pgflow.jitter import uniform
from pgflow.logs import Logger
from pgflow.store import worker
from pgflow.store.notification import Notification, SweepRequested, decode

__all__ = ["Listener"]

logger = Logger("pgflow.listen")

PING_INTERVAL = timedelta(seconds=30)  # a silent connection is checked this often
ECHO = "?"  # sent once to find out whether notifications arrive; not the name of a queue
ECHO_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 30.0


class Listener:
    """Calls `on_notification` with each notification, in the event loop; it must not block.

    After each (re)connection it reports a `SweepRequested`, because notifications may have been missed. `listening` is
    set while notifications come in. A pooler in transaction mode accepts LISTEN and delivers nothing: `run` finds that
    out, logs it and returns. One in session mode delivers.

        listener = Listener(dsn, "pgflow", on_notification=claimer.notified)
        task = asyncio.create_task(listener.run())
    """

    def __init__(
        self,
        dsn: str,
        schema: str,
        on_notification: Callable[[Notification], None],
        *,
        interval: timedelta = PING_INTERVAL,
        pooler: bool = False,
    ) -> None:
        self.listening = asyncio.Event()
        self._dsn = dsn
        self._schema = schema
        self._on_notification = on_notification
        self._interval = interval
        self._pooler = pooler
        self._failures = 0

    async def run(self) -> None:
        """Listen until cancelled, and reconnect as often as needed; returns only if notifications do not arrive."""
        while True:
            try:
                async with await aconnect(self._dsn, "listen", pooler=self._pooler) as conn:
                    if not await self._open(conn):
                        logger.warning("notifications do not arrive here (a pooler in transaction mode?): polling only")
                        return
                    await self._receive(conn)
            except (PgflowError, psycopg.Error, OSError) as error:
                logger.warning("the listener lost its connection and will connect again: %s", str(error).strip())
            finally:
                self.listening.clear()
            await asyncio.sleep(self._pause())

    async def _open(self, conn: AsyncConnection) -> bool:
        """Listen, and return whether a notification that was sent for a test has arrived."""
        name = await arun(conn, worker.channel(self._schema))
        await conn.execute(sql.SQL("listen {}").format(sql.Identifier(name)))
        if self._pooler:  # a session receives its own notifications through any pooler: send from another one
            async with await aconnect(self._dsn, "listen", pooler=True) as other:
                await other.execute("select pg_notify(%s, %s)", [name, ECHO])
        else:
            await conn.execute("select pg_notify(%s, %s)", [name, ECHO])
        return bool([note async for note in conn.notifies(timeout=ECHO_SECONDS, stop_after=1)])

    async def _receive(self, conn: AsyncConnection) -> None:
        self._failures = 0
        self.listening.set()
        self._on_notification(SweepRequested())  # for the notifications that were missed
        while True:
            # psycopg would check ten times a second; the event loop waits until the socket is readable.
            if not await _readable(conn, self._interval.total_seconds()):
                await conn.execute("select 1")
            async for note in conn.notifies(timeout=0):
                if note.payload != ECHO:
                    self._on_notification(decode(note.payload))

    def _pause(self) -> float:
        """Return the seconds until the next attempt: exponential, with jitter, so that workers reconnect spread out."""
        self._failures += 1
        longest = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 16))
        return uniform(FIRST_PAUSE_SECONDS, longest)


async def _readable(conn: AsyncConnection, seconds: float) -> bool:
    """Wait until the connection has something to read; returns False after `seconds` without."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    descriptor = conn.fileno()
    loop.add_reader(descriptor, readable.set)
    try:
        async with asyncio.timeout(seconds):
            await readable.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True
