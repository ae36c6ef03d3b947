"""A clock that can be set forward: real time, and on top of it whatever a test lets pass."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

__all__ = ["Clock"]


class Clock:
    """Tells the time as an aware datetime; it never goes back, whatever happens to the machine's clock.

    clock.set_forward(clock.now() + timedelta(days=1))
    """

    def __init__(self) -> None:
        self._origin = datetime.now(UTC)
        self._began = time.monotonic()
        self._ahead = timedelta(0)

    def now(self) -> datetime:
        """The time."""
        return self._origin + timedelta(seconds=time.monotonic() - self._began) + self._ahead

    def set_forward(self, moment: datetime) -> None:
        """Let it be `moment`, unless it is later already."""
        self._ahead += max(timedelta(0), moment - self.now())
