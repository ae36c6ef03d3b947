"""Connect to PostgreSQL with the limits that a durable engine needs, and explain a failure in one sentence."""

from collections.abc import Mapping
from typing import Any, LiteralString, TypeAlias

import psycopg
from psycopg.rows import TupleRow

from pgflow.database.adapters import ADAPTERS, AsyncCursor, Cursor, Row
from pgflow.database.dsn import compose, defaults, parse, place
from pgflow.database.fork_safety import detach_in_children
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
    "place",
    "translate",
]

Connection: TypeAlias = psycopg.Connection[TupleRow]
AsyncConnection: TypeAlias = psycopg.AsyncConnection[TupleRow]

MIN_SERVER_VERSION = 14  # the oldest supported major version of PostgreSQL

# The first query on a direct connection asks for the process id of the backend: a pooler's answer differs from the one
# in its handshake. For workers and migrations it also sets transaction_timeout, which older servers would reject in the
# startup packet (see `settings`).
BACKEND_PID: LiteralString = "select pg_backend_pid()"
BACKEND_PID_OF_WORKER: LiteralString = """
    select pg_backend_pid(), case current_setting('transaction_timeout', true) when '0'
        then set_config('transaction_timeout', '10s', false) end
"""
# A role or a database may have a timeout that is too short to build an index.
BACKEND_PID_OF_MIGRATION: LiteralString = """
    select pg_backend_pid(), case when current_setting('transaction_timeout', true) <> '0'
        then set_config('transaction_timeout', '0', false) end
"""
FIRST_QUERIES: Mapping[str, LiteralString] = {"worker": BACKEND_PID_OF_WORKER, "migrate": BACKEND_PID_OF_MIGRATION}
# How PostgreSQL and poolers reject a connection over their limit. libpq has no SQLSTATE for errors while connecting.
TOO_MANY_CONNECTIONS = ("too many", "remaining connection slots", "no more connections allowed", "max clients reached")
TOO_MANY_CONNECTIONS_HINT = (
    "Close other connections, or raise a limit: max_connections of the server, CONNECTION LIMIT of the role or the "
    "database, max_client_conn of a pooler. pgflow needs one for sync or async calls of a process, three for a worker "
    "(two with --no-listen) and one for each transactional step in flight."
)
UNPREPARED: Mapping[str, Any] = {"autocommit": True, "prepare_threshold": None}


def conninfo(dsn: str, role: str = "client", *, pooler: bool = False) -> str:
    """Return `dsn` with our settings added, for psycopg or for a pool.

    `role` is the purpose of the connection ("client", "worker", "listen", "migrate", "read"); the server shows it as
    the `application_name` `pgflow:<role>`. Settings of the user (in the DSN, PGOPTIONS, PGAPPNAME, …) win over ours,
    except for `client_encoding`: only UTF8 can represent every value. With `pooler` no startup options are sent,
    because many poolers reject them. Raises `BadDsn`.
    """
    given = parse(dsn)
    params = {**defaults(), **given}
    if params.get("target_session_attrs") == "any" and "target_session_attrs" not in given:
        del params["target_session_attrs"]  # libpq's default, not a choice of the user
    client = READER if role == "read" else CLIENT
    added = {key: value for key, value in client.items() if not params.get(key)}
    added["fallback_application_name"] = f"pgflow:{role}"[:63]
    added["client_encoding"] = ENCODING  # wins over PGCLIENTENCODING, `options` and settings of a role or a database
    if not pooler:
        options = [f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in startup(role).items()]
        added["options"] = " ".join([*options, params.get("options", "")]).strip()  # the last one wins
    return compose({**given, **added})


