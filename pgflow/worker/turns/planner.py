"""Plan the requests of a turn, and take over their answers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

from pgflow.store import job
from pgflow.store.job import ClaimedRow, LimitedAnswer, SettleResult
from pgflow.store.notification import QueueReady
from pgflow.worker.admission import NONE
from pgflow.worker.chores import chores
from pgflow.worker.chores.chore import Chore
from pgflow.worker.decide_task import AnyDecision
from pgflow.worker.turns.schedule import EARLY_SECONDS
from pgflow.worker.turns.state import WorkerState
from pgflow.worker.turns.turn import Request, Turn
from pgflow.worker.turns.watermark import Watermark

__all__ = ["Planner"]

CONFLICT_SECONDS = 0.03  # until a job that met a second conflict is due: see job/settle
STALE_SECONDS = 2.0  # after which a claimed job that found no slot is given back


class Planner:
    """Plans the turns of one worker. `capacity(now, settling)` is how many jobs it may claim, by queue.

    `found_nothing` is whether the last claim was empty, `below_watermark_at` when to claim below a watermark.
    """

    def __init__(
        self, state: WorkerState, capacity: Callable[[float, Mapping[str, int]], dict[str, int]], *, pooler: bool
    ) -> None:
        self.found_nothing = False
        self.below_watermark_at = inf
        self._state = state
        self._capacity = capacity
        self._pooler = pooler
        self._chores = chores(state)
        self._watermark = Watermark()
        self._should_replan = False

    def plan(self, now: float, unconfirmed: list[AnyDecision], *, is_in_doubt: bool) -> Turn:
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
        turn.schedules_jobs = any(decision.schedules_jobs for decision in turn.decisions)
        turn.rejected = settler.held_jobs.take_rejected()
        if turn.decisions or turn.rejected:
            turn.add(settler.statement(turn.decisions, turn.rejected), self._settled)
        self._add_chores(turn, self._chores.before_claim)
        turn.early = EARLY_SECONDS if turn.requests else 0.0
        turn.is_polling = now >= state.schedule.poll_at - turn.early
        if not is_in_doubt:
            self._plan_claims(turn)
        self._add_chores(turn, self._chores.after_claim)
        return turn

    def _plan_claims(self, turn: Turn) -> None:
        """Claim from the queues with capacity; from one with a gate, if that makes sense now.

        What this turn settles has left its slots, so a gated queue counts them as free: its claim takes no prefetch.
        """
        state, now = self._state, turn.now
        buffers, settling = state.held_jobs.buffers, NONE
        if any(buffer.gate is not None for buffer in buffers.values()):
            settling = Counter(outcome.job.queue for decision in turn.decisions for outcome in decision.outcomes)
        capacity = self._capacity(now, settling)
        turn.capacity = {queue: count for queue, count in capacity.items() if buffers[queue].gate is None}
        turn.gated = {queue: count for queue, count in capacity.items() if buffers[queue].gate is not None}
        turn.positions = self._watermark.positions(now)
        is_claiming = bool(turn.capacity) and (state.should_claim or bool(turn.decisions) or self._must_claim(turn))
        gates = {queue: gate for queue in turn.gated if (gate := buffers[queue].gate) is not None}
        turn.rooms = {
            queue: turn.gated[queue]
            for queue, gate in gates.items()
            if gate.should_ask(now, has_settled=settling.get(queue, 0) > 0, is_peeking=not is_claiming)
        }
        if turn.rooms or is_claiming:
            self._add_claim(turn, is_claiming=is_claiming)

    def _must_claim(self, turn: Turn) -> bool:
        """Whether to claim without a sign of new jobs: below a watermark, or where a poll has no peek."""
        state = self._state
        is_due = turn.now >= self.below_watermark_at or state.schedule.is_due_known
        return is_due or (turn.is_polling and state.upkeep.is_active(turn.now))

    def _add_claim(self, turn: Turn, *, is_claiming: bool) -> None:
        state = self._state
        if self._should_replan and not self._pooler:
            turn.requests.insert(0, Request(job.replan(state.schema), lambda answer, turn: None))
        self._should_replan = False
        if turn.rooms:
            buffers = state.held_jobs.buffers
            hints = {queue: gate.asked(turn.now) for queue in turn.rooms if (gate := buffers[queue].gate)}
            turn.add(job.claim_limited(state.schema, state.worker, turn.rooms, hints), self._answered)
        turn.is_claiming = is_claiming
        if is_claiming:
            state.should_claim = False  # a notification from here on is for the next claim
            turn.add(job.claim(state.schema, state.worker, turn.capacity, turn.positions), self._claimed)
        else:  # for the rows of the gated queues alone
            turn.add(job.claim(state.schema, state.worker, {}), self._claimed)

    def _add_chores(self, turn: Turn, candidates: Iterable[Chore[Any]]) -> None:
        is_paused = self._state.upkeep.is_active(turn.now)
        for chore in candidates:
            if not (is_paused and chore.is_upkeep) and chore.is_due(turn):
                upkeep = chore.name if chore.is_upkeep else None
                turn.add(chore.statement(turn), chore.on_answer, upkeep=upkeep)

    def _settled(self, rows: list[SettleResult], turn: Turn) -> None:
        state = self._state
        state.settler.adopt(turn.decisions, rows)
        state.settler.adopt_rejected(turn.rejected, rows)
        if any(row.status == "conflict" for row in rows):
            turn.conflict_due_at = turn.now + CONFLICT_SECONDS
        if turn.decisions and not turn.gated:  # it claims nothing: others may take the places that it has freed
            queues = {outcome.job.queue for decision in turn.decisions for outcome in decision.outcomes}
            gated = {queue for queue in queues if state.held_jobs.buffers[queue].gate is not None}
            state.notifications |= {QueueReady(queue) for queue in gated}

    def _answered(self, answers: list[LimitedAnswer], turn: Turn) -> None:
        now = time.monotonic()
        for each in answers:
            if (gate := self._state.held_jobs.buffers[each.queue].gate) is not None:
                gate.answered(now, each)

    def _claimed(self, rows: list[ClaimedRow], turn: Turn) -> None:
        state, settler = self._state, self._state.settler
        settler.stats.claimed += len(rows)
        settler.held_jobs.add_claimed(rows)
        self.found_nothing = not rows
        if not turn.is_claiming:
            return
        if turn.rooms:
            rows = [row for row in rows if row.queue in turn.capacity]
        claimed = dict.fromkeys(turn.capacity, 0)
        for row in rows:
            claimed[row.queue] += 1
        # A queue that filled its capacity may have more.
        state.should_claim |= any(claimed[queue] >= capacity for queue, capacity in turn.capacity.items())
        # A slow claim has met dead tuples, or its plan was made while the table was almost empty.
        self._should_replan = self._watermark.learn(time.monotonic(), turn.capacity, turn.positions, rows)
        self.below_watermark_at = self._watermark.look_at(turn.capacity)
        state.schedule.polled(turn.now)
