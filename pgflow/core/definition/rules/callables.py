"""Inspect a user's function before it is called: coroutine or generator, number of arguments, type of input."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pgflow.core.definition.context import Context

__all__ = ["arity_problem", "input_problem", "is_async", "is_generator", "unwrapped"]


def unwrapped(function: Any) -> Any:
    """Return the function inside a `staticmethod` object, as found in a class body; anything else unchanged."""
    return function.__func__ if isinstance(function, staticmethod) else function


def is_async(function: Any) -> bool:
    """Whether calling it returns a coroutine: a coroutine function, or an object whose `__call__` is one."""
    return any(map(inspect.iscoroutinefunction, _implementations(function)))


def is_generator(function: Any) -> bool:
    """Whether calling it returns a generator, async or not."""
    found = list(_implementations(function))
    return any(map(inspect.isgeneratorfunction, found)) or any(map(inspect.isasyncgenfunction, found))


def _implementations(function: Any) -> Iterator[Any]:
    while isinstance(function, partial):
        function = function.func
    yield function
    if not inspect.isroutine(function):
        yield getattr(type(function), "__call__", None)  # noqa: B004 -- the method itself, not whether it exists


def arity_problem(function: Any, *names: str) -> str | None:
    """Return why `function` cannot be called with one positional argument for each of `names`; None if it can.

    arity_problem(lambda: 3, "ctx")    # "it takes no argument, and is called with one: ctx"
    """
    called = f"one argument, {names[0]}" if len(names) == 1 else f"{len(names)} arguments, {', '.join(names)}"
    try:
        # Not the wrapped function: a decorator may supply arguments of it.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        # Some builtins have no signature; a method without `self` has an invalid one.
        method = getattr(function, "__func__", None) or getattr(type(function), "__call__", None)  # noqa: B004 -- the method itself
        return f"it takes no argument, and is called with {called}" if inspect.isfunction(method) else None
    try:
        signature.bind(*names)
    except TypeError:
        required = [each.name for each in signature.parameters.values() if _is_required(each)]
        takes = f"needs {', '.join(required)}" if required else "takes no argument"
        return f"it {takes}, and is called with {called}"
    return None


def _is_required(parameter: inspect.Parameter) -> bool:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in variable


def input_problem(function: Any, given: Any) -> str | None:
    """Return why a function annotated with `Context[…]` does not fit a workflow whose input is `given`; None if it may.

    Only a clear mismatch is reported. Accepted are annotations that cannot be resolved, Any, type variables, protocols,
    subclasses in either direction, and a union if one of its members is accepted.

        input_problem(ship, Order)    # "it takes Context[Parcel], and the input is Order"
    """
    wanted = _wanted(function)
    if _may_be(given, wanted):
        return None
    return f"it takes Context[{_name(wanted)}], and the input is {_name(given)}"


def _wanted(function: Any) -> Any:
    """Return the type in the annotation `Context[…]` of the first parameter, Any if it has none."""
    try:
        first = next(iter(inspect.signature(function).parameters.values()))
        names = next(
            found for each in _implementations(inspect.unwrap(function)) if (found := _globals(each)) is not None
        )
        annotated: Any = SimpleNamespace(__annotations__={first.name: first.annotation})
        hint = get_type_hints(annotated, names)[first.name]
    except Exception:  # no parameter, no signature, or an undefined name
        return Any
    is_context = isinstance(get_origin(hint), type) and issubclass(get_origin(hint), Context)
    return get_args(hint)[0] if is_context else Any


def _globals(function: Any) -> dict[str, Any] | None:
    found: dict[str, Any] | None = getattr(getattr(function, "__func__", function), "__globals__", None)
    return found


def _may_be(given: Any, wanted: Any) -> bool:
    pairs = [(one, other) for one in _members(given) for other in _members(wanted)]
    return not pairs or any(_may_be_class(one, other) for one, other in pairs)


def _members(kind: Any) -> list[Any]:
    """Return the classes that a type consists of; NoneType only if there are no others."""
    origin = get_origin(kind)
    alias = getattr(kind if origin is None else origin, "__value__", None)  # type Name = …
    if alias is not None:
        return _members(alias)
    if hasattr(kind, "__supertype__"):  # a NewType
        return _members(kind.__supertype__)
    if origin is Annotated:
        return _members(get_args(kind)[0])
    if origin in (Union, UnionType):
        members = [member for each in get_args(kind) for member in _members(each)]
        return [each for each in members if each is not NoneType] or members
    if kind is None:
        return [NoneType]
    return [kind if origin is None else origin]


def _may_be_class(given: Any, wanted: Any) -> bool:
    if Any in (given, wanted) or not (isinstance(given, type) and isinstance(wanted, type)):
        return True
    if getattr(wanted, "_is_protocol", False) or (given is int and wanted in (float, complex)):
        return True
    try:
        return issubclass(given, wanted) or issubclass(wanted, given)
    except TypeError:  # a TypedDict, for example
        return True


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind)) if get_origin(kind) is None else str(kind)
