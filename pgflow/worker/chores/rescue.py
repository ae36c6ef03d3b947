"""Return the jobs of workers whose lease expired to their queues."""

from __future__ import annotations

from pgflow.database.statement import Statement
from pgflow.store import job
from pgflow.store.job import RescueResult
from pgflow.worker import report
from pgflow.worker.chores.chore import SweepChore
from pgflow.worker.turns.turn import Turn

__all__ = ["Rescue"]


class Rescue(SweepChore[RescueResult]):
    """The recovery from crashes. Its answer also plans the next sweep."""

    name = "rescue"

    def statement(self, turn: Turn) -> Statement[RescueResult]:
        """Return the statement to send."""
        return job.rescue(self.state.schema)

    def on_answer(self, answer: RescueResult, turn: Turn) -> None:
        """Count and report the jobs, and sweep again when the next lease could expire."""
        state = self.state
        state.upkeep.recovered()
        state.schedule.swept(turn.now, answer.next_expiry)
        state.stats.rescued += answer.jobs
        report.rescued(state.worker, answer)
        state.jobs_ready(answer.queues, turn)
