"""Run statements for an application, on its own connection or on ours, and wake workers afterwards."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, NoReturn, TypeVar

import psycopg
from tenacity import AsyncRetrying, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from pgflow.calls import Call
from pgflow.database.callers import async_connection, sync_connection
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
from pgflow.store import request, worker

__all__ = ["Client"]

T = TypeVar("T")

QUIET_SECONDS = 0.01  # between two notifications of one queue
PATIENCE_SECONDS = 10.0  # with a database that has been there before
START_FEWER = "Start fewer at a time, such as 1,000, or raise it in the DSN: ?options=-cstatement_timeout%3D120s."
TAKE_LONGER = "Ask for less at a time, or raise it in the DSN: ?options=-cstatement_timeout%3D120s."
CROWDED_SECONDS = 2.0  # with one that allows no further connection
FAULTS = (psycopg.Error, Unreachable)


class Client:
    """Runs statements: on `conn`, which it neither commits nor rolls back, or else on a connection of its own.

    On its own it tries again what may pass (a restart of the server, a deadlock), for `PATIENCE_SECONDS`. What changes
    something is sent with an idempotency key, so that it is carried out once also when an answer was lost. What fails
    on a schema for which this code is too old, or too new, fails with the `SchemaError` that says so. The first call
    examines the schema: functions of a renamed one would work on other tables, and row-level security hides rows.
    """

    def __init__(self, dsn: str, schema: str, *, pooler: bool = False) -> None:
        self.dsn = dsn
        self.schema = schema
        self.pooler = pooler
        self.pool = Pool(dsn, pooler=pooler)
        self._was_there = False
        self._is_examined = False
        self._waking = PerProcess(_Waking)

    def run(self, statement: Statement[T], conn: Conn | None = None) -> T:
        """Run a statement that may be sent any number of times. Raises `Unreachable` when the database is gone."""
        with self._on_our_schema(), encoding_errors(conn):
            return self._run(statement) if conn is None else run(sync_connection(conn), statement)

    async def arun(self, statement: Statement[T], conn: AConn | None = None) -> T:
        """`run`, async."""
        async with self._aon_our_schema():
            with encoding_errors(conn):
                return await (self._arun(statement) if conn is None else arun(async_connection(conn), statement))

    def call(self, call: Call[T], conn: Conn | None = None) -> T:
        """Run a statement that changes something, and wake the workers: after our commit, or with the caller's.

        Where it has an idempotency key it is carried out once, however often it is called. Raises `OutcomeUnknown` when
        it was sent and nobody knows what became of it, `Unreachable` when it was not.
        """
        self.check(conn)
        with self._on_our_schema(), encoding_errors(conn):
            if conn is None:
                result = self._call(call)
            else:
                result = request.run_once(conn, self.schema, call.key, call.about, call.statement(True), call.recall)
        call.tell(result, conn is not None)
        return result

    async def acall(self, call: Call[T], conn: AConn | None = None) -> T:
        """`call`, async."""
        self.acheck(conn)
        async with self._aon_our_schema():
            with encoding_errors(conn):
                if conn is None:
                    result = await self._acall(call)
                else:
                    result = await request.arun_once(
                        conn, self.schema, call.key, call.about, call.statement(True), call.recall
                    )
        call.tell(result, conn is not None)
        return result

    def check(self, conn: Conn | None) -> None:
        """Raise `ConfigError` for what a sync call cannot take as `conn`."""
        if conn is not None:
            sync_connection(conn)

    def acheck(self, conn: AConn | None) -> None:
        """Raise `ConfigError` for what an async call cannot take as `conn`."""
        if conn is not None:
            async_connection(conn)

    # -- on connections of our own

    def _run(self, statement: Statement[T]) -> T:
        met: list[BaseException] = []
        try:
            for attempt in Retrying(**self._policy(met)):
                with attempt, self.pool.connection() as ours:
                    self._was_there = True
                    if not self._is_examined:
                        migrate.examine(ours, self.schema)
                        self._is_examined = True
                    result = run(ours, statement)
        except FAULTS as error:
            self._give_up(error, met)
        return result

    async def _arun(self, statement: Statement[T]) -> T:
        met: list[BaseException] = []
        try:
            async for attempt in AsyncRetrying(**self._policy(met)):
                with attempt:
                    async with self.pool.aconnection() as ours:
                        self._was_there = True
                        if not self._is_examined:
                            await migrate.aexamine(ours, self.schema)
                            self._is_examined = True
                        result = await arun(ours, statement)
        except FAULTS as error:
            self._give_up(error, met)
        return result

    def _call(self, call: Call[T]) -> T:
        key, met = call.key or request.new_key(), list[BaseException]()
        statement = call.statement(False)
        try:
            for attempt in Retrying(**self._policy(met)):
                with attempt, self.pool.connection() as ours:
                    self._was_there = True
                    if not self._is_examined:
                        migrate.examine(ours, self.schema)
                        self._is_examined = True
                    result = request.run_once(ours, self.schema, key, call.about, statement, call.recall)
                    with suppress(psycopg.Error):  # it has been done, and polling finds the work
                        if queues := self._waking.get().due(call.queues, self._wake):
                            run(ours, worker.wake(self.schema, queues))
        except FAULTS as error:
            self._give_up(error, met, key, _verb(call))
        return result

    async def _acall(self, call: Call[T]) -> T:
        key, met = call.key or request.new_key(), list[BaseException]()
        statement = call.statement(False)
        try:
            async for attempt in AsyncRetrying(**self._policy(met)):
                with attempt:
                    async with self.pool.aconnection() as ours:
                        self._was_there = True
                        if not self._is_examined:
                            await migrate.aexamine(ours, self.schema)
                            self._is_examined = True
                        result = await request.arun_once(ours, self.schema, key, call.about, statement, call.recall)
                        with suppress(psycopg.Error):  # as above
                            if queues := self._waking.get().due(call.queues, self._wake):
                                await arun(ours, worker.wake(self.schema, queues))
        except FAULTS as error:
            self._give_up(error, met, key, _verb(call))
        return result

    @contextmanager
    def _on_our_schema(self) -> Iterator[None]:
        try:
            yield
        except (SchemaError, psycopg.Error) as error:
            if may_be_schema_mismatch(error):
                # The connection that met it may be in a transaction, and then takes no more questions.
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

    def _policy(self, met: list[BaseException]) -> dict[str, Any]:
        """Tell tenacity what to try again and when; `met` collects the errors of all attempts."""
        began = time.monotonic()

        def is_worth_another(error: BaseException) -> bool:
            met.append(error)
            if is_outcome_unknown(error):
                self.pool.check_before_reuse()  # what severed this connection has severed the others, too
            # The places may be taken for long, and the hint helps at once.
            if isinstance(error, TooManyConnections) and time.monotonic() - began > CROWDED_SECONDS:
                return False
            # A database that never answered may not be the one that was meant, and a statement that was canceled
            # would be canceled again: both are reported at once.
            is_worth = self._was_there or not isinstance(error, Unreachable)
            return is_transient(error) and is_worth and not is_canceled(error)

        return {
            "retry": retry_if_exception(is_worth_another),
            "wait": wait_random_exponential(multiplier=0.05, max=1),
            "stop": stop_after_delay(PATIENCE_SECONDS),
            "reraise": True,
        }

    def _give_up(
        self, error: BaseException, met: list[BaseException], key: str | None = None, about: str | None = None
    ) -> NoReturn:
        """Raise the error for a call, `about`, that failed with `error` at last, after all errors in `met`."""
        where = place(self.dsn)
        if key is not None and is_transient(error) and any(is_outcome_unknown(each) for each in met):
            raise OutcomeUnknown(
                f"the connection to PostgreSQL at {where} was lost before the answer came",
                hint=f"Call again with idempotency_key={key!r}: what has been done is not done twice.",
                idempotency_key=key,
            ) from error
        if isinstance(error, psycopg.OperationalError) and is_outcome_unknown(error):
            raise connection_error(error, where) from error
        if isinstance(error, psycopg.Error) and is_canceled(error):
            message = f"PostgreSQL ended {about or 'a query'}, nothing of it was written: {error.diag.message_primary}"
            hint = START_FEWER if (about or "").startswith("start ") else TAKE_LONGER
            raise StatementTimeout(message, hint=hint) from error
        raise error

    def close(self) -> None:
        """Close the connections that threads used, after the last notification is out: it would open them again."""
        self._waking.get().join()
        self.pool.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and those of threads."""
        await asyncio.to_thread(self._waking.get().join)
        await self.pool.aclose()

    def _wake(self, queues: Iterable[str]) -> None:
        with suppress(psycopg.Error, Unreachable):  # a hint: polling finds the work
            self.run(worker.wake(self.schema, queues))


