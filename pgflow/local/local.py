"""An app without a database: `Local`, a client whose backend is memory, with a virtual clock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

from pgflow.client.app import App
from pgflow.client.schedule_request import declared_specs
from pgflow.client.storage import InstanceStorage
from pgflow.client.task import Task
from pgflow.client.workflow import Workflow
from pgflow.core.definition.middleware import Middleware, check_middleware
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.schedule import Schedule
from pgflow.core.values.codec import Codec
from pgflow.errors import ConfigError
from pgflow.local import report
from pgflow.local.backend import MemoryBackend
from pgflow.local.storage import Storage
from pgflow.local.waiters import Condition
from pgflow.local.write_through import WriteThrough
from pgflow.payloads.policy import PayloadPolicy

__all__ = ["Local"]


class Local(App):
    """An app whose workflows and tasks run in memory, in this process: like `Pgflow` and a worker, without a database.

    It starts to work at once, on threads of its own, and first continues what is active in `storage`: one of
    `pgflow.local.Storage`, or an object with the methods of `InstanceStorage`. Jobs of tasks are not stored there: they
    last as long as the `Local`. `threads` is how many sync steps run at
    once. A workflow's calls go to the app that was made last with it. A transactional step has no connection here, so a
    workflow that has one is refused at its start, unless `allow_transactional` lets such steps run with `ctx.conn`
    None. With a `codec` workflows may have secrets, as on PostgreSQL; memory holds them unencrypted, after a round trip
    through the codec. `middleware` runs around each step and `max_payload_bytes` is the limit of values, as in
    `Pgflow`; `schedules` fire on its clock, from its start on. Values stay in memory, so a `payload_store` is refused.
    Raises `DefinitionError` for an object that is not a workflow, `Conflict` for a storage in use, `GraphChanged` when
    an active instance does not fit it.

        with Local(workflows=[OrderFlow]) as app:
            OrderFlow.start("abc123", Order(item_count=3))
            app.drain(timeout=10)
            assert OrderFlow.get("abc123").status == "completed"
    """

    def __init__(
        self,
        workflows: Iterable[type[Workflow[Any]]] = (),
        storage: Storage | InstanceStorage | None = None,
        *,
        tasks: Iterable[Task[..., Any, Any]] = (),
        schedules: Iterable[Schedule] = (),
        threads: int = 32,
        allow_transactional: bool = False,
        codec: Codec | None = None,
        middleware: Iterable[Middleware] = (),
        max_payload_bytes: int | None = None,
        payload_store: None = None,
    ) -> None:
        if payload_store is not None:
            raise ConfigError(
                f"Local keeps values in memory and has no payload_store, got {type(payload_store).__name__}",
                hint="Leave it out: max_payload_bytes raises the limit of values here, too.",
            )
        policy = PayloadPolicy.of(codec, max_payload_bytes, None, None)
        self.codec = policy.codec
        self.middleware = list(check_middleware(middleware))  # read for each step, so tests may change it
        registry = Registry(workflows, tasks, has_codec=codec is not None, payload_limit=policy.limit)
        specs = declared_specs(schedules, registry, self.codec)
        self.storage = _opened(storage)
        self.storage.limit = policy.limit
        self._memory = MemoryBackend(
            registry,
            self.storage,
            threads,
            allow_transactional=allow_transactional,
            policy=policy,
            middleware=self.middleware,
        )
        self._scheduler = self._memory.scheduler
        super().__init__(registry, self._memory)
        self._bind()
        report.ready(self.storage.name)
        self._memory.instances.take_up_stored()
        self._memory.schedules.declare(specs)

    def adopt(self, given: Any) -> None:
        """Add a workflow or a task, as if it had been listed, and continue what is active of it in the storage.

        Raises `DefinitionError` when another one has its name.
        """
        super().adopt(given)
        if not isinstance(given, Task):
            self._memory.instances.take_up(given.definitions)

    def __repr__(self) -> str:
        tasks = f", tasks=[{', '.join(each.name for each in self.tasks)}]" if self.tasks else ""
        workflows = ", ".join(each.name for each in self.workflows)
        return f"Local(workflows=[{workflows}]{tasks}, storage={self.storage!r})"

    def close(self) -> None:
        """End its threads, once the running sync steps have ended; running async steps are cancelled.

        Active instances stay in the storage, for another `Local` to continue. Instances can still be read.
        """
        self._unbind()
        if self._scheduler.lock.is_ours:  # a forked child has none of its threads
            self._scheduler.close()
        self.storage.detach(self._memory.instances)

    async def aclose(self) -> None:
        """`close`, async."""
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def close() -> None:
            self.close()
            loop.call_soon_threadsafe(closed.set_result, None)

        thread = threading.Thread(target=close, name="pgflow-local-close")
        thread.start()
        await asyncio.shield(closed)
        thread.join()

    # -- time

    @property
    def now(self) -> datetime:
        """The time that timers go by: the real one, plus what `advance_time` has added."""
        return self._scheduler.clock.now()

    def drain(self, timeout: float | None = None) -> None:
        """Wait until nothing is left that continues without a signal, timers included, as `pgflow worker --drain`.

        Raises `TimeoutError` after `timeout` seconds.
        """
        self._wait(self._scheduler.is_drained, timeout)

    async def adrain(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- as its sync twin
        """`drain`, async."""
        await self._await(self._scheduler.is_drained, timeout)

    def settle(self, timeout: float | None = None) -> None:
        """Wait until no step runs or is ready to: the rest waits for time to pass or for a signal.

        Raises `TimeoutError` after `timeout` seconds.
        """
        self._wait(self._scheduler.is_settled, timeout)

    async def asettle(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- as its sync twin
        """`settle`, async."""
        await self._await(self._scheduler.is_settled, timeout)

    def advance_time(self, by: timedelta, timeout: float | None = 60.0) -> None:
        """Move the clock forward: waits, retries, snoozes and delayed starts that come due continue, in order.

        Returns when all that follows has settled. Raises `TimeoutError` when steps run for longer than `timeout`
        seconds without a pause.

            app.advance_time(timedelta(days=1))
        """
        self._memory.instances.check_open()
        with closing(self._scheduler.advancing(by)) as conditions:
            for condition in conditions:
                self._wait(condition, timeout)

    async def aadvance_time(self, by: timedelta, timeout: float | None = 60.0) -> None:  # noqa: ASYNC109 -- as its sync twin
        """`advance_time`, async."""
        self._memory.instances.check_open()
        with closing(self._scheduler.advancing(by)) as conditions:
            for condition in conditions:
                await self._await(condition, timeout)

    # -- waiting

    def _future(self, condition: Condition) -> Future[None]:
        if not self._scheduler.may_block():
            raise ConfigError("a step cannot wait for its own Local", hint="Wait in the code that made the Local.")
        return self._scheduler.until(condition)

    def _wait(self, condition: Condition, timeout: float | None) -> None:
        future = self._future(condition)
        try:
            future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise TimeoutError(self._still_active(timeout)) from None

    async def _await(self, condition: Condition, timeout: float | None) -> None:  # noqa: ASYNC109 -- as its sync twin
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wrap_future(self._future(condition))
        except TimeoutError:
            raise TimeoutError(self._still_active(timeout)) from None

    def _still_active(self, timeout: float | None) -> str:
        active = self._scheduler.describe()
        return f"after {timeout:g} s still active: {', '.join(active[:10])}{', …' if len(active) > 10 else ''}"


def _opened(storage: Storage | InstanceStorage | None) -> Storage:
    if storage is None:
        return Storage()
    return storage if isinstance(storage, Storage) else WriteThrough(storage)
