"""A clock that a test moves: it replaces `pgflow.now()` in the schema of one app, for all sessions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from psycopg import sql

from pgflow.app import Pgflow
from pgflow.client.app import App
from pgflow.core.values.sanitize import type_name
from pgflow.database.connect import Connection, connect
from pgflow.database.files import QUALIFIER
from pgflow.database.statement import run
from pgflow.errors import ConfigError, InvalidValue
from pgflow.local import Local
from pgflow.store import worker
from pgflow.store.notification import SweepRequested

__all__ = ["Clock"]

FOLDER = Path(__file__).parent / "sql"
SERVER_TIME = "select statement_timestamp()"


class Clock:
    """The time of an app's schema, for timers, delays, retries, leases and schedules; at first the real time.

    A move takes effect with the next statement of each session, and workers look for due jobs at once. Without a
    worker, `drain` runs them. Workers that are connected keep their leases, as if they had sent heartbeats
    meantime; the leases of workers that have died expire. Time in Python is not changed, nor what is measured with it,
    such as `max_runtime`. `restore`, or the end of a `with`, brings back the real time.

    For a schema that only tests use, as its owner. A `Local` has a clock, too: it can `advance`, and no more.

        clock = Clock(app)
        OrderFlow.start("abc123", order, delay=timedelta(hours=1))
        clock.advance(timedelta(hours=1))
        drain(app)
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._ahead = timedelta(0)
        self._frozen: datetime | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def __repr__(self) -> str:
        return f"Clock({self._app!r}, frozen at {self._frozen})" if self._frozen else f"Clock({self._app!r})"

    @property
    def is_frozen(self) -> bool:
        """Whether it is frozen."""
        return self._frozen is not None

    def now(self) -> datetime:
        """Return the time of the app, as an aware datetime in UTC."""
        if isinstance(self._app, Local):
            return self._app.now
        with self._connect() as conn:
            return _ask(conn, self._text("select pgflow.now()"))

    def advance(self, by: timedelta) -> None:
        """Move forward; a frozen clock stays frozen. A `Local` runs what comes due, in order, before this returns.

        Raises `InvalidValue` for anything but a timedelta that is not negative: use `move_to` to go back.
        """
        if not isinstance(by, timedelta) or by < timedelta(0):
            raise InvalidValue(f"clock: cannot advance by {by!r}: give a timedelta that is not negative")
        if isinstance(self._app, Local):
            self._app.advance_time(by)
            return
        with self._connect() as conn:
            if self._frozen is None:
                self._set(conn, by, ahead=self._ahead + by)
            else:
                self._set(conn, by, frozen=self._frozen + by)

    def move_to(self, moment: datetime) -> None:
        """Set the time, forward or back; it goes on from there, unless the clock is frozen.

        Raises `InvalidValue` for a naive datetime.
        """
        with self._connect() as conn:
            by = _checked(moment) - _ask(conn, self._text("select pgflow.now()"))
            if self._frozen is None:
                self._set(conn, by, ahead=self._ahead + by)
            else:
                self._set(conn, by, frozen=moment)

    def freeze(self, moment: datetime | None = None) -> datetime:
        """Stop the clock, at `moment` or now, and return the time at which it stands.

        Whatever is due later, even in a second, then waits for `advance`, `move_to` or `resume`.
        """
        with self._connect() as conn:
            now = _ask(conn, self._text("select pgflow.now()"))
            at = now if moment is None else _checked(moment)
            self._set(conn, at - now, frozen=at)
        return at

    def resume(self) -> None:
        """Go on from the time at which it was frozen."""
        if self._frozen is None:
            return
        with self._connect() as conn:
            self._set(conn, timedelta(0), ahead=self._frozen - _ask(conn, SERVER_TIME))

    def restore(self) -> None:
        """Bring back the real time, and the function of the migration."""
        if isinstance(self._app, Local) or (self._frozen is None and not self._ahead):
            return
        with self._connect() as conn:
            by = _ask(conn, SERVER_TIME) - _ask(conn, self._text("select pgflow.now()"))
            self._set(conn, by, ahead=timedelta(0))

    def _set(
        self, conn: Connection, by: timedelta, *, ahead: timedelta = timedelta(0), frozen: datetime | None = None
    ) -> None:
        """Replace the function and move the leases in one transaction, and let workers look."""
        if frozen is not None:
            body = f" select timestamptz '{frozen.astimezone(UTC).isoformat()}' "
        elif ahead:
            body = f" {SERVER_TIME} + interval '{ahead // timedelta(microseconds=1)} microseconds' "
        else:
            body = f" {SERVER_TIME} "
        with conn.transaction():
            conn.execute(self._file("keep_leases").format(by=sql.Literal(by)))
            conn.execute(self._file("set_clock").format(body=sql.Literal(body)))
        self._ahead, self._frozen = ahead, frozen
        run(conn, worker.notify(self._pgflow.schema, [SweepRequested()]))

    def _file(self, name: str) -> sql.SQL:
        text: Any = self._text((FOLDER / f"{name}.sql").read_text(encoding="utf-8"))
        return sql.SQL(text)

    def _text(self, query: str) -> str:
        return QUALIFIER.sub(f'"{self._pgflow.schema}".', query)

    @property
    def _pgflow(self) -> Pgflow:
        if not isinstance(self._app, Pgflow):
            raise ConfigError(
                f"the clock of {self._app!r} can only advance",
                hint="Use clock.advance(…), or an app on PostgreSQL: Pgflow(dsn, workflows=[…]).",
            )
        return self._app

    def _connect(self) -> Connection:
        return connect(self._pgflow.dsn, "test", pooler=self._pgflow.pooler)


def _ask(conn: Connection, query: str) -> datetime:
    found: datetime = conn.execute(query.encode()).fetchall()[0][0]
    return found.astimezone(UTC)


def _checked(moment: datetime) -> datetime:
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        kind = f"got {moment!r}" if isinstance(moment, datetime) else f"got {type_name(moment)}"
        raise InvalidValue(f"clock: the time must be an aware datetime, {kind}: datetime(2030, 1, 1, tzinfo=UTC)")
    return moment.astimezone(UTC)
