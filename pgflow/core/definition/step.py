"""A step: a pydantic model whose fields are its configuration and whose `execute` does the work."""

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
from pgflow.core.values.sanitize import findings
from pgflow.core.values.secret import found
from pgflow.errors import DefinitionError, InvalidPayload

__all__ = ["Parking", "Step", "Target", "as_step"]


@dataclass(frozen=True, slots=True)
class Parking:
    """What ends the wait of a step that returned `Async()`.

    `awaits` maps each signal's name to the event that it becomes; after `delay`, if there is one, the step completes
    with `timeout_event` by itself.
    """

    awaits: Mapping[str, str]
    delay: timedelta | None = None
    timeout_event: str | None = None

    def __post_init__(self) -> None:
        named = {event_name(signal): event_name(event) for signal, event in self.awaits.items()}
        object.__setattr__(self, "awaits", named)
        object.__setattr__(self, "timeout_event", event_name(self.timeout_event))


class _Key:
    """The key of a step, to be read from the class as well as from an instance."""

    def __get__(self, step: Step | None, owner: type[Step]) -> str:
        named = step._named if step is not None else None
        own = owner.step_key if named is None else named
        return snake_case(owner.__name__) if own is None else own


class Step(BaseModel):
    """A unit of work. Subclass it: name the events it may emit, add fields for its configuration, write `execute`.

    Class attributes, all without annotation: `events` (required); `retry`, a policy of its own; `queue`, where it
    runs; `transactional`, whether it shares a database transaction with its own result; `max_runtime`, how long an
    attempt may run before it counts as failed with a `TimeoutError` (an async step is cancelled then, a sync one goes
    on in its thread, to no effect here); `step_key`, another key than the snake_case of its name; `output`, the type
    that `ctx.output(...)` gives. A step is frozen and is a value: two are equal when class, key and configuration are.
    `execute` may be a coroutine function.

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
                    f"step {cls.__name__}: {name!r} is an attribute that every step has, so it cannot be a field: "
                    f"write `{name} = …` without annotation to set it, or give the field another name"
                )
                collect_or_raise(cls, error)
        cls.is_async = inspect.iscoroutinefunction(cls.execute)

    def execute(self, ctx: Context[Any]) -> Result | Awaitable[Result]:
        """Do the work and say how it went. Raising is an error, too, and is tried again as the retry policy says."""
        raise DefinitionError(f"step {type(self).__name__} has no execute method")

    def named(self, key: str) -> Self:
        """Return the same step under another key, so that it can stand twice in a workflow. Raises `DefinitionError`.

        Wait(timedelta(hours=1)).named("cool_off")
        """
        copy = self.model_copy()
        copy._named = key
        fault = defect_of(self)
        if fault is not None:
            collect_or_raise(copy, DefinitionError(fault))
        if not is_key(key):
            error = DefinitionError(
                f"step {type(self).__name__} cannot be named {key!r}: use up to 100 letters, digits and underscores, "
                "not starting with a digit"
            )
            collect_or_raise(copy, error)
        return copy

    def emits(self) -> tuple[str, ...]:
        """Return the events that this step may emit: those of its class, unless its configuration says otherwise."""
        return tuple(event_name(event) for event in type(self).events)

    def parking(self) -> Parking:
        """Return what ends its wait after `Async()`: by default a signal named like one of its events, no timer."""
        return Parking({event: event for event in self.emits()})

    def signals(self) -> tuple[str, ...]:
        """Return the names of the signals that this step may ever take."""
        return tuple(self.parking().awaits)

    def config(self) -> dict[str, Any] | None:
        """Return its configuration as JSON values, None when it has no fields. Raises `DefinitionError`.

        Wait(timedelta(minutes=5)).config()    # {"duration": "PT5M"}
        """
        if not type(self).model_fields:
            return None
        for place in found(self, f"step {self.key}"):
            raise DefinitionError(
                f"{place} is a secret, and a configuration is stored in plain, with the graph: "
                "read it where the step runs, from the environment for example"
            )
        try:
            config: dict[str, Any] = sort_sets(self, self.model_dump(mode="json", by_alias=True, round_trip=True))
            lost = difference(self, self.with_config(json.loads(json.dumps(config))), f"step {self.key}")
        except (PydanticSerializationError, ValueError) as error:
            raise DefinitionError(f"step {self.key!r}: its configuration is not JSON: {error}") from error
        if lost is not None:
            raise DefinitionError(f"{lost}: declare the type that the field is to have")
        return config

    def with_config(self, config: Mapping[str, Any] | None) -> Self:
        """Return this step with the configuration that `config()` once gave, under the same key.

        So a job runs with the configuration that it was made with. Raises `DefinitionError` when that no longer fits.
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
        """Return a stored output in the declared type, as it is when none is declared. Raises `InvalidPayload`."""
        if cls.output is None:
            return output
        try:
            return _output_adapter(cls).validate_json(json.dumps(output))
        except ValidationError as error:
            raise InvalidPayload(
                f"step {cls.key!r} declares the output {getattr(cls.output, '__name__', cls.output)}, "
                f"which this is not: {first_problem(error)}"
            ) from None  # it quotes what is stored

    @classmethod
    def absent_text(cls) -> str | None:
        """Return the JSON text to store for an output, or a payload, that was left out; None for nothing.

        Where the declared type names None it is null, elsewhere nothing, which reads as `{}`.
        """
        return "null" if cls.output is not None and default_for(cls.output) is None else None

    @classmethod
    def encode_output(cls, output: Any, what: str, limit: int, *, reveal: bool = False) -> str:
        """Return an output, or a payload, as the JSON text that `read_output` reads it from.

        Raises `InvalidPayload` for what cannot be stored, `UnencryptedSecret`.
        """
        is_typed = cls.output is not None and not is_untyped(cls.output)
        return encode(output, what=what, limit=limit, reveal=reveal, round_trip=is_typed)

    @classmethod
    def output_problem(cls) -> str | None:
        """Say why values of the declared output type could not be read back; None when they can."""
        if cls.output is None:
            return None
        try:
            adapter = _output_adapter(cls)
        except Exception:  # a name that is defined later: pydantic reports it when an output is read
            return None
        return unreadable_field(adapter)

    @classmethod
    def check_output(cls, output: Any, stored: Any, what: str) -> None:
        """Refuse an output, or a payload, whose JSON is `stored`, unless it comes back as it is in the declared type.

        Raises `InvalidPayload` with the path to what would be lost.
        """
        back = cls.read_output(stored)
        if cls.output is None or is_untyped(cls.output):
            return
        try:
            given = _output_adapter(cls).validate_python(output)
        except ValidationError:  # it is of that type as JSON only
            return
        if (lost := difference(given, back, what)) is not None:
            raise InvalidPayload(lost, hint="Declare the type that it is to have.")

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
    """Return the configured step that `target` stands for: itself, or an instance of the class.

    Raises `DefinitionError` for anything else, and for a class that cannot do without configuration.

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
            f"or, if it chooses the next step, write route({name}, …) with all that it may choose"
        )
    raise DefinitionError(f"{target!r} is no step: give a Step class, a configured step or a function made with @step")


def first_problem(error: ValidationError) -> str:
    """Return the first of pydantic's findings as `field.path: what is wrong`, and how many more there are."""
    (place, said), *others = findings(error)
    where = ".".join(map(str, place))
    more = f" (and {len(others)} more)" if others else ""
    return f"{where}: {said}{more}" if where else f"{said}{more}"


@cache
def _output_adapter(step: type[Step]) -> TypeAdapter[Any]:
    return TypeAdapter(step.output)
