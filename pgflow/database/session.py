"""Turn what a caller passes as `conn` into a session: an open psycopg connection of the call's kind."""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg

from pgflow.errors import ConfigError

__all__ = ["ASYNC_SESSION", "SYNC_SESSION", "session_of"]

SYNC_SESSION: type[psycopg.Connection[Any]] = psycopg.Connection
ASYNC_SESSION: type[psycopg.AsyncConnection[Any]] = psycopg.AsyncConnection

C = TypeVar("C", psycopg.Connection[Any], psycopg.AsyncConnection[Any])

# How to get a psycopg connection from another library's object, by the package that defines its class.
# Compared by name: none of these packages is imported.
DRIVER_HINTS = {
    "sqlalchemy": "With its psycopg 3 dialect (postgresql+psycopg), pass the driver's connection: "
    "session.connection().connection.driver_connection; of an AsyncSession, "
    "(await (await session.connection()).get_raw_connection()).driver_connection.",
    "sqlmodel": "With the psycopg 3 dialect (postgresql+psycopg), pass the driver's connection: "
    "session.connection().connection.driver_connection.",
    "django": "With psycopg 3 installed, call connection.ensure_connection() and pass connection.connection.",
    "asyncpg": "pgflow uses psycopg 3: open a psycopg.AsyncConnection.",
    "psycopg2": "pgflow uses psycopg 3: open a psycopg.Connection.",
    "psycopg_pool": "Pass a connection of the pool: with pool.connection() as conn, or async with for an async pool.",
}


def session_of(conn: Any, kind: type[C]) -> C:
    """Return `conn` if it is an open connection of `kind`, `SYNC_SESSION` or `ASYNC_SESSION`.

    Raises `ConfigError` with how to get one from what was passed; its message holds no value, which may be a password.
    """
    if isinstance(conn, kind):
        if conn.closed:
            raise ConfigError("conn is a closed connection", hint=_default_hint(kind))
        return conn
    got = f"the class {_name(conn)}" if isinstance(conn, type) else _name(type(conn))
    raise ConfigError(f"conn must be a {_name(kind)}, got {got}", hint=_hint(conn, kind))


def _default_hint(kind: type[Any]) -> str:
    return f"Pass an open {_name(kind)}, or leave conn out: pgflow then uses a connection of its own."


def _hint(conn: Any, kind: type[Any]) -> str:
    if isinstance(conn, psycopg.AsyncConnection):
        return "Call the async method, whose name begins with a, or pass a psycopg.Connection."
    if isinstance(conn, psycopg.Connection):
        return "Call the sync method, without the a before its name, or pass a psycopg.AsyncConnection."
    if isinstance(conn, psycopg.Cursor | psycopg.AsyncCursor):
        return "Pass the connection of the cursor: cursor.connection."
    if isinstance(conn, str):
        return "A connection string belongs in Pgflow(dsn). " + _default_hint(kind)
    packages = () if isinstance(conn, type) else (each.__module__.partition(".")[0] for each in type(conn).__mro__)
    return next((DRIVER_HINTS[each] for each in packages if each in DRIVER_HINTS), _default_hint(kind))


def _name(kind: type) -> str:
    """Return a class's name as users import it."""
    package = kind.__module__.partition(".")[0]
    return kind.__qualname__ if package == "builtins" else f"{package}.{kind.__qualname__}"
