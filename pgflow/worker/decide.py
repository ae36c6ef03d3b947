"""Turn the outcomes of an instance's jobs into the rows to write.

A pure function of the instance as the worker knows it. What it returns holds only for the revision it was decided on:
the settle statement locks and compares (optimistic concurrency).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, TypeAlias, assert_never

from pgflow.core.definition.hooks import HOOKS
from pgflow.core.definition.retry import DEFAULT
from pgflow.core.definition.retry import Retry as Policy
from pgflow.core.engine import state as engine_state
from pgflow.core.engine.attempt import CHECKPOINT, EXHAUSTED, KEPT_ERRORS, AttemptError
from pgflow.core.engine.machine import advance
from pgflow.core.engine.state import Command, Event, Execute, State
from pgflow.core.engine.stretch import Link, follow
from pgflow.store.job_updates import (
    Advance,
    Branch,
    Effect,
    End,
    Fail,
    Finish,
    InstanceUpdate,
    JobUpdate,
    Move,
    Park,
    Pause,
    Result,
    Retry,
    Snooze,
)
from pgflow.worker.claimed_job import CachedInstance, ClaimedJob, Signal
from pgflow.worker.claimed_task import HeldJob
from pgflow.worker.outcome import AttemptFailed, Finished, Outcome, Parked, Reactivated, Released, Snoozed

__all__ = ["Decision", "Keep", "decide", "disconnect_delay", "retry_update", "with_error"]

# `keep(queue, needs_slot)`: whether a job that goes on in `queue` may stay with this worker. A job that goes on in its
# own queue has a slot there.
Keep: TypeAlias = Callable[[str, bool], bool]

MAX_DISCONNECT_DELAY = 5.0  # seconds until the next attempt after a lost connection


@dataclass(slots=True)
class Decision:
    """The consequences for one instance: rows for the settle statement, and the state to adopt once they are written.

    `updates` has one entry per outcome, in the same order. `is_guarded`: some of them are written only if the instance
    has not moved on. `schedules_jobs`: a job becomes due later, because it is parked, retried or snoozed. `seconds` is
    how long the decision took, if measured.
    """

    instance: CachedInstance
    state: State
    outcomes: Sequence[Outcome]
    before: State = field(init=False)
    seconds: float | None = None
    is_guarded: bool = False
    schedules_jobs: bool = False
    updates: list[JobUpdate] = field(default_factory=list)
    branches: Sequence[Branch] = ()
    instance_update: InstanceUpdate | None = None
    outputs: list[tuple[str, Any]] = field(default_factory=list)
    metadata: Mapping[str, Any] | None = None
    consumed: Sequence[Signal] = ()
    failure: dict[str, Any] | None = None
    commands: dict[str, tuple[Command, ...]] = field(default_factory=dict)  # by the step that completed

    finish: ClassVar[Finish | None] = None  # of a task

    def __post_init__(self) -> None:
        self.before = self.state

    @property
    def title(self) -> str:
        """What it is about, for messages."""
        return self.instance.id

    def add(
        self,
        job: ClaimedJob,
        effect: Effect,
        *,
        result: Result | None = None,
        advance: Advance | None = None,
        signal: Signal | None = None,
    ) -> None:
        """Add the update of one job."""
        update = JobUpdate(
            job.id,
            job.instance.run,
            job.attempt,
            job.step,
            job.kind,
            effect,
            result,
            advance,
            None if signal is None else signal.id,
        )
        self.updates.append(update)
        self.is_guarded |= update.guarded
        match effect:
            case Park() | Retry():
                self.schedules_jobs = True
            case Snooze(seconds=seconds):
                self.schedules_jobs |= seconds is not None


def disconnect_delay(disconnects: int) -> float:
    """Return the seconds until the next attempt after so many lost connections."""
    return min(MAX_DISCONNECT_DELAY, 0.1 * 2.0**disconnects)


def decide(instance: CachedInstance, outcomes: Sequence[Outcome], keep: Keep) -> Decision:
    """Decide on all outcomes of one instance in a batch, in order."""
    decision = Decision(instance, instance.state, outcomes)
    for outcome in outcomes:
        match outcome:
            case Finished():
                _finish(decision, outcome, keep)
            case Parked():
                _park(decision, outcome, keep)
            case AttemptFailed():
                _retry_or_fail(decision, outcome)
            case Snoozed(job, delay, began):
                decision.add(job, Snooze(delay.total_seconds(), began=began))
            case Released(job):
                decision.add(job, Snooze())
            case Reactivated(job):
                _reactivate(decision, job, keep)
            case _:
                assert_never(outcome)
    if decision.is_guarded:
        _update_instance(decision)
    return decision


def _finish(decision: Decision, outcome: Finished, keep: Keep) -> None:
    job, signal = outcome.job, outcome.signal
    errors = job.errors if outcome.failed is None else with_error(job, outcome.failed.entry(job.attempt))
    result = Result(
        event=outcome.event,
        targets=json.dumps(outcome.targets) if outcome.targets is not None else None,
        output=outcome.output,
        metadata=json.dumps(outcome.metadata) if outcome.metadata else None,
        errors=json.dumps(errors) if errors else None,
        seconds=outcome.seconds,
        applied=outcome.failing is None,  # otherwise `retry` calls the route again
        stored=outcome.stored,
    )
    decision.outputs.append((job.step, outcome.value if outcome.output is not None else {}))
    if outcome.metadata:
        decision.metadata = {**(decision.metadata or {}), **outcome.metadata}
    if signal:
        decision.consumed = (*decision.consumed, signal)
    if outcome.failing is not None:
        _fail(decision, job, outcome.failing, result=result, signal=signal)
        return
    if outcome.targets is None and job.solo and decision.instance.status == "running":
        followed = follow(decision.state, job.step, outcome.event)
        if followed is not None:
            decision.state, link = followed
            decision.commands[job.step] = link.commands
            _go_along(decision, job, link, result, signal, keep)
            return
    completed: Event = engine_state.Completed(job.step, outcome.event, outcome.targets, by_timer=outcome.by_timer)
    if outcome.targets == ():
        completed = engine_state.Skipped(job.step)
    decision.state, commands = advance(decision.state, completed)
    decision.commands[job.step] = commands
    steps = [command for command in commands if isinstance(command, Execute)]
    # A solo job that goes on alone needs no lock on its instance. Every other step depends on the revision.
    otherwise: Advance | None = None
    if not job.solo or len(steps) != 1 or decision.state.status != decision.instance.status:
        queue = decision.instance.graph.orchestration_queue
        # A result that a signal brought is decided again: another step may have consumed the signal.
        awaits = json.dumps(dict(outcome.awaits)) if signal and outcome.awaits else None
        otherwise = Advance(queue, awaits, keeps_result=signal is None)
    decision.add(job, _go_on(decision, job, steps, keep), result=result, advance=otherwise, signal=signal)


def _go_along(
    decision: Decision, job: ClaimedJob, link: Link, result: Result, signal: Signal | None, keep: Keep
) -> None:
    """Move a solo job to the next step of a linear stretch, which needs no lock on its instance."""
    _, step, _, _, config, queue, max_attempts = link
    kept = keep(queue, queue != job.queue)
    move = Move(step, config, queue, job.priority, max_attempts, True, kept)
    consumes = None if signal is None else signal.id
    decision.updates.append(
        JobUpdate(job.id, decision.instance.run, job.attempt, job.step, job.kind, move, result, None, consumes)
    )


def _go_on(decision: Decision, job: ClaimedJob, steps: Sequence[Execute], keep: Keep) -> Move | End:
    """Move the job to the first of `steps`; each further step gets a branch, a job of its own."""
    if not steps:
        return End()
    first, *others = (_target(decision.instance, command) for command in steps)
    step, config, queue, max_attempts = first
    # In another queue the job needs a slot, as a branch does.
    kept = keep(queue, queue != job.queue)
    move = Move(step, config, queue, job.priority, max_attempts, len(decision.state.active) == 1, kept)
    for step, config, queue, max_attempts in others:
        branch = Branch(decision.instance.run, step, config, queue, job.priority, max_attempts, keep(queue, True))
        decision.branches = (*decision.branches, branch)
    return move


def _target(instance: CachedInstance, command: Execute) -> tuple[str, str | None, str, int]:
    """Return the step, config, queue and attempts of the job that runs it."""
    node = instance.graph.nodes[command.step]
    config = json.dumps(command.config) if command.config is not None else None
    return command.step, config, node.queue, node.retry.max_attempts


def _park(decision: Decision, outcome: Parked, keep: Keep) -> None:
    job, instance = outcome.job, decision.instance
    for signal in instance.signals:
        if signal not in decision.consumed and signal.name in outcome.awaits and signal.step in (None, job.step):
            match outcome.end(signal):  # the signal came before the wait, and ends it at once
                case Finished() as finished:
                    _finish(decision, finished, keep)
                case AttemptFailed() as failed:
                    _retry_or_fail(decision, failed)
            return
    decision.state, _ = advance(decision.state, engine_state.Parked(job.step, outcome.delay, outcome.timeout_event))
    queue, awaits = instance.graph.orchestration_queue, json.dumps(dict(outcome.awaits))
    seconds = outcome.delay.total_seconds() if outcome.delay is not None else None
    decision.add(job, Park(queue, awaits, seconds), advance=Advance(queue, awaits))


def _retry_or_fail(decision: Decision, outcome: AttemptFailed[ClaimedJob]) -> None:
    job, failing = outcome.job, outcome.error
    error = failing.entry(job.attempt)
    if outcome.is_uncounted:
        disconnects = sum("severed" in each for each in job.errors)
        errors = with_error(job, {**error, "severed": disconnects + 1})
        decision.add(job, Snooze(disconnect_delay(disconnects), json.dumps(errors), began=True))
        return
    policy = decision.instance.graph.nodes[job.step].retry if job.step else DEFAULT
    if not outcome.is_last:
        decision.add(job, retry_update(policy, json.dumps(with_error(job, error)), outcome.pause))
        return
    if outcome.signal:
        decision.consumed = (*decision.consumed, outcome.signal)
    if policy.on_exhausted == "pause" and not outcome.is_fatal:
        _pause(decision, outcome)
    else:  # a step that is passed over comes as `Finished`
        _fail(decision, job, failing, signal=outcome.signal)


def retry_update(policy: Policy, errors: str, pause: timedelta | None) -> Retry:
    """Return the update of a job that runs again after its pause, or that of the policy's formula."""
    if pause is not None:  # the step's own, or that of the policy's function
        seconds = pause.total_seconds()
        return Retry(errors, "constant", seconds, seconds, 0.0)
    return Retry(errors, policy.formula, policy.base.total_seconds(), policy.max_backoff.total_seconds(), policy.jitter)


