"""Tell telemetry what a worker does: from a decision and what the database says became of it to events."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from pgflow.core.engine import Complete, Execute
from pgflow.core.graph import DONE
from pgflow.store.job import Freed, Settled, Verdict
from pgflow.telemetry import emit, names
from pgflow.telemetry.bus import routes
from pgflow.telemetry.emit import Subject
from pgflow.worker.decide import Decision
from pgflow.worker.outcome import Erred, Finished, Outcome, Snoozed
from pgflow.worker.token import Run, Token

__all__ = ["began", "ready", "rescued", "settled"]

OF_BEGINNING = frozenset({names.WORKFLOW_START, names.STEP_START})
OF_OUTCOMES = frozenset(
    {
        names.WORKFLOW_TRANSITION,
        names.STEP_STOP,
        names.STEP_EXCEPTION,
        names.STEP_ASYNC,
        names.STEP_RESUME,
        names.STEP_RETRY,
        names.STEP_SNOOZE,
    }
)


def ready(worker: int, queues: Mapping[str, int], schema: str) -> None:
    """A worker has an identity and a lease."""
    emit.runner_init(name=f"worker {worker}", pid=os.getpid(), queues=queues, schema=schema)


def rescued(worker: int, freed: Freed) -> None:
    """A worker has looked for tokens of dead ones."""
    if freed.tokens:
        emit.runner_rescue(name=f"worker {worker}", tokens=freed.tokens, queues=freed.queues)


def began(token: Token) -> None:
    """A step begins to run; with the first one its instance."""
    if routes.keys().isdisjoint(OF_BEGINNING):
        return
    run = token.run
    subject = _subject(run)
    if token.step == run.graph.initial and token.attempt == 1:
        emit.workflow_start(subject, initial_step=token.step, context_keys=_keys(run.input))
    active = len(run.state.active)
    emit.step_start(subject, **_step(token), attempt=token.attempt, active_steps_count=active)


def settled(decision: Decision, fates: Mapping[int, Settled]) -> None:
    """A decision was sent to the database; only what its rows say became true is told."""
    if not routes.keys().isdisjoint(OF_OUTCOMES):
        _tell_outcomes(decision, fates)
    if not any(fates[verdict.id].status == "done" for verdict in decision.verdicts):
        return
    if names.ENGINE_ADVANCE in routes:
        emit.engine_advance(
            _subject(decision.run),
            duration=decision.seconds,
            active_steps_count=len(decision.state.active),
            completed_in_advance=len((decision.state.done.keys() - decision.before.done.keys()) - {DONE}),
            status_before=decision.before.status,
            status_after=decision.state.status,
            iteration=decision.run.advances,
        )
    _tell_end(decision)


def _tell_outcomes(decision: Decision, fates: Mapping[int, Settled]) -> None:
    subject = _subject(decision.run)
    for outcome, verdict in zip(decision.outcomes, decision.verdicts, strict=True):
        status = fates[verdict.id].status
        is_done = status == "done"
        # A conflict keeps the result, for an advance token to apply; that which a signal brought is decided again.
        is_recorded = is_done or (status == "conflict" and verdict.signal is None)
        if is_recorded and verdict.event is not None and not verdict.stored:
            _completed(subject, outcome, verdict)
        if is_done:
            _applied(subject, decision, outcome, verdict)


def _completed(subject: Subject, outcome: Outcome, verdict: Verdict) -> None:
    """A result is recorded."""
    token, event = outcome.token, verdict.event or ""
    is_timeout = isinstance(outcome, Finished) and outcome.by_timer
    if is_timeout or verdict.signal is not None:
        waited = token.waited if token.kind != "execute" else 0.0
        source = "timeout" if is_timeout else "external"
        emit.step_resume(
            subject,
            **_step(token),
            attempt=token.attempt,
            resume_event=event,
            source=source,
            wait_duration=waited,
        )
    emit.step_stop(
        subject,
        **_step(token),
        attempt=token.attempt,
        event=event,
        duration=_duration(token, verdict.seconds),
        has_context_updates=verdict.output is not None,
        has_metadata_updates=verdict.metadata is not None,
    )


def _applied(subject: Subject, decision: Decision, outcome: Outcome, verdict: Verdict) -> None:
    """A verdict has taken effect."""
    token = outcome.token
    if verdict.event is not None:
        commands = decision.commands.get(token.step, ())
        targets = [command.step for command in commands if isinstance(command, Execute)]
        targets += [DONE for command in commands if isinstance(command, Complete)]
        emit.workflow_transition(subject, from_step=token.step, event=verdict.event, targets=targets)
    elif verdict.op == "park" and token.kind != "resume":
        seconds = getattr(outcome, "seconds", 0.0)
        emit.step_async(
            subject,
            **_step(token),
            attempt=token.attempt,
            duration=_duration(token, seconds),
            instance_status=decision.state.status,
        )
    elif isinstance(outcome, Snoozed):
        emit.step_snooze(subject, **_step(token), attempt=token.attempt, delay=outcome.delay.total_seconds())
    elif isinstance(outcome, Erred):
        kind, reason, will_retry = outcome.type, outcome.reason, verdict.op == "retry"
        emit.step_exception(
            subject,
            **_step(token),
            attempt=token.attempt,
            duration=_duration(token, outcome.seconds),
            kind=kind,
            reason=reason,
            stacktrace=outcome.details.get("trace"),
            will_retry=will_retry,
        )
        if will_retry:
            most = token.max_attempts
            emit.step_retry(subject, **_step(token), attempt=token.attempt, max_attempts=most, kind=kind, reason=reason)


def _tell_end(decision: Decision) -> None:
    run, state, failure = decision.run, decision.state, decision.failure
    if state.status not in ("completed", "failed"):
        return
    subject = _subject(run)
    steps = [step for step in state.done if step != DONE]
    if state.status == "completed":
        emit.workflow_stop(subject, duration=_age(run), completed_steps=steps, advance_count=run.advances)
    elif failure is not None and run.status == "failed":
        emit.workflow_exception(
            subject,
            duration=_age(run),
            kind=failure["type"],
            reason=failure["reason"],
            stacktrace=failure.get("trace"),
            failed_step=failure["step"],
            step_count=len(steps),
            advance_count=run.advances,
        )


def _subject(run: Run) -> Subject:
    return Subject(run.id, run.graph.name, run.version, run.run, run.caller)


def _step(token: Token) -> dict[str, Any]:
    return {"step": token.step, "step_name": type(token.run.graph.nodes[token.step].step).__name__}


def _duration(token: Token, seconds: float) -> float | None:
    """How long an attempt took; what a signal or a timer ended, or another worker began, has no duration here."""
    return seconds if token.kind == "execute" else None


def _age(run: Run) -> float | None:
    """How long ago the instance was started, in seconds."""
    if run.age is None or run.age < 0:  # a clock that was set back
        return None
    return run.age + time.monotonic() - run.known_at


def _keys(text: str) -> list[str]:
    given = json.loads(text)
    return sorted(given) if isinstance(given, dict) else []
