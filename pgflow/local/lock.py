"""A re-entrant lock that runs deferred callbacks after its release, in their order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TypeAlias

from pgflow.errors import NotBound
from pgflow.process import Process, current

__all__ = ["Callback", "DeferringLock", "check_ours"]

Callback: TypeAlias = Callable[[], object]


class DeferringLock:
    """An RLock. The thread that releases it runs the deferred callbacks, without the lock.

    One thread at a time runs callbacks, which keeps their order; a thread that releases the lock while another runs
    them leaves its own to that one. No caller waits for a callback, and a callback may take the lock. `later(callback)`
    schedules the callbacks that were deferred while others ran, so that no caller is kept; `on_idle` is called when
    none is left.

        with lock:
            ...
            lock.defer(emit)    # called after the with block
    """

    def __init__(self, later: Callable[[Callback], None], on_idle: Callback) -> None:
        self._process = current()
        self._lock = threading.RLock()
        self._depth = 0
        self._deferred: deque[Callback] = deque()
        self._runner: int | None = None  # the thread that runs callbacks
        self._later = later
        self._on_idle = on_idle

    def __enter__(self) -> None:
        check_ours(self._process)  # after a fork the lock may be held by a thread that does not exist here
        self._lock.acquire()
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        has_deferred = bool(self._deferred) and not self._depth
        self._lock.release()
        if has_deferred:
            self.run_deferred()

    @property
    def is_ours(self) -> bool:
        """Whether it was made in this process."""
        return self._process is current()

    @property
    def is_idle(self) -> bool:
        """Whether all callbacks have run. Read with the lock held."""
        return not self._deferred and self._runner is None

    @property
    def is_in_callback(self) -> bool:
        """Whether the caller runs inside a callback."""
        return self._runner == threading.get_ident()

    def defer(self, callback: Callback) -> None:
        """Call it after the release. Called with the lock held; the callback must not raise."""
        self._deferred.append(callback)

    def run_deferred(self) -> None:
        """Run the deferred callbacks, unless another thread does."""
        with self._lock:
            if self._runner is not None or not self._deferred:
                return
            self._runner = threading.get_ident()
            count = len(self._deferred)
        try:
            for _ in range(count):  # only this thread removes any
                self._deferred.popleft()()
        finally:  # Ctrl+C may interrupt a callback: the others must still run
            with self._lock:
                self._runner = None
                is_idle = not self._deferred
            if is_idle:
                self._on_idle()
            else:
                self._later(self.run_deferred)


def check_ours(owner: Process) -> None:
    """Raise `NotBound` in a forked child of `owner`: no thread of the Local runs there, and changes would be lost."""
    if owner is not current():
        raise NotBound(
            f"this Local belongs to process {owner.pid}; this process, forked from it, has a copy that does not run",
            hint="Make a Local in the child, or a Pgflow with a database, which all processes share.",
        )
