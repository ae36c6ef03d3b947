"""Replace what a step of a workflow, or a task, does for the time of a test."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

from pgflow.client.task import Task
from pgflow.client.workflow import Workflow
from pgflow.core.definition.context import Context
from pgflow.core.definition.graph import Graph, Node
from pgflow.core.definition.results import Ok, Result
from pgflow.core.definition.step import Step, Target, as_step
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.values.absent import ABSENT
from pgflow.errors import ConfigError

__all__ = ["Mock", "mocked"]

Behaviour: TypeAlias = Callable[..., Any]

# The nodes of each replaced step, and the functions of each replaced task: the original, then those of the mocks.
nodes: dict[tuple[int, str], list[Node]] = {}
functions: dict[int, list[Behaviour]] = {}


@dataclass(slots=True)
class Mock:
    """A step or a task that was replaced. `calls` are its calls, in order: contexts, or arguments by name.

    with mocked(OrderFlow, charge, returns=Ok("paid")) as charged:
        ...
        assert [ctx.value for ctx in charged.calls] == ["abc123"]
    """

    name: str
    calls: list[Any] = field(default_factory=list)


@contextmanager
def mocked(
    what: type[Workflow[Any]] | Task[..., Any, Any],
    step: str | Target | None = None,
    *,
    returns: Any = ABSENT,
    raises: BaseException | type[BaseException] | None = None,
    in_turn: Sequence[Any] | None = None,
    calls: Behaviour | None = None,
) -> Iterator[Mock]:
    """Let a step of a workflow, or a task, return, raise or call something else within the `with`, in this process.

    Exactly one of: `returns`, the result of the step or the output of the task; `raises`, an exception; `in_turn`,
    results and exceptions, one for each call; `calls`, a function of the step's context, or of the task's arguments by
    name, which may be async if the original is. Events, retries, queue and types stay those of the original. It applies
    to a `Local` and to the workers and drains of this process. Other workflows with the step are not affected, nor a
    task where your code calls it as a function.

    Raises `UnknownStep`, `UndeclaredEvent` for a result with an event that the step does not declare, `ConfigError` for
    another use.

        with mocked(OrderFlow, charge, in_turn=[TimeoutError(), Ok("paid", {"receipt": "r-1"})]):
            OrderFlow.start("abc123", order)
            drain(app)
    """
    with ExitStack() as restore:
        if isinstance(what, Task):
            if step is not None:
                raise ConfigError(f"mocked({what.name}): a task has no steps, got {step!r}")
            mock = Mock(what.name)
            _replace_task(what.definition, _recording(mock, _act(mock, returns, raises, in_turn, calls)), restore)
        else:
            if step is None:
                raise ConfigError(f"mocked({what.name}): name the step to replace: mocked({what.name}, charge, …)")
            mock = Mock(step if isinstance(step, str) else as_step(step).key)
            act = _act(mock, returns, raises, in_turn, calls)
            results = [] if raises is not None or calls is not None else [returns] if in_turn is None else in_turn
            graphs = [graph for graph in what.definitions.graphs if mock.name in graph.nodes]
            for graph in graphs or what.definitions.graphs[:1]:
                _check_results(graph, mock.name, results)
            for graph in graphs:
                _replace_step(graph, mock.name, _recording(mock, act), restore)
        yield mock


def _act(
    mock: Mock,
    returns: Any,
    raises: BaseException | type[BaseException] | None,
    in_turn: Sequence[Any] | None,
    calls: Behaviour | None,
) -> Behaviour:
    """Return what the mock does in each call."""
    given = {"returns": returns, "raises": raises, "in_turn": in_turn, "calls": calls}
    named = [name for name, value in given.items() if value is not (ABSENT if name == "returns" else None)]
    if len(named) != 1:
        raise ConfigError(
            f"mocked({mock.name}): give one of {', '.join(given)}, got {' and '.join(named) or 'none of them'}"
        )
    if calls is not None:
        return calls
    if raises is not None and not _is_exception(raises):
        raise ConfigError(f"mocked({mock.name}): {raises!r} is not an exception")
    if in_turn is None:
        return lambda *args, **kwargs: _answer(returns if raises is None else raises)
    if not isinstance(in_turn, Sequence) or isinstance(in_turn, str | bytes):
        raise ConfigError(f"mocked({mock.name}): in_turn must be a list of results and exceptions, got {in_turn!r}")
    left, number = iter(in_turn), len(in_turn)

    def act(*args: Any, **kwargs: Any) -> Any:
        for each in left:
            return _answer(each)
        raise AssertionError(f"the mock of {mock.name} has {number} result(s), and was called once more")

    return act


def _answer(given: Any) -> Any:
    if _is_exception(given):
        raise given
    return given


def _is_exception(given: Any) -> bool:
    return isinstance(given, BaseException) or (isinstance(given, type) and issubclass(given, BaseException))


def _recording(mock: Mock, act: Behaviour) -> Behaviour:
    def behave(*args: Any, **kwargs: Any) -> Any:
        mock.calls.append(args[0] if args else kwargs)
        return act(*args, **kwargs)

    return behave


def _check_results(graph: Graph, key: str, results: Sequence[Any]) -> None:
    """Raise for a step that the graph does not have, and for results that it could not return."""
    if graph.node(key).step.is_end:
        raise ConfigError(f"mocked({key}): the end of a workflow runs nothing")
    for each in results:
        if isinstance(each, Ok):
            graph.choice(key, each.event)
        elif not (isinstance(each, Result) or _is_exception(each)):
            raise ConfigError(f"mocked({key}): a step returns Ok, Async, Error or Snooze, not {each!r}")


def _replace_step(graph: Graph, key: str, behave: Behaviour, restore: ExitStack) -> None:
    original = graph.nodes[key]
    mock = replace(original, step=_double(original.step, behave))
    stack = nodes.setdefault((id(graph), key), [original])
    mapping: Mapping[str, Node] = graph.nodes
    shared = cast("dict[str, Node]", mapping)  # by apps, workers and Locals

    def undo() -> None:
        """Remove this mock; one that was made later stays."""
        stack.remove(mock)
        shared[key] = stack[-1]

    stack.append(mock)
    shared[key] = mock
    restore.callback(undo)


def _replace_task(task: TaskDefinition, behave: Behaviour, restore: ExitStack) -> None:
    stack = functions.setdefault(id(task), [task.function])
    mock = _like(behave, is_async=task.is_async)
    is_cpu = task.cpu

    def use(function: Behaviour) -> None:
        object.__setattr__(task, "function", function)  # frozen; shared by apps, workers and Locals
        object.__setattr__(task, "cpu", is_cpu and function is stack[0])  # a process would run the original

    def undo() -> None:
        stack.remove(mock)
        use(stack[-1])

    stack.append(mock)
    use(mock)
    restore.callback(undo)


def _like(behave: Behaviour, *, is_async: bool) -> Behaviour:
    """Return a function that behaves so, a coroutine function if the original is one."""

    async def call_async(*args: Any, **kwargs: Any) -> Any:
        result = behave(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    def call(*args: Any, **kwargs: Any) -> Any:
        return behave(*args, **kwargs)

    return call_async if is_async else call


def _double(step: Step, behave: Behaviour) -> Step:
    """Return a step like this one, of a subclass with the same name and key, which behaves differently."""
    kind = type(step)

    async def execute_async(self: Step, ctx: Context[Any]) -> Any:
        result = behave(ctx)
        return await result if inspect.isawaitable(result) else result

    def execute(self: Step, ctx: Context[Any]) -> Any:
        return behave(ctx)

    namespace = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "cpu": False,  # a process of the pool would run the original
        "execute": execute_async if step.is_async else execute,
    }
    metaclass: Any = type(kind)
    double: Step = metaclass(kind.__name__, (kind,), namespace).model_construct(**step.__dict__)
    double._named = step._named
    return double
