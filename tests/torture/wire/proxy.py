"""A proxy between clients and PostgreSQL that parses the protocol and applies `Rule`s.

It runs in its own thread of the harness, and listens on any number of *doors*: local ports that all lead to the same
server, so that a rule can affect one worker. Without a matching rule, whole messages are forwarded as they arrive.
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
from tests.torture.wire.active_rules import ActiveRules, Notify
from tests.torture.wire.rule import ActiveRule, Rule
from tests.torture.wire.session import Session, Upstream

__all__ = ["Door", "Proxy", "upstream_of"]

T = TypeVar("T")

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Door:
    """A port that leads to the server."""

    name: str
    host: str
    port: int

    def through(self, dsn: str) -> str:
        """Return a connection string that goes through this door to the database and as the user that `dsn` names."""
        kept = {key: value for key, value in parse(dsn).items() if key != "hostaddr"}
        # The proxy must read the messages, so they must not be encrypted.
        return compose(
            {**kept, "host": self.host, "port": str(self.port), "sslmode": "disable", "gssencmode": "disable"}
        )


def upstream_of(dsn: str) -> Upstream:
    """Return the server of `dsn` for a proxy: the path of a Unix socket, or a host and a port."""
    params = {**defaults(), **parse(dsn)}
    host, port = params.get("host") or "localhost", params.get("port") or "5432"
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, int(port))


class Proxy:
    """A proxy to the server at `upstream`, as a context manager.

    `notify` is called, in the proxy's thread, with each commit point, lost commit or reply, refused or reset session
    and changed notification; it must not block. Requests for encryption are declined, and the connection to the server
    is unencrypted.

        with Proxy(upstream_of(dsn)) as proxy:
            worker = start_worker(proxy.door("w1").through(dsn))
            fault = proxy.inject(Rule("stall", door="w1", role="pgflow:heart"))
            fault.wait(5)
            proxy.heal()
    """

    def __init__(self, upstream: Upstream, *, notify: Notify | None = None) -> None:
        self._upstream = upstream
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="pgflow-proxy", daemon=True)
        self._faults = ActiveRules(notify)
        self._doors: list[asyncio.Server] = []
        self._sessions: set[Session] = set()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all sessions and doors."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_SECONDS)

    @property
    def upstream(self) -> Upstream:
        """The server of new sessions. Set it after a failover; existing sessions are not moved."""
        return self._upstream

    @upstream.setter
    def upstream(self, upstream: Upstream) -> None:
        self._upstream = upstream

    @property
    def points(self) -> Counter[tuple[str, str]]:
        """The number of commit points so far, by door and role."""
        return self._do(lambda: Counter(self._faults.points))

    @property
    def applied(self) -> Counter[tuple[str, str, str]]:
        """How often rules have been applied, by kind, door and role."""
        return self._do(lambda: Counter(self._faults.applied))

    def door(self, name: str, *, host: str = "127.0.0.1", port: int = 0) -> Door:
        """Open a door, at a free port unless one is given."""

        async def open_door() -> Door:
            server = await asyncio.start_server(lambda r, w: self._enter(name, r, w), host, port)
            self._doors.append(server)
            return Door(name, host, server.sockets[0].getsockname()[1])

        return asyncio.run_coroutine_threadsafe(open_door(), self._loop).result(TIMEOUT_SECONDS)

    def inject(self, rule: Rule) -> ActiveRule:
        """Activate a rule, in addition to the active ones."""
        fault = ActiveRule(rule)
        self._do(lambda: self._faults.add(fault))
        return fault

    def heal(self, fault: ActiveRule | None = None) -> None:
        """Deactivate a rule, or all of them; delayed data continues, in order."""
        self._do(lambda: self._faults.remove(fault))

    def reset(self, door: str | None = None, role: str | None = None) -> int:
        """Reset the connections of all sessions, or of those of a door and role; returns how many there were."""

        def cut() -> int:
            chosen = self._chosen(door, role)
            for session in chosen:
                self._faults.reset(session.info)
                session.cut()
            return len(chosen)

        return self._do(cut)

    def sessions(self, door: str | None = None, role: str | None = None) -> int:
        """Count the sessions that have sent their startup message, or those of a door and role."""
        return self._do(lambda: len(self._chosen(door, role)))

    # -- in the proxy's thread

    def _chosen(self, door: str | None, role: str | None) -> list[Session]:
        return [
            each
            for each in self._sessions
            if each.has_begun and door in (None, each.info.door) and role in (None, each.info.role)
        ]

    def _do(self, what: Callable[[], T]) -> T:
        """Run a function in the proxy's thread and return its result."""
        done: Future[T] = Future()

        def work() -> None:
            try:
                done.set_result(what())
            except BaseException as error:  # raised again in the waiting thread
                done.set_exception(error)

        if not self._thread.is_alive():
            return what()
        self._loop.call_soon_threadsafe(work)
        return done.result(TIMEOUT_SECONDS)

    def _run(self) -> None:
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
            await asyncio.wait(tasks, timeout=TIMEOUT_SECONDS)
        await asyncio.sleep(0)  # lets the connections process their closing

    async def _enter(self, door: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(self._faults, self._upstream, door)
        self._sessions.add(session)
        try:
            await session.run(reader, writer)
        finally:
            self._sessions.discard(session)
