"""Write the progress and the checkpoints of the jobs that run here."""

from __future__ import annotations

from pgflow.database.statement import Statement
from pgflow.store import job
from pgflow.worker.chores.chore import Chore
from pgflow.worker.turns.state import WorkerState
from pgflow.worker.turns.turn import Turn

__all__ = ["SaveReports"]

INTERVAL_SECONDS = 1.0  # between two writes of progress
LOCKED_SECONDS = 0.05  # until a checkpoint is written whose job was locked


class SaveReports(Chore[list[int]]):
    """One statement for all jobs of the worker: at once for a checkpoint, progress at most once a second."""

    name = "save reports"

    def __init__(self, state: WorkerState) -> None:
        super().__init__(state)
        self._next_at = 0.0

    def is_due(self, turn: Turn) -> bool:
        """Whether a checkpoint waits, or progress has not been written for a second."""
        reports = self.state.reports
        return reports.is_urgent or (reports.has_changes and turn.now >= self._next_at)

    def statement(self, turn: Turn) -> Statement[list[int]]:
        """Return the statement to send."""
        self._next_at = turn.now + INTERVAL_SECONDS
        return job.report(self.state.schema, self.state.worker, self.state.reports.take())

    def on_answer(self, answer: list[int], turn: Turn) -> None:
        """Let the steps go on whose checkpoints are written; look whether the others are still ours."""
        if self.state.reports.written(answer):
            self._next_at = turn.now + LOCKED_SECONDS
            self.state.schedule.expect(self._next_at)
            self.state.should_check_revoked = True
