"""Count what a filter matches, and work off bulk operations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.numeric import Int8

from pgflow.core.models.bulk import Action, Skipped
from pgflow.core.models.query_terms import Kind
from pgflow.core.values.payload import decode
from pgflow.database import files
from pgflow.database.statement import Row, Statement

__all__ = ["BatchResult", "CountResult", "batch", "begin", "count"]


@dataclass(frozen=True, slots=True)
class CountResult:
    """How many instances of a page match, by status, and the page's last run; None after the last page."""

    states: Mapping[str, int]
    last: int | None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What one batch did, and the counts of the operation so far."""

    action: Action
    skipped: Sequence[Skipped]
    is_finished: bool
    matched: int
    changed: int
    total_skipped: int


def count(
    schema: str, document: Mapping[str, Any], *, kind: Kind, after: int = 0, limit: int = 10_000
) -> Statement[CountResult]:
    """Count the matching instances or tasks after run or job `after`, at most `limit`."""
    params = {"kind": kind, "filter": json.dumps(document), "after": Int8(after), "limit": limit}
    query = files.load("queries/bulk/count.sql", schema)
    return Statement("bulk/count", query, params, lambda rows: CountResult(**decode(rows[0][0])))


def begin(
    schema: str,
    action: str,
    document: Mapping[str, Any],
    *,
    options: Mapping[str, Any],
    text: str,
    who: str | None,
    kinds: Sequence[Kind] = ("workflow",),
) -> Statement[int]:
    """Begin an operation; returns its number. `text` is the filter as written, for the audit."""
    params = {
        "action": action,
        "filter": json.dumps(document),
        "options": json.dumps(dict(options)),
        "text": text,
        "who": who,
        "kinds": list(kinds),
    }
    query = files.load("queries/bulk/begin.sql", schema)
    return Statement("bulk/begin", query, params, lambda rows: int(rows[0][0]))


def batch(schema: str, operation: int, *, limit: int, notify: bool = True) -> Statement[BatchResult]:
    """Work off the next batch of an operation. It may be sent again after its answer was lost."""
    params = {"operation": Int8(operation), "limit": limit, "notify": notify}
    return Statement("bulk/batch", files.load("queries/bulk/batch.sql", schema), params, _batch)


def _batch(rows: Sequence[Row]) -> BatchResult:
    result = decode(rows[0][0])
    total = result["total"]
    return BatchResult(
        action=result["action"],
        skipped=[Skipped(each["id"], each["reason"], each.get("run"), each.get("job")) for each in result["skipped"]],
        is_finished=result["finished"],
        matched=total["matched"],
        changed=total["changed"],
        total_skipped=total["skipped"],
    )
