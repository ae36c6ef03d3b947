"""A client process that forks after it has used its app: parent and children then make calls at the same time.

`python -m tests.torture.workload.forking_client DSN FOLDER NUMBER SECONDS` is started as a fault. It forks while a
thread of its own is in the middle of a call, because that is when a child inherits held locks and half-read sockets.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pgflow.app import Pgflow
from tests.torture.workload import flows
from tests.torture.workload.callers import Caller
from tests.torture.workload.tasks import TASKS

__all__ = ["CHILDREN", "command"]

CHILDREN = 3
RATE = 6.0  # instances that each process starts a second
ANSWER_SECONDS = 60.0  # until each call of a process is answered


def command(dsn: str, folder: Path, number: int, seconds: float) -> list[str]:
    """Return the command line of a client; `number` makes its business values unique."""
    return [sys.executable, "-m", __spec__.name, dsn, str(folder), str(number), str(seconds)]


def main(arguments: Sequence[str]) -> None:
    """Make calls, and fork; the exit code is 0 when each call of each process was answered."""
    dsn, folder, number, seconds = arguments[0], Path(arguments[1]), int(arguments[2]), float(arguments[3])
    app = Pgflow(dsn, workflows=flows.WORKFLOWS, tasks=TASKS)
    app.list()
    mine = Caller(number, dsn, folder, number, RATE, app=app)
    mine.start()
    children = []
    for child in range(number + 1, number + 1 + CHILDREN):
        pid = os.fork()
        if not pid:
            caller = Caller(child, dsn, folder, child, RATE, app=app)
            caller.start()
            finish(caller, seconds)
            sys.exit()
        children.append(pid)
    finish(mine, seconds)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    if any(codes):
        raise RuntimeError(f"forked clients ended with {codes}")


def finish(caller: Caller, seconds: float) -> None:
    """Let a caller run for so many seconds, and wait until each of its calls is answered."""
    time.sleep(seconds)
    caller.close()
    if not caller.join(ANSWER_SECONDS):
        raise TimeoutError(f"a call of process {os.getpid()} was not answered within {ANSWER_SECONDS:g} s")


if __name__ == "__main__":
    main(sys.argv[1:])
