"""Record and list what operators did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pgflow.core.values.payload import decode
from pgflow.database import files
from pgflow.database.statement import Row, Statement

__all__ = ["AuditEntry", "forget", "identify", "list"]

Builtin = list  # this module's `list` is the verb


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One action: when, who (the database user, and in parentheses the name that was given), what, and its details."""

    id: int
    at: datetime
    who: str
    action: str
    details: Mapping[str, Any]


def identify(schema: str, who: str | None) -> Statement[None]:
    """Name the person whose actions the rest of the transaction records; None leaves the database user alone."""
    query = files.load("queries/audit/identify.sql", schema)
    return Statement("audit/identify", query, {"who": who}, lambda rows: None)


def forget(schema: str, age: timedelta, limit: int = 1000) -> Statement[bool]:
    """Delete at most `limit` actions older than `age`; returns whether there may be more."""
    params = {"age": age.total_seconds(), "limit": limit}
    query = files.load("queries/audit/forget.sql", schema)
    return Statement("audit/forget", query, params, lambda rows: rows[0][0] >= limit)


def list(  # noqa: A001 -- path is name: audit/list.sql
    schema: str, *, action: str | None = None, who: str | None = None, before: int | None = None, limit: int = 50
) -> Statement[Builtin[AuditEntry]]:
    """List actions, newest first: those whose action begins with `action`, and whose `who` contains this text."""
    params = {"action": action, "who": who, "before": before, "limit": limit}
    query = files.load("queries/audit/list.sql", schema)
    return Statement("audit/list", query, params, _entries)


def _entries(rows: Sequence[Row]) -> Builtin[AuditEntry]:
    return [AuditEntry(number, at, who, action, decode(details)) for number, at, who, action, details in rows]
