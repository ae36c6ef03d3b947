"""Know how far each queue has been claimed, so that a claim need not step over what is dead there.

A transaction that stays open for long keeps every row that has gone since, and its entry in the index of what is ready.
They lie where a claim begins, so it would step over all of them, and each claim over more: some milliseconds for ten
thousand tokens. So where a claim has been found slow, the next ones begin at the queue's floor, after the last token
that was taken.

What is made ready before the floor (more urgent, or committed late) is not seen from there. So now and then a claim
*looks below*: it is made without the floor, `SHARE` times as long after the last look as that one took, and sooner when
the queue gave less than there was room for. Looks thus take one part in twenty of the time at most, and of a queue
that has run dry one in five; nothing waits longer for one. When a look is quick again, the floor goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from pgflow.store.job import QUEUE_START, ClaimedRow, QueuePosition
from pgflow.worker.claimed_job import POISONED_FROM, QUARANTINE_FROM

__all__ = ["Watermark"]

SLOW_SECONDS = 0.005  # on top of what the tokens themselves take; a whole claim of one is well below a millisecond
TOKEN_SECONDS = 0.00005  # for one token: about twice what it usually takes
SHARE = 20  # a look is made after so many times as long as the last one took
SHARE_DRY = 4  # the same, while there is room and nothing more after the floor


@dataclass(slots=True)
class Mark:
    """How far one queue has been claimed, and what the last look below was like."""

    floor: QueuePosition
    looked_at: float
    took: float
    is_dry: bool = False

    @property
    def look_at(self) -> float:
        """When to look below again."""
        return self.looked_at + self.took * (SHARE_DRY if self.is_dry else SHARE)


class Watermark:
    """The floors of a worker's queues. Moments are monotonic seconds, and come from the caller."""

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}

    @property
    def is_in_use(self) -> bool:
        """Whether any queue has a floor."""
        return bool(self._marks)

    def look_at(self, queues: Iterable[str]) -> float:
        """When one of these queues that has run dry is to be looked at, whether or not somebody wakes us, or `inf`."""
        marks = [self._marks[queue] for queue in queues if queue in self._marks]
        return min((mark.look_at for mark in marks if mark.is_dry), default=inf)

    def floors(self, now: float) -> dict[str, QueuePosition]:
        """Return where a claim at `now` is to begin, for the queues that are not to be looked through."""
        return {queue: mark.floor for queue, mark in self._marks.items() if now < mark.look_at}

    def learn(
        self, now: float, rooms: Mapping[str, int], floors: Mapping[str, QueuePosition], rows: Sequence[ClaimedRow]
    ) -> bool:
        """Take in what a claim with these rooms and floors, which ended at `now`, has returned.

        Returns whether a queue has got a floor by it that had none.
        """
        took = rows[0].took if rows else None  # that of a claim of nothing is not told: it says nothing
        is_slow = took is not None and took > SLOW_SECONDS + TOKEN_SECONDS * len(rows)
        had = len(self._marks)
        for queue in rooms.keys() - floors.keys():
            if is_slow or (took is None and queue in self._marks):
                self._looked(queue, now, took)
            else:
                self._marks.pop(queue, None)
        for queue in rooms.keys() & self._marks.keys():
            self._raise(queue, queue in floors, rooms[queue], [row for row in rows if row.queue == queue])
        return len(self._marks) > had

    def _looked(self, queue: str, now: float, took: float | None) -> None:
        mark = self._marks.setdefault(queue, Mark(QUEUE_START, now, 0.0))
        mark.looked_at, mark.took = now, mark.took if took is None else took

    def _raise(self, queue: str, had_floor: bool, room: int, rows: Sequence[ClaimedRow]) -> None:
        mark = self._marks[queue]
        taken = [
            row for row in rows if not QUARANTINE_FROM <= row.crashes < POISONED_FROM
        ]  # those have an order of their own
        is_short = len(taken) < room
        mark.is_dry = had_floor and is_short
        if taken:
            last = QueuePosition(taken[-1].priority, taken[-1].moment, taken[-1].id)
            mark.floor = max(mark.floor, last) if is_short else last  # short: nothing lies between the two
