"""Coalesce notifications: one is sent at once the first time, and repeats that soon follow are sent together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from pgflow.store.notification import Notification

__all__ = ["NotifyThrottle"]

QUIET_SECONDS = 0.01  # between two equal notifications
LINGER_SECONDS = 0.1  # after the last late notification the thread ends


class NotifyThrottle:
    """Decides which notifications a call sends itself; the others are sent together a moment later, by `notify`.

    A call asks before its commit which ones to send right after it, and reports when that is done: one that precedes
    the commit wakes a worker for nothing. `notify` is called in a thread, which runs only while calls follow one
    another closely.

        due = throttle.due(write.notifications)
        ...                                               # commit, and send those that are due
        throttle.sent(due, write.notifications - due)
    """

    def __init__(self, notify: Callable[[set[Notification]], None]) -> None:
        self._notify = notify
        self._lock = threading.Lock()
        self._sent_at: dict[Notification, float] = {}
        self._late: dict[Notification, float] = {}  # and since when
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def due(self, notifications: Collection[Notification]) -> set[Notification]:
        """Return those that the caller is to send."""
        now = time.monotonic()
        with self._lock:
            due = {each for each in notifications if now - self._sent_at.get(each, 0.0) >= QUIET_SECONDS}
            for each in due:
                self._sent_at[each] = now
        return due

    def sent(self, due: Collection[Notification], late: Collection[Notification]) -> None:
        """Report that a call has sent those `due`; `late` are sent within a moment, unless a call does so before."""
        now = time.monotonic()
        with self._lock:
            for each in due:  # a worker that wakes now finds what earlier calls have committed, too
                if self._late.get(each, now) < self._sent_at[each]:
                    del self._late[each]
            for each in late:
                self._late.setdefault(each, now)
            if self._late and self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(target=self._run, args=[self._stop], name="pgflow-notify", daemon=True)
                self._thread.start()

    def join(self) -> None:
        """Send the late ones now, and wait until they are sent."""
        with self._lock:
            thread, stop = self._thread, self._stop
        if thread is not None:
            stop.set()
            thread.join()

    def _run(self, stop: threading.Event) -> None:
        busy_at = time.monotonic()
        while True:
            is_ending = stop.wait(QUIET_SECONDS / 2)
            now = time.monotonic()
            with self._lock:
                ripe = {each for each, since in self._late.items() if is_ending or now - since >= QUIET_SECONDS}
                for each in ripe:
                    del self._late[each]
                    self._sent_at[each] = now
                if ripe or self._late:
                    busy_at = now
            if ripe:
                self._notify(ripe)
            with self._lock:
                if not self._late and (is_ending or now - busy_at >= LINGER_SECONDS):
                    self._thread = None
                    return
