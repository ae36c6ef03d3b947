"""Find out in which state a step has left its session."""

from __future__ import annotations

import select
from typing import Any

import psycopg
from psycopg import pq

__all__ = ["ABORTED", "DEALLOCATED", "ENDED", "IN_USE", "LOST", "session_fault"]

MAX_READS = 100  # a step may have left a stream open that never ends

ENDED = (
    "the step ended the transaction that it runs in, by a commit, a rollback or the like (or used RESET ALL): what it "
    "wrote before may be committed or lost. pgflow commits when the step returns a result; raise an error to roll back"
)
ABORTED = (
    "the step's transaction is aborted: the step caught a database error and went on. Let the error through, or run "
    "what may fail in a savepoint: with ctx.conn.transaction(): …"
)
IN_USE = (
    "the step returned while its connection was in use, by a thread or task, or by a COPY or stream that it left open: "
    "end these before the step returns"
)
PIPELINE = "the step left a pipeline open on its connection; end it before the step returns, best by `with`"
DEALLOCATED = (
    "the step used DEALLOCATE ALL, which also drops the statements that pgflow has prepared: deallocate your own "
    "statements by name"
)
LOST = "the step lost its connection"
CLOSED = "the step closed its connection, which pgflow needs to record the result; leave it open"


def session_fault(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> str | None:
    """Return what is wrong with the session of a step that has returned, None if its transaction can be settled."""
    if conn.closed:
        return LOST if conn.broken else CLOSED
    if conn._pipeline is not None or conn.pgconn.pipeline_status != pq.PipelineStatus.OFF:
        return PIPELINE
    match conn.pgconn.transaction_status:
        case pq.TransactionStatus.INTRANS:
            return None
        case pq.TransactionStatus.INERROR:
            return ABORTED
        case pq.TransactionStatus.ACTIVE:
            return LOST if _is_cut(conn.pgconn) else IN_USE
        case _:
            return ENDED


def _is_cut(pgconn: pq.abc.PGconn) -> bool:
    """Whether the server closed the connection in the middle of a query.

    psycopg raises an error as soon as the socket is closed; libpq notices, and `broken` is true, at its next read.
    """
    readable = select.poll()
    readable.register(pgconn.socket, select.POLLIN)
    try:
        for _ in range(MAX_READS):  # the end of the stream comes after the server's last messages
            if not readable.poll(0):
                break
            pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return pgconn.status == pq.ConnStatus.BAD
