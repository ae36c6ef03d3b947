"""The `@step` decorator, which makes a step of a function."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import UnionType
from typing import Any, ClassVar, Generic, TypeVar, cast, overload

from pgflow.core.definition.context import Context
from pgflow.core.definition.results import Result
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.rules.callables import arity_problem, is_async, is_generator, unwrapped
from pgflow.core.definition.rules.problems import collect_or_raise
from pgflow.core.definition.step import Step
from pgflow.core.values.names import is_key
from pgflow.errors import DefinitionError

__all__ = ["FunctionStep", "step"]

C = TypeVar("C", bound=Context[Any])
R = TypeVar("R", bound=Result | Awaitable[Result])
T = TypeVar("T")


class FunctionStep(Step, Generic[C, R, T]):
    """A step made of a function. Calling the step calls the function, for unit tests.

    assert await charge(Context(order)) == Ok("paid", {"receipt": "r-1"})
    """

    function: ClassVar[Callable[..., Any]]

    def __call__(self, ctx: C) -> R:
        """Call the function."""
        return cast("R", type(self).function(ctx))

    @classmethod
    def read_output(cls, output: Any) -> T:
        """Return a stored output in the declared type. Raises `InvalidPayload`."""
        return cast("T", super().read_output(output))


@overload
def step(function: Callable[[C], R], /) -> FunctionStep[C, R, Any]: ...


@overload
def step(
    *,
    events: Sequence[str] = ...,
    retry: Retry | None = ...,
    queue: str | None = ...,
    transactional: bool = ...,
    cpu: bool = ...,
    max_runtime: timedelta | None = ...,
    name: str | None = ...,
    output: type[T],
) -> Callable[[Callable[[C], R]], FunctionStep[C, R, T]]: ...


@overload
def step(
    *,
    events: Sequence[str] = ...,
    retry: Retry | None = ...,
    queue: str | None = ...,
    transactional: bool = ...,
    cpu: bool = ...,
    max_runtime: timedelta | None = ...,
    name: str | None = ...,
    output: UnionType | type[Any] | None = ...,
) -> Callable[[Callable[[C], R]], FunctionStep[C, R, Any]]: ...


def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    events: Sequence[str] = ("done",),
    retry: Retry | None = None,
    queue: str | None = None,
    transactional: bool = False,
    cpu: bool = False,
    max_runtime: timedelta | None = None,
    name: str | None = None,
    output: Any = None,
) -> Any:
    """Make a step of a function that takes the context; the function may be async, the parentheses may be left out.

    The arguments are the class attributes of `Step`, except that `name` sets the key, by default the function's name.
    `events` is `("done",)` by default. Returns a configured step: use it in `transitions`, or call it in a test. Raises
    `DefinitionError` for a function that cannot be called with one argument, a method, a generator or an invalid name.

        @step(events=("paid", "declined"), retry=Retry(max_attempts=8), output=Receipt)
        async def charge(ctx: Context[Order]) -> Ok | Error:
            return Ok("paid", Receipt(number="r-1"))
    """
    attributes = {
        # A string is kept: the check of the workflow reports it.
        "events": events if isinstance(events, str) else tuple(events),
        "retry": retry,
        "queue": queue,
        "transactional": transactional,
        "cpu": cpu,
        "max_runtime": max_runtime,
        "step_key": name,
        "output": output,
    }

    def decorate(function: Callable[..., Any]) -> Step:
        return _make(function, attributes)

    return decorate if function is None else decorate(function)


def _make(function: Callable[..., Any], attributes: dict[str, Any]) -> Step:
    function = unwrapped(function)
    named = attributes["step_key"]
    key = getattr(function, "__name__", None) if named is None else named
    problem = _problem(function, key)
    if problem is not None:
        name = getattr(function, "__name__", None)
        placeholder = _placeholder(name if is_key(name) else f"unusable_{id(function)}", attributes)
        collect_or_raise(placeholder, DefinitionError(problem))
        return placeholder
    return _build(function, attributes, key)


def _problem(function: Any, key: Any) -> str | None:
    if isinstance(function, classmethod):
        return f"@step: {key} is a class method: define the step outside of a class, `def {key}(ctx)`"
    if not callable(function) or isinstance(function, type):
        return f"@step is for functions, and {function!r} is not one"
    if not is_key(key):
        return f'@step: {key!r} cannot be the key of a step: give one, as in @step(name="charge")'
    if is_generator(function):
        return f"@step: {key} is a generator; a step returns one result"
    if inspect.isfunction(function) and next(iter(inspect.signature(function).parameters), "") in ("self", "cls"):
        return f"@step: {key} is a method: define the step outside of a class, `def {key}(ctx)`"
    if (problem := arity_problem(function, "ctx")) is not None:
        return f"@step: {key} cannot be called: {problem}; write `def {key}(ctx)`"
    return None


def _placeholder(name: Any, attributes: dict[str, Any]) -> Step:
    """Return a step in place of an invalid one, for use while problems are collected."""

    def unusable(ctx: Context[Any]) -> Any:
        """Do nothing."""

    unusable.__name__ = name
    return _build(unusable, {**attributes, "step_key": None}, name)


def _build(function: Callable[..., Any], attributes: dict[str, Any], key: Any) -> Step:
    async def execute_async(self: Step, ctx: Context[Any]) -> Any:
        return await function(ctx)

    def execute(self: Step, ctx: Context[Any]) -> Any:
        return function(ctx)

    namespace = {
        **attributes,
        "__module__": getattr(function, "__module__", __name__),
        "__qualname__": getattr(function, "__qualname__", key),
        "__doc__": function.__doc__,
        "function": staticmethod(function),
        "execute": execute_async if is_async(function) else execute,
    }
    metaclass: Any = type(FunctionStep)
    made: Step = metaclass(getattr(function, "__name__", key), (FunctionStep,), namespace)()
    return made
