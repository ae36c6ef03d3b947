"""Run two transactions in every order that their steps allow, each order on a real server.

The idea is that of PostgreSQL's own isolation tester: a step that blocks on a lock is seen to block
(`pg_blocking_pids`) and left pending while the other session goes on. A schedule is a tuple such as (0, 0, 1, 0, 1,
1), the session that moves next; it is printed with what it broke, so a race found once can be replayed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg

Step = Callable[[psycopg.Connection[Any]], object]

PATIENCE = 10.0  # seconds until a step that neither ends nor blocks is a fault of the test
GLANCE = 0.002


class Session:
    """One connection, whose steps run in a thread of their own, one after the other."""

    def __init__(self, dsn: str) -> None:
        self.conn = psycopg.connect(dsn, autocommit=True, options="-c deadlock_timeout=20ms -c lock_timeout=0")
        self.pid = self.conn.info.backend_pid
        self.error: BaseException | None = None
        self._thread = ThreadPoolExecutor(1)
        self._step: Future[None] | None = None

    def start(self, step: Step) -> None:
        self._step = self._thread.submit(self._run, step)

    def _run(self, step: Step) -> None:
        if self.error is None:
            try:
                step(self.conn)
            except Exception as error:  # what the database refuses is a result, for the spec to judge
                self.error = error
                self.conn.rollback()

    def is_idle(self) -> bool:
        return self._step is None or self._step.done()

    def close(self) -> None:
        self._thread.shutdown()
        self.conn.close()


class Explorer:
    """Runs schedules. Close it: it holds connections and threads."""

    def __init__(self, dsn: str, sessions: int = 2) -> None:
        self.sessions = [Session(dsn) for _ in range(sessions)]
        self._monitor = psycopg.connect(dsn, autocommit=True)

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        self._monitor.close()

    def run(self, programs: Sequence[Sequence[Step]], schedule: Sequence[int]) -> list[BaseException | None]:
        """Run one schedule to its end; returns each session's error, if it had one."""
        for session in self.sessions:
            session.error = None
        position = [0] * len(programs)
        todo = list(schedule)
        deadline = time.monotonic() + PATIENCE
        while todo:
            index = next((place for place, who in enumerate(todo) if self.sessions[who].is_idle()), None)
            if index is None:
                self._glance(deadline, "every session is blocked")
                continue
            who = todo.pop(index)
            self.sessions[who].start(programs[who][position[who]])
            position[who] += 1
            self._until_idle_or_blocked(self.sessions[who])
        while not all(session.is_idle() for session in self.sessions):
            self._glance(deadline, "a step never ended")
        return [session.error for session in self.sessions]

    def _until_idle_or_blocked(self, session: Session) -> None:
        deadline = time.monotonic() + PATIENCE
        while not session.is_idle():
            row = self._monitor.execute("select cardinality(pg_blocking_pids(%s))", [session.pid]).fetchone()
            if row is not None and row[0]:
                threading.Event().wait(0.05)  # let the deadlock detector, set to 20 ms, speak first
                return
            self._glance(deadline, "a step neither ended nor blocked")

    def _glance(self, deadline: float, complaint: str) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError(complaint)
        threading.Event().wait(GLANCE)


def schedules(lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Return every order in which sessions with that many steps can move."""

    def rest(left: list[int]) -> Iterator[tuple[int, ...]]:
        if not any(left):
            yield ()
        for who, count in enumerate(left):
            if count:
                left[who] -= 1
                for tail in rest(left):
                    yield (who, *tail)
                left[who] += 1

    return rest(list(lengths))
