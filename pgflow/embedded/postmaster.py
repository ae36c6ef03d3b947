"""Run a PostgreSQL server as a child process that ends with this one."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from pgflow.embedded import process_tree
from pgflow.embedded.installation import Account

__all__ = ["ENVIRONMENT", "Postmaster"]

# TZ: without it, initdb tries a thousand time zones.
ENVIRONMENT: Mapping[str, str] = {"LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"}

# Replaces itself with the server. A separate program, not code between fork and exec, because this process may have
# threads. It imports its modules before it changes the user, who may not be able to read Python's files, and requests
# the parent-death signal after it, because changing the user clears that setting.
LAUNCHER = """
import os, signal, sys
parent, uid, gid, *command = sys.argv[1:]
prctl = None
if sys.platform == "linux":
    import ctypes
    prctl = ctypes.CDLL(None).prctl
if int(uid) != os.geteuid():
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
if prctl is not None:
    PR_SET_PDEATHSIG = 1
    prctl(PR_SET_PDEATHSIG, signal.SIGINT)
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""


class Postmaster:
    """The main process of a server, with a thread that starts it and waits for its end.

    The thread is needed because Linux sends the parent-death signal when the *thread* that started a process ends.
    `lock` is a file descriptor that the server inherits.
    """

    def __init__(self, command: Sequence[str], account: Account, directory: Path, lock: int) -> None:
        self._command = command
        self._account = account
        self._directory = directory
        self._lock = lock
        started: Future[subprocess.Popen[bytes]] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True, name="embedded-postgres")
        self._thread.start()
        self._process = started.result()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process is running."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Wait until the process has ended, for at most `seconds`."""
        self._thread.join(seconds)

    def end(self, request: signal.Signals) -> None:
        """Send a signal and wait for the end; after a timeout escalate to SIGQUIT, then SIGKILL."""
        gentler = () if request == signal.SIGKILL else ((request, 10.0), (signal.SIGQUIT, 5.0))
        for each, seconds in gentler:
            if self.is_alive:
                self._process.send_signal(each)
                self.wait(seconds)
        if self.is_alive:
            process_tree.kill(self.pid)
            self.wait(process_tree.KILLED_SECONDS)

    def _run(self, started: Future[subprocess.Popen[bytes]]) -> None:
        try:
            started.set_result(process := self._start())
        except BaseException as error:  # raised by started.result()
            started.set_exception(error)
        else:
            process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        account = [str(self._account.user or os.geteuid()), str(self._account.group or os.getegid())]
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *account, *self._command],
                cwd=self._directory,
                env=ENVIRONMENT,
                pass_fds=[self._lock],
                start_new_session=True,  # Ctrl-C in the terminal must not reach the server before this process
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
