"""A transition whose target is chosen at run time, among targets that are declared."""

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
    """A choice among `targets`, made by `chooser` when the event happens. Made by `route`."""

    chooser: Chooser
    targets: tuple[Target, ...]


def route(chooser: Callable[[Context[I]], Chosen], *targets: Target) -> Route:
    """Choose the next step, or steps, at run time: `chooser` gets the context and returns one or several of `targets`.

    It sees the outputs of all steps before, that of the step which just completed included. It is called once for each
    completion, must not wait or do I/O, and what it chooses is recorded. Raises `DefinitionError` when the chooser
    cannot be called so.

    A route that raises, or chooses a target that was not declared, fails the instance with `RouteError`, at once and
    not the step: the step's result is recorded first, so `retry()` calls the route again and does not run the step.

        def by_priority(ctx: Context[Order]) -> type[Step]:
            return FastTrack if ctx.steps["triage"]["urgent"] else StandardProcess

        Triage: {"routed": route(by_priority, FastTrack, StandardProcess)}
    """
    chooser = unwrapped(chooser)
    made = Route(chooser, targets)
    try:
        _check(chooser)
    except DefinitionError as error:
        collect_or_raise(made, error)
    return made


def _check(given: Any) -> None:
    who = f"route({_title(given)}, …)"
    if isinstance(given, Step) or (isinstance(given, type) and issubclass(given, Step)):
        raise DefinitionError(f"{who}: the first argument is the function that chooses among the others")
    if not callable(given) or isinstance(given, type) or is_async(given) or is_generator(given):
        raise DefinitionError(
            f"{who}: the first argument is a plain function of the context: not async, not a generator, not a class"
        )
    if (problem := arity_problem(given, "ctx")) is not None:
        raise DefinitionError(f"{who}: the function takes one argument, the context: {problem}")


def choose(chooser: Chooser, declared: Mapping[str, Step], ctx: Context[Any], where: str) -> tuple[str, ...]:
    """Ask `chooser` and return the keys of what it chose, in the order of `declared`.

    Raises `RouteError`, and nothing else, whatever the chooser raises or returns. `where` names the transition, for
    messages.
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
        raise RouteError(f"{who} returned a coroutine: a route is a plain function, not async")
    several = chosen if isinstance(chosen, list | tuple | set | frozenset) else [chosen]
    keys = {_key(each, declared, who) for each in several}
    if not keys:
        raise RouteError(f"{who} chose no target: return at least one of {', '.join(declared)}")
    return tuple(key for key in declared if key in keys)


def _key(each: Any, declared: Mapping[str, Step], who: str) -> str:
    is_class = isinstance(each, type) and issubclass(each, Step)
    known = ", ".join(declared)
    if not is_class and not isinstance(each, Step):
        raise RouteError(f"{who} returned {_shown(each)}, which is no step: return one of {known}")
    key: str = each.key
    step = declared.get(key)
    if step is None:
        raise RouteError(f"{who} chose {key!r}: add it to the route's targets, or return one of {known}")
    if not isinstance(step, each) if is_class else step != each:
        raise RouteError(f"{who} chose another {key!r} than the one declared: its configuration is fixed there")
    return key


def _summary(error: BaseException) -> str:
    message = sanitize_text(error_message(error))
    return f"{type_name(error)}: {message}" if message else type_name(error)


def _shown(value: Any) -> str:
    text = guarded(lambda: str.__str__(repr(value)), f"an object of {type_name(value)}")
    return text if len(text) <= MAX_REPR_LENGTH else f"{text[:MAX_REPR_LENGTH]}…"


def _title(value: Any) -> str:
    return guarded(lambda: str(getattr(value, "__name__", None) or repr(value)), type_name(value))
