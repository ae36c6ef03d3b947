"""A clock that can be set forward: real time, and on top of it whatever a test lets pass."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

__all__ = ["Clock"]


class Clock:
    """Tells the time as an aware datetime; it never goes back, whatever happens to the machine's clock.

    clock.stand_at(clock.now() + timedelta(days=1))
    clock.go_on()
    """

    def __init__(self) -> None:
        self._origin = datetime.now(UTC)
        self._began = time.monotonic()
        self._ahead = timedelta(0)
        self._standing: datetime | None = None

    def now(self) -> datetime:
        """The time."""
        return self._standing or self._origin + timedelta(seconds=time.monotonic() - self._began) + self._ahead

    def stand_at(self, moment: datetime) -> None:
        """Let it be `moment`, unless it is later already, and stay so until `go_on`."""
        self._standing = max(moment, self.now())

    def go_on(self) -> None:
        """Let time pass again, from the moment at which it stands."""
        if self._standing is not None:
            moment, self._standing = self._standing, None
            self._ahead += moment - self.now()