def _pause(decision: Decision, outcome: AttemptFailed[ClaimedJob]) -> None:
    """Let the step wait for an operator. If the instance has moved on, an advance job does so, by the marked error."""
    job, graph = outcome.job, decision.instance.graph
    decision.state, _ = advance(decision.state, engine_state.Paused(job.step))
    errors = json.dumps(with_error(job, {**outcome.error.entry(job.attempt), EXHAUSTED: True}))
    otherwise = Advance(graph.orchestration_queue, errors=errors)
    decision.add(job, Pause(graph.nodes[job.step].queue, errors), advance=otherwise, signal=outcome.signal)


def with_error(job: HeldJob, error: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the errors of a job's attempts with one more, the newest ones."""
    return [*job.errors, error][-KEPT_ERRORS:]


def _fail(
    decision: Decision,
    job: ClaimedJob,
    failing: AttemptError,
    *,
    result: Result | None = None,
    signal: Signal | None = None,
) -> None:
    """Fail the instance."""
    decision.state, _ = advance(decision.state, engine_state.Failed(job.step, failing.reason))
    decision.failure = {"step": job.step, **failing.entry(job.attempt), "attempts": job.errors[-KEPT_ERRORS:]}
    if job.checkpoint is not None:
        decision.failure[CHECKPOINT] = json.loads(job.checkpoint)
    decision.add(job, Fail(), result=result, signal=signal)


def _reactivate(decision: Decision, job: ClaimedJob, keep: Keep) -> None:
    """Give every active step a job: one that runs it or, if only its route failed, one that calls the route again."""
    state, instance = decision.state, decision.instance
    configs = {} if job.config is None else json.loads(job.config)  # set by `put`
    # The job itself moves to the step that failed, because it carries that step's checkpoint.
    kept = {} if job.checkpoint is None else json.loads(job.checkpoint)
    to_run = sorted(state.active - instance.unapplied.keys(), key=lambda key: (key not in kept, key))
    steps = [Execute(key, configs.get(key, state.graph.nodes[key].config)) for key in to_run]
    effect = _go_on(decision, job, steps, keep)
    for key in sorted(state.active & instance.unapplied.keys()):
        queue, node = instance.graph.orchestration_queue_of(key), state.graph.nodes[key]
        branch = Branch(instance.run, key, None, queue, job.priority, node.retry.max_attempts, kind="advance")
        decision.branches = (*decision.branches, branch)
    decision.add(job, effect, advance=Advance(instance.graph.orchestration_queue))


def _update_instance(decision: Decision) -> None:
    instance, state = decision.instance, decision.state
    metadata = {**instance.metadata, **(decision.metadata or {})} if state.status in ("completed", "failed") else None
    revision = None if decision.failure else instance.revision
    if state.error is not None and decision.failure is None:
        decision.failure = {"step": state.error.step, "reason": state.error.reason, "type": "Error"}
    decision.instance_update = InstanceUpdate(
        run=instance.run,
        revision=revision,
        status=state.status if state.status != instance.status else None,
        metadata=json.dumps(metadata) if metadata else None,
        error=json.dumps(decision.failure) if decision.failure else None,
        hook=HOOKS.get(state.status, "") in instance.graph.hooks,
    )
