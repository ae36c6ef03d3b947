"""A transition whose target is chosen at run time among declared targets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from pgflow.core.definition.context import Context
from pgflow.core.definition.rules.callables import arity_problem, is_async, is_generator, unwrapped
from pgflow.core.definition.rules.problems import collect_or_raise
from pgflow.core.definition.step import Step, Target
from pgflow.core.values.sanitize import error_message, guarded, sanitize_text, type_name
from pgflow.errors import DefinitionError, RouteError

__all__ = ["Chooser", "Route", "choose", "route"]

Chosen: TypeAlias = Step | type[Step] | Sequence[Step | type[Step]]
Chooser: TypeAlias = Callable[[Context[Any]], Chosen]
MAX_REPR_LENGTH = 200  # characters of what a route returned by mistake, in a message
I = TypeVar("I")  # noqa: E741 -- the workflow's input


@dataclass(frozen=True, slots=True)
class Route:
    """A choice among `targets`, made by `chooser` when the event happens. Created by `route`."""

    chooser: Chooser
    targets: tuple[Target, ...]


def route(chooser: Callable[[Context[I]], Chosen], *targets: Target) -> Route:
    """Return a transition whose target is chosen at run time: `chooser` returns one or several of `targets`.

    `chooser` is a plain function of the `Context`, which has the outputs of all completed steps, including the one that
    just completed. It returns a step, a step class, or a list, tuple or set of them, all among `targets`. It is called
    once for each completion and must not block or do I/O; its choice is recorded. Raises `DefinitionError` if
    `chooser` cannot be called with one argument.

    If it raises or chooses an undeclared target, the instance fails with `RouteError` without further attempts. The
    step's result is recorded before, so `retry()` calls the route again and does not run the step again.

        def by_priority(ctx: Context[Order]) -> type[Step]:
            return FastTrack if ctx.steps["triage"]["urgent"] else StandardProcess

        Triage: {"routed": route(by_priority, FastTrack, StandardProcess)}
    """
    chooser = unwrapped(chooser)
    made = Route(chooser, targets)
    try:
        _check_chooser(chooser)
    except DefinitionError as error:
        collect_or_raise(made, error)
    return made


def _check_chooser(given: Any) -> None:
    who = f"route({_title(given)}, …)"
    if isinstance(given, Step) or (isinstance(given, type) and issubclass(given, Step)):
        raise DefinitionError(f"{who}: the first argument must be the function that chooses among the others")
    if not callable(given) or isinstance(given, type) or is_async(given) or is_generator(given):
        raise DefinitionError(
            f"{who}: the first argument must be a plain function of the context: not async, a generator or a class"
        )
    if (problem := arity_problem(given, "ctx")) is not None:
        raise DefinitionError(f"{who}: the function must take one argument, the context: {problem}")


def choose(chooser: Chooser, declared: Mapping[str, Step], ctx: Context[Any], where: str) -> tuple[str, ...]:
    """Call `chooser` and return the keys of the chosen steps, in the order of `declared`.

    Raises only `RouteError`, whatever the chooser raises or returns. `where` is the transition's name in messages.
    """
    who = f"{where}: the route {_title(chooser)}"
    try:
        chosen = chooser(ctx)
    except BaseException as error:  # nothing is awaited here, so no exception is a cancellation of this task
        raise RouteError(f"{who} raised {_summary(error)}") from error
    try:
        return _keys(chosen, declared, who)
    except RouteError:
        raise
    except BaseException as error:  # from methods of the returned value: __eq__, __iter__, __repr__
        raise RouteError(f"{who} returned a value that cannot be read: {_summary(error)}") from error


def _keys(chosen: Any, declared: Mapping[str, Step], who: str) -> tuple[str, ...]:
    if inspect.iscoroutine(chosen):
        chosen.close()
        raise RouteError(f"{who} returned a coroutine: a route must be a plain function, not async")
    several = chosen if isinstance(chosen, list | tuple | set | frozenset) else [chosen]
    keys = {_key(each, declared, who) for each in several}
    if not keys:
        raise RouteError(f"{who} chose no target: return at least one of {', '.join(declared)}")
    return tuple(key for key in declared if key in keys)


def _key(each: Any, declared: Mapping[str, Step], who: str) -> str:
    is_class = isinstance(each, type) and issubclass(each, Step)
    known = ", ".join(declared)
    if not is_class and not isinstance(each, Step):
        raise RouteError(f"{who} returned {_short_repr(each)}, which is not a step: return one of {known}")
    key: str = each.key
    step = declared.get(key)
    if step is None:
        raise RouteError(f"{who} chose {key!r}: add it to the route's targets, or return one of {known}")
    if not isinstance(step, each) if is_class else step != each:
        raise RouteError(f"{who} chose {key!r} with another configuration: return the step as it is declared")
    return key


def _summary(error: BaseException) -> str:
    message = sanitize_text(error_message(error))
    return f"{type_name(error)}: {message}" if message else type_name(error)


def _short_repr(value: Any) -> str:
    text = guarded(lambda: str.__str__(repr(value)), f"an object of {type_name(value)}")
    return text if len(text) <= MAX_REPR_LENGTH else f"{text[:MAX_REPR_LENGTH]}…"


def _title(value: Any) -> str:
    return guarded(lambda: str(getattr(value, "__name__", None) or repr(value)), type_name(value))
