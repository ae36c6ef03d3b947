"""Carry out what the core commands: run steps, let time pass, and put every change into the storage."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, assert_never

from pgflow.core.definition.results import Snooze
from pgflow.core.definition.step import Parking
from pgflow.core.engine import attempt
from pgflow.core.engine.attempt import KEPT_ERRORS, AttemptError, EncodedResult, failing
from pgflow.core.engine.machine import advance
from pgflow.core.engine.state import (
    ACTIVE,
    Begun,
    Cancelled,
    CancelTimer,
    Command,
    Complete,
    Completed,
    Event,
    Execute,
    Fail,
    Failed,
    Failure,
    Parked,
    ScheduleResume,
)
from pgflow.core.models.instance import Entry, PendingSignal
from pgflow.core.models.instance_rules import overlaps
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.codec import Codec
from pgflow.core.values.sanitize import sanitize_line
from pgflow.errors import InvalidPayload
from pgflow.jitter import uniform
from pgflow.local.alarms import Alarms
from pgflow.local.clock import Clock
from pgflow.local.lock import Lock, Note
from pgflow.local.loop import Loop
from pgflow.local.report import Report
from pgflow.local.run import Run, Token
from pgflow.local.runner import Came, Runner
from pgflow.local.storage import Storage
from pgflow.local.watch import Look, Watch
from pgflow.logs import Logger
from pgflow.telemetry.instance_events import Source

__all__ = ["Conductor"]

log = Logger("pgflow.local")


class Conductor:
    """Holds the instances that are under way. Whoever reads or changes one holds its `lock`."""

    def __init__(self, storage: Storage, threads: int, codec: Codec | None = None) -> None:
        self.lock = Lock(self._tell_later, self._at_rest)
        self.clock = Clock()
        self.report = Report(self.lock, self.clock)
        self.runs: dict[int, Run] = {}  # the active ones, and failed ones for which signals are scheduled
        self._by_id: dict[str, set[int]] = {}  # the active runs of each business id
        self.is_closed = False
        self._storage = storage
        self._loop = Loop(threads)
        self._runner = Runner(self._loop, self.lock, self._settle, codec)
        self._alarms = Alarms(self._loop, self.lock, self.clock, self.runs, self._ring)
        self._watch = Watch()
        self._busy: set[Token] = set()  # ready or running
        self._later: dict[int, Run] = {}  # by the id of a signal that is scheduled
        self._is_to_look = False

    # -- instances: to be called with the lock held

    def admit(self, run: Run) -> None:
        """Take an instance in; what goes on in it goes on by itself from here."""
        self.runs[run.run] = run
        if run.state.status in ACTIVE:
            self._by_id.setdefault(run.id, set()).add(run.run)
        for token in run.tokens.values():
            self._place(run, token)
        for number in run.later:
            self._later[number] = run
            self._alarms.add_signal(run, number)
        self._save(run)

    def begin(self, run: Run, due: datetime) -> None:
        """Take a new instance in that is to begin at `due`."""
        if due > self.clock.now():
            first = run.graph.initial
            run.tokens[first] = Token(first, run.config_of(first), "scheduled", due)
            self.admit(run)
            return
        self.admit(run)
        self._apply(run, Begun())

    def take_up(self, run: Run) -> None:
        """Take an instance in that had failed: what was active runs anew."""
        began = time.perf_counter()
        self.admit(run)
        completed = {entry.step: entry for entry in run.history}
        for step in sorted(run.state.active):
            self._activate(run, step, run.config_of(step), completed.get(step))
        if run.state.error is not None:  # nothing is left that could run
            run.error = _told(run.state.error)
            run.finished_at = self.clock.now()
            self._end(run)
        self._save(run)
        self.report.advanced(run, run.state, time.perf_counter() - began)

    def let_go(self, run: Run) -> None:
        """Stop everything of an instance that has ended, or is replaced: what its running steps return is dropped."""
        self._stop(run)
        self._forget_signals(run)
        self.runs.pop(run.run, None)

    def _stop(self, run: Run) -> None:
        for token in run.tokens.values():
            self._runner.interrupt(token)
            self._busy.discard(token)
        run.tokens.clear()
        if (active := self._by_id.get(run.id)) is not None:
            active.discard(run.run)
            if not active:
                del self._by_id[run.id]

    def excluding(self, run: Run) -> int | None:
        """Return the newest other active run that excludes `run` by its business id and scope, None without one."""
        others = (self.runs[number] for number in self._by_id.get(run.id, ()) if number != run.run)
        return max(
            (
                each.run
                for each in others
                if overlaps(each.unique_key, run.unique_key, is_same_workflow=each.graph.name == run.graph.name)
            ),
            default=None,
        )

    def _forget_signals(self, run: Run) -> None:
        for number in run.later:
            self._later.pop(number, None)
        run.later.clear()

    def deliver(self, run: Run, token: Token, signal: PendingSignal) -> None:
        """End a wait by a signal. It stays in the mailbox until the wait is completed: its route may raise."""
        number = run.signals.put(replace(signal, step=token.step, id=None))
        self._end_wait_by(run, token, number)

    def keep(self, run: Run, signal: PendingSignal) -> None:
        """Keep a signal for a wait that is still to come."""
        run.signals.put(signal)
        self._save(run)

    def schedule(self, run: Run, number: int, signal: PendingSignal) -> None:
        """Send a signal when it is due."""
        run.later[number] = signal
        self._later[number] = run
        self._alarms.add_signal(run, number)
        self._save(run)

    def unschedule(self, number: int) -> bool:
        """Send it no more; returns whether it was still to be sent."""
        run = self._later.pop(number, None)
        if run is None:
            return False
        del run.later[number]
        self._save(run)
        return True

    def cancel(self, run: Run, reason: str | None) -> None:
        """End an instance; a step that runs is interrupted, and comes to nothing."""
        run.error = None if reason is None else {"reason": reason}
        self._apply(run, Cancelled())

    # -- waiting, for callers

    def until(self, look: Look) -> Future[None]:
        """Return a future that is done as soon as `look` is true; it is called with the lock held."""
        with self.lock:
            return self._watch.until(lambda: self.is_closed or look())

    def is_quiet(self) -> bool:
        """Whether no step runs or is about to: all wait for time to pass or for a signal. And whether all is told."""
        return self.lock.is_at_rest and not self._busy

    def is_drained(self) -> bool:
        """Whether nothing goes on by itself any more, however long one waits."""
        return (
            self.is_quiet()
            and not self._alarms.has_tokens()
            and not any(run.state.status in ACTIVE for run in self._later.values())
        )

    def advancing(self, by: timedelta) -> Generator[Look, None, None]:
        """Let time pass: yields what to wait for each time before it goes on, timer after timer.

        Meanwhile the clock stands at each moment until all has settled, so that what begins then begins exactly then.
        """
        yield self.is_quiet
        goal = self.clock.now() + by
        try:
            due: datetime | None = goal
            while due is not None and due <= goal and not self.is_closed:
                with self.lock:
                    due = self._alarms.next()
                    self.clock.stand_at(goal if due is None else min(due, goal))
                    self._ring()
                yield self.is_quiet
        finally:
            self.clock.go_on()

    def may_block(self) -> bool:
        """Whether the caller may wait here: on the loop it would wait for itself."""
        return not self._loop.is_here() and not self.lock.is_telling

    def close(self) -> None:
        """End all threads. What was under way stays in the storage; a step that ran does not count as an attempt."""
        with self.lock:
            if self.is_closed:
                return
            self.is_closed = True
            self._alarms.end()
            for run in self.runs.values():
                for token in run.tokens.values():
                    if token.place == "running":
                        token.place, token.attempt = "ready", token.attempt - 1
                self._storage.keep(run.saved())
            self._watch.look()
        self._loop.close()
        self.lock.tell()

    def _tell_later(self, what: Note) -> None:
        try:
            self._loop.soon(what)
        except RuntimeError:  # it is closed
            what()

    def _at_rest(self) -> None:
        with self.lock:
            self._look_soon()

    # -- the core's commands

    def _apply(self, run: Run, event: Event) -> tuple[Command, ...]:
        run.state, commands = advance(run.state, event)
        for command in commands:
            match command:
                case Execute(step):
                    self._activate(run, step, run.config_of(step))
                case ScheduleResume(step, delay, timeout_event):
                    token = run.tokens[step]
                    token.due, token.timeout_event = self.clock.now() + delay, timeout_event
                    self._place(run, token)
                case CancelTimer():
                    pass  # it went with its token
                case Complete():
                    pass  # the state says so
                case Fail(error):
                    run.error = run.error or _told(error)
                    log.debug("%s failed at %s: %s", run.id, error.step, sanitize_line(error.reason))
                case _:
                    assert_never(command)
        if run.state.status in ("completed", "failed", "cancelled"):
            run.finished_at = self.clock.now()
            self._end(run)
        self._save(run)
        return commands

    def _end(self, run: Run) -> None:
        """Let go of an instance that has ended. The signals of a failed one stay, for `retry` may continue it."""
        if run.state.status == "failed" and run.later:
            self._stop(run)
        else:
            self.let_go(run)

    def _activate(self, run: Run, step: str, config: dict[str, Any] | None, completed: Entry | None = None) -> None:
        token = run.tokens[step] = Token(step, config, completed=completed)
        self._place(run, token)

    def _place(self, run: Run, token: Token) -> None:
        """Let a token go on: at once, or when its time has come."""
        match token.place:
            case "ready" | "running":
                token.place, token.due = "ready", None
                self._busy.add(token)
                self._loop.soon(self._start, run, token)
            case "scheduled" | "parked" if token.due is not None:
                self._alarms.add_token(run, token)

    def _save(self, run: Run) -> None:
        if run.run in self.runs:
            self._storage.hold(run)
        else:
            self._storage.keep(run.saved())
        self._look_soon()

    def _look_soon(self) -> None:
        if self._watch and not self._is_to_look and not self.is_closed:
            self._is_to_look = True
            self._loop.soon(self._look)

    def _look(self) -> None:
        with self.lock:
            self._is_to_look = False
            self._watch.look()

    # -- steps

    def _start(self, run: Run, token: Token) -> None:
        with self.lock:
            if not run.holds(token) or token.place != "ready" or self.is_closed:
                return
            if token.completed is not None:
                self._decide(run, token, token.completed)
            else:
                token.place, token.attempt, token.parked_at = "running", token.attempt + 1, None
                self._runner.begin(run, token)
                self._save(run)
                self.report.began(run, token)

    def _settle(self, run: Run, token: Token, came: Came, took: timedelta) -> None:
        if self.is_closed:
            return
        match came:
            case EncodedResult():
                self._complete(run, token, came, took, None)
            case Parking():
                self._park(run, token, came, took)
            case Snooze(delay):
                self.report.snoozed(run, token, delay)
                token.attempt -= 1  # it does not count
                self._pause(run, token, delay)
                self.report.advanced(run, run.state, 0.0)
            case AttemptError():
                self._fail(run, token, came, took)
            case _:
                assert_never(came)

    def _complete(self, run: Run, token: Token, end: EncodedResult, took: timedelta, source: Source | None) -> None:
        before, began = run.state, time.perf_counter()
        run.metadata.update(end.metadata or {})
        run.record(
            Entry(
                step=token.step,
                event=end.event,
                at=self.clock.now(),
                attempt=token.attempt,
                output={} if end.text is None else end.value,
                metadata=end.metadata or {},
                duration=took,
                errors=tuple(token.errors),
                targets=end.targets,
            )
        )
        commands = self._go_on(run, token, end, source)
        self.report.completed(run, token, end, took, source)
        if commands is not None:
            self.report.moved(run, token, end.event, commands)
        self.report.advanced(run, before, time.perf_counter() - began)

    def _decide(self, run: Run, token: Token, entry: Entry) -> None:
        """Call the route of a recorded result again, after it failed when the step completed."""
        before, began = run.state, time.perf_counter()
        token.attempt = entry.attempt
        targets, why = attempt.decide(run.graph, token.step, entry.event, entry.output, lambda: run.context(token))
        run.history[run.history.index(entry)] = replace(entry, targets=targets)
        commands = self._go_on(run, token, EncodedResult(entry.event, targets=targets, failing=why))
        if commands is not None:
            self.report.moved(run, token, entry.event, commands)
        self.report.advanced(run, before, time.perf_counter() - began)

    def _go_on(
        self, run: Run, token: Token, end: EncodedResult, source: Source | None = None
    ) -> tuple[Command, ...] | None:
        """Apply a recorded result, or fail the instance (None) because the result's route failed."""
        del run.tokens[token.step]
        self._busy.discard(token)
        if end.failing is None:
            return self._apply(run, Completed(token.step, end.event, end.targets, by_timer=source == "timeout"))
        run.error = {"step": token.step, **end.failing.entry(token.attempt), "attempts": token.errors[-KEPT_ERRORS:]}
        self._apply(run, Failed(token.step, end.failing.reason))
        return None

    def _park(self, run: Run, token: Token, parking: Parking, took: timedelta) -> None:
        token.awaits = dict(parking.awaits)
        if (number := run.signals.first_for(token.step, token.awaits)) is not None:  # it came before the wait
            self._end_wait_by(run, token, number, took)
            return
        before, began = run.state, time.perf_counter()
        token.place, token.errors, token.parked_at = "parked", [], self.clock.now()
        self._busy.discard(token)
        self._apply(run, Parked(token.step, parking.delay, parking.timeout_event))
        self.report.parked(run, token, took)
        self.report.advanced(run, before, time.perf_counter() - began)

    def _end_wait_by(self, run: Run, token: Token, number: int, took: timedelta = timedelta(0)) -> None:
        """End a wait by a signal in the mailbox."""
        self._end_wait(run, token, token.awaits[run.signals[number].event], "external", took, number)

    def _end_wait(
        self,
        run: Run,
        token: Token,
        event: str,
        source: Source,
        took: timedelta = timedelta(0),
        number: int | None = None,
    ) -> None:
        """End a wait. Its signal, if it has one, is taken if the wait completes or cannot take the payload."""
        signal = None if number is None else run.signals[number]
        try:
            payload = signal.payload if signal is not None and signal.has_payload else ABSENT
            text = attempt.taken(run.graph, token.step, event if signal is None else signal.event, payload)
            end = attempt.finish(run.graph, token.step, event, text, lambda: run.context(token))
        except BaseException as error:  # nothing is awaited here
            if number is not None and issubclass(type(error), InvalidPayload):
                run.signals.take(number)
            self._fail(run, token, failing(error, run.graph.nodes[token.step].retry), took)
            return
        if number is not None:
            run.signals.take(number)
        self._complete(run, token, end, took, source)

    def _fail(self, run: Run, token: Token, why: AttemptError, took: timedelta) -> None:
        before, began = run.state, time.perf_counter()
        policy = run.graph.nodes[token.step].retry
        error = why.entry(token.attempt)
        will_retry = why.retry and token.attempt < policy.max_attempts
        self.report.failed(run, token, why, took, will_retry=will_retry)
        if will_retry:
            token.errors = [*token.errors, error][-KEPT_ERRORS:]
            self._pause(run, token, policy.delay(token.attempt, uniform(0.0, 1.0)))
        else:
            run.error = {"step": token.step, **error, "attempts": token.errors[-KEPT_ERRORS:]}
            self._apply(run, Failed(token.step, why.reason))
        self.report.advanced(run, before, time.perf_counter() - began)

    # -- time

    def _pause(self, run: Run, token: Token, delay: timedelta) -> None:
        token.place, token.due = "scheduled", self.clock.now() + delay
        self._busy.discard(token)
        self._place(run, token)
        self._save(run)

    def _ring(self) -> None:
        """Let all whose time has come go on; with the lock held."""
        while (due := self._alarms.due_token()) is not None:
            self._wake(*due)
        while (sent := self._alarms.due_signal()) is not None:
            self._send(*sent)

    def _send(self, run: Run, signal: PendingSignal) -> None:
        assert signal.id is not None  # noqa: S101 -- it is scheduled
        del run.later[signal.id], self._later[signal.id]
        token = run.tokens.get(signal.step or "")
        if token is not None and token.place == "parked" and signal.event in token.awaits:
            self.deliver(run, token, signal)
        elif signal.step not in run.outputs:
            self.keep(run, replace(signal, id=None))
        else:  # its step has completed
            self._save(run)
        if run.state.status == "failed" and not run.later:
            self.let_go(run)
            self._save(run)

    def _wake(self, run: Run, token: Token) -> None:
        token.due = None
        if run.state.status == "pending":
            del run.tokens[token.step]
            self._apply(run, Begun())
        elif token.place == "scheduled":
            token.place = "ready"
            self._place(run, token)
            self._save(run)
        elif token.timeout_event is not None:
            self._end_wait(run, token, token.timeout_event, "timeout")


def _told(error: Failure) -> dict[str, Any]:
    return {"step": error.step, "reason": error.reason, "type": "Error"}
