"""Move clocks: the database's, in a test install, and that of a worker process."""

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
    """Let the clock of a test install (`store.debug.install_clock`) be ahead of the real one by this; negative: behind.

    Zero brings the real time back. For all sessions, from their next statement on.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        run(conn, debug.move_clock(by, schema))


class WorkerClock:
    """The wall clock of processes that are started with `command` before a worker's options; `jump` moves it.

    What they ask it is `time.time`, `time.time_ns` and `datetime.now`. `path` is a file to be made for it.

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
        # -P: the script's folder is no place to import from.
        return [sys.executable, "-P", str(Path(__file__).with_name("skewed.py")), str(self._path)]

    def jump(self, by: timedelta) -> None:
        """Let it be ahead of the real time by this from now on; negative: behind; zero: as it should be."""
        # In place, because the others look at this very file; one write of eight bytes is seen as a whole.
        with self._path.open("r+b" if self._path.exists() else "w+b", buffering=0) as file:
            file.write(struct.pack("d", by.total_seconds()))
