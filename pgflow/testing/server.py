"""A PostgreSQL server for tests, and databases on it that are copies of a template."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgflow.database.connect import connect
from pgflow.embedded import EmbeddedPostgres
from pgflow.errors import ConfigError
from pgflow.migrations.migrate import up

__all__ = ["Server", "database", "migrated_template", "running"]


@dataclass(frozen=True, slots=True)
class Server:
    """A running PostgreSQL on which tests may create databases: an embedded one, or a given one."""

    dsn: str
    version: int

    def database_dsn(self, name: str) -> str:
        """Return the connection string of one of its databases."""
        return make_conninfo(self.dsn, dbname=name)

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, as a copy of `template` if given, and return its connection string.

        Raises `ConfigError` if the role may not.
        """
        statement = sql.SQL("create database {} template {}")
        try:
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template or "template1")))
        except psycopg.errors.InsufficientPrivilege as error:
            hint = "As a superuser: alter role … createdb. Or leave the DSN out, for a server of the tests' own."
            raise ConfigError(f"the role of the tests may not create databases: {error}", hint=hint) from error
        return self.database_dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, terminating the connections to it."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@contextmanager
def running(dsn: str | None = None) -> Iterator[Server]:
    """Yield the server of `dsn`, by default an embedded one, which ends with the `with`."""
    if dsn:
        with psycopg.connect(dsn) as connection:
            version = connection.info.server_version // 10_000
        yield Server(dsn, version)
        return
    with EmbeddedPostgres(durable=False) as postgres:
        yield Server(postgres.dsn, postgres.version)


@contextmanager
def database(server: Server, template: str | None = None) -> Iterator[str]:
    """Yield the connection string of a new database, a copy of the one named `template`; it is dropped at the end.

    Its name is unique on the server, so that several processes may share one.
    """
    name = f"pgflow_test_{os.getpid()}_{secrets.token_hex(4)}"
    dsn = server.create_database(name, template)
    try:
        yield dsn
    finally:
        server.drop_database(name)


@contextmanager
def migrated_template(server: Server, prepare: Callable[[str], object]) -> Iterator[str]:
    """Yield the name of a database with pgflow's schema and what `prepare(dsn)` adds, for `database` to copy."""
    with database(server) as dsn:
        with connect(dsn, role="migrate") as conn:
            up(conn)
            name = conn.info.dbname
        prepare(dsn)
        yield name
