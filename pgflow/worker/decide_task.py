"""Turn the outcome of a task into the row to write: a pure function, for a task depends on nothing but its fence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, assert_never

from pgflow.store.job_updates import Branch, Effect, Finish, InstanceUpdate, JobUpdate, Pause, Retry, Snooze
from pgflow.worker.claimed_task import ClaimedTask
from pgflow.worker.decide import Decision, disconnect_delay, retry_update, with_error
from pgflow.worker.outcome import AttemptFailed, Completed, Released, Snoozed, TaskOutcome

__all__ = ["AnyDecision", "TaskDecision", "decide_task"]


@dataclass(slots=True)
class TaskDecision:
    """The consequence for one task: it ends (`finish`), or its job stays (`update`). As `Decision`, for the settler."""

    job: ClaimedTask
    outcome: TaskOutcome
    finish: Finish | None = None
    update: JobUpdate | None = None
    error: dict[str, Any] | None = None

    branches: ClassVar[Sequence[Branch]] = ()
    instance_update: ClassVar[InstanceUpdate | None] = None

    @property
    def updates(self) -> Sequence[JobUpdate]:
        """The update of its job, if that stays."""
        return () if self.update is None else (self.update,)

    @property
    def outcomes(self) -> Sequence[TaskOutcome]:
        """What it was decided on."""
        return (self.outcome,)

    @property
    def schedules_jobs(self) -> bool:
        """Whether the job becomes due later."""
        effect = None if self.update is None else self.update.effect
        return isinstance(effect, Retry) or (isinstance(effect, Snooze) and effect.seconds is not None)

    @property
    def title(self) -> str:
        """What it is about, for messages."""
        return self.job.title


AnyDecision: TypeAlias = Decision | TaskDecision


def decide_task(job: ClaimedTask, outcome: TaskOutcome) -> TaskDecision:
    """Decide on the outcome of a task."""
    match outcome:
        case Completed(output=output, seconds=seconds):
            return TaskDecision(
                job,
                outcome,
                Finish(job.id, job.attempt, "completed", output, None, seconds, "success" in job.work.hooks),
            )
        case AttemptFailed():
            return _retry_or_fail(job, outcome)
        case Snoozed(delay=delay, began=began):
            return _stays(job, outcome, Snooze(delay.total_seconds(), began=began))
        case Released():
            return _stays(job, outcome, Snooze())
    assert_never(outcome)


def _stays(job: ClaimedTask, outcome: TaskOutcome, effect: Effect, error: dict[str, Any] | None = None) -> TaskDecision:
    update = JobUpdate(job.id, None, job.attempt, job.work.name, job.kind, effect)
    return TaskDecision(job, outcome, update=update, error=error)


def _retry_or_fail(job: ClaimedTask, outcome: AttemptFailed[ClaimedTask]) -> TaskDecision:
    error = outcome.error.entry(job.attempt)
    if outcome.is_uncounted:
        disconnects = sum("severed" in each for each in job.errors)
        errors = json.dumps(with_error(job, {**error, "severed": disconnects + 1}))
        return _stays(job, outcome, Snooze(disconnect_delay(disconnects), errors, began=True), error)
    if not outcome.is_last:
        retry = retry_update(job.work.retry, json.dumps(with_error(job, error)), outcome.pause)
        return _stays(job, outcome, retry, error)
    if job.work.retry.on_exhausted == "pause" and not outcome.is_fatal:
        return _stays(job, outcome, Pause(job.queue, json.dumps(with_error(job, error))), error)
    finish = Finish(
        job.id, job.attempt, "failed", None, json.dumps(error), outcome.seconds, "failure" in job.work.hooks
    )
    return TaskDecision(job, outcome, finish, error=error)
