"""Assert what is enqueued: started or scheduled, and not begun by a worker."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from pgflow.client.app import App
from pgflow.client.task import Task
from pgflow.client.workflow import Workflow
from pgflow.core.models.filters import MAX_PAGE_SIZE
from pgflow.core.models.instance import Instance
from pgflow.core.models.job import Job
from pgflow.core.models.task import TaskInstance
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.containment import contains
from pgflow.core.values.payload import INPUT_LIMIT, decode, encode
from pgflow.errors import InvalidValue
from pgflow.local import Local

__all__ = ["Enqueued", "aassert_enqueued", "arefute_enqueued", "assert_enqueued", "refute_enqueued"]

P = ParamSpec("P")
R = TypeVar("R")

MAX_SHOWN = 20
NOT_ENDED = ("pending", "running")  # an instance without a delay is running as soon as it has started
PENDING = ("pending",)


@dataclass(frozen=True, slots=True)
class Enqueued:
    """Something that waits for a worker: an instance of the workflow `name`, or a job of the task `name`.

    `id` is the business id of the instance, or "job 17"; `number` its run id, or 17. `input` is its input as JSON, or
    the arguments by name; `at` is when it may begin.
    """

    name: str
    id: str
    number: int
    queue: str
    at: datetime
    tags: tuple[str, ...]
    input: Any

    def __str__(self) -> str:
        return _line(self.name, self.id, queue=self.queue, at=self.at, tags=self.tags, input=self.input)


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for, and where; None matches everything."""

    name: str
    value: str | None
    input: Any
    queue: str | None
    tags: tuple[str, ...]
    at: datetime | None
    within: timedelta
    app: App
    conn: Any

    def __str__(self) -> str:
        return _line(self.name, self.value, queue=self.queue, at=self.at, tags=self.tags, input=self.input)

    def matches(self, each: Enqueued) -> bool:
        """Whether something that is enqueued fits."""
        return (
            each.name == self.name
            and self.value in (None, each.id, each.id.partition("::")[2])
            and (self.input is ABSENT or contains(each.input, self.input))
            and self.queue in (None, each.queue)
            and set(self.tags) <= set(each.tags)
            and (self.at is None or abs(each.at - self.at) <= self.within)
        )


def _search(
    what: type[Workflow[Any]] | Task[..., Any, Any],
    value: str | None = None,
    /,
    *,
    input: Any = ABSENT,  # noqa: A002 -- the word for it in all of the API
    queue: str | None = None,
    tags: Iterable[str] = (),
    at: datetime | None = None,
    within: timedelta = timedelta(seconds=1),
    app: App | None = None,
    conn: Any = None,
    **fields: Any,
) -> Search:
    """Check the arguments of the assertions; see `assert_enqueued`."""
    if at is not None and at.tzinfo is None:
        raise InvalidValue(f"at must be an aware datetime, got {at!r}: datetime(2030, 1, 1, tzinfo=UTC)")
    if isinstance(tags, str):
        raise InvalidValue(f"tags must be a list of tags, got {tags!r}: write [{tags!r}]")
    if fields and input is not ABSENT:
        raise InvalidValue(f"give either input or fields of it, not both: {', '.join(fields)}")
    part = fields or input
    if part is not ABSENT:
        part = decode(encode(part, what="input", limit=INPUT_LIMIT))
    if isinstance(what, Task) and value is not None:
        raise InvalidValue(
            f"task {what.name} has no business value, got {value!r}: name the argument, as in order_id=7"
        )
    where = app or cast("App", what.bound())
    return Search(what.name, value, part, queue, tuple(tags), at, within, where, conn)


def _taking(parse: Callable[P, Search]) -> Callable[[Callable[[Search], R]], Callable[P, R]]:
    """Let a function of a search take the arguments of `parse` instead."""

    def decorate(check: Callable[[Search], R]) -> Callable[P, R]:
        @wraps(check)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return check(parse(*args, **kwargs))

        returns = inspect.signature(check).return_annotation
        signature = inspect.signature(parse).replace(return_annotation=returns)
        call.__signature__ = signature  # type: ignore[attr-defined]  # for help() and editors
        return call

    return decorate


@_taking(_search)
def assert_enqueued(search: Search) -> Enqueued:
    """Assert that a start of a workflow or a job of a task is stored that no worker has begun; returns the newest one.

    `value` is the workflow's business value or whole id. `input` is JSON that its input, or its arguments by name,
    contain, as `@>` in PostgreSQL; further keywords are the same for single ones. It has all of `tags`, is in `queue`,
    and may begin `at` that time, give or take `within`. `conn` is the connection of a transaction that is still open;
    for an async one use `aassert_enqueued`. `app` is by default the one that its calls go to. In a `Local`, which runs
    everything at once, it counts also after it has begun.

    Raises `AssertionError` with a list of what is enqueued.

        assert_enqueued(OrderFlow, "abc123", item_count=3, tags=["gift"], at=datetime(2030, 1, 1, tzinfo=UTC))
        assert_enqueued(send_receipt, order_id=7, queue="mail")
    """
    return _found(search, _read(search))


