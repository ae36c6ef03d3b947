"""Limits of queues and partition keys: `app.limits`."""

from __future__ import annotations

import builtins
from typing import Any, TypedDict, Unpack

from pgflow.client.backend import Backend
from pgflow.client.queue_commands import ClearLimit, ListLimits, SetLimit
from pgflow.core.models.queue import Limit, Rate, check_key, check_limit_name, check_places
from pgflow.core.values.names import check_options
from pgflow.core.values.query_args import refuse
from pgflow.errors import InvalidValue

__all__ = ["LimitOptions", "Limits"]

MAX_WEIGHT = 32_767


class LimitOptions(TypedDict, total=False):
    """Limits over all workers. One that is not given, or None, stays as it is; `clear` removes them.

    - `concurrency`: how many jobs of the queue, or with `key` of that partition key, run at once.
    - `rate`: how many may start in a period.
    - `key_concurrency`, `key_rate`: the same for each partition key.
    - `key`: set the `concurrency` and `weight` of this partition key alone; `weight` is how many of its jobs are taken
      per turn of the keys.
    - `is_new`: allow a name that no queue has, for places that only code takes: `app.limit(…)`.
    """

    concurrency: int | None
    rate: Rate | None
    key_concurrency: int | None
    key_rate: Rate | None
    key: str | int | None
    weight: int | None
    is_new: bool


class Limits:
    """Set and clear limits, which hold for all workers together from the next claim on.

    Lowered limits stop claims until enough of what runs has ended. Raises `InvalidValue` for a limit below 1 and other
    values that make no sense, `UnknownQueue` for a queue that is not in use.

        app.limits.set("mail", concurrency=5, rate=Rate(100, per=timedelta(minutes=1), burst=20))
        app.limits.set("mail", key_concurrency=1)               # one at a time for each partition key
        app.limits.set("mail", key="tenant-7", concurrency=3, weight=2)
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def set(self, queue: str, *, conn: Any = None, **options: Unpack[LimitOptions]) -> None:
        """Set limits of a queue, or (`key`) of one partition key: see `LimitOptions`."""
        self._backend.execute(set_limit(queue, options), conn)

    async def aset(self, queue: str, *, conn: Any = None, **options: Unpack[LimitOptions]) -> None:
        """`set`, async."""
        await self._backend.aexecute(set_limit(queue, options), conn)

    def clear(self, queue: str, *, key: str | int | None = None, conn: Any = None) -> bool:
        """Remove the limits of a queue, those of its keys included, or of one key; returns whether there were any."""
        return self._backend.execute(ClearLimit(check_limit_name(queue), check_key(key)), conn)

    async def aclear(self, queue: str, *, key: str | int | None = None, conn: Any = None) -> bool:
        """`clear`, async."""
        return await self._backend.aexecute(ClearLimit(check_limit_name(queue), check_key(key)), conn)

    def list(self, *, conn: Any = None) -> builtins.list[Limit]:
        """Read all limits, with how many places are taken now."""
        return self._backend.execute(ListLimits(), conn)

    async def alist(self, *, conn: Any = None) -> builtins.list[Limit]:
        """`list`, async."""
        return await self._backend.aexecute(ListLimits(), conn)


def set_limit(queue: str, options: LimitOptions) -> SetLimit:
    """Return the command for options. Raises `InvalidValue` that names the option."""
    check_options("option", options, LimitOptions)
    key, rate, key_rate = check_key(options.get("key")), _rate("rate", options), _rate("key_rate", options)
    command = SetLimit(
        check_limit_name(queue),
        concurrency=check_places("concurrency", options.get("concurrency")),
        key_concurrency=check_places("key_concurrency", options.get("key_concurrency")),
        rate=None if rate is None else rate.per_second,
        burst=None if rate is None else rate.burst,
        key_rate=None if key_rate is None else key_rate.per_second,
        key_burst=None if key_rate is None else key_rate.burst,
        key=key,
        weight=check_places("weight", options.get("weight"), most=MAX_WEIGHT),
        is_new=options.get("is_new", False),
    )
    if command.weight is not None and key is None:
        raise InvalidValue(f"queue {queue}: a weight belongs to a partition key", hint="Give the key, too: key=….")
    if key is not None and (command.key_concurrency or rate or key_rate):
        raise InvalidValue(
            f"queue {queue}: a key has a concurrency and a weight of its own, and nothing else",
            hint="Set key_concurrency, rate and key_rate for the queue, without a key.",
        )
    if not (command.concurrency or command.key_concurrency or rate or key_rate or command.weight):
        raise InvalidValue(
            f"queue {queue}: no limit given", hint="Give a concurrency, a key_concurrency, a rate or a key_rate."
        )
    return command


def _rate(name: str, options: LimitOptions) -> Rate | None:
    given: Any = options.get(name)
    if given is not None and not isinstance(given, Rate):
        refuse(name, given, "it must be a Rate", "Rate(100, per=timedelta(minutes=1), burst=20)")
    return None if given is None else Rate(given.count, given.per, given.burst)
