"""Keep instances in memory: put, get, delete and query."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import fields
from typing import Protocol, Unpack

from pgflow.core.filters import Filters, QueryOptions
from pgflow.core.instance import Instance
from pgflow.core.stored import checked
from pgflow.errors import Conflict, InstanceNotFound

__all__ = ["Owner", "Storage", "read"]

READ = tuple(each.name for each in fields(Instance))


class Owner(Protocol):
    """An open `Local`, which has in its hands what is under way."""

    def replacing(self, instance: Instance) -> AbstractContextManager[None]:
        """Let go of what is under way of a run while another instance is put into its place, then take that one up."""

    def forget(self, id: str) -> None:  # noqa: A002 -- as in Storage.get
        """Let go of what is under way of a business id."""


class Storage:
    """Instances in memory, by their run. Several stand side by side and know nothing of each other.

    It keeps and gives copies: what you change afterwards changes nothing in it. Any thread may use it. It belongs to
    one open `Local` at a time; a later one goes on with the instances that are under way.

        storage = Storage("orders")
        with Local(workflows=[OrderFlow], storage=storage) as app: ...
        storage.query(status="failed")
    """

    def __init__(self, name: str = "default") -> None:
        self.name = name
        self._lock = threading.RLock()
        self._by_run: dict[int, Instance] = {}
        self._runs: dict[str, list[int]] = {}  # by business id, in order
        self._owner: Owner | None = None

    def __repr__(self) -> str:
        return f"Storage({self.name!r})"

    def __len__(self) -> int:
        return len(self._by_run)

    def put(self, instance: Instance) -> None:
        """Keep an instance, in the place of what was kept of its run.

        One that is active goes on: its active steps run anew, at once where an open `Local` has its workflow, else with
        the next one. Raises `InvalidValue` and `InvalidPayload` for what cannot be stored, `Conflict` when the run
        belongs to another instance, `AlreadyRunning` when another one with its business key is active.

            storage.put(replace(storage.get("orderid::abc123"), tags=("gift",)))
        """
        given = deepcopy(checked(instance))
        owner = self._owner
        if owner is None:
            self._keep_if_same(given)
            return
        with owner.replacing(given):
            self._keep_if_same(given)

    def keep(self, instance: Instance) -> None:
        """Keep what a `Local` has made of an instance."""
        self._keep(deepcopy(instance))

    def get(self, id: str) -> Instance:  # noqa: A002 -- "id" is the word for it in all of the API
        """Return the newest run with a business id. Raises `InstanceNotFound`.

        storage.get("orderid::abc123")
        """
        found = self.find(Filters.of_query({"id": id, "limit": 1}))
        if not found:
            raise InstanceNotFound(f"{self!r} has no instance {id!r}")
        return read(found[0])

    def delete(self, id: str) -> None:  # noqa: A002 -- as in get
        """Forget all runs with a business id, also while their steps run; it is no error when there are none."""
        owner = self._owner
        if owner is not None:
            owner.forget(id)
        with self._lock:
            for run in self._runs.pop(id, []):
                del self._by_run[run]

    def query(self, **filters: Unpack[QueryOptions]) -> list[Instance]:
        """Return the instances that all given filters hold for, the newest first; without a filter all of them.

        `QueryOptions` says which there are. Raises `UnknownOption` for a filter that does not exist, `InvalidValue` and
        `InvalidPayload` for values that cannot be.

            storage.query(workflow=OrderFlow, status_in=("failed", "cancelled"), tags=["gift"])
        """
        return [read(each) for each in self.find(Filters.of_query(filters))]

    # None of them blocks, so that the async twins only call the others.

    async def aput(self, instance: Instance) -> None:
        """`put`, async."""
        self.put(instance)

    async def aget(self, id: str) -> Instance:  # noqa: A002 -- as in get
        """`get`, async."""
        return self.get(id)

    async def adelete(self, id: str) -> None:  # noqa: A002 -- as in get
        """`delete`, async."""
        self.delete(id)

    async def aquery(self, **filters: Unpack[QueryOptions]) -> list[Instance]:
        """`query`, async."""
        return self.query(**filters)

    def find(self, filters: Filters) -> list[Instance]:
        """Return what is kept of the instances that all filters hold for."""
        with self._lock:
            runs = self._by_run if filters.id is None else self._runs.get(filters.id, [])
            kept = [self._by_run[run] for run in runs]
        return [deepcopy(each) for each in filters.page(kept)]  # nobody changes what is kept, so no lock is needed

    def _keep_if_same(self, instance: Instance) -> None:
        with self._lock:
            before = self._by_run.get(instance.run)
            if before is not None and (before.id, before.workflow) != (instance.id, instance.workflow):
                raise Conflict(
                    f"run {instance.run} belongs to {before.workflow} {before.id!r}, not to {instance.id!r}",
                    hint="Delete that one first, or give this one another run.",
                )
            self._keep(instance)

    def _keep(self, instance: Instance) -> None:
        with self._lock:
            if instance.run not in self._by_run:
                runs = self._runs.setdefault(instance.id, [])
                runs.append(instance.run)
                runs.sort()
            self._by_run[instance.run] = instance

    def attach(self, owner: Owner) -> None:
        """Give the storage to an open `Local`. Raises `Conflict` while it belongs to another."""
        with self._lock:
            if self._owner not in (None, owner):
                raise Conflict(f"{self!r} belongs to another Local", hint="Close that one, or give each its own.")
            self._owner = owner

    def detach(self, owner: Owner) -> None:
        """Let the storage belong to nobody, if it was `owner`'s."""
        with self._lock:
            if self._owner is owner:
                self._owner = None


def read(kept: Instance, *, is_whole: bool = True) -> Instance:
    """Return what a caller reads of a kept instance; its history and outputs only when it is asked for as a whole."""
    known = {name: getattr(kept, name) for name in READ}
    return Instance(**known) if is_whole else Instance(**{**known, "history": (), "steps": {}, "signals": ()})
