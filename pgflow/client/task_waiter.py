"""Wait for the end of tasks: one thread per app and process, whatever number of callers wait for whatever tasks.

While a caller waits, the thread keeps one connection, which listens for the ids of ended tasks. It asks the database
which of them have ended when it is notified, when a caller joins, and once a second, because a notification may be
lost. Behind a pooler nothing is notified, so it asks more often, less and less so the longer nothing ends.
"""

from __future__ import annotations

import os
import secrets
import select
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress

import psycopg
from psycopg import sql

from pgflow.core.models.task import TaskInstance
from pgflow.database.connect import Connection, connect
from pgflow.database.db_errors import is_transient
from pgflow.database.statement import run
from pgflow.errors import PgflowError, Unreachable
from pgflow.process import Lock
from pgflow.store import task

__all__ = ["TaskWaiter"]

POLL_SECONDS = 1.0  # with notifications, which may be lost
FIRST_POLL_SECONDS, MAX_POLL_SECONDS = 0.02, 0.5  # without
REGISTERED_SECONDS = 10.0  # for which workers notify after each look
IDLE_SECONDS = 5.0  # after which the thread ends without a caller that waits
CLOSE_SECONDS = 5.0  # for the thread to end when the app is closed; it may be waiting for the database
RECONNECT_SECONDS = 0.5

Waiting = Future[TaskInstance | None]


class TaskWaiter:
    """Resolves futures when tasks end, with the task as it is then, or None for one that does not exist.

    future = waiter.wait_for(17)
    future.result(timeout=10)
    """

    def __init__(self, dsn: str, schema: str, *, pooler: bool) -> None:
        self._dsn = dsn
        self._schema = schema
        self._listens = not pooler
        self._name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._lock = Lock()
        self._waiting: dict[int, list[Waiting]] = {}
        self._thread: threading.Thread | None = None
        self._wakeup, self._waker = os.pipe()
        os.set_blocking(self._waker, False)

    def __del__(self) -> None:
        for each in (self._wakeup, self._waker):
            with suppress(OSError):
                os.close(each)

    def wait_for(self, job: int) -> Waiting:
        """Return a future for the end of a task; cancel it to stop waiting."""
        future: Waiting = Future()
        with self._lock:
            self._waiting.setdefault(job, []).append(future)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pgflow-await", daemon=True)
                self._thread.start()
        self._wake()
        return future

    def close(self) -> None:
        """Stop waiting: every future is cancelled, and the thread ends. A later `wait_for` starts another one."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            thread, self._thread = self._thread, None
        for each in waiting.values():
            for future in each:
                future.cancel()
        self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS)

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # it is awake
            os.write(self._waker, b"\0")

    def _run(self) -> None:
        conn: Connection | None = None
        pause = FIRST_POLL_SECONDS
        idle_since = time.monotonic()
        while not self._ends(idle_since):
            try:
                if conn is None or conn.closed:
                    conn = self._connect()
                ids = self._ids()
                if ids:
                    idle_since = time.monotonic()
                    has_ended = self._look(conn, ids)
                    pause = FIRST_POLL_SECONDS if has_ended else min(MAX_POLL_SECONDS, 2 * pause)
                self._rest(conn, POLL_SECONDS if self._listens or not ids else pause)
            except (psycopg.Error, PgflowError, OSError) as error:
                if not (is_transient(error) or isinstance(error, Unreachable | OSError)):
                    self._fail(error)
                if conn is not None:
                    conn.close()
                time.sleep(RECONNECT_SECONDS)
        if conn is not None:
            conn.close()

    def _connect(self) -> Connection:
        conn = connect(self._dsn, "listen" if self._listens else "client", pooler=not self._listens)
        if self._listens:
            channel = run(conn, task.channel(self._schema))
            conn.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        return conn

    def _ids(self) -> list[int]:
        """Return the tasks that callers wait for."""
        with self._lock:
            for job, futures in list(self._waiting.items()):
                kept = [each for each in futures if not each.cancelled()]
                if kept:
                    self._waiting[job] = kept
                else:
                    del self._waiting[job]
            return list(self._waiting)

    def _look(self, conn: Connection, ids: list[int]) -> bool:
        """Resolve the futures of the tasks that have ended; returns whether there were any."""
        ended = run(conn, task.poll_ended(self._schema, self._name, ids, REGISTERED_SECONDS))
        if ended:
            found = {each.id: each for each in run(conn, task.get(self._schema, ended))}
            # One that was retried since has not ended.
            live = {each.id for each in found.values() if each.finished_at is None}
            self._resolve([job for job in ended if job not in live], found)
        return bool(ended)

    def _resolve(self, jobs: Iterable[int], found: Mapping[int, TaskInstance]) -> None:
        with self._lock:
            done = [(job, self._waiting.pop(job, [])) for job in jobs]
        for job, futures in done:
            for each in futures:
                if each.set_running_or_notify_cancel():
                    each.set_result(found.get(job))

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            for each in futures:
                if each.set_running_or_notify_cancel():
                    each.set_exception(error)

    def _ends(self, idle_since: float) -> bool:
        """Whether this thread ends now: it was closed, or no caller has waited for a while."""
        with self._lock:
            if self._thread is not threading.current_thread():
                return True
            if self._waiting or time.monotonic() - idle_since < IDLE_SECONDS:
                return False
            self._thread = None
            return True

    def _rest(self, conn: Connection, seconds: float) -> None:
        """Wait for a notification of a task that is waited for, for another caller, or for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([conn.fileno(), self._wakeup], [], [], left)
            if self._wakeup in readable:
                os.read(self._wakeup, 4096)
                return
            if not readable:
                return
            noted = {each for note in conn.notifies(timeout=0) for each in note.payload.split(",")}
            with self._lock:
                if any(str(job) in noted for job in self._waiting):
                    return
