"""Decide which instants of a schedule to start now. Pure: the same row at the same time gives the same decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from pgflow.core.definition.timing import Timing, instants
from pgflow.core.models.schedule import CatchUp, Overlap

__all__ = ["GRACE", "Firing", "LastRun", "decide"]

GRACE = timedelta(minutes=1)  # an instant that is later than this was missed
MAX_DUE = 1_000  # instants that one decision looks at
MAX_STARTS = 100  # runs that one decision starts


@dataclass(frozen=True, slots=True)
class LastRun:
    """The run that the schedule has started last; it is active while `ended_at` is None."""

    started_at: datetime
    ended_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self.ended_at is None

    def covers(self, instant: datetime, lead: timedelta = timedelta(0)) -> bool:
        """Whether it was active at an instant after its start, or at most `lead` before that."""
        return self.started_at - lead < instant and (self.ended_at is None or instant <= self.ended_at)


@dataclass(frozen=True, slots=True)
class Firing:
    """What to do about a schedule: start the runs of `starts`, after cancelling the last run with `cancels_last`.

    `handled` is the last instant that has been started or dropped: those up to it never fire again. `next_at` is the
    one after it; while that one waits for the last run to end, it is due and stays so. Instants up to `queued_until`
    came while an earlier run was active, and wait for it.
    """

    starts: tuple[datetime, ...]
    cancels_last: bool
    skipped: int
    missed: int
    handled: datetime
    next_at: datetime | None
    queued_until: datetime | None = None


def decide(
    timing: Timing,
    overlap: Overlap,
    catch_up: CatchUp,
    *,
    handled: datetime,
    now: datetime,
    last: LastRun | None,
    queued_until: datetime | None = None,
) -> Firing:
    """Return what to do at `now` about the instants after `handled`.

    decide(Cron("@daily"), "skip", "last", handled=yesterday, now=now, last=None).starts    # (midnight,)
    """
    queue = _Queue(last, queued_until) if overlap == "queue" else None
    due, missed = _due(timing, catch_up, handled, now, queue)
    if missed:
        handled = due[0] - timedelta(microseconds=1) if due else now - GRACE
    starts: list[datetime] = []
    skipped = 0
    is_busy = last is not None and last.is_active
    for instant in due:
        is_newest = instant == due[-1]
        if overlap == "skip" and last is not None and last.covers(instant):
            skipped += 1
        elif _is_missed(instant, now, queue) and (catch_up == "none" or (catch_up == "last" and not is_newest)):
            missed += 1
        elif overlap in ("skip", "queue") and is_busy:
            break
        elif overlap == "cancel_old" and not is_newest:
            skipped += 1  # the newest would cancel it at once
        else:
            starts.append(instant)
            is_busy = True
        handled = instant
        if len(starts) == MAX_STARTS:
            break
    cancels = overlap == "cancel_old" and bool(starts) and last is not None and last.is_active
    until = queue.until if queue is not None and starts else queued_until
    return Firing(tuple(starts), cancels, skipped, missed, handled, timing.next(handled), until)


def _is_missed(instant: datetime, now: datetime, queue: _Queue | None) -> bool:
    """Whether no worker took an instant in time, although it did not have to wait."""
    return instant < now - GRACE and not (queue is not None and queue.holds(instant))


@dataclass(frozen=True, slots=True)
class _Queue:
    """Which instants came while the last run was active, or one before it: they have waited, and were not missed."""

    last: LastRun | None
    queued_until: datetime | None

    def holds(self, instant: datetime) -> bool:
        if self.queued_until is not None and instant <= self.queued_until:
            return True
        return self.last is not None and self.last.covers(instant, GRACE)

    @property
    def until(self) -> datetime | None:
        ended = None if self.last is None else self.last.ended_at
        return max((each for each in (self.queued_until, ended) if each is not None), default=None)


def _due(
    timing: Timing, catch_up: CatchUp, handled: datetime, now: datetime, queue: _Queue | None
) -> tuple[Sequence[datetime], int]:
    """Return the instants to decide about, and at least how many earlier ones were passed over as missed."""
    due = list(islice(instants(timing, handled, now), MAX_DUE))
    following = timing.next(due[-1]) if len(due) == MAX_DUE else None
    if following is None or following > now or catch_up == "all" or (queue and queue.holds(due[0])):
        return due, 0
    # So many only after a long outage: go on where it matters, instead of reading all that were missed.
    fresh = list(instants(timing, now - GRACE, now))
    if fresh or catch_up == "none":
        return fresh[:MAX_DUE], MAX_DUE
    return [_newest(timing, handled, now)], MAX_DUE


def _newest(timing: Timing, after: datetime, now: datetime) -> datetime:
    """Return the newest instant in (after, now], of which there is one, by looking back further and further."""
    window = GRACE
    while True:
        window *= 8
        found = list(instants(timing, max(after, now - window), now))
        if found:
            return found[-1]
