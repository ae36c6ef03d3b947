"""A virtual clock: real time, plus what a test has added to it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

__all__ = ["Clock"]


class Clock:
    """Gives the time as an aware datetime. It never goes back, also when the machine's clock does.

    clock.stop_at(clock.now() + timedelta(days=1))
    clock.resume()
    """

    def __init__(self) -> None:
        self._origin = datetime.now(UTC)
        self._began = time.monotonic()
        self._ahead = timedelta(0)
        self._stopped_at: datetime | None = None

    def now(self) -> datetime:
        """Return the time."""
        return self._stopped_at or self._origin + timedelta(seconds=time.monotonic() - self._began) + self._ahead

    def stop_at(self, moment: datetime) -> None:
        """Stop at `moment`, or at the present if that is later, until `resume`."""
        self._stopped_at = max(moment, self.now())

    def resume(self) -> None:
        """Run again, from the time at which it was stopped."""
        if self._stopped_at is not None:
            moment, self._stopped_at = self._stopped_at, None
            self._ahead += moment - self.now()
