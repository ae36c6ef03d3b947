"""Run the step that a token stands for and say, as a value, what it came to."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import replace
from datetime import timedelta
from typing import Any, assert_never, cast

from pgflow.core.definition.context import Context
from pgflow.core.definition.results import Async, Snooze
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.step import Parking, Step
from pgflow.core.definition.unique import extract_value
from pgflow.core.engine import attempt
from pgflow.core.engine.attempt import Failing, Written
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.codec import Codec, Place, sealed
from pgflow.core.values.sanitize import LONGEST_TEXT, one_line
from pgflow.errors import InvalidPayload
from pgflow.logs import Logger
from pgflow.process import acontained
from pgflow.store import failpoint
from pgflow.telemetry.bus import routes
from pgflow.worker import report
from pgflow.worker.claimed_job import Signal, Token
from pgflow.worker.outcome import Erred, Finished, Outcome, Rebuilt, Snoozed, Waits

__all__ = ["Runner"]

log = Logger("pgflow.worker")


class Runner:
    """Runs steps: async ones on the event loop, sync ones in `threads`. With a `codec` their outputs are sealed."""

    def __init__(self, threads: Executor, codec: Codec | None = None) -> None:
        self.calls: set[Future[Any]] = set()  # of sync steps that run in their threads, also those that were given up
        self._threads = threads
        self._codec = codec

    def using(self, threads: Executor) -> Runner:
        """Return the same with other threads."""
        other = Runner(threads, self._codec)
        other.calls = self.calls
        return other

    async def run(self, token: Token, conn: Any = None) -> Outcome:
        """Run one token to its outcome: whatever the step raises becomes an `Erred`.

        It raises only `CancelledError`, and only while the task is being cancelled: one that the step raises itself is
        an error like any other.
        """
        if token.is_condemned and token.step:
            return Erred(
                token, f"the worker was lost while the step ran, {token.crashes} times", "WorkerLost", retry=False
            )
        match token.kind:
            case "resume":
                return self._resume(token)
            case "advance":
                return self._advance(token)
        if routes:
            report.began(token)
        began = time.perf_counter()
        try:
            step = self.step(token)
            ctx = self.context(token, conn)
            failpoint.hit("step.begins")
            result = await self._call(step, ctx, token.run.graph.nodes[token.step].retry)
            failpoint.hit("step.ended")
            return self._read(token, step, result, time.perf_counter() - began)
        except BaseException as error:  # nothing that a step raises, sys.exit() included, may end the worker
            if issubclass(type(error), asyncio.CancelledError) and _is_cancelled():
                raise
            return self._failed(token, error, time.perf_counter() - began)

    def step(self, token: Token) -> Step:
        """The step to run, with the configuration that was stored when it was activated."""
        step = token.run.graph.nodes[token.step].step
        return step if token.config is None else step.with_config(json.loads(token.config))

    def context(self, token: Token, conn: Any = None) -> Context[Any]:
        """What the step sees: the validated input, and the outputs of the steps before it."""
        run = token.run
        return Context(
            initial=run.workflow.read_input(run.input),  # anew: a step may write to a model of its own
            steps=run.outputs.copy(),  # a sibling may complete meanwhile
            id=run.id,
            value=extract_value(run.id),
            run=run.run,
            workflow=run.graph.name,
            version=run.version,
            step=token.step,
            attempt=token.attempt,
            metadata=run.metadata.copy(),
            conn=conn,
        )

    async def _call(self, step: Step, ctx: Context[Any], policy: Retry) -> Any:
        if step.is_async:
            return await acontained(cast("Awaitable[Any]", step.execute(ctx)))
        call: Callable[..., Any] = contextvars.copy_context().run
        running = self._threads.submit(call, attempt.call, step, ctx, policy)
        self.calls.add(running)
        running.add_done_callback(self.calls.discard)
        result = await asyncio.wrap_future(running)
        return await acontained(result) if inspect.isawaitable(result) else result

    def _read(self, token: Token, step: Step, result: Any, seconds: float) -> Outcome:
        reveal = self._codec is not None
        read = attempt.read(token.run.graph, token.step, result, lambda: self.context(token), reveal=reveal)
        match read:
            case Written():
                return self._finished(token, read, seconds)
            case Failing():
                return self._erred(token, read, seconds)
            case Async():
                return self._waits(token, attempt.waits(token.run.graph, step), seconds)
            case Snooze(delay):
                return Snoozed(token, delay)
        assert_never(read)

    def _waits(self, token: Token, parking: Parking, seconds: float = 0.0) -> Waits:
        def end(signal: Signal) -> Finished | Erred:
            return self._signalled(token, parking.awaits, signal, seconds)

        return Waits(token, parking.awaits, parking.delay, parking.timeout_event, end, seconds)

    def _signalled(
        self, token: Token, awaits: Mapping[str, str], signal: Signal, seconds: float = 0.0
    ) -> Finished | Erred:
        """End a wait with a signal; its payload may not fit."""
        try:
            payload = signal.payload if signal.has_payload else ABSENT
            text = attempt.taken(token.run.graph, token.step, signal.name, payload)
        except InvalidPayload as error:
            return replace(self._failed(token, error, seconds), signal=signal)
        except BaseException as error:  # code of the output's type; nothing is awaited here
            return self._failed(token, error, seconds)
        try:
            return self._finish(token, awaits[signal.name], text, seconds, signal=signal, awaits=awaits)
        except BaseException as error:  # code of the codec's; nothing is awaited here
            return self._failed(token, error, seconds)

    def _finish(self, token: Token, event: str, text: str | None, seconds: float = 0.0, **more: Any) -> Finished:
        end = attempt.finish(token.run.graph, token.step, event, text, lambda: self.context(token))
        return self._finished(token, end, seconds, **more)

    def _resume(self, token: Token) -> Outcome:
        """A wait has ended: by the signal that is addressed to it, or else because its time is over."""
        try:
            awaits = token.awaits or {}
            for signal in token.run.signals:
                if signal.name in awaits and signal.step in (None, token.step):
                    return self._signalled(token, awaits, signal)
            parking = replace(self.step(token).parking(), awaits=awaits)
            if parking.timeout_event is None:
                return self._waits(token, parking)
            text = self.step(token).absent_text()
            return self._finish(token, parking.timeout_event, text, by_timer=True)
        except BaseException as error:  # code of the step's parking(); nothing is awaited here
            return self._failed(token, error, 0.0)

    def _advance(self, token: Token) -> Outcome:
        """A result or a wait that could not be applied at once, or a token that an older worker has given up."""
        run = token.run
        if not token.step:
            return Rebuilt(token)
        stored = run.unapplied.get(token.step)
        if stored is not None:
            value, targets, why = run.outputs.get(token.step), stored.targets, None
            if run.graph.is_undecided(token.step, stored.event, targets):
                targets, why = attempt.decide(run.graph, token.step, stored.event, value, lambda: self.context(token))
            return Finished(token, stored.event, "", value, None, targets, stored=True, failing=why)
        if token.awaits is not None:
            try:
                parking = replace(attempt.waits(run.graph, self.step(token)), awaits=token.awaits)
            except BaseException as error:  # code of the step's parking(); nothing is awaited here
                return self._failed(token, error, 0.0)
            return self._waits(token, parking)
        return Erred(
            token, "the worker was lost while the step ran, in each of its attempts", "WorkerLost", retry=False
        )

    def overdue(self, token: Token) -> Erred:
        """Say what comes of a token whose step still ran when its time was over."""
        failed = attempt.overdue(token.run.graph, token.step)
        seconds = token.run.graph.nodes[token.step].step.max_runtime or timedelta(0)
        return Erred(token, failed.reason, failed.type, failed.retry, seconds.total_seconds(), failed.details)

    def _failed(self, token: Token, error: BaseException, seconds: float) -> Erred:
        return self._erred(token, attempt.failing(error, token.run.graph.nodes[token.step].retry), seconds)

    def _erred(self, token: Token, failed: Failing, seconds: float) -> Erred:
        if log.isEnabledFor(logging.DEBUG):
            told = failed.details.get("trace", failed.reason)
            log.debug("step %s of %s failed: %s", token.step, token.run.id, one_line(told, LONGEST_TEXT))
        return Erred(token, failed.reason, failed.type, failed.retry, seconds, failed.details)

    def _finished(self, token: Token, end: Written, seconds: float, **more: Any) -> Finished:
        text = end.text
        if text is not None and self._codec is not None:
            text = sealed(self._codec, text, Place(token.run.graph.name, token.run.id, "output", token.step))
        return Finished(
            token, end.event, text, end.value, end.metadata, end.targets, seconds, failing=end.failing, **more
        )


def _is_cancelled() -> bool:
    """Whether the current task was cancelled from outside: then a `CancelledError` in it is not the step's own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
