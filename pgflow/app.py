"""Tie workflows to a database: `Pgflow`, and what stands behind `Workflow.start` and its kin."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar
from weakref import WeakSet

from pgflow.client.apps import closed, opened
from pgflow.client.client import Client
from pgflow.client.commands import Register
from pgflow.client.postgres import PostgresBackend
from pgflow.client.storage import Storage
from pgflow.client.transport import Transport
from pgflow.client.workflow import Workflow
from pgflow.config import resolve_dsn, resolve_pooler
from pgflow.core.definition.registry import Registry
from pgflow.core.values.codec import Codec, checked_codec
from pgflow.database.connect import connect
from pgflow.migrations import migrate
from pgflow.worker import Worker
from pgflow.worker.loop import run

__all__ = ["Pgflow"]


class Pgflow(Client):
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
        registry = Registry(workflows, has_codec=codec is not None)
        self._transport = Transport(resolve_dsn(dsn, os.environ), schema, pooler=resolve_pooler(pooler, os.environ))
        self._postgres = PostgresBackend(self._transport, registry, self.codec)
        super().__init__(registry, self._postgres)
        self._workers: WeakSet[Worker] = WeakSet()
        for workflow in self.workflows:
            workflow.bind(self)
        opened(self)

    def adopt(self, workflow: type[Workflow[Any]]) -> None:
        """Take another workflow in, as if it had been listed; this app's workers in this process learn of it, too.

        Raises `DefinitionError` when another one has its name.
        """
        super().adopt(workflow)
        self._postgres.is_registered = False
        for worker in list(self._workers):
            worker.adopt(workflow)

    @property
    def dsn(self) -> str:
        """The connection string it was given."""
        return self._transport.dsn

    @property
    def pooler(self) -> bool:
        """Whether it leads to a pooler in transaction mode."""
        return self._transport.pooler

    @property
    def schema(self) -> str:
        """The schema that pgflow lives in."""
        return self._transport.schema

    @property
    def storage(self) -> Storage:
        """The stored instances, to be read, put and deleted as wholes, as in memory."""
        return Storage(self._backend, self.schema)

    def __repr__(self) -> str:
        return f"Pgflow(name={self.name!r}, workflows=[{', '.join(self._registry.by_name)}], schema={self.schema!r})"

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
        self._transport.close()

    async def aclose(self) -> None:
        """`close`, async: the connections of this event loop, too."""
        self._let_go()
        await self._transport.aclose()

    def _let_go(self) -> None:
        closed(self)
        for workflow in self.workflows:
            workflow.unbind(self)

    def register(self) -> None:
        """Store this app's definitions, once. Raises `GraphChanged` when one has other edges under the same version.

        A role without the privilege, such as a client of `pgflow roles`, leaves it to the workers, which store theirs.
        """
        self._backend.execute(Register())

    async def aregister(self) -> None:
        """`register`, async."""
        await self._backend.aexecute(Register())
