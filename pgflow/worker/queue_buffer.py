"""Buffer the claimed jobs of one queue: a concurrency limit, and a prefetch that follows the throughput."""

from __future__ import annotations

from bisect import insort
from collections import deque

from pgflow.worker.claimed_task import HeldJob
from pgflow.worker.gate import Gate

__all__ = ["PREFETCH_LIMIT", "QueueBuffer"]

PREFETCH_LIMIT = 1000  # jobs held beyond those that can run at once
PREFETCH_SECONDS = 0.1  # a buffer prefetches as many jobs as it completed in the last such span


class QueueBuffer:
    """One queue on this worker: at most `concurrency` steps run at once, a few more jobs wait in memory.

    The prefetch grows with the throughput: quick steps are claimed by the hundred in one round trip, slow steps are
    left to other workers.

    A held job is waiting, running, or settling (it ran, or is being given back, and its outcome is not recorded yet).
    The buffer alone keeps count, by identity, so that every transition may be reported twice or too late.

    `apply` changes at run time how the queue is served. With a `gate` (its jobs have limits or partition keys) only
    jobs are claimed that can run at once: what is claimed counts as running.
    """

    def __init__(self, queue: str, concurrency: int) -> None:
        self.queue = queue
        self.concurrency = concurrency
        self.is_paused = False
        self.gate: Gate | None = None
        self._own_concurrency = concurrency
        self._has_keys = False
        self._waiting: dict[int, deque[HeldJob]] = {}  # by priority, in order; none is empty
        self._priorities: list[int] = []  # of those that wait, sorted
        self._running: set[HeldJob] = set()
        self._settling: set[HeldJob] = set()
        self._completed = 0
        self._prefetch = 0
        self._span_began = 0.0

    def __str__(self) -> str:
        """Return how it is served: "concurrency 10, paused"."""
        return f"concurrency {self.concurrency}{', paused' * self.is_paused}{', limited' * (self.gate is not None)}"

    def expect_keys(self) -> None:
        """Claim through the gate in any case: jobs with partition keys come."""
        self._has_keys = True
        self.gate = self.gate or Gate()

    def apply(self, concurrency: int | None, *, is_paused: bool, is_limited: bool) -> bool:
        """Serve the queue like that from now on; `concurrency` None is that of the start. Return whether it changed."""
        before = (self.concurrency, self.is_paused, self.gate is None)
        self.concurrency = concurrency or self._own_concurrency
        self.is_paused = is_paused
        if not (is_limited or self._has_keys):
            self.gate = None
        elif self.gate is None:
            self.gate = Gate()
        return (self.concurrency, self.is_paused, self.gate is None) != before

    @property
    def waiting(self) -> int:
        """How many jobs wait for a slot."""
        return sum(map(len, self._waiting.values()))

    @property
    def running(self) -> int:
        """How many steps run."""
        return len(self._running)

    @property
    def settling(self) -> int:
        """How many outcomes are not recorded yet."""
        return len(self._settling)

    def push(self, job: HeldJob) -> None:
        """Add a job to those that wait for a slot."""
        waiting = self._waiting.get(job.priority)
        if waiting is None:
            waiting = self._waiting[job.priority] = deque()
            insort(self._priorities, job.priority)
        waiting.append(job)

    def pop(self) -> HeldJob | None:
        """Take the most urgent job if a slot is free, and count it as running."""
        if not self._waiting or self.is_paused or len(self._running) >= self.concurrency:
            return None
        waiting = self._waiting[self._priorities[0]]
        job = waiting.popleft()
        if not waiting:
            del self._waiting[self._priorities.pop(0)]
        self._running.add(job)
        return job

    def drop(self, job: HeldJob) -> None:
        """Free the slot of a job that this worker no longer owns."""
        self._running.discard(job)

    def finished(self, job: HeldJob) -> None:
        """Free the slot of a job that ran to its outcome; the outcome has to be settled."""
        self._running.discard(job)
        self._settling.add(job)
        self._completed += 1

    def releasing(self, job: HeldJob) -> None:
        """Count a job that is given back without having run; that has to be settled, too."""
        self._settling.add(job)

    def settled(self, job: HeldJob) -> None:
        """Count an outcome as recorded, or as no longer needed."""
        self._settling.discard(job)
        if self.gate is not None:
            self.gate.freed(job.key)

    def capacity(self, now: float, settling: int = 0) -> int:
        """Return how many more jobs to claim at `now` (monotonic seconds), in a turn that settles so many."""
        if self.is_paused:
            return 0
        held = len(self._running) + len(self._settling) + self.waiting
        if self.gate is not None:
            return max(0, min(self.concurrency, self.concurrency - held + settling))
        if now - self._span_began >= PREFETCH_SECONDS:
            self._prefetch = min(PREFETCH_LIMIT, self._completed)
            self._completed = 0
            self._span_began = now
        prefetch = max(self._prefetch, min(self._completed, PREFETCH_LIMIT))
        return max(0, self.concurrency + prefetch - held)

    def idle_slots(self) -> int:
        """Return how many slots are free beyond the jobs that wait for one, for jobs that go on in this queue."""
        if self.is_paused or self.gate is not None:
            return 0
        return max(0, self.concurrency - len(self._running) - self.waiting)

    def take_waiting(self, older_than: float = float("inf")) -> list[HeldJob]:
        """Take out the waiting jobs that were buffered before `older_than` (monotonic seconds)."""
        taken = []
        for priority in list(self._priorities):
            waiting = self._waiting[priority]
            taken += [job for job in waiting if job.since < older_than]
            kept = deque(job for job in waiting if job.since >= older_than)
            if kept:
                self._waiting[priority] = kept
            else:
                del self._waiting[priority]
                self._priorities.remove(priority)
        return taken

    def clear(self) -> None:
        """Forget the jobs that wait and those that settle: they belong to another worker."""
        self._waiting.clear()
        self._priorities.clear()
        self._settling.clear()
