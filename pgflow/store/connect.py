"""Connect to PostgreSQL with the limits that a durable engine needs, or say in one sentence why that did not work."""

from collections.abc import Mapping
from typing import TypeAlias

import psycopg
from psycopg.rows import TupleRow

from pgflow.errors import DatabaseError, Unreachable
from pgflow.store.dsn import compose, defaults, parse, place
from pgflow.store.sqlstate import translate

__all__ = ["AsyncConnection", "Connection", "aconnect", "connect", "conninfo", "outage", "place", "translate"]

Connection: TypeAlias = psycopg.Connection[TupleRow]
AsyncConnection: TypeAlias = psycopg.AsyncConnection[TupleRow]

OLDEST = 14  # the oldest major version of PostgreSQL that pgflow runs on

# They go into the startup packet: no round trip, and no SET that a pooler could hand on to somebody else. Times are
# milliseconds. Nothing of ours takes long, so what does is stuck, and holds locks: let the server end it.
SETTINGS: Mapping[str, str] = {
    "statement_timeout": "30000",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    "default_transaction_isolation": "read committed",  # a database may have another default; ours is made for this one
    "timezone": "UTC",
    "jit": "off",  # compiling takes longer than any statement of ours
    # The server's side of a line that is cut: it gives up what the session has locked within half a minute, not after
    # two hours; on a Unix socket these mean nothing.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20000",
    # And while a statement runs, it looks whether anybody still waits for it.
    "client_connection_check_interval": "5000",
}
# Our files name their tables with the schema, and everything else in them is PostgreSQL's own. So what somebody puts
# into "public", an operator that fits better than the built-in one for example, is not found by our statements, nor
# built into our views. A user's step keeps its own path.
PINNED: Mapping[str, str] = {"search_path": "pg_catalog,pg_temp"}
BY_ROLE: Mapping[str, Mapping[str, str]] = {
    "client": PINNED,
    "read": PINNED,
    "heart": PINNED,
    # Planning a settle anew takes thrice as long as running it for one token; a large one asks for it (job/replan).
    "worker": {**PINNED, "plan_cache_mode": "force_generic_plan"},
    # A user's step has this connection to itself and may think between two statements.
    "step": {"statement_timeout": "0", "idle_in_transaction_session_timeout": "300000"},
    # A migration may build an index for an hour; how long it may wait for a lock, it says itself.
    "migrate": {**PINNED, "statement_timeout": "0", "idle_in_transaction_session_timeout": "0"},
}
# A worker that is frozen while it sends a pipeline leaves a transaction open, and its tokens locked, in a state that no
# other limit ends. Older servers do not know this one, so it cannot go into the startup packet.
TRANSACTION_TIMEOUT_SINCE = 17
TRANSACTION_TIMEOUT = (
    "select set_config('transaction_timeout', '10s', false) where current_setting('transaction_timeout') = '0'"
)
# The client's side. Keepalives find a dead peer on a silent connection, tcp_user_timeout one that does not acknowledge.
CLIENT: Mapping[str, str] = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "target_session_attrs": "read-write",  # a standby can do nothing for us: refuse it, or go on to the next host
}
READER: Mapping[str, str] = {**CLIENT, "target_session_attrs": "any"}  # a dashboard may well look at a replica


def conninfo(dsn: str, role: str = "client", *, settings: bool = True) -> str:
    """Return `dsn` with our settings added, for psycopg or for a pool.

    `role` says what the connection is for ("client", "worker", "listen", "migrate", "read") and appears in the server's
    `application_name` as `pgflow:<role>`. What the user set (in the DSN, in PGOPTIONS, PGAPPNAME, …) wins over ours.
    `settings=False` sends no startup options: some poolers refuse them. Raises `BadDsn`.
    """
    given = parse(dsn)
    params = {**defaults(), **given}
    if params.get("target_session_attrs") == "any" and "target_session_attrs" not in given:
        del params["target_session_attrs"]  # libpq's own default, nobody's choice
    client = READER if role == "read" else CLIENT
    added = {key: value for key, value in client.items() if not params.get(key)}
    added["fallback_application_name"] = f"pgflow:{role}"[:63]
    if settings:
        ours = {**SETTINGS, **BY_ROLE.get(role, {})}
        options = [f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in ours.items()]
        added["options"] = " ".join([*options, params.get("options", "")]).strip()  # the last one wins
    return compose({**given, **added})


