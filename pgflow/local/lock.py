"""A lock under which notes are taken; whoever lets go of it does what they say, outside of it and in their order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TypeAlias

from pgflow.errors import NotBound
from pgflow.process import Process, current

__all__ = ["Lock", "Note", "check_ours"]

Note: TypeAlias = Callable[[], object]


class Lock:
    """One thread at a time holds it, and may take it again.

    Only one thread at a time does what the notes say, so that their order stays; a thread that lets go of the lock
    meanwhile leaves its notes to that one. Nobody waits for a note, and a note may take the lock. `later(what)` has the
    loop do what came in the meantime, so that no caller is kept; `at_rest` is called when nothing is left.

        with lock:
            ...
            lock.note(tell)    # called when the with ends
    """

    def __init__(self, later: Callable[[Note], None], at_rest: Note) -> None:
        self._process = current()
        self._lock = threading.RLock()
        self._depth = 0
        self._notes: deque[Note] = deque()
        self._teller: int | None = None
        self._later = later
        self._at_rest = at_rest

    def __enter__(self) -> None:
        check_ours(self._process)  # another thread may have held the lock when it forked, and no thread is here to work
        self._lock.acquire()
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        is_to_tell = bool(self._notes) and not self._depth
        self._lock.release()
        if is_to_tell:
            self.tell()

    @property
    def is_ours(self) -> bool:
        """Whether it was made in this process."""
        return self._process is current()

    @property
    def is_at_rest(self) -> bool:
        """Whether all notes are done with; to be asked with the lock held."""
        return not self._notes and self._teller is None

    @property
    def is_telling(self) -> bool:
        """Whether the caller is called by a note."""
        return self._teller == threading.get_ident()

    def note(self, what: Note) -> None:
        """Have it called once the lock is let go; to be called with the lock held. It raises nothing."""
        self._notes.append(what)

    def tell(self) -> None:
        """Do what the notes say, unless a thread is at it."""
        with self._lock:
            if self._teller is not None or not self._notes:
                return
            self._teller = threading.get_ident()
            count = len(self._notes)
        try:
            for _ in range(count):  # nobody else takes any out
                self._notes.popleft()()
        finally:  # a note may be interrupted by Ctrl+C: the others must still be called
            with self._lock:
                self._teller = None
                is_at_rest = not self._notes
            if is_at_rest:
                self._at_rest()
            else:
                self._later(self.tell)


def check_ours(owner: Process) -> None:
    """Raise `NotBound` in a forked child of `owner`: nothing runs in its copy, and what it changed would be lost."""
    if owner is not current():
        raise NotBound(
            f"this Local belongs to process {owner.pid}; this process, forked from it, has a copy that does not run",
            hint="Make a Local in the child, or a Pgflow with a database, which all processes share.",
        )
