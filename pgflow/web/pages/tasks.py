"""The list of tasks: a filter in the URL, pages by key, bounded counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, TypeAlias

from pydantic import BaseModel, Field

from pgflow.core.models.query import Query, parse
from pgflow.errors import InvalidFilter
from pgflow.store import summary, task
from pgflow.store.task_rows import Listed
from pgflow.web.pages.filters import Listing, chips, tabs
from pgflow.web.rendering.values import Value, value_of
from pgflow.web.rendering.words import COUNT_LIMIT
from pgflow.web.routing.page import Nav, Page, Params, Problem, View

__all__ = ["PAGE", "Row", "Tasks", "TasksParams"]

PAGE_SIZE = 50
LARGEST_PAGE = 200
LINE_BYTES = 2000  # of arguments in the table
STATE_TABS = ("pending", "running", "waiting", "failed", "completed", "cancelled")

Job: TypeAlias = Annotated[int, Field(ge=0, le=2**63 - 1)]


class TasksParams(Params):
    """`q` is a filter; `before` and `after` are the id of the previous page's last and first row."""

    q: str = Field("", description="A filter, such as `state:failed task:send_receipt age:>1h`")
    before: Job | None = Field(None, description="Older tasks than this id")
    after: Job | None = Field(None, description="Newer tasks than this id")
    limit: int = Field(PAGE_SIZE, ge=1, le=LARGEST_PAGE, description="Tasks on a page")


class Row(BaseModel):
    """One execution of a task.

    `state` is ready, scheduled, running, retrying or held while it is live, then completed, failed or cancelled.
    `waited` is how long after its enqueue its last attempt started, `ran` how long that took; seconds.
    """

    id: str
    task: str
    state: str
    args: Value
    queue: str
    priority: int
    attempt: int
    max_attempts: int
    enqueued_at: datetime
    run_at: datetime | None
    finished_at: datetime | None
    waited: float | None
    ran: float | None
    worker: str | None
    error: str | None
    tags: tuple[str, ...]


class Tasks(Listing):
    """A page of tasks."""

    rows: tuple[Row, ...]
    tasks: tuple[str, ...] = ()


async def load(view: View[TasksParams]) -> Tasks:
    """Read a page. An invalid filter is the page's problem, and lists nothing."""
    schema, text = view.schema, view.params.q.strip()
    states = await view.read(task.states(schema, limit=COUNT_LIMIT + 1))
    names = tuple(await view.read(task.names(schema)))
    try:
        query = parse(text, kind="task")
    except InvalidFilter as error:
        problem = Problem(code=error.code, message=str(error), hint=error.hint)
        return Tasks(q=text, rows=(), tabs=tuple(tabs("", STATE_TABS, states)), tasks=names, problem=problem)
    found, newer, older = await _page(view, query)
    hidden, shows_data = view.context.settings.hidden_keys, view.context.settings.shows_data
    rows = tuple(_row(each, value_of(each.args or "", each.args_size, hidden, shows_data=shows_data)) for each in found)
    matching = await view.read(task.count(schema, query.document(), limit=COUNT_LIMIT + 1)) if query else None
    is_first_use = not rows and not query and not any(states.values())
    return Tasks(
        q=text,
        rows=rows,
        chips=tuple(chips(text)),
        tabs=tuple(tabs(text, STATE_TABS, states)),
        matching=matching,
        newer=newer,
        older=older,
        is_first_use=is_first_use,
        has_workers=not is_first_use or (await view.read(summary.workers(schema))).alive > 0,
        tasks=names,
    )


async def _page(view: View[TasksParams], query: Query) -> tuple[Sequence[Listed], str | None, str | None]:
    """Return the rows of a page, newest first, and the keys of the pages beside it."""
    params, document = view.params, query.document()
    if params.after is not None:  # read from the key upwards, and turned round
        upwards = task.page(
            view.schema, document, after=params.after, oldest=True, limit=params.limit + 1, size=LINE_BYTES
        )
        found = await view.read(upwards)
        has_more, rows = len(found) > params.limit, found[: params.limit][::-1]
        return rows, str(rows[0].id) if has_more else None, str(rows[-1].id) if rows else None
    found = await view.read(
        task.page(view.schema, document, before=params.before, limit=params.limit + 1, size=LINE_BYTES)
    )
    has_more, rows = len(found) > params.limit, found[: params.limit]
    newer = str(rows[0].id) if params.before is not None and rows else None
    return rows, newer, str(rows[-1].id) if has_more else None


def _row(each: Listed, args: Value) -> Row:
    error = None
    if each.error_reason is not None:
        error = (
            f"{each.error_type}: {each.error_reason}" if each.error_type not in (None, "Error") else each.error_reason
        )
    started, finished = each.started_at, each.finished_at
    return Row(
        id=str(each.id),
        task=each.task,
        state=each.state,
        args=args,
        queue=each.queue,
        priority=each.priority,
        attempt=each.attempt,
        max_attempts=each.max_attempts,
        enqueued_at=each.enqueued_at,
        run_at=each.run_at,
        finished_at=finished,
        waited=None if started is None else (started - each.enqueued_at).total_seconds(),
        ran=None if started is None or finished is None else (finished - started).total_seconds(),
        worker=None if each.worker is None else str(each.worker),
        error=error,
        tags=each.tags,
    )


PAGE = Page("tasks", "/tasks", "Tasks", Tasks, load, TasksParams, nav=Nav("Tasks", "t", 3))
