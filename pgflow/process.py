"""Give each process its own values, so that a forked child neither uses nor disturbs those of its parent.

A fork copies memory and file descriptors but only the thread that forks. So a child inherits sockets that its parent
still uses, locks that other threads held, and objects whose threads do not exist in it. A value that must not be shared
is kept in a `PerProcess`, which makes a new one in each process. `os.register_at_fork` reports a fork; the process id
is compared as well, because programs that embed Python (uWSGI, for one) may fork without running those hooks.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, NoReturn, ParamSpec, TypeVar

__all__ = [
    "Lock",
    "PerProcess",
    "Process",
    "acall_in_parent",
    "after_fork",
    "call_in_parent",
    "current",
    "exit_if_forked",
]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """This process. Compared by identity, because the kernel reuses process ids."""

    pid: int


class PerProcess(Generic[T]):
    """A value per process, made by `make` at its first use there.

    The values of parent processes stay referenced and are never used: to close or to collect them could end sessions
    and wait for threads of those processes.

        pool = PerProcess(Connections)
        pool.get()
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[Process, T] = {}

    def get(self) -> T:
        """Return this process's value. Concurrent threads get the same one."""
        process = current()
        value = self._values.get(process)
        return self._values.setdefault(process, self._make()) if value is None else value

    def peek(self) -> T | None:
        """Return this process's value, None when it has not been made yet."""
        return self._values.get(current())


class Lock:
    """A mutex that is free in a forked child, even if another thread of the parent held it when it forked."""

    def __init__(self) -> None:
        self._locks = PerProcess(threading.RLock)

    def __enter__(self) -> None:
        self._locks.get().acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._locks.get().release()


def current() -> Process:
    """Return the current process."""
    if _this.pid != os.getpid():
        _enter_child()
    return _this


def after_fork(do: Callable[[], object]) -> None:
    """Call `do` in each forked child, in the thread that forked, before it uses anything else of pgflow."""
    _in_child.append(do)


def call_in_parent(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call user code, and return in the parent only: a child that the code forks, and that returns from it, ends here.

    Otherwise the child would continue as a second copy of the caller, for example as a worker with the same identity.
    """
    here = os.getpid()
    try:
        result = call(*args, **kwargs)
    except BaseException as error:
        if os.getpid() != here:
            _leave(error)
        raise
    if os.getpid() != here:
        _leave(None)
    return result


async def acall_in_parent(call: Awaitable[T]) -> T:
    """`call_in_parent`, for a coroutine."""
    here = os.getpid()
    try:
        result = await call
    except BaseException as error:
        if os.getpid() != here:
            _leave(error)
        raise
    if os.getpid() != here:
        _leave(None)
    return result


def exit_if_forked(owner: Process, error: BaseException | None = None) -> None:
    """End this process if it is a forked child of `owner`, with the exit code that `error` would give it."""
    if owner.pid != os.getpid():
        _leave(error)


def _enter_child() -> None:
    global _this
    _this = Process(os.getpid())
    for do in _in_child:
        do()


def _leave(error: BaseException | None) -> NoReturn:
    """End as `multiprocessing` ends a child: with the code of sys.exit(), without the parent's exit handlers."""
    code = 0
    try:
        match error:
            case None | SystemExit(code=None):
                pass
            case SystemExit(code=int(number)):
                code = number
            case SystemExit():
                code = 1
                print(error.code, file=sys.stderr)
            case _:
                code = 1
                traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)


_this = Process(os.getpid())
_in_child: list[Callable[[], object]] = []
os.register_at_fork(after_in_child=_enter_child)
