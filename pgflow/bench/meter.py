"""Measure the cost of a run: WAL, commits, rows and CPU of the database, and CPU of the workers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypeVar

from pgflow.bench import machine
from pgflow.database.connect import Connection, connect
from pgflow.database.dsn import compose, parse
from pgflow.database.statement import Statement, run
from pgflow.errors import PgflowError
from pgflow.store import bench
from pgflow.store.bench import Counters

__all__ = ["Cost", "Meter"]

T = TypeVar("T")

FLUSH_SECONDS = 20.0  # until the sessions of a run have ended and reported their statistics


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of each step of a run.

    `wal_bytes` counts the whole server; `commits` the database, without the meter's own. `round_trips` are counted by
    the workers, without heartbeats (None: there was no worker). `inserted`, `updated` and `deleted` are rows of
    pgflow's tables, `in_place` is the share of HOT updates, which need no new index entry, and `dead` counts the row
    versions that updates and deletes left behind. `server_ms` is CPU of all server processes, None when they are not on
    this machine; `worker_ms` is CPU of the worker processes, including their start.
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
        """Rows inserted, updated and deleted."""
        return self.inserted + self.updated + self.deleted


@dataclass(frozen=True, slots=True)
class Reading:
    counters: Counters
    server_seconds: float | None
    worker_seconds: float


class Meter:
    """Reads the counters before and after a run: call `begin` before the first session, `end` after the last one.

    A session reports its statistics when it ends. So a reading waits until no session has the application name `name`,
    which every measured session must use. The commits of `query` are subtracted.
    """

    def __init__(self, dsn: str, schema: str, name: str) -> None:
        self._dsn = dsn
        self._named = compose({**parse(dsn), "application_name": name})
        self._schema = schema
        self._name = name
        self._conn: Connection | None = None
        self._own_commits = 0
        self._before: Reading | None = None

    def begin(self) -> None:
        """Read the counters before the run."""
        self._before = self._read()

    def query(self, statement: Statement[T]) -> T:
        """Run a statement whose cost does not count."""
        if self._conn is None:
            self._conn = connect(self._named)
            self._own_commits += 1  # starting a session is a commit, too
        self._own_commits += 1
        return run(self._conn, statement)

    def close(self) -> None:
        """Close the session that `query` uses."""
        if self._conn is not None:
            self._conn.close()
        self._conn = None

    def end(self, steps: int, round_trips: int | None = None) -> Cost:
        """Return the cost since `begin`, for each of so many steps."""
        assert self._before is not None  # noqa: S101 -- begin comes first
        before, own = self._before, self._own_commits
        after = self._read()
        spent = {name: getattr(after.counters, name) - getattr(before.counters, name) for name in Counters.__slots__}
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
        """Read the counters once all measured sessions have reported. The next reading includes our own commits."""
        self.close()
        own = 1
        with connect(self._dsn) as conn:

            def read(statement: Statement[T]) -> T:
                nonlocal own
                own += 1
                return run(conn, statement)

            deadline = time.monotonic() + FLUSH_SECONDS
            while read(bench.sessions(self._schema, self._name)):
                if time.monotonic() > deadline:
                    raise PgflowError(f"sessions of this benchmark did not end within {FLUSH_SECONDS:.0f} s")
                time.sleep(0.02)
            server = machine.local_server(conn.info, read(bench.backend(self._schema)))
            seconds = None if server is None else server.seconds()
            reading = Reading(read(bench.cost(self._schema)), seconds, machine.children_seconds())
        self._own_commits = own
        return reading


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
