"""Delete instances that ended long ago, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta

from pgflow.client.commands import ENDED
from pgflow.core.values.duration import is_duration
from pgflow.database.statement import Statement
from pgflow.errors import InvalidValue
from pgflow.store import instance, retention
from pgflow.store.instance import PruneResult
from pgflow.store.retention import Ages

__all__ = ["Pages", "pruning", "pruning_orphans"]


class Pages:
    """The statements that delete, batch after batch. Pass the answer of each to `took` before the next."""

    def __init__(self, page: Callable[[int], Statement[PruneResult]]) -> None:
        self._page = page
        self._after: int | None = 0

    def __iter__(self) -> Iterator[Statement[PruneResult]]:
        while self._after is not None:
            yield self._page(self._after)

    def took(self, page: PruneResult) -> int:
        """Continue after a page; returns how many instances it deleted."""
        self._after = page.last
        return page.deleted


def pruning(schema: str, older_than: timedelta, statuses: Iterable[str] = ENDED) -> Pages:
    """Delete instances that ended longer ago than `older_than`. Raises `InvalidValue`."""
    if not is_duration(older_than):
        raise InvalidValue(f"older_than must be a positive timedelta, got {older_than!r}", hint="timedelta(days=30)")
    given = tuple(statuses)
    if unknown := set(given) - set(ENDED):
        raise InvalidValue(f"statuses must be of {', '.join(ENDED)}, got {min(unknown)!r}")
    completed, failed, cancelled = (older_than if status in given else None for status in ENDED)
    ages = Ages(completed, failed, cancelled)
    return Pages(lambda _: retention.prune(schema, ages))


def pruning_orphans(schema: str) -> Pages:
    """Delete orphaned rows, whose instance was deleted manually in SQL."""
    return Pages(lambda after: instance.prune_orphans(schema, after=after))
