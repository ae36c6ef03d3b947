"""End a program together with the processes that it has started, and wait until the last of them is gone."""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from pgflow.errors import PgflowError

__all__ = ["kill"]

GRACE_SECONDS = 5.0  # for those who have to notice by themselves that their parent is gone
GONE_SECONDS = 10.0
PROC = Path("/proc")


def kill(pid: int) -> None:
    """Kill process `pid` with SIGKILL; its children have five seconds to end by themselves, then they are killed.

    Returns when none of them is left, which is when a server of the same data may start again. Only on Linux are the
    children known; elsewhere they are not waited for. Raises `PgflowError` when one does not end: it hangs in the
    kernel.

        kill(server.pid)
    """
    with ExitStack() as stack:
        # One that is stopped starts no more children, and reaps none, so their numbers mean nobody else.
        _stop(pid)
        children = {}
        for child in _children(pid):
            with suppress(ProcessLookupError):
                children[child] = os.pidfd_open(child)
                stack.callback(os.close, children[child])
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for left in _await(children, GRACE_SECONDS):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(children[left], signal.SIGKILL)
        if left_over := _await(children, GONE_SECONDS):
            raise PgflowError(f"process {min(left_over)}, a child of {pid}, does not end though it was killed")


def _stop(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        while _state(pid) in {"R", "S", "D"}:  # it may still be busy for a moment
            time.sleep(0.001)


def _await(children: dict[int, int], seconds: float) -> set[int]:
    """Wait until children, given with their file descriptors, have ended; return those that have not."""
    poll = select.poll()
    left = {fd: child for child, fd in children.items()}
    for fd in left:
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + seconds
    while left and (remaining := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(1000 * remaining):
            poll.unregister(fd)
            del left[fd]
    return set(left.values())


def _children(pid: int) -> Iterator[int]:
    for folder in PROC.glob("[0-9]*"):
        if _stat(folder)[1:2] == [str(pid)]:
            yield int(folder.name)


def _state(pid: int) -> str:
    """Return the letter for what a process is doing; none when that is not known."""
    return (_stat(PROC / str(pid)) or [""])[0]


def _stat(folder: Path) -> list[str]:
    """Return the words of a process's line after its name: its state, its parent's number, …"""
    try:
        return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