def connect(dsn: str = "", role: str = "client", *, pooler: bool = False, autocommit: bool = True) -> Connection:
    """Open a connection.

    With an empty `dsn` libpq's PGHOST, PGSERVICE and so on apply. `pooler` declares a pooler in transaction mode; then
    nothing is left behind in the session (see `pgbouncer`).

    Raises `BadDsn` for a malformed `dsn`, `Unreachable` when the connection fails (no server, no such database or user,
    wrong password, a standby), `PoolerDetected` for an undeclared pooler, `DatabaseError` when the server is older
    than PostgreSQL 14.

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
        _require_supported_version(conn.info, place(dsn))
        if not pooler:
            row = Cursor(conn).execute(_first_query(role)).fetchone()
            _refuse_pooler(row, conn.info, place(dsn), role)
        if not autocommit:
            conn.autocommit = False
    except BaseException:
        conn.close()
        raise
    return detach_in_children(conn)


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
        _require_supported_version(conn.info, place(dsn))
        if not pooler:
            row = await (await AsyncCursor(conn).execute(_first_query(role))).fetchone()
            _refuse_pooler(row, conn.info, place(dsn), role)
        if not autocommit:
            await conn.set_autocommit(False)
    except BaseException:
        await conn.close()
        raise
    return detach_in_children(conn)


def connection_error(error: psycopg.OperationalError, where: str, role: str = "client") -> DatabaseError:
    """Return the error for a failed connection to `where` (see `place`): `Unreachable`, or a more specific one.

    The hint is the next step, as far as the server's message is recognized: it may be in any language. A pooler that
    rejects our settings gives a `PoolerDetected`.

        raise connection_error(error, place(dsn)) from error
    """
    reason = _reason(str(error))
    if "startup parameter" in reason:
        return _pooler(where, role, f" ({reason})")
    if any(text in reason for text in TOO_MANY_CONNECTIONS):
        return TooManyConnections(f"cannot connect to PostgreSQL at {where}: {reason}", hint=TOO_MANY_CONNECTIONS_HINT)
    return Unreachable(f"cannot reach PostgreSQL at {where}: {reason}", hint=_advice(reason))


def _kwargs(*, pooler: bool = False) -> dict[str, Any]:
    """Return psycopg's options beside the connection string."""
    return {**(UNPREPARED if pooler else {"autocommit": True}), "context": ADAPTERS}


def _first_query(role: str) -> LiteralString:
    return FIRST_QUERIES.get(role, BACKEND_PID)


def _refuse_pooler(row: Row | None, info: psycopg.ConnectionInfo, where: str, role: str) -> None:
    """Raise `PoolerInBetween` if the backend is not the one of the handshake, where a pooler invents process ids.

    Another client would inherit all that we leave in a session: prepared statements, settings, LISTEN.
    """
    if row is None or row[0] != info.backend_pid:
        raise _pooler(where, role)


def _pooler(where: str, role: str, reason: str = "") -> PoolerDetected:
    if role == "migrate":
        hint = "A migration needs a direct connection: set --dsn or PGFLOW_DSN to PostgreSQL itself."
    else:
        hint = "Declare it with --pooler, PGFLOW_POOLER=1 or Pgflow(…, pooler=True), or connect to PostgreSQL directly."
    return PoolerDetected(f"a connection pooler is in front of PostgreSQL at {where}{reason}", hint=hint)


def _require_supported_version(info: psycopg.ConnectionInfo, where: str) -> None:
    # A pooler may report any version, or 0.
    if 0 < info.server_version < MIN_SERVER_VERSION * 10_000:
        raise DatabaseError(
            f"PostgreSQL {info.server_version // 10_000} at {where} is too old",
            hint=f"pgflow needs PostgreSQL {MIN_SERVER_VERSION} or newer.",
        )


def _reason(text: str) -> str:
    """Return the reason in libpq's message, in one line: that of the last host, which was tried last."""
    first = text.strip().split("\n")[0].strip()
    for mark in ("FATAL:", " failed: ", "connection failed:", "connection is bad:"):
        first = first.rpartition(mark)[2].strip()
    return first.rstrip(".") or "no reason given"


def _advice(reason: str) -> str:
    """Return the next step. Messages may be translated: an unrecognized one gets the general advice."""
    match reason:
        case _ if reason.startswith("invalid ") and "value" in reason:
            return "Fix the connection string in --dsn or PGFLOW_DSN."
        case _ if "database" in reason and "does not exist" in reason:
            return "Create the database with createdb, or set another one in --dsn or PGFLOW_DSN."
        case _ if "local user with ID" in reason:  # libpq's message for a uid without an entry in the password file
            return "Set the database user in --dsn or PGFLOW_DSN, or in PGUSER."
        case _ if "authentication failed" in reason or "role" in reason or "no password supplied" in reason:
            return "Check the user and the password in --dsn or PGFLOW_DSN."
        case _ if "pg_hba.conf" in reason:
            return "Allow this host and user in the server's pg_hba.conf, or connect as another user."
        case _ if "read-only" in reason or "hot standby" in reason:
            return "Set --dsn or PGFLOW_DSN to the primary."
        case _ if "starting up" in reason or "shutting down" in reason or "recovery" in reason:
            return "Try again in a moment."
        case _:
            return "Start PostgreSQL, or set --dsn or PGFLOW_DSN to a running server."
