"""Instances in memory: put, get, delete and query."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import fields, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Protocol, Unpack

from pgflow.core.models.filters import Filters, Head, QueryOptions
from pgflow.core.models.instance import UNSAVED, Instance
from pgflow.core.models.instance_rules import check_single_workflow, checked
from pgflow.core.values.payload import INPUT_LIMIT
from pgflow.errors import Conflict, InstanceNotFound
from pgflow.local.lock import check_ours
from pgflow.process import Lock, current

__all__ = ["Live", "Owner", "Storage", "read", "select"]

READ = tuple(each.name for each in fields(Instance))


class Live(Protocol):
    """An instance that an open `Local` runs. Read with the owner's lock held."""

    run: int
    id: str

    @property
    def head(self) -> Head:
        """What identifies it, and its status."""

    def saved(self) -> Instance:
        """Return a snapshot."""


class Owner(Protocol):
    """An open `Local`, which runs the active instances."""

    def holding(self) -> AbstractContextManager[None]:
        """Hold the lock under which live instances change."""

    def now(self) -> datetime:
        """Return the time of its clock."""

    def check(self, instance: Instance) -> None:
        """Raise an error for an instance that its workflows could not have."""

    def replacing(self, instance: Instance) -> AbstractContextManager[None]:
        """Stop what is active of a run while another instance is put in its place, then run that one."""

    def forget(self, runs: Collection[int]) -> None:
        """Stop what is active of these runs."""


