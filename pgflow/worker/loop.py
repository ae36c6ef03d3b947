"""Run a worker in an event loop that no step can end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from pgflow.core.values.sanitize import type_name
from pgflow.logs import Logger, is_interrupt
from pgflow.process import current, exit_if_forked

__all__ = ["run"]

log = Logger("pgflow.worker")


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine like `asyncio.run`, and continue when a task or callback of a step raises SystemExit.

    asyncio records a SystemExit or KeyboardInterrupt as the result of its task, and also raises it out of the loop. The
    first is enough: the code that awaits the task gets the exception. Ctrl+C works as with `asyncio.run`.
    """
    owner = current()
    with asyncio.Runner() as runner:
        task = runner.get_loop().create_task(main)
        while True:
            try:
                runner.run(_join(task))
            except (SystemExit, KeyboardInterrupt) as error:
                exit_if_forked(owner, error)  # a task of a step may have forked
                if task.done() and not task.cancelled():
                    return task.result()
                if task.cancelling() or is_interrupt(error):
                    raise
                log.warning("a step's task raised %s; the worker goes on", type_name(error))
            else:
                return task.result()


async def _join(task: asyncio.Task[None]) -> None:
    """Wait until a task has ended; a cancellation cancels it."""
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        raise
