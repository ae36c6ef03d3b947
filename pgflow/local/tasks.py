"""The tasks of a `Local`: they run under the same lock, clock and event loop as its instances."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Any, TypeAlias

from pgflow.client import commands
from pgflow.client.enqueue_request import EnqueueRequest
from pgflow.core.definition.hooks import ARGUMENT, HOOKS
from pgflow.core.definition.results import Snooze
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.definition.unique_task import UniqueKey
from pgflow.core.engine import task_attempt
from pgflow.core.engine.attempt import KEPT_ERRORS, AttemptError, attempt_error
from pgflow.core.models.task import Enqueued
from pgflow.core.values.codec import Location, roundtrip
from pgflow.core.values.names import TELEMETRY
from pgflow.core.values.sanitize import sanitize_line
from pgflow.errors import AlreadyEnqueued, AlreadyStarted, JobNotFound, NotActive, NotRetryable
from pgflow.jitter import uniform
from pgflow.local.clock import Clock
from pgflow.local.control import LocalControl
from pgflow.local.local_task import LocalTask
from pgflow.local.lock import DeferringLock
from pgflow.local.loop import Loop
from pgflow.local.report import Report
from pgflow.logs import Logger
from pgflow.payloads.policy import DEFAULT, PayloadPolicy

__all__ = ["LocalTasks", "TaskOutcome"]

log = Logger("pgflow.local")

TaskOutcome: TypeAlias = str | AttemptError | Snooze  # a completed task's output as JSON text


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the scheduler provides: `timed` sets the timer of a job that is due later, `changed` wakes waiting calls."""

    timed: Callable[[LocalTask], None]
    changed: Callable[[], None]


