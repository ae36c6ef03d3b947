"""Read what a stretch of work costs the database: WAL, commits, rows and CPU, and what it costs the workers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypeVar

from pgflow.cli.bench import machine
from pgflow.database.connect import Connection, connect
from pgflow.database.dsn import compose, parse
from pgflow.database.statement import Statement, run
from pgflow.errors import PgflowError
from pgflow.store import bench
from pgflow.store.bench import Counters

__all__ = ["Cost", "Meter"]

T = TypeVar("T")

FLUSH_SECONDS = 20.0  # for the sessions of a run to end, and to report


@dataclass(frozen=True, slots=True)
class Cost:
    """What each step of a stretch of work cost.

    `wal_bytes` are the whole server's; `commits` the database's, without the meter's own, and `round_trips` the
    workers', as they count them, without heartbeats (None: no worker was there). `inserted`, `updated` and `deleted`
    are rows of pgflow's tables, `in_place` the share of the updated ones that needed no new index entry (HOT), `dead`
    the row versions that an update or a delete has left behind. `server_ms` is CPU of all the server's processes, None
    when they are not on this machine; `worker_ms` that of the worker processes, their start included.
    """

    steps: int
    wal_bytes: float
    commits: float
    round_trips: float | None
    inserted: float
    updated: float
    in_place: float | None
    deleted: float
    dead: float
    server_ms: float | None
    worker_ms: float | None

    @property
    def rows(self) -> float:
        """Rows written, of whatever kind."""
        return self.inserted + self.updated + self.deleted


@dataclass(frozen=True, slots=True)
class Reading:
    spent: Counters
    server_seconds: float | None
    worker_seconds: float


class Meter:
    """Reads before and after: `begin` when nothing runs yet, `end` when all that ran has ended.

    A session reports what it did when it ends; so a reading waits until no session has the application name `name`,
    which all that is measured has to carry. What is asked with `look` in between is taken off again.
    """

    def __init__(self, dsn: str, schema: str, name: str) -> None:
        self._dsn = dsn
        self._named = compose({**parse(dsn), "application_name": name})
        self._schema = schema
        self._name = name
        self._watch: Connection | None = None
        self._own = 0
        self._before: Reading | None = None

    def begin(self) -> None:
        """Read what has been spent before."""
        self._before = self._read()

    def look(self, statement: Statement[T]) -> T:
        """Ask the database something that is not to count."""
        if self._watch is None:
            self._watch = connect(self._named)
            self._own += 1  # to begin a session is a commit, too
        self._own += 1
        return run(self._watch, statement)

    def close(self) -> None:
        """End the session that `look` uses."""
        if self._watch is not None:
            self._watch.close()
        self._watch = None

    def end(self, steps: int, round_trips: int | None = None) -> Cost:
        """Return what was spent since, for each of so many steps."""
        assert self._before is not None  # noqa: S101 -- begin comes first
        before, own = self._before, self._own
        after = self._read()
        spent = {name: getattr(after.spent, name) - getattr(before.spent, name) for name in Counters.__slots__}
        server = _difference(before.server_seconds, after.server_seconds)
        workers = after.worker_seconds - before.worker_seconds
        share = max(1, steps)
        return Cost(
            steps=steps,
            wal_bytes=spent["wal"] / share,
            commits=max(0, spent["commits"] - own) / share,
            round_trips=None if round_trips is None else round_trips / share,
            inserted=spent["inserted"] / share,
            updated=spent["updated"] / share,
            in_place=spent["in_place"] / spent["updated"] if spent["updated"] else None,
            deleted=spent["deleted"] / share,
            dead=(spent["updated"] + spent["deleted"]) / share,
            server_ms=None if server is None else 1000 * server / share,
            worker_ms=None if round_trips is None else 1000 * workers / share,
        )

    def _read(self) -> Reading:
        """Read when all else has reported. This session's own commits are reported after it, to the next reading."""
        self.close()
        own = 1
        with connect(self._dsn) as conn:

            def ask(statement: Statement[T]) -> T:
                nonlocal own
                own += 1
                return run(conn, statement)

            deadline = time.monotonic() + FLUSH_SECONDS
            while ask(bench.sessions(self._schema, self._name)):
                if time.monotonic() > deadline:
                    raise PgflowError(f"sessions of this benchmark did not end in {FLUSH_SECONDS:.0f} s")
                time.sleep(0.02)
            server = machine.local_server(conn.info, ask(bench.backend(self._schema)))
            seconds = None if server is None else server.seconds()
            reading = Reading(ask(bench.cost(self._schema)), seconds, machine.children_seconds())
        self._own = own
        return reading


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
