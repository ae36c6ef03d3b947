"""Skip dead index entries when claiming: remember how far each queue has been claimed.

A transaction that stays open for long pins xmin: vacuum cannot remove the jobs that were deleted or claimed since, nor
their entries in the index of ready jobs. They lie where a claim starts, so each claim steps over all of them: some
milliseconds for ten thousand jobs. So after a slow claim, the next ones start at the queue's watermark, behind the last
job that was claimed.

A job that becomes ready before the watermark (more urgent, or committed late) is not visible from there. So from time
to time a claim is made *below* it, without the watermark: `SHARE` times as long after the last such claim as that one
took, and sooner if the queue returned less than its capacity. These claims take one part in twenty of the time at most,
and of a queue that has run dry one in five; no job waits longer for one. When one of them is quick again, the watermark
is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from pgflow.store.job import QUEUE_START, ClaimedRow, QueuePosition
from pgflow.worker.claimed_job import POISONED_FROM, QUARANTINE_FROM

__all__ = ["Watermark"]

SLOW_SECONDS = 0.005  # on top of the time for the jobs themselves; a claim of one job takes far less than 1 ms
JOB_SECONDS = 0.00005  # for one job: about twice the usual time
SHARE = 20  # a claim below follows after so many times the duration of the last one
SHARE_DRY = 4  # the same, while there is capacity and nothing behind the watermark


@dataclass(slots=True)
class Mark:
    """How far one queue has been claimed, and when and how long the last claim below that took."""

    position: QueuePosition
    looked_at: float
    took: float
    is_dry: bool = False

    @property
    def look_at(self) -> float:
        """When to claim below again."""
        return self.looked_at + self.took * (SHARE_DRY if self.is_dry else SHARE)


class Watermark:
    """The watermarks of a worker's queues. Moments are monotonic seconds; callers pass the time."""

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}

    @property
    def is_in_use(self) -> bool:
        """Whether any queue has a watermark."""
        return bool(self._marks)

    def look_at(self, queues: Iterable[str]) -> float:
        """Return when to claim below the watermark of a queue that has run dry, notified or not, or `inf`."""
        marks = [self._marks[queue] for queue in queues if queue in self._marks]
        return min((mark.look_at for mark in marks if mark.is_dry), default=inf)

    def positions(self, now: float) -> dict[str, QueuePosition]:
        """Return where a claim at `now` starts; queues that are claimed from their beginning are left out."""
        return {queue: mark.position for queue, mark in self._marks.items() if now < mark.look_at}

    def learn(
        self,
        now: float,
        capacity: Mapping[str, int],
        positions: Mapping[str, QueuePosition],
        rows: Sequence[ClaimedRow],
    ) -> bool:
        """Take over the rows of a claim with this capacity and these positions, which ended at `now`.

        Returns whether a queue has got its first watermark.
        """
        took = rows[0].took if rows else None  # unknown for an empty claim
        is_slow = took is not None and took > SLOW_SECONDS + JOB_SECONDS * len(rows)
        had = len(self._marks)
        for queue in capacity.keys() - positions.keys():
            if is_slow or (took is None and queue in self._marks):
                self._looked(queue, now, took)
            else:
                self._marks.pop(queue, None)
        for queue in capacity.keys() & self._marks.keys():
            self._raise(queue, queue in positions, capacity[queue], [row for row in rows if row.queue == queue])
        return len(self._marks) > had

    def _looked(self, queue: str, now: float, took: float | None) -> None:
        mark = self._marks.setdefault(queue, Mark(QUEUE_START, now, 0.0))
        mark.looked_at, mark.took = now, mark.took if took is None else took

    def _raise(self, queue: str, had_position: bool, capacity: int, rows: Sequence[ClaimedRow]) -> None:
        mark = self._marks[queue]
        # Quarantined jobs are claimed in an order of their own.
        taken = [row for row in rows if not QUARANTINE_FROM <= row.crashes < POISONED_FROM]
        is_short = len(taken) < capacity
        mark.is_dry = had_position and is_short
        if taken:
            last = QueuePosition(taken[-1].priority, taken[-1].moment, taken[-1].id)
            mark.position = max(mark.position, last) if is_short else last  # short: no job lies between the two
