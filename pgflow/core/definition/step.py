"""A step: a pydantic model with its configuration as fields and its work in `execute`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, ClassVar, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, PrivateAttr, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from pgflow.core.definition.context import Context
from pgflow.core.definition.results import Result
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.rules.problems import collect_or_raise, defect_of
from pgflow.core.values.absent import default_for
from pgflow.core.values.aliases import unreadable_field
from pgflow.core.values.names import event_name, is_key, snake_case
from pgflow.core.values.payload import encode
from pgflow.core.values.roundtrip import difference, is_untyped, sort_sets
from pgflow.core.values.sanitize import validation_errors
from pgflow.core.values.secret import secrets_in_value
from pgflow.errors import DefinitionError, InvalidPayload

__all__ = ["Parking", "Step", "Target", "as_step"]


@dataclass(frozen=True, slots=True)
class Parking:
    """How the wait of a step that returned `Async()` ends.

    `awaits` maps the name of each signal that ends it to the event with which the step then completes. With a `delay`,
    a timer completes the step with `timeout_event` if no signal arrives first.

        Parking({"payment_confirmed": "paid"}, delay=timedelta(days=3), timeout_event="expired")
    """

    awaits: Mapping[str, str]
    delay: timedelta | None = None
    timeout_event: str | None = None

    def __post_init__(self) -> None:
        names = {event_name(signal): event_name(event) for signal, event in self.awaits.items()}
        object.__setattr__(self, "awaits", names)
        object.__setattr__(self, "timeout_event", event_name(self.timeout_event))


class _Key:
    """The key of a step, readable on the class and on its instances."""

    def __get__(self, step: Step | None, owner: type[Step]) -> str:
        named = step._named if step is not None else None
        own = owner.step_key if named is None else named
        return snake_case(owner.__name__) if own is None else own


class Step(BaseModel):
    """A unit of work. Subclass it: declare the events it may emit, add fields for its configuration, write `execute`.

    `execute` takes the `Context` and returns `Ok`, `Async`, `Error` or `Snooze`. It may be a coroutine function. It
    runs at least once per instance: make its effects on other systems idempotent.

    Class attributes, all written without annotation:

    - `events` (required): names of the events with which the step may complete.
    - `retry`: a `Retry` policy, instead of the workflow's.
    - `queue`: name of the queue in which it runs, instead of the workflow's.
    - `transactional`: True to run in the database transaction that records its result, see `Context.conn`.
    - `cpu`: True to run in a process of the worker's pool, for work that would hold Python's global lock. It cannot be
      transactional.
    - `max_runtime`: a timedelta after which an attempt fails with `TimeoutError`. An async step is cancelled, the
      process of a `cpu` step is killed; the thread of a sync step keeps running, but its result is discarded.
    - `step_key`: the step's key, instead of the class name in snake_case.
    - `output`: the type of its output, which `ctx.output(...)` returns.

    Annotated attributes are the configuration: pydantic fields that JSON can represent. A step is frozen; two steps are
    equal if class, key and configuration are.

        class Ship(Step):
            events = ("shipped",)
            retry = Retry(max_attempts=8)
            carrier: str = "post"

            def execute(self, ctx: Context[Order]) -> Ok:
                return Ok("shipped", {"by": self.carrier})

        transitions = {..., charge: {"paid": Ship(carrier="bike")}}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: ClassVar[tuple[str, ...]] = ()
    retry: ClassVar[Retry | None] = None
    queue: ClassVar[str | None] = None
    transactional: ClassVar[bool] = False
    cpu: ClassVar[bool] = False
    max_runtime: ClassVar[timedelta | None] = None
    step_key: ClassVar[str | None] = None
    output: ClassVar[Any] = None
    is_async: ClassVar[bool] = False
    is_end: ClassVar[bool] = False
    key: ClassVar[_Key] = _Key()

    _named: str | None = PrivateAttr(default=None)

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        for name in cls.model_fields:
            if name in RESERVED:
                error = DefinitionError(
                    f"step {cls.__name__}: {name!r} is an attribute of every step, so it cannot be a field: "
                    f"write `{name} = …` without annotation to set it, or give the field another name"
                )
                collect_or_raise(cls, error)
        cls.is_async = inspect.iscoroutinefunction(cls.execute)

    def execute(self, ctx: Context[Any]) -> Result | Awaitable[Result]:
        """Do the work and return its result. An exception fails the attempt, as `Error` does."""
        raise DefinitionError(f"step {type(self).__name__} has no execute method")

    def named(self, key: str) -> Self:
        """Return this step under another key, so that a workflow can use it twice. Raises `DefinitionError`.

        `key` has up to 100 letters, digits and underscores, and does not start with a digit.

            Wait(timedelta(hours=1)).named("cool_off")
        """
        copy = self.model_copy()
        copy._named = key
        defect = defect_of(self)
        if defect is not None:
            collect_or_raise(copy, DefinitionError(defect))
        if not is_key(key):
            error = DefinitionError(
                f"step {type(self).__name__} cannot be named {key!r}: use up to 100 letters, digits and underscores, "
                "not starting with a digit"
            )
            collect_or_raise(copy, error)
        return copy

    def emits(self) -> tuple[str, ...]:
        """Return the events that this step may emit. Override it if they depend on the configuration."""
        return tuple(event_name(event) for event in type(self).events)

    def parking(self) -> Parking:
        """Return how its wait after `Async()` ends: by default with a signal named like one of its events, no timer."""
        return Parking({event: event for event in self.emits()})

    def signals(self) -> tuple[str, ...]:
        """Return the names of all signals that this step may consume."""
        return tuple(self.parking().awaits)

    def config(self) -> dict[str, Any] | None:
        """Return its configuration as JSON values, or None if it has no fields.

        Raises `DefinitionError` for a value that JSON cannot represent, and for a secret.

            Wait(timedelta(minutes=5)).config()    # {"duration": "PT5M"}
        """
        if not type(self).model_fields:
            return None
        for path in secrets_in_value(self, f"step {self.key}"):
            raise DefinitionError(
                f"{path} is a secret, and a configuration is stored in plain, with the graph: "
                "read it in `execute`, for example from the environment"
            )
        try:
            config: dict[str, Any] = sort_sets(self, self.model_dump(mode="json", by_alias=True, round_trip=True))
            lost = difference(self, self.with_config(json.loads(json.dumps(config))), f"step {self.key}")
        except (PydanticSerializationError, ValueError) as error:
            raise DefinitionError(f"step {self.key!r}: its configuration is not JSON: {error}") from error
        if lost is not None:
            raise DefinitionError(f"{lost}: declare the field's type")
        return config

    def with_config(self, config: Mapping[str, Any] | None) -> Self:
        """Return this step with a stored configuration, as `config()` returned it, under the same key.

        A step runs with the configuration that it had when it was activated. Raises `DefinitionError` when the stored
        configuration no longer fits the class.
        """
        if config is None:
            return self
        try:
            copy = type(self).model_validate_json(json.dumps(config))
        except ValidationError as error:
            raise DefinitionError(
                f"step {self.key!r}: {type(self).__name__} cannot be made from its stored configuration "
                f"({first_problem(error)}): give new fields a default"
            ) from None
        copy._named = self._named
        return copy

    @classmethod
    def read_output(cls, output: Any) -> Any:
        """Return a stored output in the declared type, or unchanged if none is declared. Raises `InvalidPayload`."""
        if cls.output is None:
            return output
        try:
            return _output_adapter(cls).validate_json(json.dumps(output))
        except ValidationError as error:
            raise InvalidPayload(
                f"step {cls.key!r} declares the output {getattr(cls.output, '__name__', cls.output)}, "
                f"which the value is not: {first_problem(error)}"
            ) from None  # pydantic's error quotes the stored value

    @classmethod
    def absent_text(cls) -> str | None:
        """Return the JSON text to store for an output or a payload that was left out; None to store nothing.

        It is null if the declared type includes None. Nothing is read back as `{}`.
        """
        return "null" if cls.output is not None and default_for(cls.output) is None else None

    @classmethod
    def encode_output(cls, output: Any, what: str, limit: int, *, reveal: bool = False) -> str:
        """Return an output or a payload as the JSON text that `read_output` reads.

        Raises `InvalidPayload` for a value that cannot be stored, and `UnencryptedSecret`.
        """
        is_typed = cls.output is not None and not is_untyped(cls.output)
        return encode(output, what=what, limit=limit, reveal=reveal, round_trip=is_typed)

    @classmethod
    def output_problem(cls) -> str | None:
        """Return why values of the declared output type could not be read back, or None."""
        if cls.output is None:
            return None
        try:
            adapter = _output_adapter(cls)
        except Exception:  # a forward reference: pydantic reports it when an output is read
            return None
        return unreadable_field(adapter)

    @classmethod
    def check_output(cls, output: Any, stored: Any, what: str) -> None:
        """Check that `stored`, the JSON of an output or a payload, reads back as the same value in the declared type.

        Raises `InvalidPayload` with the path of the first value that would be lost.
        """
        back = cls.read_output(stored)
        if cls.output is None or is_untyped(cls.output):
            return
        try:
            given = _output_adapter(cls).validate_python(output)
        except ValidationError:  # only its JSON is of the declared type
            return
        if (lost := difference(given, back, what)) is not None:
            raise InvalidPayload(lost, hint="Declare its type.")

    def __eq__(self, other: object) -> bool:
        return (
            type(self) is type(other)
            and isinstance(other, Step)
            and self.key == other.key
            and self.__dict__ == other.__dict__
        )

    def __hash__(self) -> int:
        return hash((type(self), self.key))


