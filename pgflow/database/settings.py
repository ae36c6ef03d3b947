"""Say what each kind of connection is to have: limits that a durable engine needs, and a path that nobody can plant on.

On a connection of our own they go into the startup packet: no round trip. Behind a pooler they last for a transaction.
"""

from collections.abc import Mapping
from typing import LiteralString

__all__ = ["CLIENT", "ENCODING", "ISOLATION", "READER", "passing", "startup"]

ISOLATION: LiteralString = "read committed"  # a database may have another default; ours is made for this one

# `client_encoding` of our own connections, a parameter of the connection string. Poolers may not pass it on, so behind
# one it is set in each transaction. It is also the encoding that a database must have.
ENCODING = "UTF8"

# Times are milliseconds. Nothing of ours takes long, so what does is stuck, and holds locks: let the server end it.
SETTINGS: Mapping[str, str] = {
    "statement_timeout": "30000",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    "default_transaction_isolation": ISOLATION,
    "timezone": "UTC",
    "gin_fuzzy_search_limit": "0",  # another value drops rows from lists by tag, input or output
    "row_security": "off",  # a query that row-level security would filter fails; rows are never silently left out
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
# Workers wait for work, and listeners for notifications, however long that takes: a limit that a role or a database has
# for idle sessions must not end them.
LASTING: Mapping[str, str] = {"idle_session_timeout": "0"}
# Our files name their tables with the schema, and everything else in them is PostgreSQL's own. So what somebody puts
# into "public", an operator that fits better than the built-in one for example, is not found by our statements, nor
# built into our views. A user's step keeps its own path.
PINNED: Mapping[str, str] = {"search_path": "pg_catalog,pg_temp"}
BY_ROLE: Mapping[str, Mapping[str, str]] = {
    "client": PINNED,
    "read": PINNED,
    "heart": {**PINNED, **LASTING},
    "listen": LASTING,
    # Planning a settle anew takes thrice as long as running it for one token.
    # And a plan is kept, so it may have been made while a table was empty and nothing cheaper than to read all of it.
    "worker": {**PINNED, **LASTING, "plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"},
    # A user's step has this connection to itself and may think between two statements.
    # A user's step has this connection to itself and may think between two statements.
    "step": {**LASTING, "statement_timeout": "0", "idle_in_transaction_session_timeout": "300000"},
    # A migration may build an index for an hour; how long it may wait for a lock, it says itself.
    "migrate": {**PINNED, "statement_timeout": "0", "idle_in_transaction_session_timeout": "0"},
}
# Of them, those that mean something for one transaction.
PASSING = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "jit",
    "search_path",
    "gin_fuzzy_search_limit",
    "enable_seqscan",  # a plan that is made anew still counts rows by what a vacuum saw, of a table that is full by now
)
# A worker that is frozen while it sends a pipeline leaves a transaction open, and its tokens locked, in a state that no
# other limit ends. Older servers do not know this one.
TRANSACTION_TIMEOUT: Mapping[str, str] = {"transaction_timeout": "10000"}
TRANSACTION_TIMEOUT_SINCE = 17

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


def startup(role: str) -> Mapping[str, str]:
    """Return what a connection of our own is to have from its first packet on."""
    return {**SETTINGS, **BY_ROLE.get(role, {})}


def passing(role: str, server_version: int) -> Mapping[str, str]:
    """Return what each transaction is to have on a connection through a pooler to a server of this version."""
    known = startup(role)
    ours = {"client_encoding": ENCODING, **{name: known[name] for name in PASSING if name in known}}
    if role == "worker" and server_version >= TRANSACTION_TIMEOUT_SINCE * 10_000:
        ours |= TRANSACTION_TIMEOUT
    return ours
