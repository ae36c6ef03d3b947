"""Read the settings of this worker's queues: pauses, concurrency, limits."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from pgflow.database.statement import Statement
from pgflow.logs import Logger
from pgflow.store import queue
from pgflow.store.queue import QueueSettings
from pgflow.worker.chores.chore import Chore
from pgflow.worker.turns.state import WorkerState
from pgflow.worker.turns.turn import Turn

__all__ = ["ReadQueues"]

log = Logger("pgflow.worker")

INTERVAL_SECONDS = 0.7  # at least; an idle worker takes a turn once in a poll


class ReadQueues(Chore[Sequence[QueueSettings]]):
    """Runs when a notification asks for it, and along with a turn about once a second: notifications may be lost."""

    name = "read queues"

    def __init__(self, state: WorkerState) -> None:
        super().__init__(state)
        self._next_at = 0.0

    def is_due(self, turn: Turn) -> bool:
        """Whether it was asked for, or some time has passed."""
        return self.state.should_read_queues or turn.now >= self._next_at

    def statement(self, turn: Turn) -> Statement[Sequence[QueueSettings]]:
        """Return the statement to send."""
        self.state.should_read_queues = False
        self._next_at = turn.now + INTERVAL_SECONDS
        return queue.read(self.state.schema, self.state.held_jobs.buffers, socket.gethostname())

    def on_answer(self, answer: Sequence[QueueSettings], turn: Turn) -> None:
        """Serve the queues like that from now on; jobs that wait in a paused one go back."""
        state = self.state
        state.knows_queues = True
        for each in answer:
            buffer = state.held_jobs.buffers[each.name]
            was_paused = buffer.is_paused
            if not buffer.apply(each.concurrency, is_paused=each.is_paused, is_limited=each.is_limited):
                continue
            state.claim_all()
            log.info("worker %d: queue %s: %s", state.worker, each.name, buffer)
            if buffer.is_paused and not was_paused:
                state.settler.release(job for job in buffer.take_waiting() if state.held_jobs.holds(job))
