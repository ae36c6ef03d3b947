"""Find out whether a server takes writes: by a write that leaves nothing behind."""

import select
import time
from contextlib import closing

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

__all__ = ["write"]

# A meaningless record in the WAL, which is committed like any other: flushed, and waits for a synchronous standby.
MESSAGE = b"select pg_logical_emit_message(true, 'pgflow', '')"
CONNECT_SECONDS = 2  # the minimum of libpq


def write(dsn: str, seconds: float = 2.0) -> bool:
    """Write once, and return whether the commit came back within `seconds`.

    False when there is no server, it refuses or hangs, or a synchronous standby does not answer. The server may
    still be working on the attempt then.
    """
    deadline = time.monotonic() + seconds
    try:
        with closing(psycopg.connect(make_conninfo(dsn, connect_timeout=CONNECT_SECONDS))) as conn:
            return _send(conn.pgconn, deadline)
    except psycopg.Error:
        return False


def _send(conn: pq.abc.PGconn, deadline: float) -> bool:
    """Bypass psycopg's `execute`, which would wait without limit."""
    conn.send_query(MESSAGE)
    while conn.flush() or conn.is_busy():
        readable, _, _ = select.select([conn.socket], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return False
        conn.consume_input()
    result = conn.get_result()
    return result is not None and result.status == pq.ExecStatus.TUPLES_OK
