"""Send a call so that it is carried out once, however often it is sent: each has an idempotency key.

The key goes into a table in the transaction of the call, and what the call came to is noted beside it. Whoever sends
the call again is told that. (Stripe's idempotency keys; absurd's, kept in the database as here.)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import psycopg

from pgflow.core.values.payload import decode
from pgflow.database import files
from pgflow.database.statement import Statement, arun, arun_all, run, run_all
from pgflow.errors import AlreadyDone

__all__ = ["answered", "arun_once", "begin", "forget", "new_key", "run_once"]

T = TypeVar("T")
Recall = Callable[[Any], T]


def new_key() -> str:
    """Return a key that nobody else has: in order of time, so that the index grows at one end."""
    return f"{time.time_ns():x}-{secrets.token_hex(10)}"


def begin(schema: str, key: str, call: str) -> Statement[None]:
    """Let what follows in the transaction happen only if nobody was there before. Raises `AlreadyDone` there."""
    params = {"key": key, "call": call}
    query = files.load("queries/request/begin.sql", schema)
    return Statement("request/begin", query, params, lambda rows: None, prepare=True)


def answered(schema: str, key: str, call: str) -> Statement[list[Any] | None]:
    """Return what the calls with a key came to, None when there were none. Raises `KeyReused` for another call's."""
    params = {"key": key, "call": call}
    query = files.load("queries/request/answered.sql", schema)
    return Statement("request/answered", query, params, lambda rows: None if rows[0][0] is None else decode(rows[0][0]))


def forget(schema: str, age: timedelta, limit: int = 5000) -> Statement[bool]:
    """Delete keys that are older than `age`, up to `limit` of them; returns whether there may be more."""
    params = {"age": age.total_seconds(), "limit": limit}
    query = files.load("queries/request/forget.sql", schema)
    return Statement("request/forget", query, params, lambda rows: rows[0][0] >= limit)


def run_once(
    conn: psycopg.Connection[Any], schema: str, key: str | None, call: str, statement: Statement[T], recall: Recall[T]
) -> T:
    """Run a statement unless it was run with this key before; `recall` makes its result out of the stored answer.

    Without a key it is run in any case. `call` says what is called, so that a key which was used for something else is
    refused. Where `conn` is in a transaction it happens in that, else in one of its own, in one round trip.

        once(conn, "pgflow", "order-4711", "cancel OrderFlow 4711", instance.cancel(…), lambda answer: None)
    """
    if key is None:
        return run(conn, statement)
    asked = answered(schema, key, call)
    if _is_in_transaction(conn):
        before = run(conn, asked)
        if before is not None:
            return recall(before[0])
        run(conn, begin(schema, key, call))
        return run(conn, statement)
    try:
        _, result = run_all(conn, [begin(schema, key, call), statement])
    except AlreadyDone:
        return _recalled(run(conn, asked), recall)
    return cast("T", result)


async def arun_once(
    conn: psycopg.AsyncConnection[Any],
    schema: str,
    key: str | None,
    call: str,
    statement: Statement[T],
    recall: Recall[T],
) -> T:
    """`once`, async."""
    if key is None:
        return await arun(conn, statement)
    asked = answered(schema, key, call)
    if _is_in_transaction(conn):
        before = await arun(conn, asked)
        if before is not None:
            return recall(before[0])
        await arun(conn, begin(schema, key, call))
        return await arun(conn, statement)
    try:
        _, result = await arun_all(conn, [begin(schema, key, call), statement])
    except AlreadyDone:
        return _recalled(await arun(conn, asked), recall)
    return cast("T", result)


def _is_in_transaction(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    return not conn.autocommit or conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE


def _recalled(before: list[Any] | None, recall: Recall[T]) -> T:
    if not before:
        raise AlreadyDone(
            "what has this idempotency key has been done, and nobody noted what came of it",
            hint="Take a key of its own for each call.",
        )
    return recall(before[0])
