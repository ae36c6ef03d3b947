"""Coalesce notifications: one is sent at once the first time, and repeats that soon follow are sent together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from pgflow.store.notification import Notification

__all__ = ["NotifyThrottle"]

QUIET_SECONDS = 0.01  # between two equal notifications


class NotifyThrottle:
    """Decides which notifications to send now, and which together a moment later.

    throttle.due({QueueReady("mail")}, notify)    # those to send now; `notify` gets the others, in a thread
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent_at: dict[Notification, float] = {}
        self._late: set[Notification] = set()
        self._timers: set[threading.Timer] = set()  # those that have not sent theirs yet

    def due(
        self, notifications: Iterable[Notification], notify: Callable[[set[Notification]], None]
    ) -> set[Notification]:
        """Return what to send now; `notify` is called with the rest a moment later, in a thread."""
        now = time.monotonic()
        due: set[Notification] = set()
        with self._lock:
            for each in notifications:
                if now - self._sent_at.get(each, 0.0) >= QUIET_SECONDS:
                    self._sent_at[each] = now
                    due.add(each)
                    continue
                if not self._late:
                    self._start_timer(notify)
                self._late.add(each)
        return due

    def join(self) -> None:
        """Wait until the last notification has been sent."""
        with self._lock:
            timers = set(self._timers)
        for each in timers:
            each.join()

    def _start_timer(self, notify: Callable[[set[Notification]], None]) -> None:
        timer = threading.Timer(QUIET_SECONDS, lambda: self._send_late(timer, notify))
        timer.daemon = True
        self._timers.add(timer)
        timer.start()

    def _send_late(self, timer: threading.Timer, notify: Callable[[set[Notification]], None]) -> None:
        with self._lock:
            late, self._late = self._late, set()
            self._sent_at.update(dict.fromkeys(late, time.monotonic()))
        try:
            notify(late)
        finally:
            with self._lock:
                self._timers.discard(timer)
