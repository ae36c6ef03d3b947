"""Change many instances at once, by filter: in batches, with a dry run, and with a record of what was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypedDict, Unpack

from pgflow.client.backend import Backend
from pgflow.client.commands import Bulk, ResumeBulk
from pgflow.client.statements import Write
from pgflow.core.definition.options import is_priority
from pgflow.core.models.bulk import APPLICABLE, APPLICABLE_TASKS, Action, BulkResult, Skipped
from pgflow.core.models.query import Query, parse
from pgflow.core.values.names import check_options, is_queue
from pgflow.core.values.query_args import check_text, is_integer, refuse
from pgflow.database.statement import Statement
from pgflow.errors import InvalidValue
from pgflow.store import bulk

__all__ = ["BulkOperations", "BulkOptions", "bulk_command", "working_off", "working_off_rest"]

MAX_BATCH = 5000
MAX_REASONS = 1000  # skipped instances that a result lists
EXAMPLE = "Write a filter, such as state:failed queue:mail age:>1h."

Plan: TypeAlias = Generator[Statement[Any] | Write[Any], Any, BulkResult]


class BulkOptions(TypedDict, total=False):
    """Options of every bulk operation.

    - `dry_run`: only count what the filter matches.
    - `by`: the name that the audit records beside the database user.
    - `batch`: how many instances one transaction changes, from 1 to 5,000, by default 500.
    - `on_progress`: called after each batch with how many instances were worked off, and how many there are.
    """

    dry_run: bool
    by: str | None
    batch: int
    on_progress: Callable[[int, int], None] | None


class BulkOperations:
    """Operations on all instances and tasks that a filter matches: `app.bulk`.

    `filter` is a text of the filter language, see `pgflow.core.models.query`, or what `parse` made of it; one without a
    key of workflows or of tasks covers both. Each operation covers what exists when it begins, in batches with a
    transaction each. It is recorded in the audit with its counts, and continues after an interruption with `resume`.
    What it cannot change is skipped and reported. Needs the part `--operator` of `pgflow roles`, or the owner.

    All raise `InvalidFilter` for a filter that cannot be read, and `InvalidValue` for an empty one.

        found = app.bulk.retry("state:failed queue:mail error:timeout", dry_run=True)
        print(found.matched)
        done = app.bulk.retry("state:failed queue:mail error:timeout", by="ada")
        print(done.changed, done.skipped)
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def retry(self, filter: str | Query, **options: Unpack[BulkOptions]) -> BulkResult:  # noqa: A002
        """Retry the failed instances, each from its failed step, as `retry` does.

        Only the newest run of a business id is retried; an older one is skipped.
        """
        return self._backend.execute(bulk_command("retry", filter, {}, options))

    async def aretry(self, filter: str | Query, **options: Unpack[BulkOptions]) -> BulkResult:  # noqa: A002
        """`retry`, async."""
        return await self._backend.aexecute(bulk_command("retry", filter, {}, options))

    def cancel(
        self,
        filter: str | Query,  # noqa: A002 -- the word for it in all of the API
        *,
        reason: str | None = None,
        **options: Unpack[BulkOptions],
    ) -> BulkResult:
        """Cancel the active instances; `reason` becomes their error."""
        return self._backend.execute(bulk_command("cancel", filter, {"reason": reason}, options))

    async def acancel(
        self,
        filter: str | Query,  # noqa: A002 -- as in cancel
        *,
        reason: str | None = None,
        **options: Unpack[BulkOptions],
    ) -> BulkResult:
        """`cancel`, async."""
        return await self._backend.aexecute(bulk_command("cancel", filter, {"reason": reason}, options))

    def move(self, filter: str | Query, *, queue: str, **options: Unpack[BulkOptions]) -> BulkResult:  # noqa: A002
        """Move the steps that wait for a worker to another queue. The steps after them run in their own queues."""
        return self._backend.execute(bulk_command("move", filter, {"queue": queue}, options))

    async def amove(self, filter: str | Query, *, queue: str, **options: Unpack[BulkOptions]) -> BulkResult:  # noqa: A002
        """`move`, async."""
        return await self._backend.aexecute(bulk_command("move", filter, {"queue": queue}, options))

    def reprioritise(self, filter: str | Query, *, priority: int, **options: Unpack[BulkOptions]) -> BulkResult:  # noqa: A002
        """Set the priority of the active instances, from -32768 (first) to 32767; steps that run keep theirs."""
        return self._backend.execute(bulk_command("reprioritise", filter, {"priority": priority}, options))

    async def areprioritise(
        self,
        filter: str | Query,  # noqa: A002 -- as in cancel
        *,
        priority: int,
        **options: Unpack[BulkOptions],
    ) -> BulkResult:
        """`reprioritise`, async."""
        return await self._backend.aexecute(bulk_command("reprioritise", filter, {"priority": priority}, options))

    def reschedule(
        self,
        filter: str | Query,  # noqa: A002 -- as in cancel
        *,
        at: datetime,
        **options: Unpack[BulkOptions],
    ) -> BulkResult:
        """Run the steps that wait for a worker or the next attempt at `at`, an aware datetime; the past is now."""
        return self._backend.execute(bulk_command("reschedule", filter, {"at": at}, options))

    async def areschedule(
        self,
        filter: str | Query,  # noqa: A002 -- as in cancel
        *,
        at: datetime,
        **options: Unpack[BulkOptions],
    ) -> BulkResult:
        """`reschedule`, async."""
        return await self._backend.aexecute(bulk_command("reschedule", filter, {"at": at}, options))

    def delete(self, filter: str | Query, **options: Unpack[BulkOptions]) -> BulkResult:  # noqa: A002
        """Delete the instances that have ended, with their histories. Active ones are skipped: cancel them first."""
        return self._backend.execute(bulk_command("delete", filter, {}, options))

    async def adelete(self, filter: str | Query, **options: Unpack[BulkOptions]) -> BulkResult:  # noqa: A002
        """`delete`, async."""
        return await self._backend.aexecute(bulk_command("delete", filter, {}, options))

    def resume(self, operation: int, *, batch: int = 500) -> BulkResult:
        """Continue an operation that was interrupted; returns its counts in total, also of one that has finished.

        `operation` is the number of its audit row: `result.operation`, or from `pgflow audit list`. Raises
        `InstanceNotFound` for a number that is not that of a bulk operation.
        """
        return self._backend.execute(ResumeBulk(operation, _batch(batch)))

    async def aresume(self, operation: int, *, batch: int = 500) -> BulkResult:
        """`resume`, async."""
        return await self._backend.aexecute(ResumeBulk(operation, _batch(batch)))


