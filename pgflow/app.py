"""Tie workflows to a database: `Pgflow`, and what stands behind `Workflow.start` and its kin."""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, TypeAlias, TypeVar, Unpack
from weakref import WeakSet

from psycopg.errors import InsufficientPrivilege

from pgflow.calls import (
    cancelling,
    getting,
    history,
    listing,
    resuming,
    retrying,
    scheduling,
    starting,
    unscheduling,
)
from pgflow.client import Client
from pgflow.config import resolve_dsn, resolve_pooler
from pgflow.core import app_registry
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.step import Target
from pgflow.core.definition.workflow import Workflow
from pgflow.core.models.filters import ListOptions
from pgflow.core.models.instance import Instance, Scheduled, Started
from pgflow.core.models.job import Job, JobFilters, JobOptions
from pgflow.core.signal_request import sole
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.codec import Codec, checked_codec
from pgflow.database.connect import connect
from pgflow.database.statement import Statement
from pgflow.migrations import migrate
from pgflow.pruning import ENDED, pruning
from pgflow.registration import check, registering
from pgflow.storage import Storage
from pgflow.store import job
from pgflow.store.definition import StoredDefinition
from pgflow.worker import Worker
from pgflow.worker.loop import run

__all__ = ["Pgflow"]

I = TypeVar("I")  # noqa: E741 -- the input, as in Workflow[I]
Named: TypeAlias = type[Workflow[I]] | str


