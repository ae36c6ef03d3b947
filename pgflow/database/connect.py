"""Connect to PostgreSQL with the limits that a durable engine needs, or say in one sentence why that did not work."""

from collections.abc import Mapping
from typing import Any, LiteralString, TypeAlias

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from pgflow.database.adapters import ADAPTERS, AsyncCursor, Cursor, Row
from pgflow.database.dsn import compose, defaults, parse, place
from pgflow.database.fork_safety import remember
from pgflow.database.pgbouncer import AsyncPooledConnection, PooledConnection
from pgflow.database.settings import CLIENT, ENCODING, READER, startup
from pgflow.database.sqlstate import translate
from pgflow.errors import DatabaseError, PoolerDetected, TooManyConnections, Unreachable

__all__ = [
    "AsyncConnection",
    "Connection",
    "aconnect",
    "connect",
    "connection_error",
    "conninfo",
    "is_idle",
    "place",
    "translate",
]

Connection: TypeAlias = psycopg.Connection[TupleRow]
AsyncConnection: TypeAlias = psycopg.AsyncConnection[TupleRow]

OLDEST = 14  # the oldest major version of PostgreSQL that pgflow runs on

# The first query on each connection of our own: which server process answers? For workers and migrations it also sets
# what cannot be in the startup packet, because older servers do not know it (see `settings`).
WHO: LiteralString = "select pg_backend_pid()"
WHO_FOR_A_WORKER: LiteralString = """
    select pg_backend_pid(), case current_setting('transaction_timeout', true) when '0'
        then set_config('transaction_timeout', '10s', false) end
"""
# A role or a database may have a limit that is too short to build an index.
WHO_FOR_A_MIGRATION: LiteralString = """
    select pg_backend_pid(), case when current_setting('transaction_timeout', true) <> '0'
        then set_config('transaction_timeout', '0', false) end
"""
QUESTIONS: Mapping[str, LiteralString] = {"worker": WHO_FOR_A_WORKER, "migrate": WHO_FOR_A_MIGRATION}
# How PostgreSQL and poolers refuse one connection too many. libpq has no SQLSTATE for an error while connecting.
CROWDED = ("too many", "remaining connection slots", "no more connections allowed", "max clients reached")
CROWDED_HINT = (
    "Close other connections, or allow more: max_connections of the server, CONNECTION LIMIT of the role and of the "
    "database, max_client_conn of a pooler. pgflow needs one for sync or async calls of a process, three for a worker "
    "(two with --no-listen) and one for each transactional step that runs."
)
UNPREPARED: Mapping[str, Any] = {"autocommit": True, "prepare_threshold": None}


def conninfo(dsn: str, role: str = "client", *, pooler: bool = False) -> str:
    """Return `dsn` with our settings added, for psycopg or for a pool.

    `role` says what the connection is for ("client", "worker", "listen", "migrate", "read") and appears in the server's
    `application_name` as `pgflow:<role>`. What the user set (in the DSN, in PGOPTIONS, PGAPPNAME, …) wins over ours,
    except for `client_encoding`: only UTF8 carries every value. With `pooler` no startup options are sent: many poolers
    refuse them. Raises `BadDsn`.
    """
    given = parse(dsn)
    params = {**defaults(), **given}
    if params.get("target_session_attrs") == "any" and "target_session_attrs" not in given:
        del params["target_session_attrs"]  # libpq's own default, nobody's choice
    client = READER if role == "read" else CLIENT
    added = {key: value for key, value in client.items() if not params.get(key)}
    added["fallback_application_name"] = f"pgflow:{role}"[:63]
    added["client_encoding"] = ENCODING  # wins over PGCLIENTENCODING, `options`, and what a role or a database sets
    if not pooler:
        options = [f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in startup(role).items()]
        added["options"] = " ".join([*options, params.get("options", "")]).strip()  # the last one wins
    return compose({**given, **added})


def connect(dsn: str = "", role: str = "client", *, pooler: bool = False, autocommit: bool = True) -> Connection:
    """Open a connection.

    An empty `dsn` is libpq's: PGHOST, PGSERVICE and the others decide. `pooler` says that a pooler in transaction mode
    stands in between; then nothing is left in the session (see `pooled`).

    Raises `BadDsn` when `dsn` makes no sense, `Unreachable` when no session comes about (no server, no such database or
    user, wrong password, a standby), `PoolerDetected` for a pooler of which nobody has spoken, `DatabaseError` when
    the server is older than PostgreSQL 14.

        with connect("postgresql://ann@db.example/shop") as conn:
            run(conn, job.claim(...))
    """
    info = conninfo(dsn, role, pooler=pooler)
    try:
        if pooler:
            conn: Connection = PooledConnection.connect(info, **_kwargs(pooler=True))
        else:
            conn = psycopg.connect(info, **_kwargs())
    except psycopg.OperationalError as error:
        raise connection_error(error, place(dsn), role) from error
    try:
        _refuse_old(conn.info, place(dsn))
        if not pooler:
            answered = Cursor(conn).execute(_question(role)).fetchone()
            _refuse_pooler(answered, conn.info, place(dsn), role)
        if not autocommit:
            conn.autocommit = False
    except BaseException:
        conn.close()
        raise
    return remember(conn)