class LocalTasks:
    """Holds the executions of tasks by id, and runs those that are due. All methods are called with the lock held.

    They last as long as their `Local`: a storage has instances only.
    """

    def __init__(
        self,
        loop: Loop,
        lock: DeferringLock,
        clock: Clock,
        busy: set[LocalTask],
        hooks: Hooks,
        report: Report,
        policy: PayloadPolicy = DEFAULT,
    ) -> None:
        self.by_id: dict[int, LocalTask] = {}
        self._loop = loop
        self._lock = lock
        self._clock = clock
        self._busy = busy
        self._hooks = hooks
        self._report = report
        self._policy = policy
        self._numbers = count(1)
        self._running: dict[LocalTask, asyncio.Task[None]] = {}

    # -- calls

    def enqueue(self, command: commands.Enqueue, request: EnqueueRequest) -> list[Enqueued]:
        """Enqueue a job for each item, unless its unique key is taken; all of them or, when one is refused, none."""
        now = self._clock.now()
        unique, due = command.unique, (request.at or now) + (request.delay or timedelta(0))
        if unique is not None and unique.on_conflict == "raise":
            self._refuse_taken(command.task, unique)
        enqueued = [self._enqueue(command, request, place, now, due) for place in range(len(request.args))]
        self._report.enqueued(command.task.name, [each.id for each in enqueued])
        return enqueued

    def _enqueue(
        self, command: commands.Enqueue, request: EnqueueRequest, place: int, now: datetime, due: datetime
    ) -> Enqueued:
        task, unique, args = command.task, command.unique, self._stored(command.task, request.args[place])
        key = None if unique is None else unique.keys[place]
        if unique is not None and (holder := self._holder(unique, unique.keys[place])) is not None:
            if unique.on_conflict == "replace" and holder.status == "pending":
                self._replace(holder, unique, args, due, request.priority)
            return Enqueued(None if unique.on_conflict == "skip" else holder.id, created=False)
        job = LocalTask(
            id=next(self._numbers),
            task=task,
            args=args,
            queue=task.queue if request.queue is None else request.queue,
            priority=task.priority if request.priority is None else request.priority,
            max_attempts=task.retry.max_attempts if request.max_attempts is None else request.max_attempts,
            tags=(*task.tags, *request.tags),
            metadata={**task.metadata, **{key: each for key, each in request.metadata.items() if key != TELEMETRY}},
            enqueued_at=now,
            due=due,
            caller=request.metadata.get(TELEMETRY, {}),
            unique_key=key,
        )
        self.by_id[job.id] = job
        self.place(job)
        return Enqueued(job.id)

    def find(self, id: int, task: TaskDefinition | None) -> LocalTask:  # noqa: A002 -- as in the commands
        """Return a job, of `task` if given. Raises `JobNotFound`."""
        found = self.by_id.get(id)
        if found is None or (task is not None and found.task is not task):
            of = "a task" if task is None else f"the task {task.name}"
            raise JobNotFound(f"there is no job {id} of {of}", hint="List them: app.list_tasks()")
        return found

    def cancel(self, job: LocalTask, reason: str | None) -> None:
        """Cancel a job; one that runs is interrupted and its outcome dropped. Raises `NotActive`."""
        if not job.is_active:
            hint = "Only a task that has not ended can be cancelled."
            raise NotActive(f"{job.title} is {job.status}: it cannot be cancelled", hint=hint)
        self._interrupt(job)
        self._report.task_cancelled(job, reason)
        job.error = None if reason is None else {"reason": reason}
        self._end(job, "cancelled")

    def retry(self, job: LocalTask) -> None:
        """Run a failed or cancelled job once more, or one that waits for its next attempt or for an operator now.

        Raises `NotRetryable`, and `AlreadyEnqueued` where another job has its unique key now.
        """
        if job.status in ("failed", "cancelled"):
            self._refuse_revival(job)
            job.status, job.attempt, job.error, job.output = "pending", 0, None, None
            job.finished_at = None
        elif job.is_paused:
            job.is_paused, job.max_attempts = False, job.attempt + job.task.retry.max_attempts
        elif job.status != "waiting":
            raise NotRetryable(
                f"{job.title} is {job.status}: only a failed, cancelled or waiting task can be retried",
                hint=f"See its state: app.job({job.id}).get()",
            )
        job.due = self._clock.now()
        self._report.task_retried(job)
        self.place(job)

    def complete(self, job: LocalTask, output: str) -> None:
        """Complete a job that waits for an operator, with an output as JSON text. Raises `NotActive`."""
        self._require_paused(job)
        job.output = output
        self._end(job, "completed")

    def fail(self, job: LocalTask, reason: str | None) -> None:
        """Fail a job that waits for an operator. Raises `NotActive`."""
        self._require_paused(job)
        by_operator = {"reason": reason, "type": "FailedByOperator", "attempt": job.attempt}
        job.error = job.errors[-1] if reason is None else by_operator
        self._end(job, "failed")

    def _require_paused(self, job: LocalTask) -> None:
        if not job.is_paused:
            raise NotActive(
                f"{job.title} is {job.status}: it does not wait for an operator",
                hint='Only a task whose attempts are used up, with the policy "pause", can be completed or failed.',
            )

    def update(self, job: LocalTask, command: commands.UpdateTask) -> None:
        """Move a job to another queue, priority or time. Raises `NotActive`, `AlreadyStarted`."""
        if job.is_paused:
            hint = "It waits for an operator: retry it, complete it or fail it."
            raise AlreadyStarted(f"{job.title} is waiting: it cannot be moved", hint=hint)
        if not job.is_active:
            raise NotActive(f"{job.title} is {job.status}: it cannot be moved", hint="Retry it, or enqueue another.")
        self._refuse_running(job, "moved")
        job.queue = job.queue if command.queue is None else command.queue
        job.priority = job.priority if command.priority is None else command.priority
        if command.at is not None or command.delay is not None:
            job.due = (command.at or self._clock.now()) + (command.delay or timedelta(0))
            self.place(job)

    def delete(self, job: LocalTask) -> None:
        """Forget a job. Raises `AlreadyStarted` while it runs."""
        self._refuse_running(job, "deleted")
        self._busy.discard(job)
        del self.by_id[job.id]
        self._hooks.changed()

    def describe(self) -> list[str]:
        """Return the active jobs, for messages."""
        return [f"{job.title} ({job.status})" for job in self.by_id.values() if job.is_active]

    def close(self) -> None:
        """Drop the outcomes of running attempts, which do not count."""
        for job in self._running:
            job.status, job.attempt = "pending", job.attempt - 1
        self._running.clear()

    # -- uniqueness

    def _holder(self, unique: UniqueKey, key: str) -> LocalTask | None:
        """Return the job that has taken a key, None if it is free."""
        since = None if unique.period is None else self._clock.now() - timedelta(seconds=unique.period)
        for job in reversed(self.by_id.values()):
            if job.unique_key != key:
                continue
            ended = job.finished_at if job.status == "completed" else None
            if job.is_active or (since is not None and ended is not None and ended > since):
                return job
        return None

    def _refuse_taken(self, task: TaskDefinition, unique: UniqueKey) -> None:
        for place, key in enumerate(unique.keys):
            holder = self._holder(unique, key)
            if holder is None and key not in unique.keys[:place]:
                continue
            about = "two of the calls have one unique key" if holder is None else f"{holder.title} has its unique key"
            hint = "Enqueue each once." if holder is None else 'Use that one; on_conflict="existing" returns it.'
            job = None if holder is None else holder.id
            raise AlreadyEnqueued(f"{task.name} is not enqueued: {about}", hint=hint, job=job)

    def _refuse_revival(self, job: LocalTask) -> None:
        for other in self.by_id.values():
            if (
                other is not job
                and other.is_active
                and job.unique_key is not None
                and other.unique_key == job.unique_key
            ):
                raise AlreadyEnqueued(
                    f"{job.title} cannot run again: {other.title} has its unique key",
                    hint="Wait until that one has ended, or cancel it.",
                    job=other.id,
                )

    def _replace(self, job: LocalTask, unique: UniqueKey, args: str, due: datetime, priority: int | None) -> None:
        if "args" in unique.replace:
            job.args = args
        if "priority" in unique.replace:
            job.priority = job.task.priority if priority is None else priority
        if "run_at" in unique.replace:
            job.due = due
            self.place(job)

    # -- running

    def place(self, job: LocalTask) -> None:
        """Run a job at once, or when it is due."""
        if job.due is not None and job.due > self._clock.now():
            self._busy.discard(job)
            self._hooks.timed(job)
        else:
            self._busy.add(job)
            self._loop.soon(self._start, job)
        self._hooks.changed()

    def _start(self, job: LocalTask) -> None:
        with self._lock:
            is_due = job.due is None or job.due <= self._clock.now()
            if job not in self._busy or job in self._running or not job.is_active or not is_due:
                return
            job.status, job.attempt, job.began_at = "running", job.attempt + 1, self._clock.now()
            self._report.task_began(job)
            self._running[job] = self._loop.task(self._run(job, job.attempt))

    async def _run(self, job: LocalTask, attempt: int) -> None:
        task, began = job.task, time.perf_counter()
        limit = asyncio.timeout(None if task.max_runtime is None else task.max_runtime.total_seconds())
        outcome: TaskOutcome
        place = Location(task.name, str(job.id), "checkpoint")
        control = job.control = LocalControl(job, place, self._lock, self._hooks.changed, self._policy.codec)
        try:
            ctx = job.context(control)
            given = task_attempt.arguments(task, job.args, ctx)
            async with limit:
                result = await self._loop.call_task(task, given, ctx)
            outcome = task_attempt.read(task, result, attempt, reveal=self._policy.reveal, limit=self._policy.limit)
            if isinstance(outcome, str):
                outcome = roundtrip(self._policy.codec, outcome, Location(task.name, str(job.id), "output"))
        except BaseException as error:  # a task must not end the program, even by sys.exit()
            if limit.expired():
                control.is_cancelled = True
                outcome = task_attempt.overdue(task, attempt)
            else:
                outcome = attempt_error(error, task.retry, attempt)
            log.debug("%s failed: %s", job.title, sanitize_line(outcome.reason))
        with self._lock:
            if self._running.get(job) is asyncio.current_task():  # not after an interruption
                del self._running[job]
                self._ended(job, outcome, timedelta(seconds=time.perf_counter() - began))

    def _ended(self, job: LocalTask, outcome: TaskOutcome, took: timedelta) -> None:
        job.started_at = job.began_at
        match outcome:
            case str():
                job.output = outcome
                self._report.task_completed(job, took)
                self._end(job, "completed")
            case Snooze(delay):
                self._report.task_snoozed(job, delay)
                job.attempt -= 1  # it does not count
                self._pause(job, delay)
            case AttemptError():
                error = outcome.entry(job.attempt)
                will_retry = outcome.retry and job.attempt < job.max_attempts
                self._report.task_failed(job, outcome, took, will_retry=will_retry)
                if will_retry:
                    job.errors = [*job.errors, error][-KEPT_ERRORS:]
                    pause = outcome.pause
                    self._pause(job, job.task.retry.delay(job.attempt, uniform(0.0, 1.0)) if pause is None else pause)
                elif job.task.retry.on_exhausted == "pause":
                    job.errors = [*job.errors, error][-KEPT_ERRORS:]
                    job.status, job.due, job.is_paused = "waiting", None, True
                    self._busy.discard(job)
                    self._hooks.changed()
                else:
                    job.error = error
                    self._end(job, "failed")

    def _pause(self, job: LocalTask, delay: timedelta) -> None:
        job.status, job.due = "waiting" if job.attempt else "pending", self._clock.now() + delay
        self._busy.discard(job)
        self.place(job)

    def enqueue_hook(self, hook: TaskDefinition, ended: dict[str, Any]) -> None:
        """Enqueue the task of a hook, for an instance or a task that has ended now."""
        now = self._clock.now()
        job = LocalTask(
            id=next(self._numbers),
            task=hook,
            args=json.dumps({ARGUMENT: {**ended, "at": now.isoformat()}}),
            queue=hook.queue,
            priority=hook.priority,
            max_attempts=hook.retry.max_attempts,
            tags=hook.tags,
            metadata=dict(hook.metadata),
            enqueued_at=now,
            due=now,
        )
        self.by_id[job.id] = job
        self.place(job)

    def _end(self, job: LocalTask, status: Any) -> None:
        job.status, job.finished_at, job.due, job.is_paused = status, self._clock.now(), None, False
        self._busy.discard(job)
        if (hook := job.task.hooks.get(HOOKS[status])) is not None:
            error = job.error and {key: value for key, value in job.error.items() if key != "trace"}
            about = {"kind": "task", "job": job.id, "task": job.task.name}
            self.enqueue_hook(hook, {**about, "status": status, "error": error})
        self._hooks.changed()

    def _interrupt(self, job: LocalTask) -> None:
        if job.control is not None:
            job.control.is_cancelled = True
        if (running := self._running.pop(job, None)) is not None:
            self._loop.soon(running.cancel)

    def _refuse_running(self, job: LocalTask, what: str) -> None:
        if job.status == "running":
            raise AlreadyStarted(f"{job.title} is running: it cannot be {what}", hint="Cancel it, or wait for its end.")

    def _stored(self, task: TaskDefinition, args: str) -> str:
        return roundtrip(self._policy.codec, args, Location(task.name, "", "input"))
