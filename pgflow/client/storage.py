"""Whole instances: the contract of a storage, and the one on PostgreSQL."""

from __future__ import annotations

from typing import Any, Protocol, Unpack

from pgflow.client.backend import Backend
from pgflow.client.commands import Delete, Load, Put, Query
from pgflow.core.models.filters import Filters, QueryOptions
from pgflow.core.models.instance import Instance

__all__ = ["AsyncInstanceStorage", "InstanceStorage", "Storage"]


class InstanceStorage(Protocol):
    """The contract of a storage: whole instances by run, found by business id and by filters.

    `pgflow.local.Storage` and `app.storage` have it, and so may a class of yours: `Local(storage=YourStorage())`. Each
    method is called by one thread at a time.
    """

    def put(self, instance: Instance) -> int:
        """Store an instance in place of what is stored of its `run`, and return its run.

        One with run 0 is new and gets a run of its own; `Local` never puts one.
        """

    def get(
        self,
        id: str,  # noqa: A002 -- "id" is the word for it in all of the API
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
    ) -> Instance:
        """Return the newest run with a business id, of `workflow` and `version` if given.

        Raises `InstanceNotFound`, and `AmbiguousId` when several workflows have the id and `workflow` is not given.
        """

    def delete(
        self,
        id: str,  # noqa: A002 -- as in get
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
    ) -> None:
        """Delete all runs with a business id, of `workflow` and `version` if given; no error if there are none."""

    def query(self, **filters: Unpack[QueryOptions]) -> list[Instance]:
        """Return the instances that match all filters, the newest run first; without a filter all of them."""


class AsyncInstanceStorage(Protocol):
    """The same contract for async code: `app.storage` and `pgflow.local.Storage` have both."""

    async def aput(self, instance: Instance) -> int:
        """`InstanceStorage.put`, async."""

    async def aget(
        self,
        id: str,  # noqa: A002 -- as in InstanceStorage
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
    ) -> Instance:
        """`InstanceStorage.get`, async."""

    async def adelete(
        self,
        id: str,  # noqa: A002 -- as in InstanceStorage
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
    ) -> None:
        """`InstanceStorage.delete`, async."""

    async def aquery(self, **filters: Unpack[QueryOptions]) -> list[Instance]:
        """`InstanceStorage.query`, async."""


class Storage:
    """The instances of one schema: `app.storage`. Storages of several schemas are independent of each other.

    It has the methods of `pgflow.local.Storage`, and an instance that was read from one may be put into the other. All
    take `conn`, a psycopg connection of the caller's, and then run in the caller's transaction.

        for order in app.storage.query(workflow=OrderFlow, status="failed", tags=["gift"]):
            app.storage.put(replace(order, input={**order.input, "card": "good"}))
    """

    def __init__(self, backend: Backend, name: str) -> None:
        self.name = name
        self._backend = backend

    def __repr__(self) -> str:
        return f"Storage({self.name!r})"

    def put(self, instance: Instance, *, conn: Any = None) -> int:
        """Store an instance with its history, in place of what is stored of its run; returns its run.

        An active one continues: its active steps run again, with waits and timers from their beginning, and a worker
        that runs one of its steps cannot record a result. A stored run keeps its mailbox; a new one gets the signals of
        the instance, the scheduled ones under new ids. One of `Instance.new` gets a new run. A new run id is never
        given to another instance.

        Raises `InvalidValue` and `InvalidPayload` for values that cannot be stored, `UnknownWorkflow` and
        `InvalidValue` for a workflow or version that the app does not have, `UnknownStep`, `UndeclaredEvent`,
        `RouteError` and `GraphChanged` for a history that its workflow could not have had, `Conflict` when the run
        belongs to another instance, `AlreadyRunning` when another one with its business key is active.

            app.storage.put(replace(app.storage.get("orderid::abc123"), tags=("gift",)))
        """
        return self._backend.execute(Put(instance), conn)

    async def aput(self, instance: Instance, *, conn: Any = None) -> int:
        """`put`, async."""
        return await self._backend.aexecute(Put(instance), conn)

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
        return self._backend.execute(Load(Filters.of_id(id, workflow, version)), conn)

    async def aget(
        self,
        id: str,  # noqa: A002 -- as in get
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
        conn: Any = None,
    ) -> Instance:
        """`get`, async."""
        return await self._backend.aexecute(Load(Filters.of_id(id, workflow, version)), conn)

    def delete(
        self,
        id: str,  # noqa: A002 -- as in get
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
        conn: Any = None,
    ) -> None:
        """Delete all runs with a business id and all their rows, also while they run; no error if there are none.

        With `workflow`, a class or a name, and `version` only the runs of these. Raises `AmbiguousId` when several
        workflows have the id and `workflow` is not given. A running step continues, but cannot record a result.
        """
        self._backend.execute(Delete(Filters.of_id(id, workflow, version)), conn)

    async def adelete(
        self,
        id: str,  # noqa: A002 -- as in get
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
        conn: Any = None,
    ) -> None:
        """`delete`, async."""
        await self._backend.aexecute(Delete(Filters.of_id(id, workflow, version)), conn)

    def query(self, *, conn: Any = None, **filters: Unpack[QueryOptions]) -> list[Instance]:
        """Return the instances that match all filters, whole, the newest first; without a filter all of them.

        `QueryOptions` lists the filters. Raises `UnknownOption` for an unknown filter, `InvalidValue` and
        `InvalidPayload` for invalid values.

            app.storage.query(workflow=OrderFlow, status_in=("failed", "cancelled"), limit=100)
        """
        return self._backend.execute(Query(Filters.of_query(filters)), conn)

    async def aquery(self, *, conn: Any = None, **filters: Unpack[QueryOptions]) -> list[Instance]:
        """`query`, async."""
        return await self._backend.aexecute(Query(Filters.of_query(filters)), conn)
