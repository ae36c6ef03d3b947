"""Read, put and delete whole instances on PostgreSQL, as `pgflow.local.Storage` does in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Unpack

from pgflow.calls import Call, opening
from pgflow.client import Client
from pgflow.core.definition.registry import Registry
from pgflow.core.models.filters import Filters, QueryOptions
from pgflow.core.models.instance import Instance
from pgflow.core.models.instance_codec import encrypt_instance
from pgflow.core.models.instance_rules import check_against, check_single_workflow, checked, unique_key
from pgflow.core.values.codec import Codec
from pgflow.database.statement import Statement
from pgflow.errors import InstanceNotFound
from pgflow.store import instance

__all__ = ["Storage"]


class Storage:
    """The instances of one schema: `app.storage`. Several schemas stand side by side and know nothing of each other.

    It has the methods of `pgflow.local.Storage`, and an instance that was read from one may be put into the other. All
    take `conn`, a psycopg connection of the caller's, and then happen in the caller's transaction.

        for order in app.storage.query(workflow=OrderFlow, status="failed", tags=["gift"]):
            app.storage.put(replace(order, input={**order.input, "card": "good"}))
    """

    def __init__(
        self,
        client: Client,
        registry: Registry,
        register: Callable[[], None],
        aregister: Callable[[], Awaitable[None]],
        codec: Codec | None = None,
    ) -> None:
        self.name = client.schema
        self._client = client
        self._registry = registry
        self._register = register
        self._aregister = aregister
        self._codec = codec

    def __repr__(self) -> str:
        return f"Storage({self.name!r})"

    def put(self, instance: Instance, *, conn: Any = None) -> int:
        """Store an instance, in the place of what is stored of its run, with its history; returns its run.

        One that is active goes on: its active steps run again, with waits and timers from their beginning, and a worker
        that runs one of its steps cannot record a result. A run that is stored keeps its mailbox; a new one gets the
        signals of the instance, the scheduled ones under new ids. One of `Instance.new` gets a new run. A run that is
        new here is never given to another instance.

        Raises `InvalidValue` and `InvalidPayload` for what cannot be stored, `UnknownWorkflow` and `InvalidValue` for a
        workflow or version that the app does not have, `UnknownStep`, `UndeclaredEvent`, `RouteError` and
        `GraphChanged` for a history that its workflow could not have had, `Conflict` when the run belongs to another
        instance, `AlreadyRunning` when another one with its business key is active.

            app.storage.put(replace(app.storage.get("orderid::abc123"), tags=("gift",)))
        """
        call = self._putting(instance)
        self._client.check(conn)
        self._register()
        return self._client.call(call, conn)

    async def aput(self, instance: Instance, *, conn: Any = None) -> int:
        """`put`, async."""
        call = self._putting(instance)
        self._client.acheck(conn)
        await self._aregister()
        return await self._client.acall(call, conn)

    def get(
        self,
        id: str,  # noqa: A002 -- "id" is the word for it in all of the API
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
        conn: Any = None,
    ) -> Instance:
        """Return the newest run with a business id, whole; of `workflow`, a class or a name, and `version` if given.

        Raises `InstanceNotFound`, and `AmbiguousId` when several workflows have the id and `workflow` is not given.

            app.storage.get("orderid::abc123")
            app.storage.get("orderid::abc123", workflow=OrderFlow)    # another workflow has the key "orderid", too
        """
        filters = Filters.of_id(id, workflow, version)
        if workflow is None:
            check_single_workflow(id, self._client.run(instance.workflows(self.name, id=id), conn))
        return self._sole(filters, self._client.run(self._querying(filters), conn))

    async def aget(
        self,
        id: str,  # noqa: A002 -- as in get
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
        conn: Any = None,
    ) -> Instance:
        """`get`, async."""
        filters = Filters.of_id(id, workflow, version)
        if workflow is None:
            check_single_workflow(id, await self._client.arun(instance.workflows(self.name, id=id), conn))
        return self._sole(filters, await self._client.arun(self._querying(filters), conn))

    def delete(
        self,
        id: str,  # noqa: A002 -- as in get
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
        conn: Any = None,
    ) -> None:
        """Delete all runs with a business id and what belongs to them, also while they run; no error if there are none.

        With `workflow`, a class or a name, and `version` only the runs of these. Raises `AmbiguousId` when several
        workflows have the id and `workflow` is not given. A step that runs goes on to its end, and can record nothing.
        """
        self._client.call(self._deleting(Filters.of_id(id, workflow, version)), conn)

    async def adelete(
        self,
        id: str,  # noqa: A002 -- as in get
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
        conn: Any = None,
    ) -> None:
        """`delete`, async."""
        await self._client.acall(self._deleting(Filters.of_id(id, workflow, version)), conn)

    def query(self, *, conn: Any = None, **filters: Unpack[QueryOptions]) -> list[Instance]:
        """Return the instances that all given filters hold for, whole, the newest first; without a filter all of them.

        `QueryOptions` says which there are. Raises `UnknownOption` for a filter that does not exist, `InvalidValue` and
        `InvalidPayload` for values that cannot be.

            app.storage.query(workflow=OrderFlow, status_in=("failed", "cancelled"), limit=100)
        """
        return self._client.run(self._querying(Filters.of_query(filters)), conn)

    async def aquery(self, *, conn: Any = None, **filters: Unpack[QueryOptions]) -> list[Instance]:
        """`query`, async."""
        return await self._client.arun(self._querying(Filters.of_query(filters)), conn)

    def _putting(self, given: Instance) -> Call[int]:
        each = checked(given)
        graph = self._registry.named(each.workflow).resolve_version(each.version)[1].graph
        queue = graph.nodes[graph.initial].queue
        due = None
        check_against(each, graph)
        if each.status == "pending":
            due = min((wait.until for wait in each.waiting_for if wait.until is not None), default=None)
        key = unique_key(graph, each.id)
        stored = encrypt_instance(self._codec, each)

        def statement(notify: bool) -> Statement[int]:
            return instance.put(self.name, stored, unique_key=key, due=due, queue=queue, notify=notify)

        # Woken without a queue's name, workers look whether their steps are wanted.
        return Call(f"put {each.id} {each.run}", statement, int, queues=frozenset({queue, ""}))

    def _querying(self, filters: Filters) -> Statement[list[Instance]]:
        return opening(instance.list(self.name, filters, whole=True), self._codec)

    def _deleting(self, filters: Filters) -> Call[int]:
        named = filters.id or ""

        def statement(notify: bool) -> Statement[int]:
            return instance.delete(
                self.name, id=named, workflow=filters.workflow, version=filters.version, notify=notify
            )

        return Call(f"delete {named}", statement, int, queues=frozenset({""}))

    def _sole(self, filters: Filters, found: list[Instance]) -> Instance:
        if not found:
            raise InstanceNotFound(f"{self!r} has no instance {filters.named}", hint="List them: pgflow list")
        return found[0]
