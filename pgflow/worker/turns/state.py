"""The state that the turns of one worker share, and that its chores may change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pgflow.payloads.store import PayloadStore
from pgflow.store.migration import Applied
from pgflow.store.notification import Notification, QueueReady
from pgflow.worker.held_jobs import HeldJobs
from pgflow.worker.reports import Reports
from pgflow.worker.retention import Retention
from pgflow.worker.schedule_targets import ScheduleTargets
from pgflow.worker.settler import Settler, Stats
from pgflow.worker.turns.schedule import Schedule, UpkeepPause
from pgflow.worker.turns.turn import Turn

__all__ = ["WorkerState"]


@dataclass(slots=True)
class WorkerState:
    """The state of one worker between two turns.

    `targets` are what it may start for schedules.
    `should_claim`: there may be ready jobs, so claim with the next turn. `should_read_queues`: a queue was paused,
    scaled or limited; `knows_queues`: they have been read once, before which nothing is claimed.
    `should_check_revoked`: jobs that run here may have been taken away. `retention` is what it deletes by itself, None:
    nothing. `breaking_migration` is one that breaks this code, applied or announced. `notifications` are sent after
    the commit. `reports` are the progress and the checkpoints to write.
    """

    settler: Settler
    schedule: Schedule
    targets: ScheduleTargets = field(default_factory=ScheduleTargets)
    reports: Reports = field(default_factory=Reports)
    retention: Retention | None = None
    upkeep: UpkeepPause = field(default_factory=UpkeepPause)
    should_claim: bool = True
    should_check_revoked: bool = False
    should_read_queues: bool = True
    knows_queues: bool = False
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
        for queue in ready & self.held_jobs.buffers.keys():
            gate = self.held_jobs.buffers[queue].gate
            if gate is None and not turn.is_claiming:  # a claim of the same turn sees them
                self.should_claim = True
            elif gate is not None and queue not in turn.rooms:
                gate.want()

    def queue_ready(self, queue: str) -> bool:
        """Claim from a queue with the next turn; returns whether this worker serves it."""
        buffer = self.held_jobs.buffers.get(queue)
        if buffer is not None and buffer.gate is not None:
            buffer.gate.want()
        elif buffer is not None:
            self.should_claim = True
        return buffer is not None

    def claim_all(self) -> None:
        """Claim from every queue with the next turn."""
        self.should_claim = True
        for buffer in self.held_jobs.buffers.values():
            if buffer.gate is not None:
                buffer.gate.want()

    def queues_changed(self) -> None:
        """Read the settings of the queues, and claim again where limits allowed nothing."""
        self.should_read_queues = True
        for buffer in self.held_jobs.buffers.values():
            if buffer.gate is not None:
                buffer.gate.changed()
