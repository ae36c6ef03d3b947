"""Turn what an instance's tokens came to into the rows to write.

A pure function of what the worker knows of the instance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from pgflow.core.engine import machine
from pgflow.core.engine.attempt import KEPT_ERRORS, AttemptError
from pgflow.core.engine.machine import advance
from pgflow.core.engine.state import Command, Execute, State
from pgflow.store.job import Branch, Change, Verdict
from pgflow.worker.claimed_job import CachedInstance, ClaimedJob, Signal
from pgflow.worker.outcome import AttemptFailed, Finished, Outcome, Parked, Reactivated, Released, Snoozed

__all__ = ["Decision", "decide"]

# Lost connections that do not count as attempts, in 26 s: a step that ends its own each time has to end, too.
MOST_SEVERED = 10
LONGEST_SEVERED = 5.0  # seconds until the next attempt


@dataclass(slots=True)
class Decision:
    """What follows for one instance: rows for the settle statement, and what the worker knows once they are written."""

    run: CachedInstance
    state: State
    outcomes: Sequence[Outcome]
    before: State = field(init=False)
    seconds: float | None = None  # that it took to decide, when somebody wants to know
    verdicts: list[Verdict] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    change: Change | None = None
    outputs: list[tuple[str, Any]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    consumed: list[Signal] = field(default_factory=list)
    failure: dict[str, Any] | None = None
    commands: dict[str, tuple[Command, ...]] = field(default_factory=dict)  # by the step that completed

    def __post_init__(self) -> None:
        self.before = self.state


def decide(run: CachedInstance, outcomes: Sequence[Outcome], keep: Callable[[str, bool], bool]) -> Decision:
    """Decide over all outcomes of one instance in a batch, in order.

    `keep(queue, needs_place)` says whether a job that goes on in `queue` may stay with this worker; one that goes on
    in its own queue has its place there.
    """
    decision = Decision(run, run.state, outcomes)
    for outcome in outcomes:
        match outcome:
            case Finished():
                _finish(decision, outcome, keep)
            case Parked():
                _wait(decision, outcome, keep)
            case AttemptFailed():
                _err(decision, outcome)
            case Snoozed(job, delay):
                decision.verdicts.append(_verdict(job, "snooze", delay=delay.total_seconds()))
            case Released(job):
                decision.verdicts.append(_verdict(job, "release"))
            case Reactivated(job):
                _rebuild(decision, job, keep)
            case _:
                assert_never(outcome)
    if any(verdict.guarded for verdict in decision.verdicts):
        _change(decision)
    return decision


def _verdict(job: ClaimedJob, op: str, **more: Any) -> Verdict:
    return Verdict(
        id=job.id,
        run=job.run.run,
        attempt=job.attempt,
        step=job.step,
        kind=job.kind,
        op=op,
        orchestration=job.run.graph.orchestration_queue,
        **more,
    )


def _finish(decision: Decision, outcome: Finished, keep: Callable[[str, bool], bool]) -> None:
    job = outcome.job
    commands: tuple[Command, ...] = ()
    if outcome.failing is None:
        completed = machine.Completed(job.step, outcome.event, outcome.targets, by_timer=outcome.by_timer)
        decision.state, commands = advance(decision.state, completed)
        decision.commands[job.step] = commands
    verdict = _verdict(
        job,
        "end",
        event=outcome.event,
        targets=json.dumps(outcome.targets) if outcome.targets is not None else None,
        output=outcome.output,
        metadata=json.dumps(outcome.metadata) if outcome.metadata else None,
        errors=json.dumps(job.errors) if job.errors else None,
        seconds=outcome.seconds,
        stored=outcome.stored,
        signal=outcome.signal.id if outcome.signal else None,
        awaits=json.dumps(dict(outcome.awaits)) if outcome.awaits else None,
    )
    decision.outputs.append((job.step, outcome.value if outcome.output is not None else {}))
    if outcome.metadata:
        decision.metadata.update(outcome.metadata)
    if outcome.signal:
        decision.consumed.append(outcome.signal)
    if outcome.failing is not None:  # recorded as not applied: a retry calls the route again
        _fail(decision, verdict, job, outcome.failing)
        return
    _go_on(decision, job, verdict, [command for command in commands if isinstance(command, Execute)], keep)
    decision.verdicts.append(verdict)


def _go_on(
    decision: Decision, job: ClaimedJob, verdict: Verdict, steps: list[Execute], keep: Callable[[str, bool], bool]
) -> None:
    """Let the job move to the first of `steps`; each other one gets a job of its own."""
    state, run = decision.state, decision.run
    verdict.guarded = not job.solo or len(steps) != 1 or state.status != run.status
    if not steps:
        return
    first, *others = steps
    verdict.op = "move"
    verdict.next_step, verdict.next_config, verdict.next_queue, verdict.next_max = _next(run, first)
    verdict.next_priority = job.priority
    verdict.next_solo = len(state.active) == 1
    # In another queue it takes a place of its own, as a branch does.
    verdict.keep = keep(verdict.next_queue, verdict.next_queue != job.queue)
    for command in others:
        step, config, queue, max_attempts = _next(run, command)
        decision.branches.append(Branch(run.run, step, config, queue, job.priority, max_attempts, keep(queue, True)))


def _next(run: CachedInstance, command: Execute) -> tuple[str, str | None, str, int]:
    node = run.graph.nodes[command.step]
    config = json.dumps(command.config) if command.config is not None else None
    return command.step, config, node.queue, node.retry.max_attempts


def _wait(decision: Decision, outcome: Parked, keep: Callable[[str, bool], bool]) -> None:
    job, run = outcome.job, decision.run
    for signal in run.signals:
        if signal not in decision.consumed and signal.name in outcome.awaits and signal.step in (None, job.step):
            match outcome.end(signal):  # it came before the wait: nothing to wait for
                case Finished() as finished:
                    _finish(decision, finished, keep)
                case AttemptFailed() as erred:
                    _err(decision, erred)
            return
    decision.state, _ = advance(decision.state, machine.Parked(job.step, outcome.delay, outcome.timeout_event))
    decision.verdicts.append(
        _verdict(
            job,
            "park",
            guarded=True,
            awaits=json.dumps(dict(outcome.awaits)),
            delay=outcome.delay.total_seconds() if outcome.delay is not None else None,
        )
    )


def _err(decision: Decision, outcome: AttemptFailed) -> None:
    job, run = outcome.job, decision.run
    failing = AttemptError(outcome.reason, outcome.type, outcome.retry, outcome.details)
    error = failing.entry(job.attempt)
    policy = run.graph.nodes[job.step].retry
    severed = sum("severed" in each for each in job.errors)
    if outcome.connection_lost and severed < MOST_SEVERED:
        again = [*job.errors, {**error, "severed": severed + 1}][-KEPT_ERRORS:]
        decision.verdicts.append(
            _verdict(job, "snooze", errors=json.dumps(again), delay=min(LONGEST_SEVERED, 0.1 * 2**severed))
        )
        return
    if outcome.retry and job.attempt < job.max_attempts:
        decision.verdicts.append(
            _verdict(
                job,
                "retry",
                errors=json.dumps([*job.errors, error][-KEPT_ERRORS:]),
                backoff=policy.backoff,
                base=policy.base.total_seconds(),
                cap=policy.max_backoff.total_seconds(),
                jitter=policy.jitter,
            )
        )
        return
    refused = outcome.signal
    if refused:
        decision.consumed.append(refused)
    _fail(decision, _verdict(job, "fail", signal=refused.id if refused else None), job, failing)


def _fail(decision: Decision, verdict: Verdict, job: ClaimedJob, failing: AttemptError) -> None:
    """Fail the instance."""
    decision.state, _ = advance(decision.state, machine.Failed(job.step, failing.reason))
    decision.failure = {"step": job.step, **failing.entry(job.attempt), "attempts": job.errors[-KEPT_ERRORS:]}
    verdict.op, verdict.guarded = "fail", True
    decision.verdicts.append(verdict)


def _rebuild(decision: Decision, job: ClaimedJob, keep: Callable[[str, bool], bool]) -> None:
    state, run = decision.state, decision.run
    verdict = _verdict(job, "end")
    stored = {} if job.config is None else json.loads(job.config)  # by `put`
    unrun = sorted(state.active - run.unapplied.keys())
    steps = [Execute(key, stored.get(key, state.graph.nodes[key].config)) for key in unrun]
    _go_on(decision, job, verdict, steps, keep)
    for key in sorted(state.active & run.unapplied.keys()):  # their routes failed: call them again
        queue, node = run.graph.orchestration_queue_of(key), state.graph.nodes[key]
        branch = Branch(run.run, key, None, queue, job.priority, node.retry.max_attempts, kind="advance")
        decision.branches.append(branch)
    verdict.guarded = True
    decision.verdicts.append(verdict)


def _change(decision: Decision) -> None:
    run, state = decision.run, decision.state
    metadata = {**run.metadata, **decision.metadata} if state.status in ("completed", "failed") else None
    revision = None if decision.failure else run.revision
    if state.error is not None and decision.failure is None:
        decision.failure = {"step": state.error.step, "reason": state.error.reason, "type": "Error"}
    decision.change = Change(
        run=run.run,
        revision=revision,
        status=state.status if state.status != run.status else None,
        metadata=json.dumps(metadata) if metadata else None,
        error=json.dumps(decision.failure) if decision.failure else None,
    )
