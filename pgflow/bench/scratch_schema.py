"""Create a schema for a benchmark, marked as such, and drop it again. No other schema is ever dropped."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from psycopg import sql

from pgflow.database.connect import Connection, connect
from pgflow.database.dsn import compose, parse
from pgflow.database.statement import run
from pgflow.errors import Conflict, SchemaForeign
from pgflow.migrations import migrate
from pgflow.store import bench

__all__ = ["MARK", "ScratchSchema"]

MARK = "made by a pgflow benchmark, and dropped by the next"  # the comment that marks the schema


class ScratchSchema:
    """A schema that exists inside a `with` block; `recreate` gives it new, empty tables.

    An existing schema of that name is reused only if it carries the mark: it is left over from a killed benchmark.
    Raises `SchemaForeign` for any other, and `Conflict` while another benchmark uses it.

        with ScratchSchema(dsn, "pgflow_bench") as scratch:
            scratch.recreate()
    """

    def __init__(self, dsn: str, name: str) -> None:
        self.name = name
        self._dsn = dsn

    def __enter__(self) -> Self:
        # Stays open to hold the lock. Its own application name keeps it out of the wait for the measured sessions.
        self._holder = connect(compose({**parse(self._dsn), "application_name": "pgflow:trial"}), "migrate")
        try:
            if not run(self._holder, bench.lock_schema(self.name)):
                raise Conflict(
                    f'another benchmark runs in schema "{self.name}"',
                    hint="Wait until it ends, or use another schema: --schema NAME.",
                )
            self._refuse_foreign(self._holder)
        except BaseException:
            self._holder.close()
            raise
        return self

    def recreate(self) -> None:
        """Drop the schema with all its contents and install pgflow's tables again."""
        identifier = sql.Identifier(self.name)
        with connect(self._dsn, "migrate") as conn:
            self._drop(conn)
            with conn.transaction():
                conn.execute(sql.SQL("create schema {}").format(identifier))
                conn.execute(sql.SQL("comment on schema {} is {}").format(identifier, sql.Literal(MARK)))
            migrate.up(conn, self.name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._drop(self._holder)
        finally:
            self._holder.close()

    def _drop(self, conn: Connection) -> None:
        self._refuse_foreign(conn)  # check again: another session may have created one since
        conn.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(self.name)))

    def _refuse_foreign(self, conn: Connection) -> None:
        if any(comment != MARK for comment in run(conn, bench.schema_comment(self.name))):
            raise SchemaForeign(
                f'schema "{self.name}" was not created by a benchmark, so a benchmark may not drop it',
                hint="Use a schema that does not exist: --schema NAME.",
            )
