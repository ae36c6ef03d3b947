"""Collect outcomes, decide on them in batches, and adopt in memory what the settle has written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pgflow.core.values.sanitize import error_message, sanitize_line, sanitize_text, type_name
from pgflow.database.statement import Statement
from pgflow.logs import Logger, is_interrupt
from pgflow.store import job
from pgflow.store.job import SettleResult
from pgflow.store.job_updates import Branch, JobUpdate, Move, Retry, Snooze
from pgflow.store.notification import CheckCancels, Notification, QueueReady
from pgflow.telemetry.bus import handlers_by_event
from pgflow.worker import report
from pgflow.worker.claimed_job import CachedInstance, ClaimedJob
from pgflow.worker.claimed_task import ClaimedTask, HeldJob
from pgflow.worker.committed import Committed, JobOutcome
from pgflow.worker.decide import Decision, decide
from pgflow.worker.decide_task import AnyDecision, TaskDecision, decide_task
from pgflow.worker.held_jobs import HeldJobs, RejectedJob
from pgflow.worker.outcome import AnyOutcome, AttemptFailed, Outcome, Released, TaskOutcome

__all__ = ["Settler", "Stats"]

log = Logger("pgflow.worker")

BATCH_LIMIT = 1000  # outcomes in one settle


@dataclass(slots=True)
class Stats:
    """Counters of a worker's activity since it started; they only grow.

    `round_trips` excludes the heartbeats, one in a quarter of a lease.
    """

    steps: int = 0
    tasks: int = 0
    retries: int = 0
    round_trips: int = 0
    claimed: int = 0
    conflicts: int = 0
    fenced: int = 0
    rescued: int = 0


class Settler:
    """Takes outcomes, returns decisions, and adopts them once they are written.

    `notify(notifications)` notifies other workers, after the commit.
    """

    def __init__(
        self,
        schema: str,
        held_jobs: HeldJobs,
        *,
        notify: Callable[[Iterable[Notification]], None],
        stats: Stats | None = None,
    ) -> None:
        self.schema = schema
        self.held_jobs = held_jobs
        self.stats = Stats() if stats is None else stats
        self.is_draining = False
        self.is_held_up = False
        self._outcomes: list[AnyOutcome] = []
        self._deferred: list[list[AnyOutcome]] = []  # by instance, and by task
        self._spare: dict[str, int] = {}
        self.ended: list[int] = []  # tasks that apps may wait for, until they have been notified
        self._notify = notify

    def finished(self, outcome: JobOutcome) -> None:
        """Accept the outcome of a job that ran."""
        buffer = self.held_jobs.buffers[outcome.job.queue]
        buffer.finished(outcome.job)
        if isinstance(outcome, Committed):
            self.adopt([outcome.decision], outcome.rows)
        elif self.held_jobs.holds(outcome.job):
            self._outcomes.append(outcome)
        else:
            buffer.settled(outcome.job)

    def release(self, jobs: Iterable[HeldJob]) -> None:
        """Release jobs that have not begun to run."""
        for held in jobs:
            self.held_jobs.buffers[held.queue].releasing(held)
            self._outcomes.append(Released(held))

    @property
    def worker(self) -> int:
        """The worker's id in the database, 0 while it has none."""
        return self.held_jobs.worker

    @property
    def has_outcomes(self) -> bool:
        """Whether outcomes wait to be settled."""
        return bool(self._outcomes or self.held_jobs.rejected)

    @property
    def outcomes(self) -> int:
        """How many outcomes wait to be settled."""
        return len(self._outcomes)

    @property
    def has_deferred(self) -> bool:
        """Whether outcomes are kept that the database rejected through no fault of their steps."""
        return bool(self._deferred)

    def defer(self, decision: AnyDecision) -> None:
        """Keep the outcomes of a decision that the database rejects for now, after those that are already kept.

        Their jobs stay with this worker and occupy slots of their queues. This is backpressure: a worker that cannot
        record results claims less and less, and finally nothing.
        """
        self._deferred.append(list(decision.outcomes))

    def take_deferred(self) -> AnyDecision | None:
        """Take out the outcomes that were kept longest, decided on the present state of their instance."""
        while self._deferred:
            kept = []
            for outcome in self._deferred.pop(0):
                if self.held_jobs.holds(outcome.job):
                    kept.append(outcome)
                else:
                    self.held_jobs.buffers[outcome.job.queue].settled(outcome.job)
            if kept:
                return self._decide_or_fail(kept)
        return None

    def take(self) -> list[AnyDecision]:
        """Decide on the outcomes that wait, one decision per instance and per task."""
        batch, self._outcomes = self._outcomes[:BATCH_LIMIT], self._outcomes[BATCH_LIMIT:]
        self._spare = {name: buffer.idle_slots() for name, buffer in self.held_jobs.buffers.items()}
        by_run: dict[int, list[AnyOutcome]] = {}
        decisions: list[AnyDecision] = []
        for outcome in batch:
            held = outcome.job
            if not self.held_jobs.holds(held):
                self.held_jobs.buffers[held.queue].settled(held)
            elif isinstance(held, ClaimedTask):
                decisions.append(decide_task(held, cast("TaskOutcome", outcome)))
            else:
                by_run.setdefault(held.instance.run, []).append(outcome)
        decisions += [self._decide_or_fail(outcomes) for outcomes in by_run.values()]
        return decisions

    def _decide_or_fail(self, outcomes: list[AnyOutcome]) -> AnyDecision:
        """Decide; if that raises, fail this instance, so that it cannot block the others of the batch."""
        try:
            return self.decide(outcomes)
        except BaseException as error:  # nothing is awaited here, so it is not a cancellation
            if is_interrupt(error):
                raise
            log.exception("%s: its outcome cannot be decided on", outcomes[0].job.title)
            text = sanitize_text(f"the step's outcome does not fit the workflow: {error_message(error)}")
            return self.decide(
                [AttemptFailed(each.job, text, type_name(error), retry=False, is_fatal=True) for each in outcomes]
            )

    def decide(self, outcomes: Sequence[AnyOutcome]) -> AnyDecision:
        """Decide on outcomes of one instance, or on that of one task."""
        held = outcomes[0].job
        if isinstance(held, ClaimedTask):
            return decide_task(held, cast("TaskOutcome", outcomes[0]))
        of_instance = cast("Sequence[Outcome]", outcomes)
        if not handlers_by_event:
            return decide(held.instance, of_instance, self._keep)
        began = time.perf_counter()
        decision = decide(held.instance, of_instance, self._keep)
        decision.seconds = time.perf_counter() - began
        return decision

    def _keep(self, queue: str, needs_slot: bool) -> bool:
        """Whether a job that goes on in `queue` may stay with this worker."""
        buffer = self.held_jobs.buffers.get(queue)
        if buffer is None or self.is_draining or self.held_jobs.has_quarantined:
            return False
        if buffer.is_paused or buffer.gate is not None:
            return False
        if not needs_slot:
            return True
        self._spare[queue] = self._spare.get(queue, 0) - 1
        return self._spare[queue] >= 0

    def statement(
        self, decisions: Sequence[AnyDecision], rejected: Iterable[RejectedJob] = ()
    ) -> Statement[list[SettleResult]]:
        """Return the settle statement for decisions, and for jobs that were claimed and rejected."""
        updates = [update for decision in decisions for update in decision.updates]
        updates += [each.update for each in rejected]
        instances = [decision.instance_update for decision in decisions if decision.instance_update is not None]
        instances += {update.run: update for each in rejected if (update := each.instance_update) is not None}.values()
        branches = [branch for decision in decisions for branch in decision.branches]
        finishes = [decision.finish for decision in decisions if decision.finish is not None]
        return job.settle(self.schema, self.worker, updates, instances, branches, finishes)

    def adopt(self, decisions: Sequence[AnyDecision], settled: list[SettleResult]) -> None:
        """Adopt what was written: jobs that go on here are held, the others are forgotten."""
        results = {row.id: row for row in settled if not row.is_branch}
        notifications: set[Notification] = set()
        before = len(self._outcomes)
        of_instances: list[Decision] = []
        for decision in decisions:
            if isinstance(decision, TaskDecision):
                self._adopt_task(decision, results[decision.job.id], notifications)
            else:
                of_instances.append(decision)
        for decision in of_instances:
            is_written = self._adopt_state(decision, results)
            for outcome, update in zip(decision.outcomes, decision.updates, strict=True):
                self._adopt_job(outcome, update, results[update.id], notifications)
            self._end_failed(decision, notifications)
            if handlers_by_event:
                report.settled(decision, results, is_written=is_written)
        branches = {
            (branch.run, branch.step): (branch, decision.instance)
            for decision in of_instances
            for branch in decision.branches
        }
        for row in settled:
            if row.is_branch:
                self._adopt_branch(row, *branches[row.run or 0, row.step or ""], notifications)
        # All jobs are locked by other sessions: the next try may wait a moment.
        self.is_held_up = 0 < len(self._outcomes) - before == len(results)
        if notifications:
            self._notify(notifications)

    def drop(self, decision: AnyDecision) -> None:
        """Forget the jobs of a decision that cannot be written."""
        for outcome in decision.outcomes:
            self.held_jobs.buffers[outcome.job.queue].settled(outcome.job)
            self.held_jobs.give_up(outcome.job)

    def adopt_rejected(self, rejected: Iterable[RejectedJob], settled: list[SettleResult]) -> None:
        """Report the instances that failed because a job of theirs cannot be read, each once."""
        done = {row.id for row in settled if row.status == "done"}
        for each in {each.update.run: each for each in rejected if each.update.id in done}.values():
            report.rejected(each)

    def abandon(self) -> None:
        """Forget everything: the lease has ended."""
        self._outcomes.clear()
        self._deferred.clear()
        self.held_jobs.abandon()

    def _adopt_task(self, decision: TaskDecision, result: SettleResult, notifications: set[Notification]) -> None:
        """Forget the task, unless it must be settled again."""
        held, held_jobs = decision.job, self.held_jobs
        if not held_jobs.holds(held):
            held_jobs.buffers[held.queue].settled(held)
        elif result.status == "busy":
            self._outcomes.append(decision.outcome)
            return
        else:
            held_jobs.buffers[held.queue].settled(held)
            held_jobs.forget(held)
            if result.status == "fenced":
                self.stats.fenced += 1
                log.info("%s: the lease was revoked, its outcome is dropped", held.title)
                return
        if result.status != "done":
            return
        update, finish = decision.update, decision.finish
        if finish is not None:
            self.stats.tasks += 1
            if result.is_awaited:
                self.ended.append(held.id)
            if finish.status == "failed" and decision.error is not None:
                log.warning("%s failed: %s", held.title, sanitize_line(decision.error["reason"]))
        elif update is not None:
            self.stats.retries += isinstance(update.effect, Retry)
            if update.effect == Snooze():
                notifications.add(QueueReady(held.queue))
        if handlers_by_event:
            report.task_settled(decision)

    def _adopt_state(self, decision: Decision, results: Mapping[int, SettleResult]) -> bool:
        """Adopt the instance's state if it was written: a guarded decision is written as a whole or not at all.

        Returns whether it was.
        """
        done = [update for update in decision.updates if results[update.id].status == "done"]
        if len(done) < len(decision.updates) and not any(update.guarded for update in done):
            return False
        instance = decision.instance
        instance.advances += 1
        instance.state = decision.state
        instance.outputs.update(decision.outputs)
        if decision.metadata:
            instance.metadata.update(decision.metadata)
        if decision.consumed:
            instance.signals = [signal for signal in instance.signals if signal not in decision.consumed]
        if decision.instance_update is not None:
            instance.revision += 1
            instance.status = decision.instance_update.status or instance.status
        return True

    def _adopt_job(
        self, outcome: Outcome, update: JobUpdate, result: SettleResult, notifications: set[Notification]
    ) -> None:
        """Hold the job at its next step, or forget it; notify its queue if another worker may run it."""
        held, buffer = outcome.job, self.held_jobs.buffers[outcome.job.queue]
        if not self.held_jobs.holds(held):
            buffer.settled(held)
            return
        if result.status == "busy":
            self._outcomes.append(outcome)
            return
        buffer.settled(held)
        self.held_jobs.forget(held)
        match result.status:
            case "conflict":
                self.stats.conflicts += 1
                notifications.add(QueueReady((update.advance and update.advance.queue) or held.queue))
                return
            case "fenced":
                self.stats.fenced += 1
                log.info("step %s of %s: the lease was revoked, its outcome is dropped", update.step, held.instance.id)
                return
        self.stats.steps += update.result is not None
        match update.effect:
            case Move() as move if result.kept:
                self.held_jobs.hold(_moved(held, move))
            case Move(queue=queue):
                notifications.add(QueueReady(queue))
            case Snooze(seconds=None):
                notifications.add(QueueReady(held.queue))
            case Retry():
                self.stats.retries += 1

    def _adopt_branch(
        self, row: SettleResult, branch: Branch, instance: CachedInstance, notifications: set[Notification]
    ) -> None:
        if not row.kept:
            notifications.add(QueueReady(branch.queue))
            return
        self.held_jobs.hold(
            ClaimedJob(
                id=row.id,
                instance=instance,
                kind="execute",
                step=branch.step,
                config=branch.config,
                queue=branch.queue,
                priority=branch.priority,
                attempt=1,
                max_attempts=branch.max_attempts,
                solo=False,
            )
        )

    def _end_failed(self, decision: Decision, notifications: set[Notification]) -> None:
        instance, failure = decision.instance, decision.failure
        if failure is not None and instance.status == "failed":
            reason = sanitize_line(failure["reason"])
            log.warning("%s %s failed at step %s: %s", instance.graph.name, instance.id, failure["step"], reason)
            self.held_jobs.give_up_instance(instance)
            if not all(outcome.job.solo for outcome in decision.outcomes):
                notifications.add(CheckCancels())  # siblings that run on other workers are revoked


def _moved(held: ClaimedJob, move: Move) -> ClaimedJob:
    """Return the job at its next step."""
    checkpoint = None
    if not held.step and held.checkpoint is not None:  # of the step that is retried
        kept = json.loads(held.checkpoint)
        checkpoint = json.dumps(kept[move.step]) if move.step in kept else None
    moved = ClaimedJob(
        held.id,
        held.instance,
        "execute",
        move.step,
        move.config,
        move.queue,
        move.priority,
        1,  # the attempt
        move.max_attempts,
        move.solo,
    )
    moved.checkpoint = checkpoint
    return moved