def connect(dsn: str = "", role: str = "client", *, settings: bool = True, autocommit: bool = True) -> Connection:
    """Open a connection.

    An empty `dsn` is libpq's: PGHOST, PGSERVICE and the others decide. For a pooler in transaction mode pass
    `settings=False`: no startup options, no prepared statements.

    Raises `BadDsn` when `dsn` makes no sense, `Unreachable` when no session comes about (no server, no such database or
    user, wrong password, a standby), `DatabaseError` when the server is older than PostgreSQL 14.

        with connect("postgresql://ann@db.example/shop") as conn:
            run(conn, job.claim(...))
    """
    info = conninfo(dsn, role, settings=settings)
    try:
        conn = psycopg.connect(info, autocommit=autocommit, prepare_threshold=5 if settings else None)
    except psycopg.OperationalError as error:
        raise outage(error, place(dsn)) from error
    try:
        _refuse_old(conn.info, place(dsn))
    except DatabaseError:
        conn.close()
        raise
    if settings and _limits_transactions(conn.info, role):
        conn.execute(TRANSACTION_TIMEOUT)
    return conn


async def aconnect(
    dsn: str = "", role: str = "client", *, settings: bool = True, autocommit: bool = True
) -> AsyncConnection:
    """`connect`, async."""
    info = conninfo(dsn, role, settings=settings)
    try:
        conn = await psycopg.AsyncConnection.connect(
            info, autocommit=autocommit, prepare_threshold=5 if settings else None
        )
    except psycopg.OperationalError as error:
        raise outage(error, place(dsn)) from error
    try:
        _refuse_old(conn.info, place(dsn))
    except DatabaseError:
        await conn.close()
        raise
    if settings and _limits_transactions(conn.info, role):
        await conn.execute(TRANSACTION_TIMEOUT)
    return conn


def outage(error: psycopg.OperationalError, where: str) -> Unreachable:
    """Return the `Unreachable` that says in one sentence what `error`, met at `where` (see `place`), means.

    The hint is the next step, as far as the server's words are understood: they may be in any language.

        raise outage(error, place(dsn)) from error
    """
    reason = _reason(str(error))
    return Unreachable(f"cannot reach PostgreSQL at {where}: {reason}", hint=_advice(reason))


def _refuse_old(info: psycopg.ConnectionInfo, where: str) -> None:
    # A pooler may answer with a version of its own choice, or 0.
    if 0 < info.server_version < OLDEST * 10_000:
        raise DatabaseError(
            f"PostgreSQL {info.server_version // 10_000} at {where} is too old",
            hint=f"pgflow needs PostgreSQL {OLDEST} or newer.",
        )


def _limits_transactions(info: psycopg.ConnectionInfo, role: str) -> bool:
    return role == "worker" and info.server_version >= TRANSACTION_TIMEOUT_SINCE * 10_000


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
        case _ if "authentication failed" in reason or "role" in reason or "no password supplied" in reason:
            return "Check the user and the password in --dsn or PGFLOW_DSN."
        case _ if "pg_hba.conf" in reason:
            return "Allow this host and user in the server's pg_hba.conf, or connect as another user."
        case _ if "read-only" in reason or "hot standby" in reason:
            return "Point --dsn or PGFLOW_DSN at the primary."
        case _ if "too many" in reason or "remaining connection slots" in reason:
            return "Close other connections, or raise the server's max_connections."
        case _ if "starting up" in reason or "shutting down" in reason or "recovery" in reason:
            return "Try again in a moment."
        case _:
            return "Start PostgreSQL, or point --dsn or PGFLOW_DSN at a server that runs."
