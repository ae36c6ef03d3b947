"""Turn what an instance's tokens came to into the rows to write.

A pure function of what the worker knows of the instance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from pgflow.core.engine import machine
from pgflow.core.engine.attempt import KEPT_ERRORS, Failing
from pgflow.core.engine.machine import advance
from pgflow.core.engine.state import Command, Execute, State
from pgflow.store.job import Branch, Change, Verdict
from pgflow.worker.claimed_job import Run, Signal, Token
from pgflow.worker.outcome import Erred, Finished, Outcome, Rebuilt, Released, Snoozed, Waits

__all__ = ["Decision", "decide"]

# Lost connections that do not count as attempts, in 26 s: a step that ends its own each time has to end, too.
MOST_SEVERED = 10
LONGEST_SEVERED = 5.0  # seconds until the next attempt


@dataclass(slots=True)
class Decision:
    """What follows for one instance: rows for the settle statement, and what the worker knows once they are written."""

    run: Run
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


def decide(run: Run, outcomes: Sequence[Outcome], keep: Callable[[str, bool], bool]) -> Decision:
    """Decide over all outcomes of one instance in a batch, in order.

    `keep(queue, needs_place)` says whether a token that goes on in `queue` may stay with this worker; one that goes on
    in its own queue has its place there.
    """
    decision = Decision(run, run.state, outcomes)
    for outcome in outcomes:
        match outcome:
            case Finished():
                _finish(decision, outcome, keep)
            case Waits():
                _wait(decision, outcome, keep)
            case Erred():
                _err(decision, outcome)
            case Snoozed(token, delay):
                decision.verdicts.append(_verdict(token, "snooze", delay=delay.total_seconds()))
            case Released(token):
                decision.verdicts.append(_verdict(token, "release"))
            case Rebuilt(token):
                _rebuild(decision, token, keep)
            case _:
                assert_never(outcome)
    if any(verdict.guarded for verdict in decision.verdicts):
        _change(decision)
    return decision


def _verdict(token: Token, op: str, **more: Any) -> Verdict:
    return Verdict(
        id=token.id,
        run=token.run.run,
        attempt=token.attempt,
        step=token.step,
        kind=token.kind,
        op=op,
        orchestration=token.run.graph.orchestration_queue,
        **more,
    )


def _finish(decision: Decision, outcome: Finished, keep: Callable[[str, bool], bool]) -> None:
    token = outcome.token
    commands: tuple[Command, ...] = ()
    if outcome.failing is None:
        completed = machine.Completed(token.step, outcome.event, outcome.targets, by_timer=outcome.by_timer)
        decision.state, commands = advance(decision.state, completed)
        decision.commands[token.step] = commands
    verdict = _verdict(
        token,
        "end",
        event=outcome.event,
        targets=json.dumps(outcome.targets) if outcome.targets is not None else None,
        output=outcome.output,
        metadata=json.dumps(outcome.metadata) if outcome.metadata else None,
        errors=json.dumps(token.errors) if token.errors else None,
        seconds=outcome.seconds,
        stored=outcome.stored,
        signal=outcome.signal.id if outcome.signal else None,
        awaits=json.dumps(dict(outcome.awaits)) if outcome.awaits else None,
    )
    decision.outputs.append((token.step, outcome.value if outcome.output is not None else {}))
    if outcome.metadata:
        decision.metadata.update(outcome.metadata)
    if outcome.signal:
        decision.consumed.append(outcome.signal)
    if outcome.failing is not None:  # recorded as not applied: a retry calls the route again
        _fail(decision, verdict, token, outcome.failing)
        return
    _go_on(decision, token, verdict, [command for command in commands if isinstance(command, Execute)], keep)
    decision.verdicts.append(verdict)


def _go_on(
    decision: Decision, token: Token, verdict: Verdict, steps: list[Execute], keep: Callable[[str, bool], bool]
) -> None:
    """Let the token move to the first of `steps`; each other one gets a token of its own."""
    state, run = decision.state, decision.run
    verdict.guarded = not token.solo or len(steps) != 1 or state.status != run.status
    if not steps:
        return
    first, *others = steps
    verdict.op = "move"
    verdict.next_step, verdict.next_config, verdict.next_queue, verdict.next_max = _next(run, first)
    verdict.next_priority = token.priority
    verdict.next_solo = len(state.active) == 1
    # In another queue it takes a place of its own, as a branch does.
    verdict.keep = keep(verdict.next_queue, verdict.next_queue != token.queue)
    for command in others:
        step, config, queue, max_attempts = _next(run, command)
        decision.branches.append(Branch(run.run, step, config, queue, token.priority, max_attempts, keep(queue, True)))


def _next(run: Run, command: Execute) -> tuple[str, str | None, str, int]:
    node = run.graph.nodes[command.step]
    config = json.dumps(command.config) if command.config is not None else None
    return command.step, config, node.queue, node.retry.max_attempts


def _wait(decision: Decision, outcome: Waits, keep: Callable[[str, bool], bool]) -> None:
    token, run = outcome.token, decision.run
    for signal in run.signals:
        if signal not in decision.consumed and signal.name in outcome.awaits and signal.step in (None, token.step):
            match outcome.end(signal):  # it came before the wait: nothing to wait for
                case Finished() as finished:
                    _finish(decision, finished, keep)
                case Erred() as erred:
                    _err(decision, erred)
            return
    decision.state, _ = advance(decision.state, machine.Parked(token.step, outcome.delay, outcome.timeout_event))
    decision.verdicts.append(
        _verdict(
            token,
            "park",
            guarded=True,
            awaits=json.dumps(dict(outcome.awaits)),
            delay=outcome.delay.total_seconds() if outcome.delay is not None else None,
        )
    )


def _err(decision: Decision, outcome: Erred) -> None:
    token, run = outcome.token, decision.run
    failing = Failing(outcome.reason, outcome.type, outcome.retry, outcome.details)
    error = failing.entry(token.attempt)
    policy = run.graph.nodes[token.step].retry
    severed = sum("severed" in each for each in token.errors)
    if outcome.severed and severed < MOST_SEVERED:
        again = [*token.errors, {**error, "severed": severed + 1}][-KEPT_ERRORS:]
        decision.verdicts.append(
            _verdict(token, "snooze", errors=json.dumps(again), delay=min(LONGEST_SEVERED, 0.1 * 2**severed))
        )
        return
    if outcome.retry and token.attempt < token.max_attempts:
        decision.verdicts.append(
            _verdict(
                token,
                "retry",
                errors=json.dumps([*token.errors, error][-KEPT_ERRORS:]),
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
    _fail(decision, _verdict(token, "fail", signal=refused.id if refused else None), token, failing)


def _fail(decision: Decision, verdict: Verdict, token: Token, failing: Failing) -> None:
    """Fail the instance."""
    decision.state, _ = advance(decision.state, machine.Failed(token.step, failing.reason))
    decision.failure = {"step": token.step, **failing.entry(token.attempt), "attempts": token.errors[-KEPT_ERRORS:]}
    verdict.op, verdict.guarded = "fail", True
    decision.verdicts.append(verdict)


def _rebuild(decision: Decision, token: Token, keep: Callable[[str, bool], bool]) -> None:
    state, run = decision.state, decision.run
    verdict = _verdict(token, "end")
    stored = {} if token.config is None else json.loads(token.config)  # by `put`
    unrun = sorted(state.active - run.unapplied.keys())
    steps = [Execute(key, stored.get(key, state.graph.nodes[key].config)) for key in unrun]
    _go_on(decision, token, verdict, steps, keep)
    for key in sorted(state.active & run.unapplied.keys()):  # their routes failed: call them again
        queue, node = run.graph.deciding_queue(key), state.graph.nodes[key]
        branch = Branch(run.run, key, None, queue, token.priority, node.retry.max_attempts, kind="advance")
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
