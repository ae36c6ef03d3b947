"""Keep instances in memory: put, get, delete and query."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from copy import deepcopy
from typing import Any, get_args

from pgflow.core.engine import Status
from pgflow.core.instance import Instance
from pgflow.core.workflow import Workflow
from pgflow.errors import Conflict, InstanceNotFound, InvalidValue

__all__ = ["Storage"]


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
        self._owner: object | None = None

    def __repr__(self) -> str:
        return f"Storage({self.name!r})"

    def __len__(self) -> int:
        return len(self._by_run)

    def put(self, instance: Instance) -> None:
        """Keep an instance, in the place of what was kept of its run."""
        copied = deepcopy(instance)
        with self._lock:
            before = self._by_run.get(copied.run)
            if before is not None and before.id != copied.id:
                self._forget(before)
            if before is None or before.id != copied.id:
                runs = self._runs.setdefault(copied.id, [])
                runs.append(copied.run)
                runs.sort()
            self._by_run[copied.run] = copied

    def get(self, id: str) -> Instance:  # noqa: A002 -- "id" is the word for it in all of the API
        """Return the newest run with a business id. Raises `InstanceNotFound`.

        storage.get("orderid::abc123")
        """
        with self._lock:
            runs = self._runs.get(id)
            if not runs:
                raise InstanceNotFound(f"{self!r} has no instance {id!r}")
            found = self._by_run[runs[-1]]
        return deepcopy(found)

    def delete(self, id: str) -> None:  # noqa: A002 -- as in get
        """Forget all runs with a business id; it is no error when there are none."""
        with self._lock:
            for run in self._runs.pop(id, []):
                del self._by_run[run]

    def query(
        self,
        *,
        id: str | None = None,  # noqa: A002 -- as in get
        status: Status | None = None,
        status_in: Iterable[Status] | None = None,
        workflow: str | type[Workflow[Any]] | None = None,
        workflow_version: int | None = None,
        tags: Iterable[str] | None = None,
    ) -> list[Instance]:
        """Return the instances that all given filters hold for, the newest first; without a filter all of them.

        `tags` are those that an instance must have, all of them. A filter that does not exist is a `TypeError`, a
        status that does not exist an `InvalidValue`.

            storage.query(workflow=OrderFlow, status_in=("failed", "cancelled"), tags=["gift"])
        """
        statuses = None if status_in is None else frozenset(status_in)
        for each in {status} - {None} | (statuses or frozenset()):
            if each not in get_args(Status):
                raise InvalidValue(f"the status {each!r} is unknown", hint=f"Known: {', '.join(get_args(Status))}.")
        name = workflow if workflow is None or isinstance(workflow, str) else workflow.name
        wanted = frozenset(tags or ())
        with self._lock:
            runs = sorted(self._by_run) if id is None else self._runs.get(id, [])
            kept = [self._by_run[run] for run in reversed(runs)]
        found = [
            each
            for each in kept
            if status in (None, each.status)
            and (statuses is None or each.status in statuses)
            and name in (None, each.workflow)
            and workflow_version in (None, each.version)
            and wanted.issubset(each.tags)
        ]
        return [deepcopy(each) for each in found]  # nobody changes what is kept, so no lock is needed

    def attach(self, owner: object) -> None:
        """Give the storage to an open `Local`. Raises `Conflict` while it belongs to another."""
        with self._lock:
            if self._owner not in (None, owner):
                raise Conflict(f"{self!r} belongs to another Local", hint="Close that one, or give each its own.")
            self._owner = owner

    def detach(self, owner: object) -> None:
        """Let the storage belong to nobody, if it was `owner`'s."""
        with self._lock:
            if self._owner is owner:
                self._owner = None

    def _forget(self, instance: Instance) -> None:
        runs = self._runs[instance.id]
        runs.remove(instance.run)
        if not runs:
            del self._runs[instance.id]
