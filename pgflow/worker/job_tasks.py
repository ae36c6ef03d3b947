"""Run claimed jobs as tasks of the event loop, and hand over their outcomes."""

from __future__ import annotations

import asyncio

from pgflow.core.values.sanitize import error_message, format_traceback, sanitize_text, type_name
from pgflow.logs import Logger
from pgflow.worker.claimed_task import HeldJob
from pgflow.worker.committed import Committed, JobOutcome
from pgflow.worker.outcome import AttemptFailed
from pgflow.worker.reports import JobControl
from pgflow.worker.runner import Runner
from pgflow.worker.settler import Settler
from pgflow.worker.transactional.runner import TransactionalRunner

__all__ = ["JobTasks"]

log = Logger("pgflow.worker")


class JobTasks:
    """One task for each job that runs. `connect` it before the first job starts.

    `has_ended` is set whenever a task ends.
    """

    def __init__(self, runner: Runner, has_ended: asyncio.Event) -> None:
        self._runner = runner
        self._has_ended = has_ended
        self._settler: Settler
        self._transactional: TransactionalRunner
        self._loop: asyncio.AbstractEventLoop  # kept: to look it up for each job costs a system call
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._overdue: set[asyncio.Task[None]] = set()

    def connect(self, settler: Settler, transactional: TransactionalRunner) -> None:
        """Set where outcomes go, and what runs transactional steps."""
        self._settler = settler
        self._transactional = transactional

    def begin(self) -> None:
        """Use the running event loop from now on."""
        self._loop = asyncio.get_running_loop()
        self._runner.reports.begin()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def left_behind(self) -> int:
        """How many sync steps were given up, and still run in their threads."""
        return len(self._runner.calls)

    def start(self, job: HeldJob) -> None:
        """Begin to run a job."""
        self._tasks[job.id] = self._loop.create_task(self._run(job))

    def drop(self, job: HeldJob) -> None:
        """Cancel a job that this worker no longer owns; unless it is committing, which has to come to a known end."""
        self._mark_cancelled(job)
        task = self._tasks.pop(job.id, None)
        if task is not None and job not in self._transactional.committing:
            task.cancel()

    async def _run(self, job: HeldJob) -> None:
        me = self._tasks[job.id]
        work = job.work
        # The pool of processes measures cpu work itself, from when a process is free.
        is_measured = work is not None and work.cpu and self._runner.has_processes
        limit = None if work is None or is_measured else work.max_runtime
        if limit is not None:
            timer = self._loop.call_later(limit.total_seconds(), self._end_overdue, job)
        is_transactional = work is not None and work.transactional
        outcome: JobOutcome
        try:
            outcome = await (self._transactional if is_transactional else self._runner).run(job)
        except asyncio.CancelledError:
            if me in self._overdue:
                outcome = self._runner.overdue(job)
            else:
                outcome = AttemptFailed(job, f"the {_noun(job)} was cancelled from within", "CancelledError")
        except BaseException as error:  # not the step's, whose errors are outcomes; it must not cost the slot
            log.error(
                "%s could not be run:\n%s",
                job.title,
                sanitize_text(format_traceback(error), tail=True),
            )
            text = sanitize_text(f"the {_noun(job)} could not be run: {error_message(error)}")
            outcome = AttemptFailed(job, text, type_name(error))
        finally:
            if limit is not None:
                timer.cancel()
            if self._tasks.get(job.id) is me:
                del self._tasks[job.id]
            if isinstance(job.control, JobControl):
                self._runner.reports.forget(job.control)
                job.control = None  # or each job would be part of a reference cycle
            self._has_ended.set()
        outcome = self._runner.by_policy(outcome)
        held_jobs = self._settler.held_jobs
        if not (isinstance(outcome, Committed) or held_jobs.holds(job)):
            return  # it was dropped, even if the step has caught the cancellation
        self._settler.finished(outcome)
        held_jobs.run_waiting()

    def _mark_cancelled(self, job: HeldJob) -> None:
        """Let a sync step see that its outcome will be dropped; a checkpoint that it waits for is not stored."""
        if isinstance(job.control, JobControl):
            job.control.is_cancelled = True
            self._runner.reports.forget(job.control)

    def _end_overdue(self, job: HeldJob) -> None:
        """Cancel a step whose `max_runtime` has passed; not while it commits, which has its own time limits."""
        task = self._tasks.get(job.id)
        if task is not None and job not in self._transactional.committing:
            self._mark_cancelled(job)
            self._overdue.add(task)
            task.add_done_callback(self._overdue.discard)
            task.cancel()


def _noun(job: HeldJob) -> str:
    return "task" if job.kind == "task" else "step"
