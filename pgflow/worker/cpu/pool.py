"""A bounded number of child processes that run attempts, one each at a time."""

from __future__ import annotations

import asyncio
import os

from pgflow.core.definition.control import Control
from pgflow.errors import ConfigError
from pgflow.worker.cpu.child import NO_CONTROL, Child, ChildLost, ChildSetup
from pgflow.worker.cpu.frames import Message

__all__ = ["CpuPool", "checked_size"]

MAX_SIZE = 1000


def checked_size(given: int | None) -> int:
    """Return how many processes a pool has: by default one for each processor that this process may use.

    Raises `ConfigError`.
    """
    if given is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= MAX_SIZE:
        raise ConfigError(f"cpu_processes must be a whole number from 1 to {MAX_SIZE:,}, got {given!r}")
    return given


class CpuPool:
    """Runs attempts in at most `size` processes; they are started when needed, and again after one was lost.

    pool = CpuPool(ChildSetup("shop:app", reveal=False, limit=1_048_576), 4)
    answer = await pool.run({"step": "resize", …}, limit=30.0)
    """

    def __init__(self, setup: ChildSetup, size: int) -> None:
        self._setup = setup
        self._places = asyncio.Semaphore(size)
        self._idle: list[Child] = []
        self._children: set[Child] = set()

    @property
    def pids(self) -> list[int]:
        """The ids of the processes."""
        return [child.pid for child in self._children if not child.has_ended]

    async def start(self) -> None:
        """Start a first process, to find out whether it can import the app. Raises `ConfigError`."""
        try:
            self._idle.append(await self._new())
        except ChildLost as error:
            raise ConfigError(
                str(error), hint="A process for cpu=True steps imports the app as the worker does: check the name."
            ) from error

    async def run(self, request: Message, limit: float | None = None, control: Control = NO_CONTROL) -> Message:
        """Run an attempt as soon as a process is free, and return its answer; `control` takes what it reports.

        Raises `TimeoutError` after `limit` seconds and `ChildLost` when the process ends; the process is then killed,
        as when this is cancelled.
        """
        async with self._places:
            child = self._take_idle() or await self._new()
            try:
                async with asyncio.timeout(limit):
                    answer = await child.ask(request, control)
            except BaseException:
                child.kill()
                self._children.discard(child)
                raise
            self._idle.append(child)
            return answer

    async def close(self) -> None:
        """Kill all processes, and wait until they have ended."""
        children, self._children, self._idle = self._children, set(), []
        for child in children:
            child.kill()
        for child in children:
            await child.aclose()

    def _take_idle(self) -> Child | None:
        while self._idle:
            child = self._idle.pop()
            if not child.has_ended:
                return child
            child.kill()
            self._children.discard(child)
        return None

    async def _new(self) -> Child:
        child = await Child.start(self._setup)
        self._children.add(child)
        return child
