"""Know when the worker has to look at the database again."""

from __future__ import annotations

from datetime import timedelta

from pgflow.jitter import uniform

__all__ = ["EARLY_SECONDS", "Schedule", "UpkeepPause"]

EARLY_SECONDS = 0.25  # by which a poll may come earlier to share a round trip
MAX_DUE_SECONDS = 1.0  # how often to ask for the next due time: a client or another worker may have set an earlier one
LONGEST_POLL = 1.1  # of the interval: jitter, so that workers do not poll in step
EXPIRY_MARGIN_SECONDS = 0.01  # after the end of a lease, so that it has surely expired
MAX_UPKEEP_PAUSE_SECONDS = 60.0


class Schedule:
    """When to poll, to sweep, and to make due jobs ready. Moments are monotonic seconds; callers pass the time.

    Any number of workers may do each at once. With `is_due_known`, something becomes due at `due_at`; otherwise that
    is when to ask again.
    """

    def __init__(self, poll: timedelta, sweep: timedelta) -> None:
        self._poll = poll.total_seconds()
        self._sweep = sweep.total_seconds()
        self._early_sweep = min(LONGEST_POLL * self._poll, self._sweep / 2)
        self.poll_at = 0.0
        self.sweep_at = 0.0
        self.due_at = 0.0
        self.is_due_known = False
        self._answered_at = 0.0

    @property
    def upkeep_at(self) -> float:
        """When upkeep is due next."""
        return min(self.sweep_at, self.due_at)

    def is_sweep_due(self, now: float) -> bool:
        """Whether to look for workers whose lease has expired: up to a poll early along with one, in its round trip."""
        return now >= self.sweep_at or now >= max(self.sweep_at - self._early_sweep, min(self.poll_at, self.due_at))

    def sweep_now(self) -> None:
        """Sweep and look for due jobs with the next turn, whatever the last answers were."""
        self.sweep_at = self.due_at = 0.0

    def swept(self, now: float, next_expiry: float | None) -> None:
        """Plan the next sweep: when the next lease could expire, so that a dead worker is noticed at once."""
        pause = self._sweep if next_expiry is None else min(self._sweep, next_expiry + EXPIRY_MARGIN_SECONDS)
        self.sweep_at = now + pause * uniform(1.0, 1.1)  # jitter: workers do not sweep in step

    def polled(self, now: float) -> None:
        """Plan the next poll."""
        self.poll_at = now + self._poll * uniform(1.0, LONGEST_POLL)

    def answered(self, now: float, next_due: float | None) -> None:
        """Take over in how many seconds something is due (None: nothing is).

        The first answer of a turn replaces the plan; a further one of the same turn (the same `now`) can only be
        earlier, because each looks at another table.
        """
        seconds = MAX_DUE_SECONDS if next_due is None else next_due
        at, is_known = now + min(seconds, MAX_DUE_SECONDS), seconds < MAX_DUE_SECONDS
        if self._answered_at != now or at < self.due_at:
            self.due_at, self.is_due_known = at, is_known
        self._answered_at = now

    def expect(self, moment: float) -> None:
        """Make due jobs ready at `moment` at the latest."""
        if moment < self.due_at:
            self.due_at, self.is_due_known = moment, True


class UpkeepPause:
    """Keeps upkeep out of the way of jobs while the database refuses it.

    After a failed turn it pauses, with exponential backoff; then each statement of upkeep has a round trip of its own
    (`is_split`), so that a refused one delays no other.
    """

    def __init__(self) -> None:
        self.is_split = False
        self.failures = 0
        self.until = 0.0

    def is_active(self, now: float) -> bool:
        """Whether upkeep pauses."""
        return now < self.until

    def begin(self, now: float) -> None:
        """Pause after a failed turn."""
        self.failures += 1
        longest = min(MAX_UPKEEP_PAUSE_SECONDS, 0.5 * 2 ** min(self.failures, 10))
        self.until = now + longest * uniform(0.5, 1.0)

    def recovered(self) -> None:
        """Start the backoff from the beginning: a statement of upkeep has succeeded."""
        self.failures = 0
