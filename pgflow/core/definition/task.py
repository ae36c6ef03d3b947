"""The value that a `@task` function produces: its name, arguments and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from pgflow.core.definition.retry import Retry

__all__ = ["Arguments", "TaskDefinition"]


class Arguments(Protocol):
    """Writes the arguments of a call as a JSON object by parameter name, and reads them back in their types."""

    def write(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, reveal: bool = False) -> str:
        """Return the validated arguments of a call as JSON text.

        With `reveal` they may hold secrets. Raises `InvalidInput`, `InvalidPayload`, `UnencryptedSecret`.
        """

    def read(self, text: str) -> dict[str, Any]:
        """Return stored arguments in their declared types, to call the function with. Raises `InvalidInput`."""


@dataclass(frozen=True, slots=True, eq=False)
class TaskDefinition:
    """One validated task: all that the registry, the backends and the workers need of a decorated function.

    `function` takes the arguments by name; if `takes_context`, the parameter of that name is the `TaskContext`.
    `output` is its declared return type, which `write_output` writes as JSON text.

        send_receipt.definition.queue    # "mail"
    """

    name: str
    function: Callable[..., Any]
    arguments: Arguments
    is_async: bool
    write_output: Callable[[Any], str]
    takes_context: str | None = None
    queue: str = "default"
    retry: Retry = field(default_factory=Retry)
    priority: int = 0
    max_runtime: timedelta | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    transactional: bool = False
    secrets: tuple[str, ...] = ()
