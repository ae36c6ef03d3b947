"""Have a schema to try things out in: made, marked as ours, and dropped again; nobody else's is ever touched."""

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

MARK = "made by a pgflow benchmark, and dropped by the next"  # the comment by which it is known


class ScratchSchema:
    """A schema that exists for the length of a `with`; `renew` gives it new, empty tables.

    A schema of that name is taken over only when it carries our mark: one that a benchmark left behind which was
    killed. Raises `SchemaForeign` for any other, `Conflict` while another benchmark uses it.

        with ScratchSchema(dsn, "pgflow_bench") as trial:
            trial.renew()
    """

    def __init__(self, dsn: str, name: str) -> None:
        self.name = name
        self._dsn = dsn

    def __enter__(self) -> Self:
        # Stays open to hold the lock, under a name of its own: whoever waits for all others to end leaves it out.
        self._holder = connect(compose({**parse(self._dsn), "application_name": "pgflow:trial"}), "migrate")
        try:
            if not run(self._holder, bench.hold(self.name)):
                raise Conflict(
                    f'another benchmark runs in schema "{self.name}"',
                    hint="Wait for its end, or name another: --schema NAME.",
                )
            self._refuse_foreign(self._holder)
        except BaseException:
            self._holder.close()
            raise
        return self

    def renew(self) -> None:
        """Drop the schema with all that is in it and install pgflow's tables anew."""
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
        self._refuse_foreign(conn)  # again: somebody may have made one meanwhile
        conn.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(self.name)))

    def _refuse_foreign(self, conn: Connection) -> None:
        if any(each != MARK for each in run(conn, bench.mark(self.name))):
            raise SchemaForeign(
                f'schema "{self.name}" was not made by a benchmark, which would drop it',
                hint="Name one that does not exist: --schema NAME.",
            )
