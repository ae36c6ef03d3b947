"""A client that keeps writing numbers into a table, and remembers which commits were confirmed."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psycopg

from tests.worker.waiting import until

__all__ = ["QUICK", "Writer"]

# Only a crash of the machine would make a difference, and no test does that.
QUICK = {"fsync": "off"}
MAKE = "create table if not exists written (number integer primary key)"


class Writer:
    """Writes inside a `with` block; `accepted` are the numbers whose commit was confirmed."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.accepted: set[int] = set()
        self.doubtful: set[int] = set()
        self._next = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write, name="writer")
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(MAKE)
            conn.execute("truncate written")

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for_writes()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def wait_for_writes(self, count: int = 20) -> None:
        """Wait until so many more writes were confirmed."""
        wanted = len(self.accepted) + count
        until(lambda: len(self.accepted) >= wanted, "more accepted writes")

    def lost(self) -> set[int]:
        """Return the confirmed numbers that are missing; no number may exist that was never written."""
        with psycopg.connect(self._dsn) as conn:
            there = {row[0] for row in conn.execute("select number from written").fetchall()}
        assert there <= self.accepted | self.doubtful
        return self.accepted - there

    def _write(self) -> None:
        while not self._ended.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True) as conn:
                    while not self._ended.is_set():
                        self._next += 1
                        self.doubtful.add(self._next)
                        conn.execute("insert into written values (%s)", [self._next])
                        self.accepted.add(self._next)
            except psycopg.Error:
                self._ended.wait(0.01)