@_taking(_search)
async def aassert_enqueued(search: Search) -> Enqueued:
    """`assert_enqueued`, async."""
    return _found(search, await _aread(search))


@_taking(_search)
def refute_enqueued(search: Search) -> None:
    """Assert that `assert_enqueued` would find nothing. Raises `AssertionError` with what it finds.

    refute_enqueued(OrderFlow, item_count=0)
    """
    _refuted(search, _read(search))


@_taking(_search)
async def arefute_enqueued(search: Search) -> None:
    """`refute_enqueued`, async."""
    _refuted(search, await _aread(search))


def _found(search: Search, enqueued: list[Enqueued]) -> Enqueued:
    for each in enqueued:
        if search.matches(each):
            return each
    raise AssertionError(f"{search} is not enqueued. {_listed(search, enqueued)}")


def _refuted(search: Search, enqueued: list[Enqueued]) -> None:
    found = [each for each in enqueued if search.matches(each)]
    if found:
        raise AssertionError(f"{search} is enqueued:{_lines(found)}")


def _listed(search: Search, enqueued: list[Enqueued]) -> str:
    """Return what is enqueued, the most similar first."""
    if not enqueued:
        return "Nothing is."
    alike = sorted(enqueued, key=lambda each: each.name != search.name)
    return f"There is:{_lines(alike)}"


def _lines(enqueued: list[Enqueued]) -> str:
    shown = "".join(f"\n  {each}" for each in enqueued[:MAX_SHOWN])
    return shown + (f"\n  and {len(enqueued) - MAX_SHOWN} more" if len(enqueued) > MAX_SHOWN else "")


def _line(*names: str | None, queue: str | None, at: datetime | None, tags: Iterable[str], input: Any) -> str:  # noqa: A002 -- as above
    parts = [name for name in names if name is not None]
    if queue is not None:
        parts.append(f"queue={queue}")
    if at is not None:
        parts.append(f"at={at.astimezone(UTC).isoformat(timespec='seconds')}")
    if tags:
        parts.append(f"tags={','.join(tags)}")
    if input is not ABSENT:
        parts.append(f"input={json.dumps(input, sort_keys=True)}")
    return " ".join(parts)


def _read(search: Search) -> list[Enqueued]:
    client, conn = search.app, search.conn
    instances = client.list(limit=MAX_PAGE_SIZE, conn=conn, **_filters(client, NOT_ENDED))
    waiting = _waiting(client, instances, client.jobs(limit=MAX_PAGE_SIZE, conn=conn))
    if client.tasks:
        waiting += _jobs(client.list_tasks(limit=MAX_PAGE_SIZE, conn=conn, **_filters(client, PENDING)))
    return waiting


async def _aread(search: Search) -> list[Enqueued]:
    client, conn = search.app, search.conn
    instances = await client.alist(limit=MAX_PAGE_SIZE, conn=conn, **_filters(client, NOT_ENDED))
    waiting = _waiting(client, instances, await client.ajobs(limit=MAX_PAGE_SIZE, conn=conn))
    if client.tasks:
        waiting += _jobs(await client.alist_tasks(limit=MAX_PAGE_SIZE, conn=conn, **_filters(client, PENDING)))
    return waiting


def _filters(client: App, status: Sequence[str]) -> dict[str, Any]:
    return {} if isinstance(client, Local) else {"status": status}


def _jobs(tasks: list[TaskInstance]) -> list[Enqueued]:
    return [
        Enqueued(
            each.task, f"job {each.id}", each.id, each.queue, each.run_at or each.enqueued_at, each.tags, each.args
        )
        for each in tasks
    ]


def _waiting(client: App, instances: list[Instance], jobs: list[Job]) -> list[Enqueued]:
    """Return the instances whose first step no worker has begun; in a `Local` all of them."""
    by_run = {job.run: job for job in jobs if job.kind == "execute" and job.attempt == 0 and not job.errors}
    initial = {(each.graph.name, each.graph.version): each.graph.nodes[each.graph.initial] for each in client.versions}
    found = []
    for each in instances:
        node, job = initial.get((each.workflow, each.version)), by_run.get(each.run)
        if node is None:  # another app's
            continue
        queue, at = node.queue, each.created_at
        if job is not None and job.step == node.key and job.state in ("ready", "scheduled"):
            queue, at = job.queue, job.run_at or at
        elif not isinstance(client, Local):
            continue
        found.append(Enqueued(each.workflow, each.id, each.run, queue, at, each.tags, each.input))
    return found
