"""Make due jobs ready: retries, timers and snoozed steps whose time has come."""

from __future__ import annotations

from pgflow.database.statement import Statement
from pgflow.store import job
from pgflow.store.job import StageResult
from pgflow.worker.chores.chore import Chore
from pgflow.worker.chores.due import is_stage_due
from pgflow.worker.turns.turn import Turn

__all__ = ["Stage"]


class Stage(Chore[StageResult]):
    """Runs when something is due, and after a settle that schedules something, to learn when that is."""

    name = "stage due jobs"

    def is_due(self, turn: Turn) -> bool:
        """Whether something is due or was scheduled."""
        return is_stage_due(self.state.schedule, turn)

    def statement(self, turn: Turn) -> Statement[StageResult]:
        """Return the statement to send."""
        return job.stage(self.state.schema)

    def on_answer(self, answer: StageResult, turn: Turn) -> None:
        """Plan the next time."""
        self.state.upkeep.recovered()
        self.state.schedule.answered(turn.now, answer.next_due)
        self.state.jobs_ready(answer.queues, turn)
