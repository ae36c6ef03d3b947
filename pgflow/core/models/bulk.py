"""What callers read about a bulk operation: its counts, and what it could not change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from pgflow.core.engine.state import ACTIVE

__all__ = ["ACTIONS", "APPLICABLE", "APPLICABLE_TASKS", "Action", "BulkResult", "Skipped"]

Action: TypeAlias = Literal["retry", "cancel", "move", "reprioritise", "reschedule", "delete"]
ACTIONS: tuple[Action, ...] = get_args(Action)
ENDED = frozenset({"completed", "failed", "cancelled"})
# The statuses in which an instance can be changed by each action.
APPLICABLE: Mapping[Action, frozenset[str]] = {
    "retry": frozenset({"failed"}),
    "cancel": frozenset(ACTIVE),
    "move": frozenset(ACTIVE),
    "reprioritise": frozenset(ACTIVE),
    "reschedule": frozenset(ACTIVE),
    "delete": ENDED,
}

APPLICABLE_TASKS: Mapping[Action, frozenset[str]] = {
    **APPLICABLE,
    "retry": frozenset({"failed", "cancelled", "waiting"}),
    **dict.fromkeys(("move", "reprioritise", "reschedule"), frozenset({"pending", "waiting"})),
}


@dataclass(frozen=True, slots=True)
class Skipped:
    """An instance or a task that a bulk operation has left as it is, and why.

    An instance has a `run` and its business id as `id`, a task the number of its `job` and its name as `id`; None if it
    was deleted in between.
    """

    id: str | None
    reason: str
    run: int | None = None
    job: int | None = None


@dataclass(frozen=True, slots=True)
class BulkResult:
    """The outcome of a bulk operation.

    - `matched`: how many instances the filter matched; `changed`: how many of them were changed. Of a dry run: how many
      have a status in which they can be.
    - `skipped`: the others, each with the reason, the first 1,000; `skipped_count`: how many there are.
    - `states`: of a dry run, how many matched in each status; empty otherwise.
    - `operation`: the number of its audit row, with which `resume` continues it; None of a dry run.

        print(result.changed, [each.reason for each in result.skipped])
    """

    action: Action
    matched: int
    changed: int
    skipped_count: int = 0
    skipped: tuple[Skipped, ...] = ()
    states: Mapping[str, int] = field(default_factory=dict)
    operation: int | None = None

    @property
    def is_dry_run(self) -> bool:
        """Whether nothing was changed."""
        return self.operation is None
