"""Check whether a connection can run a statement outside any transaction."""

from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

__all__ = ["is_idle"]


def is_idle(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Return whether the connection is open, outside a transaction, and has read every pending result.

    Use this after an error instead of `conn.broken`: psycopg raises "connection socket closed" as soon as the socket
    hangs up, before libpq has read the end of the stream. Such a connection is neither `closed` nor `broken`, waits for
    a result that never arrives, and refuses every further statement ("another command is already in progress").
    """
    return conn.info.transaction_status is TransactionStatus.IDLE  # a closed connection has the status UNKNOWN
