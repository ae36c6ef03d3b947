"""Places of a limit that code takes: `app.limit(…)`."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Generator
from datetime import timedelta
from types import TracebackType
from typing import Any

import psycopg

from pgflow.client.transport import Transport
from pgflow.core.models.queue import check_key, check_limit_name, check_places
from pgflow.core.values.duration import is_duration
from pgflow.core.values.query_args import refuse
from pgflow.errors import LimitReached, PgflowError
from pgflow.jitter import uniform
from pgflow.logs import Logger
from pgflow.process import PerProcess
from pgflow.store import limit
from pgflow.store.limit import TakeResult

__all__ = ["PlaceKeeper", "TakenPlace"]

log = Logger("pgflow.limits")

LEASE = timedelta(seconds=30)
RENEWALS_PER_LEASE = 4
FIRST_WAIT_SECONDS = 0.01  # until a place is asked for again; doubled up to MAX_WAIT_SECONDS
MAX_WAIT_SECONDS = 0.5
FAULTS = (PgflowError, psycopg.Error, OSError)


class TakenPlace:
    """A place of a limit while the `with` or `async with` lasts.

    It waits until a place is free, for `timeout` at most, and raises `LimitReached` after that.
    """

    def __init__(
        self,
        transport: Transport,
        keeper: PlaceKeeper,
        name: str,
        *,
        key: str | int | None,
        cost: int,
        timeout: timedelta | None,
    ) -> None:
        self._transport = transport
        self._keeper = keeper
        self._name = check_limit_name(name)
        self._key = check_key(key)
        self._cost = check_places("cost", cost) or 1
        if timeout is not None and not is_duration(timeout):
            refuse("timeout", timeout, "it must be a positive timedelta")
        self._timeout = timeout
        self._place: int | None = None

    def __enter__(self) -> None:
        for pause in self._pauses():
            time.sleep(pause)
            if self._took(self._transport.send(self._take())):
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        place = self._gone()
        try:
            self._transport.send(limit.release(self._transport.schema, place))
        except FAULTS as fault:
            _report_unreleased(self._name, fault)

    async def __aenter__(self) -> None:
        for pause in self._pauses():
            await asyncio.sleep(pause)
            taking = asyncio.ensure_future(self._transport.asend(self._take()))
            try:
                given = await asyncio.shield(taking)
            except asyncio.CancelledError:  # the answer must not be lost: a place would be taken until its lease ends
                if (lost := (await taking).place) is not None:
                    await self._transport.asend(limit.release(self._transport.schema, lost))
                raise
            if self._took(given):
                return

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        place = self._gone()
        try:
            await asyncio.shield(self._transport.asend(limit.release(self._transport.schema, place)))
        except FAULTS as fault:
            _report_unreleased(self._name, fault)

    def _pauses(self) -> Generator[float]:
        """Yield the seconds to wait before each try. Raises `LimitReached` after the timeout."""
        if self._place is not None:
            raise RuntimeError("this place is taken already: call app.limit(…) for each `with`")
        began, tries = time.monotonic(), 0
        self._seconds: float | None = None
        yield 0.0
        while True:
            tries += 1
            longest = min(MAX_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** min(tries, 10))
            pause = longest * uniform(0.5, 1.0) if self._seconds is None else min(1.0, max(0.001, self._seconds))
            if self._timeout is not None:
                left = self._timeout.total_seconds() - (time.monotonic() - began)
                if left <= 0:
                    where = self._name if self._key is None else f"{self._name}, key {self._key}"
                    raise LimitReached(
                        f"limit {where}: no place was free within {self._timeout.total_seconds():g} s",
                        hint="See who has taken them: select * from pgflow.places",
                    )
                pause = min(pause, left)
            yield pause

    def _take(self) -> Any:
        holder = f"{socket.gethostname()}, pid {os.getpid()}"
        return limit.take(
            self._transport.schema, self._name, key=self._key, cost=self._cost, lease=LEASE, holder=holder
        )

    def _took(self, given: TakeResult) -> bool:
        self._seconds = given.seconds
        if given.place is None:
            return False
        self._place = given.place
        self._keeper.keep(given.place)
        return True

    def _gone(self) -> int:
        place, self._place = self._place, None
        assert place is not None  # noqa: S101 -- `__enter__` has returned
        self._keeper.drop(place)
        return place


def _report_unreleased(name: str, fault: Exception) -> None:
    """Log that a place stays taken: an error here would hide that of the code in the `with`."""
    log.warning("a place of limit %s is free only when its lease ends: %s", name, fault)


class PlaceKeeper:
    """Renews the leases of all places that this process has taken, from one thread, while there are any.

    So code that blocks the event loop keeps its place, and a process that dies loses it when the lease ends.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._process = PerProcess(_Renewing)

    def keep(self, place: int) -> None:
        """Renew the lease of a place from now on."""
        self._process.get().add(place, self._transport)

    def drop(self, place: int) -> None:
        """Stop renewing it."""
        self._process.get().remove(place)


class _Renewing:
    """The places of one process, and the thread that renews them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: set[int] = set()
        self._thread: threading.Thread | None = None

    def add(self, place: int, transport: Transport) -> None:
        with self._lock:
            self._places.add(place)
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, args=[transport], name="pgflow-places", daemon=True)
                self._thread.start()

    def remove(self, place: int) -> None:
        with self._lock:
            self._places.discard(place)

    def _renew(self, transport: Transport) -> None:
        pause = LEASE.total_seconds() / RENEWALS_PER_LEASE
        while True:
            time.sleep(pause)
            with self._lock:
                places = sorted(self._places)
                if not places:
                    self._thread = None
                    return
            try:
                kept = transport.send(limit.renew(transport.schema, places, LEASE))
            except FAULTS as error:
                log.warning("leases of %d places of limits could not be renewed: %s", len(places), error)
                continue
            with self._lock:
                lost = self._places.intersection(set(places) - set(kept))
                self._places -= lost
            if lost:
                log.warning("the leases of %d places of limits have expired: others may have taken them", len(lost))
