"""Where steps and tasks run: an event loop on its own thread, and a pool of threads for the sync ones."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

from pgflow.core.definition.context import Context
from pgflow.core.definition.middleware import Middleware, StepCall
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.step import Step
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.definition.task_context import TaskContext, running
from pgflow.core.engine import attempt, middleware, task_attempt
from pgflow.process import acall_in_parent, current, exit_if_forked

__all__ = ["Loop"]


class Loop:
    """Runs from its creation until `close`. Any thread may call its methods, except `task` and `call`."""

    def __init__(self, threads: int, around: Sequence[Middleware] = ()) -> None:
        self._middleware = around
        self._loop = asyncio.new_event_loop()
        self._is_closed = False
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pgflow-local-step")
        # A daemon: a program that does not close it must still end.
        self._thread = threading.Thread(target=self._main, name="pgflow-local", daemon=True)
        self._thread.start()

    def is_here(self) -> bool:
        """Whether the caller runs on the loop's thread, where nothing may block."""
        return threading.current_thread() is self._thread

    def soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call it on the loop, with empty context variables."""
        self._loop.call_soon_threadsafe(callback, *args, context=contextvars.Context())

    def later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Call it on the loop after some seconds."""
        return self._loop.call_later(seconds, callback, context=contextvars.Context())

    def task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task, with empty context variables."""
        return self._loop.create_task(work, context=contextvars.Context())

    async def call(self, step: Step, ctx: Context[Any], policy: Retry, current: Callable[[], TaskContext]) -> Any:
        """Execute a step within the middleware: an async one on the loop, a sync one in a thread."""
        with running(current):
            if not self._middleware:
                return await self._execute(attempt.call, step, ctx, policy)
            execute = partial(self._execute, middleware.call, step, ctx, policy)
            return await middleware.around(self._middleware, StepCall(step, ctx), execute)

    async def call_task(self, task: TaskDefinition, given: dict[str, Any], ctx: TaskContext) -> Any:
        """Call a task's function within the middleware, as `call` does a step."""
        with running(ctx):
            if not self._middleware:
                return await self._execute_task(task_attempt.call, task, given, ctx.attempt)
            execute = partial(self._execute_task, middleware.call_task, task, given, ctx.attempt)
            return await middleware.around(self._middleware, middleware.task_call(task, ctx, given), execute)

    async def _execute(self, call: Callable[..., Any], step: Step, ctx: Context[Any], policy: Retry) -> Any:
        if step.is_async:
            return await acall_in_parent(cast("Awaitable[Any]", step.execute(ctx)))
        return await self._in_thread(call, step, ctx, policy)

    async def _execute_task(
        self, call: Callable[..., Any], task: TaskDefinition, given: dict[str, Any], number: int
    ) -> Any:
        if task.is_async:
            return await acall_in_parent(task.function(**given))
        return await self._in_thread(call, task, given, number)

    async def _in_thread(self, call: Callable[..., Any], *args: Any) -> Any:
        in_context: Callable[..., Any] = contextvars.copy_context().run
        result = await self._loop.run_in_executor(self._threads, in_context, call, *args)
        return await acall_in_parent(result) if inspect.isawaitable(result) else result

    def close(self) -> None:
        """Cancel the tasks, wait until they and the running sync steps have ended, and end the threads."""
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()
        self._threads.shutdown(cancel_futures=True)

    def _stop(self) -> None:
        self._is_closed = True
        self._loop.stop()

    def _main(self) -> None:
        loop, owner = self._loop, current()
        try:
            while not self._is_closed:
                # asyncio raises these two out of the loop, also from a task or callback that a step started.
                try:
                    loop.run_forever()
                except (SystemExit, KeyboardInterrupt) as error:
                    exit_if_forked(owner, error)
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