RESERVED = frozenset({name for name in vars(Step) if not name.startswith("_")})
Target: TypeAlias = Step | type[Step]


def as_step(target: object) -> Step:
    """Return a target as a configured step: itself, or an instance of the class.

    Raises `DefinitionError` for anything else, and for a class with required configuration.

        as_step(Ship) == Ship()
    """
    if isinstance(target, Step):
        return target
    if isinstance(target, type) and issubclass(target, Step):
        if defect_of(target) is not None:
            return target.model_construct()
        missing = [name for name, field in target.model_fields.items() if field.is_required()]
        if missing:
            example = ", ".join(f"{name}=…" for name in missing)
            raise DefinitionError(
                f"{target.__name__} needs a configuration ({', '.join(missing)}): write {target.__name__}({example})"
            )
        return target()
    if inspect.isroutine(target):
        name = target.__name__
        raise DefinitionError(
            f"{name} is a plain function: decorate it with @step, "
            f"or, if it chooses the next step, write route({name}, …) with all steps that it may choose"
        )
    raise DefinitionError(
        f"{target!r} is not a step: give a Step class, a configured step or a function made with @step"
    )


def first_problem(error: ValidationError) -> str:
    """Return the first of pydantic's errors as `field.path: message`, and the number of further ones."""
    (location, message), *others = validation_errors(error)
    where = ".".join(map(str, location))
    more = f" (and {len(others)} more)" if others else ""
    return f"{where}: {message}{more}" if where else f"{message}{more}"


@cache
def _output_adapter(step: type[Step]) -> TypeAdapter[Any]:
    return TypeAdapter(step.output)
