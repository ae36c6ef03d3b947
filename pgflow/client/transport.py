"""Send statements for an app, on the caller's connection or on one of ours, and wake workers afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Generic, NoReturn, TypeVar, cast

import psycopg
from tenacity import AsyncRetrying, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from pgflow.client.notify_throttle import NotifyThrottle
from pgflow.client.statements import Write
from pgflow.database.connect import aconnect, connect, connection_error, place
from pgflow.database.db_errors import is_canceled, is_outcome_unknown, is_transient, may_be_schema_mismatch
from pgflow.database.encoding import encoding_errors
from pgflow.database.pooling.pool import AConn, Conn, Pool
from pgflow.database.statement import Statement, arun, run
from pgflow.errors import (
    OutcomeUnknown,
    PoolerDetected,
    SchemaError,
    StatementTimeout,
    TooManyConnections,
    Unreachable,
)
from pgflow.migrations import migrate
from pgflow.process import PerProcess
from pgflow.store import worker
from pgflow.store.notification import Notification
from pgflow.store.request import arun_claiming, arun_once, new_key, run_claiming, run_once

__all__ = ["Transport"]

T = TypeVar("T")

PATIENCE_SECONDS = 10.0  # for retries, with a database that was reached before
START_FEWER = "Start fewer at a time, such as 1,000, or raise it in the DSN: ?options=-cstatement_timeout%3D120s."
TAKE_LONGER = "Ask for less at a time, or raise it in the DSN: ?options=-cstatement_timeout%3D120s."
CROWDED_SECONDS = 2.0  # with one that refuses further connections
FAULTS = (psycopg.Error, Unreachable)


class Transport:
    """Runs statements: on `conn`, which it neither commits nor rolls back, or else on a connection of its own.

    On its own connections it retries transient errors (a restart of the server, a deadlock) for `PATIENCE_SECONDS`, and
    sends each write with an idempotency key, so that it takes effect once also when an answer was lost. An error on a
    schema that is too old or too new for this code is raised as the `SchemaError` for that. The first call examines the
    schema: functions of a renamed one would work on other tables, and row-level security hides rows.
    """

    def __init__(self, dsn: str, schema: str, *, pooler: bool = False) -> None:
        self.dsn = dsn
        self.schema = schema
        self.pooler = pooler
        self.pool = Pool(dsn, pooler=pooler)
        self._was_reached = False
        self._is_examined = False
        self._throttle = PerProcess(partial(NotifyThrottle, self._notify))

    def send(self, request: Statement[T] | Write[T], conn: Conn | None = None) -> T:
        """Run a statement, or a write exactly once, and wake workers: after our commit, or with the caller's.

        Raises `OutcomeUnknown` when a write was sent and its answer was lost, `Unreachable` when nothing was sent.
        """
        with self._on_our_schema(), encoding_errors(conn):
            if conn is None:
                result = self._send(request)
            elif isinstance(request, Write):
                result = run_once(conn, self.schema, request.key, request.name, request.statement(True), request.decode)
            else:
                result = run(conn, request)
        if isinstance(request, Write):
            request.emit(result, conn is not None)
        return result

    async def asend(self, request: Statement[T] | Write[T], conn: AConn | None = None) -> T:
        """`send`, async."""
        async with self._aon_our_schema():
            with encoding_errors(conn):
                if conn is None:
                    result = await self._asend(request)
                elif isinstance(request, Write):
                    result = await arun_once(
                        conn, self.schema, request.key, request.name, request.statement(True), request.decode
                    )
                else:
                    result = await arun(conn, request)
        if isinstance(request, Write):
            request.emit(result, conn is not None)
        return result

    # -- on connections of our own

    def _send(self, request: Statement[T] | Write[T]) -> T:
        sending = _Sending(request)
        try:
            return self._attempt(sending)  # outside of tenacity, whose own work would cost each call a tenth
        except FAULTS as error:
            first: BaseException | None = error
        try:
            for attempt in Retrying(**self._policy(sending.errors)):
                with attempt:
                    if first is not None:
                        failed, first = first, None
                        raise failed
                    result = self._attempt(sending)
        except FAULTS as error:
            self._give_up(error, sending)
        return result

    def _attempt(self, sending: _Sending[T]) -> T:
        with self.pool.connection() as ours:
            self._was_reached = True
            if not self._is_examined:
                migrate.examine(ours, self.schema)
                self._is_examined = True
            if (write := sending.write) is None:
                return run(ours, sending.statement)
            throttle = self._throttle.get()
            due = throttle.due(write.notifications)
            # After the commit, whose failure is the call's; of a notification's failure, polling takes care.
            after = worker.notify(self.schema, due) if due else None
            once = (ours, self.schema, sending.key, write.name, sending.statement, write.decode)
            if sending.is_claiming:
                result = run_claiming(*once, after)
            else:
                result = run_once(*once)
                if after is not None:
                    with suppress(psycopg.Error):
                        run(ours, after)
            throttle.sent(due, write.notifications - due)
            return result

    async def _asend(self, request: Statement[T] | Write[T]) -> T:
        sending = _Sending(request)
        try:
            return await self._aattempt(sending)  # as above
        except FAULTS as error:
            first: BaseException | None = error
        try:
            async for attempt in AsyncRetrying(**self._policy(sending.errors)):
                with attempt:
                    if first is not None:
                        failed, first = first, None
                        raise failed
                    result = await self._aattempt(sending)
        except FAULTS as error:
            self._give_up(error, sending)
        return result

    async def _aattempt(self, sending: _Sending[T]) -> T:
        async with self.pool.aconnection() as ours:
            self._was_reached = True
            if not self._is_examined:
                await migrate.aexamine(ours, self.schema)
                self._is_examined = True
            if (write := sending.write) is None:
                return await arun(ours, sending.statement)
            throttle = self._throttle.get()
            due = throttle.due(write.notifications)
            after = worker.notify(self.schema, due) if due else None  # as above
            once = (ours, self.schema, sending.key, write.name, sending.statement, write.decode)
            if sending.is_claiming:
                result = await arun_claiming(*once, after)
            else:
                result = await arun_once(*once)
                if after is not None:
                    with suppress(psycopg.Error):
                        await arun(ours, after)
            throttle.sent(due, write.notifications - due)
            return result

    @contextmanager
    def _on_our_schema(self) -> Iterator[None]:
        try:
            yield
        except (SchemaError, psycopg.Error) as error:
            if may_be_schema_mismatch(error):
                # The connection that failed may be in an aborted transaction: check on another one.
                with suppress(psycopg.Error, Unreachable, PoolerDetected), connect(self.dsn) as conn:
                    migrate.check(conn, self.schema)
            raise

    @asynccontextmanager
    async def _aon_our_schema(self) -> AsyncIterator[None]:
        try:
            yield
        except (SchemaError, psycopg.Error) as error:
            if may_be_schema_mismatch(error):
                with suppress(psycopg.Error, Unreachable, PoolerDetected):
                    async with await aconnect(self.dsn) as conn:
                        await migrate.acheck(conn, self.schema)
            raise

    def _policy(self, errors: list[BaseException]) -> dict[str, Any]:
        """Return when tenacity tries again; `errors` collects those of all attempts."""
        began = time.monotonic()

        def should_retry(error: BaseException) -> bool:
            errors.append(error)
            if is_outcome_unknown(error):
                self.pool.check_before_reuse()  # the other connections are probably lost, too
            # All connections may be in use for long, and the hint helps at once.
            if isinstance(error, TooManyConnections) and time.monotonic() - began > CROWDED_SECONDS:
                return False
            # A database that was never reached may be the wrong one, and a canceled statement would be canceled again:
            # both errors are raised at once.
            was_reached = self._was_reached or not isinstance(error, Unreachable)
            return is_transient(error) and was_reached and not is_canceled(error)

        return {
            "retry": retry_if_exception(should_retry),
            "wait": wait_random_exponential(multiplier=0.05, max=1),
            "stop": stop_after_delay(PATIENCE_SECONDS),
            "reraise": True,
        }

    def _give_up(self, error: BaseException, sending: _Sending[Any]) -> NoReturn:
        """Raise the error for a request whose last attempt failed with `error`."""
        where, key = place(self.dsn), sending.key
        if key and is_transient(error) and any(is_outcome_unknown(each) for each in sending.errors):
            raise OutcomeUnknown(
                f"the connection to PostgreSQL at {where} was lost before the answer came",
                hint=f"Call again with idempotency_key={key!r}: it takes effect once.",
                idempotency_key=key,
            ) from error
        if isinstance(error, psycopg.OperationalError) and is_outcome_unknown(error):
            raise connection_error(error, where) from error
        if isinstance(error, psycopg.Error) and is_canceled(error):
            message = (
                f"PostgreSQL ended {sending.call or 'a query'}, nothing of it was written: {error.diag.message_primary}"
            )
            hint = START_FEWER if (sending.call or "").startswith("start ") else TAKE_LONGER
            raise StatementTimeout(message, hint=hint) from error
        raise error

    def close(self) -> None:
        """Close the connections of threads, after the last notification is sent: it would open one again."""
        self._throttle.get().join()
        self.pool.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and those of threads."""
        await asyncio.to_thread(self._throttle.get().join)
        await self.pool.aclose()

    def _notify(self, notifications: Collection[Notification]) -> None:
        with suppress(psycopg.Error, Unreachable):  # only a hint: polling finds the work
            self.send(worker.notify(self.schema, notifications))


class _Sending(Generic[T]):
    """A request that is sent until it succeeds: with the same key each time, and the errors of all attempts."""

    def __init__(self, request: Statement[T] | Write[T]) -> None:
        self.errors: list[BaseException] = []
        self.write = request if isinstance(request, Write) else None
        self.key = ""
        self.is_claiming = False
        if self.write is None:
            self.statement = cast("Statement[T]", request)
            return
        self.key = self.write.key or new_key()
        self.is_claiming = self.write.claiming is not None
        self.statement = self.write.statement(False) if self.write.claiming is None else self.write.claiming(self.key)

    @property
    def call(self) -> str | None:
        """What a write does, without the values: "start OrderFlow"."""
        return None if self.write is None else " ".join(self.write.name.split(" ", 2)[:2])
