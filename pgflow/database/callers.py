"""Check what a caller passes as `conn`: an open psycopg connection, sync for a sync call, async for an async one."""

from __future__ import annotations

from typing import Any

import psycopg

from pgflow.errors import ConfigError

__all__ = ["async_connection", "sync_connection"]

# What other libraries' objects are, by the package that defines their class, and how to get a psycopg connection.
# Compared by name: none of these packages is imported.
ELSEWHERE = {
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
HINT = "Pass an open psycopg.Connection, or leave conn away: pgflow then uses a connection of its own."
AHINT = "Pass an open psycopg.AsyncConnection, or leave conn away: pgflow then uses a connection of its own."


def sync_connection(conn: Any) -> psycopg.Connection[Any]:
    """Return `conn` if a sync call can run on it. Raises `ConfigError`."""
    if isinstance(conn, psycopg.AsyncConnection):
        hint = "Call the async method, whose name begins with a, or pass a psycopg.Connection."
        raise _refused("a psycopg.Connection", conn, hint)
    if not isinstance(conn, psycopg.Connection):
        raise _refused("a psycopg.Connection", conn, HINT)
    if conn.closed:
        raise ConfigError("conn is a closed connection", hint=HINT)
    return conn


def async_connection(conn: Any) -> psycopg.AsyncConnection[Any]:
    """Return `conn` if an async call can run on it. Raises `ConfigError`."""
    if isinstance(conn, psycopg.Connection):
        hint = "Call the sync method, whose name has no a before it, or pass a psycopg.AsyncConnection."
        raise _refused("a psycopg.AsyncConnection", conn, hint)
    if not isinstance(conn, psycopg.AsyncConnection):
        raise _refused("a psycopg.AsyncConnection", conn, AHINT)
    if conn.closed:
        raise ConfigError("conn is a closed connection", hint=AHINT)
    return conn


def _refused(wanted: str, conn: Any, hint: str) -> ConfigError:
    if isinstance(conn, type):
        return ConfigError(f"conn must be {wanted}, got the class {_name(conn)}", hint=hint)
    for kind in type(conn).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in ELSEWHERE:
            hint = ELSEWHERE[package]
            break
    if isinstance(conn, psycopg.Cursor | psycopg.AsyncCursor):
        hint = "Pass the connection of the cursor: cursor.connection."
    elif isinstance(conn, str):
        hint = "A connection string belongs in Pgflow(dsn). " + hint
    return ConfigError(f"conn must be {wanted}, got {_name(type(conn))}", hint=hint)


def _name(kind: type) -> str:
    """Return a class's name as users import it: without a value's repr, which may hold a password."""
    package = kind.__module__.partition(".")[0]
    return kind.__qualname__ if package == "builtins" else f"{package}.{kind.__qualname__}"
