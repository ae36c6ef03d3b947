"""Renew the worker's lease from a thread and a connection of its own, so that no step can keep it from beating."""

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
from pgflow.worker.heartbeat_process import HeartbeatProcess, HeartbeatTarget

__all__ = ["Heartbeat"]

log = Logger("pgflow.worker")


class Heartbeat:
    """Beats four times in a lease. `lost` is called once, from the heart's thread, when the lease has ended.

    A lease has ended when the database says so, or when no beat was confirmed for its whole length: then nobody can
    know, and another worker may have taken the tokens. `pulse` beats where the thread does not come to it.
    """

    def __init__(
        self,
        dsn: str,
        schema: str,
        lease: timedelta,
        lost: Callable[[], object],
        pulse: HeartbeatProcess | None = None,
        *,
        pooler: bool = False,
    ) -> None:
        self._dsn = dsn
        self._pooler = pooler
        self._schema = schema
        self._lease = lease
        self._lost = lost
        self._pulse = pulse if pulse is not None and pulse.is_ours else None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._confirmed = 0.0

    def start(self, worker_id: int, nonce: str, asked_at: float) -> None:
        """Begin to beat for a worker that registered at `asked_at` (monotonic seconds, before it asked)."""
        self.stop()
        self._confirm(asked_at)
        if self._pulse is not None:
            lease = self._lease.total_seconds()
            self._pulse.begin(HeartbeatTarget(self._dsn, self._pooler, self._schema, worker_id, nonce, lease))
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._beat, args=(worker_id, nonce, self._stop), name="pgflow-heart", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop beating and wait until the thread has ended."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)
        self._thread = None

    def lease_is_safe(self) -> bool:
        """Whether the lease surely still runs: a beat was confirmed within three quarters of it."""
        return self._silence() < 0.75 * self._lease.total_seconds()

    def _silence(self) -> float:
        """Seconds since the last beat was sent that was confirmed."""
        confirmed = self._confirmed if self._pulse is None else max(self._confirmed, self._pulse.confirmed)
        return time.monotonic() - confirmed

    def _confirm(self, asked_at: float) -> None:
        self._confirmed = asked_at
        if self._pulse is not None:
            self._pulse.confirmed = asked_at

    def _beat(self, worker_id: int, nonce: str, stop: threading.Event) -> None:
        try:
            self._beat_on(worker_id, nonce, stop)
        except Exception:
            if not stop.is_set():
                log.exception("worker %d: its heart has stopped; its steps are given up", worker_id)
                self._lost()

    def _beat_on(self, worker_id: int, nonce: str, stop: threading.Event) -> None:
        interval = self._lease.total_seconds() / 4
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
                    if stop.is_set():  # meanwhile; its worker is gone
                        return
                    if not is_alive:
                        log.warning("worker %d: the lease has ended; its steps are given up", worker_id)
                        self._lost()
                        return
                    self._confirm(asked_at)
                except (psycopg.Error, PgflowError, OSError) as error:
                    log.warning("worker %d: no heartbeat: %s", worker_id, error)
                    if conn is not None:
                        conn.close()
                        conn = None
                    pause = min(1.0, self._lease.total_seconds() / 10)  # soon again: the lease runs out
                    if self._silence() > self._lease.total_seconds() and not stop.is_set():
                        self._lost()
                        return
        finally:
            if conn is not None:
                conn.close()
