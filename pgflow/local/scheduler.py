"""Execute the core's commands: run steps, keep timers, and write every change to the storage."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol, assert_never

from pgflow.core.definition.hooks import HOOKS
from pgflow.core.definition.middleware import Middleware
from pgflow.core.engine.machine import advance
from pgflow.core.engine.state import (
    ACTIVE,
    Begun,
    Cancelled,
    CancelTimer,
    Command,
    Complete,
    Event,
    Execute,
    Fail,
    Failed,
    Failure,
    Retried,
    ScheduleResume,
)
from pgflow.core.models.instance import Entry, PendingSignal
from pgflow.core.models.instance_rules import overlaps
from pgflow.core.values.sanitize import sanitize_line
from pgflow.local.clock import Clock
from pgflow.local.live import LiveInstance, LocalJob
from pgflow.local.local_task import LocalTask
from pgflow.local.lock import Callback, DeferringLock
from pgflow.local.loop import Loop
from pgflow.local.outcomes import Outcomes
from pgflow.local.report import Report
from pgflow.local.runner import Runner
from pgflow.local.storage import Storage
from pgflow.local.tasks import Hooks, LocalTasks
from pgflow.local.timers import Timers
from pgflow.local.waiters import Condition, Waiters
from pgflow.logs import Logger
from pgflow.payloads.policy import PayloadPolicy

__all__ = ["Scheduler"]

log = Logger("pgflow.local")


class Schedules(Protocol):
    """The schedules that a scheduler fires. Called with its lock held."""

    @property
    def has_waiting(self) -> bool: ...

    def next(self) -> datetime | None: ...

    def fire_due(self) -> None: ...

    def ended(self, run: int, at: datetime | None) -> None: ...


class Scheduler:
    """Holds the active instances. They are read and changed only with its `lock` held."""

    def __init__(
        self, storage: Storage, threads: int, policy: PayloadPolicy, middleware: Sequence[Middleware] = ()
    ) -> None:
        self.lock = DeferringLock(self._run_later, self._on_idle)
        self.clock = Clock()
        self.report = Report(self.lock, self.clock)
        self.outcomes = Outcomes(self, self.report)
        self.live: dict[int, LiveInstance] = {}  # the active ones, and failed ones with scheduled signals
        self._active_by_id: dict[str, set[int]] = {}  # the active runs of each business id
        self.is_closed = False
        self._storage = storage
        self._loop = Loop(threads, middleware)
        self._runner = Runner(self._loop, self.lock, self.outcomes.settle, self._save, policy)
        self._waiters = Waiters()
        self.busy: set[LocalJob] = set()  # ready or running
        self._busy_tasks: set[LocalTask] = set()
        hooks = Hooks(timed=self._add_timer, changed=self._changed)
        self.tasks = LocalTasks(self._loop, self.lock, self.clock, self._busy_tasks, hooks, self.report, policy)
        self._timers = Timers(self._loop, self.lock, self.clock, self.live, self.tasks.by_id, self._run_due)
        self._scheduled: dict[int, LiveInstance] = {}  # by the id of a scheduled signal
        self._is_check_due = False
        self._schedules: Schedules | None = None
        self._is_revisit_due = False

    # -- instances: called with the lock held

    def admit(self, live: LiveInstance) -> None:
        """Add an instance; its jobs run from here on."""
        self.live[live.run] = live
        if live.state.status in ACTIVE:
            self._active_by_id.setdefault(live.id, set()).add(live.run)
            self._timers.add_deadline(live)
        for job in live.jobs.values():
            self._place(live, job)
        for number in live.scheduled:
            self._scheduled[number] = live
            self._timers.add_signal(live, number)
        self._save(live)

    def begin(self, live: LiveInstance, due: datetime, expires: datetime | None = None) -> None:
        """Add a new instance that begins at `due`, and is cancelled unless its first step has begun by `expires`."""
        first = live.graph.initial
        if due > self.clock.now():
            live.jobs[first] = LocalJob(first, live.config_of(first), "scheduled", due, expires=expires)
            self.admit(live)
            return
        self.admit(live)
        self.apply(live, Begun())
        live.jobs[first].expires = expires

    def restart(self, live: LiveInstance) -> None:
        """Add an instance whose active steps run again from their beginning: a retried or a stored one."""
        began = time.perf_counter()
        self.admit(live)
        completed = {entry.step: entry for entry in live.history}
        for step in sorted(live.state.active):
            self._activate(live, step, live.config_of(step), completed.get(step))
        if live.state.error is not None:  # its history leaves no step to run
            live.error = _error_of(live.state.error)
            live.finished_at = self.clock.now()
            self._end(live)
        self._save(live)
        self.report.advanced(live, live.state, time.perf_counter() - began)

    def release(self, live: LiveInstance) -> None:
        """Drop an instance that has ended or is replaced, with the outcomes of its running steps."""
        self._stop(live)
        self._forget_signals(live)
        self.live.pop(live.run, None)

    def _stop(self, live: LiveInstance) -> None:
        for job in live.jobs.values():
            self._runner.interrupt(job)
            self.busy.discard(job)
        live.jobs.clear()
        if (active := self._active_by_id.get(live.id)) is not None:
            active.discard(live.run)
            if not active:
                del self._active_by_id[live.id]

    def excluding(self, live: LiveInstance) -> int | None:
        """Return the newest other active run that excludes `live` by its business id and scope, None without one."""
        others = (self.live[number] for number in self._active_by_id.get(live.id, ()) if number != live.run)
        return max(
            (
                each.run
                for each in others
                if overlaps(each.unique_key, live.unique_key, is_same_workflow=each.graph.name == live.graph.name)
            ),
            default=None,
        )

    def _forget_signals(self, live: LiveInstance) -> None:
        for number in live.scheduled:
            self._scheduled.pop(number, None)
        live.scheduled.clear()

    def keep(self, live: LiveInstance, signal: PendingSignal) -> None:
        """Keep a signal for a later wait."""
        live.mailbox.put(signal)
        self._save(live)

    def schedule(self, live: LiveInstance, number: int, signal: PendingSignal) -> None:
        """Send a signal when it is due."""
        live.scheduled[number] = signal
        self._scheduled[number] = live
        self._timers.add_signal(live, number)
        self._save(live)

    def unschedule(self, number: int) -> bool:
        """Cancel a scheduled signal; returns whether it was still to be sent."""
        live = self._scheduled.pop(number, None)
        if live is None:
            return False
        del live.scheduled[number]
        self._save(live)
        return True

    def cancel(self, live: LiveInstance, reason: str | None) -> None:
        """Cancel an instance; a running step is interrupted and its outcome dropped."""
        live.error = None if reason is None else {"reason": reason}
        self.apply(live, Cancelled())

    def run_paused_again(self, live: LiveInstance, job: LocalJob) -> None:
        """Run a step again that waits for an operator, with all its attempts."""
        live.state, _ = advance(live.state, Retried(job.step))
        job.state, job.is_paused, job.added_attempts = "ready", False, job.attempt
        self._place(live, job)
        self._save(live)

    # -- for callers that wait

    def until(self, condition: Condition) -> Future[None]:
        """Return a future that is done once `condition`, which is called with the lock held, is true."""
        with self.lock:
            return self._waiters.until(lambda: self.is_closed or condition())

    def is_settled(self) -> bool:
        """Whether no step runs or is ready to, and all telemetry is emitted."""
        return self.lock.is_idle and not self.busy and not self._busy_tasks and not self._is_revisit_due

    def is_drained(self) -> bool:
        """Whether nothing is left that continues without a signal, timers included."""
        return (
            self.is_settled()
            and not self._timers.has_jobs()
            and not any(live.state.status in ACTIVE for live in self._scheduled.values())
        )

    def advancing(self, by: timedelta) -> Generator[Condition, None, None]:
        """Move the clock forward, timer by timer: yields a condition to wait for before each further move.

        The clock is stopped at each due time until all has settled, so that what starts then starts exactly then.
        """
        yield self.is_settled
        goal = self.clock.now() + by
        try:
            due: datetime | None = goal
            while due is not None and due <= goal and not self.is_closed:
                with self.lock:
                    due = self._timers.next()
                    self.clock.stop_at(goal if due is None else min(due, goal))
                    self._run_due()
                yield self.is_settled
        finally:
            self.clock.resume()

    def may_block(self) -> bool:
        """Whether the caller may wait: on the loop, or in a callback, it would wait for itself."""
        return not self._loop.is_here() and not self.lock.is_in_callback

    def describe(self) -> list[str]:
        """Return the active steps, for messages: each with its instance and its state."""
        with self.lock:
            steps = [f"{live.id} {job.step} ({job.state})" for live in self.live.values() for job in live.jobs.values()]
            active = [*steps, *self.tasks.describe()]
            return active if self.lock.is_idle else [*active, "a handler of telemetry"]

    def close(self) -> None:
        """End all threads. Active instances stay in the storage; a running step does not count as an attempt."""
        with self.lock:
            if self.is_closed:
                return
            self.is_closed = True
            self._timers.close()
            self.tasks.close()
            for live in self.live.values():
                for job in live.jobs.values():
                    if job.state == "running":
                        job.state, job.attempt = "ready", job.attempt - 1
                self._storage.keep(live.saved())
            self._waiters.check()
        self._loop.close()
        self.lock.run_deferred()

    def _run_later(self, callback: Callback) -> None:
        try:
            self._loop.soon(callback)
        except RuntimeError:  # it is closed
            callback()

    def _on_idle(self) -> None:
        with self.lock:
            self._check_waiters_soon()

    # -- the core's commands

    def apply(self, live: LiveInstance, event: Event) -> tuple[Command, ...]:
        """Advance an instance by an event, and execute the commands that follow."""
        live.state, commands = advance(live.state, event)
        for command in commands:
            match command:
                case Execute(step):
                    self._activate(live, step, live.config_of(step))
                case ScheduleResume(step, delay, timeout_event):
                    job = live.jobs[step]
                    job.due, job.timeout_event = self.clock.now() + delay, timeout_event
                    self._place(live, job)
                case CancelTimer():
                    pass  # the job is gone, and its timer with it
                case Complete():
                    pass  # the state has it
                case Fail(error):
                    live.error = live.error or _error_of(error)
                    failed = live.jobs.get(error.step or "")
                    if failed is not None and failed.checkpoint is not None:
                        live.checkpoints[failed.step] = failed.checkpoint
                    log.debug("%s failed at %s: %s", live.id, error.step, sanitize_line(error.reason))
                case _:
                    assert_never(command)
        if live.state.status in ("completed", "failed", "cancelled"):
            live.finished_at = self.clock.now()
            if self._schedules is not None:
                self._schedules.ended(live.run, live.finished_at)
            self._end(live)
        self._save(live)
        return commands

    def _end(self, live: LiveInstance) -> None:
        """Drop an instance that has ended. A failed one keeps its scheduled signals, since `retry` may continue it."""
        status, graph = live.state.status, live.graph
        if (hook := live.definition.options.hooks.get(HOOKS[status])) is not None:
            error = live.error and {key: value for key, value in live.error.items() if key not in ("attempts", "trace")}
            about = {
                "kind": "workflow",
                "run": live.run,
                "id": live.id,
                "workflow": graph.name,
                "version": graph.version,
            }
            self.tasks.enqueue_hook(hook, {**about, "status": status, "error": error})
        if live.state.status == "failed" and live.scheduled:
            self._stop(live)
        else:
            self.release(live)

    def _activate(
        self, live: LiveInstance, step: str, config: dict[str, Any] | None, completed: Entry | None = None
    ) -> None:
        job = live.jobs[step] = LocalJob(step, config, recorded=completed, checkpoint=live.checkpoints.pop(step, None))
        self._place(live, job)

    def _place(self, live: LiveInstance, job: LocalJob) -> None:
        """Run a job at once, or when it is due."""
        match job.state:
            case "ready" | "running":
                job.state, job.due = "ready", None
                self.busy.add(job)
                self._loop.soon(self._start, live, job)
            case "scheduled" | "parked" if job.due is not None:
                self._timers.add_job(live, job)

    def _save(self, live: LiveInstance) -> None:
        if live.run in self.live:
            self._storage.hold(live)
        else:
            self._storage.keep(live.saved())
        self._changed()

    def _changed(self) -> None:
        """Look whether a schedule waited for a run that has ended, and wake callers that wait."""
        if self._schedules is not None and self._schedules.has_waiting and not self._is_revisit_due:
            self._is_revisit_due = True
            self._loop.soon(self._revisit)
        self._check_waiters_soon()

    def _revisit(self) -> None:
        with self.lock:
            self._is_revisit_due = False
            if self._schedules is not None and not self.is_closed:
                self._schedules.fire_due()
                self._timers.changed()
            self._check_waiters_soon()

    def use_schedules(self, schedules: Schedules) -> None:
        """Fire these schedules, too."""
        self._schedules = schedules
        self._timers.next_schedule = schedules.next

    def schedules_changed(self) -> None:
        """Take into account that a schedule is due at another time."""
        self._timers.changed()

    def _check_waiters_soon(self) -> None:
        if self._waiters and not self._is_check_due and not self.is_closed:
            self._is_check_due = True
            self._loop.soon(self._check_waiters)

    def _check_waiters(self) -> None:
        with self.lock:
            self._is_check_due = False
            self._waiters.check()

    # -- steps

    def _start(self, live: LiveInstance, job: LocalJob) -> None:
        with self.lock:
            if not live.holds(job) or job.state != "ready" or self.is_closed:
                return
            if job.expires is not None and job.attempt == 0 and self.clock.now() > job.expires:
                self.busy.discard(job)
                self.cancel(live, "expired")
                return
            if job.recorded is not None:
                self.outcomes.decide(live, job, job.recorded)
            else:
                job.state, job.attempt, job.parked_at = "running", job.attempt + 1, None
                self._runner.begin(live, job)
                self._save(live)
                self.report.began(live, job)

    # -- time

    def pause(self, live: LiveInstance, job: LocalJob, delay: timedelta) -> None:
        """Run a job again later."""
        job.state, job.due = "scheduled", self.clock.now() + delay
        self.busy.discard(job)
        self._place(live, job)
        self._save(live)

    def _run_due(self) -> None:
        """Continue all that is due. Called with the lock held."""
        while (due := self._timers.due_job()) is not None:
            self._wake(*due)
        while (sent := self._timers.due_signal()) is not None:
            self._send(*sent)
        while (task := self._timers.due_task()) is not None:
            self.tasks.place(task)
        while (late := self._timers.overdue()) is not None:
            self._end_overdue(late)
        if self._schedules is not None:
            self._schedules.fire_due()

    def _add_timer(self, job: LocalTask) -> None:
        self._timers.add_task(job)

    def _end_overdue(self, live: LiveInstance) -> None:
        assert live.deadline is not None  # noqa: S101 -- it was due
        before, reason = live.state, f"the deadline has passed, {live.deadline.isoformat()}"
        live.error = {"reason": reason, "type": "DeadlineExceeded"}
        self.apply(live, Failed(None, reason))
        self.report.advanced(live, before, 0.0)

    def _send(self, live: LiveInstance, signal: PendingSignal) -> None:
        assert signal.id is not None  # noqa: S101 -- it is scheduled
        del live.scheduled[signal.id], self._scheduled[signal.id]
        job = live.jobs.get(signal.step or "")
        if job is not None and job.state == "parked" and signal.event in job.awaits:
            self.outcomes.deliver(live, job, signal)
        elif signal.step not in live.outputs:
            self.keep(live, replace(signal, id=None))
        else:  # its step has completed
            self._save(live)
        if live.state.status == "failed" and not live.scheduled:
            self.release(live)
            self._save(live)

    def _wake(self, live: LiveInstance, job: LocalJob) -> None:
        job.due = None
        if live.state.status == "pending":
            del live.jobs[job.step]
            self.apply(live, Begun())
            live.jobs[job.step].expires = job.expires
        elif job.state == "scheduled":
            job.state = "ready"
            self._place(live, job)
            self._save(live)
        elif job.timeout_event is not None:
            self.outcomes.end_wait(live, job, job.timeout_event, "timeout")


def _error_of(error: Failure) -> dict[str, Any]:
    return {"step": error.step, "reason": error.reason, "type": "Error"}
