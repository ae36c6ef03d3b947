"""Let callers wait, in threads or on event loops of theirs, until something is so."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeAlias

__all__ = ["Look", "Watch"]

Look: TypeAlias = Callable[[], bool]


class Watch:
    """Who waits for what; to be called with the lock held under which it is looked."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Look, Future[None]]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def until(self, look: Look) -> Future[None]:
        """Return a future that is done once `look` is true; cancel it to wait no longer."""
        future: Future[None] = Future()
        self._waiting.append((look, future))
        self.look()
        return future

    def look(self) -> None:
        """Look again, and let those go on for whom it is so."""
        waiting, self._waiting = self._waiting, []
        for look, future in waiting:
            if not look():
                if not future.cancelled():
                    self._waiting.append((look, future))
            elif future.set_running_or_notify_cancel():
                future.set_result(None)
