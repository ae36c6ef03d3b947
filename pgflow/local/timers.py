"""Remember when which token or signal goes on by itself; one that went on otherwise is passed over."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import datetime
from itertools import count
from typing import Generic, Protocol, TypeVar

from pgflow.local.run import Run

__all__ = ["Timed", "Timers"]


class Timed(Protocol):
    """Something that is due at a moment, if at all."""

    @property
    def due(self) -> datetime | None: ...


K = TypeVar("K")
T = TypeVar("T", bound=Timed)


class Timers(Generic[K, T]):
    """Moments in order. `find(run, key)` gives what is there now: a timer counts while its moment is due."""

    def __init__(self, find: Callable[[int, K], tuple[Run, T] | None]) -> None:
        self._find = find
        self._heap: list[tuple[datetime, int, int, K]] = []  # due, a number for the order, run, key
        self._numbers = count()

    def add(self, run: Run, key: K, due: datetime | None) -> None:
        """Remember when something is due."""
        if due is not None:
            heapq.heappush(self._heap, (due, next(self._numbers), run.run, key))

    def next(self) -> datetime | None:
        """Return the next moment at which something is due."""
        found = self._first()
        return None if found is None else found[1].due

    def pop(self, now: datetime) -> tuple[Run, T] | None:
        """Take the first one that is due by now."""
        found = self._first()
        if found is None or self._heap[0][0] > now:
            return None
        heapq.heappop(self._heap)
        return found

    def _first(self) -> tuple[Run, T] | None:
        while self._heap:
            due, _, run, key = self._heap[0]
            found = self._find(run, key)
            if found is not None and found[1].due == due:
                return found
            heapq.heappop(self._heap)
        return None
