"""What continues at which time, jobs, tasks and scheduled signals, and the alarm on the loop for the next of them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import count
from typing import Generic, TypeAlias, TypeVar

from pgflow.core.engine.state import ACTIVE
from pgflow.core.models.instance import PendingSignal
from pgflow.local.clock import Clock
from pgflow.local.live import LiveInstance, LocalJob
from pgflow.local.local_task import LocalTask
from pgflow.local.lock import DeferringLock
from pgflow.local.loop import Loop

__all__ = ["Timers"]

Ring: TypeAlias = Callable[[], object]


K = TypeVar("K")
F = TypeVar("F")


class TimerQueue(Generic[K, F]):
    """Due times in order. An entry counts only while `find(run, key)` returns something that is due at that time."""

    def __init__(self, find: Callable[[int, K], F | None], due: Callable[[F], datetime | None]) -> None:
        self._find = find
        self._due = due
        self._heap: list[tuple[datetime, int, int, K]] = []  # due, a number for the order, run, key
        self._numbers = count()

    def add(self, run: int, key: K, due: datetime | None) -> None:
        """Add a due time."""
        if due is not None:
            heapq.heappush(self._heap, (due, next(self._numbers), run, key))

    def next(self) -> datetime | None:
        """Return the next due time."""
        found = self._first()
        return None if found is None else self._due(found)

    def pop(self, now: datetime) -> F | None:
        """Take the first one that is due at `now`."""
        found = self._first()
        if found is None or self._heap[0][0] > now:
            return None
        heapq.heappop(self._heap)
        return found

    def _first(self) -> F | None:
        while self._heap:
            due, _, run, key = self._heap[0]
            found = self._find(run, key)
            if found is not None and self._due(found) == due:
                return found
            heapq.heappop(self._heap)
        return None


class Timers:
    """Calls `ring()` on the loop, with the lock held, when something is due. All else is called with the lock held."""

    def __init__(
        self,
        loop: Loop,
        lock: DeferringLock,
        clock: Clock,
        live: Mapping[int, LiveInstance],
        tasks: Mapping[int, LocalTask],
        ring: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._lock = lock
        self._clock = clock
        self._live = live
        self._ring = ring
        self._jobs: TimerQueue[str, tuple[LiveInstance, LocalJob]] = TimerQueue(self._job, lambda found: found[1].due)
        self._signals: TimerQueue[int, tuple[LiveInstance, PendingSignal]] = TimerQueue(
            self._signal, lambda found: found[1].due
        )
        self._tasks: TimerQueue[None, LocalTask] = TimerQueue(lambda number, _: tasks.get(number), lambda job: job.due)
        self._deadlines: TimerQueue[None, LiveInstance] = TimerQueue(self._deadline, lambda live: live.deadline)
        self._alarm: asyncio.TimerHandle | None = None
        self._is_closed = False
        self.next_schedule: Callable[[], datetime | None] = lambda: None

    def add_job(self, live: LiveInstance, job: LocalJob) -> None:
        """Ring when a job is due, unless it has continued before."""
        self._jobs.add(live.run, job.step, job.due)
        self._loop.soon(self._set_alarm)

    def add_signal(self, live: LiveInstance, number: int) -> None:
        """Ring when a signal is due, unless it was unscheduled before."""
        self._signals.add(live.run, number, live.scheduled[number].due)
        self._loop.soon(self._set_alarm)

    def add_task(self, job: LocalTask) -> None:
        """Ring when a job of a task is due, unless it has run before."""
        self._tasks.add(job.id, None, job.due)
        self._loop.soon(self._set_alarm)

    def add_deadline(self, live: LiveInstance) -> None:
        """Ring at the deadline of an instance, if it has one, unless it has ended before."""
        if live.deadline is not None:
            self._deadlines.add(live.run, None, live.deadline)
            self._loop.soon(self._set_alarm)

    def changed(self) -> None:
        """Set the alarm again: a schedule may be due at another time."""
        self._loop.soon(self._set_alarm)

    def has_jobs(self) -> bool:
        """Whether a job will continue at some time."""
        return self._jobs.next() is not None or self._tasks.next() is not None

    def next(self) -> datetime | None:
        """Return the next due time."""
        moments = (
            self._jobs.next(),
            self._signals.next(),
            self._tasks.next(),
            self._deadlines.next(),
            self.next_schedule(),
        )
        return min((moment for moment in moments if moment is not None), default=None)

    def due_job(self) -> tuple[LiveInstance, LocalJob] | None:
        """Take the next job that is due."""
        return self._jobs.pop(self._clock.now())

    def due_signal(self) -> tuple[LiveInstance, PendingSignal] | None:
        """Take the next signal that is due."""
        return self._signals.pop(self._clock.now())

    def due_task(self) -> LocalTask | None:
        """Take the next job of a task that is due."""
        return self._tasks.pop(self._clock.now())

    def overdue(self) -> LiveInstance | None:
        """Take the next active instance whose deadline has passed."""
        return self._deadlines.pop(self._clock.now())

    def close(self) -> None:
        """Stop ringing."""
        self._is_closed = True

    def _job(self, run: int, step: str) -> tuple[LiveInstance, LocalJob] | None:
        live = self._live.get(run)
        job = None if live is None else live.jobs.get(step)
        return None if live is None or job is None else (live, job)

    def _deadline(self, run: int, key: None) -> LiveInstance | None:
        live = self._live.get(run)
        return None if live is None or live.state.status not in ACTIVE else live

    def _signal(self, run: int, number: int) -> tuple[LiveInstance, PendingSignal] | None:
        live = self._live.get(run)
        signal = None if live is None else live.scheduled.get(number)
        return None if live is None or signal is None else (live, signal)

    def _set_alarm(self) -> None:
        with self._lock:
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None
            if not self._is_closed and (due := self.next()) is not None:
                seconds = max(0.0, (due - self._clock.now()).total_seconds())
                self._alarm = self._loop.later(seconds, self._on_alarm)

    def _on_alarm(self) -> None:
        with self._lock:
            if not self._is_closed:
                self._ring()
        self._set_alarm()