class _Waking:
    """When to notify workers of which queue: at once the first time, and together those that soon follow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._woken: dict[str, float] = {}
        self._late: set[str] = set()
        self._timer: threading.Timer | None = None

    def due(self, queues: Iterable[str], wake: Callable[[set[str]], None]) -> set[str]:
        """Return the queues to wake now; `wake` is called with the others later, in a thread."""
        now = time.monotonic()
        due: set[str] = set()
        with self._lock:
            for queue in queues:
                if now - self._woken.get(queue, 0.0) >= QUIET_SECONDS:
                    self._woken[queue] = now
                    due.add(queue)
                    continue
                if not self._late:
                    self._timer = threading.Timer(QUIET_SECONDS, self._wake_late, [wake])
                    self._timer.daemon = True
                    self._timer.start()
                self._late.add(queue)
        return due

    def join(self) -> None:
        """Wait until the last notification has been sent."""
        if self._timer is not None:
            self._timer.join()

    def _wake_late(self, wake: Callable[[set[str]], None]) -> None:
        with self._lock:
            queues, self._late = self._late, set()
            self._woken.update(dict.fromkeys(queues, time.monotonic()))
        wake(queues)


def _verb(call: Call[Any]) -> str:
    """Return what a call does, without the values: "start OrderFlow"."""
    return " ".join(call.about.split(" ", 2)[:2])
