"""What people do to a database with a connection of their own: hold a lock, forget a transaction, take all connections.

Each is done by `apply()` and undone by `heal()`; either may be called when it is done already. A connection that breaks
meanwhile ends it too, and a process that dies takes its connections along, so nothing is ever left behind.
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
BEHIND = 20  # values that a sequence gives out again


class Held:
    """A transaction that stays open with what these statements took, on a connection of its own."""

    def __init__(self, dsn: str, *statements: sql.SQL | sql.Composed) -> None:
        self._dsn = dsn
        self._statements = statements
        self._conn: psycopg.Connection[Any] | None = None

    def apply(self) -> None:
        """Open it. Raises `psycopg.Error` when the server does not let us."""
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
        """End it."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()


class ForgottenTransaction(Held):
    """A transaction that somebody has left open: what is deleted or updated since cannot be cleared away.

    It reads one snapshot, and holds no lock that a write would wait for.
    """

    def __init__(self, dsn: str) -> None:
        # The snapshot is taken by the first statement.
        super().__init__(dsn, sql.SQL("begin isolation level repeatable read"), sql.SQL("select pg_current_snapshot()"))


class TableLock(Held):
    """A lock on a whole table, as `alter table` by hand takes it: nobody reads or writes the table.

    `apply` waits up to ten seconds for it, and whoever comes meanwhile queues up behind.
    """

    def __init__(self, dsn: str, table: str, schema: str = SCHEMA) -> None:
        take = sql.SQL("lock table {} in access exclusive mode").format(sql.Identifier(schema, table))
        super().__init__(dsn, sql.SQL("begin"), sql.SQL("set local lock_timeout = '10s'"), take)


class Exhaustion:
    """All connections that the role of `dsn` can have are taken, and each that becomes free is taken, too.

    The few that a server keeps for superusers stay free, unless `dsn` is one's. Who is connected stays so.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._ended = threading.Event()
        self._full = threading.Event()
        self._taker: threading.Thread | None = None

    def apply(self) -> None:
        """Take them. Raises `DatabaseError` when there is no end to them within 30 seconds."""
        if self._taker is None:
            self._ended.clear()
            self._full.clear()
            self._taker = threading.Thread(target=self._take, name="torture-exhaustion", daemon=True)
            self._taker.start()
            if not self._full.wait(TAKEN_SECONDS):
                self.heal()
                raise DatabaseError("the connections of the server do not come to an end")

    def heal(self) -> None:
        """Give them back."""
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
                except psycopg.OperationalError:  # no more to be had, or no server
                    self._full.set()
                    self._ended.wait(RETAKE_SECONDS)
        finally:
            for conn in taken:
                with suppress(psycopg.Error):
                    conn.close()


class SequencesBehind:
    """The sequences of all identity columns are set back, as on a logical replica that has been promoted.

    `heal` sets each to the highest value that was ever given out, so none is used for two rows.
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
        """Set them to where they were, or to where they are where that is further."""
        with _connect(self._dsn) as conn, conn.transaction():
            for table, highest in self._highest.items():
                column = IDENTITY[table]
                self._set(conn, table, column, max(1, highest, self._last(conn, table, column)))
        self._highest.clear()

    def _last(self, conn: psycopg.Connection[Any], table: str, column: str) -> int:
        """The highest value that is known of: the sequence may have been set back, and rows may have gone."""
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
