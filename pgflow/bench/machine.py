"""Describe this machine, and read from /proc how much of it the server and other processes use."""

import os
import platform
import resource
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from psycopg import ConnectionInfo

__all__ = [
    "LocalServer",
    "OtherLoad",
    "children",
    "children_seconds",
    "describe",
    "local_server",
    "own_bytes",
    "resident_bytes",
    "seconds_of",
]

PROC = Path("/proc")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Fields of /proc/<pid>/stat after the name in parentheses, counted from there.
PARENT, OWN, REAPED = 1, slice(11, 13), slice(13, 15)
# Fields of the first line of /proc/stat after its name: user, nice, system; irq, softirq, steal.
BUSY = (slice(0, 3), slice(5, 8))


def describe() -> dict[str, Any]:
    """Return the machine and the versions on it, as plain data."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("pgflow-engine", "psycopg", "pydantic")},
    }


def children_seconds() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds_of(pid: int) -> float:
    """Return the CPU seconds that a process has used, 0 without /proc."""
    stat = _stat(pid)
    return _seconds(stat[OWN]) if stat else 0.0


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory, 0 without /proc."""
    with suppress(OSError, ValueError, IndexError):
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def own_bytes(pid: int) -> int:
    """Return a process's private anonymous memory (RssAnon), 0 without /proc."""
    with suppress(OSError, ValueError):
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def children(pid: int) -> list[int]:
    """Return the process ids of a process's live children; none without /proc."""
    with suppress(OSError):
        numbers = sorted(int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
        return [each for each in numbers if (stat := _stat(each)) and stat[PARENT] == str(pid)]
    return []


class LocalServer:
    """A PostgreSQL server among the processes of this machine."""

    def __init__(self, postmaster: int) -> None:
        self.postmaster = postmaster

    def seconds(self) -> float:
        """Return the CPU seconds of the whole server so far, including ended sessions and background processes."""
        total = 0.0
        for entry in PROC.iterdir():
            if not entry.name.isdigit() or not (stat := _stat(int(entry.name))):
                continue
            if int(entry.name) == self.postmaster:
                total += _seconds([*stat[OWN], *stat[REAPED]])
            elif stat[PARENT] == str(self.postmaster):
                total += _seconds(stat[OWN])
        return total


class OtherLoad:
    """The share of this machine that other processes have used since the object was created.

    Our own load is this process, its children that have ended, and the server, if it runs here.
    """

    def __init__(self, server: LocalServer | None = None) -> None:
        self._server = server
        self._began = time.monotonic()
        self._before = self._foreign()

    def share(self) -> float:
        """Return the share of all processors that other processes used, between 0 and 1; 0 without /proc."""
        passed = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        return min(1.0, max(0.0, (self._foreign() - self._before) / passed)) if passed else 0.0

    def _foreign(self) -> float:
        own = resource.getrusage(resource.RUSAGE_SELF)
        ours = own.ru_utime + own.ru_stime + children_seconds()
        return _busy_seconds() - ours - (self._server.seconds() if self._server is not None else 0.0)


def local_server(info: ConnectionInfo, backend: int) -> LocalServer | None:
    """Return the server behind a connection if its processes are visible here, else None.

    `backend` is the process id of the session: its parent is the postmaster.
    """
    is_near = not info.host or info.host.startswith("/") or info.host in LOOPBACK
    stat = _stat(backend) if is_near else []
    # In a container the same number may be another process.
    if not stat or _name(backend) != "postgres" or _name(int(stat[PARENT])) != "postgres":
        return None
    return LocalServer(int(stat[PARENT]))


def _stat(pid: int) -> list[str]:
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:  # the process is gone, or there is no /proc
        return []


def _busy_seconds() -> float:
    try:
        numbers = (PROC / "stat").read_text().partition("\n")[0].split()[1:]
    except OSError:
        return 0.0
    return sum(_seconds(numbers[part]) for part in BUSY)


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def _seconds(ticks: list[str]) -> float:
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _processor() -> str:
    with suppress(OSError):
        for line in (PROC / "cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"
