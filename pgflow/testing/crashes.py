"""Let workers die at each commit point of each job, so that every step that is not transactional runs again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from pgflow.app import Pgflow
from pgflow.client.app import App
from pgflow.errors import ConfigError
from pgflow.testing.recorder import current
from pgflow.worker import Worker, points
from pgflow.worker.claimed_job import ClaimedJob
from pgflow.worker.claimed_task import ClaimedTask, HeldJob
from pgflow.worker.decide_task import AnyDecision

__all__ = ["CrashReport", "Delivery", "crash_mode", "plan_of"]

BEFORE = "before it began"
RAN = "after it ran, before the commit"
COMMITTED = "after the commit"


@dataclass(slots=True)
class Delivery:
    """One step of one instance, or one task: how often it was begun, and where workers died that held it.

    `id` is the business id of the instance, or "job 17".
    """

    name: str
    id: str
    step: str
    runs: int = 0
    died: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name} {self.id} {self.step}: ran {self.runs} times; died {'; '.join(self.died)}"


@dataclass(slots=True)
class CrashReport:
    """What was delivered in crash mode, in the order of the first deliveries."""

    deliveries: list[Delivery] = field(default_factory=list)

    @property
    def repeated(self) -> list[Delivery]:
        """The steps that ran more than once; a transactional step's first run was rolled back."""
        return [each for each in self.deliveries if each.runs > 1]

    def __str__(self) -> str:
        lines = "\n".join(f"  {each}" for each in self.deliveries)
        return f"delivered again after crashes of the worker:\n{lines or '  nothing'}"


@contextmanager
def crash_mode(app: App) -> Iterator[CrashReport]:
    """Within the `with`, let the workers of `drain` and `run_inline` die once at each commit point of each job.

    A worker dies before the step begins, after the step ran and before its result is committed, and after that commit;
    the job is delivered again each time. So each step runs at least twice, except for its transaction, if it has one:
    the first is rolled back. Assert afterwards that its effects happened once. One job runs at a time. Raises
    `ConfigError` for a `Local`, which has no workers.

        with crash_mode(app) as crashes:
            drain(app)
        assert len(gateway.charges) == 1, str(crashes)
    """
    if not isinstance(app, Pgflow):
        raise ConfigError(f"{app!r} has no workers that could die", hint="Use an app on PostgreSQL: Pgflow(dsn).")
    plan = CrashPlan()
    before = plans.get(app)
    plans[app] = plan
    try:
        yield plan.report
    finally:
        if before is None:
            del plans[app]
        else:
            plans[app] = before


class CrashPlan:
    """Which deaths are still to come, and what has been delivered."""

    def __init__(self) -> None:
        self.report = CrashReport()
        self._done: set[tuple[Any, ...]] = set()  # deaths, by job, step and point
        self._deliveries: dict[tuple[Any, ...], Delivery] = {}
        self._running: asyncio.Task[None] | None = None
        self._dies_soon = False

    async def deliver(self, queues: Iterable[str], make: Callable[[str], Worker]) -> None:
        """Run the due jobs of these queues, with one worker after another, until none of them finds anything."""
        before = points.install(self._reached)
        try:
            has_found = True
            while has_found:
                has_found = False
                for queue in queues:
                    worker = make(queue)
                    while await self._dies(worker):
                        has_found, worker = True, make(queue)
                    has_found |= worker.stats.claimed > 0
        finally:
            points.install(before)

    async def _dies(self, worker: Worker) -> bool:
        """Run a worker until it has drained its queue or died; returns whether it died."""
        self._dies_soon = False
        running = self._running = asyncio.create_task(worker.run())
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            running.cancel()
            await asyncio.wait([running])
            raise
        if running.cancelled():
            return True
        running.result()
        return False

    def _reached(self, point: str, subject: object) -> None:
        """Let the worker die here, unless it has done so before for this job. Other workers are left alone."""
        if self._running is None or current.get() is None:
            return
        match point, subject:
            case "step.begins" | "task.begins", ClaimedJob() | ClaimedTask():
                self._die_once(BEFORE, subject)
                self._delivery(subject).runs += 1
            case "transaction.settled", ClaimedJob() | ClaimedTask():
                self._die_once(RAN, subject)
            case "transaction.committed", ClaimedJob() | ClaimedTask():
                self._dies_soon = self._is_first(COMMITTED, subject)  # with the next statement of the worker
            case "claimer.sending", list():
                if self._dies_soon:
                    self._die()
                self._die_once(RAN, *_jobs(subject))
            case "claimer.adopted", list():
                self._die_once(COMMITTED, *_jobs(subject))

    def _die_once(self, point: str, *jobs: HeldJob) -> None:
        first = [job for job in jobs if self._is_first(point, job)]
        if first:
            self._die()

    def _is_first(self, point: str, job: HeldJob) -> bool:
        key = (*_key(job), job.kind, point)
        if key in self._done:
            return False
        self._done.add(key)
        self._delivery(job).died.append(point)
        return True

    def _die(self) -> None:
        """Cancel the worker, which loses what it holds in memory; its jobs are given back."""
        if self._running is not None and self._running is not asyncio.current_task():
            self._running.cancel()  # before it could settle the outcome of the step's task
        raise asyncio.CancelledError

    def _delivery(self, job: HeldJob) -> Delivery:
        key = _key(job)
        if key not in self._deliveries:
            if isinstance(job, ClaimedTask):
                made = Delivery(job.work.name, f"job {job.id}", job.step)
            else:
                made = Delivery(job.instance.graph.name, job.instance.id, job.step)
            self._deliveries[key] = made
            self.report.deliveries.append(made)
        return self._deliveries[key]


plans: WeakKeyDictionary[App, CrashPlan] = WeakKeyDictionary()


def plan_of(app: App) -> CrashPlan | None:
    """Return the plan of an app in crash mode, None for any other."""
    return plans.get(app)


def _jobs(decisions: list[AnyDecision]) -> list[HeldJob]:
    return [outcome.job for decision in decisions for outcome in decision.outcomes]


def _key(job: HeldJob) -> tuple[Any, ...]:
    return job.id, job.step
