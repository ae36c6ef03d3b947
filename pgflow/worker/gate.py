"""Know when to claim from a queue with limits, of which one worker at a time claims."""

from __future__ import annotations

from math import inf

from pgflow.jitter import uniform
from pgflow.store.job import LimitedAnswer

__all__ = ["Gate"]

BUSY_SECONDS = 0.001  # until the first retry when another worker holds the gate; doubled up to MAX_BUSY_SECONDS
MAX_BUSY_SECONDS = 0.016
POLL_SECONDS = 1.0  # a notification may be lost
MAX_WAIT_SECONDS = 1.0  # however long a rate allows nothing: it may be changed, and the notification be lost
HINTS_LIMIT = 500  # keys to pass with one claim


class Gate:
    """This worker's side of a queue's gate: whether it should ask, and not before when. Moments are monotonic seconds.

    `hints` are the keys of jobs that this worker has settled since it asked last: they have room again.
    """

    def __init__(self) -> None:
        self.hints: dict[str, None] = {}
        self._should_ask = True
        self._not_before = 0.0
        self._asked_at = 0.0
        self._busy = 0

    def want(self) -> None:
        """Ask as soon as it makes sense: a job may be ready, or a place free."""
        self._should_ask = True

    def freed(self, key: str | None) -> None:
        """Ask because a job with this key has been settled."""
        if key is not None and len(self.hints) < HINTS_LIMIT:
            self.hints[key] = None
        self._should_ask = True

    def changed(self) -> None:
        """Ask at once: the limits may be others."""
        self._should_ask, self._not_before = True, 0.0

    @property
    def due_at(self) -> float:
        """When to ask, `inf` for not before something happens."""
        return self._not_before if self._should_ask else inf

    def should_ask(self, now: float, *, has_settled: bool, is_peeking: bool) -> bool:
        """Whether to claim with a turn that `has_settled` jobs of this queue; one that `is_peeking` polls for it."""
        is_poll_due = not is_peeking and now >= self._asked_at + POLL_SECONDS
        return now >= self._not_before and (self._should_ask or has_settled or is_poll_due)

    def asked(self, now: float) -> list[str]:
        """Take the hints for a claim that is sent now."""
        self._asked_at = now
        hints, self.hints = [*self.hints], {}
        return hints

    def answered(self, now: float, given: LimitedAnswer) -> None:
        """Take over the answer to a claim: see sql/functions/claim_limited.sql."""
        self._busy = self._busy + 1 if given.answer == "busy" else 0
        match given.answer:
            case "busy":
                longest = min(MAX_BUSY_SECONDS, BUSY_SECONDS * 2 ** min(self._busy, 10))
                self._should_ask, self._not_before = True, now + longest * uniform(0.5, 1.0)
            case "more":
                self._should_ask, self._not_before = True, 0.0
            case _:
                self._should_ask = given.seconds is not None
                self._not_before = now + min(MAX_WAIT_SECONDS, max(0.0, given.seconds or 0.0))
