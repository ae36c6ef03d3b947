"""Run a worker in a process whose wall clock another process moves: `python -P skewed.py CLOCK --app …`.

CLOCK is the file of a `WorkerClock`. This is a script and not a module, because the clock must be replaced before any
other module imports the real one by name. Only the wall clock moves: `time.monotonic` and timeouts are not affected,
like when the clock of a machine is set.
"""

import datetime
import mmap
import struct
import sys
import time
from typing import Self

Real = datetime.datetime


class Clock:
    """How far this process is ahead of the real time: seconds in a file that another process writes."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)

    @property
    def ahead(self) -> float:
        """The current offset in seconds."""
        return float(struct.unpack("d", self._bytes)[0])


class Kind(type):
    """Makes any datetime, such as one created by C code, an instance of the replaced class."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, Real)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, Real)


def skew(clock: Clock) -> None:
    """Replace this process's wall clock by one that is ahead by the offset of `clock`."""
    seconds, nanoseconds = time.time, time.time_ns

    class Skewed(Real, metaclass=Kind):
        """A datetime whose current time is the moved clock's."""

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
    datetime.datetime = Skewed  # type: ignore[misc]  # the replacement is intended


if __name__ == "__main__":
    skew(Clock(sys.argv.pop(1)))
    from tests.torture.worker import main

    main()
