"""Detach a forked child from the sessions of its parent.

A child inherits the sockets of its parent's connections. Any byte that it sends there, the Terminate message of a
closing connection included, ends or corrupts a session that the parent still uses. Even an unused inherited socket
keeps the server from noticing that the parent was killed. So each child replaces these descriptors by a socket whose
other end is closed: using such a connection raises an `OperationalError`, and the server sees nothing.
"""

import os
import socket
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakSet

import psycopg

from pgflow import process

__all__ = ["detach_in_children"]

C = TypeVar("C", bound="psycopg.Connection[Any] | psycopg.AsyncConnection[Any]")

_opened: WeakSet[psycopg.Connection[Any] | psycopg.AsyncConnection[Any]] = WeakSet()
_inherited: list[object] = []  # never collected: a thread of the parent may have been in libpq during the fork


def detach_in_children(conn: C) -> C:
    """Detach forked children of this process from `conn`, and return it."""
    _opened.add(conn)
    return conn


def _detach() -> None:
    conns = list(_opened)
    _opened.clear()
    _inherited.extend(conns)
    if not conns:
        return
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        for conn in conns:
            with suppress(psycopg.Error, OSError):  # it was already closed
                os.dup2(ours.fileno(), conn.pgconn.socket, inheritable=False)


process.after_fork(_detach)
