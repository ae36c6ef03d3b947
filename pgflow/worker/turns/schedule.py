"""Know when due tokens have to be made ready and when to look for tokens of dead workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from pgflow.jitter import uniform
from pgflow.worker.decide import Decision

__all__ = ["EARLY_SECONDS", "Maintenance"]

LOOK_SECONDS = 1.0  # how often to look for what will be due, of a client's or another worker's
EARLY_SECONDS = 0.25  # by which a look may come earlier to go along with something else
MARGIN_SECONDS = 0.01  # after the end of a lease, so that it surely has ended
FORGET_SECONDS = 600.0
LONGEST_REST_SECONDS = 60.0


class Maintenance:
    """When which statement of upkeep is due, in monotonic seconds. Any number of workers may do them at once."""

    def __init__(self, sweep: timedelta) -> None:
        self._sweep = sweep.total_seconds()
        self._sweep_at = 0.0
        self._stage_at = 0.0
        self._forget_at = 0.0
        self._rests_until = 0.0
        self._failures = 0
        self.is_due_known = False
        self.is_split = False  # each statement of upkeep goes out by itself, because one of them was refused
        self.seen_run = 0  # up to which active instances were looked through for ones without a token

    @property
    def next_at(self) -> float:
        """When something is due next."""
        return max(min(self._sweep_at, self._stage_at), self._rests_until)

    def hasten(self) -> None:
        """Let a sweep be due now."""
        self._sweep_at = 0.0

    def is_sweep_due(self, now: float) -> bool:
        """Whether to free the tokens of dead workers now."""
        return now >= max(self._sweep_at, self._rests_until)

    def is_forget_due(self, now: float) -> bool:
        """Whether to delete the rows of workers that are long gone."""
        return now >= self._forget_at

    def is_stage_due(self, now: float, decisions: Iterable[Decision]) -> bool:
        """Whether to make due tokens ready now: at the known moment, or to learn the next one after adding another."""
        if self.rests(now):
            return False
        return (self.is_due_known and now >= self._stage_at) or any(decision.schedules_jobs for decision in decisions)

    def is_look_due(self, now: float, *, is_wanted: bool) -> bool:
        """Whether to ask what there is to do: where a poll wants it, and where nobody here knows what will be due."""
        return not self.rests(now) and (is_wanted or (not self.is_due_known and now >= self._stage_at))

    def rests(self, now: float) -> bool:
        """Whether upkeep has failed, and is left alone for a while."""
        return now < self._rests_until

    def expect(self, moment: float) -> None:
        """Look for due tokens at `moment` at the latest."""
        if moment < self._stage_at:
            self._stage_at, self.is_due_known = moment, True

    def put_off(self, now: float) -> None:
        """Rest: what went out together with upkeep has failed, and is to be tried without it."""
        self._failures += 1
        self._rests_until = now + min(LONGEST_REST_SECONDS, 0.5 * 2 ** min(self._failures, 10)) * uniform(0.5, 1.0)

    def learn(self, now: float, answers: Mapping[str, Any]) -> None:
        """Take over what the statements returned."""
        if "rescue" in answers or "stage" in answers:
            self._failures = 0
        if "rescue" in answers:
            # A worker that dies is missed as soon as its lease ends; those that live have renewed theirs by then.
            next_expiry = answers["rescue"].next_expiry
            pause = self._sweep if next_expiry is None else min(self._sweep, next_expiry + MARGIN_SECONDS)
            self._sweep_at = now + pause * uniform(1.0, 1.1)  # so that workers do not sweep in step
        if "revive" in answers:
            self.seen_run = answers["revive"].last_run or 0
        if "forget_requests" in answers:
            self._forget_at = now + (0.0 if answers["forget_requests"] else FORGET_SECONDS)
        if "stage" in answers:  # without the other one, if it was refused: then it is tried again in LOOK_SECONDS
            self._plan(now, *(answers[name].next_due for name in ("stage", "send_due") if name in answers))
        elif "look" in answers:
            self._plan(now, answers["look"].next_due)

    def _plan(self, now: float, *moments: float | None) -> None:
        next_due = min((moment for moment in moments if moment is not None), default=LOOK_SECONDS)
        self.is_due_known = next_due < LOOK_SECONDS
        self._stage_at = now + min(next_due, LOOK_SECONDS)
