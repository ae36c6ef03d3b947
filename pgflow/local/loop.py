"""An event loop on a thread of its own, and the threads for sync steps: where steps run, and what close() ends."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from pgflow.core.definition.context import Context
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.step import Step
from pgflow.core.engine import attempt
from pgflow.process import acall_in_parent, current, exit_if_forked

__all__ = ["Loop"]


class Loop:
    """Runs tasks from its making until `close`; any thread may call it, but for `task` and `call`."""

    def __init__(self, threads: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._is_closed = False
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pgflow-local-step")
        # A daemon: a program that forgets to close it must still end.
        self._thread = threading.Thread(target=self._live, name="pgflow-local", daemon=True)
        self._thread.start()

    def is_here(self) -> bool:
        """Whether the caller is on its thread, where nothing may block."""
        return threading.current_thread() is self._thread

    def soon(self, what: Callable[..., object], *args: Any) -> None:
        """Call it on the loop, without what the caller's context variables hold."""
        self._loop.call_soon_threadsafe(what, *args, context=contextvars.Context())

    def later(self, seconds: float, what: Callable[[], object]) -> asyncio.TimerHandle:
        """Call it on the loop after a while."""
        return self._loop.call_later(seconds, what, context=contextvars.Context())

    def task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin a task, with context variables of its own."""
        return self._loop.create_task(work, context=contextvars.Context())

    async def call(self, step: Step, ctx: Context[Any], policy: Retry) -> Any:
        """Execute a step: async ones here, sync ones in a thread."""
        if step.is_async:
            return await acall_in_parent(cast("Awaitable[Any]", step.execute(ctx)))
        call: Callable[..., Any] = contextvars.copy_context().run
        result = await self._loop.run_in_executor(self._threads, call, attempt.call, step, ctx, policy)
        return await acall_in_parent(result) if inspect.isawaitable(result) else result

    def close(self) -> None:
        """Cancel what runs, wait until it and the sync steps that run have ended, and end the threads."""
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()
        self._threads.shutdown(cancel_futures=True)

    def _stop(self) -> None:
        self._is_closed = True
        self._loop.stop()

    def _live(self) -> None:
        loop, owner = self._loop, current()
        try:
            while not self._is_closed:
                # asyncio raises these two out of the loop, also from a task or callback that a step has started.
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
