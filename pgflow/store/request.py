"""Run a call at most once per idempotency key, however often it is sent.

The key is inserted into `requests` in the transaction of the call, and the call's answer is recorded beside it. A
repeated call returns the recorded answer. (As in Stripe's API; kept in the database as in absurd.)
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
from pgflow.database.statement import Statement, arun, arun_all, arun_then, run, run_all, run_then
from pgflow.database.transaction_status import is_idle
from pgflow.errors import AlreadyDone

__all__ = ["arun_claiming", "arun_once", "begin", "forget", "new_key", "read_answers", "run_claiming", "run_once"]

T = TypeVar("T")
DecodeAnswer = Callable[[Any], T]


def new_key() -> str:
    """Return a unique key that starts with the time, so that the index grows at one end."""
    return f"{time.time_ns():x}-{secrets.token_hex(10)}"


def begin(schema: str, key: str, call: str) -> Statement[None]:
    """Claim a key for the transaction. Raises `AlreadyDone` if it was used, which cancels the statements behind it."""
    params = {"key": key, "call": call}
    query = files.load("queries/request/begin.sql", schema)
    return Statement("request/begin", query, params, lambda rows: None, prepare=True)


def read_answers(schema: str, key: str, call: str) -> Statement[list[Any] | None]:
    """Read the answers of the calls under a key, None for a new key. Raises `KeyReused` for a key of another call."""
    params = {"key": key, "call": call}
    query = files.load("queries/request/read_answers.sql", schema)
    return Statement(
        "request/read_answers", query, params, lambda rows: None if rows[0][0] is None else decode(rows[0][0])
    )


def forget(schema: str, age: timedelta, limit: int = 5000) -> Statement[bool]:
    """Delete at most `limit` keys older than `age`; returns whether there may be more."""
    params = {"age": age.total_seconds(), "limit": limit}
    query = files.load("queries/request/forget.sql", schema)
    return Statement("request/forget", query, params, lambda rows: rows[0][0] >= limit)


def run_once(
    conn: psycopg.Connection[Any],
    schema: str,
    key: str | None,
    call: str,
    statement: Statement[T],
    decode_answer: DecodeAnswer[T],
) -> T:
    """Run a statement unless it has run with this key before; then return its answer through `decode_answer`.

    Without a key (None) it always runs. `call` describes the call: a key that was used for another call raises
    `KeyReused`. Runs in the transaction of `conn` if there is one, else in one of its own, in one round trip.

        run_once(conn, "pgflow", "order-4711", "cancel OrderFlow 4711", instance.cancel(…), lambda answer: None)
    """
    if key is None:
        return run(conn, statement)
    if _is_in_transaction(conn):
        earlier = run(conn, read_answers(schema, key, call))
        if earlier is not None:
            return decode_answer(earlier[0])
        run(conn, begin(schema, key, call))
        return run(conn, statement)
    try:
        _, result = run_all(conn, [begin(schema, key, call), statement])
    except AlreadyDone:
        return _first_answer(run(conn, read_answers(schema, key, call)), decode_answer)
    return cast("T", result)


async def arun_once(
    conn: psycopg.AsyncConnection[Any],
    schema: str,
    key: str | None,
    call: str,
    statement: Statement[T],
    decode_answer: DecodeAnswer[T],
) -> T:
    """`run_once`, async."""
    if key is None:
        return await arun(conn, statement)
    if _is_in_transaction(conn):
        earlier = await arun(conn, read_answers(schema, key, call))
        if earlier is not None:
            return decode_answer(earlier[0])
        await arun(conn, begin(schema, key, call))
        return await arun(conn, statement)
    try:
        _, result = await arun_all(conn, [begin(schema, key, call), statement])
    except AlreadyDone:
        return _first_answer(await arun(conn, read_answers(schema, key, call)), decode_answer)
    return cast("T", result)


def run_claiming(
    conn: psycopg.Connection[Any],
    schema: str,
    key: str,
    call: str,
    statement: Statement[T],
    decode_answer: DecodeAnswer[T],
    after: Statement[Any] | None = None,
) -> T:
    """`run_once` for a statement that claims the key itself, on an idle connection of our own; see `run_then`.

    run_claiming(conn, "pgflow", "order-4711", "start OrderFlow 4711", instance.start(…), instance.decode_started)
    """
    try:
        return run_then(conn, statement, after)
    except AlreadyDone:
        return _first_answer(run(conn, read_answers(schema, key, call)), decode_answer)


async def arun_claiming(
    conn: psycopg.AsyncConnection[Any],
    schema: str,
    key: str,
    call: str,
    statement: Statement[T],
    decode_answer: DecodeAnswer[T],
    after: Statement[Any] | None = None,
) -> T:
    """`run_claiming`, async."""
    try:
        return await arun_then(conn, statement, after)
    except AlreadyDone:
        return _first_answer(await arun(conn, read_answers(schema, key, call)), decode_answer)


def _is_in_transaction(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    return not conn.autocommit or not is_idle(conn)


def _first_answer(answers: list[Any] | None, decode_answer: DecodeAnswer[T]) -> T:
    if not answers:
        raise AlreadyDone(
            "a call with this idempotency key has succeeded, but its answer was not recorded",
            hint="Use a different key for each call.",
        )
    return decode_answer(answers[0])
