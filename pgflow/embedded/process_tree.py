"""Kill a program together with its child processes, and wait until all of them have ended."""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from pgflow.errors import PgflowError

__all__ = ["kill"]

GRACE_SECONDS = 5.0  # for children to notice that their parent has ended
KILLED_SECONDS = 10.0  # for a killed process to end
PROC = Path("/proc")


def kill(pid: int) -> None:
    """Kill process `pid` with SIGKILL; its children have five seconds to end, then they are killed, too.

    Returns when all have ended, so that a server can start on the same data. The children are known on Linux only;
    elsewhere they are not waited for. Raises `PgflowError` if one does not end because it hangs in the kernel.

        kill(server.pid)
    """
    with ExitStack() as stack:
        # A stopped process starts no more children and reaps none, so their process ids are not reused.
        _stop(pid)
        children = {}
        for child in _children(pid):
            with suppress(ProcessLookupError):
                children[child] = os.pidfd_open(child)
                stack.callback(os.close, children[child])
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for child in _await(children, GRACE_SECONDS):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(children[child], signal.SIGKILL)
        if remaining := _await(children, KILLED_SECONDS):
            raise PgflowError(f"process {min(remaining)}, a child of {pid}, was killed but does not end")


def _stop(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        while _state(pid) in {"R", "S", "D"}:  # it stops with a delay
            time.sleep(0.001)


def _await(children: dict[int, int], seconds: float) -> set[int]:
    """Wait until children, given by process id and pidfd, have ended; return those that have not."""
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
    """Return the letter for the state of a process, empty if it is unknown."""
    return (_stat(PROC / str(pid)) or [""])[0]


def _stat(folder: Path) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the name: state, parent's process id, …"""
    try:
        return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
