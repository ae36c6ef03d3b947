"""Inspect roles and privileges in a schema: before privileges are granted, and for drift afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgflow.database import files
from pgflow.database.migration_files import functions, relations
from pgflow.database.statement import Statement
from pgflow.errors import RowSecurityError

__all__ = [
    "PrivilegeDrift",
    "Roles",
    "RowSecurity",
    "find_drift",
    "find_row_security",
    "inspect",
    "row_security_error",
]


@dataclass(frozen=True, slots=True)
class Roles:
    """Whether privileges can be granted to roles; the lists hold names of roles.

    `owned` is whether we may act as the schema's owner; `missing` roles do not exist; roles in `above` may act as the
    owner themselves; roles in `creating` may create objects in the schema.
    """

    owned: bool
    missing: list[str]
    above: list[str]
    creating: list[str]


@dataclass(frozen=True, slots=True)
class PrivilegeDrift:
    """An object whose privileges differ from those that the SQL files grant; `repair` is the SQL that restores them."""

    name: str
    fault: str
    repair: str

    def __str__(self) -> str:
        return f"{self.name}: {self.fault}"


@dataclass(frozen=True, slots=True)
class RowSecurity:
    """A table to which row-level security applies for a role.

    `forced`: it applies to the table's owner, too. `permitted`: policies let every row pass. `strict`: this session
    raises an error for a query that a policy would filter.
    """

    table: str
    role: str
    forced: bool
    permitted: bool
    strict: bool


def find_drift(schema: str) -> Statement[list[PrivilegeDrift]]:
    """Find privileges that differ from those that the SQL files grant; empty for a schema without our tables."""
    shipped = functions()
    params = {
        "schema": schema,
        "relations": sorted(relations()),
        "definers": sorted(shipped.definers),
        "pinned": sorted(shipped.pinned),
        "closed": sorted(shipped.closed),
    }
    query = files.load("queries/role/find_drift.sql", schema)
    return Statement("role/find_drift", query, params, lambda rows: [PrivilegeDrift(*row) for row in rows])


def find_row_security(schema: str, roles: Sequence[str] | None = None) -> Statement[list[RowSecurity]]:
    """Find the tables to which row-level security applies for their owner or for one of these roles.

    `roles` is None for all roles that have privileges on a table, empty for the session's own.
    """
    return Statement(
        "role/find_row_security",
        files.load("queries/role/find_row_security.sql", schema),
        {"schema": schema, "relations": sorted(relations()), "roles": None if roles is None else list(roles)},
        lambda rows: [RowSecurity(*row) for row in rows],
    )


def row_security_error(found: Sequence[RowSecurity]) -> RowSecurityError:
    """Return the error that names the tables in `found`, at least one, and the roles they hide rows from."""
    tables = list(dict.fromkeys(each.table for each in found))
    roles = list(dict.fromkeys(each.role for each in found))
    first = f"alter table {tables[0]} disable row level security"
    if all(each.permitted for each in found):
        hint = f"Policies let every row pass: set options=-c row_security=on in --dsn or PGFLOW_DSN, or run: {first}"
    else:
        hint = (
            f"As the owner of the tables, run for each: {first}; or exempt the role: alter role "
            f'"{roles[0]}" bypassrls. If an event trigger enables it, exempt pgflow\'s schema there.'
        )
    return RowSecurityError(f"row-level security hides rows of {', '.join(tables)} from {', '.join(roles)}", hint=hint)


def inspect(schema: str, roles: Sequence[str]) -> Statement[Roles | None]:
    """Inspect these roles; None for a schema without our tables."""
    return Statement(
        "role/inspect",
        files.load("queries/role/inspect.sql", schema),
        {"schema": schema, "roles": list(roles)},
        lambda rows: Roles(*rows[0]) if rows else None,
    )
