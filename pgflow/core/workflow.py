"""A workflow: a class that names its first step and where each event of each step leads, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Never, TypeVar

from pydantic import TypeAdapter

from pgflow.core.definition import Transitions, read
from pgflow.core.facade import Calls
from pgflow.core.graph import Graph
from pgflow.core.input import Input, declared_type
from pgflow.core.options import check
from pgflow.core.retry import Retry
from pgflow.core.step import Target
from pgflow.core.unique import Unique
from pgflow.errors import InvalidValue

__all__ = ["Workflow"]

I = TypeVar("I")  # noqa: E741 -- the input


class Workflow(Calls[I], Generic[I]):
    """A DAG of steps. Subclass it with the input's type, the business key, an `initial` step and `transitions`.

    Options: `unique` (required), the business key and where it must be unique; `version`, from 1; `tags` and
    `metadata`, kept with each instance; `retry`, `queue` and `priority` (the lowest goes first), for steps that have
    none of their own; `name`, by default that of the class. `transitions` gives for each step and event the target,
    several targets (they run side by side), or a `route` among declared ones; every path ends in `Done`. Raises
    `DefinitionError`, at import, for a definition that could not run.

        class OrderFlow(Workflow[Order], unique=Unique("orderid"), tags=["orders"]):
            initial = ValidateOrder
            transitions = {
                ValidateOrder: {"valid": charge, "invalid": Done},
                charge: {"paid": Ship, "declined": Done},
                Ship: {"shipped": Done},
            }

        OrderFlow.start("abc123", Order(item_count=3, user_id=42))
    """

    initial: ClassVar[Target]
    transitions: ClassVar[Transitions]

    name: ClassVar[str]
    unique: ClassVar[Unique]
    version: ClassVar[int]
    tags: ClassVar[tuple[str, ...]]
    metadata: ClassVar[Mapping[str, Any]]
    retry_policy: ClassVar[Retry | None]
    queue: ClassVar[str]
    priority: ClassVar[int]
    graph: ClassVar[Graph]
    is_versioned: ClassVar[bool] = False
    input_type: ClassVar[Any]
    input_adapter: ClassVar[TypeAdapter[Any]]
    _input: ClassVar[Input]

    def __init_subclass__(
        cls,
        *,
        unique: Unique | None = None,
        version: int = 1,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        retry: Retry | None = None,
        queue: str = "default",
        priority: int = 0,
        name: str | None = None,
        **unknown: Never,
    ) -> None:
        super().__init_subclass__()
        options = check(
            cls.__name__,
            unique=unique,
            version=version,
            tags=tags,
            metadata=metadata,
            retry=retry,
            queue=queue,
            priority=priority,
            name=name,
            unknown=unknown,
        )
        declared = read(options.name, getattr(cls, "initial", None), getattr(cls, "transitions", None))
        cls.name = options.name
        cls.unique = options.unique
        cls.version = options.version
        cls.tags = options.tags
        cls.metadata = options.metadata
        cls.retry_policy = options.retry
        cls.queue = options.queue
        cls.priority = options.priority
        cls.graph = Graph.build(
            options.name,
            declared.initial,
            declared.steps,
            declared.choices,
            version=options.version,
            unique=options.unique,
            priority=options.priority,
            tags=options.tags,
            metadata=options.metadata,
            retry=options.retry,
            queue=options.queue,
        )
        cls._input = Input.of(options.name, declared_type(cls, Workflow))
        cls.input_type = cls._input.kind
        cls.input_adapter = cls._input.adapter

    @classmethod
    def write_input(cls, value: I | Mapping[str, Any] | None) -> str:
        """Return an input, a model or a dict, validated and as JSON text. Raises `InvalidInput`, `InvalidPayload`."""
        return cls._input.write(value)

    @classmethod
    def read_input(cls, text: str) -> I:
        """Return a stored input in its declared type. Raises `InvalidInput`, `InvalidPayload`."""
        value: I = cls._input.read(text)
        return value

    @classmethod
    def resolve_version(cls, version: int | None = None) -> tuple[int, type[Workflow[I]]]:
        """Return the version that a start would use, and its class. Raises `InvalidValue` for another than its own.

        OrderFlow.resolve_version()    # (1, OrderFlow)
        """
        if version not in (None, cls.version):
            raise InvalidValue(
                f"{cls.name} is not a versioned workflow; it only supports version {cls.version}, not {version!r}"
            )
        return cls.version, cls
