"""A user's own storage under `Local`: a working copy in memory that writes every change through to it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pgflow.client.storage import InstanceStorage
from pgflow.core.models.instance import Instance
from pgflow.core.values.sanitize import sanitize_line
from pgflow.local.storage import Live, Storage
from pgflow.logs import Logger

__all__ = ["WriteThrough"]

log = Logger("pgflow.local")

PUBLIC = tuple(each.name for each in fields(Instance))


class WriteThrough(Storage):
    """Loads all instances of `target` once, and from then on puts and deletes there what changes here.

    An error of `target` is raised by a caller's `put` and `delete`. While a `Local` runs an instance it is logged, the
    instance continues in memory, and its next change is written again.
    """

    def __init__(self, target: InstanceStorage) -> None:
        super().__init__(type(target).__name__)
        self._target = target
        for instance in target.query():
            super()._keep(instance)

    def __repr__(self) -> str:
        return repr(self._target)

    def hold(self, live: Live) -> None:
        """Keep an instance that a `Local` runs, and write it as it is now."""
        super().hold(live)
        self._write(live.saved())

    def keep(self, instance: Instance) -> None:
        """Keep what a `Local` made of an instance, and write it."""
        super().keep(instance)
        self._write(instance)

    def delete(self, id: str, *, workflow: str | type[Any] | None = None, version: int | None = None) -> None:  # noqa: A002 -- as in Storage
        """`Storage.delete`, in both."""
        super().delete(id, workflow=workflow, version=version)
        self._target.delete(id, workflow=workflow, version=version)

    def _replace(self, instance: Instance) -> None:
        self._target.put(instance)
        super()._replace(instance)

    def _write(self, instance: Instance) -> None:
        try:
            self._target.put(Instance(**{name: getattr(instance, name) for name in PUBLIC}))
        except Exception as error:
            log.error("%r did not store %s: %s", self._target, instance.id, sanitize_line(str(error)))
