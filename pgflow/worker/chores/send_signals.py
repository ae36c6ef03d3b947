"""Send the scheduled signals whose time has come."""

from __future__ import annotations

from pgflow.database.statement import Statement
from pgflow.store import signal
from pgflow.store.signal import SendDueResult
from pgflow.worker.chores.chore import Chore
from pgflow.worker.chores.due import is_stage_due
from pgflow.worker.turns.turn import Turn

__all__ = ["SendSignals"]


class SendSignals(Chore[SendDueResult]):
    """Runs together with the staging of due jobs."""

    name = "send due signals"

    def is_due(self, turn: Turn) -> bool:
        """Whether something is due or was scheduled."""
        return is_stage_due(self.state.schedule, turn)

    def statement(self, turn: Turn) -> Statement[SendDueResult]:
        """Return the statement to send."""
        return signal.send_due(self.state.schema)

    def on_answer(self, answer: SendDueResult, turn: Turn) -> None:
        """Plan the next time."""
        self.state.schedule.answered(turn.now, answer.next_due)
        self.state.jobs_ready(answer.queues, turn)
