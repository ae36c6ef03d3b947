"""Callers, in threads or on event loops of their own, that wait until a condition holds."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeAlias

__all__ = ["Condition", "Waiters"]

Condition: TypeAlias = Callable[[], bool]


class Waiters:
    """Conditions and the futures of the callers that wait for them. All methods are called with the lock held."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Condition, Future[None]]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def until(self, condition: Condition) -> Future[None]:
        """Return a future that is done once `condition` holds; cancel it to stop waiting."""
        future: Future[None] = Future()
        self._waiting.append((condition, future))
        self.check()
        return future

    def check(self) -> None:
        """Evaluate all conditions, and complete the futures of those that hold."""
        waiting, self._waiting = self._waiting, []
        for condition, future in waiting:
            if not condition():
                if not future.cancelled():
                    self._waiting.append((condition, future))
            elif future.set_running_or_notify_cancel():
                future.set_result(None)
