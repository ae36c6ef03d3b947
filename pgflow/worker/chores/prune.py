"""Delete instances and tasks that ended too long ago."""

from __future__ import annotations

from typing import Any

from pgflow.core.models.task import TaskInstance
from pgflow.database.statement import Statement
from pgflow.jitter import uniform
from pgflow.logs import Logger
from pgflow.store import retention
from pgflow.store.instance import PruneResult
from pgflow.store.retention import Expired
from pgflow.worker.chores.chore import Chore
from pgflow.worker.retention import Batch
from pgflow.worker.turns.state import WorkerState
from pgflow.worker.turns.turn import Turn

__all__ = ["Prune"]

log = Logger("pgflow.worker")

INTERVAL_SECONDS = 60.0
SHARE = 4.0  # a backlog takes at most a fifth of the time of the worker's connection
MIN_PAUSE_SECONDS = 0.05
POLL_SECONDS = 0.5  # to see whether the archive is done


class Prune(Chore[Any]):
    """A batch now and then, and one after the other while there are more than a statement deletes.

    With an archive a batch is read, passed to it, and deleted once it has returned. Any number of workers may prune:
    each batch is deleted once, and an archive may get it several times.
    """

    name = "prune"

    def __init__(self, state: WorkerState) -> None:
        super().__init__(state)
        self._next_at: float | None = None  # None: not planned yet
        self._reads_tasks = False  # for the archive

    def is_due(self, turn: Turn) -> bool:
        """Whether the interval has passed, or there are more."""
        if self.state.retention is None:
            return False
        if self._next_at is None:  # workers that start together do not prune together
            self._next_at = turn.now + INTERVAL_SECONDS * uniform(0.0, 1.0)
        return turn.now >= self._next_at and not self.state.retention.is_archiving

    def statement(self, turn: Turn) -> Statement[Any]:
        """Return the statement to send: a batch that is archived goes first."""
        kept, schema = self.state.retention, self.state.schema
        assert kept is not None  # noqa: S101 -- for the type checker: asked in `is_due`
        self._next_at = turn.now + INTERVAL_SECONDS * uniform(0.9, 1.1)  # also when the statement is refused
        if archived := kept.take():
            return _deletion(schema, archived).then(lambda deleted: PruneResult(deleted, 0))
        if kept.has_archive:
            read = retention.read_expired_tasks if self._reads_tasks else retention.read_expired
            return read(schema, kept.ages)
        return retention.prune(schema, kept.ages)

    def on_answer(self, answer: Any, turn: Turn) -> None:
        """Pass on what was read, and plan the next batch."""
        kept = self.state.retention
        assert kept is not None  # noqa: S101 -- as above
        if isinstance(answer, PruneResult):
            if answer.deleted:
                log.debug("deleted instances that ended long ago: %d", answer.deleted)
            if answer.last is not None:
                self._next_at = turn.now + max(MIN_PAUSE_SECONDS, SHARE * answer.seconds)
        elif answer:
            kept.begin(answer)
            self._next_at = turn.now + POLL_SECONDS
        else:  # the tasks after the instances
            self._reads_tasks = not self._reads_tasks
            if self._reads_tasks:
                self._next_at = turn.now


def _deletion(schema: str, archived: Batch) -> Statement[int]:
    tasks = [each for each in archived if isinstance(each, TaskInstance)]
    if tasks:
        return retention.delete_archived_tasks(schema, tasks)
    return retention.delete_archived(schema, [each for each in archived if isinstance(each, Expired)])
