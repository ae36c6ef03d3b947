"""What a step sees when it runs: the input, what earlier steps came to, and where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar, overload

from pgflow.core.values.append_map import AppendMap
from pgflow.errors import UnknownStep

__all__ = ["Context", "Source", "read_output"]

I_co = TypeVar("I_co", covariant=True)
O_co = TypeVar("O_co", covariant=True)
O = TypeVar("O")  # noqa: E741 -- the output's type


class Source(Protocol[O_co]):
    """What an output comes from, a step or its class: a key, and a way to read what was stored."""

    @property
    def key(self) -> str:
        """The step's key in the workflow."""

    def read_output(self, output: Any) -> O_co:
        """Return a stored output as the declared type."""


class Copies(Mapping[str, Any]):
    """A read-only view of JSON values that gives a copy of each, made when it is first asked for.

    What a step does to a value that it was given must not reach the steps after it; and the values may be large, so
    those that nobody looks at are not copied.
    """

    __slots__ = ("_copied", "_source")

    def __init__(self, source: Mapping[str, Any]) -> None:
        self._source = source
        self._copied: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._copied:
            self._copied[key] = _copy(self._source[key])
        return self._copied[key]

    def __contains__(self, key: object) -> bool:
        return key in self._source

    def __iter__(self) -> Iterator[str]:
        return iter(self._source)

    def __len__(self) -> int:
        return len(self._source)

    def __repr__(self) -> str:
        return repr(dict(self))


class Extended(Mapping[str, Any]):
    """A mapping with one more key, without a copy of the others."""

    __slots__ = ("_base", "_key", "_value")

    def __init__(self, base: Mapping[str, Any], key: str, value: Any) -> None:
        self._base = base
        self._key = key
        self._value = value

    def __getitem__(self, key: str) -> Any:
        return self._value if key == self._key else self._base[key]

    def __contains__(self, key: object) -> bool:
        return key == self._key or key in self._base

    def __iter__(self) -> Iterator[str]:
        yield from (key for key in self._base if key != self._key)
        yield self._key

    def __len__(self) -> int:
        return len(self._base) + (self._key not in self._base)


NOTHING: Mapping[str, Any] = Copies({})


@dataclass(frozen=True, slots=True)
class Context(Generic[I_co]):
    """What a step sees when it runs.

    `initial` is the workflow's validated input; `steps` holds the output of each completed step by key, as JSON and
    read-only (what is done to a value in it reaches nobody else), and `output(step)` gives it in its declared type.
    `id` is the business id, `value` the business value in it, `run` the number of this run, `attempt` counts from 1
    (one that ended with its worker does not count: the next has its number), `metadata` is the instance's runtime
    metadata. `conn` is the database connection of a transactional step, whose writes commit together with its result;
    else None.

    A unit test of a step needs no more than `Context(Order(item_count=3, user_id=42))`.

        def execute(self, ctx: Context[Order]) -> Ok:
            receipt = ctx.output(charge)
            return Ok("sent", {"to": ctx.initial.user_id, "receipt": receipt.number})
    """

    initial: I_co
    steps: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    id: str = ""
    value: str = ""
    run: int = 0
    workflow: str = ""
    version: int = 1
    step: str = ""
    attempt: int = 1
    metadata: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    conn: Any = None

    def __post_init__(self) -> None:
        if type(self.steps) in (dict, AppendMap):
            object.__setattr__(self, "steps", Copies(self.steps))
        if type(self.metadata) is dict:
            object.__setattr__(self, "metadata", Copies(self.metadata))

    def with_output(self, step: str, output: Any) -> Context[I_co]:
        """Return this context with one more output: what a route sees once its step has completed."""
        return replace(self, steps=Copies(Extended(self.steps, step, output)))

    @overload
    def output(self, step: Source[O]) -> O: ...

    @overload
    def output(self, step: type[Source[O]]) -> O: ...

    def output(self, step: Any) -> Any:
        """Return what an earlier step came to, in the type that it declares as its `output`, else as plain JSON.

        Raises `UnknownStep` (a `LookupError`) when that step has not completed, `InvalidPayload` when what it stored
        is not of the declared type.

            ctx.output(charge).receipt    # charge was made with @step(output=Receipt)
            ctx.output(ValidateOrder)     # {"count": 3}
        """
        reader = f" that {self.step!r} could read" if self.step else ""
        return read_output(self.steps, step, self.workflow or "the context", reader)


def read_output(steps: Mapping[str, Any], step: Any, who: str, reader: str = "") -> Any:
    """Return the output of `step` among these, in its declared type. Raises `UnknownStep`, `InvalidPayload`."""
    key = step.key
    if key not in steps:
        known = ", ".join(sorted(steps)) or "none yet"
        raise UnknownStep(f"{who}: step {key!r} has no output{reader}; there is output of: {known}")
    return step.read_output(steps[key])


def _copy(value: Any) -> Any:
    match value:
        case dict():
            return {key: _copy(item) for key, item in value.items()}
        case list():
            return [_copy(item) for item in value]
    return value
