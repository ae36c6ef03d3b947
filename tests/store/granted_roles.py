"""A database whose schema belongs to a separate role, and roles to which `pgflow roles` has granted their parts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgflow.database.connect import Connection, connect
from pgflow.migrations import grants
from pgflow.migrations.migrate import up
from pgflow.testing.server import Server, database

__all__ = ["GrantedRoles"]

NUMBERS = count(1)
PASSWORD = "only-for-tests"  # noqa: S105 -- not a secret: the roles exist during the tests only


@dataclass(frozen=True, slots=True)
class GrantedRoles:
    """Roles by their part: client, worker, dashboard, and the owner, which is not a superuser."""

    admin: str  # the dsn of the superuser
    schema: str
    names: dict[str, str]

    @classmethod
    def create(cls, dsn: str, ends: ExitStack, schema: str = "pgflow") -> GrantedRoles:
        """Create the roles, migrate as the owner, and grant the parts; `ends` drops the roles."""
        number = next(NUMBERS)  # roles belong to the server, which several databases share
        names = {part: f"pgflow {os.getpid()} {number} {schema} {part}" for part in ("owner", *grants.PARTS)}
        parts = cls(dsn, schema, names)
        with connect(dsn, "test") as conn:
            for part, name in names.items():
                login = sql.SQL("nologin") if part == "owner" else sql.SQL("login password {}").format(PASSWORD)
                conn.execute(sql.SQL("create role {} {}").format(sql.Identifier(name), login))
        parts.let_owner_create()
        ends.callback(parts.drop)
        with parts.connect("owner", "migrate") as conn:
            up(conn, schema)
            grants.apply(conn, {part: [names[part]] for part in grants.PARTS}, schema)
        return parts

    def let_owner_create(self) -> None:
        """Let the owner create schemas in this database; a copy of the database does not inherit that."""
        with connect(self.admin, "test") as conn:
            names = sql.Identifier(conn.info.dbname), sql.Identifier(self.names["owner"])
            conn.execute(sql.SQL("grant create on database {} to {}").format(*names))

    @contextmanager
    def copied(self, server: Server) -> Iterator[GrantedRoles]:
        """Yield a copy of this database, which must have no connection, with the same roles."""
        with database(server, str(conninfo_to_dict(self.admin)["dbname"])) as dsn:
            copy = replace(self, admin=dsn)
            copy.let_owner_create()
            yield copy

    def dsn(self, part: str) -> str:
        """Return the connection string of a role; the owner, which cannot log in, through SET ROLE."""
        if part == "owner":
            name = self.names[part].replace(" ", "\\ ")
            return make_conninfo(self.admin, options=f"-c role={name}")
        return make_conninfo(self.admin, user=self.names[part], password=PASSWORD)

    def connect(self, part: str, role: str = "test") -> Connection:
        """Connect as the role with a part, or as "admin"."""
        return connect(self.admin if part == "admin" else self.dsn(part), role)

    def drop(self) -> None:
        """Drop the roles, and their objects and privileges in this database."""
        with connect(self.admin, "test") as conn:
            for name in self.names.values():
                conn.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(name)))
                conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))
