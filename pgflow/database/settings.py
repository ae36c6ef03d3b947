"""Settings of each kind of connection: the limits that a durable engine needs, and a safe search_path.

On a direct connection they are part of the startup packet: no round trip. Through a pooler they are set per
transaction.
"""

from collections.abc import Mapping
from typing import LiteralString

__all__ = ["CLIENT", "ENCODING", "ISOLATION", "READER", "per_transaction", "startup"]

ISOLATION: LiteralString = "read committed"  # our statements need it; a database may have another default

# `client_encoding` of our connections, a parameter of the connection string. Poolers may not pass it on, so through one
# it is set in each transaction. A database must have the same encoding.
ENCODING = "UTF8"

# Times are milliseconds. None of our statements takes long: one that does is stuck and holds locks, so the server ends
# it.
SETTINGS: Mapping[str, str] = {
    "statement_timeout": "30000",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    "default_transaction_isolation": ISOLATION,
    "timezone": "UTC",
    "gin_fuzzy_search_limit": "0",  # another value drops rows from lists by tag, input or output
    "row_security": "off",  # a query that row-level security would filter fails instead of omitting rows
    "jit": "off",  # compiling takes longer than any statement of ours
    # Server-side keepalives: a session whose client is unreachable releases its locks within half a minute, not after
    # two hours. Ignored on a Unix socket.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20000",
    # While a statement runs, the server checks that the client is still connected.
    "client_connection_check_interval": "5000",
}
# Workers and listeners may be idle for long: an idle_session_timeout of a role or a database must not end them.
NO_IDLE_TIMEOUT: Mapping[str, str] = {"idle_session_timeout": "0"}
# Our statements qualify their tables with the schema; all other names in them are PostgreSQL's. With this path they,
# and our views, never resolve a name to an object in "public", such as an operator that matches better than the
# built-in one. A user's step keeps its own path.
PINNED: Mapping[str, str] = {"search_path": "pg_catalog,pg_temp"}
BY_ROLE: Mapping[str, Mapping[str, str]] = {
    "client": PINNED,
    "read": PINNED,
    "heart": {**PINNED, **NO_IDLE_TIMEOUT},
    "listen": NO_IDLE_TIMEOUT,
    # A generic plan: planning a settle takes three times as long as executing it for one job. The plan is kept, and may
    # have been made while a table was empty and a sequential scan the cheapest, so those are off.
    "worker": {**PINNED, **NO_IDLE_TIMEOUT, "plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"},
    # A user's step owns this connection and may pause between two statements.
    "step": {**NO_IDLE_TIMEOUT, "statement_timeout": "0", "idle_in_transaction_session_timeout": "300000"},
    # A migration may build an index for an hour; it sets its lock timeouts itself.
    "migrate": {**PINNED, "statement_timeout": "0", "idle_in_transaction_session_timeout": "0"},
}
# The settings that can be set for one transaction.
PER_TRANSACTION = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "jit",
    "search_path",
    "gin_fuzzy_search_limit",
    "enable_seqscan",  # even a new plan uses the row counts of the last vacuum, and the table may have grown since
)
# A worker that is frozen while it sends a pipeline leaves a transaction open and its jobs locked, in a state that no
# other timeout ends. Older servers do not have this one.
TRANSACTION_TIMEOUT: Mapping[str, str] = {"transaction_timeout": "10000"}
TRANSACTION_TIMEOUT_SINCE = 17

# Client-side. Keepalives detect a dead peer on an idle connection, tcp_user_timeout one that stops acknowledging.
CLIENT: Mapping[str, str] = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "target_session_attrs": "read-write",  # libpq skips a standby, or reports it
}
READER: Mapping[str, str] = {**CLIENT, "target_session_attrs": "any"}  # a dashboard may read from a replica


def startup(role: str) -> Mapping[str, str]:
    """Return the settings of a direct connection, for its startup packet."""
    return {**SETTINGS, **BY_ROLE.get(role, {})}


def per_transaction(role: str, server_version: int) -> Mapping[str, str]:
    """Return the settings of each transaction through a pooler, to a server of this version."""
    known = startup(role)
    ours = {"client_encoding": ENCODING, **{name: known[name] for name in PER_TRANSACTION if name in known}}
    if role == "worker" and server_version >= TRANSACTION_TIMEOUT_SINCE * 10_000:
        ours |= TRANSACTION_TIMEOUT
    return ours
