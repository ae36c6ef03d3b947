"""Remember when which token goes on by itself; one that went on otherwise is passed over."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import datetime
from itertools import count

from pgflow.local.run import Run, Token

__all__ = ["Timers"]


class Timers:
    """Moments in order. `find(run, step)` gives the token that is there now: a timer counts while its moment is due."""

    def __init__(self, find: Callable[[int, str], tuple[Run, Token] | None]) -> None:
        self._find = find
        self._heap: list[tuple[datetime, int, int, str]] = []  # due, a number for the order, run, step
        self._numbers = count()

    def add(self, run: Run, token: Token) -> None:
        """Remember when a token is due."""
        if token.due is not None:
            heapq.heappush(self._heap, (token.due, next(self._numbers), run.run, token.step))

    def next(self) -> datetime | None:
        """Return the next moment at which a token is due."""
        found = self._first()
        return None if found is None else found[1].due

    def pop(self, now: datetime) -> tuple[Run, Token] | None:
        """Take the first one that is due by now."""
        found = self._first()
        if found is None or self._heap[0][0] > now:
            return None
        heapq.heappop(self._heap)
        return found

    def _first(self) -> tuple[Run, Token] | None:
        while self._heap:
            due, _, run, step = self._heap[0]
            found = self._find(run, step)
            if found is not None and found[1].due == due:
                return found
            heapq.heappop(self._heap)
        return None