class Pgflow:
    """An application's workflows and the database that they live in.

    `dsn` is a PostgreSQL connection string; without one PGFLOW_DSN counts, then DATABASE_URL, then libpq's own
    variables (PGHOST, PGDATABASE, …). `pooler=True`, or PGFLOW_POOLER=1, says that it leads to a connection pooler in
    transaction mode, such as PgBouncer. The workflows are an explicit registry: nothing is ever imported by a name from
    the database. Nothing connects before the first call. Several may stand side by side, on databases or `schema`s of
    their own; `name`, the schema's if you give none, tells them apart in messages. `OrderFlow.start(…)` then goes to
    the app that was made last with `OrderFlow` and is not closed, `app.start(OrderFlow, …)` to this one.
    With a `codec` inputs, outputs and payloads are sealed in the database and may hold secrets.
    Raises `DefinitionError` for what is no workflow, and for one with secrets when there is no codec.

        app = Pgflow("postgresql://localhost/shop", workflows=[OrderFlow])
        OrderFlow.start("abc123", Order(item_count=3, user_id=42))
        app.get("OrderFlow", "abc123").status    # each call of a workflow is also one of the app, by class or name
    """

    _worker_type: ClassVar[type[Worker]] = Worker

    def __init__(
        self,
        dsn: str = "",
        workflows: Iterable[type[Workflow[Any]]] = (),
        *,
        schema: str = "pgflow",
        pooler: bool | None = None,
        name: str | None = None,
        codec: Codec | None = None,
    ) -> None:
        self.name = name or schema
        self.codec = checked_codec(codec)
        self._registry = Registry(workflows, has_codec=codec is not None)
        self._client = Client(resolve_dsn(dsn, os.environ), schema, pooler=resolve_pooler(pooler, os.environ))
        self._is_registered = False
        self._workers: WeakSet[Worker] = WeakSet()
        for workflow in self.workflows:
            workflow.bind(self)
        app_registry.opened(self)

    def adopt(self, workflow: type[Workflow[Any]]) -> None:
        """Take another workflow in, as if it had been listed; this app's workers in this process learn of it, too.

        Raises `DefinitionError` when another one has its name.
        """
        self._registry.add(workflow)
        self._is_registered = False
        workflow.bind(self)
        for worker in list(self._workers):
            worker.adopt(workflow)

    @property
    def workflows(self) -> tuple[type[Workflow[Any]], ...]:
        """The workflows that it was given."""
        return self._registry.workflows

    @property
    def versions(self) -> tuple[type[Workflow[Any]], ...]:
        """Every class with a graph among them: each version of an umbrella, and every other workflow itself."""
        return tuple(self._registry.versions)

    @property
    def dsn(self) -> str:
        """The connection string it was given."""
        return self._client.dsn

    @property
    def pooler(self) -> bool:
        """Whether it leads to a pooler in transaction mode."""
        return self._client.pooler

    @property
    def schema(self) -> str:
        """The schema that pgflow lives in."""
        return self._client.schema

    @property
    def storage(self) -> Storage:
        """The stored instances, to be read, put and deleted as wholes, as in memory."""
        return Storage(self._client, self._registry, self.register, self.aregister, self.codec)

    def __repr__(self) -> str:
        return f"Pgflow(name={self.name!r}, workflows=[{', '.join(self._registry.by_name)}], schema={self.schema!r})"

    def workflow(self, name: str) -> type[Workflow[Any]]:
        """Return the workflow of that name. Raises `UnknownWorkflow`."""
        return self._registry.named(name)

    def migrate(self) -> None:
        """Install or upgrade pgflow's schema in the database, like the command `pgflow migrate`.

        Before a migration that breaks older code it waits a minute for workers to end: so not in a worker's process.
        Raises `SchemaForeign` when the schema holds somebody else's tables, `PoolerDetected` where `dsn` leads to a
        pooler, for migrating needs PostgreSQL itself, `SchemaError` when it cannot be done now.
        """
        with connect(self.dsn, role="migrate") as conn:
            migrate.up(conn, self.schema)

    def worker(self, queues: Mapping[str, int] | None = None, **options: Any) -> Worker:
        """Make a worker of this app's workflows; see `Worker` for the options."""
        given = {"schema": self.schema, "pooler": self.pooler, "codec": self.codec, **options}
        worker = self._worker_type(self.dsn, self.workflows, queues=queues or {"default": 10}, **given)
        self._workers.add(worker)
        return worker

    def run_worker(self, queues: Mapping[str, int] | None = None, **options: Any) -> None:
        """Run a worker in this process until the program is interrupted, or with `drain=True` until all is done.

        `queues` says how many steps of each queue run at once (default: 10 of the queue "default"); see `Worker`
        for the options. For production use the command `pgflow worker`, which handles signals.

            app.run_worker(drain=True)
        """
        self.register()
        run(self.worker(queues, **options).run())

    def close(self) -> None:
        """Close the connections of threads. Its workflows belong to the app that was made before it, if one was.

        A later call opens new connections.
        """
        self._let_go()
        self._client.close()

    async def aclose(self) -> None:
        """`close`, async: the connections of this event loop, too."""
        self._let_go()
        await self._client.aclose()

    def _let_go(self) -> None:
        app_registry.closed(self)
        for workflow in self.workflows:
            workflow.unbind(self)

    def register(self) -> None:
        """Store this app's definitions, once. Raises `GraphChanged` when one has other edges under the same version.

        A role that may not, such as a client of `pgflow roles`, leaves it to the workers: what they have stored counts.
        """
        if not self._is_registered:
            try:
                stored = self._client.run(registering(self.schema, self._registry))
            except InsufficientPrivilege:
                stored = []
            self._registered(stored)

    async def aregister(self) -> None:
        """`register`, async."""
        if not self._is_registered:
            try:
                stored = await self._client.arun(registering(self.schema, self._registry))
            except InsufficientPrivilege:
                stored = []
            self._registered(stored)

    def _registered(self, stored: Iterable[StoredDefinition]) -> None:
        check(self._registry, stored)
        self._is_registered = True

    # -- what stands behind Workflow.start and its kin, for a class or a name; the two of each pair differ by a word

    def start(
        self,
        workflow: Named[I],
        value: str,
        input: Any = ABSENT,  # noqa: A002 -- the word for it in all of the API
        *,
        conn: Any = None,
        **options: Any,
    ) -> Started:
        """Start one instance: see `Workflow.start`."""
        return sole(self._class(workflow), self.start_many(workflow, [(value, input)], conn=conn, **options))

    async def astart(
        self,
        workflow: Named[I],
        value: str,
        input: Any = ABSENT,  # noqa: A002 -- the word for it in all of the API
        *,
        conn: Any = None,
        **options: Any,
    ) -> Started:
        """`start`, async."""
        return sole(self._class(workflow), await self.astart_many(workflow, [(value, input)], conn=conn, **options))

    def start_many(
        self, workflow: Named[I], items: Iterable[tuple[str, Any] | tuple[str]], *, conn: Any = None, **options: Any
    ) -> builtins.list[Started]:
        """Start many instances: see `Workflow.start_many`."""
        call = starting(self.schema, self._class(workflow), items, options, self.codec)
        self._client.check(conn)
        self.register()
        return self._client.call(call, conn)

    async def astart_many(
        self, workflow: Named[I], items: Iterable[tuple[str, Any] | tuple[str]], *, conn: Any = None, **options: Any
    ) -> builtins.list[Started]:
        """`start_many`, async."""
        call = starting(self.schema, self._class(workflow), items, options, self.codec)
        self._client.acheck(conn)
        await self.aregister()
        return await self._client.acall(call, conn)

    def resume(
        self,
        workflow: Named[I],
        value: str,
        event: str,
        payload: Any = ABSENT,
        *,
        step: str | Target | None = None,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Send a signal: see `Workflow.resume`."""
        kind, codec = self._class(workflow), self.codec
        call = resuming(self.schema, kind, value, event, payload, step, codec, idempotency_key)
        return self._client.call(call, conn)

    async def aresume(
        self,
        workflow: Named[I],
        value: str,
        event: str,
        payload: Any = ABSENT,
        *,
        step: str | Target | None = None,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> str:
        """`resume`, async."""
        kind, codec = self._class(workflow), self.codec
        call = resuming(self.schema, kind, value, event, payload, step, codec, idempotency_key)
        return await self._client.acall(call, conn)

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
        idempotency_key: str | None = None,
    ) -> Scheduled:
        """Send a signal later: see `Workflow.schedule_resume`."""
        kind, codec = self._class(workflow), self.codec
        call = scheduling(self.schema, kind, value, step, delay, event, payload, self, codec, idempotency_key)
        return self._client.call(call, conn)

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
        idempotency_key: str | None = None,
    ) -> Scheduled:
        """`schedule_resume`, async."""
        kind, codec = self._class(workflow), self.codec
        call = scheduling(self.schema, kind, value, step, delay, event, payload, self, codec, idempotency_key)
        return await self._client.acall(call, conn)

    def unschedule(
        self,
        id: int,  # noqa: A002 -- "id" is the word for it in all of the API
        *,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> bool:
        """Call off a signal that `schedule_resume` is to send; returns whether it was still to be sent.

        app.unschedule(handle.id)    # what handle.cancel() does, for another process
        """
        return self._client.call(unscheduling(self.schema, id, idempotency_key), conn)

    async def aunschedule(
        self,
        id: int,  # noqa: A002 -- as its twin
        *,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> bool:
        """`unschedule`, async."""
        return await self._client.acall(unscheduling(self.schema, id, idempotency_key), conn)

    def cancel(
        self,
        workflow: Named[I],
        value: str,
        *,
        reason: str | None = None,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> None:
        """Cancel an instance: see `Workflow.cancel`."""
        call = cancelling(self.schema, self._class(workflow), value, reason, idempotency_key)
        self._client.call(call, conn)

    async def acancel(
        self,
        workflow: Named[I],
        value: str,
        *,
        reason: str | None = None,
        conn: Any = None,
        idempotency_key: str | None = None,
    ) -> None:
        """`cancel`, async."""
        call = cancelling(self.schema, self._class(workflow), value, reason, idempotency_key)
        await self._client.acall(call, conn)

    def retry(self, workflow: Named[I], value: str, *, conn: Any = None, idempotency_key: str | None = None) -> None:
        """Take a failed instance up again: see `Workflow.retry`."""
        self._client.call(retrying(self.schema, self._class(workflow), value, idempotency_key), conn)

    async def aretry(
        self, workflow: Named[I], value: str, *, conn: Any = None, idempotency_key: str | None = None
    ) -> None:
        """`retry`, async."""
        await self._client.acall(retrying(self.schema, self._class(workflow), value, idempotency_key), conn)

    def get(self, workflow: Named[I], value: str, *, conn: Any = None) -> Instance:
        """Read an instance: see `Workflow.get`."""
        return self._client.run(getting(self.schema, self._class(workflow), value, self.codec), conn)

    async def aget(self, workflow: Named[I], value: str, *, conn: Any = None) -> Instance:
        """`get`, async."""
        return await self._client.arun(getting(self.schema, self._class(workflow), value, self.codec), conn)

    def list(
        self, workflow: Named[I] | None = None, *, conn: Any = None, **options: Unpack[ListOptions]
    ) -> builtins.list[Instance]:
        """Read a page of a workflow's instances, or without one of all: see `Workflow.list`."""
        kind = None if workflow is None else self._class(workflow)
        return self._client.run(listing(self.schema, kind, options, self.codec), conn)

    async def alist(
        self, workflow: Named[I] | None = None, *, conn: Any = None, **options: Unpack[ListOptions]
    ) -> builtins.list[Instance]:
        """`list`, async."""
        kind = None if workflow is None else self._class(workflow)
        return await self._client.arun(listing(self.schema, kind, options, self.codec), conn)

    def runs(
        self, workflow: Named[I], value: str, *, before: int | None = None, limit: int = 50, conn: Any = None
    ) -> builtins.list[Instance]:
        """Read a page of the runs of a value: see `Workflow.runs`."""
        return self._client.run(history(self.schema, self._class(workflow), value, before, limit, self.codec), conn)

    async def aruns(
        self, workflow: Named[I], value: str, *, before: int | None = None, limit: int = 50, conn: Any = None
    ) -> builtins.list[Instance]:
        """`runs`, async."""
        return await self._client.arun(
            history(self.schema, self._class(workflow), value, before, limit, self.codec), conn
        )

    # -- upkeep

    def prune(self, older_than: timedelta, statuses: Iterable[str] = ENDED) -> int:
        """Delete the instances that ended longer ago than `older_than`, with their histories; returns how many.

        Only those with one of these `statuses`: "completed", "failed", "cancelled". It goes a page at a time, each in a
        transaction of its own, and stands in nobody's way; call it now and then, as the owner of the schema. Raises
        `InvalidValue` for a negative age, and for a status that no instance ends with.

            app.prune(timedelta(days=30))
        """
        pages = pruning(self.schema, older_than, statuses)
        return sum(pages.took(self._client.run(page)) for page in pages)

    async def aprune(self, older_than: timedelta, statuses: Iterable[str] = ENDED) -> int:
        """`prune`, async."""
        pages = pruning(self.schema, older_than, statuses)
        return sum([pages.took(await self._client.arun(page)) for page in pages])

    # -- live jobs

    def jobs(
        self, workflow: Named[I] | None = None, *, conn: Any = None, **options: Unpack[JobOptions]
    ) -> builtins.list[Job]:
        """Read a page of live jobs, the oldest first, of a workflow or (None) of all in the schema: see `JobOptions`.

        Raises `UnknownOption` for a filter that does not exist, `InvalidValue` and `InvalidPayload` for values that
        cannot be.

            app.jobs(OrderFlow, state="parked", meta={"tenant": "a"})
        """
        return self._client.run(self._jobs(workflow, JobFilters.of(options)), conn)

    async def ajobs(
        self, workflow: Named[I] | None = None, *, conn: Any = None, **options: Unpack[JobOptions]
    ) -> builtins.list[Job]:
        """`jobs`, async."""
        return await self._client.arun(self._jobs(workflow, JobFilters.of(options)), conn)

    def _jobs(self, workflow: Named[I] | None, filters: JobFilters) -> Statement[builtins.list[Job]]:
        kind = None if workflow is None else self._class(workflow)
        name, version = (None, None) if kind is None else (kind.name, kind.pinned)
        return job.list(self.schema, filters, workflow=name, version=version)

    def _class(self, workflow: Named[I]) -> type[Workflow[Any]]:
        return self._registry.known(workflow)
