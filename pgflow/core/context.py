"""What a step sees when it runs: the input, what earlier steps came to, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar, overload

from pgflow.errors import UnknownStep

__all__ = ["Context", "Source", "read_output"]

I_co = TypeVar("I_co", covariant=True)
O_co = TypeVar("O_co", covariant=True)
O = TypeVar("O")  # noqa: E741 -- the output's type

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Source(Protocol[O_co]):
    """What an output comes from, a step or its class: a key, and a way to read what was stored."""

    @property
    def key(self) -> str:
        """The step's key in the workflow."""

    def read_output(self, output: Any) -> O_co:
        """Return a stored output as the declared type."""


@dataclass(frozen=True, slots=True)
class Context(Generic[I_co]):
    """What a step sees when it runs.

    `initial` is the workflow's validated input; `steps` holds the output of each completed step by key, as JSON and
    read-only, and `output(step)` gives it in its declared type. `id` is the business id, `value` the business value in
    it, `run` the number of this run, `attempt` counts from 1, `metadata` is the instance's runtime metadata. `conn` is
    the database connection of a transactional step, whose writes commit together with its result; else None.

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
        # Views, not copies: the mappings may be large, and all a step must not do is write to them.
        if type(self.steps) is dict:
            object.__setattr__(self, "steps", MappingProxyType(self.steps))
        if type(self.metadata) is dict:
            object.__setattr__(self, "metadata", MappingProxyType(self.metadata))

    def having(self, steps: Mapping[str, Any]) -> Context[I_co]:
        """Return this context with other outputs: what a route sees once a step has completed."""
        return replace(self, steps=steps)

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
