"""Stand between clients and PostgreSQL, understand what they say, and let go wrong what `Rule`s ask for.

It has a thread of its own in the harness's process, and any number of *doors*: ports of this machine that all lead to
the same server, so that a rule can be about one worker. Without a rule that concerns a session its bytes go through as
they come, whole messages at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from pgflow.database.dsn import compose, defaults, parse
from tests.torture.wire.active_rules import Faults, Tell
from tests.torture.wire.rule import Fault, Rule
from tests.torture.wire.session import Session, Upstream

__all__ = ["Door", "Proxy", "upstream_of"]

T = TypeVar("T")

PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Door:
    """A port that leads to the server."""

    name: str
    host: str
    port: int

    def through(self, dsn: str) -> str:
        """Return a connection string that goes through this door to the database and as the user that `dsn` names."""
        kept = {key: value for key, value in parse(dsn).items() if key != "hostaddr"}
        # The proxy has to read what is said, so nothing is to be encrypted on the way to it.
        return compose(
            {**kept, "host": self.host, "port": str(self.port), "sslmode": "disable", "gssencmode": "disable"}
        )


def upstream_of(dsn: str) -> Upstream:
    """Return where `dsn` leads, as a proxy takes it: the path of a Unix socket, or a host and a port."""
    params = {**defaults(), **parse(dsn)}
    host, port = params.get("host") or "localhost", params.get("port") or "5432"
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, int(port))


class Proxy:
    """A proxy to the server at `upstream`, for the length of a `with`.

    `tell` hears of each commit point and of each fault that is applied to one, of sessions that are refused and reset,
    and of notifications; it is called in the proxy's thread and must not block. Clients that want to encrypt are told
    that the server cannot, and the server is spoken to in plain text.

        with Proxy(upstream_of(dsn)) as proxy:
            worker = start_worker(proxy.door("w1").through(dsn))
            fault = proxy.inject(Rule("stall", door="w1", role="pgflow:heart"))
            fault.wait(5)
            proxy.heal()
    """

    def __init__(self, upstream: Upstream, *, tell: Tell | None = None) -> None:
        self._upstream = upstream
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._live, name="pgflow-proxy", daemon=True)
        self._faults = Faults(tell)
        self._doors: list[asyncio.Server] = []
        self._sessions: set[Session] = set()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all sessions and close all doors."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_SECONDS)

    @property
    def upstream(self) -> Upstream:
        """Where new sessions are led to. It can be set, for a failover; sessions that live stay where they are."""
        return self._upstream

    @upstream.setter
    def upstream(self, upstream: Upstream) -> None:
        self._upstream = upstream

    @property
    def points(self) -> Counter[tuple[str, str]]:
        """How many commit points have come by, by door and role."""
        return self._do(lambda: Counter(self._faults.points))

    @property
    def applied(self) -> Counter[tuple[str, str, str]]:
        """How often faults have been applied, by kind, door and role."""
        return self._do(lambda: Counter(self._faults.applied))

    def door(self, name: str, *, host: str = "127.0.0.1", port: int = 0) -> Door:
        """Open a door, at a free port unless one is given."""

        async def open_door() -> Door:
            server = await asyncio.start_server(lambda r, w: self._enter(name, r, w), host, port)
            self._doors.append(server)
            return Door(name, host, server.sockets[0].getsockname()[1])

        return asyncio.run_coroutine_threadsafe(open_door(), self._loop).result(PATIENCE_SECONDS)

    def inject(self, rule: Rule) -> Fault:
        """Let a rule hold from now on, beside those that hold already."""
        fault = Fault(rule)
        self._do(lambda: self._faults.add(fault))
        return fault

    def heal(self, fault: Fault | None = None) -> None:
        """Let a fault, or all of them, hold no longer; what was held up goes on, in order."""
        self._do(lambda: self._faults.remove(fault))

    def reset(self, door: str | None = None, role: str | None = None) -> int:
        """Reset the connections of all sessions, or of those of a door and a role; returns how many there were."""

        def cut() -> int:
            struck = self._chosen(door, role)
            for session in struck:
                self._faults.reset(session.party)
                session.cut()
            return len(struck)

        return self._do(cut)

    def sessions(self, door: str | None = None, role: str | None = None) -> int:
        """Count the sessions that have said who they are, or those of a door and a role."""
        return self._do(lambda: len(self._chosen(door, role)))

    # -- in the proxy's thread

    def _chosen(self, door: str | None, role: str | None) -> list[Session]:
        return [
            each
            for each in self._sessions
            if each.has_begun and door in (None, each.party.door) and role in (None, each.party.role)
        ]

    def _do(self, what: Callable[[], T]) -> T:
        """Do something in the proxy's thread and return what it comes to."""
        done: Future[T] = Future()

        def work() -> None:
            try:
                done.set_result(what())
            except BaseException as error:  # raised again where it is waited for
                done.set_exception(error)

        if not self._thread.is_alive():
            return what()
        self._loop.call_soon_threadsafe(work)
        return done.result(PATIENCE_SECONDS)

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._close())
            self._loop.close()

    async def _close(self) -> None:
        for server in self._doors:
            server.close()
        self._faults.remove(None)
        for session in self._sessions:
            session.cut()
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)
        await asyncio.sleep(0)  # in which the connections learn that they are closed

    async def _enter(self, door: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(self._faults, self._upstream, door)
        self._sessions.add(session)
        try:
            await session.run(reader, writer)
        finally:
            self._sessions.discard(session)
