"""The workers: those that are alive, and those whose lease has expired."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from pgflow.core.models.overview import WorkerInfo
from pgflow.store import worker
from pgflow.web.routing.page import Model, Nav, NoParams, Page, View

__all__ = ["PAGE", "Workers"]


class WorkerRow(BaseModel):
    """A worker process. `running` jobs are counted up to 10,001; `state` is alive, lost (it holds jobs) or gone."""

    id: str
    node: str
    pid: int
    version: str
    queues: tuple[str, ...]
    started_at: datetime
    lease_expires_at: datetime | None
    state: str
    running: int

    @property
    def name(self) -> str:
        """Its host and process."""
        return f"{self.node}:{self.pid}"


class Workers(Model):
    """All workers that are remembered, the newest first."""

    rows: tuple[WorkerRow, ...]
    alive: int
    lost: int
    versions: dict[str, int]


async def load(view: View[NoParams]) -> Workers:
    """Read the workers."""
    rows = [_row(each) for each in await view.read(worker.list(view.schema, only_alive=False))]
    rows.sort(key=lambda row: ("lost", "alive", "gone").index(row.state))
    versions: dict[str, int] = {}
    for row in rows:
        if row.state == "alive":
            versions[row.version] = versions.get(row.version, 0) + 1
    return Workers(
        rows=tuple(rows),
        alive=sum(row.state == "alive" for row in rows),
        lost=sum(row.state == "lost" for row in rows),
        versions=versions,
    )


def _row(each: WorkerInfo) -> WorkerRow:
    return WorkerRow(
        id=str(each.id),
        node=each.node,
        pid=each.pid,
        version=each.version,
        queues=each.queues,
        started_at=each.started_at,
        lease_expires_at=each.lease_expires_at,
        state="alive" if each.is_alive else "lost" if each.running else "gone",
        running=each.running,
    )


PAGE = Page("workers", "/workers", "Workers", Workers, load, nav=Nav("Workers", "k", 7))
