"""Coalesce notifications: a queue is notified at once the first time, and together with those that soon follow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

__all__ = ["NotifyThrottle"]

QUIET_SECONDS = 0.01  # between two notifications of one queue


class NotifyThrottle:
    """Which queues to notify workers of now, and which together a moment later.

    throttle.due({"default"}, notify)    # {"default"}: notify now; later ones are passed to `notify` in a thread
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._woken: dict[str, float] = {}
        self._late: set[str] = set()
        self._timer: threading.Timer | None = None

    def due(self, queues: Iterable[str], wake: Callable[[set[str]], None]) -> set[str]:
        """Return the queues to notify now; `wake` is called with the others a moment later, in a thread."""
        now = time.monotonic()
        due: set[str] = set()
        with self._lock:
            for queue in queues:
                if now - self._woken.get(queue, 0.0) >= QUIET_SECONDS:
                    self._woken[queue] = now
                    due.add(queue)
                    continue
                if not self._late:
                    self._timer = threading.Timer(QUIET_SECONDS, self._wake_late, [wake])
                    self._timer.daemon = True
                    self._timer.start()
                self._late.add(queue)
        return due

    def join(self) -> None:
        """Wait until the last notification has been sent."""
        if self._timer is not None:
            self._timer.join()

    def _wake_late(self, wake: Callable[[set[str]], None]) -> None:
        with self._lock:
            queues, self._late = self._late, set()
            self._woken.update(dict.fromkeys(queues, time.monotonic()))
        wake(queues)
