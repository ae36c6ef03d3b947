"""Hold the jobs that a worker has claimed, and what it knows of their instances."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgflow.core.definition.definition import Definition
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.definition.workflow import DefinedWorkflow
from pgflow.core.values.sanitize import error_message, sanitize_line, sanitize_text, type_name
from pgflow.errors import DecryptionUnavailable, PayloadUnavailable
from pgflow.logs import Logger
from pgflow.payloads.policy import DEFAULT, PayloadPolicy
from pgflow.store.job import ClaimedRow
from pgflow.store.job_updates import Effect, End, Fail, InstanceUpdate, JobUpdate, Snooze
from pgflow.worker.claimed_job import (
    POISONED_FROM,
    QUARANTINE_FROM,
    CachedInstance,
    ClaimedJob,
    cached_instance,
    caller,
    claimed_job,
)
from pgflow.worker.claimed_task import HeldJob, claimed_task
from pgflow.worker.queue_buffer import QueueBuffer

__all__ = ["HeldJobs", "RejectedJob"]

log = Logger("pgflow.worker")

PASS_ON_SECONDS = 10.0  # until a job is offered again that this worker cannot run: another release or key may be there


@dataclass(frozen=True, slots=True)
class RejectedJob:
    """A claimed job that cannot run here: what to write about it, and the error if its instance fails with it.

    `head` is the claimed row that carried the instance's columns, `caller` the telemetry metadata of the start.
    """

    update: JobUpdate
    failure: dict[str, Any] | None = None
    head: ClaimedRow | None = None
    caller: Mapping[str, Any] = field(default_factory=dict)

    @property
    def instance_update(self) -> InstanceUpdate | None:
        """The update of the instance, if it fails with the job."""
        if self.failure is None:
            return None
        run = self.update.run
        return None if run is None else InstanceUpdate(run, None, "failed", error=json.dumps(self.failure), hook=True)


class UnknownHere(Exception):
    """No app of this worker defines the job's workflow, version or step."""