def bulk_command(action: Action, filter: str | Query, given: Mapping[str, Any], options: BulkOptions) -> Bulk:  # noqa: A002
    """Return the command of an operation, validated: `given` are the options of the action. Raises `InvalidValue`."""
    check_options("option", options, BulkOptions)
    query = parse(filter) if isinstance(filter, str) else filter
    if not query:
        raise InvalidValue("the filter is empty, and would match everything", hint=EXAMPLE)
    chosen = {name: value for name, value in given.items() if value is not None or name != "reason"}
    check_text("reason", chosen.get("reason"))
    check_text("by", options.get("by"))
    if "queue" in chosen and not is_queue(chosen["queue"]):
        refuse("queue", chosen["queue"], "a queue has up to 63 letters, digits, '_', '-' and '.'")
    if "priority" in chosen and not is_priority(chosen["priority"]):
        refuse("priority", chosen["priority"], "it must be a whole number from -32768 (first) to 32767 (last)")
    if "at" in chosen:
        chosen["at"] = _time(chosen["at"])
    return Bulk(
        action,
        query,
        chosen,
        dry_run=options.get("dry_run", False),
        by=options.get("by"),
        batch=_batch(options.get("batch", 500)),
        on_progress=options.get("on_progress"),
    )


def _time(at: Any) -> str:
    if not isinstance(at, datetime) or at.tzinfo is None:
        refuse("at", at, "it must be a datetime with a time zone", "datetime.now(UTC) + timedelta(hours=1)")
    return at.astimezone(UTC).isoformat()


def _batch(size: Any) -> int:
    if not is_integer(size, 1, MAX_BATCH):
        refuse("batch", size, f"it must be a whole number from 1 to {MAX_BATCH:,}")
    return int(size)


def working_off(schema: str, command: Bulk) -> Plan:
    """Return the plan of an operation: count if that is needed, begin, then batch after batch."""
    document, kinds = command.filter.document(), command.filter.kinds
    states: Counter[str] = Counter()
    applicable = 0
    for kind in kinds if command.dry_run or command.on_progress is not None else ():
        after: int | None = 0
        while after is not None:
            page = yield bulk.count(schema, document, kind=kind, after=after)
            states.update(page.states)
            allowed = (APPLICABLE if kind == "workflow" else APPLICABLE_TASKS)[command.action]
            applicable += sum(count for state, count in page.states.items() if state in allowed)
            after = page.last
    if command.dry_run:
        matched = states.total()
        return BulkResult(command.action, matched, applicable, matched - applicable, states=dict(states))
    begin = bulk.begin(
        schema, command.action, document, options=command.options, text=command.filter.text, who=command.by, kinds=kinds
    )
    operation = yield Write(f"bulk {command.action}", lambda notify: begin, int)
    return (yield from _batches(schema, operation, command.batch, command.action, states.total(), command.on_progress))


def working_off_rest(schema: str, command: ResumeBulk) -> Plan:
    """Return the plan that continues an operation."""
    return (yield from _batches(schema, command.operation, command.batch, None, 0, None))


def _batches(
    schema: str,
    operation: int,
    size: int,
    action: Action | None,
    expected: int,
    on_progress: Callable[[int, int], None] | None,
) -> Plan:
    reasons: list[Skipped] = []
    while True:
        done = yield bulk.batch(schema, operation, limit=size)
        reasons += done.skipped[: MAX_REASONS - len(reasons)]
        if on_progress is not None:
            on_progress(done.matched, max(expected, done.matched))
        if done.is_finished:
            return BulkResult(
                action or done.action,
                done.matched,
                done.changed,
                done.total_skipped,
                tuple(reasons),
                operation=operation,
            )
