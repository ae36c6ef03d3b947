"""Renew the worker's lease from a thread with its own connection, so that no step can starve it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg

from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.errors import PgflowError
from pgflow.logs import Logger
from pgflow.store import worker
from pgflow.worker import points
from pgflow.worker.lease.heartbeat_process import HeartbeatProcess, HeartbeatTarget

__all__ = ["Heartbeat"]

log = Logger("pgflow.worker")

BEATS_PER_LEASE = 4
SAFE_SHARE = 0.75  # of the lease, in which the last heartbeat has to be confirmed


class Heartbeat:
    """Sends four heartbeats in a lease. Calls `on_lost` once, in its thread, when the lease has expired.

    A lease has expired when the database reports it, and when no heartbeat was confirmed for its whole length: another
    worker may have rescued the jobs then. `process` sends heartbeats when the thread does not get to run.
    """

    def __init__(
        self,
        dsn: str,
        schema: str,
        lease: timedelta,
        on_lost: Callable[[], object],
        process: HeartbeatProcess | None = None,
        *,
        pooler: bool = False,
    ) -> None:
        self._dsn = dsn
        self._pooler = pooler
        self._schema = schema
        self._lease = lease
        self._on_lost = on_lost
        self._given_process = process
        self._process: HeartbeatProcess | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._confirmed = 0.0

    def start(self, worker_id: int, nonce: str, asked_at: float) -> None:
        """Send heartbeats for a worker that registered at `asked_at` (monotonic seconds, before the request)."""
        self.stop()
        given = self._given_process
        self._process = given if given is not None and given.is_ours else None
        self._confirm(asked_at)
        if self._process is not None:
            lease = self._lease.total_seconds()
            self._process.begin(HeartbeatTarget(self._dsn, self._pooler, self._schema, worker_id, nonce, lease))
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(worker_id, nonce, self._stop), name="pgflow-heartbeat", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait until the thread has ended."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)
        self._thread = None

    def lease_is_safe(self) -> bool:
        """Whether the lease has surely not expired: a heartbeat was confirmed within three quarters of it."""
        return self._silence() < SAFE_SHARE * self._lease.total_seconds()

    def _silence(self) -> float:
        """Return the seconds since the last confirmed heartbeat was sent."""
        confirmed = self._confirmed if self._process is None else max(self._confirmed, self._process.confirmed)
        return time.monotonic() - confirmed

    def _confirm(self, asked_at: float) -> None:
        self._confirmed = asked_at
        if self._process is not None:
            self._process.confirmed = asked_at

    def _run(self, worker_id: int, nonce: str, stop: threading.Event) -> None:
        try:
            self._beat(worker_id, nonce, stop)
        except Exception:
            if not stop.is_set():
                log.exception("worker %d: its heartbeat has stopped; its steps are given up", worker_id)
                self._on_lost()

    def _beat(self, worker_id: int, nonce: str, stop: threading.Event) -> None:
        interval = self._lease.total_seconds() / BEATS_PER_LEASE
        statement = worker.beat(self._schema, worker_id, nonce, self._lease)
        conn: psycopg.Connection[Any] | None = None
        pause = 0.0  # connect at once: later there may be no connection left
        try:
            while not stop.wait(pause):
                asked_at = time.monotonic()
                pause = interval
                try:
                    if conn is None:
                        conn = connect(self._dsn, role="heart", pooler=self._pooler)
                    points.reached("heart.beating")
                    is_alive = run(conn, statement)
                    points.reached("heart.beaten")
                    if stop.is_set():  # while it waited for the answer
                        return
                    if not is_alive:
                        log.warning("worker %d: the lease has expired; its steps are given up", worker_id)
                        self._on_lost()
                        return
                    self._confirm(asked_at)
                except (psycopg.Error, PgflowError, OSError) as error:
                    log.warning("worker %d: no heartbeat: %s", worker_id, error)
                    if conn is not None:
                        conn.close()
                        conn = None
                    pause = min(1.0, self._lease.total_seconds() / 10)  # soon again: the lease runs out
                    if self._silence() > self._lease.total_seconds() and not stop.is_set():
                        self._on_lost()
                        return
        finally:
            if conn is not None:
                conn.close()
