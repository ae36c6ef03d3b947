"""Keep a worker's lease while a step keeps Python's global lock: a process beside it that beats when it cannot.

A thread cannot beat while native code (a regular expression, a sum of a billion numbers) holds the lock of all
threads. A process can, and it can also tell that its parent is *stopped*, which is no reason to go on: then the lease
is to end. It is forked before the app is loaded: it shares the interpreter's memory, and none of the app's threads.
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
GLANCES = 8  # looks in a lease
STOPPED = frozenset("TtZX")  # states of a process in /proc: stopped, traced, ended
LONGEST_ORDERS = 65_536
END = b"end"


@dataclass(frozen=True, slots=True)
class HeartbeatTarget:
    """For whom to beat: a worker as it is registered, and how long its lease is, in seconds."""

    dsn: str
    pooler: bool
    schema: str
    worker: int
    nonce: str
    lease: float


class HeartbeatProcess:
    """The process. `confirmed` is when the last heartbeat was sent that was confirmed, whoever sent it.

    pulse = HeartbeatProcess.fork()    # None where there is no /proc to see by whether a process is stopped
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, MOMENT.size)
        self._orders, self._line = os.pipe()
        self._parent = os.getpid()
        self._owner = process.current()
        self._pid = 0

    @classmethod
    def fork(cls) -> HeartbeatProcess | None:
        """Fork it. Call it early: while there are no other threads, and nothing is loaded that is of no use to it."""
        if not Path("/proc/self/stat").exists():
            return None
        pulse = cls()
        sys.stdout.flush()
        sys.stderr.flush()
        pulse._pid = os.fork()
        if pulse._pid == 0:
            pulse._live()
        os.close(pulse._orders)
        return pulse

    @property
    def confirmed(self) -> float:
        """In monotonic seconds, which are the same for both."""
        moment: float = MOMENT.unpack_from(self._shared)[0]
        return moment

    @confirmed.setter
    def confirmed(self, moment: float) -> None:
        MOMENT.pack_into(self._shared, 0, moment)

    @property
    def is_ours(self) -> bool:
        """Whether it watches this process. In a forked child it does not: it would renew the lease of a dead worker."""
        return self._owner is process.current()

    def begin(self, orders: HeartbeatTarget) -> None:
        """Beat for this worker from now on, instead of another."""
        with contextlib.suppress(OSError):  # it has been killed: the thread beats on
            os.write(self._line, json.dumps(asdict(orders)).encode() + b"\n")

    def end(self) -> None:
        """Beat no more; returns when the process has ended."""
        if not self.is_ours:
            return
        with contextlib.suppress(OSError):  # it has been killed
            os.write(self._line, END + b"\n")  # closing is not enough: a forked child may hold a copy of the pipe
        os.close(self._line)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    # -- in the process

    def _live(self) -> NoReturn:
        """Watch until the parent is gone."""
        try:
            os.close(self._line)
            # A Ctrl-C, or a service manager that ends all processes of a service, is for the parent to deal with.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            self._watch()
        finally:
            os._exit(0)

    def _watch(self) -> None:
        beater: HeartbeatSender | None = None
        pause, heard = 1.0, b""
        while os.getppid() == self._parent:
            if select.select([self._orders], [], [], pause)[0]:
                told = os.read(self._orders, LONGEST_ORDERS)
                if not told:
                    return
                *lines, heard = (heard + told).split(b"\n")
                if END in lines:
                    return
                if lines:
                    beater = HeartbeatSender(HeartbeatTarget(**json.loads(lines[-1])))
                    pause = beater.orders.lease / GLANCES
            elif beater is not None and time.monotonic() - self.confirmed > beater.orders.lease / 2:
                asked_at = time.monotonic()
                if _is_running(self._parent) and beater.beat():
                    self.confirmed = asked_at


class HeartbeatSender:
    """Sends heartbeats on a connection that is made with the first one."""

    def __init__(self, orders: HeartbeatTarget) -> None:
        self.orders = orders
        self._conn: psycopg.Connection[Any] | None = None
        self._statement = worker.beat(orders.schema, orders.worker, orders.nonce, timedelta(seconds=orders.lease))

    def beat(self) -> bool:
        """Renew the lease; returns whether that was confirmed."""
        try:
            if self._conn is None:
                self._conn = connect(self.orders.dsn, role="heart", pooler=self.orders.pooler)
            return run(self._conn, self._statement)
        except (psycopg.Error, PgflowError, OSError) as error:
            log.warning("worker %d: no heartbeat from outside: %s", self.orders.worker, error)
            if self._conn is not None:
                self._conn.close()
                self._conn = None
            return False


def _is_running(pid: int) -> bool:
    """Whether a process is there and not stopped."""
    try:
        # The name may hold anything, a ")" too; what follows the last one does not.
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in STOPPED
