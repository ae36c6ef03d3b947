"""Convert values between Python and PostgreSQL with pgflow's own adapters, independent of process and session.

A process may change psycopg's global adapters (`psycopg.adapters.register_dumper(list, JsonbDumper)`,
`set_json_loads`), a caller may change those of a connection, and a session may have any `DateStyle`, `TimeZone`,
`extra_float_digits` or `client_encoding`. None of that may change what pgflow's statements write or read, so

- `ADAPTERS` is built from psycopg's defaults, not copied from `psycopg.adapters`, which may have been changed;
- `Cursor` and `AsyncCursor` use it on any connection and do not touch the connection's own adapters: psycopg takes the
  adapters of a statement from its context, here the cursor (`psycopg.abc.AdaptContext`);
- results use the binary format, which no setting changes: text format depends on `DateStyle`, and psycopg can only load
  ISO. Times are UTC;
- JSON is read and sent as text: `set_json_loads` and `set_json_dumps` change attributes of psycopg's classes;
- text uses the `client_encoding` of the connection.

pgflow's own connections have these adapters, too. A transactional step gets a separate connection object on the same
session (see `pgflow.worker.step_session`), where the user's statements run with psycopg's global adapters.
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
    """Loads a `timestamptz`. Raises `psycopg.DataError` for one that Python cannot represent, such as infinity."""

    format = Format.BINARY

    def load(self, data: Buffer) -> datetime:
        """Return the time in UTC, for any `TimeZone` of the session."""
        (microseconds,) = MICROSECONDS.unpack(data)
        try:
            return EPOCH + timedelta(microseconds=microseconds)
        except OverflowError as error:
            raise psycopg.DataError("a timestamp is outside the years 1 to 9999") from error


class SqlAsciiTextLoader(Loader):
    """Loads text when `client_encoding` is SQL_ASCII: the server sends it as stored, in UTF-8."""

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
SQL_ASCII_ADAPTERS = _build_for_sql_ascii()  # psycopg loads text without an encoding as bytes


def _adapters_for(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> AdaptersMap:
    is_encoded = connection.pgconn.parameter_status(b"client_encoding") != b"SQL_ASCII"
    return ADAPTERS if is_encoded else SQL_ASCII_ADAPTERS


class Cursor(psycopg.Cursor[Row]):
    """A cursor for pgflow's statements on any connection, in place of the connection's cursor class.

    That class may bind parameters on the client, and its row factory may not produce tuples.

        Cursor(conn).execute("select now()", binary=True).fetchone()
    """

    __slots__ = ()

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__(connection, row_factory=tuple_row)

    @property
    def adapters(self) -> AdaptersMap:
        """The adapters of this cursor's statements."""
        return _adapters_for(self.connection)


class AsyncCursor(psycopg.AsyncCursor[Row]):
    """`Cursor`, async."""

    __slots__ = ()

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        super().__init__(connection, row_factory=tuple_row)

    @property
    def adapters(self) -> AdaptersMap:
        """The adapters of this cursor's statements."""
        return _adapters_for(self.connection)
