"""The argument of a step: its input, the outputs of completed steps, and the identity of instance and attempt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar, overload
from uuid import UUID, uuid5

from pgflow.core.definition.control import Control, Controlled
from pgflow.core.values.append_map import AppendMap
from pgflow.errors import UnknownStep

__all__ = ["EMPTY", "Context", "HasOutput", "read_output"]

NAMESPACE = UUID("6e3b4a53-3f0c-5b0e-9d57-52d8f7f0a9c1")  # of idempotency keys
I_co = TypeVar("I_co", covariant=True)
O_co = TypeVar("O_co", covariant=True)
O = TypeVar("O")  # noqa: E741 -- the output's type


class HasOutput(Protocol[O_co]):
    """A step or its class, as `output` needs it."""

    @property
    def key(self) -> str:
        """The step's key in the workflow."""

    def read_output(self, output: Any) -> O_co:
        """Return a stored output in the declared type."""


class CopyOnRead(Mapping[str, Any]):
    """A read-only view of JSON values that returns a copy of each, made at the first access.

    A step may change the values it reads, and later steps must not see that. Values may be large, so only those that
    are read are copied.
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


class WithItem(Mapping[str, Any]):
    """A view of a mapping with one more item, without a copy of the others."""

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


EMPTY: Mapping[str, Any] = CopyOnRead({})  # of a context without outputs or metadata


@dataclass(frozen=True, slots=True)
class Context(Controlled, Generic[I_co]):
    """The argument of a step, and of a route.

    - `initial`: the workflow's validated input, in its declared type.
    - `steps`: the output of each completed step by key, as JSON. The mapping is read-only, and changing a value in it
      affects no other step. `output(step)` returns an output in its declared type.
    - `id`: the business id, such as "orderid::abc123"; `value`: the business value in it; `run`: the instance's run id.
    - `workflow`, `version`, `step`: the workflow's name and version, and the step's key.
    - `attempt`: the number of this attempt, from 1. An attempt that was lost with its worker is repeated under the same
      number.
    - `metadata`: the instance's runtime metadata, read-only.
    - `idempotency_key`: a text that is the same for all attempts of this step, also on other workers and after a retry
      of the instance, and different for every other step and run. Hand it to an API that recognizes repeated requests,
      such as that of a payment provider.
    - `cancelled`: becomes True within about a second when the attempt is no longer wanted: the instance was cancelled
      or has ended, its `max_runtime` has passed, or another worker has taken the job over. Its outcome is dropped. Only
      sync steps need to look at it; an async step gets `CancelledError`.
    - `progress(at, note)` shows how far the step is. `checkpoint(data)` stores what the next attempt needs to go on
      from here, and `checkpointed` is what was stored last.
    - `conn`: in a step with `transactional = True` the database connection, whose writes commit together with the
      step's result; otherwise None.

    In a unit test the input is enough: `Context(Order(item_count=3, user_id=42))`.

        def execute(self, ctx: Context[Order]) -> Ok:
            receipt = ctx.output(charge)
            return Ok("sent", {"to": ctx.initial.user_id, "receipt": receipt.number})
    """

    initial: I_co
    steps: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    id: str = ""
    value: str = ""
    run: int = 0
    workflow: str = ""
    version: int = 1
    step: str = ""
    attempt: int = 1
    metadata: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    conn: Any = None
    control: Control = field(default_factory=Control, repr=False, compare=False)

    def __post_init__(self) -> None:
        if type(self.steps) in (dict, AppendMap):
            object.__setattr__(self, "steps", CopyOnRead(self.steps))
        if type(self.metadata) is dict:
            object.__setattr__(self, "metadata", CopyOnRead(self.metadata))

    @property
    def idempotency_key(self) -> str:
        """A text of 36 characters, in the form of a UUID, that identifies this step of this run.

        stripe.PaymentIntent.create(amount=…, idempotency_key=ctx.idempotency_key)
        """
        return step_key(self.workflow, self.id, self.run, self.step)

    def with_output(self, step: str, output: Any) -> Context[I_co]:
        """Return this context with one more output: the context of a route after its step has completed."""
        return replace(self, steps=CopyOnRead(WithItem(self.steps, step, output)))

    @overload
    def output(self, step: HasOutput[O]) -> O: ...

    @overload
    def output(self, step: type[HasOutput[O]]) -> O: ...

    def output(self, step: Any) -> Any:
        """Return the output of a completed step, in the type that it declares as its `output`, else as JSON values.

        Raises `UnknownStep` (a `LookupError`) if the step has not completed, and `InvalidPayload` if the stored output
        does not fit the declared type.

            ctx.output(charge).receipt    # charge declares @step(output=Receipt)
            ctx.output(ValidateOrder)     # {"count": 3}
        """
        reader = f" that {self.step!r} could read" if self.step else ""
        return read_output(self.steps, step, self.workflow or "the context", reader)


def read_output(steps: Mapping[str, Any], step: Any, who: str, reader: str = "") -> Any:
    """Return the output of `step` among `steps`, in its declared type. Raises `UnknownStep`, `InvalidPayload`."""
    key = step.key
    if key not in steps:
        known = ", ".join(sorted(steps)) or "none yet"
        raise UnknownStep(f"{who}: step {key!r} has no output{reader}; steps with an output: {known}")
    return step.read_output(steps[key])


def step_key(*identity: object) -> str:
    """Return a key that is unique to what identifies a step or a task: no secret, and of a form that every API takes.

    Not the run id alone: another database counts its runs from 1, too.
    """
    return str(uuid5(NAMESPACE, "\n".join(map(str, identity))))


def _copy(value: Any) -> Any:
    match value:
        case dict():
            return {key: _copy(item) for key, item in value.items()}
        case list():
            return [_copy(item) for item in value]
    return value
