"""The limits that are set: of queues, and of single partition keys."""

from __future__ import annotations

from pydantic import BaseModel

from pgflow.core.models.queue import Limit
from pgflow.store import limit, queue
from pgflow.web.pages.queues import LimitSet, limit_set
from pgflow.web.routing.page import Model, NoParams, Page, View

__all__ = ["PAGE", "Limits"]


class LimitRow(BaseModel):
    """Limits of a queue, or (`key`) the exceptions of one partition key. `used` places are taken now."""

    queue: str
    key: str | None
    limits: LimitSet
    weight: int | None
    used: int


class Limits(Model):
    """All limits, by queue; `queues` are the names of the queues in use."""

    rows: tuple[LimitRow, ...]
    queues: tuple[str, ...]


async def load(view: View[NoParams]) -> Limits:
    """Read the limits."""
    found = await view.read(limit.list(view.schema))
    names = tuple(each.name for each in await view.read(queue.list(view.schema)))
    return Limits(rows=tuple(map(_row, found)), queues=names)


def _row(each: Limit) -> LimitRow:
    return LimitRow(
        queue=each.queue, key=each.key, limits=limit_set(each.limits), weight=each.weight, used=int(each.used)
    )


PAGE = Page("queues.limits", "/limits", "Limits", Limits, load)
