"""Run an attempt of a step or of a task within its app's middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

from pgflow.core.definition.context import Context
from pgflow.core.definition.middleware import Middleware, Proceed, StepCall
from pgflow.core.definition.results import Result
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.step import Step
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.definition.task_context import TaskContext
from pgflow.core.engine.attempt import AttemptError, attempt_error
from pgflow.process import acall_in_parent, call_in_parent

__all__ = ["Raised", "TaskStep", "around", "call", "call_task", "task_call"]


@dataclass(frozen=True, slots=True, eq=False)
class Raised:
    """An exception of a sync step, and the error of the attempt, made in the step's thread as in `attempt.call`."""

    error: BaseException
    failed: AttemptError


def call(step: Step, ctx: Context[Any], policy: Retry) -> Any:
    """Run a sync step in its thread and return its result, or a `Raised`. As `attempt.call`, for `around`."""
    try:
        return call_in_parent(step.execute, ctx)
    except BaseException as error:
        return Raised(error, attempt_error(error, policy, ctx.attempt))


class TaskStep(Step):
    """A task in the place of a step: middleware sees a task as a workflow of one step, both named like the task."""

    events: ClassVar[tuple[str, ...]] = ("done",)


@cache
def task_step(name: str) -> TaskStep:
    """Return the step of a task."""
    step = TaskStep()
    step._named = name
    return step


def task_call(task: TaskDefinition, ctx: TaskContext, given: Mapping[str, Any], worker: int | None = None) -> StepCall:
    """Return one attempt of a task as middleware sees it: `ctx.initial` are its arguments, `ctx.run` its job's id."""
    seen = Context(
        initial=given,
        id=f"{task.name}::{ctx.id}",
        value=str(ctx.id),
        run=ctx.id,
        workflow=task.name,
        step=task.name,
        attempt=ctx.attempt,
        metadata=ctx.metadata,
        conn=ctx.conn,
    )
    return StepCall(task_step(task.name), seen, ctx.queue, worker)


def call_task(task: TaskDefinition, given: dict[str, Any], number: int = 1) -> Any:
    """Run a sync task in its thread and return its result, or a `Raised`. As `task_attempt.call`, for `around`."""
    try:
        return call_in_parent(task.function, **given)
    except BaseException as error:
        return Raised(error, attempt_error(error, task.retry, number))


async def around(
    middleware: Sequence[Middleware], step_call: StepCall, execute: Callable[[], Awaitable[Any]]
) -> Result | AttemptError:
    """Run `execute` within the middleware, the first one outermost.

    Where the exception of a sync step comes out unchanged, its `AttemptError` is returned.
    """
    raised: list[Raised] = []

    async def run_step() -> Any:
        result = await execute()
        if type(result) is Raised:
            raised.append(result)
            raise result.error
        return result

    proceed: Proceed = run_step
    for each in reversed(middleware):
        proceed = partial(each, step_call, proceed)
    try:
        return await acall_in_parent(_call(proceed))
    except BaseException as error:
        for each_raised in raised:
            # Python turns a StopIteration that leaves a coroutine into a RuntimeError.
            is_wrapped = type(error) is RuntimeError and error.__cause__ is each_raised.error
            if error is each_raised.error or is_wrapped:
                return each_raised.failed
        raise
    finally:
        raised.clear()  # an exception refers to this frame: leave no reference cycle


async def _call(proceed: Proceed) -> Result:
    return await proceed()
