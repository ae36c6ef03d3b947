"""Decide how many tokens a queue may hold on this worker and which one runs next."""

from __future__ import annotations

import heapq
import itertools

from pgflow.worker.claimed_job import ClaimedJob

__all__ = ["AHEAD_LIMIT", "QueueBuffer"]

AHEAD_LIMIT = 500  # tokens that a lane may hold beyond those that can run at once
AHEAD_SECONDS = 0.1  # how much work it holds in advance: what it completed in the last such span


class QueueBuffer:
    """One queue on this worker: at most `limit` steps run at once, a few more tokens wait in memory.

    The more a lane completes, the more it takes in advance, so that quick steps come by the hundred in one round
    trip and slow steps are left to other workers.
    """

    def __init__(self, queue: str, limit: int) -> None:
        self.queue = queue
        self.limit = limit
        self.running = 0
        self.settling = 0
        self._waiting: list[tuple[int, int, ClaimedJob]] = []
        self._order = itertools.count()
        self._completed = 0
        self._ahead = 0
        self._span_began = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, token: ClaimedJob) -> None:
        """Add a token to those that wait for a free slot."""
        heapq.heappush(self._waiting, (token.priority, next(self._order), token))

    def pop(self) -> ClaimedJob | None:
        """Take the most urgent token if a slot is free, and count it as running."""
        if not self._waiting or self.running >= self.limit:
            return None
        self.running += 1
        return heapq.heappop(self._waiting)[2]

    def finished(self) -> None:
        """Count a step as run to its outcome, which now has to be settled."""
        self.running -= 1
        self.settling += 1
        self._completed += 1

    def settled(self) -> None:
        """Count an outcome as settled."""
        self.settling -= 1

    def room(self, now: float) -> int:
        """How many more tokens to claim; `now` in monotonic seconds."""
        if now - self._span_began >= AHEAD_SECONDS:
            self._ahead = min(AHEAD_LIMIT, self._completed)
            self._completed = 0
            self._span_began = now
        return max(
            0,
            self.limit
            + max(self._ahead, min(self._completed, AHEAD_LIMIT))
            - self.running
            - self.settling
            - len(self._waiting),
        )

    def free(self) -> int:
        """How many slots are free beyond the tokens that wait for one."""
        return max(0, self.limit - self.running - len(self._waiting))

    def drain(self, older_than: float | None = None) -> list[ClaimedJob]:
        """Take out the tokens that wait (only those that came before `older_than`), to give them back."""
        out = [token for _, _, token in self._waiting if older_than is None or token.since < older_than]
        if out:
            gone = set(map(id, out))
            self._waiting = [entry for entry in self._waiting if id(entry[2]) not in gone]
            heapq.heapify(self._waiting)
        return out
