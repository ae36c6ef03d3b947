"""Ask whether there is anything to do: the cheap poll of an idle worker."""

from __future__ import annotations

from pgflow.database.statement import Statement
from pgflow.store import job
from pgflow.store.job import PeekResult
from pgflow.worker.chores.chore import Chore
from pgflow.worker.chores.due import is_stage_due
from pgflow.worker.turns.turn import Turn

__all__ = ["Peek"]


class Peek(Chore[PeekResult]):
    """Reads whether a job is ready and when the next one is due, and locks nothing."""

    name = "peek"

    def is_due(self, turn: Turn) -> bool:
        """Whether it is time to poll without a claim, or the next due time is unknown; staging answers both."""
        schedule = self.state.schedule
        if is_stage_due(schedule, turn):
            return False
        is_due_unknown = not schedule.is_due_known and turn.now + turn.early >= schedule.due_at
        return is_due_unknown or (turn.is_polling and not turn.is_claiming)

    def statement(self, turn: Turn) -> Statement[PeekResult]:
        """Return the statement to send."""
        return job.peek(self.state.schema, [*turn.capacity, *turn.gated], self.state.targets.scope)

    def on_answer(self, answer: PeekResult, turn: Turn) -> None:
        """Claim if a job is ready."""
        self.state.schedule.answered(turn.now, answer.next_due)
        self.state.schedule.polled(turn.now)
        if answer.ready:
            self.state.claim_all()
