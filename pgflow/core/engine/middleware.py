"""Run an attempt of a step within its app's middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pgflow.core.definition.context import Context
from pgflow.core.definition.middleware import Middleware, Proceed, StepCall
from pgflow.core.definition.results import Result
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.step import Step
from pgflow.core.engine.attempt import AttemptError, attempt_error
from pgflow.process import acall_in_parent, call_in_parent

__all__ = ["Raised", "around", "call"]


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
        return Raised(error, attempt_error(error, policy))


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