async def aconnect(
    dsn: str = "", role: str = "client", *, pooler: bool = False, autocommit: bool = True
) -> AsyncConnection:
    """`connect`, async."""
    info = conninfo(dsn, role, pooler=pooler)
    try:
        if pooler:
            conn: AsyncConnection = await AsyncPooledConnection.connect(info, **_kwargs(pooler=True))
        else:
            conn = await psycopg.AsyncConnection.connect(info, **_kwargs())
    except psycopg.OperationalError as error:
        raise connection_error(error, place(dsn), role) from error
    try:
        _refuse_old(conn.info, place(dsn))
        if not pooler:
            answered = await (await AsyncCursor(conn).execute(_question(role))).fetchone()
            _refuse_pooler(answered, conn.info, place(dsn), role)
        if not autocommit:
            await conn.set_autocommit(False)
    except BaseException:
        await conn.close()
        raise
    return remember(conn)


def is_idle(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Return whether the connection is open, outside a transaction, and has read every answer it is owed.

    Ask this after an error, instead of `conn.broken`: psycopg raises "connection socket closed" as soon as the socket
    hangs up, before libpq has read the end of the stream. Such a connection is neither `closed` nor `broken`, waits for
    an answer that never comes, and refuses every further statement ("another command is already in progress").
    """
    return conn.info.transaction_status is TransactionStatus.IDLE  # a closed connection has the status UNKNOWN


def connection_error(error: psycopg.OperationalError, where: str, role: str = "client") -> DatabaseError:
    """Return the `Unreachable` that says in one sentence what `error`, met at `where` (see `place`), means.

    The hint is the next step, as far as the server's words are understood: they may be in any language. It is a
    `PoolerDetected` where a pooler refuses our settings.

        raise connection_error(error, place(dsn)) from error
    """
    reason = _reason(str(error))
    if "startup parameter" in reason:
        return _pooler(where, role, f" ({reason})")
    if any(text in reason for text in CROWDED):
        return TooManyConnections(f"cannot connect to PostgreSQL at {where}: {reason}", hint=CROWDED_HINT)
    return Unreachable(f"cannot reach PostgreSQL at {where}: {reason}", hint=_advice(reason))


def _kwargs(*, pooler: bool = False) -> dict[str, Any]:
    """Return what psycopg is told beside the connection string."""
    return {**(UNPREPARED if pooler else {"autocommit": True}), "context": ADAPTERS}


def _question(role: str) -> LiteralString:
    return QUESTIONS.get(role, WHO)


def _refuse_pooler(answer: Row | None, info: psycopg.ConnectionInfo, where: str, role: str) -> None:
    """Refuse a server process other than the one that was promised: a pooler makes ids of its own up.

    All that we leave in a session would be another client's: prepared statements, settings, LISTEN.
    """
    if answer is None or answer[0] != info.backend_pid:
        raise _pooler(where, role)


def _pooler(where: str, role: str, reason: str = "") -> PoolerDetected:
    if role == "migrate":
        hint = "This needs PostgreSQL itself: name it in --dsn or PGFLOW_DSN."
    else:
        hint = "Say so with --pooler, PGFLOW_POOLER=1 or Pgflow(…, pooler=True), or go to PostgreSQL itself."
    return PoolerDetected(f"a connection pooler stands before PostgreSQL at {where}{reason}", hint=hint)


def _refuse_old(info: psycopg.ConnectionInfo, where: str) -> None:
    # A pooler may answer with a version of its own choice, or 0.
    if 0 < info.server_version < OLDEST * 10_000:
        raise DatabaseError(
            f"PostgreSQL {info.server_version // 10_000} at {where} is too old",
            hint=f"pgflow needs PostgreSQL {OLDEST} or newer.",
        )


def _reason(text: str) -> str:
    """Return the part of libpq's message that says why, in one line: the last host's, as that one was tried last."""
    first = text.strip().split("\n")[0].strip()
    for mark in ("FATAL:", " failed: ", "connection failed:", "connection is bad:"):
        first = first.rpartition(mark)[2].strip()
    return first.rstrip(".") or "no reason given"


def _advice(reason: str) -> str:
    """Return the next step. Servers speak their own language: what is not understood gets the general advice."""
    match reason:
        case _ if reason.startswith("invalid ") and "value" in reason:
            return "Mend the connection string in --dsn or PGFLOW_DSN."
        case _ if "database" in reason and "does not exist" in reason:
            return "Create the database with createdb, or name another one in --dsn or PGFLOW_DSN."
        case _ if "local user with ID" in reason:  # libpq's message for a uid without an entry in the password file
            return "Name the database user in --dsn or PGFLOW_DSN, or in PGUSER."
        case _ if "authentication failed" in reason or "role" in reason or "no password supplied" in reason:
            return "Check the user and the password in --dsn or PGFLOW_DSN."
        case _ if "pg_hba.conf" in reason:
            return "Allow this host and user in the server's pg_hba.conf, or connect as another user."
        case _ if "read-only" in reason or "hot standby" in reason:
            return "Point --dsn or PGFLOW_DSN at the primary."
        case _ if "starting up" in reason or "shutting down" in reason or "recovery" in reason:
            return "Try again in a moment."
        case _:
            return "Start PostgreSQL, or point --dsn or PGFLOW_DSN at a server that runs."
