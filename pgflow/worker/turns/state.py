"""The state that the turns of one worker share, and that its chores may change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pgflow.payloads.store import PayloadStore
from pgflow.store.migration import Applied
from pgflow.store.notification import Notification, QueueReady
from pgflow.worker.held_jobs import HeldJobs
from pgflow.worker.settler import Settler, Stats
from pgflow.worker.turns.schedule import Schedule, UpkeepPause
from pgflow.worker.turns.turn import Turn

__all__ = ["WorkerState"]


@dataclass(slots=True)
class WorkerState:
    """The state of one worker between two turns.

    `should_claim`: there may be ready jobs, so claim with the next turn. `should_check_revoked`: jobs that run here may
    have been taken away. `breaking_migration` is one that breaks this code, applied or announced. `notifications` are
    to be sent after the commit.
    """

    settler: Settler
    schedule: Schedule
    upkeep: UpkeepPause = field(default_factory=UpkeepPause)
    should_claim: bool = True
    should_check_revoked: bool = False
    breaking_migration: Applied | None = None
    payload_store: PayloadStore | None = None
    notifications: set[Notification] = field(default_factory=set)

    @property
    def schema(self) -> str:
        """The schema of this worker's database."""
        return self.settler.schema

    @property
    def worker(self) -> int:
        """This worker's id, 0 while it has none."""
        return self.settler.worker

    @property
    def held_jobs(self) -> HeldJobs:
        """The jobs that it holds."""
        return self.settler.held_jobs

    @property
    def stats(self) -> Stats:
        """Its counters."""
        return self.settler.stats

    def jobs_ready(self, queues: Iterable[str], turn: Turn) -> None:
        """Claim the jobs that a chore has made ready, and notify the workers of queues that this one does not serve."""
        ready = set(queues)
        self.notifications |= {QueueReady(queue) for queue in ready - self.held_jobs.buffers.keys()}
        if ready and not turn.is_claiming:  # a claim of the same turn sees them
            self.should_claim = True
