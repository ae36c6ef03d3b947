"""Replace what a step does, in all versions of a workflow that have it, for the time of a test."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

from pgflow.client.workflow import Workflow
from pgflow.core.definition.context import Context
from pgflow.core.definition.graph import Graph, Node
from pgflow.core.definition.results import Ok, Result
from pgflow.core.definition.step import Step, Target, as_step
from pgflow.errors import ConfigError

__all__ = ["StepMock", "mocked"]

Behaviour: TypeAlias = Callable[[Context[Any]], Any]
Answer: TypeAlias = Result | BaseException | type[BaseException]

# The nodes of each replaced step: the original, then those of the mocks, the latest last.
replaced: dict[tuple[int, str], list[Node]] = {}


@dataclass(slots=True)
class StepMock:
    """A step that was replaced: `calls` are the contexts of its calls so far, in order.

    with mocked(OrderFlow, charge, returns=Ok("paid")) as charged:
        ...
        assert [ctx.value for ctx in charged.calls] == ["abc123"]
    """

    step: str
    calls: list[Context[Any]] = field(default_factory=list)


@contextmanager
def mocked(
    workflow: type[Workflow[Any]],
    step: str | Target,
    *,
    returns: Result | Sequence[Answer] | None = None,
    raises: BaseException | type[BaseException] | None = None,
    calls: Behaviour | None = None,
) -> Iterator[StepMock]:
    """Let a step of a workflow return, raise or call something else, within the `with`, in this process.

    Exactly one of: `returns`, a result, or a sequence of results and exceptions, one for each call; `raises`, an
    exception; `calls`, a function of the context, which may be async if the step is. Events, retries, queue and output
    type stay those of the step. It applies to a `Local` and to the workers and drains of this process; steps of other
    workflows are not affected. Raises `UnknownStep`, `UndeclaredEvent` for a result with an event that the step does
    not declare, `ConfigError` for another use.

        with mocked(OrderFlow, charge, returns=[TimeoutError(), Ok("paid", {"receipt": "r-1"})]):
            OrderFlow.start("abc123", order)
            drain(app)
    """
    key = step if isinstance(step, str) else as_step(step).key
    graphs = [graph for graph in workflow.definitions.graphs if key in graph.nodes]
    if not graphs:
        workflow.definitions.graphs[0].node(key)
    mock = StepMock(key)
    behave = _behaviour(mock, returns, raises, calls)
    for graph in graphs:
        _check(graph, key, returns)
    nodes = [_replace(graph, key, behave) for graph in graphs]
    try:
        yield mock
    finally:
        for graph, node in zip(graphs, nodes, strict=True):
            _restore(graph, key, node)


def _behaviour(mock: StepMock, returns: Any, raises: Any, calls: Behaviour | None) -> Behaviour:
    given = [name for name, value in (("returns", returns), ("raises", raises), ("calls", calls)) if value is not None]
    if len(given) != 1:
        raise ConfigError(
            f"mocked({mock.step}): give one of returns, raises and calls, got {' and '.join(given) or 'none'}"
        )
    if calls is not None:
        act = calls
    elif raises is not None:
        _check_answer(mock, raises, BaseException)
        act = _always(raises)
    elif isinstance(returns, Result):
        act = _always(returns)
    elif isinstance(returns, Sequence) and not isinstance(returns, str | bytes):
        for each in returns:
            _check_answer(mock, each, Result | BaseException)
        act = _in_turn(mock, list(returns))
    else:
        raise ConfigError(
            f"mocked({mock.step}): returns must be Ok, Async, Error or Snooze, or several, got {returns!r}"
        )

    def behave(ctx: Context[Any]) -> Any:
        mock.calls.append(ctx)
        return act(ctx)

    return behave


def _check_answer(mock: StepMock, answer: Any, kinds: Any) -> None:
    is_exception = isinstance(answer, type) and issubclass(answer, BaseException)
    if not (is_exception or isinstance(answer, kinds)):
        allowed = "an exception" if kinds is BaseException else "a result of a step or an exception"
        raise ConfigError(f"mocked({mock.step}): {answer!r} is not {allowed}")


def _always(answer: Answer) -> Behaviour:
    def act(ctx: Context[Any]) -> Result:
        if isinstance(answer, Result):
            return answer
        raise answer

    return act


def _in_turn(mock: StepMock, answers: list[Answer]) -> Behaviour:
    left, number = iter(answers), len(answers)

    def act(ctx: Context[Any]) -> Any:
        answer = next(left, None)
        if answer is None:
            raise AssertionError(f"the mock of {mock.step} has {number} result(s), and was called once more")
        return _always(answer)(ctx)

    return act


def _check(graph: Graph, key: str, returns: Any) -> None:
    if graph.nodes[key].step.is_end:
        raise ConfigError(f"mocked({key}): the end of a workflow runs nothing")
    for each in returns if isinstance(returns, Sequence) else [returns]:
        if isinstance(each, Ok):
            graph.choice(key, each.event)


def _replace(graph: Graph, key: str, behave: Behaviour) -> Node:
    node = graph.nodes[key]
    mock = replace(node, step=_double(node.step, behave))
    replaced.setdefault((id(graph), key), [node]).append(mock)
    _nodes(graph)[key] = mock
    return mock


def _restore(graph: Graph, key: str, mock: Node) -> None:
    """Remove a mock; one that was made later stays."""
    stack = replaced[id(graph), key]
    stack.remove(mock)
    _nodes(graph)[key] = stack[-1]
    if len(stack) == 1:
        del replaced[id(graph), key]


def _nodes(graph: Graph) -> dict[str, Node]:
    """Return the nodes of a graph, to change them: workers, `Local`s and apps share them by reference."""
    nodes: Mapping[str, Node] = graph.nodes
    return cast("dict[str, Node]", nodes)


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
        "execute": execute_async if step.is_async else execute,
    }
    metaclass: Any = type(kind)
    double: Step = metaclass(kind.__name__, (kind,), namespace).model_construct(**step.__dict__)
    double._named = step._named
    return double
