"""Plan the requests of a turn, and take over their answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from pgflow.store import job
from pgflow.store.job import ClaimedRow, SettleResult
from pgflow.worker.chores import chores
from pgflow.worker.chores.chore import Chore
from pgflow.worker.decide import Decision
from pgflow.worker.turns.schedule import EARLY_SECONDS
from pgflow.worker.turns.state import WorkerState
from pgflow.worker.turns.turn import Request, Turn
from pgflow.worker.turns.watermark import Watermark

__all__ = ["Planner"]

CONFLICT_SECONDS = 0.03  # until a job that met a second conflict is due: see job/settle
STALE_SECONDS = 2.0  # after which a claimed job that found no slot is given back


class Planner:
    """Plans the turns of one worker. `capacity(now)` is how many jobs it may claim, by queue.

    `found_nothing` is whether the last claim was empty, `below_watermark_at` when to claim below a watermark.
    """

    def __init__(self, state: WorkerState, capacity: Callable[[float], dict[str, int]], *, pooler: bool) -> None:
        self.found_nothing = False
        self.below_watermark_at = inf
        self._state = state
        self._capacity = capacity
        self._pooler = pooler
        self._chores = chores(state)
        self._watermark = Watermark()
        self._should_replan = False

    def plan(self, now: float, unconfirmed: list[Decision], *, is_in_doubt: bool) -> Turn:
        """Collect what to send: results, the upkeep that is due, and a claim if there is capacity.

        `unconfirmed` are decisions that were sent before, without an answer; they go first. While the worker
        `is_in_doubt` about what it holds, it claims nothing.
        """
        state, settler = self._state, self._state.settler
        turn = Turn(now, is_unconfirmed=bool(unconfirmed))
        if state.schedule.is_sweep_due(now) and not state.upkeep.is_active(now):
            settler.release(settler.held_jobs.take_stale(now - STALE_SECONDS))
        self._add_chores(turn, self._chores.before_settle)
        turn.decisions = unconfirmed or settler.take()
        turn.rejected = settler.held_jobs.take_rejected()
        if turn.decisions or turn.rejected:
            turn.add(settler.statement(turn.decisions, turn.rejected), self._settled)
        self._add_chores(turn, self._chores.before_claim)
        turn.early = EARLY_SECONDS if turn.requests else 0.0
        turn.is_polling = now >= state.schedule.poll_at - turn.early
        turn.capacity = {} if is_in_doubt else self._capacity(now)
        turn.positions = self._watermark.positions(now)
        if turn.capacity and (state.should_claim or turn.decisions or self._must_claim(turn)):
            self._add_claim(turn)
        self._add_chores(turn, self._chores.after_claim)
        return turn

    def _must_claim(self, turn: Turn) -> bool:
        """Whether to claim without a sign of new jobs: below a watermark, or where a poll has no peek."""
        state = self._state
        is_due = turn.now >= self.below_watermark_at or state.schedule.is_due_known
        return is_due or (turn.is_polling and state.upkeep.is_active(turn.now))

    def _add_claim(self, turn: Turn) -> None:
        state = self._state
        if self._should_replan and not self._pooler:
            turn.requests.insert(0, Request(job.replan(state.schema), lambda answer, turn: None))
        self._should_replan = False
        turn.add(job.claim(state.schema, state.worker, turn.capacity, turn.positions), self._claimed)
        turn.is_claiming = True
        state.should_claim = False  # a notification from here on is for the next claim

    def _add_chores(self, turn: Turn, candidates: Iterable[Chore[Any]]) -> None:
        is_paused = self._state.upkeep.is_active(turn.now)
        for chore in candidates:
            if not (is_paused and chore.is_upkeep) and chore.is_due(turn):
                upkeep = chore.name if chore.is_upkeep else None
                turn.add(chore.statement(turn), chore.on_answer, upkeep=upkeep)

    def _settled(self, rows: list[SettleResult], turn: Turn) -> None:
        self._state.settler.adopt(turn.decisions, rows)
        self._state.settler.adopt_rejected(turn.rejected, rows)
        if any(row.status == "conflict" for row in rows):
            turn.conflict_due_at = turn.now + CONFLICT_SECONDS

    def _claimed(self, rows: list[ClaimedRow], turn: Turn) -> None:
        state, settler = self._state, self._state.settler
        settler.stats.claimed += len(rows)
        settler.held_jobs.add_claimed(rows)
        claimed = dict.fromkeys(turn.capacity, 0)
        for row in rows:
            claimed[row.queue] += 1
        # A queue that filled its capacity may have more.
        state.should_claim |= any(claimed[queue] >= capacity for queue, capacity in turn.capacity.items())
        self.found_nothing = not rows
        # A slow claim has met dead tuples, or its plan was made while the table was almost empty.
        self._should_replan = self._watermark.learn(time.monotonic(), turn.capacity, turn.positions, rows)
        self.below_watermark_at = self._watermark.look_at(turn.capacity)
        state.schedule.polled(turn.now)
