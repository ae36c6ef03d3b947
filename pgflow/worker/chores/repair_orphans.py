"""Give a job to active instances that have none."""

from __future__ import annotations

from pgflow.database.statement import Statement
from pgflow.logs import Logger
from pgflow.store import job
from pgflow.store.job import RepairResult
from pgflow.worker.chores.chore import SweepChore
from pgflow.worker.turns.state import WorkerState
from pgflow.worker.turns.turn import Turn

__all__ = ["RepairOrphans"]

log = Logger("pgflow.worker")


class RepairOrphans(SweepChore[RepairResult]):
    """Repairs orphaned instances, a page with each sweep: a job row was deleted by hand or by a defect."""

    name = "repair orphans"

    def __init__(self, state: WorkerState) -> None:
        super().__init__(state)
        self._last_run = 0  # the end of the page that was checked last

    def statement(self, turn: Turn) -> Statement[RepairResult]:
        """Return the statement to send."""
        return job.repair_orphaned(self.state.schema, self._last_run)

    def on_answer(self, answer: RepairResult, turn: Turn) -> None:
        """Log the repairs, and go on with the next page."""
        self._last_run = answer.last_run or 0
        if answer.jobs:
            log.warning("active instances without a job, which are resumed: %d", answer.jobs)
        self.state.jobs_ready(answer.queues, turn)
