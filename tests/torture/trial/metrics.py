"""Sample the memory of the workers and the connections of the database once a second."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import psycopg

from pgflow.bench import machine
from pgflow.errors import PgflowError
from tests.torture.trial.journal import Journal
from tests.torture.trial.setup import Environment

__all__ = ["MetricsSampler"]

CONNECTIONS = """
    select count(*) from pg_stat_activity where datname = current_database() and application_name like 'pgflow:%'
"""


class MetricsSampler:
    """Writes a line each second, in its own thread."""

    def __init__(self, environment: Environment) -> None:
        self._arena = environment
        self._journal = Journal(environment.folder / "metrics.jsonl")
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop sampling."""
        self._is_closing.set()
        self._thread.join()
        self._journal.close()

    def _run(self) -> None:
        while not self._is_closing.wait(1.0):
            with suppress(psycopg.Error, PgflowError, OSError):
                with self._arena.admin() as conn:
                    ((connections,),) = conn.execute(CONNECTIONS).fetchall()
                pids = [slot.pid for slot in self._arena.fleet.slots]
                sizes = {pid: machine.resident_bytes(pid) for pid in pids if pid is not None}
                self._journal.write(at=time.time(), connections=connections, rss=sizes)
