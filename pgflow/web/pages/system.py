"""The system: what the doctor finds, as `pgflow doctor` prints it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from weakref import WeakKeyDictionary

from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from pgflow.doctor.checks import examine
from pgflow.doctor.finding import NOTE, PROBLEM, Finding
from pgflow.store import summary
from pgflow.web.data import Database
from pgflow.web.routing.context import Context
from pgflow.web.routing.page import Model, Nav, Page, Params, View

__all__ = ["PAGE", "System"]

FRESH = 60.0  # seconds: an examination connects several times, and so its findings are kept
AGAIN = 10.0  # seconds, when a person asks to check again: the page is also fetched again by itself
STATES = {PROBLEM: "problem", NOTE: "note"}


class SystemParams(Params):
    """`again` examines now, if that was not done within the last ten seconds."""

    again: bool = Field(
        False, description="Examine again, also if that was done within the last minute but not within ten seconds"
    )


class FindingRow(BaseModel):
    """One finding: `state` is problem, note or completed (in order); `fix` is the command or setting to apply."""

    check: str
    state: str
    what: str
    why: str
    fix: str | None


class System(Model):
    """The findings, problems first, and what was examined."""

    findings: tuple[FindingRow, ...]
    checked_at: datetime
    seconds: float
    server_version: str
    migration: int | None
    is_replica: bool
    place: str
    schema_name: str
    query_timeout: float

    @property
    def counts(self) -> Counter[str]:
        """How many findings there are of each state."""
        return Counter(each.state for each in self.findings)


@dataclass(slots=True)
class Examination:
    """The last examination of a database, and the lock that lets one request at a time repeat it.

    `ended` is on this machine's monotonic clock, None before the first one.
    """

    lock: asyncio.Lock
    findings: list[Finding]
    at: datetime
    ended: float | None = None
    seconds: float = 0.0


_examined: WeakKeyDictionary[Database, Examination] = WeakKeyDictionary()


async def load(view: View[SystemParams]) -> System:
    """Read the findings. Raises `SchemaError` when there is no schema to examine."""
    context = view.context
    about = await view.read(summary.about(view.schema))
    done = await _examination(context, is_again=view.params.again)
    order = (PROBLEM, NOTE)
    findings = sorted(done.findings, key=lambda each: order.index(each.state) if each.state in order else len(order))
    return System(
        findings=tuple(
            FindingRow(
                check=each.check,
                state=STATES.get(each.state, "completed"),
                what=each.what,
                why=each.why,
                fix=each.fix,
            )
            for each in findings
        ),
        checked_at=done.at,
        seconds=done.seconds,
        server_version=about.server_version,
        migration=about.migration,
        is_replica=about.is_replica,
        place=context.database.place,
        schema_name=view.schema,
        query_timeout=context.settings.query_timeout.total_seconds(),
    )


async def _examination(context: Context, *, is_again: bool) -> Examination:
    database, app = context.database, context.app
    known = _examined.setdefault(database, Examination(asyncio.Lock(), [], datetime.now(UTC)))
    async with known.lock:
        began = monotonic()
        if known.ended is None or began - known.ended > (AGAIN if is_again else FRESH):
            known.findings = await run_in_threadpool(
                examine, database.dsn, database.schema, app, uses_pooler=database.pooler
            )
            known.at, known.ended = datetime.now(UTC), monotonic()
            known.seconds = known.ended - began
    return known


PAGE = Page("system", "/system", "System", System, load, SystemParams, nav=Nav("System", "y", 8))
