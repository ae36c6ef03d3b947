"""Set limits of queues, and take places of them from code."""

from __future__ import annotations

from builtins import list as Builtin
from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from pgflow.core.models.queue import Limit, QueueLimits
from pgflow.database import files
from pgflow.database.arrays import Bigints
from pgflow.database.statement import Row, Statement

__all__ = ["TakeResult", "clear", "forget", "list", "release", "renew", "set", "take"]


class TakeResult(NamedTuple):
    """A place, or None and in how many seconds it is worth asking again (None: when one is released)."""

    place: int | None
    seconds: float | None


def set(  # noqa: A001 -- path is name: limit/set.sql
    schema: str,
    queue: str,
    *,
    concurrency: int | None = None,
    key_concurrency: int | None = None,
    rate: float | None = None,
    burst: int | None = None,
    key_rate: float | None = None,
    key_burst: int | None = None,
    key: str | None = None,
    weight: int | None = None,
    is_new: bool = False,
) -> Statement[None]:
    """Set limits of a queue, or of one partition key; None leaves one as it is. Rates are starts per second."""
    params = {
        "queue": queue,
        "concurrency": concurrency,
        "key_concurrency": key_concurrency,
        "rate": rate,
        "burst": burst,
        "key_rate": key_rate,
        "key_burst": key_burst,
        "key": key,
        "weight": weight,
        "is_new": is_new,
    }
    return Statement("limit/set", files.load("queries/limit/set.sql", schema), params, lambda rows: None)


def clear(schema: str, queue: str, key: str | None = None) -> Statement[bool]:
    """Remove the limits of a queue, or of one partition key; returns whether there were any."""
    query = files.load("queries/limit/clear.sql", schema)
    return Statement("limit/clear", query, {"queue": queue, "key": key}, lambda rows: bool(rows[0][0]))


def list(schema: str, queue: str | None = None) -> Statement[Builtin[Limit]]:  # noqa: A001 -- path is name: limit/list.sql
    """Read the limits of all queues, or of one."""
    query = files.load("queries/limit/list.sql", schema)
    return Statement("limit/list", query, {"queue": queue}, lambda rows: [*map(_limit, rows)])


def _limit(row: Row) -> Limit:
    queue, key, concurrency, key_concurrency, rate, burst, key_rate, key_burst, weight, used, declared = row
    limits = QueueLimits(concurrency, key_concurrency, rate, burst or 1, key_rate, key_burst or 1)
    return Limit(queue, key, limits, weight, used, tuple(declared))


def take(
    schema: str, queue: str, *, key: str | None, cost: int, lease: timedelta, holder: str | None = None
) -> Statement[TakeResult]:
    """Take a place of a limit until its lease ends, if one is free now."""
    params = {"queue": queue, "key": key, "cost": cost, "lease": lease.total_seconds(), "holder": holder}
    query = files.load("queries/limit/take.sql", schema)
    return Statement("limit/take", query, params, lambda rows: TakeResult(*rows[0]))


def renew(schema: str, places: Iterable[int], lease: timedelta) -> Statement[Builtin[int]]:
    """Renew the leases of places; returns those that are still held."""
    params = {"places": Bigints(places), "lease": lease.total_seconds()}
    query = files.load("queries/limit/renew.sql", schema)
    return Statement("limit/renew", query, params, lambda rows: [row[0] for row in rows])


def release(schema: str, place: int) -> Statement[bool]:
    """Give a place back; returns whether it was still held."""
    query = files.load("queries/limit/release.sql", schema)
    return Statement("limit/release", query, {"place": place}, lambda rows: bool(rows[0][0]))


def forget(schema: str, limit: int = 1000) -> Statement[bool]:
    """Delete rates whose bucket is full and places whose lease has expired; returns whether there may be more."""
    query = files.load("queries/limit/forget.sql", schema)
    return Statement("limit/forget", query, {"limit": limit}, lambda rows: rows[0][0] >= limit)
