"""Exchange prepared statements with the server through libpq itself, for the calls that applications make most often.

A cursor of psycopg costs four times as much as the exchange that it makes, which for a call of one row is a fifth of
all its time. This does only what such a call needs: it binds values of a few types, and it can send a second statement
behind the commit of the first, in one round trip.

The generators run in `conn.wait(…)`, sync or async, as those of psycopg do. They are for connections of our own, in
autocommit mode, outside a transaction, and not behind a pooler, where a prepared statement may be gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import psycopg
from psycopg import generators, pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format

from pgflow.database.adapters import AsyncCursor, Cursor, Row
from pgflow.database.arrays import KINDS, ArrayDumper

__all__ = ["Query", "exchange"]

AnyConnection: TypeAlias = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]
Exchange: TypeAlias = Generator[Any, Any, Sequence[Row]]

PLACEHOLDER = re.compile(r"%\((\w+)\)[sb]")
HAS_ROWS = frozenset({ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK})

# How each type is written as text; the query casts each parameter. Text must not contain NUL, where libpq would end it.
WRITERS: Mapping[type, Callable[[Any], bytes]] = {
    str: str.encode,
    bool: lambda value: b"t" if value else b"f",
    int: lambda value: b"%d" % value,
    float: lambda value: repr(value).encode(),
    datetime: lambda value: value.isoformat().encode(),
}


class Query(NamedTuple):
    """A query with `%(name)s` placeholders, each of which is cast, and its values."""

    text: str
    params: Mapping[str, Any]


class _Prepared(NamedTuple):
    """A query as libpq takes it."""

    name: bytes
    text: bytes
    params: tuple[str, ...]


class _Session:
    """What was prepared on one connection, and how it converts values."""

    def __init__(self, conn: AnyConnection) -> None:
        cursor = Cursor(conn) if isinstance(conn, psycopg.Connection) else AsyncCursor(conn)
        self.prepared: set[bytes] = set()
        self._encoding = conn.info.encoding
        self._transformer = Transformer.from_context(cursor)
        self._arrays = {kind: ArrayDumper(kind, cursor).dump for kind in KINDS}

    def bound(self, prepared: _Prepared, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the arguments of `send_query_prepared`. Raises `psycopg.DataError`."""
        values: list[bytes | None] = []
        formats = []
        for name in prepared.params:
            value = params[name]
            kind = type(value)
            if (dump := self._arrays.get(kind)) is not None:
                values.append(dump(value))
                formats.append(Format.BINARY)
                continue
            formats.append(Format.TEXT)
            if value is None:
                values.append(None)
                continue
            if (write := WRITERS.get(kind)) is None:
                raise psycopg.ProgrammingError(f"{name}: values of type {kind.__name__} are not supported here")
            if b"\0" in (written := write(value)):
                raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
            values.append(written)
        return prepared.name, values, formats, Format.BINARY

    def rows(self, results: Sequence[pq.abc.PGresult]) -> Sequence[Row]:
        """Return the rows of a statement. Raises the error that is among its results, also that of its commit."""
        for each in results:
            if each.status not in HAS_ROWS:
                raise error_from_result(each, encoding=self._encoding)
        (result,) = results
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)


_sessions: WeakKeyDictionary[AnyConnection, _Session] = WeakKeyDictionary()


def exchange(conn: AnyConnection, query: Query, after: Query | None = None) -> Exchange:
    """Run a query in a transaction of its own and return its rows, all in one round trip once it is prepared.

    `after` is run in a transaction of its own that follows, also if the query fails, and its own errors are ignored.
    Raises any `psycopg.Error` of the query; a connection that is lost once its commit was confirmed is not an error.

        rows = conn.wait(exchange(conn, Query("select %(n)s::integer + 1", {"n": 1})))     # [(2,)]
    """
    pgconn = conn.pgconn
    session = _sessions.get(conn)
    if session is None:
        session = _sessions[conn] = _Session(conn)
    prepared = _compiled(query.text)
    yield from _prepare(session, pgconn, prepared)
    bound = session.bound(prepared, query.params)
    if after is None:
        pgconn.send_query_prepared(*bound)
        return session.rows((yield from generators.execute(pgconn)))
    follower = _compiled(after.text)
    yield from _prepare(session, pgconn, follower)
    bound_after = session.bound(follower, after.params)
    pgconn.enter_pipeline_mode()
    results = None
    try:
        pgconn.send_query_prepared(*bound)
        pgconn.pipeline_sync()
        pgconn.send_query_prepared(*bound_after)
        pgconn.pipeline_sync()
        yield from generators.send(pgconn)
        results = yield from _until_sync(pgconn)
        yield from _until_sync(pgconn)
        pgconn.exit_pipeline_mode()
    except BaseException as error:
        pgconn.finish()
        if results is None or not isinstance(error, psycopg.Error):
            raise
    return session.rows(results)


def _prepare(session: _Session, pgconn: pq.abc.PGconn, prepared: _Prepared) -> Generator[Any, Any, None]:
    if prepared.name in session.prepared:
        return
    pgconn.send_prepare(prepared.name, prepared.text)
    session.rows((yield from generators.execute(pgconn)))
    session.prepared.add(prepared.name)


def _until_sync(pgconn: pq.abc.PGconn) -> Generator[Any, Any, list[pq.abc.PGresult]]:
    """Return the results of one transaction of a pipeline; the end of its commit follows them."""
    results: list[pq.abc.PGresult] = []
    while True:
        for each in (yield from generators.fetch_many(pgconn)):
            if each.status == ExecStatus.PIPELINE_SYNC:
                return results
            results.append(each)


@lru_cache(maxsize=256)
def _compiled(text: str) -> _Prepared:
    names = list(dict.fromkeys(PLACEHOLDER.findall(text)))
    numbered = PLACEHOLDER.sub(lambda found: f"${names.index(found[1]) + 1}", text).replace("%%", "%").encode()
    return _Prepared(b"pgflow_" + sha256(numbered).hexdigest()[:24].encode(), numbered, tuple(names))
