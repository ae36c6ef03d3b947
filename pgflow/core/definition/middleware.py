"""Middleware: async functions of an app that run around every attempt of every step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from pgflow.core.definition.context import Context
from pgflow.core.definition.results import Result
from pgflow.core.definition.step import Step
from pgflow.core.values.sanitize import type_name
from pgflow.errors import ConfigError

__all__ = ["Middleware", "Proceed", "StepCall", "check_middleware"]


@dataclass(frozen=True, slots=True)
class StepCall:
    """One attempt of a step, as its middleware sees it.

    `step` has the configuration of this place in the graph, `ctx` is what its `execute` gets: `ctx.id`, `ctx.run`,
    `ctx.workflow`, `ctx.step`, `ctx.attempt`, `ctx.metadata`, … It runs on `worker` (an id), in `queue`.
    """

    step: Step
    ctx: Context[Any]
    queue: str | None = None
    worker: int | None = None


Proceed: TypeAlias = Callable[[], Awaitable[Result]]
"""Runs the next middleware, and in the end the step; returns its result, or raises its exception."""

Middleware: TypeAlias = Callable[[StepCall, Proceed], Awaitable[Result]]
"""Runs around an attempt of a step, in the worker's event loop, and returns the attempt's result.

It may return another result, raise, or call `proceed` more than once. An exception that leaves it is that of the
attempt, which is retried as the step declares. Context variables that it sets are visible in the step, also in a sync
step, which runs in a thread. It must not block. A transactional step's middleware runs within the step's transaction.

    async def log_context(call: StepCall, proceed: Proceed) -> Result:
        with structlog.contextvars.bound_contextvars(instance=call.ctx.id, step=call.ctx.step):
            return await proceed()
"""


def check_middleware(middleware: Iterable[Middleware]) -> tuple[Middleware, ...]:
    """Return an app's middleware, the outermost first. Raises `ConfigError` for what cannot be called."""
    checked = tuple(middleware)
    for each in checked:
        if not callable(each):
            raise ConfigError(
                f"middleware must be async functions, got {type_name(each)}",
                hint="Define each as: async def name(call: StepCall, proceed: Proceed) -> Result",
            )
    return checked
