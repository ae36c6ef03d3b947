"""Classify what the database refuses, and log each of its faults once a minute."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from pgflow.core.values.sanitize import sanitize_line
from pgflow.database.connect import AsyncConnection
from pgflow.database.sqlstate import primary_message
from pgflow.database.statement import Statement
from pgflow.errors import PgflowError, SchemaError, SequenceError
from pgflow.logs import Logger
from pgflow.store import doctor
from pgflow.worker.settler import Settler

__all__ = ["OUTAGE", "RECONNECT", "REFUSAL", "SCHEMA_SUSPECT", "FaultLog", "error_text"]

log = Logger("pgflow.worker")

REPORT_SECONDS = 60.0  # between two log lines about the same fault

# The schema may have changed: check it, and end the worker if this code cannot work on it.
SCHEMA_SUSPECT = (SchemaError, psycopg.ProgrammingError)
# Concerns this connection only: a new one reaches the new primary, or prepares its statements again.
RECONNECT = (
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.InvalidSqlStatementName,
    psycopg.errors.DuplicatePreparedStatement,
    psycopg.errors.FeatureNotSupported,  # "cached plan must not change result type"
)
REFUSAL = (psycopg.Error, PgflowError)  # an answer of the database, or a lost connection
OUTAGE = (psycopg.Error, PgflowError, OSError)  # wait, and try again


class FaultLog:
    """The fault of the database that keeps a worker from recording results, if there is one.

    `ask` runs a statement on the worker's connection.
    """

    def __init__(self, settler: Settler, ask: Callable[[AsyncConnection, Statement[Any]], Awaitable[Any]]) -> None:
        self.current: str | None = None
        self._settler = settler
        self._ask = ask
        self._logged: dict[str, float] = {}  # when each fault was logged

    async def report(self, error: Exception, what: str, conn: AsyncConnection | None = None) -> None:
        """Note that the database refuses `what`, through no fault of a step; log it once in `REPORT_SECONDS`.

        If a sequence is at fault, `conn` is used to find out which.
        """
        self.current = f"{what}: {error_text(error)}"
        now = time.monotonic()
        self._logged = {fault: at for fault, at in self._logged.items() if now - at < REPORT_SECONDS}
        if self.current in self._logged:
            return
        self._logged[self.current] = now
        advice = f". {error.hint}" if isinstance(error, PgflowError) and error.hint else ""
        log.error("worker %d: the database refuses %s%s", self._settler.worker, self.current, sanitize_line(advice))
        if isinstance(error, SequenceError) and conn is not None:
            await self._report_sequences(conn)

    async def _report_sequences(self, conn: AsyncConnection) -> None:
        try:
            found = await self._ask(conn, doctor.sequences(self._settler.schema))
        except REFUSAL as failure:
            log.warning("worker %d: cannot examine sequences: %s", self._settler.worker, error_text(failure))
            return
        for each in found:
            if each.fault is not None:
                log.error("%s. Run: %s", each.fault, each.repair)


def error_text(error: Exception) -> str:
    """Return an error's message in one line; one from the database without the values that it was given."""
    return sanitize_line(primary_message(error) if isinstance(error, psycopg.Error) else str(error))
