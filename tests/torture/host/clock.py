"""Move clocks: the database's, in a test install, and a worker process's."""

import struct
import sys
from datetime import timedelta
from pathlib import Path

import psycopg

from pgflow.database.files import SCHEMA
from pgflow.database.statement import run
from tests.torture.install import debug

__all__ = ["WorkerClock", "move_clock"]


def move_clock(dsn: str, by: timedelta, schema: str = SCHEMA) -> None:
    """Set the clock of a test install (`debug.install_clock`) ahead of the real time; negative: behind, zero: restore.

    Takes effect with the next statement of each session.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        run(conn, debug.move_clock(by, schema))


class WorkerClock:
    """The wall clock of processes that are started with `command` before a worker's options; `jump` moves it.

    It affects `time.time`, `time.time_ns` and `datetime.now`. `path` is the file to create for it.

        clock = WorkerClock(folder / "clock")
        subprocess.Popen([*clock.command, "--app", "shop.flows:app"])
        clock.jump(timedelta(hours=3))
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.jump(timedelta(0))

    @property
    def command(self) -> list[str]:
        """The command to use instead of `pgflow worker`."""
        # -P: do not import from the script's folder.
        return [sys.executable, "-P", str(Path(__file__).with_name("skewed.py")), str(self._path)]

    def jump(self, by: timedelta) -> None:
        """Set it ahead of the real time; negative: behind, zero: restore."""
        # In place, because processes have mapped this file; a write of eight bytes is atomic.
        with self._path.open("r+b" if self._path.exists() else "w+b", buffering=0) as file:
            file.write(struct.pack("d", by.total_seconds()))
