"""Look at the database's roles before they are given rights in a schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgflow.store import files
from pgflow.store.statement import Statement

__all__ = ["Roles", "inspect"]


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


def inspect(schema: str, roles: Sequence[str]) -> Statement[Roles | None]:
    """Look at these roles; None where the schema has no tables of ours."""
    return Statement(
        "role/inspect",
        files.load("queries/role/inspect.sql", schema),
        {"schema": schema, "roles": list(roles)},
        lambda rows: Roles(*rows[0]) if rows else None,
    )