class HeldJobs:
    """The claimed jobs in a worker's memory, from the claim until their outcome is recorded.

    `start(job)` begins to run a job, `drop(job)` stops one that this worker no longer owns. `payloads` reads
    stored values.
    """

    def __init__(
        self,
        buffers: Mapping[str, QueueBuffer],
        *,
        start: Callable[[HeldJob], None],
        drop: Callable[[HeldJob], None],
        payloads: PayloadPolicy = DEFAULT,
    ) -> None:
        self.buffers = buffers
        self.jobs: dict[int, HeldJob] = {}
        self.rejected: list[RejectedJob] = []
        self.worker = 0  # the id in the database of the worker that holds them, 0 while it has none
        self._workflows: dict[tuple[str, int], Definition] = {}
        self._tasks: dict[str, TaskDefinition] = {}
        self._instances: dict[int, CachedInstance] = {}
        self._start = start
        self._drop = drop
        self._payloads = payloads
        self._quarantined: list[HeldJob] = []  # each runs once nothing else is held
        self._isolated: HeldJob | None = None  # the quarantined job that runs

    @property
    def has_quarantined(self) -> bool:
        """Whether a quarantined job is held: it waits until it is the only one, or runs alone."""
        return bool(self._quarantined) or self._isolated is not None

    def register(self, workflow: type[DefinedWorkflow[Any]]) -> None:
        """Make a workflow known by its name, in all its versions."""
        for each in workflow.definitions.versions.values():
            self._workflows[each.name, each.version] = each
            if each.options.partition_by:
                for queue in each.graph.queues() & self.buffers.keys():
                    self.buffers[queue].expect_keys()

    def register_task(self, task: TaskDefinition) -> None:
        """Make a task known by its name."""
        self._tasks[task.name] = task
        if task.partition_by and task.queue in self.buffers:
            self.buffers[task.queue].expect_keys()

    def holds(self, job: HeldJob) -> bool:
        """Whether exactly this claim is held: the job has neither moved on nor been given up."""
        return self.jobs.get(job.id) is job

    def add_claimed(self, rows: list[ClaimedRow]) -> None:
        """Hold the jobs of a claim.

        A job whose workflow or key is unknown here is passed on to another worker; one whose stored values cannot be
        read fails its instance; one whose instance was deleted by hand is deleted. Of several quarantined jobs one is
        kept: a crash is blamed on the only job that its worker held.
        """
        now = time.monotonic()
        heads = {row.run: row for row in rows if row.run is not None and row.business_id is not None}
        instances = {number: self._instance(row) for number, row in heads.items()}
        for row in rows:
            if QUARANTINE_FROM <= row.crashes < POISONED_FROM and self.has_quarantined:  # of another queue's claim
                self.rejected.append(RejectedJob(_rejection(row, Snooze())))
                continue
            if row.run is None:
                self._add_task(row, now)
                continue
            instance = instances.get(row.run)
            if instance is None:
                log.warning("job %d belongs to run %d, which does not exist: the job is deleted", row.id, row.run)
                self.rejected.append(RejectedJob(_rejection(row, End())))
                continue
            try:
                if isinstance(instance, BaseException):
                    raise instance
                if row.step and row.step not in instance.graph.nodes:
                    raise UnknownHere(
                        f"version {instance.version} of {instance.graph.name} has no step {row.step!r} here"
                    )
                self.hold(claimed_job(row, instance, now))
            except (
                UnknownHere,
                DecryptionUnavailable,
                PayloadUnavailable,
            ) as error:  # usual in a rolling deployment
                log.warning("%s: job %d is left to another worker", sanitize_line(error_message(error)), row.id)
                self.rejected.append(RejectedJob(_rejection(row, Snooze(PASS_ON_SECONDS))))
            except BaseException as error:  # from the codec's code; nothing is awaited here
                reason = f"stored data cannot be read: {sanitize_text(error_message(error))}"
                log.error("job %d of run %d: %s", row.id, row.run, sanitize_line(reason))
                failure = {
                    "step": row.step,
                    "reason": reason,
                    "type": type_name(error),
                }
                head = heads[row.run]
                self.rejected.append(RejectedJob(_rejection(row, Fail()), failure, head, caller(head.metadata)))
        for instance in instances.values():
            if isinstance(instance, CachedInstance) and not instance.jobs:
                self._instances.pop(instance.run, None)

    def _add_task(self, row: ClaimedRow, now: float) -> None:
        task = self._tasks.get(row.step)
        if task is not None:
            self.hold(claimed_task(row, task, now))
            return
        # Usual during a rolling deployment.
        log.warning("no app here defines the task %s: job %d is left to another worker", row.step, row.id)
        self.rejected.append(RejectedJob(_rejection(row, Snooze(PASS_ON_SECONDS))))

    def _instance(self, row: ClaimedRow) -> CachedInstance | BaseException:
        workflow = self._workflows.get((row.workflow or "", row.version or 0))
        if workflow is None:
            return UnknownHere(f"no app here defines {row.workflow} in version {row.version}")
        try:
            instance = cached_instance(row, workflow, self._payloads)
        except BaseException as error:  # from the codec's code; nothing is awaited here
            return error
        cached = self._instances.get(instance.run)
        if cached is None:
            self._instances[instance.run] = instance
            return instance
        cached.refresh(instance)  # in place: jobs that run now refer to it
        return cached

    def take_rejected(self) -> list[RejectedJob]:
        """Take out the rejected jobs, to settle them."""
        rejected, self.rejected = self.rejected, []
        return rejected

    def hold(self, job: HeldJob) -> None:
        """Hold a job, and run it as soon as its queue has a free slot.

        An earlier claim of the same job is given up: this worker's lease had expired, it rescued its own jobs, and
        claimed this one again before it noticed.
        """
        earlier = self.jobs.get(job.id)
        if earlier is not None:
            self.give_up(earlier)
        job.worker = self.worker
        if isinstance(job, ClaimedJob):
            job.instance.jobs += 1
            self._instances[job.instance.run] = job.instance
        self.jobs[job.id] = job
        job.since = time.monotonic()
        if job.is_quarantined:
            self._quarantined.append(job)
        else:
            self.buffers[job.queue].push(job)

    def run_waiting(self) -> None:
        """Start as many jobs as there are free slots; a quarantined one once no other job is held."""
        if self._quarantined and len(self.jobs) == len(self._quarantined) and not self.rejected:
            self._isolated = self._quarantined.pop(0)
            self.buffers[self._isolated.queue].push(self._isolated)
        for buffer in self.buffers.values():
            while (job := buffer.pop()) is not None:
                if self.holds(job):
                    self._start(job)
                else:
                    buffer.drop(job)

    def forget(self, job: HeldJob) -> None:
        """Stop holding a job whose outcome is recorded."""
        if self.holds(job):
            del self.jobs[job.id]
        if job is self._isolated:
            self._isolated = None
        elif job in self._quarantined:
            self._quarantined.remove(job)
        if isinstance(job, ClaimedJob):
            job.instance.jobs -= 1
            if job.instance.jobs <= 0:
                self._instances.pop(job.instance.run, None)

    def give_up(self, job: HeldJob) -> None:
        """Stop holding and running a job that this worker no longer owns."""
        if self.holds(job):
            self.forget(job)
            self.buffers[job.queue].drop(job)  # here: a task that is cancelled before it has begun never runs
            self._drop(job)

    def give_up_instance(self, instance: CachedInstance) -> None:
        """Give up every job of an instance that has ended."""
        for job in [job for job in self.jobs.values() if isinstance(job, ClaimedJob) and job.instance is instance]:
            self.give_up(job)

    def abandon(self) -> None:
        """Give up everything: the lease has ended, and the jobs belong to other workers."""
        for buffer in self.buffers.values():
            buffer.clear()
        self.rejected.clear()
        for job in list(self.jobs.values()):
            self.give_up(job)

    def take_stale(self, older_than: float) -> Iterable[HeldJob]:
        """Take out the jobs that have waited for a slot since before `older_than` (monotonic seconds)."""
        return [job for buffer in self.buffers.values() for job in buffer.take_waiting(older_than) if self.holds(job)]

    def not_started(self) -> Iterable[HeldJob]:
        """Take out every job that has not begun to run."""
        quarantined, self._quarantined = self._quarantined, []
        return [*self.take_stale(older_than=float("inf")), *quarantined]


def _rejection(row: ClaimedRow, effect: Effect) -> JobUpdate:
    return JobUpdate(id=row.id, run=row.run, attempt=row.attempt, step=row.step, kind=row.kind, effect=effect)
