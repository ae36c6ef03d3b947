"""The audit: who did what, newest first."""

from __future__ import annotations

import json
from datetime import datetime

from pydantic import BaseModel, Field

from pgflow.store import audit
from pgflow.store.audit import AuditEntry
from pgflow.web.rendering.values import Value, value_of
from pgflow.web.routing.page import Model, Page, Params, View

__all__ = ["PAGE", "Audit"]

PAGE_SIZE = 50
LARGEST_PAGE = 200
INTERNAL = ("document", "kinds", "after", "until")  # of a bulk operation: its position


class AuditParams(Params):
    """Filters, and `before`: the id of the previous page's last row."""

    action: str = Field("", max_length=200, description="How the action begins, such as `bulk`")
    who: str = Field("", max_length=200, description="A part of who did it")
    before: int | None = Field(None, ge=0, le=2**63 - 1, description="Older actions than this id")
    limit: int = Field(PAGE_SIZE, ge=1, le=LARGEST_PAGE, description="Actions on a page")


class AuditRow(BaseModel):
    """One action: `role` is the database user, `person` the name that was given."""

    id: str
    at: datetime
    role: str
    person: str | None
    action: str
    details: Value
    run: str | None
    job: str | None


class Audit(Model):
    """A page of actions, newest first."""

    rows: tuple[AuditRow, ...]
    older: str | None


async def load(view: View[AuditParams]) -> Audit:
    """Read a page."""
    params, settings = view.params, view.context.settings
    found = await view.read(
        audit.list(
            view.schema,
            action=params.action or None,
            who=params.who or None,
            before=params.before,
            limit=params.limit + 1,
        )
    )

    def row(each: AuditEntry) -> AuditRow:
        role, _, person = each.who.partition(" (")
        details = {key: value for key, value in each.details.items() if key not in INTERNAL and value not in (None, {})}
        text = json.dumps(details, ensure_ascii=False)
        run, job = each.details.get("run"), each.details.get("job")
        return AuditRow(
            id=str(each.id),
            at=each.at,
            role=role,
            person=person.removesuffix(")") or None,
            action=each.action,
            details=value_of(text, None, settings.hidden_keys),
            run=None if run is None else str(run),
            job=None if job is None else str(job),
        )

    rows = tuple(map(row, found[: params.limit]))
    return Audit(rows=rows, older=rows[-1].id if len(found) > params.limit else None)


PAGE = Page("audit", "/audit", "Audit", Audit, load, AuditParams)