class Storage:
    """Instances in memory, by run. Several storages are independent of each other.

    It stores and returns copies: changing an instance changes nothing in the storage. Any thread may use it. It belongs
    to one open `Local` at a time; the next one continues its active instances.

        storage = Storage("orders")
        with Local(workflows=[OrderFlow], storage=storage) as app: ...
        storage.query(status="failed")
    """

    def __init__(self, name: str = "default") -> None:
        self.name = name
        self.limit = INPUT_LIMIT  # bytes of a value; that of the `Local` that it belonged to last
        self._lock = Lock()
        self._by_run: dict[int, Instance | Live] = {}
        self._order: list[int] = []  # all runs, in order
        self._runs: dict[str, list[int]] = {}  # by business id, in order
        self._last_run = 0
        self._last_signal = 0
        self._owner: Owner | None = None
        self._process = current()  # that of its owner

    def __repr__(self) -> str:
        return f"Storage({self.name!r})"

    def __len__(self) -> int:
        return len(self._by_run)

    def put(self, instance: Instance) -> int:
        """Store an instance, in place of what is stored of its run; returns its run.

        An active one continues: its active steps run again, at once where an open `Local` has its workflow, else with
        the next one. A stored run keeps its mailbox; a new one gets the signals of the instance, the scheduled ones
        under new ids. One of `Instance.new` gets a new run.

        Raises `InvalidValue` and `InvalidPayload` for values that cannot be stored, `UnknownWorkflow` and
        `InvalidValue` for a workflow or version that the open `Local` does not have, `UnknownStep`, `UndeclaredEvent`,
        `RouteError` and `GraphChanged` for a history that its workflow could not have had (without an open `Local`, the
        next one checks it), `Conflict` when the run belongs to another instance, `AlreadyRunning` when another one with
        its business key is active.

            storage.put(replace(storage.get("orderid::abc123"), tags=("gift",)))
        """
        given = deepcopy(checked(instance, self.limit))
        with self._consistent():
            owner = self._owner
            if owner is not None:
                owner.check(given)
            new = self._completed(given, datetime.now(UTC) if owner is None else owner.now())
            with nullcontext() if owner is None else owner.replacing(new):
                self._replace(new)
            return new.run

    def _completed(self, given: Instance, now: datetime) -> Instance:
        """Return an instance with its run, its creation time and the mailbox that it will have."""
        held = self._by_run.get(given.run)
        stored = held if held is None or isinstance(held, Instance) else held.saved()
        if stored is None:
            signals = tuple(replace(each, id=each.id and self.next_signal()) for each in given.signals)
        else:
            signals = stored.signals
        if given.status in ("completed", "cancelled"):
            signals = tuple(each for each in signals if each.id is None)
        return replace(
            given,
            run=given.run or self.next_run(),
            created_at=now if given.created_at == UNSAVED else given.created_at,
            signals=signals,
        )

    def next_run(self) -> int:
        """Return a new run id."""
        with self._lock:
            self._last_run += 1
            return self._last_run

    def next_signal(self) -> int:
        """Return a new id for a scheduled signal."""
        with self._lock:
            self._last_signal += 1
            return self._last_signal

    def hold(self, live: Live) -> None:
        """Store an instance that a `Local` runs: it is copied when it is read, not with each change."""
        self._keep(live)

    def keep(self, instance: Instance) -> None:
        """Store a copy of an instance that a `Local` no longer runs, in place of the live one."""
        self._keep(deepcopy(instance))

    def get(
        self,
        id: str,  # noqa: A002 -- "id" is the word for it in all of the API
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
    ) -> Instance:
        """Return the newest run with a business id; of `workflow`, a class or a name, and `version` if given.

        Raises `InstanceNotFound`, and `AmbiguousId` when several workflows have the id and `workflow` is not given.

            storage.get("orderid::abc123")
        """
        filters = Filters.of_id(id, workflow, version)
        with self._consistent():
            if workflow is None:
                check_single_workflow(id, self._workflows(id))
            found = self.find(filters)
        if not found:
            raise InstanceNotFound(f"{self!r} has no instance {filters.named}")
        return read(found[0])

    def delete(
        self,
        id: str,  # noqa: A002 -- as in get
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
    ) -> None:
        """Delete all runs with a business id, also while their steps run; no error if there are none.

        With `workflow`, a class or a name, and `version` only the runs of these. Raises `AmbiguousId` when several
        workflows have the id and `workflow` is not given.
        """
        filters = replace(Filters.of_id(id, workflow, version), limit=None)
        with self._consistent():
            if workflow is None:
                check_single_workflow(id, self._workflows(id))
            all_runs = self._runs.get(id, [])
            runs = [run for run in all_runs if filters.matches_head(self._head(run))]
            if self._owner is not None:
                self._owner.forget(runs)
            for run in runs:
                del self._by_run[run]
                del self._order[bisect_left(self._order, run)]
            if left := [run for run in all_runs if run in self._by_run]:
                self._runs[id] = left
            else:
                self._runs.pop(id, None)

    def query(self, **filters: Unpack[QueryOptions]) -> list[Instance]:
        """Return the instances that match all filters, the newest first; without a filter all of them.

        `QueryOptions` lists the filters. Raises `UnknownOption` for an unknown filter, `InvalidValue` and
        `InvalidPayload` for invalid values.

            storage.query(workflow=OrderFlow, status_in=("failed", "cancelled"), tags=["gift"])
        """
        return [read(each) for each in self.find(Filters.of_query(filters))]

    # No method blocks, so that the async ones only call the others.

    async def aput(self, instance: Instance) -> int:
        """`put`, async."""
        return self.put(instance)

    async def aget(
        self,
        id: str,  # noqa: A002 -- as in get
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
    ) -> Instance:
        """`get`, async."""
        return self.get(id, workflow=workflow, version=version)

    async def adelete(
        self,
        id: str,  # noqa: A002 -- as in get
        *,
        workflow: str | type[Any] | None = None,
        version: int | None = None,
    ) -> None:
        """`delete`, async."""
        self.delete(id, workflow=workflow, version=version)

    async def aquery(self, **filters: Unpack[QueryOptions]) -> list[Instance]:
        """`query`, async."""
        return self.query(**filters)

    def find(self, filters: Filters) -> list[Instance]:
        """Return copies of the instances that match, in order, at most `filters.limit`."""
        with self._consistent():
            found = list(islice(self._matching(filters), filters.limit))
        return [deepcopy(each) for each in found]  # a stored instance never changes, so no lock is needed

    def newest(self, filters: Filters) -> Head | None:
        """Return the head of the newest instance that matches: nothing is copied."""
        with self._consistent():
            for run in self._candidates(filters):
                head = self._head(run)
                if filters.matches_head(head):
                    return head
        return None

    def runs(self, id: str) -> tuple[int, ...]:  # noqa: A002 -- as in get
        """Return the runs of a business id, in order."""
        self._check_ours()
        with self._lock:
            return tuple(self._runs.get(id, ()))

    def _candidates(self, filters: Filters) -> Iterator[int]:
        """Return the runs that match the filters for id and run, in the order of `filters`."""
        runs = self._order if filters.id is None else self._runs.get(filters.id, [])
        first = 0 if filters.after is None else bisect_right(runs, filters.after)
        last = len(runs) if filters.before is None else bisect_left(runs, filters.before)
        places = range(first, last) if filters.oldest else range(last - 1, first - 1, -1)
        return (runs[place] for place in places)

    def _matching(self, filters: Filters) -> Iterator[Instance]:
        for run in self._candidates(filters):
            stored = self._by_run[run]
            if isinstance(stored, Instance):
                if filters.matches(stored):
                    yield stored
            elif filters.matches_head(stored.head) and filters.matches(saved := stored.saved()):
                yield saved

    @contextmanager
    def _consistent(self) -> Iterator[None]:
        """Hold the owner's lock, under which it changes its live instances, then the storage's own."""
        while True:
            self._check_ours()
            owner = self._owner
            with nullcontext() if owner is None else owner.holding(), self._lock:
                if self._owner is owner:
                    yield
                    return

    def _workflows(self, id: str) -> list[str]:  # noqa: A002 -- as in get
        return sorted({self._head(run).workflow for run in self._runs.get(id, ())})

    def _head(self, run: int) -> Head | Instance:
        stored = self._by_run[run]
        return stored if isinstance(stored, Instance) else stored.head

    def _replace(self, instance: Instance) -> None:
        with self._lock:
            stored = self._by_run.get(instance.run)
            before = stored if stored is None or isinstance(stored, Instance) else stored.head
            if before is not None and (before.id, before.workflow) != (instance.id, instance.workflow):
                raise Conflict(
                    f"run {instance.run} belongs to {before.workflow} {before.id!r}, not to {instance.id!r}",
                    hint="Delete that one first, or give this one another run.",
                )
            self._keep(instance)

    def _keep(self, each: Instance | Live) -> None:
        with self._lock:
            if each.run not in self._by_run:
                _insert(self._runs.setdefault(each.id, []), each.run)
                _insert(self._order, each.run)
                self._last_run = max(self._last_run, each.run)
            self._by_run[each.run] = each

    def attach(self, owner: Owner) -> None:
        """Give the storage to an open `Local`. Raises `Conflict` while it belongs to another."""
        with self._lock:
            if self._owner not in (None, owner):
                raise Conflict(f"{self!r} belongs to another Local", hint="Close that one, or give each its own.")
            self._owner = owner
            self._process = current()

    def _check_ours(self) -> None:
        if self._owner is not None:
            check_ours(self._process)

    def detach(self, owner: Owner) -> None:
        """Release the storage, if it belongs to `owner`."""
        with self._lock:
            if self._owner is owner:
                self._owner = None


def _insert(runs: list[int], run: int) -> None:
    """Insert a run in order; nearly always it is the newest."""
    if runs and run < runs[-1]:
        insort(runs, run)
    else:
        runs.append(run)


def read(stored: Instance, *, is_whole: bool = True) -> Instance:
    """Return what a caller reads of a stored instance: without `is_whole` no history, outputs and signals."""
    known = {name: getattr(stored, name) for name in READ}
    if stored.status in ("completed", "cancelled"):
        known["signals"] = ()  # no step will consume them
    return Instance(**known) if is_whole else Instance(**{**known, "history": (), "steps": {}, "signals": ()})


def select(instances: Iterable[Instance], **filters: Unpack[QueryOptions]) -> list[Instance]:
    """Return the instances that match all filters, the newest run first: the `query` of a storage of your own.

    Raises `UnknownOption` for an unknown filter, `InvalidValue` and `InvalidPayload` for invalid values.

        select(everything, workflow=OrderFlow, status="failed", limit=10)
    """
    return Filters.of_query(filters).page(instances)
