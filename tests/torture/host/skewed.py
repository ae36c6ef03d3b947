"""Run a worker in a process whose wall clock another process moves: `python -P skewed.py CLOCK --app …`.

CLOCK is the file of a `WorkerClock`. A program of its own, and not a module to be imported, because the clock has to be
replaced before anything of ours, or of anybody else's, takes the real one by its name. Only the wall clock moves:
`time.monotonic` and all that waits go on as they do when somebody sets the clock of a machine.
"""

import datetime
import mmap
import struct
import sys
import time
from typing import Self

Real = datetime.datetime


class Clock:
    """The number of seconds in a file, which somebody else writes: how far ahead of the real time we are."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)

    @property
    def ahead(self) -> float:
        """How many seconds, at this moment."""
        return float(struct.unpack("d", self._bytes)[0])


class Kind(type):
    """Lets any datetime, such as one that C code makes, be an instance of what stands in for the class."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, Real)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, Real)


def skew(clock: Clock) -> None:
    """Let this process's wall clock be as far ahead as `clock` says."""
    seconds, nanoseconds = time.time, time.time_ns

    class Skewed(Real, metaclass=Kind):
        """A datetime that tells the time by the moved clock."""

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Self:
            return super().now(tz) + datetime.timedelta(seconds=clock.ahead)

        @classmethod
        def utcnow(cls) -> Self:
            return cls.now(datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Self:
            return cls.now()

    time.time = lambda: seconds() + clock.ahead
    time.time_ns = lambda: nanoseconds() + int(1e9 * clock.ahead)
    datetime.datetime = Skewed  # type: ignore[misc]  # that is the point


if __name__ == "__main__":
    skew(Clock(sys.argv.pop(1)))
    from tests.torture.worker import main

    main()
