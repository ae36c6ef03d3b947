"""Look once a second at what workers and the database use."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import psycopg

from pgflow.bench import machine
from pgflow.errors import PgflowError
from tests.torture.trial.journal import Journal
from tests.torture.trial.setup import Arena

__all__ = ["MetricsSampler"]

CONNECTIONS = """
    select count(*) from pg_stat_activity where datname = current_database() and application_name like 'pgflow:%'
"""


class MetricsSampler:
    """Writes a line a second, in a thread of its own."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._ink = Journal(arena.folder / "gauges.jsonl")
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._live, name="gauge", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._is_closing.set()
        self._thread.join()
        self._ink.close()

    def _live(self) -> None:
        while not self._is_closing.wait(1.0):
            with suppress(psycopg.Error, PgflowError, OSError):
                with self._arena.admin() as conn:
                    ((connections,),) = conn.execute(CONNECTIONS).fetchall()
                pids = [berth.pid for berth in self._arena.fleet.berths]
                sizes = {pid: machine.resident_bytes(pid) for pid in pids if pid is not None}
                self._ink.write(at=time.time(), connections=connections, rss=sizes)
