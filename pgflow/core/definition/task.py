"""The value that a `@task` function produces: its name, arguments and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from pgflow.core.definition.parameters import Parameters
from pgflow.core.definition.partition import partition_key
from pgflow.core.definition.retain import Retain
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.unique_task import UniqueKey, UniqueTask, unique_key
from pgflow.core.values.payload import OUTPUT_LIMIT, decode

__all__ = ["DefinedTask", "Output", "TaskDefinition"]


class Output(Protocol):
    """Writes what a task returns as JSON, and reads it back in its declared type."""

    def write(self, value: Any, *, reveal: bool = False, limit: int = OUTPUT_LIMIT) -> str:
        """Return it as JSON text of at most `limit` bytes. With `reveal` it may hold secrets.

        Raises `InvalidInput`, `InvalidPayload`, `UnencryptedSecret`.
        """

    def read(self, text: str) -> Any:
        """Return a stored output in its declared type. Raises `InvalidInput`, `InvalidPayload`."""


@dataclass(frozen=True, slots=True, eq=False)
class TaskDefinition:
    """One validated task: all that the registry, the backends and the workers need of a decorated function.

    `function` takes the arguments by name; if `takes_context`, the parameter of that name is the `TaskContext`.
    `secrets` are the paths at which its arguments and its output declare secrets.

        send_receipt.definition.queue    # "mail"
    """

    name: str
    function: Callable[..., Any]
    arguments: Parameters
    output: Output
    is_async: bool
    takes_context: str | None = None
    queue: str = "default"
    retry: Retry = field(default_factory=Retry)
    unique: UniqueTask | None = None
    priority: int = 0
    max_runtime: timedelta | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    transactional: bool = False
    cpu: bool = False
    secrets: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ()
    weight: int = 1
    retain: Retain | None = None
    hooks: Mapping[str, TaskDefinition] = field(default_factory=dict)
    expires_in: timedelta | None = None

    def partition_keys(self, arguments: Sequence[str]) -> tuple[str | None, ...] | None:
        """Return the partition keys of some enqueues, whose arguments are JSON objects as text; None without them."""
        return tuple(partition_key(text, self.partition_by) for text in arguments) if self.partition_by else None

    def unique_keys(self, arguments: Sequence[str], queue: str | None = None) -> UniqueKey | None:
        """Return the unique keys of some enqueues, whose arguments are JSON objects as text; None without uniqueness.

        `queue` is that of the enqueue, None for the task's.
        """
        unique = self.unique
        if unique is None:
            return None
        keys = tuple(unique_key(self.name, unique, decode(text), queue or self.queue) for text in arguments)
        period = None if unique.period is None else unique.period.total_seconds()
        return UniqueKey(keys, period, unique.on_conflict, tuple(unique.replace))


class DefinedTask:
    """A decorated function, as the registry knows it. `is_valid` is False for one whose problems were collected."""

    definition: TaskDefinition
    is_valid: bool = True

    @property
    def name(self) -> str:
        """The name that identifies stored executions."""
        return self.definition.name
