"""Renew a worker's lease from a second process while a step holds Python's global lock.

A thread cannot send heartbeats while native code (a regular expression, a sum of a billion numbers) holds that lock. A
process can, and it can also see that its parent is *stopped* (SIGSTOP): then the lease must expire. It is forked before
the app is loaded, so it shares the interpreter's memory and has none of the app's threads.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import signal
import struct
import sys
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import psycopg

from pgflow import process
from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.errors import PgflowError
from pgflow.logs import Logger
from pgflow.store import worker

__all__ = ["HeartbeatProcess", "HeartbeatTarget"]

log = Logger("pgflow.worker")

MOMENT = struct.Struct("d")
CHECKS_PER_LEASE = 8
STOPPED = frozenset("TtZX")  # states of a process in /proc: stopped, traced, ended
MAX_MESSAGE = 65_536
END = b"end"


@dataclass(frozen=True, slots=True)
class HeartbeatTarget:
    """The worker to send heartbeats for, as it is registered; `lease` is in seconds."""

    dsn: str
    pooler: bool
    schema: str
    worker: int
    nonce: str
    lease: float


class HeartbeatProcess:
    """The process, as its parent sees it.

    process = HeartbeatProcess.fork()    # None without /proc, which shows whether the parent is stopped
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, MOMENT.size)
        self._reader, self._writer = os.pipe()
        self._parent = os.getpid()
        self._owner = process.current()
        self._pid = 0

    @classmethod
    def fork(cls) -> HeartbeatProcess | None:
        """Fork it. Call this early: before there are other threads, and before the app is loaded."""
        if not Path("/proc/self/stat").exists():
            return None
        child = cls()
        sys.stdout.flush()
        sys.stderr.flush()
        child._pid = os.fork()
        if child._pid == 0:
            child._live()
        os.close(child._reader)
        return child

    @property
    def confirmed(self) -> float:
        """When the last confirmed heartbeat was sent, by either process; in monotonic seconds, which both share."""
        moment: float = MOMENT.unpack_from(self._shared)[0]
        return moment

    @confirmed.setter
    def confirmed(self, moment: float) -> None:
        MOMENT.pack_into(self._shared, 0, moment)

    @property
    def is_ours(self) -> bool:
        """Whether it watches this process, and not the parent of this one: it must not renew a dead worker's lease."""
        return self._owner is process.current()

    def begin(self, target: HeartbeatTarget) -> None:
        """Send heartbeats for this worker from now on, instead of another."""
        with contextlib.suppress(OSError):  # it was killed: the thread goes on
            os.write(self._writer, json.dumps(asdict(target)).encode() + b"\n")

    def end(self) -> None:
        """End the process, and wait until it has ended."""
        if not self.is_ours:
            return
        with contextlib.suppress(OSError):  # it was killed
            os.write(self._writer, END + b"\n")  # closing is not enough: a forked child may hold a copy of the pipe
        os.close(self._writer)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    # -- in the process

    def _live(self) -> NoReturn:
        """Watch the parent until it has ended."""
        try:
            os.close(self._writer)
            # Ctrl-C, or a service manager that signals all processes of a service: the parent decides.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            self._watch()
        finally:
            os._exit(0)

    def _watch(self) -> None:
        sender: HeartbeatSender | None = None
        pause, buffered = 1.0, b""
        while os.getppid() == self._parent:
            if select.select([self._reader], [], [], pause)[0]:
                received = os.read(self._reader, MAX_MESSAGE)
                if not received:
                    return
                *lines, buffered = (buffered + received).split(b"\n")
                if END in lines:
                    return
                if lines:
                    sender = HeartbeatSender(HeartbeatTarget(**json.loads(lines[-1])))
                    pause = sender.target.lease / CHECKS_PER_LEASE
            elif sender is not None and time.monotonic() - self.confirmed > sender.target.lease / 2:
                asked_at = time.monotonic()
                if _is_running(self._parent) and sender.beat():
                    self.confirmed = asked_at


class HeartbeatSender:
    """Sends heartbeats; it connects with the first one."""

    def __init__(self, target: HeartbeatTarget) -> None:
        self.target = target
        self._conn: psycopg.Connection[Any] | None = None
        self._statement = worker.beat(target.schema, target.worker, target.nonce, timedelta(seconds=target.lease))

    def beat(self) -> bool:
        """Renew the lease; returns whether the database has confirmed that."""
        try:
            if self._conn is None:
                self._conn = connect(self.target.dsn, role="heart", pooler=self.target.pooler)
            return run(self._conn, self._statement)
        except (psycopg.Error, PgflowError, OSError) as error:
            log.warning("worker %d: no heartbeat from its second process: %s", self.target.worker, error)
            if self._conn is not None:
                self._conn.close()
                self._conn = None
            return False


def _is_running(pid: int) -> bool:
    """Whether a process exists and is not stopped."""
    try:
        # The process name may contain anything, also ")"; the fields after the last one cannot.
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in STOPPED
