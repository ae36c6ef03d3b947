"""Run two transactions in every possible interleaving of their steps, each on a real server.

Like PostgreSQL's isolation tester: a step that blocks on a lock is detected (`pg_blocking_pids`) and stays pending
while the other session continues. A schedule is a tuple such as (0, 0, 1, 0, 1, 1) of the session that moves next; a
failure prints it, so that a race can be replayed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg

Step = Callable[[psycopg.Connection[Any]], object]

STEP_TIMEOUT = 10.0  # seconds for a step to end or block
POLL_INTERVAL = 0.002


class Session:
    """One connection, whose steps run in its own thread, one after the other."""

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
            except Exception as error:  # a database error is a result, which the test checks
                self.error = error
                self.conn.rollback()

    def is_idle(self) -> bool:
        return self._step is None or self._step.done()

    def close(self) -> None:
        self._thread.shutdown()
        self.conn.close()


class Explorer:
    """Runs schedules. Must be closed: it owns connections and threads."""

    def __init__(self, dsn: str, sessions: int = 2) -> None:
        self.sessions = [Session(dsn) for _ in range(sessions)]
        self._monitor = psycopg.connect(dsn, autocommit=True)

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        self._monitor.close()

    def run(self, programs: Sequence[Sequence[Step]], schedule: Sequence[int]) -> list[BaseException | None]:
        """Run one schedule to its end; returns each session's error, or None."""
        for session in self.sessions:
            session.error = None
        position = [0] * len(programs)
        todo = list(schedule)
        deadline = time.monotonic() + STEP_TIMEOUT
        while todo:
            index = next((place for place, who in enumerate(todo) if self.sessions[who].is_idle()), None)
            if index is None:
                self._poll(deadline, "every session is blocked")
                continue
            who = todo.pop(index)
            self.sessions[who].start(programs[who][position[who]])
            position[who] += 1
            self._until_idle_or_blocked(self.sessions[who])
        while not all(session.is_idle() for session in self.sessions):
            self._poll(deadline, "a step never ended")
        return [session.error for session in self.sessions]

    def _until_idle_or_blocked(self, session: Session) -> None:
        deadline = time.monotonic() + STEP_TIMEOUT
        while not session.is_idle():
            row = self._monitor.execute("select cardinality(pg_blocking_pids(%s))", [session.pid]).fetchone()
            if row is not None and row[0]:
                threading.Event().wait(0.05)  # first give the deadlock detector, set to 20 ms, its turn
                return
            self._poll(deadline, "a step neither ended nor blocked")

    def _poll(self, deadline: float, problem: str) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError(problem)
        threading.Event().wait(POLL_INTERVAL)


def schedules(lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Return every interleaving of sessions with these numbers of steps."""

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
