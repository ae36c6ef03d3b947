"""Buffer the claimed jobs of one queue: a concurrency limit, and a prefetch that follows the throughput."""

from __future__ import annotations

import heapq
import itertools

from pgflow.worker.claimed_job import ClaimedJob

__all__ = ["PREFETCH_LIMIT", "QueueBuffer"]

PREFETCH_LIMIT = 500  # jobs held beyond those that can run at once
PREFETCH_SECONDS = 0.1  # a buffer prefetches as many jobs as it completed in the last such span


class QueueBuffer:
    """One queue on this worker: at most `concurrency` steps run at once, a few more jobs wait in memory.

    The prefetch grows with the throughput: quick steps are claimed by the hundred in one round trip, slow steps are
    left to other workers.

    A held job is waiting, running, or settling (it ran, or is being given back, and its outcome is not recorded yet).
    The buffer alone keeps count, by identity, so that every transition may be reported twice or too late.
    """

    def __init__(self, queue: str, concurrency: int) -> None:
        self.queue = queue
        self.concurrency = concurrency
        self._waiting: list[tuple[int, int, ClaimedJob]] = []
        self._running: set[ClaimedJob] = set()
        self._settling: set[ClaimedJob] = set()
        self._order = itertools.count()
        self._completed = 0
        self._prefetch = 0
        self._span_began = 0.0

    @property
    def waiting(self) -> int:
        """How many jobs wait for a slot."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many steps run."""
        return len(self._running)

    @property
    def settling(self) -> int:
        """How many outcomes are not recorded yet."""
        return len(self._settling)

    def push(self, job: ClaimedJob) -> None:
        """Add a job to those that wait for a slot."""
        heapq.heappush(self._waiting, (job.priority, next(self._order), job))

    def pop(self) -> ClaimedJob | None:
        """Take the most urgent job if a slot is free, and count it as running."""
        if not self._waiting or len(self._running) >= self.concurrency:
            return None
        job = heapq.heappop(self._waiting)[2]
        self._running.add(job)
        return job

    def drop(self, job: ClaimedJob) -> None:
        """Free the slot of a job that this worker no longer owns."""
        self._running.discard(job)

    def finished(self, job: ClaimedJob) -> None:
        """Free the slot of a job that ran to its outcome; the outcome has to be settled."""
        self._running.discard(job)
        self._settling.add(job)
        self._completed += 1

    def releasing(self, job: ClaimedJob) -> None:
        """Count a job that is given back without having run; that has to be settled, too."""
        self._settling.add(job)

    def settled(self, job: ClaimedJob) -> None:
        """Count an outcome as recorded, or as no longer needed."""
        self._settling.discard(job)

    def capacity(self, now: float) -> int:
        """Return how many more jobs to claim at `now` (monotonic seconds)."""
        if now - self._span_began >= PREFETCH_SECONDS:
            self._prefetch = min(PREFETCH_LIMIT, self._completed)
            self._completed = 0
            self._span_began = now
        prefetch = max(self._prefetch, min(self._completed, PREFETCH_LIMIT))
        held = len(self._running) + len(self._settling) + len(self._waiting)
        return max(0, self.concurrency + prefetch - held)

    def idle_slots(self) -> int:
        """Return how many slots are free beyond the jobs that wait for one."""
        return max(0, self.concurrency - len(self._running) - len(self._waiting))

    def take_waiting(self, older_than: float = float("inf")) -> list[ClaimedJob]:
        """Take out the waiting jobs that were buffered before `older_than` (monotonic seconds)."""
        taken = [job for _, _, job in self._waiting if job.since < older_than]
        if taken:
            self._waiting = [entry for entry in self._waiting if entry[2].since >= older_than]
            heapq.heapify(self._waiting)
        return taken

    def clear(self) -> None:
        """Forget the jobs that wait and those that settle: they belong to another worker."""
        self._waiting.clear()
        self._settling.clear()
