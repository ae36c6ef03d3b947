"""`Pgflow`: an app's workflows and tasks on a database, with its workers."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, ClassVar
from weakref import WeakSet

from pgflow.client.app import App
from pgflow.client.commands import Register, SweepPayloads
from pgflow.client.places import PlaceKeeper, TakenPlace
from pgflow.client.postgres import PostgresBackend
from pgflow.client.schedule_request import declared_specs
from pgflow.client.storage import Storage
from pgflow.client.task import Task
from pgflow.client.transport import Transport
from pgflow.client.workflow import Workflow
from pgflow.config import resolve_dsn, resolve_pooler
from pgflow.core.definition.middleware import Middleware, check_middleware
from pgflow.core.definition.queue_config import QueueConfig
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.retain import DEFAULT_RETAIN, Retain
from pgflow.core.definition.schedule import Schedule, check_schedules
from pgflow.core.values.codec import Codec
from pgflow.database.connect import connect
from pgflow.migrations import migrate
from pgflow.payloads.policy import PayloadPolicy
from pgflow.payloads.store import PayloadStore
from pgflow.worker import Worker
from pgflow.worker.cpu.attempts import has_cpu_work
from pgflow.worker.loop import run
from pgflow.worker.retention import OnPrune, check_retention

__all__ = ["Pgflow"]


class Pgflow(App):
    """An app: its workflows and tasks, and the database that they are stored in.

    `dsn` is a PostgreSQL connection string; the default is PGFLOW_DSN, then DATABASE_URL, then libpq's own variables
    (PGHOST, PGDATABASE, …). `pooler=True`, or PGFLOW_POOLER=1, declares that it leads to a connection pooler in
    transaction mode, such as PgBouncer. The workflows and tasks are an explicit registry: nothing is imported by a name
    from the database. Nothing connects before the first call. A program may have several apps, on databases or
    `schema`s of their own; `name`, by default that of the schema, distinguishes them in messages. `OrderFlow.start(…)`
    then goes to the app that was made last with `OrderFlow` and is not closed, `app.start(OrderFlow, …)` to this one.
    With a `codec` inputs, outputs and payloads are encrypted in the database and may hold secrets. `middleware` are
    async functions that run around each attempt of a step, the outermost first: `pgflow.core.definition.middleware`.
    `schedules` are what `schedule` has returned: when to start which workflow or task (pgflow/docs/schedules.md).
    `queues` declares limits and settings of queues, `QueueConfig("mail", concurrency=10)` (pgflow/docs/limits.md).
    An input, payload or output has at most `max_payload_bytes` bytes of JSON (1 MiB; up to 16 MiB). With a
    `payload_store` those larger than `store_above` bytes (1 MiB) are kept there instead of in the database, and the
    limit is 64 MiB, or `max_payload_bytes` up to 1 GiB.
    Workers delete instances that ended long ago: `retention` is how long they are kept, by default 7 days, or 30 if
    they failed or were cancelled; None keeps them all. The async function `on_prune` gets each batch before.
    Raises `DefinitionError` for an object that is neither, for two with one name, and for one with secrets without a
    codec, and `ConfigError` for an invalid option.

        app = Pgflow("postgresql://localhost/shop", workflows=[OrderFlow], tasks=[send_receipt])
        OrderFlow.start("abc123", Order(item_count=3, user_id=42))
        app.get("OrderFlow", "abc123").status    # each call of a workflow is also one of the app, by class or name
    """

    _worker_type: ClassVar[type[Worker]] = Worker

    def __init__(
        self,
        dsn: str = "",
        workflows: Iterable[type[Workflow[Any]]] = (),
        tasks: Iterable[Task[..., Any, Any]] = (),
        *,
        schedules: Iterable[Schedule] = (),
        queues: Iterable[QueueConfig] = (),
        schema: str = "pgflow",
        pooler: bool | None = None,
        name: str | None = None,
        codec: Codec | None = None,
        middleware: Iterable[Middleware] = (),
        max_payload_bytes: int | None = None,
        payload_store: PayloadStore | None = None,
        store_above: int | None = None,
        retention: Retain | None = DEFAULT_RETAIN,
        on_prune: OnPrune | None = None,
    ) -> None:
        self.name = name or schema
        self.payloads = PayloadPolicy.of(codec, max_payload_bytes, payload_store, store_above)
        self.middleware = check_middleware(middleware)
        check_retention(retention, on_prune)
        self.retention = retention
        self.on_prune = on_prune
        registry = Registry(
            workflows, tasks, queues=queues, has_codec=codec is not None, payload_limit=self.payloads.limit
        )
        self._transport = Transport(resolve_dsn(dsn, os.environ), schema, pooler=resolve_pooler(pooler, os.environ))
        self.declared_schedules = check_schedules(schedules)
        self._specs = declared_specs(self.declared_schedules, registry, self.codec)
        self._postgres = PostgresBackend(self._transport, registry, self.payloads, self.name, self._specs)
        super().__init__(registry, self._postgres)
        self._places = PlaceKeeper(self._transport)
        self._workers: WeakSet[Worker] = WeakSet()
        self._bind()

    def adopt(self, given: Any) -> None:
        """Add a workflow or a task, as if it had been listed, also to this app's workers in this process.

        Raises `DefinitionError` when another one has its name.
        """
        super().adopt(given)
        self._postgres.is_registered = False
        for worker in list(self._workers):
            worker.adopt(given)

    @property
    def declared_queues(self) -> tuple[QueueConfig, ...]:
        """The queues that it declares."""
        return tuple(self._registry.queues.values())

    @property
    def codec(self) -> Codec | None:
        """The codec it was given."""
        return self.payloads.codec

    @property
    def dsn(self) -> str:
        """The connection string it was given."""
        return self._transport.dsn

    @property
    def pooler(self) -> bool:
        """Whether the connection string leads to a pooler in transaction mode."""
        return self._transport.pooler

    @property
    def schema(self) -> str:
        """The schema of pgflow's tables."""
        return self._transport.schema

    @property
    def storage(self) -> Storage:
        """The stored instances, to read, put and delete whole, as in memory."""
        return Storage(self._backend, self.schema)

    def __repr__(self) -> str:
        tasks = f", tasks=[{', '.join(self._registry.tasks_by_name)}]" if self._registry.tasks_by_name else ""
        workflows = ", ".join(self._registry.by_name)
        return f"Pgflow(name={self.name!r}, workflows=[{workflows}]{tasks}, schema={self.schema!r})"

    def migrate(self) -> None:
        """Install or upgrade pgflow's schema in the database, like the command `pgflow migrate`.

        Before a migration that breaks older code it waits a minute for workers to stop, so do not call it in a worker's
        process. Raises `SchemaForeign` when the schema holds foreign tables, `PoolerDetected` where `dsn` leads to a
        pooler, since migrations need a direct connection, `SchemaError` when it cannot run now.
        """
        with connect(self.dsn, role="migrate") as conn:
            migrate.up(conn, self.schema)

    def limit(
        self, name: str, *, key: str | int | None = None, cost: int = 1, timeout: timedelta | None = None
    ) -> TakenPlace:
        """Take a place of a limit for the code in a `with` or `async with`, exactly, over all processes.

        `name` is a limit of `app.limits.set`, of a queue or a new one: jobs of the queue and code share its places.
        `key` is a partition key, `cost` how many places it takes. It waits until there is room, for `timeout` at most.

        The place is held under a lease of 30 seconds, which a thread renews: it is free again that long after its
        process has died. A process that is stopped for longer may find that its place was given to others.

        Raises `UnknownQueue` for a limit that is not set, `InvalidValue` for a cost above it, `LimitReached` after the
        timeout.

            app.limits.set("stripe", concurrency=10, rate=Rate(100), is_new=True)
            async with app.limit("stripe", key=account, timeout=timedelta(seconds=30)):
                await charge(account)
        """
        return TakenPlace(self._transport, self._places, name, key=key, cost=cost, timeout=timeout)

    def worker(self, queues: Mapping[str, int] | None = None, **options: Any) -> Worker:
        """Make a worker of this app's workflows; see `Worker` for the options."""
        own: dict[str, Any] = {
            "schema": self.schema,
            "pooler": self.pooler,
            "payloads": self.payloads,
            "middleware": self.middleware,
            "tasks": self._registry.tasks,
            "schedules": self._specs,
            "app": self.name,
            "cpu_app": self._import_name() if has_cpu_work(self.workflows, self.tasks) else None,
            "retention": self.retention,
            "on_prune": self.on_prune,
        }
        worker = self._worker_type(self.dsn, self.workflows, queues=queues or {"default": 10}, **{**own, **options})
        self._workers.add(worker)
        return worker

    def _import_name(self) -> str | None:
        """Return "module:name" under which another process can import this app, None for an app of the main program."""
        for module in list(sys.modules.values()):
            name = getattr(module, "__name__", None)
            if isinstance(name, str) and name != "__main__":
                for variable, value in list(getattr(module, "__dict__", {}).items()):
                    if value is self:
                        return f"{name}:{variable}"
        return None

    def run_worker(self, queues: Mapping[str, int] | None = None, **options: Any) -> None:
        """Run a worker in this process until the program is interrupted, or with `drain=True` until no job is left.

        `queues` is the concurrency of each queue (default: 10 for the queue "default"); see `Worker` for the options.
        For production use the command `pgflow worker`, which handles signals.

            app.run_worker(drain=True)
        """
        self.register()
        run(self.worker(queues, **options).run())

    def close(self) -> None:
        """Close the connections of threads. Its workflows go back to the app that was made before it, if any.

        A later call opens new connections. `with app:` closes it at the end of the block.

            with Pgflow(dsn, workflows=[OrderFlow]) as app:
                OrderFlow.start("order-7", order)
        """
        self._unbind()
        self._postgres.close()
        self._transport.close()

    async def aclose(self) -> None:
        """`close`, async: the connections of this event loop, too."""
        self._unbind()
        await asyncio.to_thread(self._postgres.close)
        await self._transport.aclose()

    def sweep_payloads(self, older_than: timedelta = timedelta(days=1)) -> int:
        """Delete what no row refers to from the payload store, and return how many objects that were.

        Such objects are left by transactions that were rolled back and by failed calls. Only those stored longer ago
        than `older_than` are deleted, so it must be longer than any transaction that starts or signals instances: an
        hour at least. Reads a page of instances at a time. Raises `ConfigError` without a payload store,
        `InvalidValue`.

            app.sweep_payloads(timedelta(days=2))
        """
        return self._backend.execute(SweepPayloads(older_than))

    async def asweep_payloads(self, older_than: timedelta = timedelta(days=1)) -> int:
        """`sweep_payloads`, async."""
        return await self._backend.aexecute(SweepPayloads(older_than))

    def register(self) -> None:
        """Store this app's definitions, once. Raises `GraphChanged` when one is stored with other edges.

        A role without the privilege, such as a client of `pgflow roles`, leaves it to the workers, which store theirs.
        """
        self._backend.execute(Register())

    async def aregister(self) -> None:
        """`register`, async."""
        await self._backend.aexecute(Register())
