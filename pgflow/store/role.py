"""Look at roles and rights in a schema: before rights are given, and whether they are still as they were given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgflow.database import files
from pgflow.database.migration_files import functions, relations
from pgflow.database.statement import Statement
from pgflow.errors import RowSecurityError

__all__ = ["PrivilegeDrift", "Roles", "RowSecurity", "drift", "filtered", "inspect", "row_security_error"]


@dataclass(frozen=True, slots=True)
class Roles:
    """What stands against granting: names of roles.

    `owned` says whether we may act as the schema's owner; `missing` do not exist; those `above` may act as the owner
    themselves; those `creating` may put objects of their own into the schema.
    """

    owned: bool
    missing: list[str]
    above: list[str]
    creating: list[str]


@dataclass(frozen=True, slots=True)
class PrivilegeDrift:
    """An object of a schema whose rights are not those that the files give; `repair` is the SQL that restores them."""

    name: str
    fault: str
    repair: str

    def __str__(self) -> str:
        return f"{self.name}: {self.fault}"


@dataclass(frozen=True, slots=True)
class RowSecurity:
    """A table on which row-level security holds for a role.

    `forced` says that it holds for the table's owner, too, `permitted` that policies let every row pass, `strict` that
    this session refuses a query that a policy might filter.
    """

    table: str
    role: str
    forced: bool
    permitted: bool
    strict: bool


def drift(schema: str) -> Statement[list[PrivilegeDrift]]:
    """Find rights that are not those that the files give; empty where the schema has no tables of ours."""
    given = functions()
    params = {
        "schema": schema,
        "relations": sorted(relations()),
        "definers": sorted(given.definers),
        "pinned": sorted(given.pinned),
        "closed": sorted(given.closed),
    }
    query = files.load("queries/role/drift.sql", schema)
    return Statement("role/drift", query, params, lambda rows: [PrivilegeDrift(*row) for row in rows])


def filtered(schema: str, roles: Sequence[str] | None = None) -> Statement[list[RowSecurity]]:
    """Find the tables on which row-level security holds for their owner or for one of these roles.

    `roles` is None for all roles that have rights on a table, empty for the session's own.
    """
    return Statement(
        "role/filtered",
        files.load("queries/role/filtered.sql", schema),
        {"schema": schema, "relations": sorted(relations()), "roles": None if roles is None else list(roles)},
        lambda rows: [RowSecurity(*row) for row in rows],
    )


def row_security_error(found: Sequence[RowSecurity]) -> RowSecurityError:
    """Return the error that says which tables of `found`, at least one, hide rows from which roles."""
    tables = list(dict.fromkeys(each.table for each in found))
    roles = list(dict.fromkeys(each.role for each in found))
    first = f"alter table {tables[0]} disable row level security"
    if all(each.permitted for each in found):
        hint = f"Policies let every row pass: say options=-c row_security=on in --dsn or PGFLOW_DSN, or run: {first}"
    else:
        hint = (
            f"As the owner of the tables, run for each: {first}; or let the role pass: alter role "
            f'"{roles[0]}" bypassrls. If an event trigger switches it on, exempt pgflow\'s schema there.'
        )
    return RowSecurityError(f"row-level security hides rows of {', '.join(tables)} from {', '.join(roles)}", hint=hint)


def inspect(schema: str, roles: Sequence[str]) -> Statement[Roles | None]:
    """Look at these roles; None where the schema has no tables of ours."""
    return Statement(
        "role/inspect",
        files.load("queries/role/inspect.sql", schema),
        {"schema": schema, "roles": list(roles)},
        lambda rows: Roles(*rows[0]) if rows else None,
    )
