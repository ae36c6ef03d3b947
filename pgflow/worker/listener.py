"""Hear at once that a queue has work: LISTEN on a connection of its own, which is mended when it breaks.

An accelerator and nothing else. A notification may be lost, forged or late, so polling always runs underneath, and what
a payload says is only taken as a hint where to look.
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

__all__ = ["Listener"]

logger = Logger("pgflow.listen")

ALIVE_INTERVAL = timedelta(seconds=30)  # a silent connection is asked this often whether it still is one
ECHO = "?"  # sent to find out whether anything is heard; no queue's name
ECHO_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0


class Listener:
    """Calls `wake(payload)` with each notification, and `wake(None)` after each (re)connection: anything may have come.

    A payload is the name of a queue that may have work, or empty (see `store.worker.wake`). `wake` is called in the
    event loop and must not block. `listening` is set while notifications come in. A pooler in transaction mode takes
    LISTEN and delivers nothing, which `run` finds out, logs and ends at; one in session mode delivers.

        listener = Listener(dsn, "pgflow", wake=claimer.wake)
        task = asyncio.create_task(listener.run())
    """

    def __init__(
        self,
        dsn: str,
        schema: str,
        wake: Callable[[str | None], None],
        *,
        interval: timedelta = ALIVE_INTERVAL,
        pooler: bool = False,
    ) -> None:
        self.listening = asyncio.Event()
        self._dsn = dsn
        self._schema = schema
        self._wake = wake
        self._interval = interval
        self._pooler = pooler
        self._failures = 0

    async def run(self) -> None:
        """Listen until cancelled, connecting again as often as needed; returns only when nothing can be heard here."""
        while True:
            try:
                async with await aconnect(self._dsn, "listen", pooler=self._pooler) as conn:
                    if not await self._open(conn):
                        logger.warning("notifications do not arrive here (a pooler in transaction mode?): polling only")
                        return
                    await self._hear(conn)
            except (PgflowError, psycopg.Error, OSError) as error:
                logger.warning("the listener lost its connection and will connect again: %s", str(error).strip())
            finally:
                self.listening.clear()
            await asyncio.sleep(self._pause())

    async def _open(self, conn: AsyncConnection) -> bool:
        """Listen, and make sure that what is sent comes back."""
        name = await arun(conn, worker.channel(self._schema))
        await conn.execute(sql.SQL("listen {}").format(sql.Identifier(name)))
        if self._pooler:  # what one tells oneself comes back through any
            async with await aconnect(self._dsn, "listen", pooler=True) as other:
                await other.execute("select pg_notify(%s, %s)", [name, ECHO])
        else:
            await conn.execute("select pg_notify(%s, %s)", [name, ECHO])
        return bool([note async for note in conn.notifies(timeout=ECHO_SECONDS, stop_after=1)])

    async def _hear(self, conn: AsyncConnection) -> None:
        self._failures = 0
        self.listening.set()
        self._wake(None)  # what came while nobody listened
        while True:
            # psycopg would look ten times a second; the event loop is told when something has come.
            if not await _readable(conn, self._interval.total_seconds()):
                await conn.execute("select 1")
            async for note in conn.notifies(timeout=0):
                if note.payload != ECHO:
                    self._wake(note.payload)

    def _pause(self) -> float:
        """Seconds until the next attempt: exponential, and spread, lest all workers meet a restarted server at once."""
        self._failures += 1
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 16))
        return uniform(FIRST_PAUSE_SECONDS, longest)


async def _readable(conn: AsyncConnection, seconds: float) -> bool:
    """Wait until the connection has something to read; returns False when nothing came for so long."""
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    descriptor = conn.fileno()
    loop.add_reader(descriptor, came.set)
    try:
        async with asyncio.timeout(seconds):
            await came.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True
