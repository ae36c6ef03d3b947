"""Cut a forked child off from the sessions of its parent.

A child inherits the sockets of its parent's connections. A byte that it sends there, the Terminate message of a closing
connection included, ends or corrupts a session that the parent still uses; and a socket that it only holds open keeps
the server from noticing that the parent was killed. So in each child these descriptors are replaced by a socket whose
other end is closed: whatever still uses such a connection gets an `OperationalError`, and the server sees nothing.
"""

import os
import socket
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakSet

import psycopg

from pgflow import process

__all__ = ["remember"]

C = TypeVar("C", bound="psycopg.Connection[Any] | psycopg.AsyncConnection[Any]")

_opened: WeakSet[psycopg.Connection[Any] | psycopg.AsyncConnection[Any]] = WeakSet()
_inherited: list[object] = []  # never collected: a thread of the parent may have been inside libpq when it forked


def remember(conn: C) -> C:
    """Let a forked child of this process be cut off from `conn`."""
    _opened.add(conn)
    return conn


def _cut_off() -> None:
    conns = list(_opened)
    _opened.clear()
    _inherited.extend(conns)
    if not conns:
        return
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        for conn in conns:
            with suppress(psycopg.Error, OSError):  # it was closed already
                os.dup2(ours.fileno(), conn.pgconn.socket, inheritable=False)


process.after_fork(_cut_off)
