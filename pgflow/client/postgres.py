"""Execute commands on PostgreSQL: each becomes a plan of statements, which the sync and the async call both run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

from psycopg.errors import InsufficientPrivilege

from pgflow.client import commands, registration
from pgflow.client.bulk import working_off, working_off_rest
from pgflow.client.pruning import pruning
from pgflow.client.queue_commands import QueueCommand
from pgflow.client.queue_statements import queue_statement
from pgflow.client.schedule_commands import AddSchedule, ScheduleCommand
from pgflow.client.schedule_statements import ScheduleStatements
from pgflow.client.statements import Statements, Write
from pgflow.client.task_statements import TaskStatements
from pgflow.client.task_waiter import TaskWaiter
from pgflow.client.transport import Transport
from pgflow.core.definition.definition import Definition
from pgflow.core.definition.registry import Registry
from pgflow.core.models.instance import Instance
from pgflow.core.models.instance_rules import check_single_workflow
from pgflow.core.models.schedule import ScheduleSpec
from pgflow.core.models.task import TaskInstance
from pgflow.core.values.duration import is_duration
from pgflow.database.session import ASYNC_SESSION, SYNC_SESSION, session_of
from pgflow.database.statement import Statement
from pgflow.errors import ConfigError, InstanceNotFound, InvalidValue
from pgflow.payloads.instance import fetched, has_references
from pgflow.payloads.policy import DEFAULT, PayloadPolicy
from pgflow.payloads.task import fetched_task, has_task_references
from pgflow.process import PerProcess
from pgflow.store import instance, payload, queue, schedule, task
from pgflow.store.payload import ReferencePage

__all__ = ["PostgresBackend"]

R = TypeVar("R")
C = TypeVar("C")  # a sync or an async connection

SHORTEST_SWEEP = timedelta(hours=1)
SWEEP_BATCH = 1000  # objects that one call of a payload store deletes


@dataclass(frozen=True, slots=True)
class Separate:
    """A statement that runs on a connection of our own, also where the caller passed one."""

    statement: Statement[Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A blocking call of user code, such as of a payload store. An async command makes it in a thread."""

    function: Callable[[], Any]


Step: TypeAlias = Statement[Any] | Write[Any] | Separate | Call
Plan: TypeAlias = Generator[Step, Any, R]


