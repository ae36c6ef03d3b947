"""Settle and claim in one round trip and one commit, turn after turn, and wait out outages of the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from math import inf
from typing import Any, TypeVar, assert_never

from pgflow.database.connect import AsyncConnection, aconnect
from pgflow.database.db_errors import is_contention, is_data_error, is_row_error
from pgflow.database.statement import Statement, arun, arun_all
from pgflow.database.transaction_status import is_idle
from pgflow.errors import RowSecurityError
from pgflow.jitter import uniform
from pgflow.logs import Logger
from pgflow.migrations import migrate
from pgflow.payloads.store import PayloadStore
from pgflow.store import job, task, worker
from pgflow.store.job import PeekResult
from pgflow.store.migration import Applied
from pgflow.store.notification import CheckCancels, Notification, QueueReady, QueuesChanged, SweepRequested
from pgflow.worker import points
from pgflow.worker.admission import NONE, claim_capacity
from pgflow.worker.decide_task import AnyDecision
from pgflow.worker.lease.identity import Lease
from pgflow.worker.reports import Reports
from pgflow.worker.retention import Retention
from pgflow.worker.schedule_targets import ScheduleTargets
from pgflow.worker.settler import Settler
from pgflow.worker.turns.faults import OUTAGE, RECONNECT, REFUSAL, SCHEMA_SUSPECT, FaultLog, error_text
from pgflow.worker.turns.planner import Planner
from pgflow.worker.turns.schedule import Schedule
from pgflow.worker.turns.single import MAX_PAUSE_SECONDS, SingleSettler
from pgflow.worker.turns.state import WorkerState
from pgflow.worker.turns.turn import Turn

__all__ = ["Claimer"]

T = TypeVar("T")

log = Logger("pgflow.worker")

BUSY_SECONDS = 0.01  # until jobs that another session has locked are settled again
CONTENTION_LIMIT = 3  # failures of a batch by locks or deadlocks, after which it is settled one by one


class Claimer:
    """Owns the worker's connection for jobs. `turn` does all that is due, in one round trip where possible.

    `may_claim` returns whether the worker may take more jobs: it is not stopping, and its lease is safe.
    """

    def __init__(
        self,
        dsn: str,
        settler: Settler,
        lease: Lease,
        reports: Reports,
        *,
        pooler: bool,
        poll: timedelta,
        sweep: timedelta,
        may_claim: Callable[[], bool],
        payload_store: PayloadStore | None = None,
        retention: Retention | None = None,
        targets: ScheduleTargets | None = None,
    ) -> None:
        self.conn: AsyncConnection | None = None
        self.is_lease_lost = False
        self.state = WorkerState(
            settler,
            Schedule(poll, sweep),
            targets or ScheduleTargets(),
            reports,
            payload_store=payload_store,
            retention=retention,
        )
        self.faults = FaultLog(settler, self._ask)
        self._dsn = dsn
        self._pooler = pooler
        self._settler = settler
        self._planner = Planner(self.state, self._capacity, pooler=pooler)
        self._single = SingleSettler(settler, self.faults, self._ask)
        self._lease = lease
        self._may_claim = may_claim
        self._failures = 0
        self._unconfirmed: list[AnyDecision] = []  # sent, and not known to be committed
        self._is_in_doubt = False  # whether the database may hold jobs for this worker that its memory does not
        self._has_upkeep = False  # in the last round trip
        self._had_quarantined = False

    @property
    def has_work(self) -> bool:
        """Whether outcomes wait to be settled, for the first time or again, or a checkpoint to be written."""
        return self._has_outcomes or self._settler.has_deferred or self.state.reports.is_urgent

    @property
    def _has_outcomes(self) -> bool:
        return self._settler.has_outcomes or bool(self._unconfirmed)

    @property
    def is_cut_off(self) -> bool:
        """Whether the last turn did not get through to the database."""
        return self._failures > 0

    @property
    def found_nothing(self) -> bool:
        """Whether the last claim was empty."""
        return self._planner.found_nothing

    @property
    def breaking_migration(self) -> Applied | None:
        """The migration that breaks this code, applied or announced."""
        return self.state.breaking_migration

    def notified(self, notification: Notification) -> bool:
        """Take a notification into account with the next turn; returns whether it concerns this worker."""
        match notification:
            case CheckCancels():
                self.state.should_check_revoked = True
            case SweepRequested():
                self.state.schedule.sweep_now()
                self.state.queues_changed()
                self.state.claim_all()
            case QueuesChanged():
                self.state.queues_changed()
            case QueueReady(queue):
                return self.state.queue_ready(queue)
            case _:
                assert_never(notification)
        return True

    def claim_soon(self) -> None:
        """Claim with the next turn."""
        self.state.claim_all()

    def peeked(self, result: PeekResult) -> None:
        """Plan by a look at the database outside of a turn: make due jobs ready when the next one is due."""
        self.state.schedule.answered(time.monotonic(), result.next_due)

    def lose_lease(self) -> None:
        """Forget the held jobs with the next turn, and take a new identity."""
        self.is_lease_lost = True

    def notify(self, notifications: Iterable[Notification]) -> None:
        """Notify other workers after this turn's commit."""
        self.state.notifications |= set(notifications)

    def pause(self) -> float:
        """Return the seconds until something is due; 0 when there is something to do now."""
        if self._settler.is_held_up:
            return BUSY_SECONDS
        has_ended = self._has_outcomes or self._settler.ended
        if has_ended or self.is_lease_lost or self.state.should_check_revoked or self.state.reports.is_urgent:
            return 0.0
        now = time.monotonic()
        if self.state.should_read_queues and not self.state.upkeep.is_active(now):
            return 0.0
        pause = self._pause(now)
        if self._settler.has_deferred:
            return min(pause, max(0.0, self._single.retry_at - now))
        return pause

    def _pause(self, now: float) -> float:
        schedule = self.state.schedule
        upkeep_at = max(schedule.upkeep_at, self.state.upkeep.until)
        capacity = self._capacity(now)
        if not capacity:
            return max(0.0, upkeep_at - now)
        buffers = self._settler.held_jobs.buffers
        gates = [gate for queue in capacity if (gate := buffers[queue].gate) is not None]
        if self.state.should_claim and len(gates) < len(capacity):
            return 0.0
        gate_at = min((gate.due_at for gate in gates), default=inf)
        return max(0.0, min(schedule.poll_at, self._planner.below_watermark_at, upkeep_at, gate_at) - now)

    def _capacity(self, now: float, settling: Mapping[str, int] = NONE) -> dict[str, int]:
        may_claim = self.state.knows_queues and self._may_claim()
        return claim_capacity(self._settler.held_jobs, now, settling, may_claim=may_claim)

    async def turn(self) -> None:
        """Take one turn. During an outage, wait: unsettled results are kept until the database is back."""
        if self.is_lease_lost:
            self._forget_all()
        try:
            await self._exchange(await self._connected())
        except OUTAGE as error:
            await self._wait_out(await self._schema_checked(error))
        held_jobs, had_quarantined = self._settler.held_jobs, self._had_quarantined
        self._had_quarantined = held_jobs.has_quarantined
        if had_quarantined and not self._had_quarantined:  # it kept the worker from claiming
            self.state.claim_all()
        held_jobs.run_waiting()

    async def _connected(self) -> AsyncConnection:
        """Return the connection, under a valid identity: after a reconnect the lease may have expired."""
        if self.conn is None or self.conn.closed:
            self.conn = await aconnect(self._dsn, role="worker", pooler=self._pooler)
            self.state.claim_all()
            if self._settler.worker and not await self._ask(self.conn, self._lease.attach(self.conn)):
                self._forget_all()
        if not self._settler.worker:
            await self._lease.register(self.conn)
            self.is_lease_lost = False
        return self.conn

    def _forget_all(self) -> None:
        """Forget all jobs: the lease has ended, so they belong to other workers."""
        self._unconfirmed = []
        self._settler.abandon()
        self._settler.held_jobs.worker = 0

    async def _exchange(self, conn: AsyncConnection) -> None:
        turn = self._planner.plan(time.monotonic(), self._unconfirmed, is_in_doubt=self._is_in_doubt)
        self._unconfirmed = turn.decisions
        await self._send(conn, turn)
        self._failures = 0
        if await self._single.settle_deferred(conn):
            self.state.claim_all()
        if not self._settler.has_deferred and not self.state.upkeep.is_split:
            self.faults.current = None

    # -- sending it

    async def _send(self, conn: AsyncConnection, turn: Turn) -> None:
        self._has_upkeep = turn.has_upkeep
        if self.state.upkeep.is_split and turn.has_upkeep:
            await self._run_upkeep(conn, turn)
            self._has_upkeep = False
        if turn.requests:
            try:
                answers = await self._run_all(conn, [each.statement for each in turn.requests])
            except REFUSAL as error:
                if not turn.decisions or not self._may_concern_one(error):
                    raise
                self.state.claim_all()
                log.warning(
                    "a batch of %d cannot be settled (%s): settling one by one",
                    len(self._unconfirmed),
                    error_text(error),
                )
                await self._single.settle(conn, self._unconfirmed)
                return
            self._unconfirmed = []
            self._take_over(turn, answers)
            points.reached("claimer.adopted", turn.decisions)
        if self._is_in_doubt:  # a claim may have been committed without its answer: give those jobs back
            settler = self._settler
            await self._ask(conn, job.reconcile(settler.schema, settler.worker, settler.held_jobs.jobs))
            self._is_in_doubt = False
        await self._notify_others(conn, turn.now)

    async def _run_upkeep(self, conn: AsyncConnection, turn: Turn) -> None:
        """Run the turn's upkeep statement by statement, so that a refused one delays no other."""
        upkeep, schedule = self.state.upkeep, self.state.schedule
        is_sweep, sweep_at = schedule.is_sweep_due(turn.now), schedule.sweep_at
        has_answer, upkeep.is_split = False, False
        for request in turn.take_upkeep():
            try:
                answer = await self._ask(conn, request.statement)
            except REFUSAL as error:
                if not is_idle(conn):
                    raise
                upkeep.is_split = True
                await self.faults.report(error, f"upkeep ({request.upkeep})", conn)
            else:
                has_answer = True
                request.on_answer(answer, turn)
        if not has_answer:
            upkeep.begin(turn.now)
        elif is_sweep and schedule.sweep_at == sweep_at:  # the rescue, which plans the next one, was refused
            schedule.swept(turn.now, None)

    async def _run_all(self, conn: AsyncConnection, statements: list[Statement[Any]]) -> list[Any]:
        points.reached("claimer.sending", self._unconfirmed)
        if len(statements) == 1:
            answers = [await self._ask(conn, statements[0])]
        else:
            self._settler.stats.round_trips += 1
            answers = await arun_all(conn, statements)
        points.reached("claimer.sent")
        return answers

    async def _ask(self, conn: AsyncConnection, statement: Statement[T]) -> T:
        """Run one statement in a round trip of its own."""
        self._settler.stats.round_trips += 1
        return await arun(conn, statement)

    # -- taking over the answers

    def _take_over(self, turn: Turn, answers: list[Any]) -> None:
        for request, answer in zip(turn.requests, answers, strict=True):
            request.on_answer(answer, turn)
        self.state.schedule.expect(turn.conflict_due_at)

    # -- outages

    def _may_concern_one(self, error: Exception) -> bool:
        """Whether a batch may have been refused because of one instance, so that the others can be settled."""
        if is_data_error(error):
            return True
        if self._has_upkeep:  # it may be the cause: try without it first
            return False
        return is_row_error(error) or (is_contention(error) and self._failures >= CONTENTION_LIMIT)

    async def _schema_checked(self, error: Exception) -> Exception:
        """Return the error to wait out. Raises `SchemaError` where this code cannot work on the schema as it is now."""
        if isinstance(error, SCHEMA_SUSPECT) and self.conn is not None and not self.conn.closed:
            try:
                await migrate.acheck(self.conn, self._settler.schema)
            except RowSecurityError as hidden:  # may be switched off again: wait for that
                return hidden
        return error

    async def _wait_out(self, error: Exception) -> None:
        """Back off after an outage or a refusal; unsettled results are kept."""
        self._is_in_doubt = True
        self.state.claim_all()
        if self._has_upkeep:
            # Upkeep must not delay results: try again at once without it.
            self._has_upkeep = False
            self.state.upkeep.begin(time.monotonic())
            if self.conn is not None and is_idle(self.conn):
                self.state.upkeep.is_split = True
                log.warning("worker %d: %s; trying again without upkeep", self._settler.worker, str(error).strip())
                return
        self._failures += 1
        pause = min(MAX_PAUSE_SECONDS, 0.05 * 2 ** min(self._failures, 10)) * uniform(0.5, 1.0)
        log.warning("worker %d: %s; trying again in %.1f s", self._settler.worker, error_text(error), pause)
        is_usable = self.conn is not None and is_idle(self.conn)
        if isinstance(error, REFUSAL) and is_usable and not is_contention(error):
            await self.faults.report(error, "the statements of this worker", self.conn)
        if self.conn is not None and (not is_idle(self.conn) or isinstance(error, RECONNECT)):
            await self.conn.close()
        await asyncio.sleep(pause)

    # -- notifying others, after the commit

    async def _notify_others(self, conn: AsyncConnection, now: float) -> None:
        """Send notifications, except for queues that this worker can claim from itself."""
        if ended := self._settler.ended:
            self._settler.ended = []
            await self._ask(conn, task.notify_ended(self._settler.schema, ended))
        if not self.state.notifications:
            return
        notifications, self.state.notifications = self.state.notifications, set()
        capacity = self._capacity(now)
        own = {each for each in notifications if isinstance(each, QueueReady) and each.queue in capacity}
        for each in own:
            self.state.queue_ready(each.queue)
        if others := notifications - own:
            await self._ask(conn, worker.notify(self._settler.schema, others))
