"""The calls of an app, sync and async: each makes a command, and the app's backend executes it."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar, Unpack

from pgflow.client.backend import Backend
from pgflow.client.bulk import BulkOperations
from pgflow.client.commands import (
    ENDED,
    Cancel,
    CancelOptions,
    CompleteStep,
    CompleteStepOptions,
    FailStep,
    FailStepOptions,
    Find,
    FindTasks,
    Get,
    List,
    ListJobs,
    Prune,
    Retry,
    RetryStepOptions,
    Runs,
    ScheduleOptions,
    ScheduleSignal,
    Signal,
    SignalOptions,
    Start,
    StartOptions,
    Unschedule,
    UnscheduleOptions,
)
from pgflow.client.schedules import Schedules
from pgflow.client.start_request import OnActive, check_on_conflict, single
from pgflow.client.task_calls import TaskCalls
from pgflow.core.definition.definition import VersionSet
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.step import Target
from pgflow.core.definition.workflow import DefinedWorkflow
from pgflow.core.models.filters import DEFAULT_PAGE_SIZE, Filters, ListOptions, Order
from pgflow.core.models.instance import Instance, Scheduled, Started
from pgflow.core.models.job import Job, JobFilters, JobOptions
from pgflow.core.models.query import Query, parse
from pgflow.core.models.task import TaskInstance
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.names import check_options

__all__ = ["Client"]

I = TypeVar("I")  # noqa: E741 -- the input, as in Workflow[I]
Named: TypeAlias = type[DefinedWorkflow[I]] | str


class Client(TaskCalls):
    """The calls of an app on its workflows, which are given by class or by name, and on its tasks: see `TaskCalls`.

    `Pgflow` and `Local` are clients with different backends. `OrderFlow.start(…)` is a call of the client that
    `OrderFlow` is bound to; `Workflow` documents each of them. All take `conn`, a psycopg connection of the caller's,
    and then run in its transaction.
    """

    def __init__(self, registry: Registry, backend: Backend) -> None:
        self._registry = registry
        self._backend = backend
        self.schedules = Schedules(backend)

    def adopt(self, given: Any) -> None:
        """Add a workflow or a task, as if it had been listed.

        Raises `DefinitionError` when another one has its name.
        """
        self._registry.add(given)
        given.bind(self)

    # -- start

    def start(
        self,
        workflow: Named[I],
        value: str,
        input: Any = ABSENT,  # noqa: A002 -- the word for it in all of the API
        *,
        conn: Any = None,
        on_conflict: OnActive = "raise",
        **options: Unpack[StartOptions],
    ) -> Started:
        """Start one instance: see `Workflow.start`."""
        check_on_conflict(on_conflict)
        command = self._start(workflow, [(value, input)], options)
        return single(command.workflow, self._backend.execute(command, conn), on_conflict)

    async def astart(
        self,
        workflow: Named[I],
        value: str,
        input: Any = ABSENT,  # noqa: A002 -- the word for it in all of the API
        *,
        conn: Any = None,
        on_conflict: OnActive = "raise",
        **options: Unpack[StartOptions],
    ) -> Started:
        """`start`, async."""
        check_on_conflict(on_conflict)
        command = self._start(workflow, [(value, input)], options)
        return single(command.workflow, await self._backend.aexecute(command, conn), on_conflict)

    def start_many(
        self,
        workflow: Named[I],
        items: Iterable[tuple[str, Any] | tuple[str]],
        *,
        conn: Any = None,
        **options: Unpack[StartOptions],
    ) -> builtins.list[Started]:
        """Start many instances: see `Workflow.start_many`."""
        return self._backend.execute(self._start(workflow, items, options), conn)

    async def astart_many(
        self,
        workflow: Named[I],
        items: Iterable[tuple[str, Any] | tuple[str]],
        *,
        conn: Any = None,
        **options: Unpack[StartOptions],
    ) -> builtins.list[Started]:
        """`start_many`, async."""
        return await self._backend.aexecute(self._start(workflow, items, options), conn)

    def _start(self, workflow: Named[I], items: Iterable[tuple[str, Any] | tuple[str]], options: StartOptions) -> Start:
        check_options("option", options, StartOptions)
        return Start(self._versions(workflow), tuple(items), **options)

    # -- signals

    def resume(
        self,
        workflow: Named[I],
        value: str,
        event: str,
        payload: Any = ABSENT,
        *,
        conn: Any = None,
        **options: Unpack[SignalOptions],
    ) -> str:
        """Send a signal: see `Workflow.resume`."""
        return self._backend.execute(self._signal(workflow, value, event, payload, options), conn)

    async def aresume(
        self,
        workflow: Named[I],
        value: str,
        event: str,
        payload: Any = ABSENT,
        *,
        conn: Any = None,
        **options: Unpack[SignalOptions],
    ) -> str:
        """`resume`, async."""
        return await self._backend.aexecute(self._signal(workflow, value, event, payload, options), conn)

    def _signal(self, workflow: Named[I], value: str, event: str, payload: Any, options: SignalOptions) -> Signal:
        check_options("option", options, SignalOptions)
        return Signal(self._versions(workflow), value, event, payload, **options)

    def schedule_resume(
        self,
        workflow: Named[I],
        value: str,
        step: str | Target,
        delay: timedelta,
        event: str | None = None,
        payload: Any = ABSENT,
        *,
        conn: Any = None,
        **options: Unpack[ScheduleOptions],
    ) -> Scheduled:
        """Send a signal later: see `Workflow.schedule_resume`."""
        command = self._schedule(workflow, value, step, delay, event, payload, options)
        return self._backend.execute(command, conn)

    async def aschedule_resume(
        self,
        workflow: Named[I],
        value: str,
        step: str | Target,
        delay: timedelta,
        event: str | None = None,
        payload: Any = ABSENT,
        *,
        conn: Any = None,
        **options: Unpack[ScheduleOptions],
    ) -> Scheduled:
        """`schedule_resume`, async."""
        command = self._schedule(workflow, value, step, delay, event, payload, options)
        return await self._backend.aexecute(command, conn)

    def _schedule(
        self,
        workflow: Named[I],
        value: str,
        step: str | Target,
        delay: timedelta,
        event: str | None,
        payload: Any,
        options: ScheduleOptions,
    ) -> ScheduleSignal:
        check_options("option", options, ScheduleOptions)
        return ScheduleSignal(self._versions(workflow), value, step, delay, self, event, payload, **options)

    def unschedule(
        self,
        id: int,  # noqa: A002 -- "id" is the word for it in all of the API
        *,
        conn: Any = None,
        **options: Unpack[UnscheduleOptions],
    ) -> bool:
        """Cancel a signal that `schedule_resume` scheduled; returns whether it was still to be sent.

        app.unschedule(handle.id)    # what handle.cancel() does, for another process
        """
        check_options("option", options, UnscheduleOptions)
        return self._backend.execute(Unschedule(id, **options), conn)

    async def aunschedule(
        self,
        id: int,  # noqa: A002 -- as in unschedule
        *,
        conn: Any = None,
        **options: Unpack[UnscheduleOptions],
    ) -> bool:
        """`unschedule`, async."""
        check_options("option", options, UnscheduleOptions)
        return await self._backend.aexecute(Unschedule(id, **options), conn)

    # -- cancel, retry, and what an operator does with a step that waits for one

    def cancel(self, workflow: Named[I], value: str, *, conn: Any = None, **options: Unpack[CancelOptions]) -> None:
        """Cancel an instance: see `Workflow.cancel`."""
        self._backend.execute(self._cancel(workflow, value, options), conn)

    async def acancel(
        self, workflow: Named[I], value: str, *, conn: Any = None, **options: Unpack[CancelOptions]
    ) -> None:
        """`cancel`, async."""
        await self._backend.aexecute(self._cancel(workflow, value, options), conn)

    def _cancel(self, workflow: Named[I], value: str, options: CancelOptions) -> Cancel:
        check_options("option", options, CancelOptions)
        return Cancel(self._versions(workflow), value, **options)

    def retry(self, workflow: Named[I], value: str, *, conn: Any = None, **options: Unpack[RetryStepOptions]) -> None:
        """Retry a failed instance: see `Workflow.retry`."""
        self._backend.execute(self._retry(workflow, value, options), conn)

    async def aretry(
        self, workflow: Named[I], value: str, *, conn: Any = None, **options: Unpack[RetryStepOptions]
    ) -> None:
        """`retry`, async."""
        await self._backend.aexecute(self._retry(workflow, value, options), conn)

    def _retry(self, workflow: Named[I], value: str, options: RetryStepOptions) -> Retry:
        check_options("option", options, RetryStepOptions)
        return Retry(self._versions(workflow), value, **options)

    def complete_step(
        self,
        workflow: Named[I],
        value: str,
        step: str | Target,
        output: Any = ABSENT,
        *,
        conn: Any = None,
        **options: Unpack[CompleteStepOptions],
    ) -> None:
        """Complete a step that waits for an operator: see `Workflow.complete_step`."""
        self._backend.execute(self._complete(workflow, value, step, output, options), conn)

    async def acomplete_step(
        self,
        workflow: Named[I],
        value: str,
        step: str | Target,
        output: Any = ABSENT,
        *,
        conn: Any = None,
        **options: Unpack[CompleteStepOptions],
    ) -> None:
        """`complete_step`, async."""
        await self._backend.aexecute(self._complete(workflow, value, step, output, options), conn)

    def _complete(
        self, workflow: Named[I], value: str, step: str | Target, output: Any, options: CompleteStepOptions
    ) -> CompleteStep:
        check_options("option", options, CompleteStepOptions)
        return CompleteStep(self._versions(workflow), value, step, output, **options)

    def fail_step(
        self,
        workflow: Named[I],
        value: str,
        step: str | Target,
        *,
        conn: Any = None,
        **options: Unpack[FailStepOptions],
    ) -> None:
        """Fail a step that waits for an operator: see `Workflow.fail_step`."""
        self._backend.execute(self._fail(workflow, value, step, options), conn)

    async def afail_step(
        self,
        workflow: Named[I],
        value: str,
        step: str | Target,
        *,
        conn: Any = None,
        **options: Unpack[FailStepOptions],
    ) -> None:
        """`fail_step`, async."""
        await self._backend.aexecute(self._fail(workflow, value, step, options), conn)

    def _fail(self, workflow: Named[I], value: str, step: str | Target, options: FailStepOptions) -> FailStep:
        check_options("option", options, FailStepOptions)
        return FailStep(self._versions(workflow), value, step, **options)

    # -- reads

    def get(self, workflow: Named[I], value: str, *, conn: Any = None) -> Instance:
        """Read an instance: see `Workflow.get`."""
        return self._backend.execute(Get(self._versions(workflow), value), conn)

    async def aget(self, workflow: Named[I], value: str, *, conn: Any = None) -> Instance:
        """`get`, async."""
        return await self._backend.aexecute(Get(self._versions(workflow), value), conn)

    def list(
        self, workflow: Named[I] | None = None, *, conn: Any = None, **options: Unpack[ListOptions]
    ) -> builtins.list[Instance]:
        """Read a page of a workflow's instances, or without one of all: see `Workflow.list`."""
        return self._backend.execute(self._list(workflow, options), conn)

    async def alist(
        self, workflow: Named[I] | None = None, *, conn: Any = None, **options: Unpack[ListOptions]
    ) -> builtins.list[Instance]:
        """`list`, async."""
        return await self._backend.aexecute(self._list(workflow, options), conn)

    def _list(self, workflow: Named[I] | None, options: Mapping[str, Any]) -> List:
        return List(Filters.of(options, None if workflow is None else self._versions(workflow)))

    def find(
        self,
        filter: str | Query,  # noqa: A002 -- the word for it in all of the API
        *,
        order: Order = "newest",
        limit: int = DEFAULT_PAGE_SIZE,
        before: int | None = None,
        after: int | None = None,
        conn: Any = None,
    ) -> builtins.list[Instance]:
        """Read a page of the instances that a filter matches, without their histories.

        `filter` is a text of the filter language, see `pgflow.core.models.query`; an empty one matches all. `order`,
        `limit`, `before` and `after` are those of `ListOptions`. Raises `InvalidFilter`, with the position of each
        fault, and `InvalidValue`.

            app.find('state:failed queue:mail error:"timed out" age:>2h input.tenant:7')
        """
        return self._backend.execute(_find(filter, order, limit, before, after), conn)

    async def afind(
        self,
        filter: str | Query,  # noqa: A002 -- as in find
        *,
        order: Order = "newest",
        limit: int = DEFAULT_PAGE_SIZE,
        before: int | None = None,
        after: int | None = None,
        conn: Any = None,
    ) -> builtins.list[Instance]:
        """`find`, async."""
        return await self._backend.aexecute(_find(filter, order, limit, before, after), conn)

    def find_tasks(
        self,
        filter: str | Query,  # noqa: A002 -- as in find
        *,
        order: Order = "newest",
        limit: int = DEFAULT_PAGE_SIZE,
        before: int | None = None,
        after: int | None = None,
        conn: Any = None,
    ) -> builtins.list[TaskInstance]:
        """Read a page of the executions of tasks that a filter matches, live and ended, as `find` does for instances.

        app.find_tasks("task:send state:failed args.order_id:7")
        """
        return self._backend.execute(_find_tasks(filter, order, limit, before, after), conn)

    async def afind_tasks(
        self,
        filter: str | Query,  # noqa: A002 -- as in find
        *,
        order: Order = "newest",
        limit: int = DEFAULT_PAGE_SIZE,
        before: int | None = None,
        after: int | None = None,
        conn: Any = None,
    ) -> builtins.list[TaskInstance]:
        """`find_tasks`, async."""
        return await self._backend.aexecute(_find_tasks(filter, order, limit, before, after), conn)

    def runs(
        self, workflow: Named[I], value: str, *, before: int | None = None, limit: int = 50, conn: Any = None
    ) -> builtins.list[Instance]:
        """Read a page of the runs of a value: see `Workflow.runs`."""
        return self._backend.execute(Runs(self._versions(workflow), value, before, limit), conn)

    async def aruns(
        self, workflow: Named[I], value: str, *, before: int | None = None, limit: int = 50, conn: Any = None
    ) -> builtins.list[Instance]:
        """`runs`, async."""
        return await self._backend.aexecute(Runs(self._versions(workflow), value, before, limit), conn)

    def jobs(
        self, workflow: Named[I] | None = None, *, conn: Any = None, **options: Unpack[JobOptions]
    ) -> builtins.list[Job]:
        """Read a page of live jobs, the oldest first, of a workflow or (None) of all: see `JobOptions`.

        Raises `UnknownOption` for a filter that does not exist, `InvalidValue` and `InvalidPayload` for values that
        cannot be.

            app.jobs(OrderFlow, state="parked", meta={"tenant": "a"})
        """
        return self._backend.execute(self._jobs(workflow, options), conn)

    async def ajobs(
        self, workflow: Named[I] | None = None, *, conn: Any = None, **options: Unpack[JobOptions]
    ) -> builtins.list[Job]:
        """`jobs`, async."""
        return await self._backend.aexecute(self._jobs(workflow, options), conn)

    def _jobs(self, workflow: Named[I] | None, options: Mapping[str, Any]) -> ListJobs:
        return ListJobs(JobFilters.of(options), None if workflow is None else self._versions(workflow))

    # -- upkeep

    @property
    def bulk(self) -> BulkOperations:
        """The operations on many instances at once, by filter: retry, cancel, move, reprioritise, reschedule, delete.

        app.bulk.retry("state:failed queue:mail", dry_run=True).matched
        """
        return BulkOperations(self._backend)

    def prune(self, older_than: timedelta, statuses: Iterable[str] = ENDED) -> int:
        """Delete the instances that ended longer ago than `older_than`, with their histories; returns how many.

        Only those with one of these `statuses`: "completed", "failed", "cancelled". It deletes a batch at a time, each
        in its own transaction, and blocks no other client. Workers do the same by themselves, see `Retain`. Needs the
        part `--operator` of `pgflow roles`, or the owner. Raises
        `InvalidValue` for a negative age, and for a status that no instance ends with.

            app.prune(timedelta(days=30))
        """
        return self._backend.execute(Prune(older_than, statuses))

    async def aprune(self, older_than: timedelta, statuses: Iterable[str] = ENDED) -> int:
        """`prune`, async."""
        return await self._backend.aexecute(Prune(older_than, statuses))

    def _versions(self, workflow: Named[I]) -> VersionSet:
        return self._registry.definitions(workflow)


def _find(filter: str | Query, order: Order, limit: int, before: int | None, after: int | None) -> Find:  # noqa: A002
    query = parse(filter, "workflow") if isinstance(filter, str) else filter
    return Find(query, Filters.of({"order": order, "limit": limit, "before": before, "after": after}))


def _find_tasks(
    filter: str | Query,  # noqa: A002 -- as in find
    order: Order,
    limit: int,
    before: int | None,
    after: int | None,
) -> FindTasks:
    query = parse(filter, "task") if isinstance(filter, str) else filter
    return FindTasks(query, Filters.of({"order": order, "limit": limit, "before": before, "after": after}))