class PostgresBackend:
    """A `Backend` on one schema of a database.

    A plan yields statements, receives what they read, and returns the command's answer. It validates the command before
    it yields the first one, so that a command that is refused sends nothing. (psycopg shares its protocol code between
    sync and async as generators, too.)
    """

    def __init__(
        self,
        transport: Transport,
        registry: Registry,
        policy: PayloadPolicy = DEFAULT,
        app: str = "",
        schedules: Sequence[ScheduleSpec] = (),
    ) -> None:
        self.transport = transport
        self.is_registered = False
        self._registry = registry
        self._policy = policy
        self._sql = Statements(transport.schema, policy)
        self._tasks = TaskStatements(transport.schema, policy)
        self._app = app
        self._declared = schedules
        self._schedules = ScheduleStatements(transport.schema, registry, policy.codec)
        self._waiter = PerProcess(partial(TaskWaiter, transport.dsn, transport.schema, pooler=transport.pooler))

    def execute(self, command: commands.Command[R], session: Any = None) -> R:
        """Execute a command, in the transaction of `session`, an open psycopg connection, if given."""
        match command:
            case commands.AwaitTask():
                return cast("R", self._await(command))
        plan: Plan[R] = self._plan(command)
        try:
            step = next(plan)
            conn = None if session is None else session_of(session, SYNC_SESSION)
            while True:
                try:
                    answer = step.function() if isinstance(step, Call) else self.transport.send(*_routed(step, conn))
                except Exception as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(answer)
        except StopIteration as end:
            result: R = end.value
            return result

    async def aexecute(self, command: commands.Command[R], session: Any = None) -> R:
        """`execute`, async; `session` is an open `psycopg.AsyncConnection`."""
        match command:
            case commands.AwaitTask():
                return cast("R", await self._aawait(command))
        plan: Plan[R] = self._plan(command)
        try:
            step = next(plan)
            conn = None if session is None else session_of(session, ASYNC_SESSION)
            while True:
                try:
                    answer = (
                        await asyncio.to_thread(step.function)
                        if isinstance(step, Call)
                        else await self.transport.asend(*_routed(step, conn))
                    )
                except Exception as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(answer)
        except StopIteration as end:
            result: R = end.value
            return result

    def close(self) -> None:
        """Stop waiting for tasks."""
        if (waiter := self._waiter.peek()) is not None:
            waiter.close()

    def _await(self, command: commands.AwaitTask) -> TaskInstance:
        """Wait for the end of a task. Raises `StillRunning`, `JobNotFound`."""
        waiting = self._waiter.get().wait_for(self._tasks.checked_id(command))
        try:
            ended = waiting.result(None if command.timeout is None else command.timeout.total_seconds())
        except TimeoutError:
            waiting.cancel()
            raise self._tasks.still_running(command) from None
        found = self._tasks.ended(command, ended)
        return fetched_task(self._policy, found) if has_task_references(found) else found

    async def _aawait(self, command: commands.AwaitTask) -> TaskInstance:
        waiting = self._waiter.get().wait_for(self._tasks.checked_id(command))
        try:
            async with asyncio.timeout(None if command.timeout is None else command.timeout.total_seconds()):
                ended = await asyncio.wrap_future(waiting)
        except TimeoutError:
            raise self._tasks.still_running(command) from None
        found = self._tasks.ended(command, ended)
        return await asyncio.to_thread(fetched_task, self._policy, found) if has_task_references(found) else found

    def _plan(self, command: commands.Command[Any]) -> Plan[Any]:
        sql, tasks = self._sql, self._tasks
        match command:
            case commands.Start():
                return self._registered(sql.start(command))
            case commands.Put():
                return self._registered(sql.put(command, self._definition))
            case AddSchedule():
                return self._after_registering(self._schedules.plan(command))
            case ScheduleCommand():
                return self._schedules.plan(command)
            case commands.Register():
                return self._register()
            case commands.Signal():
                return self._written(sql.signal(command))
            case commands.ScheduleSignal():
                return self._written(sql.schedule_signal(command))
            case commands.Unschedule():
                return _one(sql.unschedule(command))
            case commands.Cancel():
                return _one(sql.cancel(command))
            case commands.Retry():
                return _one(sql.retry(command))
            case commands.CompleteStep():
                return self._written(sql.complete_step(command))
            case commands.FailStep():
                return _one(sql.fail_step(command))
            case commands.Delete():
                return _one(sql.delete(command))
            case commands.Prune():
                return self._prune(command)
            case commands.SweepPayloads():
                return self._sweep_payloads(command)
            case commands.Bulk():
                return working_off(sql.schema, command)
            case commands.ResumeBulk():
                return working_off_rest(sql.schema, command)
            case commands.Find():
                return _one(sql.find(command))
            case commands.Get():
                return self._fetched_one(sql.get(command))
            case commands.List():
                return self._fetched(sql.instances(command))
            case commands.Runs():
                return self._fetched(sql.runs(command))
            case commands.ListJobs():
                return _one(sql.jobs(command))
            case commands.Load():
                return self._load(command)
            case commands.Query():
                return self._fetched(sql.query(command))
            case QueueCommand():
                return _one(queue_statement(sql.schema, command))
            case commands.Enqueue():
                return self._registered(tasks.enqueue(command))
            case commands.CancelTask():
                return _one(tasks.cancel(command))
            case commands.RetryTask():
                return _one(tasks.retry(command))
            case commands.CompleteTask():
                return self._written(tasks.complete(command))
            case commands.FailTask():
                return _one(tasks.fail(command))
            case commands.UpdateTask():
                return _one(tasks.update(command))
            case commands.DeleteTask():
                return _one(tasks.delete(command))
            case commands.GetTask():
                return self._fetched_task(tasks.get(command))
            case commands.ListTasks():
                return self._fetched_tasks(tasks.page(command))
            case commands.FindTasks():
                return self._find_tasks(command, tasks)
        raise TypeError(f"{type(command).__name__} is not a command of pgflow.client.commands")

    def _find_tasks(self, command: commands.FindTasks, tasks: TaskStatements) -> Plan[list[TaskInstance]]:
        page = command.page
        ids: list[int] = yield task.find(
            self._sql.schema,
            command.filter.document(),
            oldest=page.oldest,
            before=page.before,
            after=page.after,
            limit=page.limit,
        )
        found = yield from self._fetched_tasks(tasks.found(ids))
        return sorted(found, key=lambda each: each.id, reverse=not page.oldest)

    def _registered(self, write: Write[R]) -> Plan[R]:
        yield from self._register()
        return (yield from self._written(write))

    def _after_registering(self, plan: Plan[R]) -> Plan[R]:
        yield from self._register()
        return (yield from plan)

    def _written(self, write: Write[R]) -> Plan[R]:
        """Send a write, with its objects in the payload store before."""
        if write.objects:
            yield Call(partial(self._policy.put, write.objects))
        result: R = yield write
        return result

    def _fetched_one(self, statement: Statement[Instance]) -> Plan[Instance]:
        (found,) = yield from self._fetched(statement.then(lambda each: [each]))
        return found

    def _fetched(self, statement: Statement[list[Instance]]) -> Plan[list[Instance]]:
        """Read instances, and fetch the values that are in the payload store."""
        found: list[Instance] = yield statement
        if any(map(has_references, found)):
            found = yield Call(partial(_fetch_all, self._policy, found))
        return found

    def _fetched_task(self, statement: Statement[TaskInstance]) -> Plan[TaskInstance]:
        (found,) = yield from self._fetched_tasks(statement.then(lambda each: [each]))
        return found

    def _fetched_tasks(self, statement: Statement[list[TaskInstance]]) -> Plan[list[TaskInstance]]:
        """`_fetched` for tasks."""
        found: list[TaskInstance] = yield statement
        if any(map(has_task_references, found)):
            found = yield Call(partial(_fetch_tasks, self._policy, found))
        return found

    def _register(self) -> Plan[None]:
        """Store the definitions of the app, once. Raises `GraphChanged`.

        A role without the privilege, such as a client of `pgflow roles`, leaves it to the workers.
        """
        if self.is_registered:
            return
        try:
            stored = yield Separate(registration.registering(self._sql.schema, self._registry))
            if self._registry.tasks:
                yield Separate(registration.registering_tasks(self._sql.schema, self._registry))
            if self._registry.queues:
                yield Separate(queue.declare(self._sql.schema, self._registry.queues.values()))
            if self._declared:
                declaring = schedule.declare(self._sql.schema, self._app, self._declared, is_worker=False)
                yield Separate(declaring)
        except InsufficientPrivilege:
            stored = []
        registration.check(self._registry, stored)
        self.is_registered = True

    def _prune(self, command: commands.Prune) -> Plan[int]:
        deleted = 0
        pages = pruning(self._sql.schema, command.older_than, command.statuses)
        for page in pages:
            deleted += pages.took((yield page))
        return deleted

    def _sweep_payloads(self, command: commands.SweepPayloads) -> Plan[int]:
        """Delete what no row refers to. Objects are listed first: none that is stored during the sweep is deleted."""
        store = self._policy.store
        if store is None:
            raise ConfigError("this app has no payload store", hint="Pass payload_store= to Pgflow.")
        if not is_duration(command.older_than) or command.older_than < SHORTEST_SWEEP:
            raise InvalidValue(
                f"older_than must be a timedelta of at least an hour, got {command.older_than!r}",
                hint="Objects are stored before their rows are committed: give more than the longest transaction.",
            )
        unused: set[str] = yield Call(lambda: set(store.list(command.older_than)))
        for pages in (payload.references, payload.task_references):
            last: int | None = 0
            while last is not None and unused:
                page: ReferencePage = yield pages(self._sql.schema, last)
                unused.difference_update(page.keys)
                last = page.last
        keys = sorted(unused)
        for start in range(0, len(keys), SWEEP_BATCH):
            yield Call(partial(store.delete, keys[start : start + SWEEP_BATCH]))
        return len(keys)

    def _load(self, command: commands.Load) -> Plan[Instance]:
        filters, schema = command.filters, self._sql.schema
        if filters.workflow is None:
            check_single_workflow(filters.id or "", (yield instance.workflows(schema, id=filters.id or "")))
        found = yield from self._fetched(self._sql.query(commands.Query(filters)))
        if not found:
            raise InstanceNotFound(
                f"Storage({schema!r}) has no instance {filters.named}", hint="List them: pgflow list"
            )
        return found[0]

    def _definition(self, workflow: str, version: int) -> Definition:
        return self._registry.definitions(workflow).resolve(version)


def _fetch_all(policy: PayloadPolicy, found: list[Instance]) -> list[Instance]:
    return [fetched(policy, each) if has_references(each) else each for each in found]


def _fetch_tasks(policy: PayloadPolicy, found: list[TaskInstance]) -> list[TaskInstance]:
    return [fetched_task(policy, each) for each in found]


def _routed(
    step: Statement[Any] | Write[Any] | Separate, conn: C | None
) -> tuple[Statement[Any] | Write[Any], C | None]:
    return (step.statement, None) if isinstance(step, Separate) else (step, conn)


def _one(step: Statement[R] | Write[R]) -> Plan[R]:
    result: R = yield step
    return result
