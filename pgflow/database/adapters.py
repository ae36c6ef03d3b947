"""Convert values between Python and PostgreSQL with a map of pgflow's own, independent of process and session.

A process may change psycopg's global map (`psycopg.adapters.register_dumper(list, JsonbDumper)`, `set_json_loads`), a
caller may change that of a connection, and a session may have any `DateStyle`, `TimeZone`, `extra_float_digits` or
`client_encoding`. None of that may change what pgflow's statements write or read, so

- `ADAPTERS` is built from psycopg's defaults instead of copied from `psycopg.adapters`, which may be changed already;
- `Cursor` and `AsyncCursor` use it on any connection, and leave the connection's own map alone. psycopg asks its
  context, here the cursor, for the map of each statement (`psycopg.abc.AdaptContext`);
- results come in binary format, which no setting changes: a text one depends on `DateStyle`, for which psycopg has no
  loader unless it is ISO. Times are UTC;
- JSON is read and sent as text: `set_json_loads` and `set_json_dumps` change attributes of psycopg's classes;
- text follows the `client_encoding` of the connection.

Connections of our own have the map, too. A transactional step gets an object of its own on such a session (see `lent`):
there a user's statements run, with psycopg's global map.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Any, TypeAlias

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.postgres import register_default_adapters, register_default_types
from psycopg.pq import Format
from psycopg.rows import tuple_row
from psycopg.types import TypesRegistry
from psycopg.types.array import register_all_arrays

from pgflow.database.arrays import KINDS, ArrayDumper

__all__ = ["ADAPTERS", "AsyncCursor", "Cursor", "Row"]

Row: TypeAlias = tuple[Any, ...]

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's
MICROSECONDS = Struct(">q")
TEXTS = ("text", "varchar", "bpchar", "name", '"char"')


class UtcLoader(Loader):
    """Reads a `timestamptz`. Raises `psycopg.DataError` for one that Python cannot hold, such as infinity."""

    format = Format.BINARY

    def load(self, data: Buffer) -> datetime:
        """Return the time in UTC, whatever the session's `TimeZone` is."""
        (microseconds,) = MICROSECONDS.unpack(data)
        try:
            return EPOCH + timedelta(microseconds=microseconds)
        except OverflowError as error:
            raise psycopg.DataError("a timestamp is outside of the years 1 to 9999") from error


class SqlAsciiTextLoader(Loader):
    """Reads text where `client_encoding` is SQL_ASCII: the server sends it as it is stored, which is UTF-8."""

    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        """Return the text."""
        return str(data, "utf-8")


def _build() -> AdaptersMap:
    types = TypesRegistry()
    register_default_types(types)
    adapters = AdaptersMap(types=types)
    register_default_adapters(adapters)
    register_all_arrays(adapters)
    adapters.register_loader("timestamptz", UtcLoader)
    for kind in KINDS:
        adapters.register_dumper(kind, ArrayDumper)
    return adapters


def _build_for_sql_ascii() -> AdaptersMap:
    adapters = AdaptersMap(ADAPTERS)
    for name in TEXTS:
        adapters.register_loader(name, SqlAsciiTextLoader)
    return adapters


ADAPTERS = _build()
SQL_ASCII_ADAPTERS = _build_for_sql_ascii()  # psycopg gives bytes for text that has no encoding


def _adapters_for(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> AdaptersMap:
    is_encoded = connection.pgconn.parameter_status(b"client_encoding") != b"SQL_ASCII"
    return ADAPTERS if is_encoded else SQL_ASCII_ADAPTERS


class Cursor(psycopg.Cursor[Row]):
    """A cursor for pgflow's statements on any connection; the cursor class of the connection is not used.

    That one may bind parameters on the client, and have a row factory that makes something else of rows than tuples.

        Cursor(conn).execute("select now()", binary=True).fetchone()
    """

    __slots__ = ()

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__(connection, row_factory=tuple_row)

    @property
    def adapters(self) -> AdaptersMap:
        """The map that this cursor's statements use."""
        return _adapters_for(self.connection)


class AsyncCursor(psycopg.AsyncCursor[Row]):
    """`Cursor`, async."""

    __slots__ = ()

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        super().__init__(connection, row_factory=tuple_row)

    @property
    def adapters(self) -> AdaptersMap:
        """The map that this cursor's statements use."""
        return _adapters_for(self.connection)
