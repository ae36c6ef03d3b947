"""Faults that hold a resource of the database: a table lock, an open transaction, all connections, sequences.

`apply()` and `heal()` are idempotent. All but the sequences end with their connections, so nothing remains when this
process dies.
"""

import threading
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import sql

from pgflow.database.files import SCHEMA
from pgflow.database.sqlstate import IDENTITY
from pgflow.errors import DatabaseError

__all__ = ["Exhaustion", "ForgottenTransaction", "SequencesBehind", "TableLock"]

RETAKE_SECONDS = 0.02
TAKEN_SECONDS = 30.0
APPLICATION = "pgflow torture"
BEHIND = 20  # values by which sequences are set back


class Held:
    """A transaction that stays open and holds what its statements acquired."""

    def __init__(self, dsn: str, *statements: sql.SQL | sql.Composed) -> None:
        self._dsn = dsn
        self._statements = statements
        self._conn: psycopg.Connection[Any] | None = None

    def apply(self) -> None:
        """Open it. Raises `psycopg.Error` when the server refuses."""
        if self._conn is None:
            conn = _connect(self._dsn)
            try:
                for statement in self._statements:
                    conn.execute(statement)
            except psycopg.Error:
                conn.close()
                raise
            self._conn = conn

    def heal(self) -> None:
        """Close it."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()


class ForgottenTransaction(Held):
    """An idle transaction: vacuum cannot remove rows that were deleted or updated after it began.

    It has a snapshot, and no lock that a write waits for.
    """

    def __init__(self, dsn: str) -> None:
        # The snapshot is taken by the first statement.
        super().__init__(dsn, sql.SQL("begin isolation level repeatable read"), sql.SQL("select pg_current_snapshot()"))


class TableLock(Held):
    """An exclusive table lock, like that of a manual `alter table`: it blocks all reads and writes.

    `apply` waits up to ten seconds for it, and later sessions queue behind it.
    """

    def __init__(self, dsn: str, table: str, schema: str = SCHEMA) -> None:
        take = sql.SQL("lock table {} in access exclusive mode").format(sql.Identifier(schema, table))
        super().__init__(dsn, sql.SQL("begin"), sql.SQL("set local lock_timeout = '10s'"), take)


class Exhaustion:
    """Opens all connections that the role of `dsn` can open, and each one that becomes free.

    Connections reserved for superusers stay free, unless `dsn` is a superuser's. Existing sessions stay connected.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._ended = threading.Event()
        self._full = threading.Event()
        self._taker: threading.Thread | None = None

    def apply(self) -> None:
        """Open them. Raises `DatabaseError` when the server still accepts connections after 30 seconds."""
        if self._taker is None:
            self._ended.clear()
            self._full.clear()
            self._taker = threading.Thread(target=self._take, name="torture-exhaustion", daemon=True)
            self._taker.start()
            if not self._full.wait(TAKEN_SECONDS):
                self.heal()
                raise DatabaseError("the server still accepts connections")

    def heal(self) -> None:
        """Close them."""
        taker, self._taker = self._taker, None
        if taker is not None:
            self._ended.set()
            taker.join()

    def _take(self) -> None:
        taken: list[psycopg.Connection[Any]] = []
        try:
            while not self._ended.is_set():
                try:
                    taken.append(_connect(self._dsn))
                except psycopg.OperationalError:  # no connection is free, or no server
                    self._full.set()
                    self._ended.wait(RETAKE_SECONDS)
        finally:
            for conn in taken:
                with suppress(psycopg.Error):
                    conn.close()


class SequencesBehind:
    """Sets the sequences of all identity columns back, as on a promoted logical replica.

    `heal` sets each to the highest value that it ever gave out, so no value is used twice.
    """

    def __init__(self, dsn: str, schema: str = SCHEMA) -> None:
        self._dsn = dsn
        self._schema = schema
        self._highest: dict[str, int] = {}

    def apply(self) -> None:
        """Set them back. Raises `psycopg.Error` when the server cannot be reached."""
        with _connect(self._dsn) as conn, conn.transaction():
            for table, column in IDENTITY.items():
                last = self._last(conn, table, column)
                self._highest[table] = max(last, self._highest.get(table, 0))
                self._set(conn, table, column, max(1, last - BEHIND))

    def heal(self) -> None:
        """Set them to their earlier or their current value, whichever is higher."""
        with _connect(self._dsn) as conn, conn.transaction():
            for table, highest in self._highest.items():
                column = IDENTITY[table]
                self._set(conn, table, column, max(1, highest, self._last(conn, table, column)))
        self._highest.clear()

    def _last(self, conn: psycopg.Connection[Any], table: str, column: str) -> int:
        """Return the highest known value: the sequence may have been set back, and rows may have been deleted."""
        last = sql.SQL(
            "select greatest(max({column}), pg_sequence_last_value(pg_get_serial_sequence({name}, {text})::regclass), "
            "0) from {table}"
        ).format(**self._names(table, column))
        return int(conn.execute(last).fetchall()[0][0])

    def _set(self, conn: psycopg.Connection[Any], table: str, column: str, value: int) -> None:
        put = sql.SQL("select setval(pg_get_serial_sequence({name}, {text}), {value})")
        conn.execute(put.format(**self._names(table, column), value=sql.Literal(value)))

    def _names(self, table: str, column: str) -> dict[str, sql.Composable]:
        return {
            "table": sql.Identifier(self._schema, table),
            "name": sql.Literal(f"{self._schema}.{table}"),
            "column": sql.Identifier(column),
            "text": sql.Literal(column),
        }


def _connect(dsn: str) -> psycopg.Connection[Any]:
    return psycopg.connect(dsn, autocommit=True, connect_timeout=5, application_name=APPLICATION)
