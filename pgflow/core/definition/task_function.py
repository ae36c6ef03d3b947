"""Make a `TaskDefinition` of a function: the rules for what can be a task, and the types in its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pgflow.core.definition.input import Input
from pgflow.core.definition.parameters import Parameters, by_name
from pgflow.core.definition.results import Result
from pgflow.core.definition.rules.callables import is_async, is_generator
from pgflow.core.definition.rules.problems import Problems
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.definition.task_context import TaskContext
from pgflow.core.definition.task_options import read_task_options
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.names import is_event
from pgflow.core.values.payload import OUTPUT_LIMIT
from pgflow.errors import DefinitionError

__all__ = ["Discarded", "define", "task_name"]

NAME_RULE = "a name must be a string of 1 to 100 characters, without white space"


class Discarded:
    """The output of a task with `output=None`: whatever it returns, None is stored."""

    def write(self, value: Any, *, reveal: bool = False, limit: int = OUTPUT_LIMIT) -> str:
        """Return null."""
        return "null"

    def read(self, text: str) -> None:
        """Return None."""


def define(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    name: str | None = None,
    output: Any = ABSENT,
    local_names: Mapping[str, Any] | None = None,
) -> TaskDefinition:
    """Return the definition of a function as a task. Raises `DefinitionError`, with all problems.

    `output` is the type of its output, by default its return type; None discards it. `local_names` are those of the
    scope that defines it, in which annotations written as text are resolved.
    """
    who = task_name(function, name)
    _check_function(function, who)
    problems = Problems()
    found = problems.check(None, _read_signature, function, who, local_names or {})
    signature, context, returned = found if found is not None else (None, None, Any)
    parameters = None if signature is None else problems.check(None, Parameters.of, who, signature)
    checked = problems.check({}, read_task_options, who, options, parameters)
    kind = returned if output is ABSENT else output
    writer = Discarded() if output is None else problems.check(None, Input.of, who, kind, "output")
    problems.raise_if_any()
    assert parameters is not None  # noqa: S101 -- for the type checker: otherwise there were problems
    assert writer is not None  # noqa: S101 -- likewise
    return TaskDefinition(
        name=who,
        function=by_name(function),
        arguments=parameters,
        output=writer,
        is_async=is_async(function),
        takes_context=context,
        secrets=(*parameters.secrets, *(writer.secrets if isinstance(writer, Input) else ())),
        **checked,
    )


def task_name(function: Any, name: Any = None) -> str:
    """Return the name of a task: the given one, else that of its function. Raises `DefinitionError`."""
    if name is not None:
        if not is_event(name):  # one rule for names of workflows, tasks and events
            raise DefinitionError(f"@task: the name {name!r} is refused: {NAME_RULE}")
        return str(name)
    own = getattr(function, "__name__", None)
    if not (isinstance(own, str) and own.isidentifier() and is_event(own)):
        raise DefinitionError(f'@task: {function!r} has no usable name: give one, as in @task(name="send_receipt")')
    return own


def _check_function(function: Any, who: str) -> None:
    if isinstance(function, classmethod):
        raise DefinitionError(f"@task: {who} is a class method: define the task outside of a class")
    if not callable(function) or isinstance(function, type):
        raise DefinitionError(f"@task is for functions, and {function!r} is not one")
    if not inspect.isfunction(inspect.unwrap(function)):
        raise DefinitionError(f"@task is for functions written with def, and {who} is a {type(function).__name__}")
    if is_generator(function):
        raise DefinitionError(f"@task: {who} is a generator: return one value, without yield")
    if next(iter(inspect.signature(function).parameters), "") in ("self", "cls"):
        raise DefinitionError(f"@task: {who} is a method: define the task outside of a class")


def _read_signature(
    function: Any, who: str, local_names: Mapping[str, Any]
) -> tuple[inspect.Signature, str | None, Any]:
    """Return the signature with resolved types and without the context, that one's parameter, and the return type."""
    try:
        hints = get_type_hints(inspect.unwrap(function), localns=dict(local_names), include_extras=True)
    except Exception as error:  # a NameError, mostly; the code of annotations may raise anything
        raise DefinitionError(
            f"{who}: its annotations cannot be resolved: {error}: import their types at run time, "
            "not only under TYPE_CHECKING"
        ) from None
    signature = inspect.signature(function)
    contexts = [name for name in signature.parameters if _is_context(hints.get(name))]
    if len(contexts) > 1:
        raise DefinitionError(f"{who} has the context twice, as {' and '.join(contexts)}: keep one of them")
    own = [
        each.replace(annotation=hints.get(name, inspect.Parameter.empty))
        for name, each in signature.parameters.items()
        if name not in contexts
    ]
    return inspect.Signature(own), next(iter(contexts), None), _without_results(hints.get("return", Any))


def _is_context(kind: Any) -> bool:
    if get_origin(kind) in (Union, UnionType):
        return any(map(_is_context, get_args(kind)))
    return isinstance(kind, type) and issubclass(kind, TaskContext)


def _without_results(kind: Any) -> Any:
    """Return a return type without `Error` and `Snooze`, which a task may return in place of its output."""
    if get_origin(kind) not in (Union, UnionType):
        return NoneType if _is_result(kind) else kind
    kept = tuple(each for each in get_args(kind) if not _is_result(each))
    return Union[kept] if kept else NoneType  # noqa: UP007 -- of a tuple


def _is_result(kind: Any) -> bool:
    return isinstance(kind, type) and kind in get_args(Result)
