"""The list of instances: a filter in the URL, pages by key, bounded counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, TypeAlias

from pydantic import BaseModel, Field

from pgflow.core.models.query import Query, parse
from pgflow.errors import InvalidFilter
from pgflow.store import definition, run, summary
from pgflow.store.run_rows import Listed, ListedJob
from pgflow.web.pages.filters import Listing, chips, quoted, tabs
from pgflow.web.rendering.words import COUNT_LIMIT
from pgflow.web.routing.page import Nav, Page, Params, Problem, View

__all__ = ["PAGE", "Instances", "InstancesParams", "Row"]

PAGE_SIZE = 50
LARGEST_PAGE = 200
STATE_TABS = ("running", "waiting", "pending", "failed", "completed", "cancelled")

Run: TypeAlias = Annotated[int, Field(ge=0, le=2**63 - 1)]


class InstancesParams(Params):
    """`q` is a filter; `before` and `after` are the run of the previous page's last and first row."""

    q: str = Field("", description="A filter, such as `state:failed workflow:OrderFlow age:>1h`")
    id: str = Field("", max_length=2000, description="A business id, or the value in it: short for `q=id:…`")
    before: Run | None = Field(None, description="Older instances than this run")
    after: Run | None = Field(None, description="Newer instances than this run")
    limit: int = Field(PAGE_SIZE, ge=1, le=LARGEST_PAGE, description="Instances on a page")


class Row(BaseModel):
    """One instance: where it is (`now`), and how many of its steps are `done`, of `total`."""

    run: str
    id: str
    workflow: str
    version: int
    state: str
    tags: tuple[str, ...]
    started_at: datetime
    finished_at: datetime | None
    deadline: datetime | None
    now: str
    error: str | None
    done: int
    total: int | None


class Instances(Listing):
    """A page of instances."""

    rows: tuple[Row, ...]
    workflows: tuple[str, ...] = ()


async def load(view: View[InstancesParams]) -> Instances:
    """Read a page. An invalid filter is the page's problem, and lists nothing."""
    params, schema = view.params, view.schema
    text = " ".join(filter(None, (params.q.strip(), f"id:{quoted(params.id)}" if params.id else "")))
    states = await view.read(run.states(schema, limit=COUNT_LIMIT + 1))
    workers = await view.read(summary.workers(schema))
    names = tuple(await view.read(definition.names(schema)))
    try:
        query = parse(text, kind="workflow")
    except InvalidFilter as error:
        problem = Problem(code=error.code, message=str(error), hint=error.hint)
        every = tuple(tabs("", STATE_TABS, states))
        return Instances(q=text, rows=(), tabs=every, workflows=names, problem=problem)
    rows, newer, older = await _page(view, query)
    matching = await view.read(run.count(schema, query.document(), limit=COUNT_LIMIT + 1)) if query else None
    return Instances(
        q=text,
        rows=tuple(map(_row, rows)),
        chips=tuple(chips(text)),
        tabs=tuple(tabs(text, STATE_TABS, states)),
        matching=matching,
        newer=newer,
        older=older,
        is_first_use=not rows and not query and not any(states.values()),
        has_workers=workers.alive > 0,
        workflows=names,
    )


async def _page(view: View[InstancesParams], query: Query) -> tuple[Sequence[Listed], str | None, str | None]:
    """Return the rows of a page, newest first, and the keys of the pages beside it."""
    params, document, schema = view.params, query.document(), view.schema
    if params.after is not None:  # read from the key upwards, and turned round
        found = await view.read(run.page(schema, document, after=params.after, oldest=True, limit=params.limit + 1))
        has_more, rows = len(found) > params.limit, found[: params.limit][::-1]
        return rows, str(rows[0].run) if has_more else None, str(rows[-1].run) if rows else None
    found = await view.read(run.page(schema, document, before=params.before, limit=params.limit + 1))
    has_more, rows = len(found) > params.limit, found[: params.limit]
    newer = str(rows[0].run) if params.before is not None and rows else None
    return rows, newer, str(rows[-1].run) if has_more else None


def _row(each: Listed) -> Row:
    held = each.status in ("running", "waiting") and any(map(_is_held, each.jobs))
    error = None
    if each.error_reason is not None and each.status in ("failed", "cancelled"):
        kind = f"{each.error_type}: " if each.error_type not in (None, "Error") else ""
        error = f"{kind}{each.error_reason}"
    return Row(
        run=str(each.run),
        id=each.id,
        workflow=each.workflow,
        version=each.version,
        state="held" if held else each.status,
        tags=each.tags,
        started_at=each.created_at,
        finished_at=each.finished_at,
        deadline=each.deadline,
        now=_now(each),
        error=error,
        done=min(each.done, 1000),
        total=each.total,
    )


def _is_held(job: ListedJob) -> bool:
    return job.state == "parked" and job.kind == "execute"


def _now(each: Listed) -> str:
    if each.status == "failed":
        return each.error_step or ""
    names = [job.step for job in sorted(each.jobs, key=lambda job: not _is_held(job)) if job.step]
    more = each.job_count - len(each.jobs)
    return ", ".join(names) + (f", {more} more" if more > 0 and names else "")


PAGE = Page("instances", "/instances", "Instances", Instances, load, InstancesParams, nav=Nav("Instances", "i", 2))
